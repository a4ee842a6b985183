"""Atoms around points: distances, radial functions and spherical harmonics."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.spatial import KDTree

from ..density.free_atoms import list_elements, load_free_atoms
from ..density.neighbours import list_images

REACH = 5.0
"""Å; atoms farther from a point have no effect on its features."""

TURN = 4.0
"""Å; atoms farther from a point do not enter the angular features."""

CENTRES = np.arange(14) * 0.36
"""Å; centres of the radial Gaussians."""

WIDTH = 0.42
"""Å; their standard deviation."""

STEP = 0.01
"""Å; of the table in which all radial functions are interpolated."""

ANGULAR = (1, 3, 5, 7, 9)
"""Gaussians that the angular features use."""

LEVELS = (slice(0, 3), slice(3, 8), slice(8, 15), slice(15, 24))
"""Columns of the spherical harmonics of l = 1 to 4."""

GAUSSIANS = len(CENTRES)
VALENCE, SLOPE, LAPLACIAN, CORE, POTENTIAL = range(GAUSSIANS, GAUSSIANS + 5)
TURNED = GAUSSIANS + 5
"""Columns of the radial table: from here on the Gaussians for angular features."""


@cache
def radial_table() -> torch.Tensor:
    """Return all radial functions of all elements, shape (elements, radii, columns).

    Columns: Gaussians, the free atom's valence density with its derivative and Laplacian, its
    smooth core and its potential (e, Å, eV), and Gaussians that end at :data:`TURN`.
    """
    atoms = load_free_atoms().atoms
    radii = np.arange(round(REACH / STEP) + 2) * STEP
    bells = np.exp(-0.5 * ((radii[:, None] - CENTRES) / WIDTH) ** 2)
    bells[bells < 1e-9] = 0.0  # arithmetic with denormal numbers is slow
    near, turned = (
        np.where(radii < end, 0.5 * (1 + np.cos(np.pi * radii / end)), 0) for end in (REACH, TURN)
    )
    common = bells * near[:, None]
    # directions have no meaning at a nucleus
    angular = bells[:, list(ANGULAR)] * (turned * (1 - np.exp(-((radii / 0.5) ** 2))) ** 2)[:, None]
    tables = []
    for symbol in list_elements():
        atom = atoms[symbol]
        step = atom.radii[1]
        slope = np.gradient(atom.valence, step)
        second = np.gradient(slope, step)
        over_radius = np.divide(slope, atom.radii, out=second.copy(), where=atom.radii > 0)
        own = np.stack(
            [
                np.interp(radii, atom.radii, values, right=0.0)
                for values in (
                    atom.valence,
                    slope,
                    second + 2 * over_radius,
                    atom.core,
                    atom.potential,
                )
            ],
            axis=1,
        )
        tables.append(np.concatenate([common, own, angular], axis=1))
    return torch.from_numpy(np.array(tables, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest atoms of n points, padded to the same number k.

    Attributes
    ----------
    distance
        Å, shape (n, k), ascending; :data:`REACH` and more where padded.
    direction
        Unit vectors from atom to point, single precision, shape (n, k, 3).
    atom
        Index of the atom in the cell, shape (n, k).
    """

    distance: torch.Tensor
    direction: torch.Tensor
    atom: torch.Tensor


class AtomFinder:
    """Find the atoms of a periodic crystal around points of its cell.

    Parameters
    ----------
    lattice
        Lattice vectors (rows), Å.
    frac
        Fractional coordinates of the atoms, shape (atoms, 3).
    """

    def __init__(self, lattice: np.ndarray, frac: np.ndarray) -> None:
        self.lattice = lattice
        self._places, self._atoms = list_images(lattice, frac, REACH)
        self._tree = KDTree(self._places)
        sphere = 4 / 3 * np.pi * REACH**3
        self._most = int(1.1 * len(frac) * sphere / abs(np.linalg.det(lattice))) + 8

    def __call__(self, frac: np.ndarray, skip_own: bool = False) -> Neighbours:
        """Return the atoms around points, fractional, shape (n, 3).

        ``skip_own`` leaves out the nearest atom: the points are atoms themselves.
        """
        points = (frac % 1.0) @ self.lattice
        distance, index = self._query(points)
        padded = ~np.isfinite(distance)
        index[padded] = 0
        vector = points[:, None] - self._places[index]
        distance[padded] = REACH + STEP / 2
        direction = vector / np.maximum(distance, 1e-6)[..., None]
        direction[padded] = 0
        first = int(skip_own)
        return Neighbours(
            torch.from_numpy(distance[:, first:].copy()),
            torch.from_numpy(direction[:, first:].astype(np.float32)),
            torch.from_numpy(self._atoms[index[:, first:]]),
        )

    def _query(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return distances and indices of images in reach, (n, k), padded with infinity."""
        while True:
            # more than one, because the result for one has another shape
            distance, index = self._tree.query(points, k=self._most, distance_upper_bound=REACH)
            most = int(np.isfinite(distance).sum(axis=1).max())
            if most < self._most:
                return distance[:, : max(most, 2)], index[:, : max(most, 2)]
            self._most *= 2


def look_up(distance: torch.Tensor, element: torch.Tensor) -> torch.Tensor:
    """Return the radial functions of atoms of given elements at given distances.

    Both arguments have the shape (n, k); the result has (n, k, columns of the table), in single
    precision.
    """
    table = radial_table()
    rows = table.shape[1]
    rank = (distance / STEP).clamp(max=rows - 1.001)
    below = rank.floor()
    start = element * rows + below.long()
    flat = table.view(-1, table.shape[2])
    return torch.lerp(
        torch.nn.functional.embedding(start, flat),
        torch.nn.functional.embedding(start + 1, flat),
        (rank - below).float()[..., None],
    )


def harmonics(direction: torch.Tensor) -> torch.Tensor:
    """Return real spherical harmonics of l = 1 to 4, shape (..., 24).

    They are scaled so that the squares of one l add up to 1.
    """
    x, y, z = direction.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    parts = [x, y, z]
    parts += [3**0.5 * x * y, 3**0.5 * y * z, 1.5 * zz - 0.5, 3**0.5 * x * z]
    parts += [0.75**0.5 * (xx - yy)]
    parts += [0.625**0.5 * y * (3 * xx - yy), 15**0.5 * x * y * z]
    parts += [0.375**0.5 * y * (5 * zz - 1), z * (2.5 * zz - 1.5), 0.375**0.5 * x * (5 * zz - 1)]
    parts += [3.75**0.5 * z * (xx - yy), 0.625**0.5 * x * (xx - 3 * yy)]
    parts += [8.75**0.5 * x * y * (xx - yy), 4.375**0.5 * y * z * (3 * xx - yy)]
    parts += [1.25**0.5 * x * y * (7 * zz - 1), 0.625**0.5 * y * z * (7 * zz - 3)]
    parts += [(35 * zz * zz - 30 * zz + 3) / 8, 0.625**0.5 * x * z * (7 * zz - 3)]
    parts += [0.3125**0.5 * (xx - yy) * (7 * zz - 1), 4.375**0.5 * x * z * (xx - 3 * yy)]
    parts += [(35 / 64) ** 0.5 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy))]
    return torch.stack(parts, dim=-1)
