"""List all problems of a dataset made elsewhere, not only the first one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pymatgen.core import Composition, Structure

from ..density.charge_density import STORED_KINDS, check_grid_fits_cell
from ..density.crystals import check_crystal
from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..inputs.text.extents import EXTENTS
from . import schema
from .dataset import Dataset
from .labels import mask_labels
from .parquet import ROWS_IN_GROUP, describe_unreadable, require_files
from .schema import KNOWN, TARGETS, Problem
from .selection import duplicate_filter

PLAUSIBLE_LABELS: dict[str, tuple[float, float]] = {
    "formation_energy_per_atom": (-10.0, 10.0),
    "efermi": (-30.0, 30.0),
    "band_gap": (0.0, 30.0),
    "cubic_lattice_constant": (1.0, 1000.0),
}
"""Column → (lowest, highest) in its unit. The ranges are wide: a value outside is in another unit,
or per cell."""

INTEGRAL_TOLERANCE = 1e-3
"""Largest difference between an integral and the one in its provenance, as a fraction of it or in
electrons, whichever is larger. float32 and another order of summation account for it."""

# integral of `total` as a fraction of all electrons; the bundled pseudo-densities have 9 to 58 %
_ELECTRON_SHARE = (0.02, 1.01)
# integral of `difference` as a fraction of that of `total`; the bundled ones are below 5 %
_DIFFERENCE_SHARE = 0.1

_COLUMNS = ["severity", "material_id", "column", "problem", "cure"]
_PACK = "build the dataset again, or correct this row"


def validate_file(path: str | os.PathLike) -> pd.DataFrame:
    """List all problems of a dataset: a Parquet file, or a folder of such files.

    The check covers columns, types, units, ids, grids and targets
    (:func:`rhosight.dataset.schema.inspect`), and the content: structures that cannot be read or
    contradict formula, number of atoms or grid; NaN in grids; integrals that contradict provenance
    or the number of electrons; impossible labels; missing texts; one crystal under two ids.
    Densities are read a few at a time.

    Parameters
    ----------
    path
        The dataset, whichever program wrote it.

    Returns
    -------
    pd.DataFrame
        Columns severity ("error": the material or the file cannot be used, or its numbers mean
        something else; "warning": usable, but check it), material_id (empty for the whole file),
        column, problem, cure. Errors come first. Empty for a valid dataset.

    Raises
    ------
    RhosightError
        If there is no such file, or it is not a Parquet file.
    """
    path = Path(path)
    files = require_files(path)
    problems: dict[Problem, None] = {}  # parts of a file may share a problem
    parts = []
    rows = 0
    for file in files:
        for table in _parts(file):
            checked, errors = schema.inspect(table, rows)
            ids = schema.ids_of(table, rows)
            rows += len(table)
            light = [
                f.name for f in checked.schema if schema.role_of(f) not in ("density", "image")
            ]
            parts.append(checked.select(light))
            problems |= dict.fromkeys(
                [*errors, *_undeclared_units(table.schema), *_row_problems(checked, ids)]
            )
    try:
        whole = pa.concat_tables(parts, promote_options="default")
    except pa.ArrowException:
        what, cure = "the files of the folder have different columns", "build the dataset again"
        problems[Problem(what, cure)] = None
    else:
        problems |= dict.fromkeys(_whole_problems(whole))
    table = pd.DataFrame([asdict(p) for p in problems], columns=_COLUMNS, dtype=object)
    return table.sort_values("severity", kind="stable", ignore_index=True)


def _parts(file: Path) -> Iterator[pa.Table]:
    """Yield the rows of a file, a few at a time; once without rows if it has none."""
    try:
        with pq.ParquetFile(file) as content:
            if not content.metadata.num_rows:  # its columns can still be checked
                yield content.schema_arrow.empty_table()
            for batch in content.iter_batches(ROWS_IN_GROUP):
                table = pa.Table.from_batches([batch], content.schema_arrow)
                table.validate(full=True)
                yield table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RhosightError(describe_unreadable(file)) from error


def _undeclared_units(file_schema: pa.Schema) -> list[Problem]:
    """Warn of columns without a unit; they are read in the schema's unit."""
    declared = schema.declared_units(file_schema)
    problems = []
    for name in dict.fromkeys(file_schema.names):
        column = KNOWN.get(name)
        if name in declared or column is None or column.role not in ("target", "density"):
            continue
        what = f"`{name}` declares no unit; it is read in {column.unit}"
        cure = f"check that the unit is {column.unit}, and set `unit` in the field's metadata"
        problems.append(Problem(what, cure, name, severity="warning"))
    return problems


