"""Reduce a crystal to a primitive cell, the same whatever cell it is given in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import spglib
from pymatgen.core import Structure

from ..density.crystals import find_symmetry, number_species
from .surroundings import REACH, AtomFinder


@dataclass(frozen=True, eq=False)
class PrimitiveCell:
    """A primitive cell and its place in the cell of the user.

    Attributes
    ----------
    structure
        Niggli-reduced, in the user's orientation. One atom, the same for any cell of the crystal,
        is the origin.
    matrix
        The user's lattice vectors (rows) in those of the primitive cell, integers, shape (3, 3).
    origin
        Where the primitive cell begins, fractional in its own lattice vectors, shape (3,).
    atom, offset
        For each atom of the user's cell its atom in the primitive cell, shape (n,), and the
        lattice vector between the two, integers, shape (n, 3).
    """

    structure: Structure
    matrix: np.ndarray
    origin: np.ndarray
    atom: np.ndarray
    offset: np.ndarray


def find_primitive(structure: Structure) -> PrimitiveCell:
    """Return the primitive cell of a crystal; copies of an atom are averaged."""
    lattice = structure.lattice.matrix
    data = find_symmetry(structure, number_species(structure))
    reduced = lattice
    atom: np.ndarray = np.arange(len(structure))
    if data is not None:
        reduced, atom = data.primitive_lattice, data.mapping_to_primitive
    matrix = _express(lattice, reduced)
    atoms = int(atom.max()) + 1
    if abs(round(np.linalg.det(matrix))) * atoms != len(structure):
        # spglib's primitive cell does not fill the given one: keep that
        matrix, atom, atoms = _express(lattice, lattice), np.arange(len(structure)), len(structure)
    places = structure.frac_coords @ matrix
    first = np.unique(atom, return_index=True)[1]
    distance = places - places[first][atom]
    offset = np.round(distance)
    mean = places[first].copy()
    np.add.at(mean, atom, (distance - offset) * (atoms / len(structure)))
    reduced = np.linalg.inv(matrix) @ lattice
    numbers = np.array(structure.atomic_numbers)[first]
    order = np.lexsort((describe_places(reduced, mean, numbers), numbers))
    origin = mean[order[0]]
    species = [structure.species[first[i]] for i in order]
    primitive = Structure(reduced, species, mean[order] - origin)
    return PrimitiveCell(primitive, matrix, origin, np.argsort(order)[atom], offset)


def _express(lattice: np.ndarray, primitive: np.ndarray) -> np.ndarray:
    """Return lattice vectors in the Niggli-reduced ones of a primitive cell, integers."""
    reduced = spglib.niggli_reduce(primitive)
    basis = primitive if reduced is None else reduced
    return np.round(lattice @ np.linalg.inv(basis)).astype(int)


def describe_places(
    lattice: np.ndarray, frac: np.ndarray, numbers: np.ndarray, places: np.ndarray | None = None
) -> np.ndarray:
    """Return a number for each place, the same for equivalent ones and in any cell.

    It tells how near which atoms are. Without ``places`` (fractional) these are the atoms, none of
    which counts itself.
    """
    at = frac if places is None else places
    neighbours = AtomFinder(lattice, frac)(at, skip_own=places is None)
    nearness = np.clip(REACH - neighbours.distance.numpy(), 0, None) ** 2
    return (nearness * numbers[neighbours.atom.numpy()]).sum(axis=1)
