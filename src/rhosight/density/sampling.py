"""Values of a periodic grid at arbitrary points and on windows of lattice planes."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import scipy.ndimage
import spglib

from ..errors import RhosightError
from .plane import LENGTH_TOLERANCE, LatticePlane

Interpolation = Literal["spline", "fourier"]


def sample(
    grid: np.ndarray,
    frac_coords: np.ndarray,
    interpolation: Interpolation = "spline",
    lattice: np.ndarray | None = None,
) -> np.ndarray:
    """Return the values of a periodic grid at fractional coordinates.

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
        Lattice vectors (rows), for ``"fourier"`` only. The grid cannot distinguish some waves; the
        shortest of them is used, and equally short ones share the amplitude. Without a lattice,
        the wave of smallest indices is used, which breaks the symmetry of a density that exceeds
        the grid's band limit.

    Returns
    -------
    numpy.ndarray
        Shape (...), in the grid's unit.

    Raises
    ------
    RhosightError
        For an unknown interpolation.
    """
    frac_coords = np.asarray(frac_coords, dtype=float)
    flat = frac_coords.reshape(-1, 3)
    if interpolation == "spline":
        values = _sample_spline(grid, flat)
    elif interpolation == "fourier":
        values = _sample_fourier(grid, flat, lattice)
    else:
        raise RhosightError(
            f"unknown interpolation {interpolation!r}; choose one of spline, fourier"
        )
    return values.reshape(frac_coords.shape[:-1])


def sample_window(
    grid: np.ndarray,
    plane: LatticePlane,
    side: float,
    size: int,
    offset: float = 0.0,
    interpolation: Interpolation = "spline",
) -> np.ndarray:
    """Return the values of a grid on a square window of a lattice plane.

    Parameters
    ----------
    grid
        Shape (nx, ny, nz).
    plane
        The plane and the axes of the window.
    side
        Side of the window, Å.
    size
        Pixels along each side.
    offset
        Shift along the normal, in interplanar spacings.
    interpolation
        As in :func:`sample`.

    Returns
    -------
    numpy.ndarray
        Shape (size, size), in the grid's unit. Each pixel is the value at its centre. Row 0 is the
        top (largest y); column 0 has the smallest x.
    """
    axis = ((np.arange(size) + 0.5) / size - 0.5) * side
    if interpolation == "fourier":
        return _sample_fourier_window(grid, plane, axis, offset)
    return sample(grid, plane.points(axis[None, :], -axis[:, None], offset), interpolation)


def _sample_spline(grid: np.ndarray, frac_coords: np.ndarray) -> np.ndarray:
    coefficients = scipy.ndimage.spline_filter(
        np.asarray(grid, dtype=float), order=3, mode="grid-wrap"
    )
    positions = frac_coords * np.array(grid.shape)
    return scipy.ndimage.map_coordinates(
        coefficients, positions.T, order=3, mode="grid-wrap", prefilter=False
    )


def _sample_fourier(
    grid: np.ndarray, frac_coords: np.ndarray, lattice: np.ndarray | None
) -> np.ndarray:
    reciprocal = np.diag(1 / np.array(grid.shape))
    if lattice is not None:
        reciprocal = np.linalg.inv(lattice).T
    waves, amplitudes = compute_spectrum(grid, reciprocal)
    values = np.empty(len(frac_coords))
    # bounded memory: about 64 MB of phases at a time
    step = max(1, 4_000_000 // len(waves))
    for start in range(0, len(frac_coords), step):
        part = frac_coords[start : start + step]
        values[start : start + step] = (np.exp(2j * np.pi * (part @ waves.T)) @ amplitudes).real
    return values


def _sample_fourier_window(
    grid: np.ndarray, plane: LatticePlane, axis: np.ndarray, offset: float
) -> np.ndarray:
    """Sum plane waves on a square window, where they factorise into x and y.

    A lattice plane is periodic in two dimensions, so the waves of a whole row of reciprocal vectors
    coincide on it and are added up first. One matrix product does the rest.
    """
    waves, amplitudes = compute_spectrum(grid, np.array([plane.x, plane.y, plane.normal]).T)
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
        rows = amplitudes[part] * _compute_phases(-in_plane[part, 1], axis)
        columns = _compute_phases(in_plane[part, 0], axis)
        image += rows.real @ columns.real.T - rows.imag @ columns.imag.T
    return image


def _compute_phases(frequency: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return exp(2πi · frequency · axis), shape (axis, frequency).

    The axis is evenly spaced. Repeated multiplication replaces the exponentials, which would take
    most of the time.
    """
    steps = np.empty((len(axis), len(frequency)), dtype=complex)
    steps[0] = np.exp(2j * np.pi * frequency * axis[0])
    if len(axis) > 1:
        steps[1:] = np.exp(2j * np.pi * frequency * (axis[1] - axis[0]))
    return np.cumprod(steps, axis=0, out=steps)


def compute_spectrum(grid: np.ndarray, reciprocal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integer wave vectors (n, 3) and amplitudes (n,) of a grid.

    The real part of the waves sums to the grid. Only half of the waves are kept, because the others
    are their complex conjugates. Waves that are equal on the grid are replaced by the shortest of
    them, measured with ``reciprocal`` (rows).
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
