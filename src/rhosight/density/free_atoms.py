"""Superposed free atoms: ``difference`` for a ``total`` without a reference.

The table ``data/free_atoms.safetensors`` contains spherical valence densities of 69 elements, up to
Rn and without the lanthanides beyond La, computed with GPAW's atomic code (PBE,
scalar-relativistic, doi:10.1088/0953-8984/22/25/253202) by ``benchmarks/make_free_atoms.py``.
GPAW's calculations start from these densities: smooth pseudo-densities, spherical, neutral, in the
nominal configuration, taken to zero at 8 Bohr (4.23 Å) and scaled so that each cell keeps its
charge. No file that is distributed with GPAW (GPL-3 or later, according to the copyright file of
Debian's gpaw-data) went into the table; the script explains how it was made.

**Deviation from GPAW's own difference.** The table was tested on the bundled data: ``difference``
was computed from ``total`` alone and compared with the stored one, root mean square over the cell
relative to that of the difference itself. With ``cutoff=400``: median 0.013 %, 95 % below 0.08 %,
largest 0.1 % (SrF2), from wave vectors beyond ``MAX_WAVE``. Without it: median 0.1 %, 95 % below
0.9 %, largest 2.3 % (GeSe), from the smooth cores, because a grid holds more of their waves than
GPAW keeps. The eight crystals with chromium are exceptions, 22 to 45 %: GPAW's spin-polarised guess
moves half an electron of each chromium atom from 3d to 4s, the table keeps 3d⁵ 4s¹.

**Limits.** Between the atoms, any code's density minus this superposition is a deformation density.
Near the nuclei it is not: the table has GPAW's augmentation radii and smooth cores, not those of
another code's pseudo-potentials, and not its choice of semi-core electrons. VASP's ``total`` adds
augmentation charges inside the spheres. There the difference between the two codes dominates the
result, in much the same way for every crystal with that atom, so its integral is not zero. Use the
result outside the cores (``benchmarks/other_code.py`` measures it there), and do not mix it in one
training set with differences of another origin; the provenance names the origin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from pymatgen.core import Structure
from safetensors import safe_open
from scipy.integrate import cumulative_simpson, simpson
from scipy.interpolate import CubicSpline

from ..errors import RhosightError
from .charge_density import ChargeDensity, check_grid_fits_cell
from .crystals import list_symbols

COULOMB = 14.39964548
"""eV Å; e²/4πε₀ (CODATA 2018)."""

KINETIC = 3.80998212
"""eV Å²; ħ²/2m, the kinetic energy of an electron whose wave vector is 1 Å⁻¹ (CODATA 2018)."""

MAX_WAVE = 40.0
"""Å⁻¹; wave vectors beyond add some 1e-5 of the valence density (root mean square)."""

WAVE_STEP = 0.02
"""Å⁻¹; of the tabulated Fourier transforms."""

WHOLE = 2e-3
"""Largest distance from a whole number of electrons at which a file counts as whole: the digits of
a CHGCAR leave 1e-5, and none of the bundled pseudo-densities is nearer than 4e-3."""

TABLE = Path(__file__).parents[1] / "data" / "free_atoms.safetensors"


@dataclass(frozen=True, eq=False)
class FreeAtom:
    """One spherical free atom.

    Attributes
    ----------
    radii
        Å, shape (n,).
    valence, core
        Densities of the valence electrons and of the smooth core, e/Å³, shape (n,).
    potential
        Potential energy of an electron in the field of the neutral atom, eV, shape (n,).
    electrons
        Valence electrons, by integration.
    moment
        Their second moment ∫ r² n, e Å².
    valence_charge, core_charge
        Integrals of the two densities by construction, electrons.
    """

    radii: np.ndarray
    valence: np.ndarray
    core: np.ndarray
    potential: np.ndarray
    electrons: float
    moment: float
    valence_charge: float
    core_charge: float


@dataclass(frozen=True)
class FreeAtoms:
    """The table of free atoms, by symbol, and the source of the calculation."""

    atoms: dict[str, FreeAtom]
    source: str

    @property
    def reach(self) -> float:
        """Radius at which all free atoms end, Å."""
        return float(next(iter(self.atoms.values())).radii[-1])


@cache
def load_free_atoms() -> FreeAtoms:
    """Return the table of free atoms; the file is read once."""
    with safe_open(TABLE, framework="numpy") as file:
        about = file.metadata()
        symbols = json.loads(about["elements"])
        valence, core, charge = (
            file.get_tensor(name).astype(float) for name in ("valence", "core", "charge")
        )
    radii = np.linspace(0, float(about["reach"]), valence.shape[1])
    atoms = {}
    for symbol, density, smooth, charges in zip(symbols, valence, core, charge, strict=True):
        shell = 4 * np.pi * radii**2 * density
        inner = cumulative_simpson(shell, x=radii, initial=0)
        outer = cumulative_simpson(4 * np.pi * radii * density, x=radii, initial=0)
        safe = np.maximum(radii, radii[1] / 2)  # avoids dividing by zero at the nucleus
        atoms[symbol] = FreeAtom(
            radii=radii,
            valence=density,
            core=smooth,
            potential=-COULOMB * ((inner[-1] - inner) / safe - (outer[-1] - outer)),
            electrons=float(inner[-1]),
            moment=float(simpson(shell * radii**2, x=radii)),
            valence_charge=float(charges[0]),
            core_charge=float(charges[1]),
        )
    return FreeAtoms(atoms, about["source"])


def list_elements() -> tuple[str, ...]:
    """Return the symbols of the elements in the table, sorted."""
    return tuple(sorted(load_free_atoms().atoms))


def promolecule(
    structure: Structure,
    shape: tuple[int, int, int],
    core: bool = True,
    cutoff: float | None = None,
) -> np.ndarray:
    """Return the superposition of free atoms on a periodic grid.

    The sum is taken in reciprocal space, hence over all periodic images. The valence uses more wave
    vectors than a coarse grid holds, so its points have the values of the sum in real space. The
    smooth cores use only the wave vectors that the grid holds, or that GPAW uses. The result is
    scaled so that the integral over the cell is the sum of the atoms' charges.

    Parameters
    ----------
    structure
        The cell, ordered, with elements of :func:`list_elements`.
    shape
        Grid points (nx, ny, nz) along the lattice vectors.
    core
        Whether to include the smooth cores, as GPAW's ``total`` does. Codes that write the valence
        alone (VASP's CHGCAR) have none.
    cutoff
        Plane-wave cut-off of the calculation, eV: the cores then contain the wave vectors up to √2
        times its own, which is GPAW's limit. By default, all those within the largest sphere that
        the grid holds.

    Returns
    -------
    numpy.ndarray
        Shape (nx, ny, nz), float64, e/Å³.

    Raises
    ------
    RhosightError
        For an element that the table lacks, a site of mixed occupation, or a shape that
        contradicts the cell.
    """
    where = structure.composition.reduced_formula
    check_grid_fits_cell(shape, structure, where)
    symbols = _check_elements(structure, where)
    # radius of the sphere in the grid's reciprocal cell, whose faces are π / step away
    holds = np.pi * np.array(shape) / structure.lattice.abc
    core_limit = min(holds) if cutoff is None else min(*holds, np.sqrt(2 * cutoff / KINETIC))
    core_limit *= 1 - 1e-4  # the rounding of a file must not decide about waves on the sphere
    finer = np.ceil(MAX_WAVE / holds).astype(int)
    density = _superpose(structure, symbols, tuple(finer * shape), core_limit if core else 0.0)
    density = density[tuple(slice(None, None, step) for step in finer)]
    table = load_free_atoms().atoms
    atoms = [table[symbol] for symbol in symbols]
    charge = sum(atom.valence_charge + core * atom.core_charge for atom in atoms)
    return density * (charge / (density.mean() * structure.volume))


def difference_from_total(
    density: ChargeDensity, core: bool | None = None, cutoff: float | None = None
) -> ChargeDensity:
    """Add ``difference`` = ``total`` − :func:`promolecule` to a density.

    Parameters
    ----------
    density
        Has ``total`` and no ``difference``.
    core
        As in :func:`promolecule`. By default true where the integral over the cell is not a whole
        number: codes that write the valence alone write whole electrons, smooth cores add
        fractions.
    cutoff
        As in :func:`promolecule`.

    Returns
    -------
    ChargeDensity
        Its provenance names the origin of the reference.

    Raises
    ------
    RhosightError
        If there is no ``total``, or a ``difference`` already, and as :func:`promolecule` does.
    """
    where = density.name or density.structure.composition.reduced_formula
    if "difference" in density.grids:
        raise RhosightError(
            f"{where}: has a `difference` already; remove it first to replace it with one from "
            "free atoms"
        )
    total = np.asarray(density.grid("total"))
    if core is None:
        electrons = density.integral("total")
        core = abs(electrons - round(electrons)) > WHOLE
    try:
        reference = promolecule(density.structure, density.shape, core, cutoff)
    except RhosightError as error:
        raise RhosightError(f"{where}: no `difference` from free atoms: {error}") from error
    kinds = density.provenance.get("kinds")
    about = (
        f"total minus rhosight's table of free atoms ({load_free_atoms().source}; valence"
        f"{' and smooth core' if core else ''}); meaningful outside the cores"
    )
    provenance = {
        **density.provenance,
        "kinds": {**(kinds if isinstance(kinds, dict) else {}), "difference": about},
    }
    grids = {**density.grids, "difference": total - reference}
    return replace(density, grids=grids, provenance=provenance)


@cache
def _transform_atoms() -> dict[str, tuple[CubicSpline, CubicSpline]]:
    """Return Fourier transforms of valence and core, electrons over Å⁻¹, by symbol."""
    atoms = load_free_atoms().atoms
    radii = next(iter(atoms.values())).radii
    waves = np.linspace(0, MAX_WAVE, 1 + round(MAX_WAVE / WAVE_STEP))
    # ∫ 4πr² n(r) sin(qr)/(qr) dr by Simpson's rule, for all atoms at once
    kernel = 4 * np.pi * radii**2 * np.sinc(np.outer(waves, radii) / np.pi)
    kernel *= simpson(np.eye(len(radii)), x=radii)
    densities = (
        np.stack([atom.valence for atom in atoms.values()]),
        np.stack([atom.core for atom in atoms.values()]),
    )
    valence, core = (CubicSpline(waves, kernel @ density.T) for density in densities)
    return {
        symbol: (_select_column(valence, i), _select_column(core, i))
        for i, symbol in enumerate(atoms)
    }


def _select_column(spline: CubicSpline, column: int) -> CubicSpline:
    return CubicSpline.construct_fast(spline.c[..., column], spline.x)


def _superpose(
    structure: Structure, symbols: list[str], shape: tuple[int, int, int], core_limit: float
) -> np.ndarray:
    """Return the density of all atoms on a grid, e/Å³.

    Valence with wave vectors up to ``MAX_WAVE``, cores with those up to ``core_limit``, Å⁻¹.
    """
    lattice = structure.lattice
    # half of the last axis suffices: for a real density the rest is the complex conjugate
    indices = [np.fft.fftfreq(n, 1 / n) for n in shape[:2]]
    indices.append(np.fft.rfftfreq(shape[2], 1 / shape[2]))
    i, j, k = np.ix_(*indices)
    metric = lattice.reciprocal_lattice.metric_tensor
    squares = metric[0, 0] * i**2 + metric[1, 1] * j**2 + metric[2, 2] * k**2
    squares = squares + 2 * (metric[0, 1] * i * j + metric[0, 2] * i * k + metric[1, 2] * j * k)
    inside = squares < MAX_WAVE**2
    waves = np.sqrt(squares[inside])
    in_core = waves < core_limit
    transforms = {}
    for symbol in set(symbols):
        valence, core = _transform_atoms()[symbol]
        transforms[symbol] = valence(waves)
        transforms[symbol][in_core] += core(waves[in_core])
    amplitudes = np.zeros(len(waves), dtype=complex)
    for symbol, position in zip(symbols, structure.frac_coords, strict=True):
        phases = (np.exp(-2j * np.pi * m * p) for m, p in zip(indices, position, strict=True))
        x, y, z = np.ix_(*phases)
        amplitudes += transforms[symbol] * (x * y * z)[inside]
    spectrum = np.zeros(squares.shape, dtype=complex)
    spectrum[inside] = amplitudes * (np.prod(shape) / lattice.volume)
    return np.fft.irfftn(spectrum, shape, axes=(0, 1, 2))


def _check_elements(structure: Structure, where: str) -> list[str]:
    """Return the element of each site, all of which the table must contain."""
    if not structure.is_ordered:
        raise RhosightError(
            f"{where}: a site has more than one occupant, or a vacancy; give an ordered structure"
        )
    symbols = list_symbols(structure)
    missing = sorted(set(symbols) - set(load_free_atoms().atoms))
    if missing:
        raise RhosightError(
            f"{where}: no free atom of {', '.join(missing)} in the table; use a `difference` from "
            "the code itself, for example VASP's AECCAR2 − AECCAR1"
        )
    return symbols
