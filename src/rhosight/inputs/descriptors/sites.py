"""Block of the order of the elements: their properties over pairs of neighbours."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...density.elements import covalent_radius
from .crystal import Crystal
from .element_data import load_element_data

PROPERTIES = (
    "Electronegativity",
    "CovalentRadius",
    "NdValence",
    "NpValence",
    "NsValence",
    "NfValence",
    "Column",
    "Row",
    "MendeleevNumber",
    "MeltingT",
    "GSvolume_pa",
)
"""Properties of Magpie's table (doi:10.1038/npjcompumats.2016.28), in its units."""

POWERS = (4, 8)
"""Powers n of the weight (s/r)ⁿ of a neighbour at distance r; s³ is the volume per atom."""

REACH = 2.6
"""Radius of the neighbours, in units of s."""


def sites(crystal: Crystal) -> dict[str, float]:
    """Compute the order of the elements on their sites.

    Neither the formula nor statistics of the density contain it.

    For each power n and each property p of :data:`PROPERTIES`, over pairs of neighbours:

    - ``difference{n}_{p}``, ``difference_rms{n}_{p}``: mean and root mean square of |p − p′|
    - ``covariance{n}_{p}``: mean of the product of deviations from the crystal's mean
    - ``neighbours{n}_{p}``: standard deviation over the atoms of their neighbours' mean

    and ``crowding{n}``, ``crowding_std{n}``: mean over the atoms of the sum of a neighbour's
    weights, and its standard deviation. Then ``closest`` (Å), ``closest_scaled`` (of s) and
    ``contact`` (of the sum of covalent radii): the shortest distance; ``repulsion``: the sum of
    contacts to the power −8 per atom; ``polar_neighbours``: the square of the difference in
    electronegativity to neighbours at up to 1.15 times the shortest distance, per atom;
    ``ionic_energy``: the sum over pairs, per atom, of products of electronegativities (from their
    mean) with exp(−r/s).
    """
    structure = crystal.structure
    count = len(structure)
    scale = (structure.volume / count) ** (1 / 3)
    first, second, _, distance = structure.get_neighbor_list(REACH * scale)
    symbols = [site.specie.symbol for site in structure]
    values = np.array([load_properties(symbol) for symbol in symbols])
    apart = np.abs(values[first] - values[second])
    away = values - values.mean(0)
    together = away[first] * away[second]
    result: dict[str, float] = {}
    for power in POWERS:
        weights = (scale / distance) ** power
        total = weights.sum()
        sums = np.bincount(first, weights, count)
        for k, name in enumerate(PROPERTIES):
            beside = np.bincount(first, weights * values[second, k], count) / sums
            result |= {
                f"difference{power}_{name}": weights @ apart[:, k] / total,
                f"difference_rms{power}_{name}": np.sqrt(weights @ apart[:, k] ** 2 / total),
                f"covariance{power}_{name}": weights @ together[:, k] / total,
                f"neighbours{power}_{name}": beside.std(),
            }
        result |= {f"crowding{power}": total / count, f"crowding_std{power}": sums.std()}
    radii = np.array([covalent_radius(symbol) for symbol in symbols])
    contact = distance / (radii[first] + radii[second])
    near = distance < 1.15 * distance.min()
    result |= {
        "closest": distance.min(),
        "closest_scaled": distance.min() / scale,
        "contact": contact.min(),
        "repulsion": (contact**-8).sum() / count,
        "polar_neighbours": (apart[near, 0] ** 2).sum() / count,
        "ionic_energy": together[:, 0] @ np.exp(-distance / scale) / count,
    }
    return {name: float(value) for name, value in result.items()}


@cache
def load_properties(symbol: str) -> np.ndarray:
    """Return :data:`PROPERTIES` of one element; the mean replaces missing values."""
    return load_element_data("magpie").loc[symbol, list(PROPERTIES)].to_numpy(float)
