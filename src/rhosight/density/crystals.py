"""Crystals as pymatgen structures: conversion, checks, symmetry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import spglib
from pymatgen.core import DummySpecies, Element, IStructure, Structure
from scipy.sparse.csgraph import connected_components

from ..errors import RhosightError, first_line
from .elements import covalent_radius

if TYPE_CHECKING:
    from spglib import SpglibDataset

SYMPREC = 0.01
"""Tolerance of the symmetry search, Å: sites that symmetry maps onto each other within this are
equivalent. Planes, images, texts and descriptors use it; it is Robocrystallographer's default."""

MP_SYMPREC, MP_ANGLE_TOLERANCE = 0.1, 5.0
"""Tolerances of the Materials Project's symmetry search, Å and degrees. Space groups, Bravais
lattices and structure types follow them. Without the second, spglib finds a tetragonal crystal
where the Materials Project lists a cubic one (In, mp-85)."""

# Volume over the product of the edges, below which a cell is flat: angles of a few thousandths
MIN_VOLUME_RATIO = 1e-6

MAX_EDGE = 1e4
"""Longest edge of a cell, Å; also the largest distance of an atom from its cell, in edges."""
MAX_VOLUME = 1e8
"""Largest volume of a cell, Å³: a cube of 464 Å."""

MIN_EDGE = 0.1
"""Shortest edge of a cell, Å; no atom is as small."""

MIN_CONTACT = 0.5
"""Shortest distance of two atoms, as a share of the sum of their covalent radii. No crystal comes
near it at any pressure that can be reached."""

# Å; below this height of the cell, a search for neighbours takes too many images
_MIN_HEIGHT = 0.3
# Å; of the elements without a known one, which are all heavy
_DEFAULT_RADIUS = 1.5

# Depending on its version, spglib raises this error or returns None
_SPGLIB_ERROR: Any = getattr(spglib, "SpglibError", ())


class HasStructure(Protocol):
    """An object with a structure: ``ChargeDensity``, ``Chgcar``, ``Material``."""

    @property
    def structure(self) -> IStructure:
        """The crystal."""


class AseAtoms(Protocol):
    """The methods by which an ASE ``Atoms`` object is recognised; ASE is not imported."""

    def get_chemical_symbols(self) -> list[str]:
        """Return one symbol per atom."""

    def get_scaled_positions(self) -> np.ndarray:
        """Return fractional coordinates, shape (n, 3)."""


StructureLike = Structure | HasStructure | AseAtoms
"""A crystal in any form that :func:`as_structure` converts."""


def as_structure(crystal: StructureLike) -> Structure:
    """Return the pymatgen structure of a crystal.

    Parameters
    ----------
    crystal
        A pymatgen ``Structure``, an object with such a ``structure`` (a ``ChargeDensity``, a
        ``Chgcar``, a ``Material``), or an ASE ``Atoms`` that is periodic in three directions.

    Raises
    ------
    RhosightError
        For any other object, or ASE atoms that are not a crystal: not periodic, without volume,
        without atoms, or with atoms of no element.
    """
    if isinstance(crystal, Structure):
        return crystal
    structure = getattr(crystal, "structure", None)
    if isinstance(structure, Structure):
        return structure
    if hasattr(crystal, "get_chemical_symbols") and hasattr(crystal, "get_scaled_positions"):
        return _convert_ase_atoms(crystal)
    raise RhosightError(
        f"an object of type {type(crystal).__name__} is not a crystal; give a pymatgen Structure, "
        "ASE Atoms or a ChargeDensity"
    )


def _convert_ase_atoms(atoms: Any) -> Structure:
    from pymatgen.io.ase import AseAtomsAdaptor

    where = f"ASE Atoms {atoms.get_chemical_formula()}".strip()
    if not np.all(atoms.pbc):
        raise RhosightError(
            f"{where}: not periodic in all three directions; set the cell and pbc=True"
        )
    check_cell(np.asarray(atoms.cell[:], dtype=float), where)
    try:
        structure = AseAtomsAdaptor.get_structure(atoms)
    except Exception as error:  # ASE and pymatgen raise several types
        raise RhosightError(
            f"{where}: pymatgen cannot convert it ({first_line(error)}); give a pymatgen Structure"
        ) from error
    check_crystal(structure, where)
    return structure


