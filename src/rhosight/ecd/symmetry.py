"""Idealise a crystal to its symmetry, and find the distinct points of a grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import lcm

import numpy as np
from pymatgen.core import Structure
from scipy.linalg import sqrtm

from ..density.crystals import find_symmetry, group_mixed_axes, number_species
from .primitive import PrimitiveCell, describe_places, find_primitive

DENOMINATORS = (1, 2, 3, 4, 6, 8)
"""Of the translations of symmetry operations in the cells that users hold."""

TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Symmetry operations of a cell: x ↦ rotation · x + translation, fractional.

    Attributes
    ----------
    structure
        The crystal, moved by less than the tolerance of the search to have them exactly.
    rotations, translations
        Shapes (n, 3, 3), integers, and (n, 3).
    """

    structure: Structure
    rotations: np.ndarray
    translations: np.ndarray


@dataclass(frozen=True, eq=False)
class Orbits:
    """Points of a grid that symmetry maps onto each other.

    Attributes
    ----------
    points
        Fractional coordinates of one point of each orbit, shape (orbits, 3).
    orbit
        Orbit of each point of the grid, shape (nx · ny · nz,).
    counts
        Points of each orbit, shape (orbits,).
    """

    points: np.ndarray
    orbit: np.ndarray
    counts: np.ndarray


def find_operations(structure: Structure) -> Symmetry:
    """Return the symmetry of a crystal, and the crystal made exactly symmetric.

    Both come from the primitive cell, so that they do not depend on the choice of the cell.
    """
    cell = find_primitive(structure)
    return transfer(idealise(cell.structure), cell)


def idealise(structure: Structure) -> Symmetry:
    """Return the symmetry of a primitive cell, and the cell made exactly symmetric.

    Each site moves to the mean of the places that the operations give it, and the metric of the
    cell becomes the mean of its images.
    """
    data = find_symmetry(structure, number_species(structure))
    if data is None:
        return Symmetry(structure, np.eye(3, dtype=int)[None], np.zeros((1, 3)))
    rotations = np.asarray(data.rotations, dtype=int)
    translations = _round_translations(np.array(data.translations, dtype=float))
    lattice = structure.lattice.matrix
    metric = lattice @ lattice.T
    mean = np.mean([w.T @ metric @ w for w in rotations], axis=0)
    # the symmetric strain that turns the metric into its mean
    inverse = np.linalg.inv(lattice)
    strain = np.real(sqrtm(inverse @ mean @ inverse.T))
    places = structure.frac_coords
    sums = np.zeros_like(places)
    kinds = np.array(number_species(structure))
    for rotation, translation in zip(rotations, translations, strict=True):
        images = places @ rotation.T + translation
        shift = images[:, None] - places[None]
        shift -= np.round(shift)
        distance = np.linalg.norm(shift @ lattice, axis=-1)
        distance[kinds[:, None] != kinds[None]] = np.inf
        partner = distance.argmin(axis=1)
        sums[partner] += shift[np.arange(len(places)), partner]
    ideal = Structure(lattice @ strain, structure.species, places + sums / len(rotations))
    return Symmetry(ideal, rotations, translations)


def transfer(symmetry: Symmetry, cell: PrimitiveCell) -> Symmetry:
    """Return the symmetry of a primitive cell, and its crystal, in the user's cell.

    Operations that do not map the user's lattice onto itself are left out.
    """
    inverse = np.linalg.inv(cell.matrix)
    # columns: x' = matrixᵀ x − origin
    rotations = inverse.T @ symmetry.rotations @ cell.matrix.T
    kept = np.abs(rotations - np.round(rotations)).max(axis=(1, 2)) < TOLERANCE
    begin = cell.origin - symmetry.rotations @ cell.origin
    translations = ((symmetry.translations + begin) @ inverse)[kept]
    copies = cell.offset[cell.atom == 0]
    moves = (copies - copies[0]) @ inverse
    translations = (translations[:, None] + moves).reshape(-1, 3)
    places = (symmetry.structure.frac_coords[cell.atom] + cell.offset + cell.origin) @ inverse
    species = [symmetry.structure.species[i] for i in cell.atom]
    return Symmetry(
        Structure(cell.matrix @ symmetry.structure.lattice.matrix, species, places % 1.0),
        np.repeat(np.round(rotations[kept]).astype(int), len(moves), axis=0),
        _round_translations(translations),
    )


