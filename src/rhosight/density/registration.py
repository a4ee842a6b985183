"""Check that the points of a grid lie where the reader takes them to be.

A periodic grid of n points has its points at i/n of the cell. Files deviate: they repeat the first
plane at the end (points at i/(n−1)), omit the last plane (i/(n+1)), contain every second point of
an odd number (i/(n−1/2)), or a cube file has steps of T/(n−1). A cube file defines its cell by the
steps, so the cell is wrong, too. The symmetry tells: atoms that are equivalent have the same
density around them. The operations of the space group are applied to the points as read and under
each of these hypotheses; points near the nuclei, which a grid cannot resolve, do not count.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Lattice, Structure
from scipy.ndimage import map_coordinates, spline_filter

from ..errors import RhosightError
from .crystals import find_symmetry, number_species
from .electrons import is_possible_count
from .neighbours import measure_depth

# Change of the density under symmetry, over its spread: 0.015 at most in the bundled densities
_ASYMMETRIC = 0.05
# Most that is left of it under a hypothesis that is beyond doubt, and under a possible one: the
# interpolation between the points of a coarse grid
_SYMMETRIC, _MOST = 0.10, 0.30
_WHOLE, _NOT_WHOLE = 1e-4, 1e-2

_POINTS = 1500
_FEWEST_POINTS = 40
_OPERATIONS = 12  # applied at most; generators would do, but are not known
_DEPTH = 0.7  # covalent radii, within which points do not count
_ATOMS = 64  # in larger cells, only hypotheses that are the same in all directions
_SHORTEST = 4  # points along an axis

# Angles (degrees) of regular cells: face-centred, simple and body-centred cubic
_REGULAR = ((60.0,) * 3, (90.0,) * 3, (109.4712,) * 3)
# Least deviation of an irregular cell, least number of operations of a regular one, and largest
# change of the density under them
_DEFORMED, _MANY, _EXACT = 0.03, 12, 0.02

_STRIDES = (0.5, 1 / 3, 2 / 3, 0.25, 0.75)


@dataclass(frozen=True)
class _Hypothesis:
    """A place where the points may be.

    ``points`` are the numbers of steps in a period, per axis; ``cell`` are the numbers of steps in
    the lattice vectors of a cube file, if they differ from the numbers of points.
    """

    points: tuple[float, float, float]
    cell: tuple[float, float, float]
    what: str
    cure: str


def check_registration(
    structure: Structure, grid: np.ndarray, where: str, steps_define_cell: bool
) -> list[str]:
    """Check that a density has the symmetry of its crystal.

    Parameters
    ----------
    structure
        The crystal as read.
    grid
        The density as read, shape (nx, ny, nz).
    where
        What error messages name, such as a file.
    steps_define_cell
        Whether the reader took the cell from the steps, as in a cube file. Then a cell that is
        wrong is refused; otherwise the density is noted.

    Returns
    -------
    list of str
        Notes; empty if the density has the symmetry of the crystal, or if that has none.

    Raises
    ------
    RhosightError
        If the cell is wrong beyond doubt; the message says how to write the file.
    """
    shape = grid.shape
    if min(shape) < _SHORTEST or np.ptp(grid) == 0:
        return []
    operations = _find_operations(structure)
    asymmetry = _measure(structure, operations, grid, _triple(np.array(shape, dtype=float)))
    electrons = float(grid.mean()) * structure.volume
    is_whole = abs(electrons - round(electrons)) < _NOT_WHOLE
    is_doubtful = asymmetry > _ASYMMETRIC
    if not is_doubtful and (is_whole or not steps_define_cell):
        return _note_deformed_cell(structure, grid, len(operations))
    best, is_clear = _find_best(structure, grid, len(operations), asymmetry, steps_define_cell)
    if best is None:
        if steps_define_cell and (doubt := _note_cell(structure, grid.shape, len(operations))):
            return [doubt]
        if is_doubtful:
            return [f"{_describe(asymmetry)}: do structure and density belong together?"]
        whole = _note_whole(structure, grid, electrons)
        return whole or _note_deformed_cell(structure, grid, len(operations))
    if not (steps_define_cell and is_clear):
        return [f"{_describe(asymmetry)}, as if {best.what}: {best.cure}"]
    raise RhosightError(
        f"{where}: the grid does not fit the cell: {best.what}. As it is, the cell has "
        f"{structure.volume:.2f} Å³ and {electrons:.4g} electrons, and {_describe(asymmetry)}; "
        f"{best.cure}"
    )


def _find_best(
    structure: Structure,
    grid: np.ndarray,
    count: int,
    asymmetry: float,
    steps_define_cell: bool,
) -> tuple[_Hypothesis | None, bool]:
    """Return the most symmetric hypothesis, and whether it is beyond doubt.

    Either the density changes much less under the operations, or the atoms have twice as many.
    """
    best: tuple[tuple[int, float], _Hypothesis] | None = None
    for hypothesis in _list_hypotheses(grid.shape, steps_define_cell, len(structure) <= _ATOMS):
        crystal, its = structure, count
        if steps_define_cell:
            crystal = _rescale(structure, grid.shape, hypothesis)
        operations = _find_operations(crystal)
        its = len(operations)
        if its < count or (its < 2 * count and asymmetry < _ASYMMETRIC):
            continue
        rest = _measure(crystal, operations, grid, hypothesis.points)
        if not 0 <= rest < _MOST or (its < 2 * count and rest > 0.5 * asymmetry):
            continue
        rank = (-its, round(rest, 6))
        if best is None or rank < best[0]:
            best = rank, hypothesis
    if best is None:
        return None, False
    (its, rest), hypothesis = best
    is_clear = rest < _SYMMETRIC and (-its >= 2 * count or rest < 0.25 * asymmetry)
    return hypothesis, is_clear


def _describe(asymmetry: float) -> str:
    if asymmetry < _ASYMMETRIC:
        return "the atoms lose their symmetry"
    return (
        "the density does not have the symmetry of the crystal (equivalent points differ by "
        f"{100 * min(asymmetry, 9.99):.0f} % of its spread)"
    )


def _note_whole(structure: Structure, grid: np.ndarray, electrons: float) -> list[str]:
    """Note if the electrons are whole only in a cell whose steps are T/(n−1)."""
    factor = float(np.prod([(n - 1) / n for n in grid.shape]))
    others = factor * electrons
    if electrons < 1 or abs(others - round(others)) > _WHOLE:
        return []
    if not is_possible_count(structure, round(others)):
        return []  # a whole number by chance
    return [
        f"{electrons:.3f} electrons in the cell, but {others:.3f} if its steps are T/(n−1) instead "
        f"of T/n for n points: is its volume {structure.volume:.2f} Å³ or "
        f"{structure.volume * factor:.2f} Å³?"
    ]


def _note_deformed_cell(structure: Structure, grid: np.ndarray, count: int) -> list[str]:
    """Note a density with the symmetry of a regular cell in another cell.

    A lattice vector was changed then: the density of a deformed crystal is deformed, too.
    """
    if len(structure) > _ATOMS or len(set(grid.shape)) > 1:
        return []
    edge = structure.volume ** (1 / 3)
    for angles in _REGULAR:
        lattice = Lattice.from_parameters(edge, edge, edge, *angles)
        scaled = lattice.scale(structure.volume)
        change = np.abs(np.divide(scaled.abc, structure.lattice.abc) - 1).max()
        turn = np.abs(np.subtract(scaled.angles, structure.lattice.angles)).max()
        if change < _DEFORMED and turn < np.degrees(_DEFORMED):
            return []
        crystal = Structure(scaled, structure.species, structure.frac_coords)
        operations = _find_operations(crystal)
        if len(operations) < max(2 * count, _MANY):
            continue
        if 0 <= _measure(crystal, operations, grid, _triple(np.array(grid.shape, float))) < _EXACT:
            return [
                f"the density has the symmetry of a regular cell with angles of {angles[2]:g}°, "
                "but the lattice vectors are irregular: is one of them wrong?"
            ]
    return []


def _note_cell(structure: Structure, shape: tuple[int, ...], count: int) -> str:
    """Return a note if the atoms are more symmetric in a cell whose steps are T/(n−1)."""
    points = _triple(np.array(shape, dtype=float))
    fewer = _triple(np.array(shape, dtype=float) - 1)
    crystal = _rescale(structure, shape, _Hypothesis(points, fewer, "", ""))
    if len(_find_operations(crystal)) < 2 * count:
        return ""
    return (
        "the atoms lose their symmetry, which they have if the steps of the grid are T/(n−1) "
        f"instead of T/n for n points: is the volume {structure.volume:.2f} Å³ or "
        f"{crystal.volume:.2f} Å³?"
    )


def _list_hypotheses(
    shape: tuple[int, ...], steps_define_cell: bool, mixed: bool
) -> Iterator[_Hypothesis]:
    """Yield the places where the points may be, the simplest first."""
    n = np.array(shape, dtype=float)
    every = "write every point of the cell once, n points and steps of T/n"
    combinations = list(itertools.product((0, 1), repeat=3)) if mixed else [(1, 1, 1)]
    combinations = sorted((c for c in combinations if any(c)), key=sum, reverse=True)
    for chosen in combinations:
        moved = np.array(chosen, dtype=float)
        fewer, more = _triple(n - moved), _triple(n + moved)
        yield _Hypothesis(
            fewer, fewer, "the last points repeat the first", f"{every}, without ends"
        )
        yield _Hypothesis(more, more, "the last points of the period are missing", every)
        if steps_define_cell:
            yield _Hypothesis(_triple(n), fewer, "the steps are T/(n−1) for n points", every)
        half = _triple(n - moved / 2)
        yield _Hypothesis(half, half, _skip(2), f"{every} (CP2K: STRIDE 1)")
    for share in _STRIDES[1:]:
        rest = _triple(n - share)
        stride = 3 if share in _STRIDES[1:3] else 4
        yield _Hypothesis(rest, rest, _skip(stride), f"{every} (CP2K: STRIDE 1)")


def _skip(stride: int) -> str:
    word = {2: "second", 3: "third", 4: "fourth"}[stride]
    return f"it contains every {word} point of a number that {stride} does not divide"


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _rescale(structure: Structure, shape: tuple[int, ...], hypothesis: _Hypothesis) -> Structure:
    """Return the atoms where they are, in the cell of the hypothesis."""
    factors = np.array(hypothesis.cell) / np.array(shape)
    matrix = structure.lattice.matrix * factors[:, None]
    return Structure(matrix, structure.species, structure.cart_coords, coords_are_cartesian=True)


def _find_operations(structure: Structure) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rotations and translations of the space group, in fractional coordinates."""
    symmetry = find_symmetry(structure, number_species(structure))
    if symmetry is None:
        return []
    return list(zip(symmetry.rotations, symmetry.translations, strict=True))


