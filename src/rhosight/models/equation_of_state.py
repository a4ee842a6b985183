"""Volume, energy and bulk modulus from energies at several volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.analysis.eos import EOS, EOSError

from ..errors import RhosightError


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


def fit_equation_of_state(
    volumes: Sequence[float] | np.ndarray,
    energies: Sequence[float] | np.ndarray,
    atoms: int,
    name: str,
    code: str = "GPAW",
) -> EquationOfState:
    """Fit Birch-Murnaghan's equation of third order.

    Parameters
    ----------
    volumes, energies
        Å³ and eV of a cell, shape (n,) with n of at least 5.
    atoms
        Number of atoms of the cell.
    name, code
        For messages: the crystal, and what has computed the energies.

    Raises
    ------
    RhosightError
        If the energies have no minimum between the volumes.
    """
    order = np.argsort(volumes)
    v, e = np.array(volumes)[order], np.array(energies)[order]
    no_minimum = RhosightError(
        f"{name}: {code}'s energies have no minimum between {v[0] / atoms:.2f} and "
        f"{v[-1] / atoms:.2f} Å³/atom; the volume is wrong, or the crystal unstable"
    )
    if not 0 < int(np.argmin(e)) < len(e) - 1:
        raise no_minimum
    try:
        curve = EOS("birch_murnaghan").fit(v.tolist(), e.tolist())
    except (EOSError, RuntimeError, ValueError) as error:
        raise RhosightError(f"{name}: no equation of state fits {code}'s energies") from error
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
