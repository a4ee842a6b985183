"""Pairs of neighbours of a structure type, and features of its occupations.

A structure type at 1 Å³ per atom is a list of pairs of roles with their distances. Features of
crystals of this type follow from the pairs and from the properties of the elements by a few sums,
for thousands of occupations at a time. None of them depends on the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from pymatgen.core import Element, Structure

from ..density.elements import covalent_radius
from ..inputs.descriptors.sites import PROPERTIES, load_properties

REACH = 2.2
"""Radius of the neighbours, in units of the cube root of the volume per atom."""

POWERS = (4, 8)
"""Powers of the inverse distance that weigh pairs."""

CONTACT_POWER = 12
"""Power of the repulsion that determines the volume at which atoms touch."""


@dataclass(frozen=True)
class Pairs:
    """Neighbours of a structure type at 1 Å³ per atom.

    Attributes
    ----------
    shares
        Share of each role in the atoms.
    first, second, distance, count
        Role of an atom, role of its neighbour, their distance, and the number of such pairs per
        atom of the crystal; distances that are equal to 0.001 are one entry.
    """

    shares: np.ndarray
    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, cell: Structure, roles: np.ndarray) -> Pairs:
        """List the pairs of a cell of any volume, whose sites have these roles."""
        scale = (cell.volume / len(cell)) ** (1 / 3)
        first, second, _, distance = cell.get_neighbor_list(REACH * scale)
        keys = np.column_stack([roles[first], roles[second], np.round(distance / scale, 3) * 1000])
        unique, counts = np.unique(keys.astype(int), axis=0, return_counts=True)
        shares = np.bincount(roles) / len(roles)
        return cls(shares, unique[:, 0], unique[:, 1], unique[:, 2] / 1000, counts / len(roles))


@cache
def element_properties(symbol: str) -> np.ndarray:
    """Return Magpie's properties of an element, and two radii in Å."""
    element = Element(symbol)
    covalent = covalent_radius(symbol)
    radius = element.atomic_radius
    return np.array([*load_properties(symbol), covalent, float(radius) if radius else covalent])


COLUMNS = (*PROPERTIES, "covalent", "atomic")

RADII = (len(PROPERTIES), len(PROPERTIES) + 1)

ELECTRONEGATIVITY = COLUMNS.index("Electronegativity")


def occupation_features(pairs: Pairs, occupations: Sequence[Sequence[str]]) -> np.ndarray:
    """Compute features of crystals of one type that do not depend on their volume.

    Parameters
    ----------
    pairs
        Of the structure type.
    occupations
        n times the element of each role.

    Returns
    -------
    numpy.ndarray
        Shape (n, features): logarithms of volumes per atom (Å³) at which spheres of the radii
        touch; mean and spread of each property over the atoms, mean difference and covariance over
        neighbours, for each power; share of pairs of unlike elements.
    """
    symbols = sorted({symbol for one in occupations for symbol in one})
    table = np.array([element_properties(symbol) for symbol in symbols])
    index = np.array([[symbols.index(s) for s in one] for one in occupations], dtype=int)
    values = table[index]  # (n, roles, properties)
    columns = []
    for radius in RADII:
        own = values[:, :, radius]
        touch = (own[:, pairs.first] + own[:, pairs.second]) / pairs.distance
        strength = (pairs.count * touch**CONTACT_POWER).sum(axis=1)
        columns.append(3 / CONTACT_POWER * np.log(strength / 12)[:, None])
    mean = np.einsum("nrp,r->np", values, pairs.shares)
    away = values - mean[:, None]
    spread = np.sqrt(np.einsum("nrp,r->np", away**2, pairs.shares))
    columns += [mean, spread]
    unlike = index[:, pairs.first] != index[:, pairs.second]
    for power in POWERS:
        weights = pairs.count * pairs.distance**-power
        weights /= weights.sum()
        apart = np.abs(values[:, pairs.first] - values[:, pairs.second])
        columns.append(np.einsum("nkp,k->np", apart, weights))
        together = away[:, pairs.first] * away[:, pairs.second]
        product = np.einsum("nkp,k->np", together, weights)
        columns += [np.sign(product) * np.sqrt(np.abs(product)), (unlike @ weights)[:, None]]
    crowding = [(pairs.count * pairs.distance**-power).sum() for power in (*POWERS, 12)]
    columns.append(np.tile(np.log(crowding), (len(index), 1)))
    return np.hstack(columns)


def shares_of(pairs: Pairs, occupations: Sequence[Sequence[str]]) -> list[dict[str, float]]:
    """Return the share of each element in crystals of one type."""
    result = []
    for one in occupations:
        shares: dict[str, float] = {}
        for symbol, share in zip(one, pairs.shares, strict=True):
            shares[symbol] = shares.get(symbol, 0.0) + float(share)
        result.append(shares)
    return result
