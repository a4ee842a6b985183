"""Lattice planes: the densest one, how a window lies on it, and sampling a periodic grid there.

Paper section 2.1 slices an 8 × 8 × 8 supercell along the plane of highest atomic density. A plane
through a supercell is a set of points, and a periodic grid can be sampled at any point, so no
supercell is ever built here.

One crystal, one plane: the result depends on the crystal, not on the cell in which it is stored.
All that is used of the cell is its primitive lattice and its atoms; where several planes, in-plane
axes or sites are equally good, a rule on the atoms decides (see :func:`lattice_plane`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.ndimage
import spglib
from pymatgen.core import Lattice, Structure

from ..errors import RhosightError

Interpolation = Literal["spline", "fourier"]

LENGTH_TOLERANCE = 1e-3  # relative: lattice vectors this close count as equally long
LAYER_TOLERANCE = 0.05  # Å: atoms this close to a plane lie on it

# spglib may raise where older versions return None; those do not have the exception
_SPGLIB_ERROR = getattr(spglib, "SpglibError", ())

# Three generic plane waves (radians per lattice scale) and their phases. Their sum over the atoms
# around a site takes different values for any two frames that no crystal symmetry relates, which
# is all that is asked of them. See `_frame_score`.
_WAVES = np.array([[2.17, -1.31, 0.83], [0.71, 3.37, -1.93], [-4.13, 2.39, 3.61]])
_PHASES = np.array([2.66, 0.07, 2.86])


@dataclass(frozen=True, eq=False)
class LatticePlane:
    """A plane, and where the window's axes lie in the cell.

    Positions are fractional coordinates of the structure's own cell, so they address its grid
    directly. ``x``, ``y`` and ``normal`` are what one Å along each of the window's right-handed
    orthonormal axes is in fractional coordinates.

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

    def points(self, u: np.ndarray, v: np.ndarray, offset: float = 0.0) -> np.ndarray:
        """Fractional coordinates of window coordinates ``u`` (along x) and ``v`` (along y), Å.

        ``offset`` shifts the plane along its normal, in interplanar spacings. Returns shape
        ``broadcast(u, v).shape + (3,)``.
        """
        u, v = np.broadcast_arrays(np.asarray(u, dtype=float), np.asarray(v, dtype=float))
        start = self.origin + offset * self.spacing * self.normal
        return start + u[..., None] * self.x + v[..., None] * self.y

    def coordinates(self, frac_coords: np.ndarray) -> np.ndarray:
        """(u, v, height) in Å of fractional coordinates of shape (..., 3)."""
        axes = np.array([self.x, self.y, self.normal])
        return (np.asarray(frac_coords) - self.origin) @ np.linalg.inv(axes)


