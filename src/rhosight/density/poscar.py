"""The structure of a POSCAR, which is also the head of a CHGCAR.

pymatgen parses it. Before, two forms that VASP reads and pymatgen does not are rewritten: three
scale factors, which VASP 6 applies to the x, y and z components of the lattice vectors and of
Cartesian positions (https://vasp.at/wiki/POSCAR), and Fortran's exponents with D.
"""

from __future__ import annotations

import re
import warnings

import numpy as np
from pymatgen.core import Structure

from ..errors import RhosightError, first_line
from .crystals import check_crystal
from .stream import is_number, to_number, write_exponents

_CARTESIAN = ("c", "k")  # VASP looks at the first letter only


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
    from pymatgen.io.vasp.inputs import Poscar  # takes a second to import

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Elements in POSCAR cannot be determined")
            structure = Poscar.from_str(_rewrite(text), read_velocities=False).structure
    except UserWarning as error:
        raise RhosightError(
            f"{where}: the elements are not named; write their symbols on a separate line above "
            "the numbers of atoms (line 6)"
        ) from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        reason = "lines are missing" if isinstance(error, IndexError) else first_line(error)
        raise RhosightError(
            f"{where}: not a readable {format_} ({reason}); write it again, or convert it to "
            f"{format_} format"
        ) from error
    _check_counts(text.split("\n"), structure, where)
    check_crystal(structure, where)
    return structure


def _check_counts(lines: list[str], structure: Structure, where: str) -> None:
    """Raise if symbols, numbers of atoms and positions contradict each other.

    pymatgen leaves out what is too many.
    """
    symbols: list[str] = []
    counts: list[str] = []
    rest = iter(lines[5:])
    for line in rest:
        words = line.split("!")[0].split()
        if words and all(word.lstrip("+").isdecimal() for word in words):
            counts += words
        elif counts or not words:
            break
        else:
            symbols += words
    if symbols and len(symbols) != len(counts):
        raise RhosightError(
            f"{where}: {len(symbols)} elements are named for {len(counts)} numbers of atoms; "
            "correct lines 6 and 7"
        )
    if line.strip()[:1].lower() == "s":  # selective dynamics
        next(rest, None)
    positions = 0
    for line in rest:
        words = line.split()[:3]
        if len(words) < 3 or not all(is_number(word.encode()) for word in words):
            break
        positions += 1
    if positions > len(structure):
        raise RhosightError(
            f"{where}: {positions} positions for {len(structure)} atoms; correct the numbers of "
            "atoms (line 7), or remove the positions that are too many"
        )


def _rewrite(text: str) -> str:
    """Return the text with one scale factor, and exponents with E."""
    comment, *lines = text.split("\n")
    lines = [_rewrite_exponents(line) for line in lines]
    factors = _read_factors(lines[0].split() if lines else [])
    if factors is not None:
        _scale(lines, factors)
    return "\n".join([comment, *lines])


def _rewrite_exponents(line: str) -> str:
    return write_exponents(line.encode()).decode() if re.search(r"\d[dD+-]", line) else line


def _read_factors(words: list[str]) -> np.ndarray | None:
    """Return three scale factors, or None if there are not three."""
    count = next((i for i, word in enumerate(words) if not is_number(word.encode())), len(words))
    if count != 3:
        return None
    factors = np.array([to_number(word.encode()) for word in words[:3]])
    if not (np.isfinite(factors).all() and factors.min() > 0):
        raise ValueError("three scale factors must all be positive")
    return factors


def _scale(lines: list[str], factors: np.ndarray) -> None:
    """Apply three factors to the lines below the comment, and set the factor to one."""
    lines[0] = "1.0"
    rows = {1, 2, 3}
    mode = next((i for i in range(6, min(9, len(lines))) if _is_mode(lines[i])), None)
    if mode is not None and lines[mode].strip().lower().startswith(_CARTESIAN):
        rows |= set(range(mode + 1, len(lines)))
    for row in rows & set(range(len(lines))):
        words = lines[row].split()
        if len(words) < 3:
            continue
        numbers = np.array([float(word) for word in words[:3]]) * factors
        lines[row] = " ".join([*(f"{number:.16g}" for number in numbers), *words[3:]])


def _is_mode(line: str) -> bool:
    """Return whether a line says how positions are given."""
    word = line.strip()[:1].lower()
    return word in (*_CARTESIAN, "d")
