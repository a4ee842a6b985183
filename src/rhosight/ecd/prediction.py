"""Assemble a density from predicted differences: positive, symmetric, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from pymatgen.core import Structure

from ..density.charge_density import ChargeDensity
from ..density.free_atoms import promolecule
from ..density.sampling import compute_spectrum
from ..errors import RhosightError
from .features import CrystalFeatures, PointFeatures
from .network import DensityNetwork
from .primitive import PrimitiveCell, find_primitive
from .reference import superpose
from .symmetry import (
    Symmetry,
    choose_reference_shape,
    choose_shape,
    find_orbits,
    idealise,
    move_origin,
    transfer,
)

SPACING = 0.2
"""Å; default distance of grid points, that of the training densities."""

FINE, MANY = 0.16, 50.0
"""Å; largest distance of the points that the networks predict, if the primitive cell has at most so
much volume (Å³) for each of its symmetry operations, and :data:`SPACING` otherwise. The densities
are 0.02 % of the electrons from those at the training densities' own points, at 0.2 Å 0.06 %."""

MAX_POINTS = 4_000_000
"""Largest grid: features of more points take hours and more memory than a laptop has."""

LEAST = 0.1
"""Share of the free atoms' density that is left at least, approached smoothly."""

BATCH = 1024
"""Points that pass the networks at a time."""

MOST_SITES = 60
"""With more inequivalent sites, weights for one crystal are larger than those for all."""


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

    @property
    def error_map(self) -> np.ndarray:
        """Expected |ρ − ρ̂| at each point, e/Å³, shape (nx, ny, nz).

        ``spread``, scaled so that its integral is the expected error of the crystal: the networks
        disagree less than they are wrong.
        """
        total = self.density.grid("total").sum()
        return self.spread * (self.error * total / max(self.spread.sum(), 1e-12))


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
    """Return the difference at points by each network, e/Å³, shape (networks, points)."""
    local, sites, valence = features.local, features.sites, features.valence
    result = np.empty((len(networks), len(local)))
    parts = [slice(start, start + BATCH) for start in range(0, len(local), BATCH)]
    if sites.shape[1] > MOST_SITES:
        of_sites = features.site_features, features.elements
        which = torch.arange(sites.shape[1])
        for part, (number, network) in product(parts, enumerate(networks)):
            index = which.expand(len(local[part]), -1)
            result[number, part] = network(
                local[part], sites[part], index, *of_sites, valence[part]
            )
        return result
    constant = torch.where((local == local[0]).all(dim=0), local[0], torch.nan)
    specialised = [
        network.specialise(constant, features.site_features, features.elements)
        for network in networks
    ]
    varying = local[:, constant.isnan()]
    for part in parts:
        points = torch.cat([varying[part], sites[part].flatten(1)], dim=1)
        for number, special in enumerate(specialised):
            result[number, part] = special(points, valence[part])
    return result


def predict_field(
    networks: Sequence[DensityNetwork],
    properties: np.ndarray,
    structure: Structure,
    spacing: float,
    shape: tuple[int, int, int] | None = None,
) -> Field:
    """Predict the density of a crystal on a grid.

    The networks predict the difference on one grid of the primitive cell, and its plane waves
    continue it to the given grid, as GPAW does with its own. The integral is that of the grid of
    the primitive cell.
    """
    cell = find_primitive(structure)
    primitive, cell = move_origin(idealise(cell.structure), cell)
    is_large = primitive.structure.volume > MANY * len(primitive.rotations)
    grid = choose_reference_shape(primitive, SPACING if is_large else FINE)
    if np.prod(grid) > MAX_POINTS:
        raise RhosightError(
            f"{structure.composition.reduced_formula}: a primitive cell of "
            f"{primitive.structure.volume:.0f} Å³ is too large to predict its density; calculate it"
        )
    difference, spread = _run_on_grid(networks, properties, primitive, grid)
    reference = _superpose(primitive, grid)
    known = _add(*reference, difference)
    copies = len(structure) / len(primitive.structure)
    electrons = copies * known.mean() * primitive.structure.volume
    size = np.abs(known - reference[0]).sum() / known.sum()

    symmetry = transfer(primitive, cell)
    shape = shape or choose_shape(symmetry, spacing)
    difference, spread = (
        _continue(values, cell, primitive, shape) for values in (difference, spread)
    )
    free, valence = _superpose(symmetry, shape)
    total = _add(free, valence, difference)
    total *= electrons / (total.mean() * structure.volume)
    return Field(total, total - free, np.maximum(spread, 0), float(size))


def _run_on_grid(
    networks: Sequence[DensityNetwork],
    properties: np.ndarray,
    symmetry: Symmetry,
    shape: tuple[int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the networks' differences on a grid, e/Å³."""
    orbits = find_orbits(symmetry, shape)
    predicted = run_networks(networks, CrystalFeatures(symmetry, properties)(orbits.points))
    values = predicted.mean(axis=0)[orbits.orbit], predicted.std(axis=0)[orbits.orbit]
    return values[0].reshape(shape), values[1].reshape(shape)


def _superpose(symmetry: Symmetry, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the free atoms' density, symmetric, with and without smooth cores."""
    orbits = find_orbits(symmetry, shape)
    densities = superpose(symmetry.structure, shape), promolecule(symmetry.structure, shape, False)
    means = [np.bincount(orbits.orbit, values.ravel()) / orbits.counts for values in densities]
    return means[0][orbits.orbit].reshape(shape), means[1][orbits.orbit].reshape(shape)


def _add(free: np.ndarray, valence: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Return the total density; where it would be low, it approaches zero smoothly."""
    total = free + difference
    floor = np.maximum(LEAST * valence, 1e-4)
    low = total < floor
    total[low] = floor[low] * np.exp(total[low] / floor[low] - 1)
    return total


def _continue(
    values: np.ndarray, cell: PrimitiveCell, primitive: Symmetry, shape: tuple[int, int, int]
) -> np.ndarray:
    """Move values from a grid of the primitive cell to one of the user's cell.

    Each operation of the crystal adds its image, because the grid need not have them all.
    """
    reciprocal = np.linalg.inv(primitive.structure.lattice.matrix).T
    waves, amplitudes = compute_spectrum(values, reciprocal)
    size = int(np.prod(shape))
    spectrum = np.zeros(size, dtype=complex)
    for rotation, translation in zip(primitive.rotations, primitive.translations, strict=True):
        images = waves @ rotation
        phases = np.exp(2j * np.pi * (waves @ translation - images @ cell.origin))
        index = np.rint(images @ cell.matrix.T).astype(int) % np.array(shape)
        place = np.ravel_multi_index(tuple(index.T), shape)
        part = amplitudes * phases
        spectrum.real += np.bincount(place, part.real, minlength=size)
        spectrum.imag += np.bincount(place, part.imag, minlength=size)
    spectrum *= size / len(primitive.rotations)
    return np.fft.ifftn(spectrum.reshape(shape)).real
