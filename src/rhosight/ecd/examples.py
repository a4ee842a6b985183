"""Training points: the symmetry-distinct grid points of a dataset's densities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.progress import Progress
from .features import CrystalFeatures
from .reference import superpose
from .symmetry import find_operations, find_orbits


@dataclass(frozen=True, eq=False)
class Examples:
    """Points of several crystals, with the densities to learn.

    Attributes
    ----------
    local, sites, valence, nearest
        As in ``PointFeatures``, for all points; ``sites`` is padded with zeros.
    which
        Sites of each point, indices in ``site_features``, shape (n, most sites).
    site_features, elements
        Of the sites of all crystals.
    crystal
        Crystal of each point, shape (n,).
    volume
        Volume of each point and its equivalents, Å³, shape (n,).
    difference, total
        e/Å³, shape (n,); ``difference`` is relative to the table of free atoms.
    electrons
        Integral of ``total`` of each crystal, shape (crystals,).
    """

    local: torch.Tensor
    sites: torch.Tensor
    valence: torch.Tensor
    nearest: torch.Tensor
    which: torch.Tensor
    site_features: torch.Tensor
    elements: torch.Tensor
    crystal: np.ndarray
    volume: np.ndarray
    difference: np.ndarray
    total: np.ndarray
    electrons: np.ndarray

    def points_of(self, crystals: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the positions of the points of some crystals."""
        return np.flatnonzero(np.isin(self.crystal, crystals))


def collect_examples(
    densities: Sequence[ChargeDensity],
    properties: np.ndarray,
    progress: Progress | None = None,
) -> Examples:
    """Compute the features of all symmetry-distinct grid points of densities.

    Parameters
    ----------
    densities
        Pseudo-densities of one code with ``total``; see :func:`superpose`.
    properties
        Of the elements, shape (elements, properties).
    progress
        Called after each density.
    """
    columns: list[tuple] = []
    first_site = 0
    for number, density in enumerate(densities):
        try:
            symmetry = find_operations(density.structure)
            reference = superpose(density.structure, density.shape)
        except RhosightError as error:
            raise RhosightError(f"{density.name}: {error}") from error
        orbits = find_orbits(symmetry, density.shape)
        features = CrystalFeatures(symmetry, properties)(orbits.points)
        total = np.asarray(density.grid("total"), dtype=float).ravel()
        means = [
            np.bincount(orbits.orbit, values) / orbits.counts
            for values in (total - reference.ravel(), total)
        ]
        volume = orbits.counts * (density.structure.volume / len(total))
        columns.append((features, first_site, volume, *means, number))
        first_site += len(features.elements)
        if progress:
            progress("features of densities", number + 1, len(densities))
    return _join(columns)


def _join(columns: list[tuple]) -> Examples:
    features, firsts, volumes, differences, totals, numbers = zip(*columns, strict=True)
    most = max(len(f.elements) for f in features)
    sites, which = [], []
    for f, first in zip(features, firsts, strict=True):
        missing = most - len(f.elements)
        sites.append(torch.nn.functional.pad(f.sites, (0, 0, 0, missing)))
        index = torch.arange(first, first + len(f.elements))
        padded = torch.nn.functional.pad(index, (0, missing), value=first)
        which.append(padded.expand(len(f.sites), -1))
    return Examples(
        local=torch.cat([f.local for f in features]),
        sites=torch.cat(sites),
        valence=torch.cat([f.valence for f in features]),
        nearest=torch.cat([f.nearest for f in features]),
        which=torch.cat(which),
        site_features=torch.cat([f.site_features for f in features]),
        elements=torch.cat([f.elements for f in features]),
        crystal=np.concatenate([np.full(len(v), n) for v, n in zip(volumes, numbers, strict=True)]),
        volume=np.concatenate(volumes),
        difference=np.concatenate(differences).astype(np.float32),
        total=np.concatenate(totals).astype(np.float32),
        electrons=np.array([v @ t for v, t in zip(volumes, totals, strict=True)]),
    )
