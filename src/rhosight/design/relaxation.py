"""Correct the volume of a crystal by energies of CHGNet, an optional package."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError
from ..models.baselines.chgnet import find_chgnet_version, load_network

STRAINS = np.array([-0.12, -0.06, 0.0, 0.06, 0.12])
"""Relative changes of the volume at which the energy is computed."""

MAX_CHANGE = 0.25
"""Largest change of the volume that is believed."""


def require_chgnet() -> None:
    """Raise if CHGNet is not installed."""
    if find_chgnet_version() is None:
        raise RhosightError(
            "geometry chgnet needs an optional package: pip install 'rhosight[chgnet]'"
        )


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


def resize(structure: Structure, volume: float) -> Structure:
    """Return a crystal with another volume of its cell, Å³."""
    resized = structure.copy()
    resized.scale_lattice(float(volume))
    return resized


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
    network: Any = load_network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graphs = [network.graph_converter(structure) for structure in structures]
        except ValueError as error:  # an isolated atom
            formula = structures[0].composition.reduced_formula
            raise RhosightError(f"{formula}: CHGNet cannot read it ({error})") from error
        results = network.predict_graph(graphs, task="e", batch_size=len(graphs))
    return np.array([float(result["e"]) for result in results])
