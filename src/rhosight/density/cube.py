"""Gaussian cube files of a periodic cell.

A file (https://paulbourke.net/dataformats/cube/) consists of two lines of comment; the number of
atoms and the origin of the grid; for each direction the number of points and the step; the atoms;
the values, z fastest. Lengths are in Bohr, or in Å where the numbers of points are negative. The
format does not define a period: the cell is the steps times the numbers of points, as all
plane-wave codes write it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from ..errors import RhosightError
from .charge_density import ChargeDensity, StoredKind
from .crystals import make_structure
from .electrons import BOHR, Unit, per_cubic_angstrom
from .stream import MAX_BYTES, TextStream, is_number, quote

# Words that programs write into the comment
_CODES: Mapping[str, str] = {
    "pwscf": "Quantum ESPRESSO",
    "quickstep": "CP2K",
    "castep2cube": "CASTEP",
    "gpaw": "GPAW",
    "abinit": "ABINIT",
    "siesta": "SIESTA",
    "fhi-aims": "FHI-aims",
    "abacus": "ABACUS",
}
_VALUE_BYTES = 64


def read_cube(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit = "e/bohr3",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read a cube file, plain or compressed (gzip, bzip2, xz).

    If the grid does not start at the origin, the atoms are shifted instead: the periodic grid and
    its values stay the same. castep2cube repeats the end points; they are dropped.

    Parameters
    ----------
    path
        The file.
    kind
        Kind of density in the file.
    unit
        Unit of the values. The format specifies e/Bohr³; not all programs comply.
    max_bytes
        Maximum size of the text, in bytes after decompression.

    Raises
    ------
    RhosightError
        If the file is missing, truncated or not numeric, contains orbitals or several data sets, or
        lacks a cell or atoms. The message names the file and says how to fix it.
    """
    path = Path(path)
    where = str(path)
    with TextStream(path, max_bytes) as stream:
        content = _read_content(stream)
    provenance: dict[str, Any] = {"source": path.name, "format": "cube", "unit": unit}
    if content.length != BOHR:
        provenance["lengths"] = "Å"
    if content.comment:
        provenance["comment"] = content.comment[:160]
    comment = content.comment.lower()
    code = next((code for word, code in _CODES.items() if word in comment), None)
    if code:
        provenance["code"] = code
    grid = content.grid
    if code == "CASTEP":
        grid = _drop_end_points(grid, where)
    matrix = content.steps * np.array(grid.shape)[:, None] * content.length
    structure = make_structure(matrix, content.species, content.positions, where)
    grid = grid * per_cubic_angstrom(unit, structure.volume)
    if code != "CASTEP" and (notes := _note_end_points(grid)):
        provenance["notes"] = notes
    return ChargeDensity(structure, {kind: grid}, name=where, provenance=provenance)


@dataclass(frozen=True, eq=False)
class _Content:
    """The content of a cube file, values as written.

    ``steps`` (rows) are in the file's unit of length, which is ``length`` Å. ``positions`` are in Å
    relative to the origin of the grid.
    """

    comment: str
    steps: np.ndarray
    length: float
    species: list[Element]
    positions: np.ndarray
    grid: np.ndarray


def _read_content(stream: TextStream) -> _Content:
    comment = b" ".join((stream.read_line() or b"").strip() for _ in range(2))
    atoms, origin, values_per_point = _read_first_row(stream)
    shape, steps, length = _read_axes(stream)
    species, positions = _read_atoms(stream, abs(atoms))
    if atoms < 0:
        row = stream.read_row(1, "the number of orbitals")
        raise stream.error(
            f"contains orbitals ({row[0]:g}; its number of atoms is negative), not a density; "
            "write a file of the total density alone"
        )
    if values_per_point != 1:
        raise stream.error(
            f"{values_per_point} values at each point; write a file of the density alone"
        )
    size = shape[0] * shape[1] * shape[2]
    stream.allow(size * _VALUE_BYTES)
    values = stream.read_numbers(size, f"the grid {'×'.join(map(str, shape))}")
    _check_single_grid(stream, size)
    stream.check_last_number()
    return _Content(
        comment=comment.decode("utf-8", errors="replace").strip(),
        steps=steps,
        length=length,
        species=species,
        positions=(positions - origin) * length,
        grid=values.reshape(shape),
    )


