"""Check that a file holds the charge density of its crystal, in the assumed unit.

The evidence, in this order: distances of neighbours (lengths), sign and size of the integral (the
quantity), electrons and the density between the atoms (the unit, the positions of the atoms), the
steps of the grid, symmetry (the cell and the positions of the points). Where it is clear, the file
is refused and the cure is named; where it is not, a note says what is unusual.
"""

from __future__ import annotations

import re

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError
from .charge_density import ChargeDensity
from .electrons import Unit, check_electron_count, estimate_electrons, is_plausible
from .neighbours import (
    Samples,
    check_lengths,
    compare_with_free_atoms,
    find_closest_pair,
    measure_depth,
    measure_polarisation,
    sample_free_atoms,
)
from .positions import check_positions
from .registration import check_registration

# Share of the integral of |ρ| that may be negative: densities of PAW are so near the nuclei
_NEGATIVE = 0.1
# Integral over half the valence electrons, below which nothing but another quantity explains it
_LEAST = 0.12
# Density between the atoms over that of free atoms: 1.0 to 1.5 in all bundled densities
_ONE_SPIN, _TWICE = 0.75, 1.8
# Spin density over the total between the atoms: 0.07 at most in the bundled densities, and about 1
# if the two are the densities of spin up and spin down
_POLARISED = 0.5
# Height of a value over all its neighbours, in mean densities: a tenth at most in the bundled data
_SPIKE = 1.0
# Å; with points further apart, predictions may move by a fifth of their interval or more
# (benchmarks/coarse_grids.py)
_COARSE = 0.3
# Largest ratio of neighbours' distance to covalent radii at which a comment about Å is believed
_NEAR = 0.8

# Codes whose densities integrate to the number of valence electrons, and the largest deviation
_WHOLE_CODES = {"Quantum ESPRESSO", "CP2K", "ABACUS", "ABINIT", "SIESTA"}
_NOT_WHOLE = 0.02

_LENGTHS = re.compile(
    r"\b(coordinates?|lengths?|distances?|positions?|cell|geometry|atoms?|units?)\b[^.;]{0,40}"
    r"\b(angstr\w*|ångstr\w*)\b(?! *\^?\*{0,2}-?3)",
    re.IGNORECASE,
)


def check_density(
    density: ChargeDensity, unit: Unit, expected: float | None = None, sure: bool = False
) -> list[str]:
    """Check all that a density file tells about itself.

    Parameters
    ----------
    density
        As read in ``unit``.
    unit
        The assumed unit.
    expected
        Electrons in the cell, if known.
    sure
        Whether the unit is certain.

    Returns
    -------
    list of str
        Notes for ``provenance["notes"]``; empty if all is as expected.

    Raises
    ------
    RhosightError
        If the lengths, the unit or the cell are wrong beyond doubt, or if the quantity is not a
        charge density. The message names the file and the cure.
    """
    notes = _check_lengths(density)
    if "total" not in density.grids:
        return notes + check_electron_count(density, unit, expected, sure)
    grid = np.asarray(density.grid("total"), dtype=float)
    samples = sample_free_atoms(density.structure, grid)
    between = compare_with_free_atoms(samples)
    if expected is None:
        _check_quantity(density, grid, between)
    if notes and not is_plausible(between):
        raise RhosightError(
            f"{density.name}: {notes[0]} Between the atoms, the density is not that of a crystal "
            "with this cell, either; correct the unit of the lengths"
        )
    notes += check_electron_count(density, unit, expected, sure, between)
    if between is not None and between[1] < _ONE_SPIN and expected is None and not notes:
        notes.append(
            f"between the atoms, the density is at most {between[1]:.2f} times that of free atoms: "
            "is it the density of one spin, or of some bands?"
        )
    notes += check_positions(samples) + note_spikes(density.structure, grid)
    notes += _note_two_spins(density, samples)
    notes += note_coarse_grid(density) + _check_grid(density, grid)
    if between is not None and between[1] > _TWICE and expected is None and not notes:
        notes.append(
            f"between the atoms, the density is up to {between[1]:.2f} times that of free atoms: "
            "is it the sum of two densities, or in another unit?"
        )
    return notes


def _note_two_spins(density: ChargeDensity, total: Samples | None) -> list[str]:
    """Note a spin density that is rather the density of one spin."""
    if total is None or "spin" not in density.grids:
        return []
    grid = np.asarray(density.grid("spin"), dtype=float)
    spin = sample_free_atoms(density.structure, grid)
    share = measure_polarisation(total, spin) if spin else 0.0
    if share < _POLARISED:
        return []
    return [
        f"between the atoms, the spin density is {100 * share:.0f} % of the total: are they the "
        "densities of spin up and spin down, not total and spin?"
    ]


