"""The structure of a POSCAR, which is also the head of a CHGCAR.

VASP's rules (https://vasp.at/wiki/POSCAR), with one or three scale factors. pymatgen's parser takes
a second to import, has no three factors, does not scale Cartesian positions by a volume, and leaves
out positions and symbols that are too many; it has no say here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.core import Composition, Element, Structure

from ..errors import RhosightError, first_line
from .crystals import check_crystal
from .stream import is_number, to_number

_CARTESIAN = ("c", "k")  # VASP looks at the first letter only
# A comment such as `Mg1 O1` or `MgO`; words in capitals, such as FCC, are no formulas
_FORMULA = re.compile(r"(?=.*[a-z0-9])(?:[A-Z][a-z]?\d*\s*)+")
_GLUED = re.compile(r"(?<=[\d.])-(?!\d{3}(\s|$))")  # 0.5-0.5, but not Fortran's 0.12-101


@dataclass(frozen=True)
class _Head:
    """Hold the lines above the positions.

    Attributes
    ----------
    lattice
        Vectors as rows, Å.
    scale
        Three factors of Cartesian positions.
    symbols
        Elements; none in files of VASP 4.
    counts
        Number of atoms of each.
    is_selective
        Whether positions have flags of selective dynamics.
    is_cartesian
        Whether positions are in Å, before scaling.
    """

    lattice: np.ndarray
    scale: np.ndarray
    symbols: list[str]
    counts: list[int]
    is_selective: bool
    is_cartesian: bool


def parse_poscar(text: str, where: str, format_: str = "POSCAR") -> Structure:
    """Return the crystal of a POSCAR.

    Parameters
    ----------
    text
        Its content, without velocities.
    where
        What error messages name, such as a file.
    format_
        Format of that file, for messages.

    Raises
    ------
    RhosightError
        If it cannot be read, does not name its elements, or is not a complete crystal.
    """
    lines = iter(text.split("\n"))
    next(lines, "")  # a comment
    try:
        with np.errstate(all="ignore"):
            head = _read_head(lines, where)
            structure = _read_positions(lines, head, where)
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise RhosightError(
            f"{where}: not a readable {format_} ({first_line(error)}); write it again, or convert "
            f"it to {format_} format"
        ) from error
    check_crystal(structure, where)
    return structure


def _read_head(lines: Iterator[str], where: str) -> _Head:
    """Read the lines from the comment to the kind of the positions."""
    factors = _read_numbers(_split(next(lines, "")))
    lattice = np.array([_read_vector(_split(next(lines, ""))) for _ in range(3)])
    if len(factors) == 3:
        if not (np.isfinite(factors).all() and min(factors) > 0):
            raise ValueError("three scale factors must all be positive")
        scale = np.array(factors)
    elif len(factors) == 1:
        factor = factors[0]
        if factor < 0:  # a volume
            factor = np.cbrt(-factor / abs(np.linalg.det(lattice)))
        scale = np.full(3, factor)
    else:
        raise ValueError("line 2 must hold one scale factor, or three")
    symbols, counts, words = _read_elements(lines)
    if symbols and len(symbols) != len(counts):
        raise RhosightError(
            f"{where}: {len(symbols)} elements are named for {len(counts)} numbers of atoms; "
            "correct lines 6 and 7"
        )
    # X is a dummy atom, which the check of the crystal names
    unknown = next((s for s in symbols if s != "X" and not Element.is_valid_symbol(s)), None)
    if unknown is not None:
        raise ValueError(f"{unknown!r} in line 6 is not an element")
    is_selective = words[0][0] in "sS"
    mode = _split(next(lines, ""))[0] if is_selective else words[0]
    if is_number(mode.encode()):
        raise ValueError("no line says Direct or Cartesian above the positions")
    is_cartesian = mode.lower().startswith(_CARTESIAN)
    return _Head(lattice * scale, scale, symbols, counts, is_selective, is_cartesian)


def _read_elements(lines: Iterator[str]) -> tuple[list[str], list[int], list[str]]:
    """Return symbols, numbers of atoms, and the words of the line below them.

    Both may take several lines. VASP 6 appends the names of potentials and hashes to the symbols,
    as in ``Mg_pv/f474ac0d``.
    """
    symbols: list[str] = []
    counts: list[int] = []
    for line in lines:
        words = _split(line)
        if all(word.lstrip("+").isdecimal() for word in words):
            counts += [int(word) for word in words]
        elif counts:
            return symbols, counts, words
        else:
            symbols += [word.split("/")[0].split("_")[0] for word in words]
    raise ValueError("lines are missing")


def _read_positions(lines: Iterator[str], head: _Head, where: str) -> Structure:
    """Read one line for each atom, and return the crystal."""
    count = sum(head.counts)
    rows = [_split_position(next(lines, "")) for _ in range(count)]
    positions = np.array([_read_vector(row[:3]) for row in rows]).reshape(-1, 3)
    labels = [row[6:] if head.is_selective else row[3:] for row in rows]
    if head.symbols:
        symbols = [s for s, n in zip(head.symbols, head.counts, strict=True) for _ in range(n)]
        for number, (symbol, row) in enumerate(zip(symbols, rows, strict=True), start=1):
            _check_label(row[3:], symbol, number, where)
    elif all(label and Element.is_valid_symbol(label[0]) for label in labels):
        symbols = [label[0] for label in labels]
    else:
        raise RhosightError(
            f"{where}: the elements are not named; write their symbols on a separate line above "
            "the numbers of atoms (line 6)"
        )
    extra = 0
    for line in lines:
        row = line.split()[:3]
        if len(row) < 3 or not all(is_number(word.encode()) for word in row):
            break
        extra += 1
    else:
        line = ""
    if "configuration" in line.lower() or begins_structure([line, *lines]):
        raise RhosightError(
            f"{where}: contains several structures (VASP appends steps to an XDATCAR); write each "
            "into a file of its own, or give the CONTCAR of the last step"
        )
    if extra:
        raise RhosightError(
            f"{where}: {count + extra} positions for {count} atoms; correct the numbers of "
            "atoms (line 7), or remove the positions that are too many"
        )
    if head.is_cartesian:
        positions = positions * head.scale
    return Structure(head.lattice, symbols, positions, coords_are_cartesian=head.is_cartesian)


def check_comment(text: str, structure: Structure) -> list[str]:
    """Note a first line that is the formula of another compound."""
    comment = text.partition("\n")[0].strip()
    symbols = re.findall(r"[A-Z][a-z]?", comment)
    if not _FORMULA.fullmatch(comment) or not all(map(Element.is_valid_symbol, symbols)):
        return []
    its = structure.composition.reduced_formula
    if Composition(comment.replace(" ", "")).reduced_formula == its:
        return []
    return [f"the first line says {comment}, the atoms are {its}: check the elements"]


def begins_structure(lines: Sequence[str]) -> bool:
    """Return True if a comment, a scale factor and three vectors come first."""
    if len(lines) < 5 or lines[0].strip().lower().startswith("lattice velocities"):
        return False
    comment, scale, *cell = [line.split() for line in lines[:5]]
    return (
        not all(is_number(word.encode()) for word in comment or ["0"])
        and len(_read_numbers(scale)) in (1, 3)
        and all(len(_read_numbers(row)) == 3 for row in cell)
    )


def _check_label(words: list[str], symbol: str, number: int, where: str) -> None:
    """Raise if the symbol behind a position is that of another element.

    VASP and pymatgen do not look at it; the three flags of selective dynamics precede it.
    """
    if len(words) >= 3 and all(word.strip(".").upper()[:1] in ("T", "F") for word in words[:3]):
        words = words[3:]
    label = words[0] if words else symbol
    if label != symbol and Element.is_valid_symbol(label):
        raise RhosightError(
            f"{where}: atom {number} is {symbol} by the symbols and numbers above, but {label} "
            "stands behind its position; correct one of them"
        )


def _split(line: str) -> list[str]:
    """Return the words of a line in front of a comment.

    Raises
    ------
    ValueError
        If there are none.
    """
    words = re.split("[#!]", line)[0].split()
    if not words:
        raise ValueError("lines are missing")
    return words


def _split_position(line: str) -> list[str]:
    """Split a line with a position; minus signs may join its numbers."""
    words = _split(line)
    return words if len(words) >= 3 else _GLUED.sub(" -", line).split()


def _read_numbers(words: list[str]) -> list[float]:
    """Return the numbers in front of the first other word."""
    count = next((i for i, word in enumerate(words) if not is_number(word.encode())), len(words))
    return [to_number(word.encode()) for word in words[:count]]


def _read_vector(words: list[str]) -> list[float]:
    """Return three numbers.

    Raises
    ------
    ValueError
        If these are not three numbers.
    """
    numbers = _read_numbers(words)
    if len(numbers) != 3 or len(words) != 3:
        raise ValueError(f"three numbers expected in place of {' '.join(words)[:40]!r}")
    return numbers
