"""Recognise crystals of the bundled datasets, whose properties were calculated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from pymatgen.core import Structure

from ..density.crystals import HashableCrystal
from ..density.structure_json import parse_structure_json
from ..storage import bundled_file
from .schema import ALL_TARGETS

DATASETS = ("mp-elastic",)
"""Bundled datasets whose crystals are recognised. All crystals of mp-fcc are in this one, too."""

MAX_STRAIN = 0.05
"""Largest difference of the volumes, as a share: a compressed crystal has other properties."""


@dataclass(frozen=True)
class KnownMaterial:
    """A material of a bundled dataset.

    Attributes
    ----------
    material_id
        Its id in the Materials Project.
    values
        Target → calculated value in the dataset's unit; targets without a label are left out.
    volume_change
        By which share the volume of the crystal that was asked about is larger.
    """

    material_id: str
    values: dict[str, float]
    volume_change: float


def find_known_material(structure: Structure, targets: Sequence[str]) -> KnownMaterial | None:
    """Return the bundled material that is the same crystal, if there is one.

    Parameters
    ----------
    structure
        The crystal, in any cell.
    targets
        Properties whose calculated values are wanted.

    Returns
    -------
    KnownMaterial or None
        Same elements and sites (pymatgen's ``StructureMatcher``), and the volume within 5 %.
    """
    volume = structure.volume / len(structure)
    for row in list_same_type(structure):
        change = volume / read_volume(row) - 1
        if abs(change) < MAX_STRAIN:
            values = {name: row[name] for name in targets if row.get(name) is not None}
            return KnownMaterial(row["material_id"], values, change)
    return None


def list_same_type(structure: Structure) -> list[dict[str, Any]]:
    """Return the rows of bundled crystals that are the same crystal but for its size."""
    if structure.composition.reduced_formula not in read_rows():
        return []
    return _match(HashableCrystal.of(structure))


def read_volume(row: dict[str, Any]) -> float:
    """Return the volume per atom of the crystal of a row, Å³."""
    content = json.loads(row["structure"])
    return float(abs(np.linalg.det(content["lattice"]["matrix"])) / len(content["sites"]))


@lru_cache(maxsize=1024)  # a prediction asks for the volume and for calculated values
def _match(crystal: HashableCrystal) -> list[dict[str, Any]]:
    from pymatgen.analysis.structure_matcher import StructureMatcher  # takes half a second

    matcher, structure = StructureMatcher(), crystal.structure
    return [
        row
        for row in read_rows()[structure.composition.reduced_formula]
        if matcher.fit(structure, parse_structure_json(row["structure"], row["material_id"]))
    ]


@cache
def read_rows() -> dict[str, list[dict[str, Any]]]:
    """Return formula → rows of the bundled datasets, without densities and texts."""
    from pyarrow import parquet

    rows: dict[str, list[dict[str, Any]]] = {}
    columns = ["material_id", "formula", "structure", *ALL_TARGETS]
    for name in DATASETS:
        with bundled_file(f"{name}.parquet") as path:
            for row in parquet.read_table(path, columns=columns).to_pylist():
                rows.setdefault(row["formula"], []).append(row)
    return rows