@dataclass(frozen=True)
class HashableCrystal:
    """A structure that is compared by its cell, sites and elements, for caches."""

    key: bytes
    structure: Structure = field(compare=False)

    @classmethod
    def of(cls, structure: Structure) -> HashableCrystal:
        """Return the crystal of a structure, which must not be changed afterwards."""
        numbers = np.hstack([structure.lattice.matrix.ravel(), structure.frac_coords.ravel()])
        species = "|".join(site.species_string for site in structure)
        return cls(numbers.tobytes() + species.encode(), structure)


def group_mixed_axes(rotations: np.ndarray) -> list[list[int]]:
    """Group the axes of a cell that rotations mix, given as integers, shape (n, 3, 3)."""
    mixed = (np.asarray(rotations) != 0).any(axis=0).astype(int)
    groups = connected_components(mixed, directed=False)[1]
    return [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]


def find_symmetry(
    structure: Structure,
    kinds: Sequence[int],
    symprec: float = SYMPREC,
    angle_tolerance: float = -1.0,
) -> SpglibDataset | None:
    """Return spglib's symmetry of a crystal, or None if spglib finds none.

    Parameters
    ----------
    structure
        The crystal.
    kinds
        One integer per site; sites of different integers are never equivalent.
    symprec
        Tolerance, Å.
    angle_tolerance
        Tolerance, degrees; negative values leave it to spglib.
    """
    crystal = HashableCrystal.of(structure)
    return _find_symmetry(crystal, tuple(kinds), symprec, angle_tolerance)


@lru_cache(maxsize=512)  # each crystal is asked about by its descriptors, its plane and checks
def _find_symmetry(
    crystal: HashableCrystal, kinds: tuple[int, ...], symprec: float, angle: float
) -> SpglibDataset | None:
    structure = crystal.structure
    cell: Any = (structure.lattice.matrix, structure.frac_coords, kinds)
    with warnings.catch_warnings():
        # spglib announces another way of raising errors, at every call
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            return spglib.get_symmetry_dataset(cell, symprec, angle)
        except _SPGLIB_ERROR:
            return None


def number_species(structure: Structure) -> list[int]:
    """Return one integer per site, equal for equal species and occupancies."""
    numbers = {species: i for i, species in enumerate(dict.fromkeys(structure.species_and_occu))}
    return [numbers[species] for species in structure.species_and_occu]


def list_symbols(structure: Structure) -> list[str]:
    """Return the element of each site of an ordered crystal."""
    return [getattr(site.specie, "symbol", str(site.specie)) for site in structure]


def check_cell(matrix: np.ndarray, where: str) -> None:
    """Raise if three lattice vectors (rows) span no volume."""
    with np.errstate(all="ignore"):
        box = np.linalg.norm(matrix, axis=1).prod()
        volume = abs(np.linalg.det(matrix))
    if not (np.isfinite(box) and volume > MIN_VOLUME_RATIO * box):
        raise RhosightError(f"{where}: the cell has no volume; correct its lattice vectors")
    edges = np.linalg.norm(matrix, axis=1)
    if edges.max() > MAX_EDGE or edges.min() < MIN_EDGE:
        wrong = edges.max() if edges.max() > MAX_EDGE else edges.min()
        raise RhosightError(
            f"{where}: an edge of the cell is {wrong:.3g} Å long; correct its lattice vectors or "
            "their unit"
        )
    if volume > MAX_VOLUME:
        raise RhosightError(
            f"{where}: the cell has {volume:.3g} Å³; correct its lattice vectors or their unit"
        )


def check_crystal(structure: Structure, where: str) -> None:
    """Raise if a structure from another library is not a complete, ordered crystal.

    It needs a cell with volume, atoms, finite positions, one element per site, and no two atoms
    that are closer than :data:`MIN_CONTACT` times the sum of their covalent radii.
    """
    check_cell(structure.lattice.matrix, where)
    if not len(structure):
        raise RhosightError(f"{where}: contains no atoms; write the structure with the density")
    if not np.isfinite(structure.frac_coords).all():
        raise RhosightError(f"{where}: atomic positions are NaN or infinite; write the file again")
    if np.abs(structure.frac_coords).max() > MAX_EDGE:
        raise RhosightError(f"{where}: an atom is far outside the cell; correct its coordinates")
    species = structure.composition.keys()
    if not structure.is_ordered or any(isinstance(one, DummySpecies) for one in species):
        raise RhosightError(
            f"{where}: {structure.composition.formula} is not one element per site; name an "
            "element for each site"
        )
    check_contacts(structure, where)


