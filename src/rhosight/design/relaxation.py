"""Correct the volume of a crystal by energies of CHGNet, an optional package."""

from __future__ import annotations

import numpy as np
from pymatgen.core import Structure

from ..models.baselines.chgnet import predict_energies
from .prototypes import resize

STRAINS = np.array([-0.12, -0.06, 0.0, 0.06, 0.12])
"""Relative changes of the volume at which the energy is computed."""

MAX_CHANGE = 0.25
"""Largest change of the volume that is believed."""


def relax_volume(structure: Structure) -> Structure:
    """Return a crystal with the volume of the lowest CHGNet energy; its shape stays.

    Energies at five volumes, twice: the second time about the minimum of the first.
    """
    volume = structure.volume
    for width in (1.0, 0.4):
        volumes = volume * (1 + width * STRAINS)
        computed = energies([resize(structure, one) for one in volumes])
        volume = _minimum(volumes, computed)
    change = volume / structure.volume - 1
    return structure if abs(change) > MAX_CHANGE else resize(structure, volume)


def _minimum(volumes: np.ndarray, energies: np.ndarray) -> float:
    """Return the volume at the minimum of a cubic in V^(-2/3) through the points."""
    x = volumes ** (-2 / 3)
    scale = x.mean()
    curve = np.polynomial.Polynomial.fit(x / scale, energies, 3)
    roots = curve.deriv().roots()
    real = roots[np.isreal(roots)].real
    curvature = curve.deriv(2)
    inside = [r for r in real if curvature(r) > 0 and x.min() <= r * scale <= x.max()]
    if not inside:
        return float(volumes[int(np.argmin(energies))])
    return float((inside[0] * scale) ** (-3 / 2))


def energies(structures: list[Structure]) -> np.ndarray:
    """Return energies of CHGNet, eV/atom."""
    return np.array([float(result["e"]) for result in predict_energies(structures)])