def lattice_plane(
    structure: Structure, hkl: tuple[int, int, int] | None = None, symprec: float = 0.01
) -> LatticePlane:
    """The densest lattice plane of a crystal, or the plane (hkl), oriented and placed.

    - *Plane*: the one with the largest interplanar spacing of the primitive lattice, {111} for a
      face-centred cubic Bravais lattice. Of planes equally spaced, the one with most atoms in its
      layer.
    - *Origin*: the site of highest atomic number; of several, the one whose layer has most atoms.
    - *Axes*: x along the shortest in-plane lattice vector, y = normal × x.
    - What is left, such as the sign of [111] in zincblende, is settled by a rule on the atoms
      around the origin. It reads the structure and not a density, so that every kind of density
      of one crystal is cut alike, whichever of them a file holds.

    Equivalent cells (primitive, conventional, supercell, translated, rotated, re-ordered) give the
    same plane of the same crystal. So do files that round its coordinates differently: the cell is
    idealised to its symmetry, lengths to 1e-5 Å, before anything is measured.

    Parameters
    ----------
    structure
        Any cell of the crystal.
    hkl
        Miller indices in spglib's standardised conventional setting, instead of the densest plane.
    symprec
        Tolerance of spglib, Å.

    Raises
    ------
    RhosightError
        If spglib finds no symmetry for the structure, or hkl is not three integers or (0, 0, 0).
    """
    if hkl is not None and (
        np.shape(hkl) != (3,) or not np.any(hkl) or np.any(np.asarray(hkl) != np.rint(hkl))
    ):
        raise RhosightError(f"hkl = {hkl} is not a plane; give Miller indices such as (1, 1, 0)")
    cell = _idealise(structure, symprec)
    if hkl is None:
        normals = _shortest(np.linalg.inv(cell.primitive).T)
    else:
        normals = _equivalent_normals(hkl, cell)

    positions = cell.frac_coords @ cell.lattice
    copies = round(abs(np.linalg.det(cell.lattice) / np.linalg.det(cell.primitive)))
    layers = []
    for g, site in itertools.product(normals, cell.heaviest_sites):
        height = (positions - positions[site]) @ g
        on_plane = np.abs(height - np.round(height)) < LAYER_TOLERANCE * np.linalg.norm(g)
        layers.append((int(on_plane.sum()) // copies, g, site))
    most = max(atoms for atoms, _, _ in layers)

    candidates = []
    scale = float((4 * abs(np.linalg.det(cell.primitive))) ** (1 / 3))
    neighbours = {site: _neighbours(structure, cell, site, scale) for site in cell.heaviest_sites}
    for g, site in ((g, site) for atoms, g, site in layers if atoms == most):
        normal = g / np.linalg.norm(g)
        for vector in _shortest(_in_plane_basis(cell.primitive, g)):
            x = vector / np.linalg.norm(vector)
            axes = np.array([x, np.cross(normal, x), normal])
            score = _frame_score(axes, *neighbours[site], scale)
            indices = np.rint(cell.conventional @ g).astype(int)
            direction = np.linalg.solve(cell.conventional.T, vector)
            candidates.append((score, indices, direction, g, axes, site))

    best = max(score for score, *_ in candidates)
    # equal scores are equal images: of those, take the frame with the most familiar name
    ties = [c for c in candidates if c[0] > best - 1e-6 * max(1.0, abs(best))]
    _, indices, direction, g, axes, site = max(ties, key=lambda c: _familiarity(c[1], c[2]))
    if hkl is not None:  # the plane keeps the order it was asked for, (200) or (100)
        indices = np.rint(indices * (np.linalg.norm(hkl) / np.linalg.norm(indices))).astype(int)
    direction = direction / np.abs(direction[np.abs(direction) > 1e-6]).min()
    x, y, normal = axes @ np.linalg.inv(cell.lattice)
    return LatticePlane(
        hkl=tuple(int(i) for i in indices),
        direction=tuple(float(d) for d in np.round(direction, 4) + 0.0),
        spacing=float(1 / np.linalg.norm(g)),
        origin=cell.frac_coords[site],
        x=x,
        y=y,
        normal=normal,
        site=int(site),
        layer_atoms=most,
        lattice_scale=scale,
    )


def sample(
    grid: np.ndarray,
    frac_coords: np.ndarray,
    interpolation: Interpolation = "spline",
    lattice: np.ndarray | None = None,
) -> np.ndarray:
    """A periodic grid at arbitrary fractional coordinates.

    Parameters
    ----------
    grid
        Shape (nx, ny, nz), value at fractional (i/nx, j/ny, k/nz).
    frac_coords
        Shape (..., 3); any real numbers, wrapped periodically.
    interpolation
        ``"spline"``: periodic cubic B-spline, accurate to about (G h)⁴/384 of a Fourier component
        of wave number G at grid spacing h. ``"fourier"``: the sum of plane waves through the grid,
        exact for a band-limited density and slower.
    lattice
        Lattice vectors (rows), only for ``"fourier"``. Of the waves that the grid cannot tell
        apart the shortest is meant; several equally short ones share. Without a lattice, those
        of smallest indices, which breaks the symmetry of a density that the grid cuts off.

    Returns
    -------
    Array of shape (...).
    """
    frac_coords = np.asarray(frac_coords, dtype=float)
    flat = frac_coords.reshape(-1, 3)
    if interpolation == "spline":
        coefficients = scipy.ndimage.spline_filter(
            np.asarray(grid, dtype=float), order=3, mode="grid-wrap"
        )
        positions = flat * np.array(grid.shape)
        out = scipy.ndimage.map_coordinates(
            coefficients, positions.T, order=3, mode="grid-wrap", prefilter=False
        )
        return out.reshape(frac_coords.shape[:-1])
    if interpolation == "fourier":
        reciprocal = np.diag(1 / np.array(grid.shape))
        if lattice is not None:
            reciprocal = np.linalg.inv(lattice).T
        waves, amplitudes = _spectrum(grid, reciprocal)
        out = np.empty(len(flat))
        # bounded memory: about 64 MB of phases at a time
        step = max(1, 4_000_000 // len(waves))
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            out[start : start + step] = (np.exp(2j * np.pi * (part @ waves.T)) @ amplitudes).real
        return out.reshape(frac_coords.shape[:-1])
    raise RhosightError(f"unknown interpolation {interpolation!r}; known are spline, fourier")


def sample_window(
    grid: np.ndarray,
    plane: LatticePlane,
    side: float,
    size: int,
    offset: float = 0.0,
    interpolation: Interpolation = "spline",
) -> np.ndarray:
    """The square window of a lattice plane, shape (size, size), in the grid's unit.

    Pixel (row, column) is the value at its centre; row 0 is the top, largest y; column 0 is the
    smallest x. ``side`` is in Å, ``offset`` in interplanar spacings.
    """
    axis = ((np.arange(size) + 0.5) / size - 0.5) * side
    if interpolation == "fourier":
        return _fourier_window(grid, plane, axis, offset)
    return sample(grid, plane.points(axis[None, :], -axis[:, None], offset), interpolation)


def _fourier_window(
    grid: np.ndarray, plane: LatticePlane, axis: np.ndarray, offset: float
) -> np.ndarray:
    """On a square window the plane waves factorise into x and y: one matrix product.

    On a lattice plane, which is periodic in two dimensions, the waves of a whole row of reciprocal
    vectors coincide and are added up first.
    """
    waves, amplitudes = _spectrum(grid, np.array([plane.x, plane.y, plane.normal]).T)
    amplitudes = amplitudes * np.exp(2j * np.pi * (waves @ plane.points(0.0, 0.0, offset)))
    in_plane = waves @ np.array([plane.x, plane.y]).T
    places = np.rint(in_plane * 1e6).astype(np.int64)
    _, first, group = np.unique(
        places[:, 0] * 2**32 + places[:, 1], return_index=True, return_inverse=True
    )
    real, imag = (np.bincount(group, part) for part in (amplitudes.real, amplitudes.imag))
    amplitudes = real + 1j * imag
    large = np.abs(amplitudes) > 1e-12 * np.abs(amplitudes).max()
    amplitudes, in_plane = amplitudes[large], in_plane[first][large]
    image = np.zeros((len(axis), len(axis)))
    step = max(1, 2_000_000 // len(axis))
    for begin in range(0, len(amplitudes), step):
        part = slice(begin, begin + step)
        rows = amplitudes[part] * _powers(-in_plane[part, 1], axis)
        columns = _powers(in_plane[part, 0], axis)
        image += rows.real @ columns.real.T - rows.imag @ columns.imag.T
    return image


def _powers(frequency: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """exp(2πi · frequency · axis) on an evenly spaced axis, shape (axis, frequency); by repeated
    multiplication, since the exponentials would take most of the time.
    """
    steps = np.empty((len(axis), len(frequency)), dtype=complex)
    steps[0] = np.exp(2j * np.pi * frequency * axis[0])
    if len(axis) > 1:
        steps[1:] = np.exp(2j * np.pi * frequency * (axis[1] - axis[0]))
    return np.cumprod(steps, axis=0, out=steps)


def _spectrum(grid: np.ndarray, reciprocal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer wave vectors (n, 3) and amplitudes (n,) whose real part sums to the grid.

    Only half of them are kept, the other half being the complex conjugates. ``reciprocal`` (rows)
    measures which of the waves that are equal on the grid are the shortest.
    """
    shape = grid.shape
    amplitudes = np.fft.rfftn(np.asarray(grid, dtype=float)) / grid.size
    weight = np.full(amplitudes.shape, 2.0)
    weight[..., 0] = 1.0
    if shape[2] % 2 == 0:
        weight[..., -1] = 1.0
    waves = np.stack(np.meshgrid(*map(np.arange, amplitudes.shape), indexing="ij"), axis=-1)
    waves, amplitudes = waves.reshape(-1, 3), (amplitudes * weight).ravel()

    # waves that differ by these are equal on the grid
    period = np.diag(shape)
    reduced = spglib.niggli_reduce(period @ reciprocal)
    if reduced is not None:
        period = np.rint(reduced @ np.linalg.inv(reciprocal))
    waves = waves - np.rint(waves @ np.linalg.inv(period)) @ period
    shifts = np.array(list(itertools.product((0, -1, 1), repeat=3))) @ period
    lengths = np.stack([np.linalg.norm((waves + s) @ reciprocal, axis=1) for s in shifts])
    short = lengths <= lengths.min(axis=0) * (1 + LENGTH_TOLERANCE)
    amplitudes = amplitudes / short.sum(axis=0)
    which, index = np.nonzero(short)
    return waves[index] + shifts[which], amplitudes[index]


def _shortest(basis: np.ndarray) -> np.ndarray:
    """All shortest non-zero lattice vectors (rows) of a reduced basis (rows), both signs."""
    combinations = np.array(list(itertools.product(range(-4, 5), repeat=len(basis))))
    vectors = combinations[combinations.any(axis=1)] @ basis
    lengths = np.linalg.norm(vectors, axis=1)
    return vectors[lengths < lengths.min() * (1 + LENGTH_TOLERANCE)]


def _in_plane_basis(primitive: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Reduced basis (2, 3) of the lattice vectors orthogonal to a primitive reciprocal vector."""
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


@dataclass(frozen=True, eq=False)
class _Cell:
    """A structure idealised to its symmetry. Lattices are rows, Å, in one Cartesian frame."""

    lattice: np.ndarray
    frac_coords: np.ndarray
    conventional: np.ndarray
    primitive: np.ndarray
    rotations: np.ndarray
    heaviest_sites: list[int]


def _idealise(structure: Structure, symprec: float) -> _Cell:
    # dict: occupancies of a disordered site are part of its kind
    labels = {species: i for i, species in enumerate(dict.fromkeys(structure.species_and_occu))}
    kinds = [labels[species] for species in structure.species_and_occu]
    lattice = structure.lattice.matrix
    try:
        symmetry = spglib.get_symmetry_dataset(
            (lattice, structure.frac_coords, kinds), symprec=symprec
        )
    except _SPGLIB_ERROR:
        symmetry = None
    if symmetry is None:
        raise RhosightError(
            f"{structure.composition.reduced_formula}: spglib finds no symmetry within "
            f"{symprec} Å; are two atoms on one place?"
        )
    # spglib: x_std = P x + p, hence rows L = Pᵀ L_std; P and the primitive cell are rational
    transformation = _rational(symmetry.transformation_matrix)
    measured = np.linalg.inv(transformation).T @ lattice
    primitive = _rational(symmetry.primitive_lattice @ np.linalg.inv(measured))
    lengths_angles = np.round(Lattice(symmetry.std_lattice).parameters, 5)
    conventional = Lattice.from_parameters(*lengths_angles).matrix
    frac_coords = structure.frac_coords
    special = np.round(frac_coords * 24) / 24
    frac_coords = np.where(np.abs(frac_coords - special) < 2e-5, special, frac_coords)
    numbers = np.array([max(e.Z for e in site.species.elements) for site in structure])
    _, orbit = np.unique(symmetry.equivalent_atoms, return_index=True)
    heaviest = {int(i) for i in orbit if numbers[i] == numbers.max()}
    return _Cell(
        lattice=transformation.T @ conventional,
        frac_coords=frac_coords,
        conventional=conventional,
        primitive=spglib.niggli_reduce(primitive @ conventional),
        rotations=symmetry.rotations,
        heaviest_sites=sorted(heaviest | {_mirrored(i, structure, symmetry) for i in heaviest}),
    )


def _mirrored(site: int, structure: Structure, symmetry: spglib.SpglibDataset) -> int:
    """The site that an improper operation of the crystal makes of this one; itself without any.

    Frames are right-handed, so the frames at one site cover what crystal symmetry makes of them
    only up to proper operations. With this second site they cover all of an orbit.
    """
    improper = np.flatnonzero(np.linalg.det(symmetry.rotations) < 0)
    if not len(improper):
        return site
    rotation, translation = symmetry.rotations[improper[0]], symmetry.translations[improper[0]]
    image = rotation @ structure.frac_coords[site] + translation
    return int(structure.lattice.get_all_distances(image, structure.frac_coords).argmin())


def _rational(matrix: np.ndarray) -> np.ndarray:
    """Entries that stand for multiples of 1/12, freed of the noise of the structure."""
    snapped = np.round(matrix * 12) / 12
    return np.where(np.abs(matrix - snapped) < 0.01, snapped, matrix)


def _equivalent_normals(hkl: tuple[int, int, int], cell: _Cell) -> np.ndarray:
    """(hkl) and what crystal symmetry makes of it, as reciprocal vectors of length 1/d."""
    g = np.linalg.solve(cell.conventional, np.asarray(hkl, dtype=float))
    # the shortest vector of the primitive reciprocal lattice along g; 12 holds every centring
    components = np.rint(12 * cell.primitive @ g).astype(int)
    g = 12 * g / np.gcd.reduce(components)
    inverse = np.linalg.inv(cell.lattice)
    operations = [cell.lattice.T @ rotation @ inverse.T for rotation in cell.rotations]
    images = np.array([sign * operation @ g for operation in operations for sign in (1, -1)])
    _, first = np.unique(np.round(images, 6) + 0.0, axis=0, return_index=True)
    return images[first]


def _neighbours(
    structure: Structure, cell: _Cell, site: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Relative positions (n, 3) of the atoms around a site, Å, and their weights (n,)."""
    radius = 1.5 * scale
    centre = cell.frac_coords[site] @ cell.lattice
    frac, distance, index, _ = Lattice(cell.lattice).get_points_in_sphere(
        cell.frac_coords, centre, radius, zip_results=False
    )
    number = np.array([sum(e.Z * n for e, n in site.species.items()) for site in structure])
    # falls to zero smoothly: an atom on the rim must not decide
    weight = number[index.astype(int)] * (1 - (distance / radius) ** 2) ** 3
    return frac @ cell.lattice - centre, weight / number.max()


def _frame_score(
    axes: np.ndarray, positions: np.ndarray, weights: np.ndarray, scale: float
) -> float:
    """A number that differs between frames which crystal symmetry does not relate."""
    local = positions @ axes.T / scale
    return float(np.sum(weights[:, None] * np.cos(local @ _WAVES.T + _PHASES)))


def _familiarity(hkl: np.ndarray, direction: np.ndarray) -> tuple:
    """Sorts (1, 1, 1) above (-1, 1, 1), and [1 -1 0] above [0 1 -1]."""
    rounded = tuple(np.round(direction, 3) + 0.0)
    return (*sorted(hkl), *hkl, *(-abs(d) for d in rounded[::-1]), *rounded)
