"""Names, types, units and roles of a dataset's Parquet columns; checks of tables.

One row is one material. Grids are stored as flat lists in C order of ``grid[i, j, k]``, e/Å³, with
their shape beside them; the structure is the cell of these grids. A material without density has
neither, and any cell. Every field carries its description, unit and role as Arrow field metadata,
so that a file explains itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..density.charge_density import STORED_KINDS
from ..errors import RhosightError
from ..inputs.text.extents import EXTENTS

SCHEMA_VERSION = "1"

Role = Literal["identity", "structure", "density", "image", "target", "label", "text", "record"]

_GRID = pa.list_(pa.float32())
_JSON = pa.string()


@dataclass(frozen=True)
class Column:
    """Describe one known column.

    ``unit`` is empty for a column without one; ``required`` columns have no nulls.
    """

    name: str
    type: pa.DataType
    role: Role
    description: str
    unit: str = ""
    required: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("material_id", pa.string(), "identity", "unique name of the material", required=True),
    Column("formula", pa.string(), "identity", "reduced formula", required=True),
    Column(
        "spacegroup_number", pa.int32(), "identity", "spglib, symprec 0.1 Å unless served so",
        required=True,
    ),
    Column("nsites", pa.int32(), "identity", "atoms in the cell of `structure`", required=True),
    Column("cubic_lattice_constant", pa.float64(), "label", "edge of the cubic cell", "Å"),
    Column(
        "structure", _JSON, "structure", "pymatgen Structure dict, of the cell of the grids if any",
        "lattice in Å, sites in fractional coordinates", required=True,
    ),
    Column("grid", pa.list_(pa.int32()), "structure", "grid points (nx, ny, nz), if any"),
    Column("total", _GRID, "density", "charge density of the converged SCF", "e/Å³"),
    Column("difference", _GRID, "density", "total minus superposed free atoms", "e/Å³"),
    Column("spin", _GRID, "density", "spin-up minus spin-down density", "e/Å³"),
    Column(
        "image", pa.list_(pa.float16()), "image",
        "drawn image, C order of (3, pixels, pixels), in [-1, 1]; how: file metadata `image`",
    ),
    Column("formation_energy_per_atom", pa.float64(), "target", "formation energy", "eV/atom"),
    Column("efermi", pa.float64(), "target", "Fermi energy", "eV"),
    Column(
        "bulk_modulus_vrh", pa.float64(), "target", "bulk modulus, Voigt-Reuss-Hill average", "GPa"
    ),
    Column("bulk_modulus_voigt", pa.float64(), "label", "upper bound, as served", "GPa"),
    Column("bulk_modulus_reuss", pa.float64(), "label", "lower bound, as served", "GPa"),
    Column("band_gap", pa.float64(), "label", "band gap; never an input", "eV"),
    Column("dft_energy", pa.float64(), "label", "energy of the density's SCF", "eV per cell"),
    Column("dft_efermi", pa.float64(), "label", "Fermi level of the density's SCF", "eV"),
    Column("dft_magnetization", pa.float64(), "label", "moment of the SCF", "μB per cell"),
    Column("dft_spin_polarised", pa.bool_(), "label", "whether the SCF was spin-polarised"),
    Column("dft_kpoints", pa.string(), "label", "k-point grid of the SCF"),
    Column("dft_cutoff", pa.float64(), "label", "plane-wave cut-off of the SCF", "eV"),
    *(Column(f"text_{e}", pa.string(), "text", f"description of extent `{e}`") for e in EXTENTS),
    Column(
        "masked", _JSON, "record", "labels set to missing: {target: {value as served, reason}}"
    ),
    Column(
        "provenance", _JSON, "record",
        "of the densities: code, version, functional, notes on kinds, source, licence, integrals",
        "integrals over the cell in electrons",
    ),
)  # fmt: skip

KNOWN: dict[str, Column] = {column.name: column for column in COLUMNS}

TARGETS: dict[str, str] = {c.name: c.unit for c in COLUMNS if c.role == "target"}
"""The targets of the paper and their units. A dataset may carry others."""

ALL_TARGETS: tuple[str, ...] = (*TARGETS, "shear_modulus_vrh", "band_gap")
"""Those of `mp-elastic`: of the paper, and two more."""


class TargetNames(NamedTuple):
    """Name a target in text, in headings, on axes, and in names of recipes."""

    short: str
    full: str
    axis: str
    symbol: str


TARGET_NAMES: dict[str, TargetNames] = {
    "formation_energy_per_atom": TargetNames(
        "formation energy", "formation energy", "formation energy", "E_F"
    ),
    "efermi": TargetNames("Fermi energy", "Fermi energy", "Fermi energy", "E_fermi"),
    "bulk_modulus_vrh": TargetNames(
        "bulk modulus", "bulk modulus, VRH", "bulk modulus K$_{VRH}$", "K_VRH"
    ),
}
"""Target → its names; the symbols are the paper's."""

