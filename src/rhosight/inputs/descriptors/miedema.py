"""Miedema's model of the formation enthalpy of alloys.

De Boer et al., Cohesion in Metals (1988); Zhang et al., Comput. Phys. Commun. 209, 58 (2016),
doi:10.1016/j.cpc.2016.08.013. An alloy of several elements is the sum of its pairs (Gallego et al.,
J. Phys.: Condens. Matter 2, 6245 (1990)). The formulas and values are those of matminer's
``Miedema``, which takes a second to import.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import NamedTuple

import numpy as np

from .element_data import load_element_data

KJ_PER_MOL = 96.4853
"""kJ/mol in 1 eV/atom."""

_GAMMA = {"inter": 8, "amorphous": 5, "solution": 0}
"""Short-range order of each phase."""

_TRANSITION = range(3, 12)
"""Numbers of valence electrons of transition metals, for the constant P."""

_STABILITIES = {
    0.0: (0.0, 0.0, 0.0),
    1.0: (0.0, 0.0, 0.0),
    2.0: (0.0, 0.0, 0.0),
    3.0: (-2.0, 2.2, -2.5),
    4.0: (-1.5, 2.0, -2.5),
    5.0: (9.0, -9.5, 10.0),
    5.5: (14.0, -14.5, 15.0),
    6.0: (11.0, -12.0, 13.0),
    7.0: (-3.0, 4.0, -5.0),
    8.0: (-9.5, 10.0, -10.5),
    8.5: (-11.0, 11.0, -11.0),
    9.0: (-9.0, 8.5, -8.0),
    10.0: (-2.0, 1.5, -1.0),
    11.0: (1.5, 1.5, 2.5),
    **dict.fromkeys((12.0, 13.0, 14.0, 15.0), (0.0, 0.0, 0.0)),
}
"""Mean number of valence electrons → stability of fcc, bcc and hcp lattices, kJ/mol."""


class _Element(NamedTuple):
    """Miedema's parameters of one element, in the units of matminer's table."""

    molar_volume: float
    electron_density: float
    electronegativity: float
    valence_electrons: float
    a_const: float
    R_const: float
    H_trans: float
    compressibility: float
    shear_modulus: float
    melting_point: float
    structural_stability: float


class Enthalpies(NamedTuple):
    """Formation enthalpies of three phases, eV/atom."""

    inter: float
    amorphous: float
    solution: float


def compute_enthalpies(shares: dict[str, float]) -> Enthalpies:
    """Return Miedema's formation enthalpies of a composition.

    Parameters
    ----------
    shares
        Symbol → atomic fraction.

    Returns
    -------
    Enthalpies
        Of the intermetallic compound, the amorphous phase, and the most stable solid solution. Not
        finite where the model has no answer.
    """
    paulings = load_element_data("pymatgen")["X"]
    symbols = sorted(shares, key=lambda symbol: paulings[symbol])
    alloy = [(_read_element(symbol), shares[symbol]) for symbol in symbols]
    pairs = list(itertools.combinations(alloy, 2))
    with np.errstate(all="ignore"):
        inter, amorphous, solution = (
            sum(_chemical_term(*first, *second, gamma) for first, second in pairs)
            for gamma in _GAMMA.values()
        )
        elastic = sum(_elastic_term(*first, *second) for first, second in pairs)
        lattice = min([*_structural_terms(alloy), 0.0])
        disorder = 3.5 * sum(share * element.melting_point for element, share in alloy) / 1000
    values = inter, amorphous + disorder, solution + elastic + lattice
    return Enthalpies(*(float(value) / KJ_PER_MOL for value in values))


@cache
def _read_element(symbol: str) -> _Element:
    row = load_element_data("miedema").loc[symbol, list(_Element._fields)]
    return _Element(*row.to_numpy(float))


def _chemical_term(a: _Element, x: float, b: _Element, y: float, gamma: float) -> float:
    """Return the enthalpy of the contacts between shares x and y of two elements."""
    amounts = np.array([x, y])
    surfaces = np.array([a.molar_volume, b.molar_volume]) ** (2 / 3)
    surroundings = _surround(amounts, surfaces, gamma)
    transfer = np.array([1.0, -1.0]) * (a.electronegativity - b.electronegativity)
    swollen = surfaces * (1 + np.array([a.a_const, b.a_const]) * surroundings * transfer)
    share = _surround(amounts, swollen, gamma)[0]
    metals = [element.valence_electrons in _TRANSITION for element in (a, b)]
    p = 14.1 if all(metals) else 12.35 if any(metals) else 10.7
    hybrid = 0.0 if metals[0] == metals[1] else a.R_const * b.R_const * p
    edges = np.cbrt(a.electron_density), np.cbrt(b.electron_density)
    strength = -p * (a.electronegativity - b.electronegativity) ** 2 - hybrid
    strength += 9.4 * p * (edges[0] - edges[1]) ** 2
    contact = 2 * strength / (1 / edges[0] + 1 / edges[1])
    return share * x * swollen[0] * contact + x * a.H_trans + y * b.H_trans


def _surround(amounts: np.ndarray, surfaces: np.ndarray, gamma: float) -> np.ndarray:
    """Return the share of the surface of each element that touches the other one."""
    shares = amounts * surfaces / (amounts @ surfaces)
    return (shares * (1 + gamma * shares.prod() ** 2))[::-1]


def _elastic_term(a: _Element, x: float, b: _Element, y: float) -> float:
    """Return the enthalpy of atoms squeezed into a lattice of other atoms."""
    if not any((a.compressibility, b.compressibility, a.shear_modulus, b.shear_modulus)):
        return 0.0  # H and N
    apart = np.array([1.0, -1.0]) * (a.electronegativity - b.electronegativity)
    densities = np.array([a.electron_density, b.electron_density])
    volumes = np.array([a.molar_volume, b.molar_volume])
    screening = 1.5 / (1 / np.cbrt(densities)).sum()
    volumes_in_alloy = volumes + screening * volumes ** (2 / 3) * apart / densities
    change = screening * np.abs(volumes_in_alloy) ** (2 / 3) * apart
    volumes_a = a.molar_volume + change / a.electron_density  # of a; a dissolved in b, b in a
    volumes_b = b.molar_volume + change / b.electron_density
    a_in_b = _strain(a.compressibility, b.shear_modulus, volumes_a[0], volumes_b[0])
    b_in_a = _strain(b.compressibility, a.shear_modulus, volumes_b[1], volumes_a[1])
    return x * y * (y * a_in_b + x * b_in_a)


def _strain(modulus: float, shear_modulus: float, volume: float, hole: float) -> float:
    """Return the elastic energy of an atom in the hole of another."""
    work = 2 * modulus * shear_modulus * (volume - hole) ** 2
    return work / (4 * shear_modulus * volume + 3 * modulus * hole)


def _structural_terms(alloy: list[tuple[_Element, float]]) -> list[float]:
    """Return the enthalpies of fcc, bcc and hcp for a mean number of electrons."""
    electrons = sum(share * element.valence_electrons for element, share in alloy)
    pure = sum(share * element.structural_stability for element, share in alloy)
    counts = list(_STABILITIES)
    stabilities = np.array(list(_STABILITIES.values())).T
    return [float(np.interp(electrons, counts, row)) - pure for row in stabilities]
