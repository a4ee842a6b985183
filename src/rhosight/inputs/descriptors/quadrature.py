"""Points and weights around the atoms of a crystal, and its fields there.

An integral over the cell is a sum over atoms, ∫ f = Σₐ ∫ wₐ f, with the stockholder weights
wₐ = nₐ / Σ_b n_b of the free atoms' spherical valence densities (Hirshfeld, Theor. Chim. Acta 44,
129 (1977), doi:10.1007/BF00549096). The integral of each atom is taken on shells: Gauss-Legendre in
the radius, Lebedev's rule on the sphere (doi:10.1016/0041-5553(76)90100-2) along the axes of
spglib's standard setting. The result does not depend on the cell in which a crystal is stored, its
origin or the order of atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.integrate import lebedev_rule
from scipy.ndimage import map_coordinates, spline_filter

from ...density.charge_density import ChargeDensity, Kind
from ...density.elements import covalent_radius
from ...density.free_atoms import COULOMB, load_free_atoms
from .crystal import Crystal, Site

SHELLS, ORDER = 22, 23
"""Radial nodes from the nucleus to where free atoms end, and the order of Lebedev's rule: 194
directions. With 86 the integral of Δn² is off by up to 7 %, in HfC."""

PEAK = 8.0
"""e/Å³; a larger value is a peak of core electrons or of augmentation charges, for which most grids
are too coarse. GPAW's pseudo-densities, on which the packaged models were trained, have none: the
largest value in the bundled data is 6.2."""

SOFT = 0.01
"""e/Å³; where local interpolation of a density with peaks changes from linear to logarithmic."""

STEP = 0.06
"""Å; step of the finite differences for gradients, about a quarter of a grid's spacing."""

CORE = (0.5, 0.9)
"""In covalent radii: end of a core and beginning of the outside, with a smooth step between them.
The density inside depends on the code and its pseudo-potentials."""


@dataclass(frozen=True)
class Shells:
    """Points on shells around one inequivalent atom, and the free atoms there.

    Attributes
    ----------
    site
        The atom.
    radii
        Å, shape (shells,).
    frac
        Fractional coordinates of the points, shape (shells, directions, 3).
    volume
        Volume of each point, Å³. This and the following have shape (shells, directions).
    weight
        The volume times the stockholder weight, Å³.
    own, others
        Valence densities of this free atom and of the others, e/Å³.
    cores
        All smooth cores, e/Å³.
    potential
        Of all neutral free atoms, eV.
    outside
        0 in the core of any atom, 1 outside (:data:`CORE`).
    """

    site: Site
    radii: np.ndarray
    frac: np.ndarray
    volume: np.ndarray
    weight: np.ndarray
    own: np.ndarray
    others: np.ndarray
    cores: np.ndarray
    potential: np.ndarray
    outside: np.ndarray


def make_shells(crystal: Crystal) -> list[Shells]:
    """Return the points around each inequivalent atom of a crystal."""
    end = load_free_atoms().reach
    nodes, node_weights = np.polynomial.legendre.leggauss(SHELLS)
    radii = end * (nodes + 1) / 2
    directions, angle_weights = _make_directions()
    offsets = radii[:, None, None] * (directions @ crystal.axes)
    volume = (end / 2 * node_weights * radii**2)[:, None] * angle_weights
    frac = offsets @ np.linalg.inv(crystal.structure.lattice.matrix)
    result = []
    for site in crystal.sites:
        own, sums, outside = _superpose_atoms(crystal, site, offsets.reshape(-1, 3))
        own, outside = own.reshape(volume.shape), outside.reshape(volume.shape)
        valence, cores, potential = sums.reshape(3, *volume.shape)
        result.append(
            Shells(
                site=site,
                radii=radii,
                frac=crystal.structure.frac_coords[site.index] + frac,
                volume=volume,
                weight=volume * own / np.maximum(valence, 1e-12),
                own=own,
                others=valence - own,
                cores=cores,
                potential=potential,
                outside=outside,
            )
        )
    return result


