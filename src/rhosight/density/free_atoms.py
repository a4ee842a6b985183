"""Superposed free atoms: ``difference`` for a ``total`` that came without a reference.

The table ``data/free_atoms.safetensors`` holds spherical valence densities of 69 elements, up to
Rn and without the lanthanides beyond La, computed with GPAW's atomic code (PBE,
scalar-relativistic, doi:10.1088/0953-8984/22/25/253202) by ``benchmarks/make_free_atoms.py``. They
are what GPAW's calculations start from: smooth pseudo-densities, spherical, neutral, in the nominal
configuration, taken to zero at 8 Bohr (4.23 Å) and scaled so that each cell keeps its charge.
No file that is distributed with GPAW (GPL-3 or later, says the
copyright file of Debian's gpaw-data) went into the table; the script says how.

**How far from GPAW's own difference.** For the bundled data, taking their ``total`` alone and
comparing with their ``difference``, root mean square over the cell relative to that of the
difference itself: with ``cutoff=400``, median 0.013 %, 95 % below 0.08 %, largest 0.1 % (SrF2),
from wave vectors beyond ``MAX_WAVE``; without it, median 0.1 %, 95 % below 0.9 %, largest 2.3 %
(GeSe), from the smooth cores, of which a grid shows more than GPAW keeps. Excepted are the eight
crystals with chromium, 22 to 45 %: GPAW's spin-polarised guess moves half an electron of each
chromium atom from 3d to 4s, the table keeps 3d⁵ 4s¹.

**Limits.** Between the atoms any code's density minus this is a deformation density. Near the
nuclei it is not: the table knows GPAW's augmentation radii and smooth cores, and not those of
another code's pseudo-potentials, nor which semi-core electrons these count as valence. VASP's
``total`` adds augmentation charges inside the spheres; there the result is dominated by the
difference between two codes, much the same for every crystal with that atom, and so its integral is
not zero. Read it outside the cores (``benchmarks/other_code.py`` measures it there), and do not mix
it in one training set with differences of another origin: the provenance says which is which.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from pymatgen.core import Structure
from safetensors import safe_open
from scipy.integrate import simpson
from scipy.interpolate import CubicSpline

from ..errors import RhosightError
from .charge_density import ChargeDensity, check_grid_fits_cell

KINETIC = 3.80998212
"""eV Å²; ħ²/2m, the kinetic energy of an electron whose wave vector is 1 Å⁻¹ (CODATA 2018)."""

MAX_WAVE = 40.0
"""Å⁻¹; wave vectors beyond add some 1e-5 of the valence density (root mean square)."""

WAVE_STEP = 0.02
"""Å⁻¹; of the tabulated Fourier transforms."""

WHOLE = 2e-3
"""How far from a whole number the electrons of a file may be that holds whole electrons: CHGCAR's
digits leave 1e-5, and of the bundled pseudo-densities none is nearer than 4e-3."""

TABLE = Path(__file__).parents[1] / "data" / "free_atoms.safetensors"


@dataclass(frozen=True, eq=False)
class _FreeAtom:
    """Spherical Fourier transforms of the two densities, electrons over Å⁻¹ up to ``MAX_WAVE``,
    and their integrals by construction, electrons.
    """

    valence: CubicSpline
    core: CubicSpline
    valence_charge: float
    core_charge: float


@dataclass(frozen=True)
class _Table:
    atoms: dict[str, _FreeAtom]
    source: str


def elements() -> tuple[str, ...]:
    """Symbols of the elements that the table has, sorted."""
    return tuple(sorted(_table().atoms))


def promolecule(
    structure: Structure,
    shape: tuple[int, int, int],
    core: bool = True,
    cutoff: float | None = None,
) -> np.ndarray:
    """The superposition of free atoms on a periodic grid.

    Summed in reciprocal space, hence over all periodic images, and for the valence with more wave
    vectors than a coarse grid holds: its points have the values of the sum in real space. The
    smooth cores get only those that the grid holds, or that GPAW takes. The whole is then scaled,
    so that the integral over the cell is the sum of the atoms' charges.

    Parameters
    ----------
    structure
        The cell, ordered, with elements of :func:`elements`.
    shape
        Grid points (nx, ny, nz) along the lattice vectors.
    core
        Whether the smooth cores are part of it, as they are of GPAW's ``total``. Codes that write
        the valence alone (VASP's CHGCAR) have none.
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
    atoms = [_table().atoms[symbol] for symbol in _symbols(structure, where)]
    # radius of the sphere in the grid's reciprocal cell, whose faces are π / step away
    holds = np.pi * np.array(shape) / structure.lattice.abc
    core_limit = min(holds) if cutoff is None else min(*holds, np.sqrt(2 * cutoff / KINETIC))
    core_limit *= 1 - 1e-4  # whichever way a file's digits take what lies on the sphere
    finer = np.ceil(MAX_WAVE / holds).astype(int)
    density = _superpose(structure, atoms, tuple(finer * shape), core_limit if core else 0.0)
    density = density[tuple(slice(None, None, step) for step in finer)]
    charge = sum(atom.valence_charge + core * atom.core_charge for atom in atoms)
    return density * (charge / (density.mean() * structure.volume))


def difference_from_total(
    density: ChargeDensity, core: bool | None = None, cutoff: float | None = None
) -> ChargeDensity:
    """The density with ``difference`` = ``total`` − :func:`promolecule` added.

    Parameters
    ----------
    density
        Has ``total`` and no ``difference``.
    core
        As in :func:`promolecule`. By default where the integral over the cell is no whole number:
        codes that write the valence alone write whole electrons, smooth cores add fractions.
    cutoff
        As in :func:`promolecule`.

    Returns
    -------
    ChargeDensity
        With a provenance that says where the reference came from.

    Raises
    ------
    RhosightError
        If there is no ``total``, or a ``difference`` already, and as :func:`promolecule` does.
    """
    where = density.name or density.structure.composition.reduced_formula
    if "difference" in density.grids:
        raise RhosightError(
            f"{where}: has a `difference` already; drop it first if free atoms shall replace it"
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
        f"total minus rhosight's table of free atoms ({_table().source}; valence"
        f"{' and smooth core' if core else ''}); meaningful outside the cores"
    )
    provenance = {
        **density.provenance,
        "kinds": {**(kinds if isinstance(kinds, dict) else {}), "difference": about},
    }
    grids = {**density.grids, "difference": total - reference}
    return replace(density, grids=grids, provenance=provenance)


@cache
def _table() -> _Table:
    with safe_open(TABLE, framework="numpy") as file:
        about = file.metadata()
        symbols = json.loads(about["elements"])
        valence, core, charge = (file.get_tensor(n) for n in ("valence", "core", "charge"))
    radii = np.linspace(0, float(about["reach"]), valence.shape[1])
    waves = np.linspace(0, MAX_WAVE, 1 + round(MAX_WAVE / WAVE_STEP))
    # spherical Fourier transform ∫ 4πr² n(r) sin(qr)/(qr) dr, by Simpson's rule
    kernel = 4 * np.pi * radii**2 * np.sinc(np.outer(waves, radii) / np.pi)
    kernel *= simpson(np.eye(len(radii)), x=radii)
    valence, core = (CubicSpline(waves, kernel @ n.T.astype(float)) for n in (valence, core))
    atoms = {
        symbol: _FreeAtom(_column(valence, i), _column(core, i), *map(float, charge[i]))
        for i, symbol in enumerate(symbols)
    }
    return _Table(atoms, about["source"])


def _column(spline: CubicSpline, column: int) -> CubicSpline:
    return CubicSpline.construct_fast(spline.c[..., column], spline.x)


def _superpose(
    structure: Structure, atoms: list[_FreeAtom], shape: tuple[int, int, int], core_limit: float
) -> np.ndarray:
    """The density of all atoms on a grid, e/Å³: valence from wave vectors up to ``MAX_WAVE``, cores
    up to ``core_limit``, Å⁻¹.
    """
    lattice = structure.lattice
    # the last axis by half: a real density's other half is the complex conjugate
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
    for atom in set(atoms):
        transforms[atom] = atom.valence(waves)
        transforms[atom][in_core] += atom.core(waves[in_core])
    amplitudes = np.zeros(len(waves), dtype=complex)
    for atom, position in zip(atoms, structure.frac_coords, strict=True):
        phases = (np.exp(-2j * np.pi * m * p) for m, p in zip(indices, position, strict=True))
        x, y, z = np.ix_(*phases)
        amplitudes += transforms[atom] * (x * y * z)[inside]
    spectrum = np.zeros(squares.shape, dtype=complex)
    spectrum[inside] = amplitudes * (np.prod(shape) / lattice.volume)
    return np.fft.irfftn(spectrum, shape, axes=(0, 1, 2))


def _symbols(structure: Structure, where: str) -> list[str]:
    if not structure.is_ordered:
        raise RhosightError(
            f"{where}: a site has more than one occupant, or a vacancy; give an ordered structure"
        )
    symbols = [getattr(site.specie, "symbol", str(site.specie)) for site in structure]
    missing = sorted(set(symbols) - set(_table().atoms))
    if missing:
        raise RhosightError(
            f"{where}: no free atom of {', '.join(missing)} in the table; use a `difference` from "
            "the code itself, for example VASP's AECCAR2 − AECCAR1"
        )
    return symbols
