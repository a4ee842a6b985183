"""Convert crystals and labels to the table of :mod:`rhosight.dataset.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.core import Composition, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ..density.bare_crystal import Crystal
from ..density.charge_density import STORED_KINDS, ChargeDensity, StoredKind
from ..density.crystals import MP_SYMPREC
from ..errors import RhosightError
from ..inputs.text.extents import EXTENTS
from . import schema
from .labels import mask_labels


def build_table(
    densities: Iterable[Crystal],
    labels: pd.DataFrame | None = None,
    texts: Mapping[str, Mapping[str, str | None]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Build the table of a dataset, as ``Dataset.from_densities`` documents it."""
    about = dict(about or {})
    units = about.pop("units", {})
    densities = list(densities)
    if not densities:
        raise RhosightError("there are no materials to build a dataset from; give at least one")
    frame, masked = mask_labels(_complete_labels(densities, labels))
    texts = texts or {}
    columns: dict[str, Any] = {"material_id": frame.index}
    columns |= {name: frame[name] for name in frame.columns}
    columns |= _encode_densities(densities)
    columns |= {
        f"text_{extent}": [texts.get(i, {}).get(extent) for i in frame.index] for extent in EXTENTS
    }
    columns["masked"] = _encode_masked(masked, frame.index)
    arrays = {name: _array(name, values) for name, values in columns.items()}
    fields = [schema.make_field(name, a.type, units.get(name, "")) for name, a in arrays.items()]
    metadata = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in about.items()
    }
    untyped = pa.Table.from_arrays(list(arrays.values()), names=list(arrays))
    typed = pa.schema(
        [f.with_type(a.type) for f, a in zip(fields, arrays.values(), strict=True)], metadata
    )
    return schema.validate(untyped.cast(typed), str(about.get("name", "dataset")))


def _complete_labels(densities: list[Crystal], labels: pd.DataFrame | None) -> pd.DataFrame:
    """Return labels in the densities' order, with formula, space group and sites."""
    index = pd.Index([density.name for density in densities], name="material_id")
    if "" in index:
        raise RhosightError("a crystal has no name; set its name, which becomes the material id")
    if labels is None:
        labels = pd.DataFrame(index=index)
    elif not index.isin(labels.index).any():
        raise RhosightError(
            f"the labels contain neither {index[0]} nor any other material; index them by "
            "material_id"
        )
    frame = labels.drop(columns="grid", errors="ignore").reindex(index)
    given = {
        name: frame.get(name, pd.Series(None, index, dtype=object)).to_list()
        for name in ("formula", "spacegroup_number")
    }
    frame["formula"] = [
        _check_formula(density, declared)
        for density, declared in zip(densities, given["formula"], strict=True)
    ]
    frame["spacegroup_number"] = [
        _spacegroup(density.structure) if pd.isna(value) else value
        for value, density in zip(given["spacegroup_number"], densities, strict=True)
    ]
    # of the cell that is stored; a table may refer to another cell
    frame["nsites"] = [len(density.structure) for density in densities]
    return frame


def _check_formula(density: Crystal, declared: Any) -> str:
    """Return the reduced formula.

    Raises
    ------
    RhosightError
        If the labels declare another formula: they belong to another material.
    """
    formula = density.structure.composition.reduced_formula
    if pd.isna(declared):
        return formula
    try:
        is_same = Composition(declared).reduced_formula == formula
    except (ValueError, TypeError):
        is_same = False
    if not is_same:
        raise RhosightError(
            f"{density.name}: the formula is {declared} in its labels and {formula} in its "
            "structure; correct the id or the formula, or remove the column"
        )
    return formula


def _spacegroup(structure: Structure) -> int:
    return SpacegroupAnalyzer(structure, symprec=MP_SYMPREC).get_space_group_number()


def _encode_densities(densities: list[Crystal]) -> dict[str, list]:
    """Return the columns of structures, grids and provenance."""
    columns: dict[str, list] = {
        "structure": [json.dumps(d.structure.as_dict(verbosity=0)) for d in densities],
        "grid": [list(d.shape) if isinstance(d, ChargeDensity) else None for d in densities],
    }
    for kind in STORED_KINDS:
        if any(kind in d.grids for d in densities):
            columns[kind] = [
                np.ravel(d.grids[kind]).astype(np.float32) if kind in d.grids else None
                for d in densities
            ]
    columns["provenance"] = [json.dumps(_provenance(d), ensure_ascii=False) for d in densities]
    return columns


def _provenance(density: Crystal) -> dict[str, Any]:
    if not isinstance(density, ChargeDensity):
        return dict(density.provenance)
    # a density refuses other kinds
    integrals = {kind: round(density.integral(cast(StoredKind, kind)), 6) for kind in density.grids}
    return {**density.provenance, "integrals": integrals}


def _encode_masked(masked: pd.DataFrame, ids: pd.Index) -> list[str | None]:
    records: dict[str, dict] = {}
    for row in masked.itertuples():
        record = {"value": row.value, "reason": row.reason}
        records.setdefault(str(row.material_id), {})[str(row.target)] = record
    return [json.dumps(records[i], ensure_ascii=False) if i in records else None for i in ids]


def _array(name: str, values: Any) -> pa.Array:
    known = schema.KNOWN.get(name)
    try:
        return pa.array(values, known.type if known else None, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RhosightError(f"column `{name}` does not fit the schema: {error}") from error
