"""Lattice planes: the densest one, and how a window lies on it.

Paper section 2.1 slices an 8 × 8 × 8 supercell along the plane of highest atomic density. A plane
through a supercell is a set of points, and a periodic grid can be sampled at any point
(:mod:`rhosight.density.sampling`), so no supercell is ever built here.

One crystal gives one plane: the result depends on the crystal, not on the cell in which it is
stored. Only the primitive lattice and the atoms are used. Where several planes, in-plane axes or
sites are equally good, a rule based on the atoms decides (see :func:`lattice_plane`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import spglib
from pymatgen.core import Lattice, Structure

from ..errors import RhosightError
from .crystals import (
    SYMPREC,
    HashableCrystal,
    StructureLike,
    as_structure,
    find_symmetry,
    number_species,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from spglib import SpglibDataset

LENGTH_TOLERANCE = 1e-3
"""Relative; lattice vectors this close count as equally long."""

LAYER_TOLERANCE = 0.05
"""Å; atoms this close to a plane lie on it."""

# Three generic plane waves (radians per lattice scale) and their phases. Their sum over the atoms
# around a site only has to differ for any two frames that no crystal symmetry relates. See
# `_score_frame`.
_WAVES = np.array([[2.17, -1.31, 0.83], [0.71, 3.37, -1.93], [-4.13, 2.39, 3.61]])
_PHASES = np.array([2.66, 0.07, 2.86])


@dataclass(frozen=True, eq=False)
class LatticePlane:
    """A lattice plane and the axes of a window on it.

    Positions are fractional coordinates of the structure's own cell, so they address its grid
    directly. ``x``, ``y`` and ``normal`` are steps of one Å along the window's right-handed
    orthonormal axes, in fractional coordinates.

    Attributes
    ----------
    hkl
        Miller indices in spglib's standardised conventional setting; F-cubic gives a member of
        {111}.
    direction
        ``x`` as indices [uvw] of the conventional setting; F-cubic gives a member of ⟨1 -1 0⟩.
    spacing
        Interplanar spacing d of the primitive lattice, Å.
    origin
        Centre of the window: the site that the plane passes through, shape (3,).
    x, y, normal
        Shape (3,) each, fractional per Å; ``x`` runs along the shortest in-plane lattice vector.
    site
        Index of the site at the origin.
    layer_atoms
        Atoms on the plane per primitive cell of the plane.
    lattice_scale
        (4 · V_primitive)^⅓, Å: the lattice constant of an F-cubic crystal.
    """

    hkl: tuple[int, int, int]
    direction: tuple[float, float, float]
    spacing: float
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray
    normal: np.ndarray
    site: int
    layer_atoms: int
    lattice_scale: float

    def points(self, u: ArrayLike, v: ArrayLike, offset: float = 0.0) -> np.ndarray:
        """Return the fractional coordinates of points of the window.

        Parameters
        ----------
        u, v
            Window coordinates along x and y, Å.
        offset
            Shift of the plane along its normal, in interplanar spacings.

        Returns
        -------
        numpy.ndarray
            Shape ``broadcast(u, v).shape + (3,)``.
        """
        u, v = np.broadcast_arrays(np.asarray(u, dtype=float), np.asarray(v, dtype=float))
        start = self.origin + offset * self.spacing * self.normal
        return start + u[..., None] * self.x + v[..., None] * self.y

    def coordinates(self, frac_coords: np.ndarray) -> np.ndarray:
        """Return (u, v, height) in Å for fractional coordinates of shape (..., 3)."""
        axes = np.array([self.x, self.y, self.normal])
        return (np.asarray(frac_coords) - self.origin) @ np.linalg.inv(axes)


def lattice_plane(
    structure: StructureLike, hkl: tuple[int, int, int] | None = None, symprec: float = SYMPREC
) -> LatticePlane:
    """Return the densest lattice plane of a crystal, or the plane (hkl).

    - *Plane*: the one with the largest interplanar spacing of the primitive lattice, {111} for a
      face-centred cubic Bravais lattice. Among equally spaced planes, the one with most atoms in
      its layer.
    - *Origin*: the site of highest atomic number; among several, one whose layer has most atoms.
    - *Axes*: x along the shortest in-plane lattice vector, y = normal × x.
    - A rule based on the atoms around the origin makes the remaining choices, such as the sign of
      [111] in zincblende. It reads the structure and not the density, so every kind of density of
      one crystal is cut alike.

    Equivalent cells (primitive, conventional, supercell, translated, rotated, re-ordered) give the
    same plane of the same crystal. So do files that round its coordinates differently: the cell is
    first idealised to its symmetry, lengths to 1e-5 Å.

    Parameters
    ----------
    structure
        Any cell of the crystal: a pymatgen ``Structure``, ASE ``Atoms`` or a ``ChargeDensity``.
    hkl
        Miller indices in spglib's standardised conventional setting, instead of the densest plane.
    symprec
        Tolerance of spglib, Å.

    Raises
    ------
    RhosightError
        If spglib finds no symmetry for the structure, if hkl is not three integers or is
        (0, 0, 0), or if the object is not a crystal.
    """
    _check_indices(hkl)
    indices = None if hkl is None else (int(hkl[0]), int(hkl[1]), int(hkl[2]))
    return _find_plane(HashableCrystal.of(as_structure(structure)), indices, symprec)


# several images of one crystal show the same planes
@lru_cache(maxsize=64)
def _find_plane(
    crystal: HashableCrystal, hkl: tuple[int, int, int] | None, symprec: float
) -> LatticePlane:
    """Find the plane of :func:`lattice_plane`."""
    structure = crystal.structure
    cell = _idealise(structure, symprec)
    if hkl is None:
        normals = _find_shortest(np.linalg.inv(cell.primitive).T)
    else:
        normals = _find_equivalent_normals(hkl, cell)
    layers, layer_atoms = _find_densest_layers(cell, normals)
    scale = float((4 * abs(np.linalg.det(cell.primitive))) ** (1 / 3))
    frame = _choose_frame(_list_frames(structure, cell, layers, scale))
    return _make_plane(frame, cell, hkl, layer_atoms, scale)


def _make_plane(
    frame: _Frame, cell: _Cell, hkl: tuple[int, int, int] | None, layer_atoms: int, scale: float
) -> LatticePlane:
    indices = frame.indices
    if hkl is not None:  # keep the requested order, (200) or (100)
        indices = np.rint(indices * (np.linalg.norm(hkl) / np.linalg.norm(indices))).astype(int)
    direction = frame.direction / np.abs(frame.direction[np.abs(frame.direction) > 1e-6]).min()
    x, y, normal = frame.axes @ np.linalg.inv(cell.lattice)
    h, k, m = map(int, indices)
    u, v, w = map(float, np.round(direction, 4) + 0.0)
    return LatticePlane(
        hkl=(h, k, m),
        direction=(u, v, w),
        spacing=float(1 / np.linalg.norm(frame.reciprocal)),
        origin=cell.frac_coords[frame.site],
        x=x,
        y=y,
        normal=normal,
        site=int(frame.site),
        layer_atoms=layer_atoms,
        lattice_scale=scale,
    )


def _check_indices(hkl: tuple[int, int, int] | None) -> None:
    if hkl is not None and (
        np.shape(hkl) != (3,) or not np.any(hkl) or np.any(np.asarray(hkl) != np.rint(hkl))
    ):
        raise RhosightError(f"hkl = {hkl} is not a plane; give Miller indices such as (1, 1, 0)")


@dataclass(frozen=True, eq=False)
class _Cell:
    """A structure idealised to its symmetry.

    Lattices are rows, Å, in one Cartesian frame.
    """

    lattice: np.ndarray
    frac_coords: np.ndarray
    conventional: np.ndarray
    primitive: np.ndarray
    rotations: np.ndarray
    heaviest_sites: list[int]


@dataclass(frozen=True, eq=False)
class _Frame:
    """A candidate for the window: plane, axes and site at the origin.

    The axes are unit vectors (rows). ``reciprocal`` is the normal with length 1/d, ``indices`` are
    its Miller indices, ``direction`` is x in the conventional setting.
    """

    score: float
    indices: np.ndarray
    direction: np.ndarray
    reciprocal: np.ndarray
    axes: np.ndarray
    site: int


def _find_densest_layers(
    cell: _Cell, normals: np.ndarray
) -> tuple[list[tuple[np.ndarray, int]], int]:
    """Return the (normal, site) pairs of the densest layers, and their atoms."""
    positions = cell.frac_coords @ cell.lattice
    copies = round(abs(np.linalg.det(cell.lattice) / np.linalg.det(cell.primitive)))
    layers = []
    for g, site in itertools.product(normals, cell.heaviest_sites):
        height = (positions - positions[site]) @ g
        on_plane = np.abs(height - np.round(height)) < LAYER_TOLERANCE * np.linalg.norm(g)
        layers.append((int(on_plane.sum()) // copies, g, site))
    most = max(atoms for atoms, _, _ in layers)
    return [(g, site) for atoms, g, site in layers if atoms == most], most


def _list_frames(
    structure: Structure, cell: _Cell, layers: list[tuple[np.ndarray, int]], scale: float
) -> list[_Frame]:
    """Return one frame per layer and shortest in-plane lattice vector."""
    neighbours = {
        site: _find_neighbours(structure, cell, site, scale) for site in cell.heaviest_sites
    }
    frames = []
    for g, site in layers:
        normal = g / np.linalg.norm(g)
        for vector in _find_shortest(_find_in_plane_basis(cell.primitive, g)):
            x = vector / np.linalg.norm(vector)
            axes = np.array([x, np.cross(normal, x), normal])
            frames.append(
                _Frame(
                    score=_score_frame(axes, *neighbours[site], scale),
                    indices=np.rint(cell.conventional @ g).astype(int),
                    direction=np.linalg.solve(cell.conventional.T, vector),
                    reciprocal=g,
                    axes=axes,
                    site=site,
                )
            )
    return frames


def _choose_frame(frames: list[_Frame]) -> _Frame:
    best = max(frame.score for frame in frames)
    # frames of equal score give equal images: take the one with the most familiar indices
    ties = [frame for frame in frames if frame.score > best - 1e-6 * max(1.0, abs(best))]
    return max(ties, key=lambda frame: _rank_indices(frame.indices, frame.direction))


def _find_shortest(basis: np.ndarray) -> np.ndarray:
    """Return all shortest lattice vectors of a reduced basis (rows), both signs."""
    combinations = np.array(list(itertools.product(range(-4, 5), repeat=len(basis))))
    vectors = combinations[combinations.any(axis=1)] @ basis
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors[lengths < lengths.min() * (1 + LENGTH_TOLERANCE)]


def _find_in_plane_basis(primitive: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return a reduced basis (2, 3) of a lattice plane with the given normal.

    The normal ``g`` is a primitive reciprocal vector.
    """
    h, k, m = (int(i) for i in np.rint(primitive @ g))
    if (h, k) == (0, 0):
        short, long = primitive[0], primitive[1]
    else:
        # p h + q k = gcd(h, k) gives the integer vectors whose product with (h, k, m) is zero
        common = math.gcd(h, k)
        p = pow(h // common, -1, abs(k // common)) if k else h // common
        q = (common - p * h) // k if k else 0
        short = np.array([k // common, -h // common, 0]) @ primitive
        long = np.array([p * m, q * m, -common]) @ primitive
    while True:  # Lagrange's reduction in two dimensions
        if long @ long < short @ short:
            short, long = long, short
        shorter = long - round(float(short @ long) / float(short @ short)) * short
        # at 60 degrees the two are equally long, and rounding noise would swap them for ever
        if shorter @ shorter > (1 - 1e-9) * (long @ long):
            return np.array([short, long])
        long = shorter


def _idealise(structure: Structure, symprec: float) -> _Cell:
    lattice = structure.lattice.matrix
    symmetry = find_symmetry(structure, number_species(structure), symprec)
    if symmetry is None:
        raise RhosightError(
            f"{structure.composition.reduced_formula}: spglib finds no symmetry within "
            f"{symprec} Å; check for two atoms at the same position"
        )
    # spglib: x_std = P x + p, hence rows L = Pᵀ L_std; P and the primitive cell are rational
    transformation = _round_to_twelfths(symmetry.transformation_matrix)
    measured = np.linalg.inv(transformation).T @ lattice
    primitive = _round_to_twelfths(symmetry.primitive_lattice @ np.linalg.inv(measured))
    lengths_angles = np.round(Lattice(symmetry.std_lattice).parameters, 5)
    conventional = Lattice.from_parameters(*lengths_angles).matrix
    reduced = spglib.niggli_reduce(primitive @ conventional)
    if reduced is None:
        raise RhosightError(
            f"{structure.composition.reduced_formula}: spglib cannot reduce the cell; check its "
            "lattice vectors"
        )
    frac_coords = structure.frac_coords
    special = np.round(frac_coords * 24) / 24
    frac_coords = np.where(np.abs(frac_coords - special) < 2e-5, special, frac_coords)
    numbers = np.array([max(e.Z for e in site.species.elements) for site in structure])
    _, orbit = np.unique(symmetry.equivalent_atoms, return_index=True)
    heaviest = {int(i) for i in orbit if numbers[i] == numbers.max()}
    mirrored = {_find_mirror_image(i, structure, symmetry) for i in heaviest}
    return _Cell(
        lattice=transformation.T @ conventional,
        frac_coords=frac_coords,
        conventional=conventional,
        primitive=reduced,
        rotations=symmetry.rotations,
        heaviest_sites=sorted(heaviest | mirrored),
    )


def _find_mirror_image(site: int, structure: Structure, symmetry: SpglibDataset) -> int:
    """Return the image of a site under an improper operation, if there is one.

    Otherwise it is the site itself. Frames are right-handed, so the frames at one site cover its
    symmetry-equivalent frames only up to proper operations. With this second site they cover all of
    an orbit.
    """
    improper = np.flatnonzero(np.linalg.det(symmetry.rotations) < 0)
    if not len(improper):
        return site
    rotation, translation = symmetry.rotations[improper[0]], symmetry.translations[improper[0]]
    image = rotation @ structure.frac_coords[site] + translation
    return int(structure.lattice.get_all_distances(image, structure.frac_coords).argmin())


def _round_to_twelfths(matrix: np.ndarray) -> np.ndarray:
    """Remove the noise of the structure from entries that are multiples of 1/12."""
    snapped = np.round(matrix * 12) / 12
    return np.where(np.abs(matrix - snapped) < 0.01, snapped, matrix)


def _find_equivalent_normals(hkl: tuple[int, int, int], cell: _Cell) -> np.ndarray:
    """Return (hkl) and its symmetry equivalents as reciprocal vectors of length 1/d."""
    g = np.linalg.solve(cell.conventional, np.asarray(hkl, dtype=float))
    # the shortest vector of the primitive reciprocal lattice along g; 12 holds every centring
    components = np.rint(12 * cell.primitive @ g).astype(int)
    g = 12 * g / np.gcd.reduce(components)
    inverse = np.linalg.inv(cell.lattice)
    operations = [cell.lattice.T @ rotation @ inverse.T for rotation in cell.rotations]
    images = np.array([sign * operation @ g for operation in operations for sign in (1, -1)])
    _, first = np.unique(np.round(images, 6) + 0.0, axis=0, return_index=True)
    return images[first]


def _find_neighbours(
    structure: Structure, cell: _Cell, site: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions (n, 3) of atoms around a site, Å, and weights (n,).

    Positions are relative to the site.
    """
    radius = 1.5 * scale
    centre = cell.frac_coords[site] @ cell.lattice
    around: Any = Lattice(cell.lattice).get_points_in_sphere(
        cell.frac_coords, centre, radius, zip_results=False
    )
    frac, distance, index, _ = around
    number = np.array([sum(e.Z * n for e, n in site.species.items()) for site in structure])
    # falls to zero smoothly: an atom on the rim must not decide
    weight = number[index.astype(int)] * (1 - (distance / radius) ** 2) ** 3
    return frac @ cell.lattice - centre, weight / number.max()


def _score_frame(
    axes: np.ndarray, positions: np.ndarray, weights: np.ndarray, scale: float
) -> float:
    """Return a number that differs between frames unrelated by crystal symmetry."""
    local = positions @ axes.T / scale
    return float(np.sum(weights[:, None] * np.cos(local @ _WAVES.T + _PHASES)))


def _rank_indices(hkl: np.ndarray, direction: np.ndarray) -> tuple:
    """Return a key that sorts (1, 1, 1) above (-1, 1, 1), and [1 -1 0] above [0 1 -1]."""
    rounded = tuple(np.round(direction, 3) + 0.0)
    return (*sorted(hkl), *hkl, *(-abs(d) for d in rounded[::-1]), *rounded)
