"""Read density files: the content, and if necessary the name, tells the format."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from pymatgen.core import Composition, Structure

from ..errors import RhosightError
from .channels import find_channel, join_channels, make_missing_error, states_one_spin
from .charge_density import STORED_KINDS, ChargeDensity, StoredKind, add_notes
from .cube import read_cube
from .electrons import UNITS, Unit
from .hdf5 import read_hdf5
from .labels import (
    SPIN,
    Content,
    identify_comment,
    identify_label,
    identify_name,
    read_spin_count,
    strip_suffix,
)
from .plausibility import check_density, check_structure
from .predicted import note_predicted
from .stream import MAX_BYTES, TextStream, is_number
from .vasp import ALL_ELECTRON, read_chgcar
from .xsf import read_xsf

Format = Literal["CHGCAR", "cube", "XSF", "HDF5"]

NotesMode = Literal["show", "strict"]
"""How doubts about a file are treated: as notes in the provenance, or as errors."""

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
    "XSF": re.compile(r"\.a?xsf$", re.IGNORECASE),
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
# What the first lines of an XSF file contain
_XSF_KEYWORDS = {b"CRYSTAL", b"SLAB", b"POLYMER", b"ANIMSTEPS", b"DIM-GROUP"}
_XSF_SECTIONS = {b"PRIMVEC", b"PRIMCOORD"}
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
    kind: StoredKind | None = None,
    unit: Unit | None = None,
    expected: float | None = None,
    max_bytes: int = MAX_BYTES,
    notes: NotesMode = "show",
) -> ChargeDensity:
    """Read a density file of any known format, and check what it holds.

    Formats are VASP's CHGCAR, CHG and AECCAR0-2, Gaussian cube, XCrySDen XSF (each plain or
    compressed with gzip, bzip2 or xz), and the HDF5 files of pymatgen's ``VolumetricData``. The
    file of one spin is read together with that of the other, which lies beside it (ABACUS's
    chgs1.cube and chgs2.cube): they become ``total`` and ``spin``.

    Parameters
    ----------
    path
        The file. Its content determines the format; its name decides where the content does not.
    kind
        Kind of density in the file: ``total``, ``difference``, or (cube and XSF) ``spin``. By
        default ``total``, unless the name or the comment says that the file holds something else,
        which is an error. A kind given here is not questioned.
    unit
        Unit of the values: ``e/bohr3``, ``e/angstrom3``, or ``e`` for electrons per cell. By
        default that of the format. A unit given here is not questioned.
    expected
        Electrons in the cell, if known, to compare with the integral.
    max_bytes
        Maximum size of the text, in bytes after decompression.
    notes
        ``"show"`` puts doubts into the provenance; ``"strict"`` makes them errors.

    Returns
    -------
    ChargeDensity
        Grids in e/Å³. Its provenance contains ``source`` (file name), ``format``, ``unit`` (cube,
        XSF, HDF5), ``code`` and ``comment`` if the file tells them, and ``notes``: what was left
        out, and what is unusual about the density.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged, holds something else than a charge density
        of the crystal (a potential, an orbital, one spin), or if its cell or unit cannot be right
        (see :mod:`rhosight.density.plausibility`). One line that names the file and the fix.
    """
    path = Path(path)
    _check_choices(path, kind, unit)
    head = _read_head(path)
    assumed = unit or DEFAULT_UNITS[head.format]
    density = _READERS[head.format](path, kind or "total", assumed, max_bytes)
    if kind is None:
        density = _check_label(path, head, density, assumed, max_bytes)
    density = note_predicted(density, f"{head.comment} {density.provenance.get('comment', '')}")
    if density.provenance.get("density") != ALL_ELECTRON["AECCAR0"]:
        # of core electrons alone nothing is known; VASP never writes another unit
        sure = unit is not None or density.provenance.get("code") == "VASP"
        density = add_notes(density, check_density(density, assumed, expected, sure))
    return apply_notes_mode(density, notes)


def _check_choices(path: Path, kind: str | None, unit: str | None) -> None:
    """Raise for a kind or a unit that does not exist."""
    if kind is not None and kind not in STORED_KINDS:
        raise RhosightError(f"{path}: no kind `{kind}`; choose one of {', '.join(STORED_KINDS)}")
    if unit is not None and unit not in UNITS:
        raise RhosightError(f"{path}: no unit {unit!r}; choose one of {', '.join(UNITS)}")


def read_structure(path: str | os.PathLike, max_bytes: int = MAX_BYTES) -> Structure:
    """Read the structure in a density file; its density is not checked.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged, or the cell contradicts the atoms or the
        grid.
    """
    path = Path(path)
    head = _read_head(path)
    density = _READERS[head.format](path, "total", DEFAULT_UNITS[head.format], max_bytes)
    check_structure(density)
    return density.structure


def apply_notes_mode(density: ChargeDensity, mode: NotesMode) -> ChargeDensity:
    """Return the density, or raise its notes as an error if the mode is ``strict``."""
    notes = density.provenance.get("notes", [])
    if mode == "strict" and notes:
        raise RhosightError(f"{density.name}: {'; '.join(notes)} (notes are errors: strict)")
    return density


def _check_label(
    path: Path, head: _Head, density: ChargeDensity, unit: Unit, max_bytes: int
) -> ChargeDensity:
    """Return the total density, joined from two spins if necessary.

    Raises
    ------
    RhosightError
        If name or comment say that the file holds something else, or one spin alone.
    """
    comment = f"{head.comment} {density.provenance.get('comment', '')}"
    content = identify_comment(comment)
    if content is None and head.format == "XSF":
        content = identify_label(str(density.provenance.get("comment", "")))
    if content is None and not _is_formula(path, density):
        content = identify_name(path.name)
    spins = read_spin_count(comment)
    channel = find_channel(path.name)
    if content is None and spins == 4 and channel is not None and not channel.is_first:
        content = SPIN
    if content is not None:
        raise _make_label_error(path, content)
    if spins in (1, 4) or (channel is None and spins is None and not states_one_spin(comment)):
        return density
    if spins is None and channel is not None and _is_formula(path, density):
        return density
    partner = next((path.with_name(n) for n in channel.partners), None) if channel else None
    if channel is not None:
        partner = next((p for n in channel.partners if (p := path.with_name(n)).is_file()), None)
    if channel is None or partner is None:
        raise make_missing_error(path, channel)
    other = _READERS[_read_head(partner).format](partner, "total", unit, max_bytes)
    joined = join_channels(*((density, other) if channel.is_first else (other, density)))
    return replace(joined, name=density.name)


def _make_label_error(path: Path, content: Content) -> RhosightError:
    cure = "give the file with the total charge density"
    if content.kind:
        cure += f", or read it as such with kind={content.kind!r} (--kind {content.kind})"
    return RhosightError(
        f"{path}: contains {content.name}, as its name or comment says, not the charge density; "
        f"{cure}; if it is the total after all, say kind='total' (--kind total)"
    )


def _is_formula(path: Path, density: ChargeDensity) -> bool:
    """Return whether a file is named after its crystal, like VH.cube."""
    try:
        named = Composition(strip_suffix(path.name))
    except ValueError:
        return False
    return bool(named.reduced_formula == density.structure.composition.reduced_formula)


def recognise(path: str | os.PathLike) -> Format:
    """Return the format of a density file.

    Raises
    ------
    UnknownFormat
        If the format is unknown.
    RhosightError
        If the file contains no charge density.
    """
    return _read_head(Path(path)).format


@dataclass(frozen=True)
class _Head:
    """The format of a file, and its first lines of text."""

    format: Format
    comment: str


def _read_head(path: Path) -> _Head:
    name = path.name
    for word, content in _OTHERS.items():
        if word in name.upper():
            raise RhosightError(
                f"{path}: a {word} contains {content}, not the charge density; give the CHGCAR"
            )
    with TextStream(path, piece=_SNIFFED_BYTES) as stream:
        format_by_content, lines = _recognise_content(stream)
    format_ = format_by_content or _recognise_name(path)
    count = {"cube": 2, "CHGCAR": 1, "XSF": 0, "HDF5": 0}[format_]
    comments = [line for line in lines if line.startswith(b"#")] if format_ == "XSF" else []
    text = b" ".join([*lines[:count], *comments])[:500].decode(errors="replace")
    return _Head(format_, text)


def _recognise_name(path: Path) -> Format:
    name = path.name
    while name.lower().endswith(COMPRESSIONS):
        name = name.rpartition(".")[0]
    named = next((format_ for format_, known in _NAMES.items() if known.search(name)), None)
    if named is None:
        raise UnknownFormat(
            f"{path}: not a density file of a known format; give a CHGCAR, CHG, AECCAR, cube or "
            "XSF file (plain, .gz, .bz2, .xz), or pymatgen's HDF5"
        )
    return named


def _recognise_content(stream: TextStream) -> tuple[Format | None, list[bytes]]:
    """Return the format if the first lines leave no doubt, and these lines."""
    if stream.start.startswith(_HDF5):
        return "HDF5", []
    text: list[bytes] = []
    try:
        while len(text) < _SNIFFED_LINES and (line := stream.read_line()) is not None:
            text.append(line)
    except RhosightError:
        return None, []  # the reader chosen by the name reports what is wrong
    return _recognise_lines([line.split() for line in text]), text


def _recognise_lines(lines: list[list[bytes]]) -> Format | None:
    words = {words[0].upper() for words in lines if words}
    first = next((words for words in lines if words and not words[0].startswith(b"#")), [b""])
    if first in ([b"ATOMS"], [b"MOLECULE"]) or (words & _XSF_SECTIONS and words & _XSF_KEYWORDS):
        return "XSF"
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
    return None