def _read_integer(stream: TextStream, number: float) -> int:
    if abs(number) > 1e9 or number != int(number):
        raise stream.error(f"line {stream.line_number} begins with {number:g}, not a whole number")
    return int(number)


def _read_first_row(stream: TextStream) -> tuple[int, np.ndarray, int]:
    """Return the number of atoms, the origin, and the values at each point.

    The number is negative before orbitals, and before data sets with ids.
    """
    row = stream.read_row(4, "the number of atoms and the origin of the grid of a cube file")
    atoms = _read_integer(stream, row[0])
    if atoms == 0:
        raise stream.error("contains no atoms; write the structure with the density")
    return atoms, np.array(row[1:4]), _read_integer(stream, row[4]) if len(row) > 4 else 1


def _read_axes(stream: TextStream) -> tuple[tuple[int, int, int], np.ndarray, float]:
    """Return the numbers of points, the step vectors, and the unit of length in Å."""
    rows = [stream.read_row(4, "a number of points and a step of the grid") for _ in range(3)]
    counts = [_read_integer(stream, row[0]) for row in rows]
    if 0 in counts or len({count > 0 for count in counts}) > 1:
        raise stream.error(
            f"line {stream.line_number}: numbers of points {counts} must all be positive (lengths "
            "in Bohr) or all negative (in Å)"
        )
    shape = (abs(counts[0]), abs(counts[1]), abs(counts[2]))
    return shape, np.array([row[1:4] for row in rows]), BOHR if counts[0] > 0 else 1.0


def _read_atoms(stream: TextStream, count: int) -> tuple[list[Element], np.ndarray]:
    """Return elements and positions, in the file's unit of length."""
    species, positions = [], []
    for _ in range(count):
        row = stream.read_row(5, "an atom: number, charge, position")
        number = _read_integer(stream, row[0])
        if not 1 <= number <= 118:
            raise stream.error(
                f"line {stream.line_number}: no element has the atomic number {number}; a crystal "
                "has no dummy atoms"
            )
        species.append(Element.from_Z(number))
        positions.append(row[2:5])
    return species, np.array(positions)


def _check_single_grid(stream: TextStream, size: int) -> None:
    """Raise if anything follows the values of the grid, such as another cube file."""
    further = stream.read_rest_of_line() or stream.read_text()
    if further is None:
        return
    line = stream.line_number
    if all(is_number(word) for word in further.split()):
        raise stream.error(
            f"line {line}: the grid declares {size} values, {quote(further)} follows them; the "
            "header contradicts the data, or a second data set follows; write a file of the "
            "density alone"
        )
    raise stream.error(
        f"line {line}: {quote(further)} follows the {size} values of the grid: a second data set, "
        "or the next step of a simulation; write a file of one density"
    )


def _has_end_points(grid: np.ndarray) -> bool:
    """Return whether the last plane repeats the first in all directions."""
    ends = [(grid.take(0, axis), grid.take(-1, axis)) for axis in range(3)]
    return min(grid.shape) >= 2 and all(np.array_equal(a, b) for a, b in ends)


def _drop_end_points(grid: np.ndarray, where: str) -> np.ndarray:
    """Return the grid without its last planes, which repeat the first."""
    if not _has_end_points(grid):
        raise RhosightError(
            f"{where}: the last planes of this CASTEP file do not repeat the first; write it again"
        )
    return np.ascontiguousarray(grid[:-1, :-1, :-1])


def _note_end_points(grid: np.ndarray) -> list[str]:
    if not _has_end_points(grid):
        return []
    return ["first and last planes are equal in all directions: does the file repeat end points?"]