AXIS_NAMES: dict[str, str] = {target: names.axis for target, names in TARGET_NAMES.items()}
"""Target → its name for the axes and titles of figures, in matplotlib's mathtext."""


def make_field(name: str, type_: pa.DataType, unit: str = "") -> pa.Field:
    """Make the Arrow field of a column, with role, description and unit as metadata.

    A known column follows the schema. An unknown column is a target (float64, in the given unit) if
    it is numeric, and a label otherwise.
    """
    column = KNOWN.get(name)
    if column is None:
        number = _is_number(type_)
        role: Role = "target" if number else "label"
        column = Column(name, pa.float64() if number else type_, role, "", unit)
    about = {"role": column.role, "description": column.description, "unit": column.unit}
    return pa.field(name, column.type, not column.required, about)


def with_targets(table: pa.Table, names: Collection[str]) -> pa.Table:
    """Return the table with these labels as targets (float64) if they are numeric.

    Labels that the schema knows, such as ``band_gap``, become targets only on request.
    """
    for number, field in enumerate(table.schema):
        if field.name in names and role_of(field) == "label" and _is_number(field.type):
            about = {**(field.metadata or {}), b"role": b"target"}
            target = pa.field(field.name, pa.float64(), field.nullable, about)
            table = table.set_column(number, target, table[field.name].cast(pa.float64()))
    return table


def role_of(field: pa.Field) -> str:
    """Return the role of a column made by :func:`make_field`."""
    return _decode((field.metadata or {}).get(b"role", b"label"))


def unit_of(field: pa.Field) -> str:
    """Return the unit of a column; empty if it has none or none is known."""
    return _decode((field.metadata or {}).get(b"unit", b""))


def _decode(text: bytes) -> str:
    return text.decode(errors="replace")


def columns_with(schema: pa.Schema, *roles: Role) -> list[str]:
    """Return the names of the columns with one of these roles, in the table's order."""
    return [field.name for field in schema if role_of(field) in roles]


def file_metadata(schema: pa.Schema, about: Mapping[str, str]) -> dict[str, str]:
    """Return the file's metadata: schema version, all units, and ``about``.

    ``about`` holds the name, attribution, licence and the like.
    """
    units = {field.name: unit_of(field) for field in schema if unit_of(field)}
    version = {"schema_version": SCHEMA_VERSION}
    return {**about, **version, "units": json.dumps(units, ensure_ascii=False)}


@dataclass(frozen=True)
class Problem:
    """Describe one problem of a table.

    ``material_id`` is empty if the problem concerns the whole table, ``column`` if it concerns the
    whole row. An ``error`` makes the material (or the table) unusable, a ``warning`` does not.
    """

    problem: str
    cure: str
    column: str = ""
    material_id: str = ""
    severity: Literal["error", "warning"] = "error"


def validate(table: pa.Table, where: str) -> pa.Table:
    """Check a table against the schema and bring it to the schema's types.

    Parameters
    ----------
    table
        One row per material. Types that convert without loss of meaning are accepted (large lists,
        float64 grids, float32 targets).
    where
        Name of the table in error messages, such as the path of its file.

    Returns
    -------
    pa.Table
        Known columns in the schema's order and types, then the others. Every field has its role
        and unit.

    Raises
    ------
    RhosightError
        For the first problem that :func:`inspect` finds.
    """
    checked, problems = inspect(table)
    if problems:
        first, more = problems[0], len(problems) - 1
        rest = f" ({more} more; `rhosight data validate` lists them)" if more else ""
        raise RhosightError(f"{where}: {first.problem}; {first.cure}{rest}")
    return checked


