"""Blocks that need a formula and the volume, beyond Magpie's statistics."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Element

from ...density.free_atoms import load_free_atoms
from .crystal import Crystal
from .element_data import load_element_data
from .miedema import compute_enthalpies

PYMATGEN = (
    "bulk_modulus",
    "youngs_modulus",
    "rigidity_modulus",
    "molar_volume",
    "thermal_conductivity",
    "atomic_radius",
    "atomic_radius_calculated",
    "van_der_waals_radius",
    "average_ionic_radius",
    "average_cationic_radius",
    "average_anionic_radius",
    "ionization_energy",
    "electron_affinity",
    "X",
)
"""Properties of the elements from pymatgen, in its units (GPa, cm³/mol, W/mK, Å, eV)."""

DEML = (
    "first_ioniz",
    "electron_affin",
    "electric_pol",
    "heat_cap",
    "heat_fusion",
    "FERE correction",
    "GGAU_Etot",
    "mus_fere",
)
"""Properties from matminer's table of Deml et al., Phys. Rev. B 93, 085142 (2016),
doi:10.1103/PhysRevB.93.085142, in its units; among them the elements' reference energies of
Stevanović et al., Phys. Rev. B 85, 115104 (2012), doi:10.1103/PhysRevB.85.115104."""


def fractions(crystal: Crystal) -> dict[str, float]:
    """Compute the atomic fraction of each of the 69 elements.

    Formation energies are relative to the elements, so a shift of an element's reference is linear
    in these.
    """
    composition = crystal.structure.composition
    return {s: float(composition.get_atomic_fraction(s)) for s in _list_symbols()}


def element_densities(crystal: Crystal) -> dict[str, float]:
    """Compute the number of atoms of each of the 69 elements per Å³.

    A plane-wave code measures the Fermi energy from the average potential of the cell, to which
    each atom adds a constant divided by the volume (Ihm, Zunger, Cohen, J. Phys. C 12, 4409 (1979),
    doi:10.1088/0022-3719/12/21/009).
    """
    return {s: x / crystal.volume for s, x in fractions(crystal).items()}


def elements(crystal: Crystal) -> dict[str, float]:
    """Compute statistics of elemental properties, and estimates from them.

    Mean and standard deviation over the atoms of :data:`PYMATGEN`, the cohesive energy (eV/atom,
    Kittel), :data:`DEML` and the element's own volume (Å³/atom, Magpie); then

    - ``volume_ratio``: volume relative to that of the elements
    - ``modulus_by_volume``, ``modulus_series``: bulk moduli of the elements (GPa), weighted by
      volume and divided by the crystal's volume, and in series (Reuss)
    - ``cohesive_density``: eV/Å³
    - ``miedema_inter``, ``_amorphous``, ``_solution``: Miedema's formation enthalpies of the alloy,
      eV/atom (Zhang et al., Comput. Phys. Commun. 209, 58 (2016), doi:10.1016/j.cpc.2016.08.013),
      0 where the model has no parameters

    If a table has no value for an element, the median over the others replaces it.
    """
    names, rows = _list_rows()
    composition = crystal.structure.composition
    symbols = sorted(element.symbol for element in composition)
    shares = np.array([composition.get_atomic_fraction(s) for s in symbols])
    # in the order of a table's memory, so that sums round as they did for trained models
    values = np.array([rows[symbol] for symbol in symbols], order="F")
    means = shares @ values
    spread = np.sqrt(shares @ (values - means) ** 2)
    result = {f"{name}_mean": float(x) for name, x in zip(names, means, strict=True)}
    result |= {f"{name}_std": float(x) for name, x in zip(names, spread, strict=True)}
    own, modulus, cohesive = (
        values[:, names.index(name)] for name in ("volume", "bulk_modulus", "cohesive")
    )
    result["volume_ratio"] = float(crystal.volume / (shares @ own))
    result["modulus_by_volume"] = float(shares @ (modulus * own) / crystal.volume)
    result["modulus_series"] = float(shares @ own / (shares @ (own / modulus)))
    result["cohesive_density"] = float(shares @ cohesive / crystal.volume)
    reduced = composition.element_composition.reduced_composition
    enthalpies = _compute_miedema(tuple(sorted((e.symbol, n) for e, n in reduced.items())))
    return result | {f"miedema_{phase}": value for phase, value in enthalpies.items()}


@cache
def own_volume(symbol: str) -> float:
    """Return the volume of an element's ground state, Å³/atom, from Magpie's table."""
    volumes: Any = _load_properties()["volume"]
    return float(volumes[symbol])


@cache
def _list_symbols() -> tuple[str, ...]:
    return tuple(sorted(load_free_atoms().atoms, key=lambda symbol: Element(symbol).Z))


@cache
def _load_properties() -> pd.DataFrame:
    """Return the table of properties: one row per element, missing values imputed."""
    symbols = list(_list_symbols())
    pymatgen, deml = load_element_data("pymatgen"), load_element_data("deml")
    columns = {name: pymatgen.loc[symbols, name] for name in PYMATGEN}
    columns["cohesive"] = load_element_data("cohesive_energy").loc[symbols, "cohesive_energy"]
    columns |= {f"deml_{name}": deml.loc[symbols, name] for name in DEML}
    columns["volume"] = load_element_data("magpie").loc[symbols, "GSvolume_pa"]
    table = pd.DataFrame(columns)
    table = table.replace([np.inf, -np.inf], np.nan)
    return table.fillna(table.median())


@cache
def _list_rows() -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return names, and symbol → row of :func:`_load_properties`; tables are slow."""
    table = _load_properties()
    return tuple(map(str, table)), dict(zip(table.index, table.to_numpy(), strict=True))


@cache
def _compute_miedema(amounts: tuple[tuple[str, float], ...]) -> dict[str, float]:
    total = sum(n for _, n in amounts)
    enthalpies = compute_enthalpies({symbol: n / total for symbol, n in amounts})
    return {
        phase: value if np.isfinite(value) else 0.0 for phase, value in enthalpies._asdict().items()
    }