@cache
def _make_directions() -> tuple[np.ndarray, np.ndarray]:
    points, weights = lebedev_rule(ORDER)
    return points.T, weights


def _superpose_atoms(
    crystal: Crystal, site: Site, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Superpose free atoms at points relative to an atom, Å, shape (n, 3).

    Returns
    -------
    tuple of numpy.ndarray
        The atom's own valence density (n,); valence, core and potential of all free atoms (3, n);
        0 in the cores to 1 outside (n,).
    """
    table = load_free_atoms()
    end = table.reach
    vectors, symbols, _ = crystal.find_neighbours(site.index, 2 * end)
    # |p − R|² of all pairs, (points, atoms)
    squares = (points**2).sum(1)[:, None] + (vectors**2).sum(1) - 2 * points @ vectors.T
    distance = np.sqrt(np.maximum(squares, 0))
    sums = np.zeros((3, len(points)))
    outside = np.ones(len(points))
    for symbol in sorted(set(symbols)):
        atom = table.atoms[symbol]
        part = distance[:, symbols == symbol]
        close, _ = near = np.nonzero(part < end)
        # linear interpolation in the table, all three functions at once
        rank = part[near] * ((len(atom.radii) - 1) / end)
        below = np.minimum(rank.astype(int), len(atom.radii) - 2)
        rank -= below
        for k, values in enumerate((atom.valence, atom.core, atom.potential)):
            found = values[below] + rank * np.diff(values)[below]
            sums[k] += np.bincount(close, found, len(points))
        core = part.min(axis=1) / covalent_radius(symbol)
        scaled = np.clip((core - CORE[0]) / (CORE[1] - CORE[0]), 0, 1)
        outside *= scaled**2 * (3 - 2 * scaled)
    atom = table.atoms[site.symbol]
    return np.interp(distance[:, 0], atom.radii, atom.valence), sums, outside


class Sampler:
    """The fields of a density at any point of its cell; each is prepared on first use.

    Parameters
    ----------
    density
        With the kinds that the fields need.
    local
        Use splines on the original grid, on which distant points have little effect, so that values
        near the nuclei hardly matter elsewhere. If these exceed :data:`PEAK`, the splines
        interpolate arsinh(n / :data:`SOFT`), in which peaks are low. Otherwise Fourier
        interpolation refines the grid twofold first, which is more accurate, but a sharp core makes
        ripples all over the cell.
    """

    def __init__(self, density: ChargeDensity, local: bool = False) -> None:
        self._density, self._local = density, local
        self.shape, self._lattice = density.shape, density.structure.lattice

    def __call__(self, frac: np.ndarray) -> Fields:
        """Return the fields at fractional coordinates of shape (..., 3)."""
        return Fields(self, frac)

    @cached_property
    def total(self) -> _Field:
        """The density, e/Å³."""
        if self._local:
            values = np.asarray(self._density.grid("total"), dtype=float)
            return _Field(values, has_peaks=bool(values.max() > PEAK))
        return self._refine(self._total)

    @cached_property
    def difference(self) -> _Field:
        """The difference from free atoms, e/Å³."""
        return self._refine(self._difference)

    @cached_property
    def laplacian(self) -> _Field:
        """Laplacian of the density, e/Å⁵."""
        return self._refine(-self._squares * self._total)

    @cached_property
    def hartree(self) -> _Field:
        """Potential energy of an electron in the field of the difference, eV."""
        return self._refine(self._hartree)

    @cached_property
    def self_energy(self) -> float:
        """½ ∫ V[difference] difference over the cell, eV, by Parseval's theorem."""
        power = (self._difference.conj() * self._hartree).real
        twice = np.full(self.shape[2] // 2 + 1, 2.0)  # only half of the waves are stored
        twice[0] = 1.0
        if self.shape[2] % 2 == 0:
            twice[-1] = 1.0
        return float((power * twice).sum() * self._lattice.volume / 2 / np.prod(self.shape) ** 2)

    @cached_property
    def steps(self) -> np.ndarray:
        """One step along each Cartesian axis, in fractions of the cell."""
        return STEP * np.linalg.inv(self._lattice.matrix)

    @cached_property
    def _squares(self) -> np.ndarray:
        """|k|² of every wave of the grid, Å⁻²."""
        indices = [np.fft.fftfreq(n, 1 / n) for n in self.shape[:2]]
        indices.append(np.fft.rfftfreq(self.shape[2], 1 / self.shape[2]))
        waves = np.stack(np.meshgrid(*indices, indexing="ij"), -1)
        return ((waves @ self._lattice.reciprocal_lattice.matrix) ** 2).sum(-1)

    @cached_property
    def _hartree(self) -> np.ndarray:
        squares = self._squares.copy()
        squares[0, 0, 0] = np.inf  # the potential is zero on average
        return 4 * np.pi * COULOMB * self._difference / squares

    @cached_property
    def _total(self) -> np.ndarray:
        return self._spectrum("total")

    @cached_property
    def _difference(self) -> np.ndarray:
        return self._spectrum("difference")

    def _refine(self, spectrum: np.ndarray) -> _Field:
        """Return the field on a grid of twice as many points along each axis."""
        shape = self.shape
        fine = tuple(2 * n for n in shape)
        padded = np.zeros((fine[0], fine[1], fine[2] // 2 + 1), dtype=complex)
        # the wave at the edge of an even grid is ambiguous in sign: left out
        rows, columns = ([*range((n + 1) // 2), *range(-((n - 1) // 2), 0)] for n in shape[:2])
        depth = (shape[2] + 1) // 2
        padded[np.ix_(rows, columns, range(depth))] = spectrum[np.ix_(rows, columns, range(depth))]
        return _Field(np.fft.irfftn(padded, fine, axes=(0, 1, 2)) * 8)

    def _spectrum(self, kind: Kind) -> np.ndarray:
        return np.fft.rfftn(np.asarray(self._density.grid(kind), dtype=float))


class Fields:
    """Fields of a density at some points; each is computed on first use."""

    def __init__(self, sampler: Sampler, frac: np.ndarray) -> None:
        self._sampler, self._frac = sampler, frac

    @cached_property
    def total(self) -> np.ndarray:
        """The density, e/Å³."""
        return self._sampler.total(self._frac)

    @cached_property
    def difference(self) -> np.ndarray:
        """The difference from free atoms, e/Å³."""
        return self._sampler.difference(self._frac)

    @cached_property
    def hartree(self) -> np.ndarray:
        """Potential of an electron in the field of the difference, eV, mean zero."""
        return self._sampler.hartree(self._frac)

    @cached_property
    def gradient2(self) -> np.ndarray:
        """Square of the gradient of the density, e²/Å⁸."""
        total = self._sampler.total
        square = np.zeros(self._frac.shape[:-1])
        for step in self._sampler.steps:
            ahead, behind = total(self._frac + step), total(self._frac - step)
            square += ((ahead - behind) / (2 * STEP)) ** 2
        return square

    @cached_property
    def laplacian(self) -> np.ndarray:
        """Laplacian of the density, e/Å⁵."""
        return self._sampler.laplacian(self._frac)


class _Field:
    """A periodic function, sampled by cubic splines.

    A spline through a peak that is narrower than a few steps of the grid has ripples beside it, in
    proportion to its height. With ``has_peaks`` the spline interpolates arsinh(f / SOFT), in which
    a peak of 100 e/Å³ is four times as high as 0.1 e/Å³.
    """

    def __init__(self, values: np.ndarray, has_peaks: bool = False) -> None:
        self._has_peaks = has_peaks
        if has_peaks:
            values = np.arcsinh(np.maximum(values, 0) / SOFT)
        self._coefficients = spline_filter(values, order=3, mode="grid-wrap")

    def __call__(self, frac: np.ndarray) -> np.ndarray:
        at = np.moveaxis(frac * self._coefficients.shape, -1, 0)
        values = map_coordinates(self._coefficients, at, order=3, mode="grid-wrap", prefilter=False)
        return SOFT * np.sinh(values) if self._has_peaks else values