def inspect(table: pa.Table, first_row: int = 0) -> tuple[pa.Table, list[Problem]]:
    """Convert a table to the schema as far as possible, and list all its problems.

    Parameters
    ----------
    table
        As for :func:`validate`.
    first_row
        Number of its first row if the table is a part of a larger one. Problems of rows without an
        id name the row number.

    Returns
    -------
    checked
        As :func:`validate` returns it, without the columns that do not convert.
    problems
        Missing columns, types that do not convert, units other than the schema's, empty or
        duplicated ids, a grid whose shape contradicts its length, infinite targets, a file of a
        later schema version: all of them errors, in this order. Empty for a valid table.
    """
    metadata = table.schema.metadata or {}
    ids = ids_of(table, first_row)
    problems = [*_version_problems(metadata), *_presence_problems(table.column_names)]
    if len(set(table.column_names)) < len(table.column_names):
        table = table.select(
            [table.column_names.index(n) for n in dict.fromkeys(table.column_names)]
        )
    names = [c.name for c in COLUMNS if c.name in table.column_names]
    names += [name for name in table.column_names if name not in KNOWN]
    fields, arrays = [], []
    for name in names:
        field = _known_field(table.schema.field(name))
        array, column_problems = _cast(table[name], field, ids)
        problems += column_problems
        if array is not None:
            fields.append(field)
            arrays.append(array)
    problems += _unit_problems(table.schema)
    schema = pa.schema(fields)
    about = {_decode(k): _decode(v) for k, v in metadata.items()}
    about.pop("pandas", None)  # pandas' description of its frame is out of date
    checked = pa.table(arrays, schema=schema.with_metadata(file_metadata(schema, about)))
    for check in (_id_problems, _grid_problems, _target_problems):
        problems += check(checked, ids)
    return checked, problems


def ids_of(table: pa.Table, first_row: int = 0) -> list[str]:
    """Return the rows' names for messages: the id, or else the row number."""
    have = table.column_names.count("material_id") == 1
    ids = table["material_id"].to_pylist() if have else [None] * len(table)
    return [
        f"row {i}" if name in (None, "") else str(name) for i, name in enumerate(ids, first_row)
    ]


def find_duplicate_ids(ids: Iterable[str]) -> list[Problem]:
    """Report ids that occur more than once."""
    cure = "give every material an id of its own"
    return [
        Problem(f"material_id {name} is duplicated", cure, "material_id", name)
        for name, count in sorted(Counter(ids).items())
        if count > 1
    ]


def _known_field(field: pa.Field) -> pa.Field:
    """Return the field with role and unit.

    A file may declare an unknown numeric column a label instead of a target, and a label that the
    schema knows, such as ``band_gap``, a target.
    """
    declared = (field.metadata or {}).get(b"role")
    if field.name not in KNOWN and declared == b"label":
        return field
    made = make_field(field.name, field.type, unit_of(field))
    if declared == b"target" and role_of(made) == "label" and pa.types.is_floating(made.type):
        return made.with_metadata({**(made.metadata or {}), b"role": b"target"})
    return made


def _version_problems(metadata: Mapping[bytes, bytes]) -> list[Problem]:
    version = _decode(metadata.get(b"schema_version", SCHEMA_VERSION.encode()))
    if version == SCHEMA_VERSION:
        return []
    what = f"the file has schema version {version[:20]}, this rhosight reads {SCHEMA_VERSION}"
    return [Problem(what, "update rhosight, or write the file again with this version")]


def _presence_problems(names: list[str]) -> list[Problem]:
    cure = "create datasets with `rhosight data build` or rhosight.dataset.pack"
    missing = [c.name for c in COLUMNS if c.required and c.name not in names]
    problems = [Problem(f"no column {name}", cure, name) for name in missing]
    repeated = sorted({name for name in names if names.count(name) > 1})
    problems += [
        Problem(f"column {name} is duplicated", "rename one of them", name) for name in repeated
    ]
    if set(STORED_KINDS) & set(names) and "grid" not in names:
        problems.append(Problem("no column grid", cure, "grid"))
    return problems


