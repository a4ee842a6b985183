"""Read density files: the content, and if necessary the name, tells the format."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Protocol

from pymatgen.core import Structure

from ..errors import RhosightError
from .charge_density import STORED_KINDS, ChargeDensity, StoredKind, add_notes
from .cube import read_cube
from .electrons import UNITS, Unit, check_electron_count
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
"""Default unit of the values in each format."""

COMPRESSIONS = (".gz", ".bz2", ".xz")

_NAMES: dict[Format, re.Pattern[str]] = {
    "cube": re.compile(r"\.(cube|cub)$", re.IGNORECASE),
    "XSF": re.compile(r"\.xsf$", re.IGNORECASE),
    "HDF5": re.compile(r"\.(h5|hdf5)$", re.IGNORECASE),
    "CHGCAR": re.compile(r"CHGCAR|AECCAR[012]|(^|[._-])CHG([._-]|$)|\.vasp$", re.IGNORECASE),
}
# Files in the format of a CHGCAR that do not contain the charge density
_OTHERS = {
    "LOCPOT": "a potential",
    "ELFCAR": "a localisation function",
    "PARCHG": "the density of some bands",
    "TAUCAR": "a kinetic-energy density",
}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SNIFFED_LINES = 100  # within which an XSF file names its sections
_SNIFFED_BYTES = 2**14


class UnknownFormat(RhosightError):
    """The file is not a density file of a known format."""


class _Reader(Protocol):
    def __call__(
        self, path: str | os.PathLike, kind: StoredKind, unit: Unit, max_bytes: int, /
    ) -> ChargeDensity: ...


_READERS: dict[Format, _Reader] = {
    "CHGCAR": read_chgcar,
    "cube": read_cube,
    "XSF": read_xsf,
    "HDF5": read_hdf5,
}


def read_density(
    path: str | os.PathLike,
    kind: StoredKind = "total",
    unit: Unit | None = None,
    expected: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> ChargeDensity:
    """Read a density file of any known format.

    Formats are VASP's CHGCAR, CHG and AECCAR0-2, Gaussian cube, XCrySDen XSF (each plain or
    compressed with gzip, bzip2 or xz), and the HDF5 files of pymatgen's ``VolumetricData``.

    Parameters
    ----------
    path
        The file. Its content determines the format; its name decides where the content does not.
    kind
        Kind of density in the file: ``total``, ``difference``, or (cube and XSF) ``spin``.
    unit
        Unit of the values: ``e/bohr3``, ``e/angstrom3``, or ``e`` for electrons per cell. By
        default that of the format. A unit given here is not questioned.
    expected
        Electrons in the cell, if known, to compare with the integral.
    max_bytes
        Maximum size of the text, in bytes after decompression.

    Returns
    -------
    ChargeDensity
        Grids in e/Å³. Its provenance contains ``source`` (file name), ``format``, ``unit`` (cube,
        XSF, HDF5), ``code`` and ``comment`` if the file tells them, and ``notes``: what was left
        out, and what is unusual about the number of electrons.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged, or its number of electrons suggests another
        unit (see :func:`check_electron_count`). One line that names the file and the fix.
    """
    path = Path(path)
    if kind not in STORED_KINDS:
        raise RhosightError(f"{path}: no kind `{kind}`; choose one of {', '.join(STORED_KINDS)}")
    if unit is not None and unit not in UNITS:
        raise RhosightError(f"{path}: no unit {unit!r}; choose one of {', '.join(UNITS)}")
    format_ = recognise(path)
    assumed = unit or DEFAULT_UNITS[format_]
    density = _READERS[format_](path, kind, assumed, max_bytes)
    if density.provenance.get("density") == ALL_ELECTRON["AECCAR0"]:
        return density  # core electrons alone; the bounds are for valence electrons
    # VASP never writes another unit
    sure = unit is not None or density.provenance.get("code") == "VASP"
    return add_notes(density, check_electron_count(density, assumed, expected, sure))


def read_crystal_of_density(path: Path) -> Structure:
    """Read the crystal of a density file, and nothing about its density.

    Raises
    ------
    RhosightError
        If the format is unknown or the file is damaged.
    """
    format_ = recognise(path)
    return _READERS[format_](path, "total", DEFAULT_UNITS[format_], MAX_BYTES).structure


def recognise(path: str | os.PathLike) -> Format:
    """Return the format of a density file.

    Raises
    ------
    UnknownFormat
        If the format is unknown.
    RhosightError
        If the file contains no charge density.
    """
    path = Path(path)
    name = path.name
    for word, content in _OTHERS.items():
        if word in name.upper():
            raise RhosightError(
                f"{path}: a {word} contains {content}, not the charge density; give the CHGCAR"
            )
    with TextStream(path, piece=_SNIFFED_BYTES) as stream:
        format_by_content = _recognise_content(stream)
    if format_by_content:
        return format_by_content
    while name.lower().endswith(COMPRESSIONS):
        name = name.rpartition(".")[0]
    named = next((format_ for format_, known in _NAMES.items() if known.search(name)), None)
    if named is None:
        raise UnknownFormat(
            f"{path}: not a density file of a known format; give a CHGCAR, CHG, AECCAR, cube or "
            "XSF file (plain, .gz, .bz2, .xz), or pymatgen's HDF5"
        )
    return named


def _recognise_content(stream: TextStream) -> Format | None:
    """Return the format if the first lines leave no doubt."""
    if stream.start.startswith(_HDF5):
        return "HDF5"
    lines: list[list[bytes]] = []
    try:
        while len(lines) < _SNIFFED_LINES and (line := stream.read_line()) is not None:
            lines.append(line.split())
    except RhosightError:
        return None  # the reader chosen by the name reports what is wrong
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