def _row_problems(table: pa.Table, ids: list[str]) -> Iterator[Problem]:
    """Yield the problems of each row.

    The schema cannot see them: structures, grid values, integrals, labels and texts.
    """
    kinds = [kind for kind in STORED_KINDS if kind in table.column_names]
    columns = {name: table[name] for name in table.column_names}
    light = [name for name in columns if name not in (*kinds, "image")]
    extents = [extent for extent in EXTENTS if _has_texts(table, extent)]
    for row, material_id in enumerate(ids):
        values = {name: columns[name][row].as_py() for name in light}
        structure, problems = _read_structure(values, material_id)
        yield from problems
        provenance, problems = _read_json(values, "provenance", material_id)
        yield from problems
        yield from _read_json(values, "masked", material_id)[1]
        yield from _label_problems(values, material_id)
        for extent in EXTENTS:
            if extent in extents and not values[f"text_{extent}"]:
                what = f"no text `{extent}` for {material_id}"
                cure = "add it with rhosight.describe, if models are to read texts"
                yield Problem(what, cure, f"text_{extent}", material_id, "warning")
        cells = {kind: columns[kind][row] for kind in kinds}
        grids: dict[str, np.ndarray] = {
            kind: cell.values.to_numpy(zero_copy_only=False)
            for kind, cell in cells.items()
            if cell.is_valid
        }
        has_image = "image" in columns and columns["image"][row].is_valid
        if values.get("grid") and not grids and not has_image:
            what, cure = f"{material_id} has a grid but no density", "add it, or remove the grid"
            yield Problem(what, cure, "", material_id)
        yield from _density_problems(grids, values, structure, provenance or {}, material_id)


def _read_structure(
    values: Mapping[str, Any], material_id: str
) -> tuple[Structure | None, list[Problem]]:
    """Return the structure of a row (None if unreadable), and its problems.

    The problems include contradictions to the other columns of the row.
    """
    text = values.get("structure")
    if not text:
        return None, []  # the schema reports it
    try:
        structure = parse_structure_json(text, material_id)
        check_crystal(structure, material_id)
    except RhosightError as error:
        what, _, cure = str(error).removeprefix(f"{material_id}: ").rpartition("; ")
        what = f"`structure` of {material_id}: {what}"
        return None, [Problem(what, cure, "structure", material_id)]
    problems = []
    formula, nsites = values.get("formula"), values.get("nsites")
    if formula and _reduce_formula(formula) != structure.composition.reduced_formula:
        has = structure.composition.reduced_formula
        what = f"`formula` of {material_id} is {formula}, its structure is {has}"
        problems.append(Problem(what, _PACK, "formula", material_id))
    if nsites is not None and nsites != len(structure):
        what = f"`nsites` of {material_id} is {nsites}, its structure has {len(structure)}"
        problems.append(Problem(what, _PACK, "nsites", material_id))
    group = values.get("spacegroup_number")
    if group is not None and not 1 <= group <= 230:
        what = f"`spacegroup_number` of {material_id} is {group}, space groups run from 1 to 230"
        problems.append(Problem(what, _PACK, "spacegroup_number", material_id))
    shape = values.get("grid")
    if shape and len(shape) == 3 and None not in shape and min(shape) >= 1:
        try:
            check_grid_fits_cell(tuple(shape), structure, material_id)
        except RhosightError as error:
            what, _, cure = str(error).removeprefix(f"{material_id}: ").partition("; ")
            problems.append(Problem(f"{what} of {material_id}", cure, "grid", material_id))
    return structure, problems


def _reduce_formula(formula: str) -> str:
    """Return a formula in pymatgen's order of elements; other texts unchanged."""
    try:
        return Composition(formula).reduced_formula
    except ValueError:
        return formula


def _read_json(
    values: Mapping[str, Any], name: str, material_id: str
) -> tuple[dict | None, list[Problem]]:
    text = values.get(name)
    if not text:
        return None, []
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return content, []
    what = f"`{name}` of {material_id} is not a JSON object"
    return None, [Problem(what, "write it with json.dumps, or leave it empty", name, material_id)]


def _label_problems(values: Mapping[str, Any], material_id: str) -> Iterator[Problem]:
    for name, (lowest, highest) in PLAUSIBLE_LABELS.items():
        value, unit = values.get(name), KNOWN[name].unit
        if value is not None and np.isfinite(value) and not lowest <= value <= highest:
            what = (
                f"`{name}` of {material_id} is {value:g} {unit}, outside "
                f"[{lowest:g}, {highest:g}] {unit}"
            )
            yield Problem(
                what, "check its unit and its reference state", name, material_id, "warning"
            )
    label = pd.DataFrame([values], index=[material_id])
    for row in mask_labels(label)[1].itertuples():
        what = f"`{row.target}` of {material_id} is {row.value:g} GPa: {row.reason}"
        cure = "mask it with `rhosight data clean`, or correct it"
        yield Problem(what, cure, str(row.target), material_id, "warning")


