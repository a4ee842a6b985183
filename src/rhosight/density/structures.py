"""Read crystals without densities: CIF, POSCAR, JSON, heads of density files.

The content decides about the format, and the name where the content does not.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from ..errors import RhosightError
from .cif import parse_cif
from .crystals import check_crystal
from .files import UnknownFormat, recognise
from .files import read_structure as read_structure_of_density
from .neighbours import CRUSHED, check_lengths
from .poscar import begins_structure, check_comment, parse_poscar
from .stream import TextStream
from .structure_json import parse_structure_json
from .vasp import read_head

MAX_TEXT = 2**26
"""Largest CIF or JSON file, in bytes after decompression."""

_NOTES = "rhosight_notes"
_CIF_NAME = re.compile(r"\.m?cif(\.(gz|bz2|xz))?$", re.IGNORECASE)
_JSON_NAME = re.compile(r"\.json(\.(gz|bz2|xz))?$", re.IGNORECASE)
_POSCAR_NAME = re.compile(r"POSCAR|CONTCAR|\.vasp\b", re.IGNORECASE)
_CIF = re.compile(rb"^(?:\xef\xbb\xbf)?\s*(?:#[^\n]*\n\s*)*data_", re.IGNORECASE)
_SNIFFED_BYTES = 2**12


def read_structure(path: str | os.PathLike) -> Structure:
    """Read the crystal of a CIF, a POSCAR, pymatgen's JSON, or a density file.

    Parameters
    ----------
    path
        The file, plain or compressed with gzip, bzip2 or xz.

    Returns
    -------
    Structure
        A complete, ordered crystal without oxidation states. :func:`get_notes` returns what is
        doubtful about it.

    Raises
    ------
    RhosightError
        If the format is unknown, the file is damaged or contradicts itself (its formula, formula
        units, symmetry or volume do not fit its atoms), a site is a dummy or shared by several
        elements, two atoms overlap, or a POSCAR does not name its elements. One line that names the
        file and the fix.
    """
    path = Path(path)
    if is_cif(path):
        return read_cif(read_text(path), str(path))
    if _JSON_NAME.search(path.name):
        structure = parse_structure_json(read_text(path), str(path)).remove_oxidation_states()
        check_crystal(structure, str(path))
        notes = _drop_charge(structure) + check_unit(structure, str(path))
        return add_structure_notes(structure, notes)
    try:
        is_poscar = recognise(path) == "CHGCAR"
    except UnknownFormat as error:
        if not _POSCAR_NAME.search(path.name):
            raise RhosightError(
                f"{path}: not a readable structure and not a density; give a CIF, a POSCAR, or a "
                "density file (CHGCAR, CHG, cube, XSF)"
            ) from error
        is_poscar = True
    if not is_poscar:
        return read_structure_of_density(path)
    with TextStream(path) as stream:
        lines = read_head(stream)
        further = [stream.read_line() or b"" for _ in range(5)]
    head, rest = (
        "\n".join(line.decode("utf-8", errors="replace") for line in part)
        for part in (lines, further)
    )
    structure = parse_poscar(head, str(path))
    if begins_structure(rest.split("\n")):
        raise RhosightError(f"{path}: contains several structures; write each into its own file")
    notes = check_comment(head, structure) + check_unit(structure, str(path))
    return add_structure_notes(structure, notes)


def read_cif(text: str, where: str, max_sites: int | None = None) -> Structure:
    """Return the crystal of a CIF with its notes, see :mod:`rhosight.density.cif`."""
    structure, notes = parse_cif(text, where, max_sites)
    return add_structure_notes(structure, notes + check_unit(structure, where))


def check_unit(structure: Structure, where: str) -> list[str]:
    """Return notes on lengths that no crystal has; raise if they are beyond doubt."""
    return check_lengths(structure, where, least=CRUSHED)


def is_cif(path: Path) -> bool:
    """Return whether the name or the content of a file is that of a CIF."""
    with TextStream(path, piece=_SNIFFED_BYTES) as stream:
        if _CIF_NAME.search(path.name):
            return True
        try:
            lines = [stream.read_line() or b"" for _ in range(20)]
        except RhosightError:
            return False  # not a text file
    return bool(_CIF.match(b"\n".join(lines)))


def read_text(path: Path, max_bytes: int = MAX_TEXT) -> str:
    """Return the text of a file, decompressed.

    Raises
    ------
    RhosightError
        If there is no such file, or it is larger than ``max_bytes``.
    """
    with TextStream(path, max_bytes) as stream:
        stream.allow(max_bytes)
        return stream.read_all().decode("utf-8", errors="replace")


def add_structure_notes(structure: Structure, notes: Sequence[str]) -> Structure:
    """Attach notes to a structure, as one of its properties."""
    if notes:
        structure.properties[_NOTES] = [*get_notes(structure), *notes]
    return structure


def get_notes(crystal: Any) -> list[str]:
    """Return the notes on a structure, or on an object that has one."""
    structure = getattr(crystal, "structure", crystal)
    properties = getattr(structure, "properties", None) or {}
    provenance = getattr(crystal, "provenance", None) or {}
    notes = [*provenance.get("notes", []), *properties.get(_NOTES, [])]
    return list(dict.fromkeys(notes))


def _drop_charge(structure: Structure) -> list[str]:
    """Remove the charge of a cell, and note it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is not the sum of oxidation states, which are none
        charge = structure.charge
    structure.unset_charge()
    return [f"the cell has a charge of {charge:g}, which models ignore"] if charge else []
