"""Assemble a density from predicted differences: positive, symmetric, normalised."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Structure

from ..density.charge_density import ChargeDensity
from .features import CrystalFeatures, PointFeatures
from .network import DensityNetwork
from .primitive import find_primitive
from .reference import superpose
from .symmetry import (
    Symmetry,
    choose_reference_shape,
    choose_shape,
    find_orbits,
    idealise,
    transfer,
)

SPACING = 0.2
"""Å; default distance of grid points, that of the training densities."""

LEAST = 0.1
"""Share of the free atoms' density that is left at least, approached smoothly."""

BATCH = 8192
"""Points that pass the networks at a time."""


@dataclass(frozen=True, eq=False)
class DensityPrediction:
    """A predicted density and how far to trust it.

    Attributes
    ----------
    density
        ``total`` and ``difference``, marked as predicted in its provenance.
    spread
        Standard deviation of the networks, e/Å³, shape (nx, ny, nz): where the model is unsure.
    error, error_bound
        Expected ∫|ρ − ρ̂| / ∫ρ, and the value it stays below for 90 % of crystals like those of
        the training set.
    outside
        Reasons why the crystal is outside the training domain; empty if it is inside.
    """

    density: ChargeDensity
    spread: np.ndarray
    error: float
    error_bound: float
    outside: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Field:
    """Predicted values on a grid, shape (nx, ny, nz), and facts about the crystal.

    Attributes
    ----------
    total, difference, spread
        e/Å³.
    size
        ∫|difference| / ∫total.
    """

    total: np.ndarray
    difference: np.ndarray
    spread: np.ndarray
    size: float


@torch.inference_mode()
def run_networks(networks: Sequence[DensityNetwork], features: PointFeatures) -> np.ndarray:
    """Return the difference at points by each network, shape (networks, points).

    In double precision: rounding must not tell one cell of a crystal from another.
    """
    networks = [copy.deepcopy(network).double() for network in networks]
    index = torch.arange(len(features.elements))
    result = np.empty((len(networks), len(features.local)))
    for start in range(0, len(features.local), BATCH):
        part = slice(start, start + BATCH)
        local, valence = features.local[part], features.valence[part]
        which = index.expand(len(local), -1)
        for number, network in enumerate(networks):
            result[number, part] = network(
                local,
                features.sites[part],
                which,
                features.site_features,
                features.elements,
                valence,
            )
    return result


def predict_field(
    networks: Sequence[DensityNetwork],
    properties: np.ndarray,
    structure: Structure,
    spacing: float,
    shape: tuple[int, int, int] | None = None,
) -> Field:
    """Predict the density of a crystal on a grid.

    Its integral is that of the primitive cell at a spacing of :data:`SPACING`, whatever the grid.
    """
    cell = find_primitive(structure)
    primitive = idealise(cell.structure)
    symmetry = transfer(primitive, cell)
    shape = shape or choose_shape(symmetry, spacing)
    field = _compute(networks, properties, symmetry, shape)
    reference = choose_reference_shape(primitive, SPACING)
    atoms = len(structure) / len(primitive.structure)
    wanted = atoms * _count_electrons(
        _compute(networks, properties, primitive, reference), primitive.structure.volume
    )
    factor = wanted / _count_electrons(field, symmetry.structure.volume)
    free = field.total - field.difference
    total = field.total * (factor * symmetry.structure.volume / structure.volume)
    return Field(total, total - free, field.spread, field.size)


def _count_electrons(field: Field, volume: float) -> float:
    return float(field.total.mean() * volume)


def _compute(
    networks: Sequence[DensityNetwork],
    properties: np.ndarray,
    symmetry: Symmetry,
    shape: tuple[int, int, int],
) -> Field:
    orbits = find_orbits(symmetry, shape)
    features = CrystalFeatures(symmetry, properties)(orbits.points)
    predicted = run_networks(networks, features)
    free = superpose(symmetry.structure, shape)
    reference = np.bincount(orbits.orbit, free.ravel()) / orbits.counts
    mean = predicted.mean(axis=0, dtype=float)
    floor = np.maximum(LEAST * features.valence.numpy(), 1e-4)
    total = reference + mean
    low = total < floor
    total[low] = floor[low] * np.exp(total[low] / floor[low] - 1)
    counts = orbits.counts
    size = counts @ np.abs(total - reference) / (counts @ total)
    total, reference, spread = (
        values[orbits.orbit].reshape(shape)
        for values in (total, reference, predicted.std(axis=0, dtype=float))
    )
    return Field(total, total - reference, spread, float(size))
