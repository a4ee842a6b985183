"""Distances of atoms, and the density between them, as evidence for units.

Nearest neighbours in a crystal are about as far apart as the sum of their covalent radii: 0.82 to
1.47 times in the bundled dataset, from 0.80 times in WN2 to 1.8 times in crystals of noble gases.
Lengths in Å that are read in Bohr halve this ratio; lengths in Bohr read in Å double it.

Between the atoms, any density is close to that of superposed free atoms, whatever the code and its
pseudo-potentials: :func:`compare_with_free_atoms` gives medians of 0.6 to 1.4, and 95 % quantiles
of 1.0 to 1.5, for all of the bundled densities and for VASP's. Units differ by a factor of 6.75 or
the volume of the cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure
from scipy.spatial import cKDTree

from ..errors import RhosightError
from .crystals import list_symbols
from .elements import covalent_radius
from .free_atoms import load_free_atoms

CONTRADICTS = 0.72
"""Least distance of neighbours over the sum of their covalent radii in a density file. Below,
lengths were read in too large a unit."""

CRUSHED = 0.60
"""The same for a structure alone, which may be one of a series of compressed cells."""

# Between these and the bounds above, the unit of the lengths is doubtful
_DOUBTFUL, _FAR = 0.78, 1.52
_NEAREST_FAR = 1.3  # of the nearest of all atoms: an ion may be far from molecules
_ISOLATED = 2.9  # a single atom in a large cell, or another unit than Bohr
_REACH, _NEIGHBOURS = 8.0, 16  # Å, and the number of neighbours to compare

# Region between the atoms, in covalent radii from the nearest one. Further out, the densities of
# free atoms are too small to compare with; further in, pseudo-potentials matter.
_INNER, _OUTER = 1.0, 1.5
_POINTS = 3000
_FEWEST_POINTS = 20
_NOBLE = {"He", "Ne", "Ar", "Kr", "Xe", "Rn"}


def check_lengths(
    structure: Structure, where: str, unit: str = "", least: float = CONTRADICTS
) -> list[str]:
    """Check that neighbours are as far apart as atoms are.

    Parameters
    ----------
    structure
        An ordered crystal.
    where
        What error messages name, such as a file.
    unit
        The unit in which its lengths were read, for messages.
    least
        Ratio of neighbours' distance and covalent radii below which the crystal is refused.

    Returns
    -------
    list of str
        Notes; empty if all is as expected.

    Raises
    ------
    RhosightError
        If the neighbours are so near that the lengths must be in another unit.
    """
    found = find_closest_pair(structure)
    is_noble = bool(set(list_symbols(structure)) & _NOBLE)
    if found is None:
        if is_noble or not _has_radii(structure):
            return []
        return [f"no atom has a neighbour within {_REACH:g} Å: is the unit of the cell right?"]
    ratio, distance, pair = found
    what = f"neighbours ({pair}) are {distance:.2f} Å apart, {ratio:.2f} times the sum of "
    what += "their covalent radii"
    if ratio < _DOUBTFUL:
        doubt = (
            "are the lengths in Å, but read in Bohr?" if unit == "Bohr" else "is the cell right?"
        )
        if ratio < least:
            cure = (
                "a cube file has lengths in Bohr; write it so, or mark lengths in Å by negative "
                "numbers of points"
                if unit == "Bohr"
                else "correct the unit of the cell"
            )
            raise RhosightError(f"{where}: {what}: {doubt} {cure[0].upper()}{cure[1:]}")
        return [f"{what}: {doubt}"]
    nearest = find_closest_pair(structure, of_all=True) if ratio > _FAR else None
    if is_noble or nearest is None or nearest[0] < _NEAREST_FAR:
        return []
    return [
        f"{what}: "
        + ("are the lengths in Bohr, but read in Å?" if ratio < _ISOLATED else "is the cell right?")
    ]


def find_closest_pair(
    structure: Structure, of_all: bool = False
) -> tuple[float, float, str] | None:
    """Return the closest neighbours' distance over their radii, and the elements.

    They are the nearest neighbours of the atom that has the most room: distances between large ions
    alone say little. With ``of_all`` they are the nearest of all atoms. None if there is an element
    without a radius, or no neighbour within 8 Å.
    """
    symbols = list_symbols(structure)
    try:
        radii = np.array([covalent_radius(symbol) for symbol in symbols])
    except KeyError:
        return None
    lattice = structure.lattice.matrix
    positions, owners = list_images(lattice, structure.frac_coords, _REACH)
    inside = (structure.frac_coords % 1) @ lattice
    distances, neighbours = cKDTree(positions).query(
        inside, k=min(_NEIGHBOURS, len(positions)), distance_upper_bound=_REACH
    )
    # the nearest is the atom itself
    distances, neighbours = distances[:, 1:], neighbours[:, 1:] % len(owners)
    sums = radii[:, None] + radii[owners[neighbours]]
    ratios = distances / sums
    if not np.isfinite(ratios).any():
        return None
    nearest = ratios.min(axis=1)
    atom = int(np.argmin(nearest) if of_all else np.argmax(nearest))
    rank = int(np.argmin(ratios[atom]))
    pair = f"{symbols[atom]} and {symbols[owners[neighbours[atom, rank]]]}"
    return float(ratios[atom, rank]), float(distances[atom, rank]), pair


@dataclass(frozen=True, eq=False)
class Samples:
    """A density and that of superposed free atoms at some points of a grid.

    Attributes
    ----------
    values, reference
        Density, and valence density of the free atoms, e/Å³, shape (n,).
    nearest
        Distance from the nearest atom in its covalent radius, shape (n,).
    """

    values: np.ndarray
    reference: np.ndarray
    nearest: np.ndarray


def compare_with_free_atoms(samples: Samples | None) -> tuple[float, float] | None:
    """Return the density between the atoms over that of superposed free atoms.

    Parameters
    ----------
    samples
        From :func:`sample_free_atoms`.

    Returns
    -------
    tuple of float, or None
        Quantiles of the ratio, 50 % and 95 %, over the points that are 1.0 to 1.5 covalent radii
        from the nearest atom. None without samples, or if there are too few of such points.
    """
    if samples is None:
        return None
    between = (samples.nearest > _INNER) & (samples.nearest < _OUTER) & (samples.reference > 0)
    if between.sum() < _FEWEST_POINTS:
        return None
    ratios = samples.values[between] / samples.reference[between]
    median, upper = np.quantile(ratios, [0.5, 0.95])
    return float(median), float(upper)


def measure_polarisation(total: Samples, spin: Samples) -> float:
    """Return the median of the spin density over the total between the atoms.

    Both are samples of one crystal at the same points; 0 if there are too few between the atoms.
    """
    between = (total.nearest > _INNER) & (total.nearest < _OUTER) & (total.values > 0)
    if between.sum() < _FEWEST_POINTS:
        return 0.0
    return float(np.median(np.abs(spin.values[between]) / total.values[between]))


def sample_free_atoms(structure: Structure, grid: np.ndarray) -> Samples | None:
    """Return the density and that of superposed free atoms at some points of a grid.

    Parameters
    ----------
    structure
        An ordered crystal.
    grid
        Density, e/Å³, shape (nx, ny, nz).

    Returns
    -------
    Samples, or None
        None if the free atom of an element is not known.
    """
    symbols = list_symbols(structure)
    atoms = load_free_atoms().atoms
    if not set(symbols) <= set(atoms):
        return None
    chosen = np.arange(grid.size)
    if grid.size > _POINTS:
        chosen = np.random.default_rng(0).choice(grid.size, _POINTS, replace=False)
    places = np.stack(np.unravel_index(chosen, grid.shape), axis=1) / grid.shape
    lattice, reach = structure.lattice.matrix, load_free_atoms().reach
    images, owners = list_images(lattice, structure.frac_coords, reach)
    pairs = cKDTree(places @ lattice).sparse_distance_matrix(
        cKDTree(images), reach, output_type="coo_matrix"
    )
    point, owner, distance = pairs.row, owners[pairs.col], pairs.data
    radii = np.array([covalent_radius(symbol) for symbol in symbols])
    nearest = np.full(len(chosen), np.inf)
    np.minimum.at(nearest, point, distance / radii[owner])
    reference = np.zeros(len(chosen))
    for symbol in set(symbols):
        mine = np.array(symbols)[owner] == symbol
        atom = atoms[symbol]
        values = np.interp(distance[mine], atom.radii, atom.valence, right=0)
        np.add.at(reference, point[mine], values)
    return Samples(grid.ravel()[chosen], reference, nearest)


def measure_depth(structure: Structure, places: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return the distance of points from the nearest atom, in its covalent radius.

    ``places`` are fractional coordinates, shape (n, 3); distances beyond 4 Å are infinite. Radii
    are ``least`` (Å) or more.
    """
    symbols = list_symbols(structure)
    images, owners = list_images(structure.lattice.matrix, structure.frac_coords, 4.0)
    radii = {symbol: max(_radius(symbol), least) for symbol in set(symbols)}
    nearest = np.full(len(places), np.inf)
    points = (places % 1) @ structure.lattice.matrix
    for symbol, radius in radii.items():
        mine = np.array(symbols)[owners] == symbol
        distance, _ = cKDTree(images[mine]).query(points, distance_upper_bound=4.0)
        nearest = np.minimum(nearest, distance / radius)
    return nearest


def _has_radii(structure: Structure) -> bool:
    try:
        return all(covalent_radius(symbol) for symbol in list_symbols(structure))
    except KeyError:
        return False


def _radius(symbol: str) -> float:
    try:
        return covalent_radius(symbol)
    except KeyError:
        return 1.5


def list_images(
    lattice: np.ndarray, frac_coords: np.ndarray, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms within reach of a cell (Å, shape (n, 3)) and their sites.

    ``lattice`` are the lattice vectors (rows), ``frac_coords`` the positions in the cell.
    """
    # planes of lattice points are this far apart, in fractions of an edge per Å
    margin = reach * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 1e-6
    spans = [np.arange(-n, n + 1) for n in np.ceil(margin).astype(int)]
    shifts = np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, 3)
    images = ((frac_coords % 1.0)[None] + shifts[:, None]).reshape(-1, 3)
    near = ((images > -margin) & (images < 1 + margin)).all(axis=1)
    return images[near] @ lattice, np.tile(np.arange(len(frac_coords)), len(shifts))[near]