def _cast(
    array: pa.ChunkedArray, field: pa.Field, ids: list[str]
) -> tuple[pa.ChunkedArray | None, list[Problem]]:
    """Convert a column to the schema's type (None if impossible); list problems."""
    empty = np.flatnonzero(array.is_null().to_numpy()) if not field.nullable else ()
    cure = f"fill it in; materials without `{field.name}` cannot be used"
    problems = [
        Problem(f"`{field.name}` of {ids[i]} is empty", cure, field.name, ids[i]) for i in empty
    ]
    if array.type == field.type:
        return array, problems
    try:
        # grids may be rounded from float64 to float32; everything else must convert exactly
        return array.cast(field.type, safe=role_of(field) != "density"), problems
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        what = f"column `{field.name}` has type {array.type}, the schema requires {field.type}"
        cure = "write it again in that type, and leave missing values empty"
        return None, [*problems, Problem(what, cure, field.name)]


def declared_units(schema: pa.Schema) -> dict[str, str]:
    """Return column → unit as the file declares it.

    A field's own ``unit`` takes precedence over the ``units`` of the file.
    """
    try:
        units = json.loads((schema.metadata or {}).get(b"units", b"{}"))
    except (ValueError, RecursionError):
        units = {}
    units = units if isinstance(units, dict) else {}
    declared = {field.name: unit_of(field) or str(units.get(field.name, "")) for field in schema}
    return {name: unit for name, unit in declared.items() if unit}


def _unit_problems(schema: pa.Schema) -> list[Problem]:
    """Report columns declared in another unit: their numbers would be misread."""
    problems = []
    for name, declared in declared_units(schema).items():
        meant = KNOWN[name].unit if name in KNOWN else ""
        if meant and not is_same_unit(declared, meant):
            what = f"column `{name}` is declared in {declared}, the schema requires {meant}"
            problems.append(
                Problem(what, "convert the values and correct the field's `unit`", name)
            )
    return problems


def is_same_unit(one: str, other: str) -> bool:
    """Return whether two spellings, such as `e/angstrom^3` and `e/Å³`, are one unit."""
    return _plain_unit(one) == _plain_unit(other)


def _plain_unit(unit: str) -> str:
    plain = unit.casefold().replace("angstroms", "å").replace("angstrom", "å")
    return plain.replace("³", "3").translate(str.maketrans("", "", " ^*_"))


def _id_problems(table: pa.Table, ids: list[str]) -> list[Problem]:
    if "material_id" not in table.column_names:
        return []
    empty = [i for i, name in enumerate(table["material_id"].to_pylist()) if name == ""]
    return find_duplicate_ids(ids) + [
        Problem(
            f"material_id of {ids[i]} is an empty text",
            "give the material an id",
            "material_id",
            ids[i],
        )
        for i in empty
    ]


def _grid_problems(table: pa.Table, ids: list[str]) -> list[Problem]:
    """Report grids whose shape does not match the number of density values."""
    if "grid" not in table.column_names:
        return []
    problems = []
    sizes = np.full(len(table), -1, dtype=object)  # Python integers do not overflow
    shapes = table["grid"].to_pylist()
    for i, shape in enumerate(shapes):
        if shape is None:
            continue
        if len(shape) != 3 or None in shape or min(shape) < 1:
            what = f"`grid` of {ids[i]} is {shape}, not three positive integers"
            problems.append(Problem(what, "give it as [nx, ny, nz]", "grid", ids[i]))
        else:
            sizes[i] = shape[0] * shape[1] * shape[2]
    for kind in columns_with(table.schema, "density"):
        for i in np.flatnonzero(table[kind].is_valid().to_numpy()).tolist():
            if shapes[i] is None:
                what = f"`grid` of {ids[i]} is empty, but it has a density `{kind}`"
                problems.append(Problem(what, "give it as [nx, ny, nz]", "grid", ids[i]))
        lengths = pc.fill_null(pc.list_value_length(table[kind]).cast(pa.int64()), -1).to_numpy()
        for i in np.flatnonzero((lengths != sizes) & (lengths != -1) & (sizes != -1)).tolist():
            what = (
                f"`{kind}` of {ids[i]} has {lengths[i]} values, its grid "
                f"{'×'.join(map(str, shapes[i]))} needs {sizes[i]}"
            )
            problems.append(Problem(what, "write the file again", kind, ids[i]))
    return problems


def _target_problems(table: pa.Table, ids: list[str]) -> list[Problem]:
    problems = []
    for name in columns_with(table.schema, "target"):
        bad = np.flatnonzero(np.isinf(table[name].to_numpy()))
        cure = "leave a missing label empty"
        problems += [Problem(f"`{name}` of {ids[i]} is infinite", cure, name, ids[i]) for i in bad]
    return problems


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_decimal(type_)
