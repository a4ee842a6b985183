"""VASP's CHGCAR and the files in its format: CHG, AECCAR0, AECCAR1, AECCAR2.

A structure as in a POSCAR, an empty line, then blocks. A block is the grid (three integers) and its
values times the cell volume, x fastest. In a CHGCAR, one entry of augmentation occupancies per atom
follows each block, and a line of magnetic moments, a number per atom, separates blocks. One
block is a density, two are a density and its magnetisation, four a density and the vector of its
magnetisation (https://vasp.at/wiki/CHGCAR).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError
from .charge_density import ChargeDensity, StoredKind, add_notes
from .crystals import as_structure, check_crystal
from .electrons import Unit, per_cubic_angstrom
from .plausibility import check_density
from .poscar import check_comment, parse_poscar
from .stream import MAX_BYTES, TextStream, is_number, number_format, quote

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import VolumetricData

ALL_ELECTRON: dict[str, str] = {
    "AECCAR0": "all-electron core density",
    "AECCAR1": "all-electron valence density of superposed atoms",
    "AECCAR2": "all-electron valence density, self-consistent",
}
"""Contents of the files that VASP writes with ``LAECHG`` (https://vasp.at/wiki/LAECHG)."""

_AECCAR = re.compile(r"AECCAR[012]", re.IGNORECASE)
_AUGMENTATION = re.compile(rb"augmentation occupancies(?: \(imaginary part\))?\s*(\d+)\s+(\d+)\s*")

_NO_DENSITY = "no density after the structure; is it a CHGCAR, and written to the end?"
# Lines of a POSCAR without its positions: VASP breaks a list of more than 20 groups into lines
_HEAD_LINES = 50
# Surplus numbers after a block are counted up to this many, for the error message
_COUNTED = 10_000

# Generous bounds on the rest of the file: bytes per value, and per atom of a block
_VALUE_BYTES = 64
_ATOM_BYTES = 2**16


def read_chgcar(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit = "e",
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read a VASP CHGCAR or a file in its format, plain or compressed.

    Compressed files are gzip, bzip2 or xz. The file's values are divided by the cell volume. The
    first block becomes ``kind``; give ``"difference"`` for a file from a tool that subtracts
    densities. The second block of a spin-polarised calculation, which VASP and pymatgen call
    ``diff``, becomes ``spin``: it is the magnetisation density, never ``difference``. Only the
    first of the four blocks of a non-collinear file is kept, and ``provenance["notes"]`` says so.

    A truncated file raises an error wherever the cut leaves a trace: within a number, a block or
    the augmentation occupancies, after a line of magnetic moments, after the values of a second
    block whose first has occupancies, after the third of four blocks. A cut leaves no trace only
    where a complete file could end: after the first block's last value (as in a CHG, which has no
    occupancies) or its last augmentation occupancy, and after the second block of four. Such a file
    equals that of a calculation without spin (or with collinear spin).

    Parameters
    ----------
    path
        The file.
    kind
        Kind of density in its first block: ``total`` or ``difference``.
    unit
        Unit of its values, if not VASP's electrons per cell.
    max_bytes
        Maximum size of the text, in bytes after decompression. The grid in the header lowers it, so
        that a small file that decompresses without end stops early.

    Raises
    ------
    RhosightError
        If the file is missing, truncated, not numeric, contains NaN, or declares a grid that
        contradicts its data or its cell. The message names the file and says how to fix it.
    """
    path = Path(path)
    _check_kind(kind, str(path))
    with TextStream(path, max_bytes) as stream:
        structure, notes = _read_structure(stream)
        shape = _read_shape(stream, structure)
        blocks = _read_blocks(stream, shape, atoms=len(structure))
    factor = per_cubic_angstrom(unit, structure.volume)
    provenance: dict[str, Any] = {"source": path.name, "format": "CHGCAR"}
    if unit != "e":
        provenance["unit"] = unit
    if blocks.augmented:
        provenance["code"] = "VASP"  # no other code writes augmentation occupancies
    if aeccar := _AECCAR.search(path.name):
        provenance |= {"code": "VASP", "density": ALL_ELECTRON[aeccar[0].upper()]}
    grids = [_make_grid(values, shape, factor) for values in blocks.values]
    density = _make_density(structure, grids, blocks.count, kind, provenance, str(path))
    return add_notes(density, notes)


def _check_kind(kind: str, where: str) -> None:
    if kind not in ("total", "difference"):
        raise RhosightError(
            f"{where}: the first block can be `total` or `difference`, not `{kind}`"
        )


def _make_density(
    structure: Structure,
    grids: list[np.ndarray],
    count: int,
    kind: StoredKind,
    provenance: dict[str, Any],
    name: str,
) -> ChargeDensity:
    """Return the density of the first blocks of a file.

    ``count`` is the number of all blocks.
    """
    kinds: dict[str, np.ndarray] = {kind: grids[0]}
    if count == 2 and kind == "difference":
        provenance["notes"] = ["the second block, a difference of magnetisations, is left out"]
    elif count == 2:
        kinds["spin"] = grids[1]
    elif count == 4:
        provenance["notes"] = ["non-collinear: the three blocks of the magnetisation are left out"]
    return ChargeDensity(structure, kinds, name=name, provenance=provenance)


def _make_grid(values: np.ndarray, shape: tuple[int, int, int], factor: float) -> np.ndarray:
    grid = np.ascontiguousarray(values.reshape(shape, order="F"))
    grid *= factor
    return grid


def _read_structure(stream: TextStream) -> tuple[Structure, list[str]]:
    """Read the POSCAR at the top, up to its empty line, and notes on it."""
    lines = read_head(stream, needs_density=True)
    text = "\n".join(line.decode("utf-8", errors="replace") for line in lines)
    structure = parse_poscar(text, str(stream.path), "CHGCAR")
    return structure, check_comment(text, structure)


def read_head(stream: TextStream, needs_density: bool = False) -> list[bytes]:
    """Return the lines of a POSCAR, or of the one in a CHGCAR, up to its empty line.

    Raises
    ------
    RhosightError
        If they are not such lines, or (``needs_density``) nothing follows them.
    """
    lines: list[bytes] = []
    most = _HEAD_LINES
    while (line := stream.read_line()) is not None:
        if len(lines) > 5 and not line.strip():
            break
        lines.append(line)
        if len(lines) >= most:
            most = sum(_read_atom_counts(lines)) + _HEAD_LINES
            if len(lines) >= most:
                raise stream.error(
                    f"not a CHGCAR: no empty line after the structure within {most} lines"
                )
    if line is None and needs_density:
        raise stream.error(_NO_DENSITY)
    counts = _read_atom_counts(lines)
    # before pymatgen allocates a list of all declared atoms
    if sum(counts) > len(lines):
        raise stream.error(
            f"not a readable structure: it declares {sum(counts)} atoms, but its structure has "
            f"{len(lines)} lines; write it again"
        )
    if counts and (sum(counts) == 0 or min(counts) < 0):
        raise stream.error("contains no atoms, or a negative number; correct line 7")
    return lines


def _read_atom_counts(lines: list[bytes]) -> list[int]:
    """Return the numbers of atoms, the integers below the cell of a POSCAR."""
    counts: list[int] = []
    for line in lines[5:]:
        tokens = line.split()
        if not tokens or not all(re.fullmatch(rb"[+-]?\d{1,18}", token) for token in tokens):
            if counts:
                break
            continue
        counts += [int(token) for token in tokens]
    return counts


def _read_shape(stream: TextStream, structure: Structure) -> tuple[int, int, int]:
    line = stream.read_line()
    if line is None:
        raise stream.error(_NO_DENSITY)
    shape = _parse_integers(line)
    if shape is None or min(shape) < 1:
        shown = quote(line.strip())
        raise stream.error(
            f"line {stream.line_number} should declare the grid as three integers, found {shown}"
        )
    size = shape[0] * shape[1] * shape[2]
    stream.allow(4 * (size * _VALUE_BYTES + len(structure) * _ATOM_BYTES))
    return shape


def _parse_integers(line: bytes) -> tuple[int, int, int] | None:
    """Return three integers, if the line consists of them."""
    tokens = line.split()
    if len(tokens) != 3 or not all(re.fullmatch(rb"[+-]?\d{1,9}", token) for token in tokens):
        return None
    return int(tokens[0]), int(tokens[1]), int(tokens[2])


@dataclass
class _Blocks:
    """The values of the first two blocks of a file, and the number of blocks.

    Values are flat, x fastest.
    """

    values: list[np.ndarray]
    count: int
    augmented: bool


def _read_blocks(stream: TextStream, shape: tuple[int, int, int], atoms: int) -> _Blocks:
    """Read all blocks to the end of the file; the first grid line has been read."""
    size = shape[0] * shape[1] * shape[2]
    grid = "×".join(map(str, shape))
    head = re.compile(rb"(?:^|\n)[ \t]*%d[ \t]+%d[ \t]+%d[ \t]*\r?(?:\n|$)" % shape)
    blocks = _Blocks([], 0, False)
    more = True
    while more:
        values = stream.read_numbers(size, f"the grid {grid}", head)
        blocks.count += 1
        if blocks.count <= 2:
            blocks.values.append(values)
        augmented, more = _read_between(stream, shape, atoms)
        if blocks.count == 1:
            blocks.augmented = augmented
        elif augmented != blocks.augmented:
            raise stream.error(
                f"block {blocks.count} {'has' if augmented else 'lacks'} augmentation occupancies, "
                "unlike the first: truncated, or joined from parts; copy or write the file again"
            )
    if blocks.count not in (1, 2, 4):
        raise stream.error(
            f"{blocks.count} blocks: a density has one, two with spin, four if non-collinear; copy "
            "or write the file again"
        )
    if stream.open_end and blocks.augmented:
        raise stream.error("truncated within its last line; copy or write the file again")
    stream.check_last_number()
    return blocks


def _read_between(stream: TextStream, shape: tuple[int, int, int], atoms: int) -> tuple[bool, bool]:
    """Read what follows a block's values, including the next block's grid line.

    Returns
    -------
    tuple of bool
        Whether there were augmentation occupancies, and whether another block begins.
    """
    size = shape[0] * shape[1] * shape[2]
    grid = "×".join(map(str, shape))
    value = stream.last_number
    entries = 0
    surplus = stream.read_rest_of_line().split()
    moments: list[bytes] = []
    counted = max(_COUNTED, 3 * atoms + 1)
    while (line := stream.read_text()) is not None and len(moments) < counted:
        if entry := _AUGMENTATION.fullmatch(line):
            surplus += moments  # moments come after the occupancies
            moments = []
            entries = _read_augmentation(stream, int(entry[1]), int(entry[2]), atoms)
            continue
        if next_shape := _parse_integers(line):
            if next_shape != shape:
                raise stream.error(
                    f"line {stream.line_number}: a block of grid {'×'.join(map(str, next_shape))} "
                    f"after one of {grid}; the header contradicts the data"
                )
            break
        words = line.split()
        wrong = next((word for word in words if not is_number(word)), None)
        if wrong is not None:
            _check_single_structure(stream, words, len(moments))
            where = f"line {stream.line_number}: {quote(wrong)}"
            raise stream.error(f"{where} is not a number; write the file again")
        moments += words
    if entries not in (0, atoms):
        raise stream.error(
            f"truncated: augmentation occupancies of {entries} of {atoms} atoms; copy or write the "
            "file again"
        )
    if moments and (
        len(moments) > 3 * atoms  # each atom has a moment or a vector
        or any(b"." not in word for word in moments)
        # a number written like the block's values is a surplus value
        or (not entries and number_format(moments[0]) == number_format(value))
    ):
        surplus += moments
    if surplus:
        more = " or more" if len(moments) >= counted else ""
        raise stream.error(
            f"the grid {grid} declares {size} values, the block holds {size + len(surplus)}{more}; "
            "the header contradicts the data"
        )
    if moments and line is None:
        raise stream.error(
            f"truncated: ends with {len(moments)} numbers after a block of {size} values (magnetic "
            "moments?), where the next block should begin; copy or write the file again"
        )
    return entries > 0, line is not None


def _check_single_structure(stream: TextStream, words: list[bytes], before: int) -> None:
    """Raise if the line read last begins another structure.

    Or they precede it, ``before`` numbers, if the structure has no comment: then its ``words`` are
    symbols of elements.
    """
    number = stream.line_number
    rows = [(stream.read_text() or b"").split()[:3] for _ in range(4)]
    scale, *cell = [[word for word in row if is_number(word)] for row in rows]
    is_head = bool(scale) and all(len(row) == 3 for row in cell)
    if is_head or (before >= 10 and all(re.fullmatch(rb"[A-Z][a-z]?", word) for word in words)):
        raise stream.error(
            f"contains several structures; the second begins in line {number} (VASP appends each "
            "step of a relaxation or of molecular dynamics to a CHG); give the CHGCAR of the last "
            "step, or the last structure alone"
        )


def _read_augmentation(stream: TextStream, atom: int, length: int, atoms: int) -> int:
    """Skip the occupancies of one atom and return its number."""
    if atom > atoms or length * 8 > _ATOM_BYTES:
        raise stream.error(
            f"line {stream.line_number}: augmentation occupancies of atom {atom}, {length} values, "
            f"in a cell of {atoms} atoms; write the file again"
        )
    stream.read_numbers(length, f"the augmentation of atom {atom}")
    if further := stream.read_rest_of_line():
        raise stream.error(
            f"line {stream.line_number}: {further[:40].decode(errors='replace')!r} follows the "
            f"{length} augmentation occupancies of atom {atom}; the header contradicts the data"
        )
    return atom


def from_pymatgen(
    density: VolumetricData, kind: StoredKind = "total", name: str = ""
) -> ChargeDensity:
    """Return the charge density of a pymatgen ``Chgcar``.

    Equal to :func:`rhosight.read_density` of the file that the object was read from, except for
    the name and source, which the object does not know.

    Parameters
    ----------
    density
        A pymatgen ``Chgcar``: values are electrons per cell, as in the file.
    kind
        Kind of its ``total`` block: ``total`` or ``difference``. The ``diff`` block of a
        spin-polarised calculation becomes ``spin``; of a non-collinear one it is left out.
    name
        Name of the material in messages and tables; the reduced formula if empty.

    Returns
    -------
    ChargeDensity
        Grids in e/Å³. ``provenance["notes"]`` says what was left out, and what is unusual about the
        number of electrons.

    Raises
    ------
    RhosightError
        If the object is not a ``Chgcar``, contains NaN, has a grid that contradicts its cell, or
        contains a number of electrons that suggests another unit.
    """
    from pymatgen.io.vasp.outputs import Chgcar

    if not isinstance(density, Chgcar):
        raise RhosightError(
            f"an object of type {type(density).__name__} is not a pymatgen Chgcar; give a Chgcar, "
            "or read the file with rhosight.read_density"
        )
    structure = as_structure(density)
    name = name or structure.composition.reduced_formula
    _check_kind(kind, name)
    check_crystal(structure, name)
    factor = per_cubic_angstrom("e", structure.volume)
    # pymatgen adds the magnitude of a non-collinear magnetisation as `diff`
    blocks = [density.data[block] for block in ("total", "diff") if block in density.data]
    grids = [np.asarray(block, dtype=float) * factor for block in blocks]
    provenance: dict[str, Any] = {"source": "pymatgen", "format": "CHGCAR"}
    augmented = any((density.data_aug or {}).values())
    if augmented:
        provenance["code"] = "VASP"  # no other code writes augmentation occupancies
    count = 4 if "diff_x" in density.data else len(blocks)
    result = _make_density(structure, grids, count, kind, provenance, name)
    return add_notes(result, check_density(result, "e", sure=augmented))
