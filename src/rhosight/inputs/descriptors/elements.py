"""Blocks that a formula and the volume give, beyond the Magpie statistics of the baselines."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Element

from .crystal import Crystal, free_atoms

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
    """Atomic fraction of each of the 69 elements. Formation energies are measured from the
    elements, so a shift of an element's reference is linear in these.
    """
    composition = crystal.structure.composition
    return {s: float(composition.get_atomic_fraction(s)) for s in _symbols()}


def element_densities(crystal: Crystal) -> dict[str, float]:
    """Atoms of each of the 69 elements per Å³. The zero of the potential that a plane-wave code
    measures the Fermi energy from is the cell's average, to which each atom adds a constant over
    the volume (Ihm, Zunger, Cohen, J. Phys. C 12, 4409 (1979), doi:10.1088/0022-3719/12/21/009).
    """
    return {s: x / crystal.volume for s, x in fractions(crystal).items()}


def elements(crystal: Crystal) -> dict[str, float]:
    """Mean and standard deviation over the atoms of :data:`PYMATGEN`, the cohesive energy (eV/atom,
    Kittel), :data:`DEML` and the element's own volume (Å³/atom, Magpie); then

    - ``volume_ratio``: volume over that of the elements
    - ``modulus_by_volume``, ``modulus_series``: bulk moduli of the elements (GPa), weighted by
      volume and divided by the crystal's volume, and in series (Reuss)
    - ``cohesive_density``: eV/Å³
    - ``miedema_inter``, ``_solution``, ``_amorphous``: Miedema's formation enthalpies of the alloy,
      eV/atom (Zhang et al., Comput. Phys. Commun. 209, 58 (2016), doi:10.1016/j.cpc.2016.08.013),
      0 where the model has no parameters

    Where a table has no value for an element, the median over the others stands for it.
    """
    table = _properties()
    composition = crystal.structure.composition
    symbols = sorted(element.symbol for element in composition)
    shares = np.array([composition.get_atomic_fraction(s) for s in symbols])
    values = table.loc[symbols].to_numpy()
    means = shares @ values
    spread = np.sqrt(shares @ (values - means) ** 2)
    result = {f"{name}_mean": float(x) for name, x in zip(table, means, strict=True)}
    result |= {f"{name}_std": float(x) for name, x in zip(table, spread, strict=True)}
    own, modulus, cohesive = (
        table.loc[symbols, name].to_numpy() for name in ("volume", "bulk_modulus", "cohesive")
    )
    result["volume_ratio"] = float(crystal.volume / (shares @ own))
    result["modulus_by_volume"] = float(shares @ (modulus * own) / crystal.volume)
    result["modulus_series"] = float(shares @ own / (shares @ (own / modulus)))
    result["cohesive_density"] = float(shares @ cohesive / crystal.volume)
    reduced = composition.element_composition.reduced_composition
    amounts = tuple(sorted((element.symbol, n) for element, n in reduced.items()))
    names = ("miedema_inter", "miedema_solution", "miedema_amorphous")
    return result | dict(zip(names, _miedema(amounts), strict=True))


@cache
def own_volume(symbol: str) -> float:
    """Å³/atom; of the element's ground state, from matminer's Magpie table."""
    return float(_properties().loc[symbol, "volume"])


@cache
def _symbols() -> tuple[str, ...]:
    return tuple(sorted(free_atoms(), key=lambda symbol: Element(symbol).Z))


@cache
def _properties() -> pd.DataFrame:
    """One row an element, one column a property, no gaps."""
    from matminer.utils.data import CohesiveEnergyData, DemlData, MagpieData

    elements = [Element(symbol) for symbol in _symbols()]
    cohesive = CohesiveEnergyData().cohesive_energy_data
    columns: dict[str, list[float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of properties that an element does not have
        for name in PYMATGEN:
            columns[name] = [_number(getattr(element, name, None)) for element in elements]
        columns["cohesive"] = [_number(cohesive.get(element.symbol)) for element in elements]
        deml, magpie = DemlData(), MagpieData()
        for name in DEML:
            values = [deml.get_elemental_property(element, name) for element in elements]
            columns[f"deml_{name}"] = [_number(value) for value in values]
        values = [magpie.get_elemental_property(element, "GSvolume_pa") for element in elements]
        columns["volume"] = [_number(value) for value in values]
    table = pd.DataFrame(columns, index=list(_symbols()), dtype=float)
    table = table.replace([np.inf, -np.inf], np.nan)
    return table.fillna(table.median())


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


@cache
def _miedema_model() -> object:
    from matminer.featurizers.composition import Miedema

    return Miedema(struct_types="all")


@cache
def _miedema(amounts: tuple[tuple[str, float], ...]) -> tuple[float, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = np.array(_miedema_model().featurize(Composition(dict(amounts))), dtype=float)
    return tuple(float(x) for x in np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
