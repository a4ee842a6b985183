"""From densities and labels to the table of :mod:`rhosight.dataset.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pymatgen.core import Composition, Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ..density.charge_density import STORED_KINDS, ChargeDensity
from ..errors import RhosightError
from ..inputs.text.description import EXTENTS
from . import schema
from .labels import mask_labels

SYMPREC = 0.1
"""Å, for space groups that the labels leave out."""


def build_table(
    densities: Iterable[ChargeDensity],
    labels: pd.DataFrame | None = None,
    texts: Mapping[str, Mapping[str, str | None]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> pa.Table:
    """The validated table behind a dataset; see :meth:`rhosight.dataset.Dataset.from_densities`."""
    about = dict(about or {})
    units = about.pop("units", {})
    densities = list(densities)
    if not densities:
        raise RhosightError("no densities to build a dataset from; give at least one material")
    frame, masked = mask_labels(_identify(densities, labels))
    texts = texts or {}
    columns: dict[str, Any] = {"material_id": frame.index}
    columns |= {name: frame[name] for name in frame.columns}
    columns |= _stored(densities)
    columns |= {
        f"text_{extent}": [texts.get(i, {}).get(extent) for i in frame.index]
        for extent in EXTENTS
    }
    columns["masked"] = _masked_json(masked, frame.index)
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


def _identify(densities: list[ChargeDensity], labels: pd.DataFrame | None) -> pd.DataFrame:
    """Labels in the order of the densities, with formula, space group and sites filled in."""
    index = pd.Index([density.name for density in densities], name="material_id")
    if "" in index:
        raise RhosightError("a density has no name; its name is the material id: give it one")
    if labels is None:
        labels = pd.DataFrame(index=index)
    elif not index.isin(labels.index).any():
        raise RhosightError(
            f"no label for {index[0]} nor any other material; index the labels by material_id"
        )
    frame = labels.drop(columns="grid", errors="ignore").reindex(index)
    given = {
        name: frame.get(name, pd.Series(None, index, dtype=object)).to_list()
        for name in ("formula", "spacegroup_number")
    }
    frame["formula"] = [
        _formula(density, declared)
        for density, declared in zip(densities, given["formula"], strict=True)
    ]
    frame["spacegroup_number"] = [
        _spacegroup(density.structure) if pd.isna(value) else value
        for value, density in zip(given["spacegroup_number"], densities, strict=True)
    ]
    # of the cell that the grids fill; a table may count those of another
    frame["nsites"] = [len(density.structure) for density in densities]
    return frame


def _formula(density: ChargeDensity, declared: Any) -> str:
    """The reduced formula; a row of labels that declares another belongs to another material."""
    found = density.structure.composition.reduced_formula
    if pd.isna(declared):
        return found
    try:
        same = Composition(declared).reduced_formula == found
    except (ValueError, TypeError):
        same = False
    if not same:
        raise RhosightError(
            f"{density.name}: its labels say formula {declared}, its structure is {found}; correct "
            "the id or the formula, or leave the column out"
        )
    return found


def _spacegroup(structure: Structure) -> int:
    return SpacegroupAnalyzer(structure, symprec=SYMPREC).get_space_group_number()


def _stored(densities: list[ChargeDensity]) -> dict[str, list]:
    """Structure, grids and provenance, one entry a material."""
    columns: dict[str, list] = {
        "structure": [json.dumps(d.structure.as_dict(verbosity=0)) for d in densities],
        "grid": [list(d.shape) for d in densities],
    }
    for kind in STORED_KINDS:
        if any(kind in d.grids for d in densities):
            columns[kind] = [
                np.ravel(d.grids[kind]).astype(np.float32) if kind in d.grids else None
                for d in densities
            ]
    columns["provenance"] = [json.dumps(_provenance(d), ensure_ascii=False) for d in densities]
    return columns


def _provenance(density: ChargeDensity) -> dict[str, Any]:
    integrals = {kind: round(density.integral(kind), 6) for kind in density.grids}
    return {**density.provenance, "integrals": integrals}


def _masked_json(masked: pd.DataFrame, ids: pd.Index) -> list[str | None]:
    records: dict[str, dict] = {}
    for row in masked.itertuples():
        record = {"value": row.value, "reason": row.reason}
        records.setdefault(row.material_id, {})[row.target] = record
    return [json.dumps(records[i], ensure_ascii=False) if i in records else None for i in ids]


def _array(name: str, values: Any) -> pa.Array:
    known = schema.KNOWN.get(name)
    try:
        return pa.array(values, known.type if known else None, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise RhosightError(f"column `{name}` does not fit the schema: {error}") from error
