"""Structure types of a crystal or of a folder of crystals of the user's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pymatgen.core import Structure

from ..density.structures import get_notes, read_structure
from ..errors import RhosightError, first_line
from .prototypes import Library, Prototype, find_prototypes

logger = logging.getLogger(__name__)

BUNDLED_TYPES = "bundled"
"""Name of the structure types of the bundled datasets."""


def read_folders(sources: Sequence[str | os.PathLike]) -> dict[str, Structure]:
    """Read the crystals of folders, by the names of their files.

    Files that cannot be read are skipped with a warning; the notes of others are logged.

    Parameters
    ----------
    sources
        Folders of CIF, POSCAR or density files, or such files; :data:`BUNDLED_TYPES` is skipped.

    Raises
    ------
    RhosightError
        If a folder does not exist or holds no readable crystal.
    """
    crystals: dict[str, Structure] = {}
    for source in map(Path, (one for one in sources if one != BUNDLED_TYPES)):
        if not source.exists():
            raise RhosightError(
                f"{source}: no such folder; give a folder of CIF or POSCAR files, or "
                f"{BUNDLED_TYPES}"
            )
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        before = len(crystals)
        for file in files:
            if file.is_dir() or file.name.startswith("."):
                continue
            try:
                crystal = read_structure(file)
            except RhosightError as error:
                logger.warning("%s: skipped", first_line(error))
                continue
            for note in get_notes(crystal):
                logger.warning("%s: %s", file, note)
            name = file.name if file.name not in crystals else str(file)
            crystals[name] = crystal
        if len(crystals) == before:
            raise RhosightError(
                f"{source}: no crystal can be read; give a folder of CIF or POSCAR files"
            )
    return crystals


def join_types(
    library: Library, crystals: Mapping[str, Structure], with_bundled: bool
) -> tuple[Library, list[Prototype]]:
    """Return a library with the structure types of crystals, and the types to occupy.

    A type that the library has already is taken from there, with all crystals that it knows.

    Parameters
    ----------
    library
        The bundled structure types.
    crystals
        Name → crystal.
    with_bundled
        Occupy all bundled types, too.

    Raises
    ------
    RhosightError
        If none of the crystals can serve as a structure type.
    """
    own = find_prototypes(crystals)
    unfit = [name for name in crystals if name not in own.names]
    for name in unfit:
        formula = crystals[name].composition.reduced_formula
        message = (
            f"{name} ({formula}): cannot serve as a structure type; give an ordered crystal of at "
            "most five elements and 40 atoms in the primitive cell"
        )
        if len(unfit) == len(crystals):
            raise RhosightError(message)
        logger.warning("%s", message)
    types = list(library.prototypes) if with_bundled else []
    for mine in own.prototypes:
        same = _find_same(library, own, mine)
        if same is None or not with_bundled:
            types.append(same or mine)
    return library.join(own), list(dict.fromkeys(types))


def _find_same(library: Library, own: Library, mine: Prototype) -> Prototype | None:
    """Return the type of a library that a crystal's type is, or None."""
    first = own.template(mine, 0)
    for other in library.prototypes:
        if other.label == mine.label and sorted(other.counts) == sorted(mine.counts):
            pair = {"one": library.template(other, 0), "other": first}
            if len(find_prototypes(pair).prototypes) == 1:
                return other
    return None