def check_contacts(structure: Structure, where: str) -> None:
    """Raise if two atoms of an ordered crystal overlap; name them and their distance."""
    reduced = structure
    if min(_cell_heights(structure.lattice.matrix)) < _MIN_HEIGHT:
        lattice = structure.lattice.get_lll_reduced_lattice()
        reduced = Structure(
            lattice, structure.species, structure.cart_coords, coords_are_cartesian=True
        )
        if min(_cell_heights(lattice.matrix)) < _MIN_HEIGHT:
            raise RhosightError(
                f"{where}: the cell is only {min(_cell_heights(lattice.matrix)):.2g} Å thick; "
                "correct its lattice vectors or their unit"
            )
    radii = np.array([_covalent_radius(symbol) for symbol in list_symbols(structure)])
    first, second, _, distances = reduced.get_neighbor_list(2 * MIN_CONTACT * float(radii.max()))
    limits = MIN_CONTACT * (radii[first] + radii[second])
    bad = np.flatnonzero(distances < limits)
    if not len(bad):
        return
    worst = bad[np.argmin(distances[bad] / limits[bad])]
    i, j = sorted((int(first[worst]), int(second[worst])))
    names = [f"{number + 1} ({structure[number].label})" for number in (i, j)]
    pair = f"atoms {names[0]} and {names[1]}"
    subject = f"atom {names[0]} and its image in the next cell" if i == j else pair
    raise RhosightError(
        f"{where}: {subject} are {distances[worst]:.2f} Å apart, less than half the sum of their "
        f"covalent radii ({limits[worst]:.2f} Å); correct the coordinates, the cell or its unit, "
        "or remove one of them"
    )


def _cell_heights(matrix: np.ndarray) -> np.ndarray:
    """Return the distances of opposite faces of a cell, Å."""
    return 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)


def _covalent_radius(symbol: str) -> float:
    try:
        return covalent_radius(symbol)
    except KeyError:
        return _DEFAULT_RADIUS


def make_structure(
    matrix: np.ndarray, species: Sequence[Element], positions: np.ndarray, where: str
) -> Structure:
    """Return a crystal with its atoms moved into the cell.

    Parameters
    ----------
    matrix
        Lattice vectors (rows), Å.
    species
        n elements.
    positions
        Cartesian, Å, shape (n, 3).
    where
        What error messages name, such as a file.

    Raises
    ------
    RhosightError
        If the crystal has no volume or no atoms, or atoms overlap.
    """
    check_cell(matrix, where)
    if not len(species):
        raise RhosightError(f"{where}: contains no atoms; write the structure with the density")
    structure = Structure(matrix, species, positions, coords_are_cartesian=True)
    check_crystal(structure, where)  # before positions far outside of the cell lose their digits
    return Structure(matrix, species, structure.frac_coords, to_unit_cell=True)


def standardise(structure: Structure, symprec: float, where: str) -> Structure:
    """Return the primitive standardised cell of a crystal.

    A cell that is already standardised keeps its origin.

    Raises
    ------
    RhosightError
        If spglib finds no symmetry; the message starts with ``where``.
    """
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    try:
        analyzer = SpacegroupAnalyzer(structure, symprec=symprec)
        standard = analyzer.get_primitive_standard_structure()
    except Exception as error:  # spglib and pymatgen have errors of their own
        raise RhosightError(
            f"{where}: spglib finds no symmetry at symprec {symprec:g} Å; check the cell"
        ) from error
    mine, its = structure.lattice, standard.lattice
    same = len(standard) == len(structure) and np.allclose(
        mine.parameters, its.parameters, atol=1e-3
    )
    # with equal parameters but opposite handedness, it would be the mirror image
    if same and np.linalg.det(mine.matrix) * np.linalg.det(its.matrix) > 0:
        return Structure(its, structure.species, structure.frac_coords)
    return standard
