"""Volume, energy and bulk modulus from GPAW's energies at several volumes."""

from __future__ import annotations

from pymatgen.core import Structure

from ..models.equation_of_state import EquationOfState, fit_equation_of_state
from .calculations import Calculations
from .prototypes import resize

FACTORS = (1.0, 0.92, 0.96, 1.04, 1.08)
"""Volumes of the energies, in units of the first volume."""

STEP = 0.04

MOST = 9
"""Largest number of energies: where the minimum lies outside, more follow on its side."""


def compute_equation_of_state(
    calculations: Calculations, name: str, structure: Structure
) -> EquationOfState:
    """Compute energies at five volumes or more, and fit the equation of state.

    The k-points are those of the first volume, since energies of different k-points do not form
    one curve.

    Raises
    ------
    RhosightError
        If GPAW fails, or has no minimum near these volumes.
    """
    kpoints: tuple[int, ...] | None = None
    energies: dict[float, float] = {}
    todo = list(FACTORS)
    while todo:
        factor = todo.pop(0)
        cell = resize(structure, structure.volume * factor)
        result = calculations.energy(f"{name}/eos-{factor:.2f}", cell, kpoints)
        if kpoints is None:
            kpoints = result.kpoints
        energies[factor] = result.energy
        if not todo:
            todo = _extend(energies)
    return fit_equation_of_state(
        [structure.volume * factor for factor in energies],
        list(energies.values()),
        len(structure),
        name,
    )


def _extend(energies: dict[float, float]) -> list[float]:
    """Return further volumes if the lowest energy is at an end."""
    factors = sorted(energies)
    if len(factors) >= MOST:
        return []
    lowest = min(factors, key=lambda factor: energies[factor])
    if lowest in factors[:1]:
        return [round(factors[0] - STEP, 2), round(factors[0] - 2 * STEP, 2)]
    if lowest in factors[-1:]:
        return [round(factors[-1] + STEP, 2), round(factors[-1] + 2 * STEP, 2)]
    return []
