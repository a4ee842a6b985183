"""XCrySDen's XSF files of a crystal (http://www.xcrysden.org/doc/XSF.html).

Keywords begin sections: PRIMVEC (lattice vectors, Å), PRIMCOORD (atoms, Å), and the only
DATAGRID_3D of a block: number of points, origin, three vectors that the grid spans, and the values,
x fastest. These grids are general, not periodic: the last point of each direction is at the end of
the vector, where a periodic density repeats the first.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from ..errors import RhosightError
from .charge_density import ChargeDensity, StoredKind
from .crystals import make_structure
from .electrons import Unit, per_cubic_angstrom
from .stream import MAX_BYTES, TextStream, is_number, quote, to_number

_VALUE_BYTES = 64
# Lines above the grid outside the sections read here: remarks, two-dimensional grids
_UNKNOWN_LINES = 50_000
# A last plane that repeats the first agrees with it within rounding in nearly all points. Agreement
# in some points means a damaged file, in few points that the ends are not repeated.
_SAME, _OTHER = 0.999, 0.5


def read_xsf(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit = "e/bohr3",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read the three-dimensional grid of an XSF file, plain or compressed.

    Repeated end points are dropped. The vectors of the grid tell which points the file contains. If
    they are as long as the lattice vectors, the ends are repeated; if the values there differ, the
    program misunderstood the format and wrote each point once, which is noted. If they are shorter
    by one step, each point is written once; ASE writes the same with vectors longer by one step. If
    the grid does not start at the origin, the atoms are shifted instead.

    Parameters
    ----------
    path
        The file.
    kind
        Kind of density in the file.
    unit
        Unit of the values; the format does not specify it. Quantum ESPRESSO's pp.x, ABINIT and
        others write atomic units.
    max_bytes
        Maximum size of the text, in bytes after decompression.

    Raises
    ------
    RhosightError
        If the file is missing, truncated or not numeric, has no crystal, no atoms, no grid or
        several, or its grid spans another cell. The message names the file and says how to fix it.
    """
    path = Path(path)
    with TextStream(path, max_bytes) as stream:
        crystal = _read_crystal(stream)
        shape, origin, spans, label = _read_grid_head(stream)
        size = shape[0] * shape[1] * shape[2]
        stream.allow(size * _VALUE_BYTES)
        values = stream.read_numbers(size, f"the grid {'×'.join(map(str, shape))}")
        end = stream.read_rest_of_line() or _read_line(stream)
        if not end.startswith(b"END_DATAGRID"):
            shown = quote(end)
            raise stream.error(
                f"line {stream.line_number} should end the grid of {size} values, found {shown}; "
                "the header contradicts the data, or the file is truncated"
            )
        _check_single_grid(stream, size, label)
    where = str(path)
    structure = make_structure(crystal.matrix, crystal.species, crystal.positions - origin, where)
    grid = values.reshape(shape, order="F")
    provenance: dict[str, Any] = {"source": path.name, "format": "XSF", "unit": unit}
    if label:
        provenance["comment"] = label
    grid, notes = _drop_end_points(grid, spans, crystal.matrix, where)
    if notes:
        provenance["notes"] = notes
    grid = np.ascontiguousarray(grid) * per_cubic_angstrom(unit, structure.volume)
    return ChargeDensity(structure, {kind: grid}, name=where, provenance=provenance)


@dataclass(frozen=True)
class _Crystal:
    """Lattice vectors (rows) and positions, Å."""

    matrix: np.ndarray
    species: list[Element]
    positions: np.ndarray


def _read_line(stream: TextStream) -> bytes:
    """Return the next line that is neither empty nor a comment; empty at the end."""
    while (line := stream.read_text()) is not None:
        if not line.startswith(b"#"):
            return line
    return b""


def _read_crystal(stream: TextStream) -> _Crystal:
    """Read all sections above the block of grids."""
    matrix: np.ndarray | None = None
    atoms: tuple[list[Element], np.ndarray] | None = None
    unknown = 0
    while line := _read_line(stream):
        keyword, *rest = line.upper().split()
        if keyword in (b"MOLECULE", b"ATOMS", b"POLYMER", b"SLAB"):
            what = "molecule" if keyword == b"ATOMS" else keyword.decode().lower()
            raise stream.error(f"holds a {what}, not a crystal; write a CRYSTAL with its cell")
        if keyword == b"ANIMSTEPS" and rest != [b"1"]:
            raise stream.error("holds several structures; write one, with its grid")
        if keyword == b"DIM-GROUP" and (periodic := stream.read_row(1, "a dimension")[0]) != 3:
            raise stream.error(
                f"is periodic in {periodic:g} directions, not a crystal; write a CRYSTAL with its "
                "cell"
            )
        if keyword == b"PRIMVEC":
            matrix = np.array([stream.read_row(3, "a lattice vector")[:3] for _ in range(3)])
        elif keyword == b"PRIMCOORD":
            atoms = _read_atoms(stream)
        elif keyword == b"CONVCOORD":
            _read_atoms(stream)
        elif re.fullmatch(rb"BEGIN_BLOCK_DATAGRID_?3D", keyword):
            break
        elif (unknown := unknown + 1) > _UNKNOWN_LINES:
            raise stream.error(f"no grid within {stream.line_number} lines; is it an XSF file?")
    if matrix is None or atoms is None:
        raise stream.error("no PRIMVEC and PRIMCOORD above the grid; write the crystal with it")
    if not line:
        raise stream.error("no grid after the structure; is the file written to the end?")
    return _Crystal(matrix, *atoms)


