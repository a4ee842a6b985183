"""Compute the views of a crystal: densities on a plane and a density in the cell.

The results are numbers; :mod:`rhosight.app.figures` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ..density.charge_density import STORED_KINDS, ChargeDensity, Kind, StoredKind
from ..density.crystals import find_symmetry
from ..density.drawing import find_atoms_on_plane
from ..density.plane import LatticePlane, lattice_plane
from ..density.predicted import is_predicted
from ..density.sampling import sample
from ..errors import RhosightError
from ..inputs.image import Channel, density_slice
from .limits import MAX_INDEX

SLICE_PIXELS = 160

MAX_POINTS = 32_000
"""Maximum number of grid points for an isosurface: some hundred kilobytes for the browser."""

MIN_SPACING = 0.08
"""Minimum distance of its grid points, Å."""

MIN_EDGE = 3.0
"""Minimum length of each edge of the block, Å."""

MAX_ATOMS = 1500


@dataclass(frozen=True, eq=False)
class Slices:
    """Kinds of density in one window of a lattice plane.

    Attributes
    ----------
    plane
        The lattice plane.
    offset
        Shift of the window along the normal of the plane, interplanar spacings.
    axis
        x of the columns and −y of the rows, Å, shape (n,).
    values
        Kind → densities, e/Å³, shape (n, n), row 0 at the largest y.
    atoms
        x and y (Å) and element of the atoms on the plane.
    """

    plane: LatticePlane
    offset: float
    axis: np.ndarray
    values: dict[Kind, np.ndarray]
    atoms: list[tuple[float, float, str]]

    def table(self) -> pd.DataFrame:
        """Return a table with one row per point: x and y (Å), and the densities (e/Å³)."""
        x, y = np.meshgrid(self.axis, -self.axis)
        columns = {f"{kind} (e/Å³)": values.ravel() for kind, values in self.values.items()}
        return pd.DataFrame({"x (Å)": x.ravel(), "y (Å)": y.ravel(), **columns})

    def to_dict(self) -> dict[str, Any]:
        """Return the content for JSON.

        Keys are ``hkl``, ``spacing`` (Å), ``offset`` (spacings), ``x`` and ``y`` (Å) of columns and
        rows, ``values`` (kind → rows, e/Å³) and ``atoms`` ([x, y, element]).
        """
        return {
            "hkl": list(self.plane.hkl),
            "spacing": self.plane.spacing,
            "offset": self.offset,
            "x": np.round(self.axis, 6).tolist(),
            "y": np.round(-self.axis, 6).tolist(),
            "values": {kind: np.round(v, 6).tolist() for kind, v in self.values.items()},
            "atoms": [list(atom) for atom in self.atoms],
        }


@dataclass(frozen=True, eq=False)
class Block:
    """A rectangular block of a crystal with edges along x, y and z.

    Attributes
    ----------
    edges
        Lengths of the edges, Å, shape (3,).
    atoms
        Positions of the atoms, Å, shape (m, 3).
    elements
        m symbols.
    kind, values
        Kind of density and its values, e/Å³, shape (nx, ny, nz), at points from one face to the
        opposite one; None without a density.
    """

    edges: np.ndarray
    atoms: np.ndarray
    elements: list[str]
    kind: StoredKind | None
    values: np.ndarray | None

    def to_dict(self) -> dict[str, Any]:
        """Return the content for JSON.

        Keys are ``edges`` and ``atoms`` (Å), ``elements``, ``kind`` and ``values`` (e/Å³).
        """
        return {
            "edges": self.edges.tolist(),
            "atoms": np.round(self.atoms, 5).tolist(),
            "elements": self.elements,
            "kind": self.kind,
            "values": None if self.values is None else np.round(self.values, 6).tolist(),
        }


def list_kinds(density: ChargeDensity) -> tuple[Kind, ...]:
    """Return the kinds of a density that the page cuts."""
    kinds: tuple[Kind, ...] = tuple(kind for kind in STORED_KINDS if kind in density.grids)
    return (*kinds, "promolecule") if is_predicted(density) else kinds


def cut_slices(
    density: ChargeDensity,
    hkl: tuple[int, int, int] | None,
    offset: float,
    window: float,
    size: int = SLICE_PIXELS,
) -> Slices:
    """Cut all kinds of a density along a lattice plane.

    Parameters
    ----------
    density
        The density.
    hkl
        Miller indices of the plane; None for the densest plane.
    offset
        Shift along the normal, interplanar spacings.
    window
        Side of the square, Å.
    size
        Points along a side.

    Raises
    ------
    RhosightError
        If the Miller indices are invalid, or larger than :data:`rhosight.app.limits.MAX_INDEX`.
    """
    if hkl and max(map(abs, hkl)) > MAX_INDEX:
        raise RhosightError(f"give Miller indices from -{MAX_INDEX} to {MAX_INDEX}")
    plane = lattice_plane(density.structure, hkl)
    values: dict[Kind, np.ndarray] = {}
    for kind in list_kinds(density):
        channel = Channel(kind=kind, window=window, offset=offset)
        values[kind] = density_slice(density, channel, size, "spline", plane=plane)
    axis = ((np.arange(size) + 0.5) / size - 0.5) * window
    atoms = find_atoms_on_plane(density.structure, plane, window / 2, offset)
    return Slices(plane, offset, axis, values, atoms)


def make_block(crystal: ChargeDensity | Structure, kind: StoredKind | None = None) -> Block:
    """Return the atoms and one kind of density in a block like the conventional cell.

    The edges of the block are a, the part of b perpendicular to a, and the part of c perpendicular
    to both, of the conventional cell. The block is the cell itself if the angles of the cell are
    right angles. The heaviest atom is at the corner.

    Parameters
    ----------
    crystal
        The crystal.
    kind
        Kind of density; None for the atoms alone.
    """
    structure = crystal.structure if isinstance(crystal, ChargeDensity) else crystal
    conventional = _find_conventional_cell(structure)
    # Gram-Schmidt: unit vectors in rows; the diagonal of the other factor has the lengths
    axes, lengths = np.linalg.qr(conventional.T)
    signs = np.sign(np.diag(lengths))
    axes = (axes * signs).T
    edges = np.abs(np.diag(lengths))
    edges = edges * np.ceil(MIN_EDGE / edges)
    heaviest = max(range(len(structure)), key=lambda i: structure[i].specie.Z)
    corner = structure[heaviest].coords
    atoms, elements = _find_atoms(structure, corner, axes, edges)
    if kind is None or not isinstance(crystal, ChargeDensity):
        return Block(edges, atoms, elements, None, None)
    step = max(MIN_SPACING, float((edges.prod() / MAX_POINTS) ** (1 / 3)) * 1.06)
    counts = [max(2, int(edge / step) + 1) for edge in edges]
    ticks = [np.linspace(0, edge, count) for edge, count in zip(edges, counts, strict=True)]
    local = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
    places = structure.lattice.get_fractional_coords(local @ axes + corner)
    return Block(edges, atoms, elements, kind, sample(crystal.grid(kind), places))


def _find_conventional_cell(structure: Structure) -> np.ndarray:
    """Return the vectors (rows, Å) of the conventional cell in this orientation."""
    numbers = [site.specie.Z for site in structure]
    matrix = structure.lattice.matrix
    symmetry = find_symmetry(structure, numbers)
    if symmetry is None:
        return matrix
    return np.linalg.inv(symmetry.transformation_matrix).T @ matrix


def _find_atoms(
    structure: Structure, corner: np.ndarray, axes: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return positions (Å, along the axes of the block) and elements of its atoms."""
    centre = corner + (edges / 2) @ axes
    sites = structure.get_sites_in_sphere(centre, float(np.linalg.norm(edges)) / 2 + 0.1)
    if not sites:
        return np.zeros((0, 3)), []
    local = (np.array([site.coords for site in sites]) - corner) @ axes.T
    is_inside = ((local > -0.05) & (local < edges + 0.05)).all(axis=1)
    rows = np.flatnonzero(is_inside)[:MAX_ATOMS]
    return local[rows], [sites[i].specie.symbol for i in rows]