def _density_problems(
    grids: Mapping[str, np.ndarray],
    values: Mapping[str, Any],
    structure: Structure | None,
    provenance: Mapping[str, Any],
    material_id: str,
) -> Iterator[Problem]:
    integrals = {}
    shape = values.get("grid") or [0]
    points = 0 if None in shape else math.prod(shape)
    for kind, grid in grids.items():
        bad = grid.size - int(np.isfinite(grid).sum())
        if bad:
            what = f"{bad} of {grid.size} values of `{kind}` of {material_id} are NaN or infinite"
            cure = "write it again from a converged calculation"
            yield Problem(what, cure, kind, material_id)
        elif structure is not None and grid.size == points > 0:
            integrals[kind] = float(grid.mean(dtype=float)) * structure.volume
    stored = provenance.get("integrals")
    for kind, integral in integrals.items():
        declared = stored.get(kind) if isinstance(stored, dict) else None
        if isinstance(declared, int | float):
            allowed = INTEGRAL_TOLERANCE * max(1.0, abs(declared))
            if abs(integral - declared) > allowed:
                what = (
                    f"`{kind}` of {material_id} integrates to {integral:.4g} electrons, its "
                    f"provenance says {declared:.4g}"
                )
                cure = "density, cell and provenance do not match: build the row again"
                yield Problem(what, cure, kind, material_id)
    if structure is not None:
        yield from _electron_problems(integrals, structure, material_id)


def _electron_problems(
    integrals: Mapping[str, float], structure: Structure, material_id: str
) -> Iterator[Problem]:
    """Report integrals that are impossible for this crystal."""
    elements = structure.composition.element_composition.items()
    electrons = sum(element.Z * amount for element, amount in elements)
    total = integrals.get("total")
    units = "values must be e/Å³: divide a CHGCAR's by the cell volume, e/Bohr³ by 0.14818"
    low, high = (share * electrons for share in _ELECTRON_SHARE)
    if total is not None and not low <= total <= high:
        what = (
            f"`total` of {material_id} integrates to {total:.4g} electrons, the atoms have "
            f"{electrons:g}"
        )
        yield Problem(what, units, "total", material_id)
        return  # the limits of the other kinds depend on it
    scale = electrons if total is None else total
    limits = {"difference": _DIFFERENCE_SHARE * scale, "spin": scale}
    for kind, limit in limits.items():
        if kind in integrals and abs(integrals[kind]) > limit:
            what = (
                f"`{kind}` of {material_id} integrates to {integrals[kind]:.4g} electrons, beyond "
                f"±{limit:.4g}"
            )
            cure = f"check that the column holds the {kind} density, in e/Å³"
            yield Problem(what, cure, kind, material_id, "warning")


def _whole_problems(table: pa.Table) -> Iterator[Problem]:
    """Yield problems that only all rows show; ``table`` has no densities."""
    yield from schema.find_duplicate_ids(schema.ids_of(table))
    if not len(table):
        yield Problem("the dataset holds no material", "add some")
    for name in TARGETS:
        if name not in table.column_names or table[name].null_count == len(table):
            what, cure = f"no value of `{name}`", "add the label, if models are to learn it"
            yield Problem(what, cure, name, severity="warning")
    for field in table.schema:
        unknown = field.name not in KNOWN and schema.role_of(field) == "target"
        if unknown and not schema.unit_of(field):
            what, cure = f"`{field.name}` has no unit", "set `unit` in the field's metadata"
            yield Problem(what, cure, field.name, severity="warning")
    for extent in EXTENTS:
        if not _has_texts(table, extent):
            what, cure = (
                f"no texts `{extent}`",
                "add them with rhosight.describe, if models are to read texts",
            )
            yield Problem(what, cure, f"text_{extent}", severity="warning")
    if "provenance" not in table.column_names or table["provenance"].null_count:
        what = "some materials have no provenance: their code and kind of density are unknown"
        cure = "add the column, see docs/dataset.md"
        yield Problem(what, cure, "provenance", severity="warning")
    yield from _duplicate_crystals(table)


def _duplicate_crystals(table: pa.Table) -> Iterator[Problem]:
    """Yield pairs of ids with one crystal, among rows with readable structures."""
    needed = ("material_id", "formula", "spacegroup_number", "structure")
    if not set(needed) <= set(table.column_names):
        return
    rows = table.select(needed).to_pylist()
    readable = [
        i
        for i, row in enumerate(rows)
        if None not in row.values() and _read_structure(row, row["material_id"])[0] is not None
    ]
    unique = list({rows[i]["material_id"]: i for i in readable}.values())
    _, pairs = duplicate_filter(Dataset(table, np.array(unique, dtype=int)))
    for pair in pairs.itertuples():
        what = f"{pair.material_id} is {pair.reason}"
        cure = "keep one of them (`rhosight data clean` does)"
        yield Problem(what, cure, "material_id", str(pair.material_id), "warning")


def _has_texts(table: pa.Table, extent: str) -> bool:
    """Return whether any material has a text: a dataset may have been built without."""
    name = f"text_{extent}"
    return name in table.column_names and table[name].null_count < len(table)
