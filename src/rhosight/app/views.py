"""What there is to see of a crystal: densities on a plane, atoms and a density in the cell.

Numbers, not pictures: :mod:`rhosight.app.figures` makes figures of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import spglib
from pymatgen.core import Structure

from ..density.charge_density import STORED_KINDS, ChargeDensity
from ..density.plane import LatticePlane, lattice_plane, sample
from ..errors import RhosightError
from ..inputs.drawing import atoms_on_plane
from ..inputs.image import Channel, density_slice
from .limits import MAX_INDEX

SLICE_PIXELS = 160

MOST_POINTS = 32_000
"""Of the grid that a browser gets for a surface: some hundred kilobytes."""

FINEST = 0.08
"""Å between its points at least."""

SMALLEST_BLOCK = 3.0
"""Å that each edge of the block is long at least."""

MOST_ATOMS = 1500


@dataclass(frozen=True, eq=False)
class Slices:
    """Kinds of density on one window of a lattice plane.

    Attributes
    ----------
    plane
        Where it lies.
    offset
        Interplanar spacings along its normal.
    axis
        Å, shape (n,): x of the columns, and −y of the rows.
    values
        Kind → shape (n, n), e/Å³, row 0 at the largest y.
    atoms
        x and y in Å, and element, of atoms on the plane.
    """

    plane: LatticePlane
    offset: float
    axis: np.ndarray
    values: dict[str, np.ndarray]
    atoms: list[tuple[float, float, str]]

    def table(self) -> pd.DataFrame:
        """One row for each point: x and y (Å), and the kinds of density (e/Å³)."""
        x, y = np.meshgrid(self.axis, -self.axis)
        columns = {f"{kind} (e/Å³)": values.ravel() for kind, values in self.values.items()}
        return pd.DataFrame({"x (Å)": x.ravel(), "y (Å)": y.ravel(), **columns})

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``hkl``, ``spacing`` (Å), ``offset``, ``x`` and ``y`` (Å) of columns and rows,
        ``values`` (kind → rows, e/Å³) and ``atoms`` ([x, y, element]).
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
    """A rectangular block of a crystal, edges along x, y and z.

    Attributes
    ----------
    edges
        Å, shape (3,).
    atoms
        Å, shape (m, 3).
    elements
        m symbols.
    kind, values
        A density, shape (nx, ny, nz), e/Å³, on points from one face to the other; None without.
    """

    edges: np.ndarray
    atoms: np.ndarray
    elements: list[str]
    kind: str | None
    values: np.ndarray | None

    def to_dict(self) -> dict[str, Any]:
        """For JSON: ``edges``, ``atoms`` (Å), ``elements``, ``kind``, ``values`` (e/Å³)."""
        return {
            "edges": self.edges.tolist(),
            "atoms": np.round(self.atoms, 5).tolist(),
            "elements": self.elements,
            "kind": self.kind,
            "values": None if self.values is None else np.round(self.values, 6).tolist(),
        }


def kinds_of(density: ChargeDensity) -> tuple[str, ...]:
    """The kinds of density that a file has, in the order in which they are shown."""
    return tuple(kind for kind in STORED_KINDS if kind in density.grids)


def cut(
    density: ChargeDensity,
    hkl: tuple[int, int, int] | None,
    offset: float,
    window: float,
    size: int = SLICE_PIXELS,
) -> Slices:
    """All kinds of a density on a lattice plane, the densest if ``hkl`` is None.

    Parameters
    ----------
    offset
        Interplanar spacings along the normal.
    window
        Side of the square, Å.
    size
        Points along a side.

    Raises
    ------
    RhosightError
        For Miller indices that are none, or beyond :data:`rhosight.app.limits.MAX_INDEX`.
    """
    if hkl and max(map(abs, hkl)) > MAX_INDEX:
        raise RhosightError(f"Miller indices go from -{MAX_INDEX} to {MAX_INDEX} here")
    plane = lattice_plane(density.structure, hkl)
    values = {}
    for kind in kinds_of(density):
        channel = Channel(kind=kind, window=window, offset=offset)
        values[kind] = density_slice(density, channel, size, "spline", plane=plane)
    axis = ((np.arange(size) + 0.5) / size - 0.5) * window
    atoms = atoms_on_plane(density.structure, plane, window / 2, offset)
    return Slices(plane, offset, axis, values, atoms)


def block(crystal: ChargeDensity | Structure, kind: str | None = None) -> Block:
    """Atoms, and one kind of density if given, in the conventional cell or a block as large.

    The edges follow the conventional cell's a, the part of b across it, and the part of c across
    both: the cell itself where its angles are right ones. The heaviest atom is at the corner.
    """
    structure = crystal.structure if isinstance(crystal, ChargeDensity) else crystal
    conventional = _conventional(structure)
    # Gram-Schmidt: rows are unit vectors, the diagonal of the other factor lengths along them
    axes, lengths = np.linalg.qr(conventional.T)
    signs = np.sign(np.diag(lengths))
    axes = (axes * signs).T
    edges = np.abs(np.diag(lengths))
    edges = edges * np.ceil(SMALLEST_BLOCK / edges)
    heaviest = max(range(len(structure)), key=lambda i: structure[i].specie.Z)
    corner = structure[heaviest].coords
    atoms, elements = _atoms_within(structure, corner, axes, edges)
    if kind is None:
        return Block(edges, atoms, elements, None, None)
    step = max(FINEST, float((edges.prod() / MOST_POINTS) ** (1 / 3)) * 1.06)
    counts = [max(2, int(edge / step) + 1) for edge in edges]
    ticks = [np.linspace(0, edge, count) for edge, count in zip(edges, counts, strict=True)]
    local = np.stack(np.meshgrid(*ticks, indexing="ij"), axis=-1)
    places = structure.lattice.get_fractional_coords(local @ axes + corner)
    return Block(edges, atoms, elements, kind, sample(crystal.grid(kind), places))


def _conventional(structure: Structure) -> np.ndarray:
    """Vectors (rows, Å) of the conventional cell as it lies in this structure."""
    numbers = [site.specie.Z for site in structure]
    matrix = structure.lattice.matrix
    try:
        found = spglib.get_symmetry_dataset((matrix, structure.frac_coords, numbers), 0.01)
    except Exception:  # newer versions raise, older ones return None
        found = None
    if found is None:
        return matrix
    return np.linalg.inv(found.transformation_matrix).T @ matrix


def _atoms_within(
    structure: Structure, corner: np.ndarray, axes: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    centre = corner + (edges / 2) @ axes
    sites = structure.get_sites_in_sphere(centre, float(np.linalg.norm(edges)) / 2 + 0.1)
    if not sites:
        return np.zeros((0, 3)), []
    local = (np.array([site.coords for site in sites]) - corner) @ axes.T
    inside = ((local > -0.05) & (local < edges + 0.05)).all(axis=1)
    kept = np.flatnonzero(inside)[:MOST_ATOMS]
    return local[kept], [sites[i].specie.symbol for i in kept]
