"""Recognise crystals of the bundled datasets, whose properties were calculated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from pymatgen.core import Structure

from ..density.structure_json import parse_structure_json
from .packing import BUNDLED

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
    """

    material_id: str
    values: dict[str, float]


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
    rows = read_rows().get(structure.composition.reduced_formula, [])
    if not rows:
        return None
    from pymatgen.analysis.structure_matcher import StructureMatcher  # takes half a second

    matcher = StructureMatcher()
    for row in rows:
        known = parse_structure_json(row["structure"], row["material_id"])
        volumes = [one.volume / len(one) for one in (structure, known)]
        if abs(volumes[0] / volumes[1] - 1) < MAX_STRAIN and matcher.fit(structure, known):
            values = {name: row[name] for name in targets if row.get(name) is not None}
            return KnownMaterial(row["material_id"], values)
    return None


@cache
def read_rows() -> dict[str, list[dict[str, Any]]]:
    """Return formula → rows of the bundled datasets, without densities and texts."""
    from pyarrow import parquet

    from .schema import TARGETS

    rows: dict[str, list[dict[str, Any]]] = {}
    columns = ["material_id", "formula", "structure", *TARGETS]
    for name in BUNDLED:
        file = resources.files("rhosight") / "data" / f"{name}.parquet"
        with resources.as_file(file) as path:
            for row in parquet.read_table(path, columns=columns).to_pylist():
                rows.setdefault(row["formula"], []).append(row)
    return rows