def note_coarse_grid(density: ChargeDensity) -> list[str]:
    """Return a note if the grid is so coarse that predictions depend on it."""
    spacing = float((np.array(density.structure.lattice.abc) / density.shape).max())
    if spacing <= _COARSE:
        return []
    grid = "×".join(map(str, density.shape))
    return [
        f"the points of the grid {grid} are up to {spacing:.2f} Å apart: predictions from it are "
        f"uncertain; write the density on a grid with steps below {_COARSE} Å"
    ]


def note_spikes(structure: Structure, grid: np.ndarray) -> list[str]:
    """Note a value between the atoms that sticks out of its neighbours in the grid.

    The density has its peaks at the nuclei, and is smooth elsewhere.
    """
    if min(grid.shape) < 3:
        return []
    sides = [np.roll(grid, step, axis) for axis in range(3) for step in (1, -1)]
    spread = float(np.abs(grid).mean())
    above = grid - np.maximum.reduce(sides)
    below = np.minimum.reduce(sides) - grid
    candidates = np.flatnonzero(np.maximum(above, below) > _SPIKE * spread)
    if not len(candidates):
        return []
    indices = np.stack(np.unravel_index(candidates, grid.shape), axis=1)
    step = float((np.array(structure.lattice.abc) / grid.shape).max())
    depth = measure_depth(structure, indices / grid.shape, least=2 * step)
    spikes = indices[depth > 1]
    if not len(spikes):
        return []
    i, j, k = map(int, spikes[0])
    return [
        f"the density at point ({i}, {j}, {k}) of the grid, {grid[i, j, k]:.3g} e/Å³, sticks out "
        "of its neighbours, far from all nuclei: is the file damaged?"
    ]


def check_structure(density: ChargeDensity) -> None:
    """Check the lengths and the cell of a density file, for its structure alone.

    Raises
    ------
    RhosightError
        If the lengths or the cell are wrong beyond doubt.
    """
    _check_lengths(density)
    _check_grid(density, np.asarray(next(iter(density.grids.values())), dtype=float))


def _check_grid(density: ChargeDensity, grid: np.ndarray) -> list[str]:
    is_cube = density.provenance.get("format") == "cube"
    notes = check_registration(density.structure, grid, density.name, is_cube)
    electrons = float(grid.mean()) * density.structure.volume
    code = density.provenance.get("code")
    if not notes and code in _WHOLE_CODES and abs(electrons - round(electrons)) > _NOT_WHOLE:
        notes = [
            f"{electrons:.3f} electrons in the cell, but the density of {code} has a whole number "
            "of them: does the file contain every point of the cell once (no stride, no repeated "
            "or missing ends)?"
        ]
    return notes


def _check_lengths(density: ChargeDensity) -> list[str]:
    is_cube = density.provenance.get("format") == "cube"
    in_bohr = is_cube and not density.provenance.get("lengths")
    notes = check_lengths(density.structure, density.name, "Bohr" if in_bohr else "")
    if not in_bohr or not _LENGTHS.search(str(density.provenance.get("comment", ""))):
        return notes
    closest = find_closest_pair(density.structure)
    if closest and closest[0] < _NEAR:
        raise RhosightError(
            f"{density.name}: its comment says that the lengths are in Å, and read in Bohr the "
            f"neighbours ({closest[2]}) are {closest[1]:.2f} Å apart; write them in Bohr, or "
            "mark lengths in Å by negative numbers of points"
        )
    return [*notes, "its comment says that the lengths are in Å; they were read in Bohr"]


def _check_quantity(
    density: ChargeDensity, grid: np.ndarray, between: tuple[float, float] | None
) -> None:
    """Raise if no charge density has such values."""
    least, _ = estimate_electrons(density.structure)
    electrons = density.integral("total")
    absolute = float(np.abs(grid).mean())
    negative = float(-np.minimum(grid, 0).mean()) / absolute if absolute else 0.0
    if electrons < _LEAST * least and not _is_positive_in_other_units(electrons, grid, between):
        what = f"its integral over the cell is {electrons:.3g} electrons"
        what += f", where {2 * least:.3g} are valence electrons"
    elif negative > _NEGATIVE:
        what = f"{negative:.0%} of it are negative"
    else:
        return
    raise RhosightError(
        f"{density.name}: not a charge density: {what}; a potential, a magnetisation (spin "
        "density), a difference or an orbital looks like this; give the file with the total charge "
        "density, or name the kind with kind='difference' or 'spin' (--kind)"
    )


def _is_positive_in_other_units(
    electrons: float, grid: np.ndarray, between: tuple[float, float] | None
) -> bool:
    """Return whether another unit may explain a small integral of a positive quantity."""
    if electrons <= 0 or grid.min() < 0:
        return False
    if between is None:
        return True
    # in a right unit the median is 0.6 to 1.4; then the 95 % quantile is near it, too
    return between[1] < 2.5 * between[0]