def _read_atoms(stream: TextStream) -> tuple[list[Element], np.ndarray]:
    count = stream.read_row(1, "the number of atoms")[0]
    if not (1 <= count <= 1e9 and count == int(count)):
        raise stream.error(f"line {stream.line_number}: {count:g} atoms; a crystal has one or more")
    species, positions = [], []
    for _ in range(int(count)):
        words = (stream.read_line() or b"").split()
        species.append(_parse_element(stream, words))
        numbers = [to_number(word) for word in words[1:4] if is_number(word)]
        if len(numbers) < 3 or not np.isfinite(numbers).all():
            raise stream.error(
                f"line {stream.line_number} should hold an atom and its position, found "
                f"{b' '.join(words).decode(errors='replace')[:60]!r}"
            )
        positions.append(numbers)
    return species, np.array(positions)


def _parse_element(stream: TextStream, words: list[bytes]) -> Element:
    """Return the element of an atomic number or symbol.

    A symbol may have a suffix, as in Fe1.
    """
    word = words[0].decode(errors="replace") if words else ""
    symbol = re.match(r"[A-Za-z]{1,2}", word)
    try:
        if word.isascii() and word.isdigit():
            return Element.from_Z(int(word))
        return Element(symbol[0].capitalize() if symbol else "")
    except ValueError as error:
        raise stream.error(f"line {stream.line_number}: {word[:20]!r} is not an element") from error


def _read_grid_head(
    stream: TextStream,
) -> tuple[tuple[int, int, int], np.ndarray, np.ndarray, str]:
    """Return shape, origin, spanning vectors (rows, Å) and label of the first grid."""
    label = ""
    while line := _read_line(stream):
        if head := re.match(rb"(?:BEGIN_)?DATAGRID_?3D_?(.*)", line, re.IGNORECASE):
            label = f"{label} {head[1].decode(errors='replace')}".strip()[:160]
            break
        label = line.decode(errors="replace")
    if not line:
        raise stream.error("no DATAGRID_3D in its block of grids; is it written to the end?")
    counts = stream.read_row(3, "the numbers of points of the grid")[:3]
    if not all(1 <= n <= 1e9 and n == int(n) for n in counts):
        raise stream.error(
            f"line {stream.line_number} should declare the grid as three integers, found {counts}"
        )
    origin = np.array(stream.read_row(3, "the origin of the grid")[:3])
    spans = np.array([stream.read_row(3, "a vector that the grid spans")[:3] for _ in range(3)])
    return (int(counts[0]), int(counts[1]), int(counts[2])), origin, spans, label


def _check_single_grid(stream: TextStream, size: int, label: str) -> None:
    """Raise if another three-dimensional grid follows."""
    stream.allow(size * _VALUE_BYTES)
    others = 0
    while line := _read_line(stream):
        if head := re.match(rb"(?:BEGIN_)?DATAGRID_?3D_?(.*)", line, re.IGNORECASE):
            names = " and ".join(filter(None, [label, head[1].decode(errors="replace").strip()]))
            raise stream.error(
                f"line {stream.line_number}: a second grid follows the first ({names}); the two "
                "may be spins or different fields; write a file of the total density alone"
            )
        if (others := others + 1) > _UNKNOWN_LINES:
            return


def _drop_end_points(
    grid: np.ndarray, spans: np.ndarray, matrix: np.ndarray, where: str
) -> tuple[np.ndarray, list[str]]:
    """Return the grid with each point once, and notes."""
    repeating = []
    for axis, (span, vector) in enumerate(zip(spans, matrix, strict=True)):
        n = grid.shape[axis]
        ratio = float(span @ vector / (vector @ vector))
        steps = n * (ratio - 1)
        aside = np.linalg.norm(span - ratio * vector) > 1e-3 * np.linalg.norm(vector)
        if aside or abs(steps - round(steps)) > 0.1 or abs(round(steps)) > 1 or n < 2:
            raise RhosightError(
                f"{where}: the grid spans {ratio:.4g} of lattice vector {axis + 1}"
                f"{' and another direction' if aside else ''}; write it over the cell of PRIMVEC"
            )
        if round(steps) == 0:
            repeating.append(axis)
    if not repeating:
        return grid, []
    if not np.isfinite(grid).all():
        return grid, []  # ChargeDensity rejects it
    scale = 1e-6 * np.abs(grid).max(initial=0)
    same = np.concatenate(
        [
            np.isclose(grid.take(0, axis), grid.take(-1, axis), rtol=1e-3, atol=scale).ravel()
            for axis in repeating
        ]
    )
    share = same.mean()
    if share < _OTHER:
        return grid, [
            "end points are not repeated as XSF requires; each point is assumed to be written once"
        ]
    if share < _SAME:
        raise RhosightError(
            f"{where}: its end points repeat only {share:.0%} of the first ones: damaged or not "
            "periodic; write the file again"
        )
    keep = tuple(slice(0, -1) if axis in repeating else slice(None) for axis in range(3))
    return grid[keep], []
