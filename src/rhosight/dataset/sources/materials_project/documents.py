"""Interpret the documents that the API serves."""

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


def parse_id(value: Any) -> str:
    """Return an id of a material or calculation as mp-149, also if aaaaaaft."""
    from emmet.core.mpid import AlphaID

    return AlphaID(str(value).split("-")[-1], prefix="mp").string


def index_by_id(
    documents: Iterable[dict[str, Any]], key: str = "material_id"
) -> dict[str, dict[str, Any]]:
    """Return id → document."""
    return {parse_id(document[key]): document for document in documents}


def parse_bravais(crystal_system: str, symbol: str) -> str:
    """Return the Bravais lattice (cF) from crystal system and space-group symbol."""
    system = crystal_system.capitalize()
    letter = next((letter for letter, names in SYSTEMS.items() if system in names), "?")
    return letter + symbol[:1].replace("A", "C").replace("B", "C")


def read_bravais(summary: Mapping[str, Any]) -> str:
    """Return the Bravais lattice of a summary."""
    symmetry = summary.get("symmetry") or {}
    return parse_bravais(str(symmetry.get("crystal_system")), str(symmetry.get("symbol")))


def read_labels(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema's columns in a summary, without missing values."""
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


def is_gnome(summary: Mapping[str, Any]) -> bool:
    """Return whether a material is from GNoME: only those are for non-commercial use."""
    return (summary.get("builder_meta") or {}).get("license") == "BY-NC"


def has_density(summary: Mapping[str, Any]) -> bool:
    """Return whether a summary lists a charge density.

    ``has_props`` is a list in older databases, and property → bool in newer ones. A summary
    without it does not exclude a density.
    """
    props = summary.get("has_props")
    if isinstance(props, Mapping):
        return bool(props.get("charge_density"))
    return props is None or "charge_density" in props


def read_calculation_types(material: Mapping[str, Any]) -> dict[str, str]:
    """Return calculation id → type, such as ``GGA Static``, without withdrawn ones."""
    withdrawn = {parse_id(task_id) for task_id in material.get("deprecated_tasks") or ()}
    served = material.get("calc_types") or {}
    types = {parse_id(task_id): kind for task_id, kind in sorted(served.items())}
    return {task_id: kind for task_id, kind in types.items() if task_id not in withdrawn}


def summarise_task(task_id: str, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return id, date of the last update, labels and provenance of a calculation."""
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
