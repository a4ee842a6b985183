"""Gaussian cube files of a periodic cell (https://paulbourke.net/dataformats/cube/).

Two lines of comment; the number of atoms and the origin of the grid; for each direction the number
of points and the step; the atoms; the values, z fastest. Lengths are in Bohr, or in Å where the
numbers of points are negative. The format knows no periodicity: the cell is taken to be the steps
times the numbers of points, as all plane-wave codes write it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from ..errors import RhosightError
from .charge_density import ChargeDensity, StoredKind, make_structure
from .electrons import BOHR, Unit, per_cubic_angstrom
from .stream import MAX_BYTES, TextStream

# What programs write into the comment
_CODES: Mapping[str, str] = {
    "pwscf": "Quantum ESPRESSO",
    "quickstep": "CP2K",
    "castep2cube": "CASTEP",
    "gpaw": "GPAW",
    "abinit": "ABINIT",
    "siesta": "SIESTA",
    "fhi-aims": "FHI-aims",
}
_VALUE_BYTES = 64


def read_cube(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit = "e/bohr3",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read a cube file, plain or compressed (gzip, bzip2, xz).

    A grid that does not start at the origin is the same periodic grid of a crystal moved the other
    way: the atoms are moved, the values stay. castep2cube repeats the end points; they are
    dropped.

    Parameters
    ----------
    path
        The file.
    kind
        What it holds.
    unit
        Of the values. The format says e/Bohr³; not all programs do as it says.
    max_bytes
        Text to read at most.

    Raises
    ------
    RhosightError
        If the file is missing, truncated or not numeric, holds several orbitals, or no cell or
        atoms. The message names the file and the cure.
    """
    path = Path(path)
    with TextStream(path, max_bytes) as stream:
        comment = b" ".join(_comment(stream) for _ in range(2))
        atoms, origin, values_per_point = _first_row(stream)
        shape, steps, length = _axes(stream)
        species, positions = _atoms(stream, abs(atoms))
        if atoms < 0:
            _check_one_orbital(stream)
        elif values_per_point != 1:
            raise stream.error(
                f"{values_per_point} values at each point; write a file of the density alone"
            )
        size = shape[0] * shape[1] * shape[2]
        stream.allow(size * _VALUE_BYTES)
        values = stream.numbers(size, f"the grid {'×'.join(map(str, shape))}")
        stream.check_nothing_follows(size, "the grid")
        stream.check_last_number()
    grid = values.reshape(shape)
    text = comment.decode("utf-8", errors="replace").strip()
    provenance: dict[str, Any] = {"source": path.name, "format": "cube", "unit": unit}
    if text:
        provenance["comment"] = text[:160]
    code = next((code for word, code in _CODES.items() if word in text.lower()), None)
    if code:
        provenance["code"] = code
    if code == "CASTEP":
        grid = _without_end_points(grid, str(path))
    matrix = steps * np.array(grid.shape)[:, None] * length
    structure = make_structure(matrix, species, (positions - origin) * length, str(path))
    grid = grid * per_cubic_angstrom(unit, structure.volume)
    notes = _notes(grid, code)
    if notes:
        provenance["notes"] = notes
    return ChargeDensity(structure, {kind: grid}, name=str(path), provenance=provenance)


def _comment(stream: TextStream) -> bytes:
    return (stream.line() or b"").strip()


def _whole(stream: TextStream, number: float) -> int:
    if abs(number) > 1e9 or number != int(number):
        raise stream.error(f"line {stream.line_number} begins with {number:g}, not a whole number")
    return int(number)


def _first_row(stream: TextStream) -> tuple[int, np.ndarray, int]:
    """Number of atoms (negative before orbitals), origin, values at each point."""
    row = stream.row(4, "the number of atoms and the origin of the grid of a cube file")
    atoms = _whole(stream, row[0])
    if atoms == 0:
        raise stream.error("holds no atoms; write the structure with the density")
    return atoms, np.array(row[1:4]), _whole(stream, row[4]) if len(row) > 4 else 1


def _axes(stream: TextStream) -> tuple[tuple[int, int, int], np.ndarray, float]:
    """Number of points, step vectors, and what their unit of length is in Å."""
    rows = [stream.row(4, "a number of points and a step of the grid") for _ in range(3)]
    counts = [_whole(stream, row[0]) for row in rows]
    if 0 in counts or len({count > 0 for count in counts}) > 1:
        raise stream.error(
            f"line {stream.line_number}: numbers of points {counts} must all be positive (lengths "
            "in Bohr) or all negative (in Å)"
        )
    shape = (abs(counts[0]), abs(counts[1]), abs(counts[2]))
    return shape, np.array([row[1:4] for row in rows]), BOHR if counts[0] > 0 else 1.0


def _atoms(stream: TextStream, count: int) -> tuple[list[Element], np.ndarray]:
    """Elements and positions, in the file's unit of length."""
    species, positions = [], []
    for _ in range(count):
        row = stream.row(5, "an atom: number, charge, position")
        number = _whole(stream, row[0])
        if not 1 <= number <= 118:
            raise stream.error(
                f"line {stream.line_number}: no element has the atomic number {number}; a crystal "
                "has no dummy atoms"
            )
        species.append(Element.from_Z(number))
        positions.append(row[2:5])
    return species, np.array(positions)


def _check_one_orbital(stream: TextStream) -> None:
    row = stream.row(1, "the number of orbitals")
    orbitals = _whole(stream, row[0])
    if orbitals != 1 or len(row) != 2:
        raise stream.error(f"holds {orbitals} orbitals; write a file of the density alone")


def _without_end_points(grid: np.ndarray, where: str) -> np.ndarray:
    """The grid without its last planes, which repeat the first."""
    ends = [(grid.take(0, axis), grid.take(-1, axis)) for axis in range(3)]
    if min(grid.shape) < 2 or not all(np.array_equal(a, b) for a, b in ends):
        raise RhosightError(
            f"{where}: the last planes of this CASTEP file do not repeat the first; write it again"
        )
    return np.ascontiguousarray(grid[:-1, :-1, :-1])


def _notes(grid: np.ndarray, code: str | None) -> list[str]:
    ends = [(grid.take(0, axis), grid.take(-1, axis)) for axis in range(3)]
    if code == "CASTEP" or min(grid.shape) < 2 or not all(np.array_equal(a, b) for a, b in ends):
        return []
    return ["first and last planes are equal in all directions: does the file repeat end points?"]
