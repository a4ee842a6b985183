"""What the documents that the API serves mean in rhosight's words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

# Letter of a Bravais symbol → crystal systems as the API names them
SYSTEMS = {
    "a": ("Triclinic",),
    "m": ("Monoclinic",),
    "o": ("Orthorhombic",),
    "t": ("Tetragonal",),
    "h": ("Trigonal", "Hexagonal"),
    "c": ("Cubic",),
}

BRAVAIS = ("aP", "mP", "mC", "oP", "oC", "oI", "oF", "tP", "tI", "hP", "hR", "cP", "cI", "cF")

SUMMARY_FIELDS = [
    "material_id", "formula_pretty", "symmetry", "is_stable", "deprecated", "has_props",
    "formation_energy_per_atom", "efermi", "band_gap", "bulk_modulus", "builder_meta",
]  # fmt: skip

TASK_FIELDS = ["task_id", "last_updated", "run_type", "vasp_version", "output.energy"]


def identifier(value: Any) -> str:
    """The id of a material or a calculation as mp-149, also where it is served as aaaaaaft."""
    from emmet.core.mpid import AlphaID

    return AlphaID(str(value).split("-")[-1], prefix="mp").string


def by_id(
    documents: Iterable[dict[str, Any]], key: str = "material_id"
) -> dict[str, dict[str, Any]]:
    """Id → document."""
    return {identifier(document[key]): document for document in documents}


def bravais(crystal_system: str, symbol: str) -> str:
    """Bravais lattice, such as cF, from crystal system and space-group symbol."""
    system = crystal_system.capitalize()
    letter = next((letter for letter, names in SYSTEMS.items() if system in names), "?")
    return letter + symbol[:1].replace("A", "C").replace("B", "C")


def served_bravais(summary: Mapping[str, Any]) -> str:
    """Bravais lattice of a summary."""
    symmetry = summary.get("symmetry") or {}
    return bravais(str(symmetry.get("crystal_system")), str(symmetry.get("symbol")))


def labels(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the schema that a summary serves; missing ones are left out."""
    modulus = summary.get("bulk_modulus") or {}
    numbers = {
        "formation_energy_per_atom": summary.get("formation_energy_per_atom"),
        "efermi": summary.get("efermi"),
        **{f"bulk_modulus_{mean}": modulus.get(mean) for mean in ("vrh", "voigt", "reuss")},
        "band_gap": summary.get("band_gap"),
    }
    known = {
        "formula": summary.get("formula_pretty"),
        "spacegroup_number": (summary.get("symmetry") or {}).get("number"),
        **{n: v for n, v in numbers.items() if v is not None and math.isfinite(v)},
    }
    return {name: value for name, value in known.items() if value is not None}


def of_gnome(summary: Mapping[str, Any]) -> bool:
    """GNoME's materials are the ones that are served for non-commercial use only."""
    return (summary.get("builder_meta") or {}).get("license") == "BY-NC"


def has_density(summary: Mapping[str, Any]) -> bool:
    """As ``has_props`` has it, a list in older databases, property → bool in newer ones; a summary
    without it does not rule a density out.
    """
    props = summary.get("has_props")
    if isinstance(props, Mapping):
        return bool(props.get("charge_density"))
    return props is None or "charge_density" in props


def calculation_types(material: Mapping[str, Any]) -> dict[str, str]:
    """Calculation id → type, such as ``GGA Static``, without those that were withdrawn."""
    withdrawn = {identifier(task_id) for task_id in material.get("deprecated_tasks") or ()}
    served = material.get("calc_types") or {}
    types = {identifier(task_id): kind for task_id, kind in sorted(served.items())}
    return {task_id: kind for task_id, kind in types.items() if task_id not in withdrawn}


def task(task_id: str, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a calculation: its id, when it was updated, labels and provenance."""
    energy = (document.get("output") or {}).get("energy")
    known = {
        "version": document.get("vasp_version"),
        "functional": document.get("run_type") or kind.rpartition(" ")[0],
        "calc_type": kind,
        "task_id": task_id,
    }
    return {
        "task_id": task_id,
        "last_updated": str(document.get("last_updated") or ""),
        "labels": {} if energy is None else {"dft_energy": energy},
        "provenance": {name: value for name, value in known.items() if value is not None},
    }
