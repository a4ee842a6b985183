"""One door for density files: the format is told from the content, and the name where that is not
enough.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ..errors import RhosightError
from .charge_density import STORED_KINDS, ChargeDensity, StoredKind
from .cube import read_cube
from .electrons import UNITS, Unit, electron_count_check
from .hdf5 import read_hdf5
from .stream import MAX_BYTES, TextStream, is_number
from .vasp import ALL_ELECTRON, read_chgcar
from .xsf import read_xsf

Format = Literal["CHGCAR", "cube", "XSF", "HDF5"]

DEFAULT_UNITS: dict[Format, Unit] = {
    "CHGCAR": "e",
    "cube": "e/bohr3",
    "XSF": "e/bohr3",
    "HDF5": "e",
}
"""What the values of a format are unless said otherwise."""

COMPRESSIONS = (".gz", ".bz2", ".xz")

_NAMES: dict[Format, re.Pattern[str]] = {
    "cube": re.compile(r"\.(cube|cub)$", re.IGNORECASE),
    "XSF": re.compile(r"\.xsf$", re.IGNORECASE),
    "HDF5": re.compile(r"\.(h5|hdf5)$", re.IGNORECASE),
    "CHGCAR": re.compile(r"CHGCAR|AECCAR[012]|(^|[._-])CHG([._-]|$)|\.vasp$", re.IGNORECASE),
}
# In the format of a CHGCAR, and no density of all electrons
_OTHERS = {
    "LOCPOT": "a potential",
    "ELFCAR": "a localisation function",
    "PARCHG": "the density of some bands",
    "TAUCAR": "a kinetic-energy density",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SNIFFED_LINES = 100  # by which an XSF file has said that it is one
_SNIFFED_BYTES = 2**14


def read_density(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit | None = None,
    expected: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read a density file of any known format.

    These are VASP's CHGCAR, CHG and AECCAR0-2, Gaussian cube, XCrySDen XSF (each plain or
    compressed with gzip, bzip2 or xz), and the HDF5 files of pymatgen's ``VolumetricData``. ASE
    reads no further format that holds a density grid, pymatgen none of a crystal in plain text.

    Parameters
    ----------
    path
        The file. Its content says which format it has; its name decides where the content does not
        (and what the error message is about).
    kind
        What the file holds: ``total``, ``difference``, or (cube and XSF) ``spin``.
    unit
        Of the values: ``e/bohr3``, ``e/angstrom3``, or ``e`` for electrons per cell. By default
        that of the format. Whatever is given here is believed.
    expected
        Electrons in the cell, where they are known, to hold the integral against.
    max_bytes
        Text to read at most, decompressed.

    Returns
    -------
    ChargeDensity
        Grids in e/Å³. Its provenance holds ``source`` (file name), ``format``, ``unit`` (cube, XSF,
        HDF5), ``code`` and ``comment`` as far as the file tells, and ``notes``: what was left out,
        and what is odd about the number of electrons.

    Raises
    ------
    RhosightError
        If the file is of no known format, damaged, or holds a number of electrons that another unit
        would explain (see :func:`electron_count_check`). One line, with the file and the cure.
    """
    path = Path(path)
    if kind not in STORED_KINDS:
        raise RhosightError(f"{path}: no kind `{kind}`; known are {', '.join(STORED_KINDS)}")
    if unit is not None and unit not in UNITS:
        raise RhosightError(f"{path}: no unit {unit!r}; known are {', '.join(UNITS)}")
    format_ = recognise(path)
    read = {"CHGCAR": read_chgcar, "cube": read_cube, "XSF": read_xsf, "HDF5": read_hdf5}[format_]
    assumed = unit or DEFAULT_UNITS[format_]
    density = read(path, kind, assumed, max_bytes)
    if density.provenance.get("density") == ALL_ELECTRON["AECCAR0"]:
        return density  # the other electrons
    # VASP never writes another unit
    sure = unit is not None or density.provenance.get("code") == "VASP"
    notes = electron_count_check(density, assumed, expected, sure)
    if not notes:
        return density
    notes = [*density.provenance.get("notes", []), *notes]
    return replace(density, provenance={**density.provenance, "notes": notes})


def recognise(path: str | os.PathLike) -> Format:
    """The format of a density file.

    Raises
    ------
    RhosightError
        If it is none that is known, or one that holds no density.
    """
    path = Path(path)
    name = path.name
    for word, content in _OTHERS.items():
        if word in name.upper():
            raise RhosightError(
                f"{path}: a {word} holds {content}, not the charge density; give the CHGCAR"
            )
    with TextStream(path, piece=_SNIFFED_BYTES) as stream:
        found = _by_content(stream)
    if found:
        return found
    while name.lower().endswith(COMPRESSIONS):
        name = name.rpartition(".")[0]
    named = next((format_ for format_, known in _NAMES.items() if known.search(name)), None)
    if named is None:
        raise RhosightError(
            f"{path}: not a density file that is known; give a CHGCAR, CHG, AECCAR, cube or XSF "
            "file (plain, .gz, .bz2, .xz), or pymatgen's HDF5"
        )
    return named


def _by_content(stream: TextStream) -> Format | None:
    """The format, if the first lines leave no doubt."""
    if stream.start.startswith(_HDF5):
        return "HDF5"
    lines: list[list[bytes]] = []
    try:
        while len(lines) < _SNIFFED_LINES and (line := stream.line()) is not None:
            lines.append(line.split())
    except RhosightError:
        return None  # the reader that the name calls for says what is wrong
    numbers = [[is_number(word) for word in words] for words in lines[:6]]
    if len(lines) >= 6 and all(len(row) > 3 and all(row[:4]) for row in numbers[2:6]):
        return "cube"
    cell = numbers[2:5]
    if (
        len(lines) >= 6
        and numbers[1]
        and all(numbers[1])
        and all(row == [True] * 3 for row in cell)
    ):
        return "CHGCAR"
    words = {words[0].upper() for words in lines if words}
    if b"PRIMVEC" in words and words & {b"CRYSTAL", b"DIM-GROUP", b"SLAB", b"POLYMER"}:
        return "XSF"
    return None