def _round_translations(translations: np.ndarray) -> np.ndarray:
    """Return translations with those near a fraction n/24 rounded to it."""
    rounded = np.round(translations * 24) / 24
    return np.where(np.abs(rounded - translations) < 1e-5, rounded, translations) % 1.0


def move_origin(symmetry: Symmetry, cell: PrimitiveCell) -> tuple[Symmetry, PrimitiveCell]:
    """Return a primitive cell whose grids keep most symmetry operations.

    The new origin is an atom of the rarest element or lies midway between two, such as a centre of
    inversion. Operations fit on a grid if their translations are simple fractions.
    """
    structure = symmetry.structure
    numbers = np.array(structure.atomic_numbers)
    kinds, counts = np.unique(numbers, return_counts=True)
    places = structure.frac_coords[numbers == kinds[counts.argmin()]]
    first, second = np.triu_indices(len(places))
    halves = np.array(list(product((0, 0.5), repeat=3)))
    origins = ((places[first] + places[second]) / 2)[:, None] + halves
    origins = origins.reshape(-1, 3)
    moved = np.einsum("kij,oj->oki", symmetry.rotations - np.eye(3), origins)
    moved += symmetry.translations
    fits = np.full(moved.shape[:2], 0)
    for n in sorted(DENOMINATORS, reverse=True):
        fits[(np.abs(moved * n - np.round(moved * n)) < TOLERANCE).all(axis=2)] = n
    lost = (fits == 0).sum(axis=1)
    steps = np.lcm.reduce(np.maximum(fits, 1), axis=1)
    surroundings = describe_places(
        structure.lattice.matrix, structure.frac_coords, numbers, origins
    )
    best = np.lexsort((-np.round(surroundings, 6), steps, lost))[0]
    origin = origins[best]
    shifted = Structure(structure.lattice, structure.species, structure.frac_coords - origin)
    translations = _round_translations(moved[best])
    return (
        Symmetry(shifted, symmetry.rotations, translations),
        replace(cell, origin=cell.origin + origin),
    )


def choose_shape(
    symmetry: Symmetry, spacing: float, rotations: np.ndarray | None = None
) -> tuple[int, int, int]:
    """Return the smallest grid at most ``spacing`` (Å) apart that keeps the symmetry.

    Axes that symmetry mixes, or ``rotations`` in its place, get the same number of points;
    translations map points to points.
    """
    wanted = np.ceil(np.array(symmetry.structure.lattice.abc) / spacing - 1e-6).astype(int)
    steps = np.ones(3, dtype=int)
    for axis in range(3):
        for value in symmetry.translations[:, axis]:
            fits = [n for n in DENOMINATORS if abs(value * n - round(value * n)) < TOLERANCE]
            steps[axis] = lcm(int(steps[axis]), min(fits, default=1))
    shape = [0, 0, 0]
    for axes in group_mixed_axes(symmetry.rotations if rotations is None else rotations):
        step = lcm(*(int(steps[k]) for k in axes))
        for axis in axes:
            shape[axis] = int(-(-max(wanted[k] for k in axes) // step) * step)
    return shape[0], shape[1], shape[2]


def choose_reference_shape(symmetry: Symmetry, spacing: float) -> tuple[int, int, int]:
    """Return the grid for a primitive cell that is the same for all its reduced bases.

    Such bases differ by an operation of the empty lattice; the grid has the symmetry of that.
    """
    lattice = Structure(symmetry.structure.lattice, ["H"], [[0, 0, 0]])
    data = find_symmetry(lattice, [0], symprec=1e-4)
    return choose_shape(symmetry, spacing, None if data is None else np.asarray(data.rotations))


def find_orbits(symmetry: Symmetry, shape: tuple[int, int, int]) -> Orbits:
    """Return the symmetry-distinct points of a grid.

    Operations that do not map the grid onto itself are left out.
    """
    n = np.array(shape)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    lowest = np.arange(len(grid))
    for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
        turn, shift = rotation * n[:, None] / n[None, :], translation * n
        if max(np.abs(part - np.round(part)).max() for part in (turn, shift)) > 1e-4:
            continue
        image = (grid @ np.round(turn).astype(int).T + np.round(shift).astype(int)) % n
        lowest = np.minimum(lowest, (image[:, 0] * n[1] + image[:, 1]) * n[2] + image[:, 2])
    first, orbit, counts = np.unique(lowest, return_inverse=True, return_counts=True)
    return Orbits(grid[first] / n, orbit, counts)
