"""Volume, energy and bulk modulus from GPAW's energies at several volumes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.analysis.eos import EOS, EOSError
from pymatgen.core import Structure

from ..errors import RhosightError
from .calculations import Calculations
from .prototypes import resize

FACTORS = (1.0, 0.92, 0.96, 1.04, 1.08)
"""Volumes of the energies, in units of the first volume."""

STEP = 0.04

MOST = 9
"""Largest number of energies: where the minimum lies outside, more follow on its side."""


@dataclass(frozen=True)
class EquationOfState:
    """Birch-Murnaghan's equation of state of a crystal whose shape is fixed.

    Attributes
    ----------
    volumes
        Å³ of the cell, sorted, shape (n,).
    energies
        eV of the cell, shape (n,).
    volume, energy
        At the minimum.
    bulk_modulus
        GPa. For a fixed shape it is Voigt's average of the elastic constants, with atoms that stay
        in place.
    deviation
        Root mean square of what the curve misses, eV/atom.
    """

    volumes: tuple[float, ...]
    energies: tuple[float, ...]
    volume: float
    energy: float
    bulk_modulus: float
    deviation: float


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


def fit_equation_of_state(
    volumes: list[float], energies: list[float], atoms: int, name: str
) -> EquationOfState:
    """Fit Birch-Murnaghan's equation of third order.

    Parameters
    ----------
    volumes, energies
        Å³ and eV of a cell, shape (n,) with n of at least 5.
    atoms
        Number of atoms of the cell.
    name
        For messages.

    Raises
    ------
    RhosightError
        If the energies have no minimum between the volumes.
    """
    order = np.argsort(volumes)
    v, e = np.array(volumes)[order], np.array(energies)[order]
    no_minimum = RhosightError(
        f"{name}: GPAW's energies have no minimum between {v[0] / atoms:.2f} and "
        f"{v[-1] / atoms:.2f} Å³/atom; the predicted volume is wrong, or the crystal unstable"
    )
    if not 0 < int(np.argmin(e)) < len(e) - 1:
        raise no_minimum
    try:
        curve = EOS("birch_murnaghan").fit(v.tolist(), e.tolist())
    except (EOSError, RuntimeError, ValueError) as error:
        raise RhosightError(f"{name}: no equation of state fits GPAW's energies") from error
    minimum, lowest, modulus = float(curve.v0), float(curve.e0), float(curve.b0_GPa)
    if not v[0] <= minimum <= v[-1] or not modulus > 0:
        raise no_minimum
    misses = np.asarray(curve.func(v)) - e
    return EquationOfState(
        volumes=tuple(v.tolist()),
        energies=tuple(e.tolist()),
        volume=minimum,
        energy=lowest,
        bulk_modulus=modulus,
        deviation=float(np.sqrt(np.mean(misses**2)) / atoms),
    )