def _measure(
    structure: Structure,
    operations: list[tuple[np.ndarray, np.ndarray]],
    grid: np.ndarray,
    points: tuple[float, float, float],
) -> float:
    """Return how much the operations change a density of points i/``points``.

    This is the largest root mean square, in units of the spread of the density; -1 if no operation
    can be tested.
    """
    rng = np.random.default_rng(0)
    indices = rng.integers(0, grid.shape, size=(_POINTS, 3))
    places = indices / np.array(points)
    is_core = measure_depth(structure, places) < _DEPTH
    if is_core.mean() < 0.9:
        indices, places = indices[~is_core], places[~is_core]
    values = grid[tuple(indices.T)]
    spread = float(values.std())
    sample = _make_sampler(grid, points)
    change = -1.0
    if not spread:
        return change
    for number in rng.permutation(len(operations))[:_OPERATIONS]:
        rotation, translation = operations[number]
        if np.array_equal(rotation, np.eye(3)) and not np.any(translation):
            continue
        images, is_known = sample((places @ rotation.T + translation) % 1)
        if is_known.sum() < _FEWEST_POINTS:
            continue
        difference = images[is_known] - values[is_known]
        change = max(change, float(np.sqrt(np.mean(difference**2))) / spread)
    return change


def _make_sampler(
    grid: np.ndarray, points: tuple[float, float, float]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from coordinates to values, and where it knows them."""
    period = np.array(points)
    shape = np.array(grid.shape)
    periodic = bool(np.all(period == shape))
    coefficients = spline_filter(grid, order=3, mode="grid-wrap" if periodic else "mirror")

    def sample(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = places * period
        if periodic:
            values = map_coordinates(coefficients, at.T, order=3, mode="grid-wrap", prefilter=False)
            return values, np.ones(len(at), dtype=bool)
        at = np.where(at > period - 1e-6, 0, at)
        values = map_coordinates(coefficients, at.T, order=3, mode="mirror", prefilter=False)
        return values, np.all(at <= shape - 1 + 1e-6, axis=1)

    return sample
