"""Search folders for what models read: densities, or crystals without densities."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import RhosightError
from .directory import Directory, walk
from .folder import DENSITIES, LABELS

_STRUCTURE = re.compile(
    r"\.m?cif(\.(gz|bz2|xz))?$|(^|[._-])(POSCAR|CONTCAR)([._-]|$)|\.vasp$", re.IGNORECASE
)
# The start of a relaxation, whose result lies beside it
_STARTS, _RESULTS = re.compile(r"^POSCAR(\.(gz|bz2|xz))?$"), re.compile(r"^CONTCAR\b")


@dataclass(frozen=True)
class Search:
    """Hold what a search found.

    Attributes
    ----------
    files
        Path of each material, in the order of names.
    passed_over
        Path below the folder → why it is not a material.
    """

    files: list[Path]
    passed_over: dict[str, str] = field(default_factory=dict)


def is_dataset_folder(folder: Path) -> bool:
    """Return whether a folder is a dataset: of Parquet files, CSV and HDF5."""
    return any(folder.glob("*.parquet")) or any(
        (folder / name).exists() for name in (LABELS, DENSITIES)
    )


def find_materials(folder: Path, structures: bool = False) -> Search:
    """Find the files of all materials below a folder that is no dataset.

    Parameters
    ----------
    folder
        The folder; links to folders are followed.
    structures
        Find crystals instead of densities: CIF and POSCAR files, the result of a relaxation
        (CONTCAR) rather than its start, and density files in folders without any of these.

    Raises
    ------
    RhosightError
        If there is no material, or a folder cannot be read.
    """
    if not structures:
        source = Directory(folder)
        source.ids()
        files = [folder / path.relative_to(source.folder) for path in source.files.values()]
        problems = {name: "another file has the same id" for name in source.problems()}
        return Search(sorted(files), {**source.passed_over, **problems})
    found: list[Path] = []
    passed_over: dict[str, str] = {}
    for parent, names in walk(folder):
        own = [name for name in names if _STRUCTURE.search(name)]
        if any(map(_RESULTS.match, own)):
            starts = [name for name in own if _STARTS.match(name)]
            passed_over |= {
                str(Path(parent, name).relative_to(folder)): "the start of the CONTCAR beside it"
                for name in starts
            }
            own = [name for name in own if name not in starts]
        found += [Path(parent, name) for name in own]
    try:
        densities = find_materials(folder).files
    except RhosightError:
        densities = []
    served = {path.parent for path in found}
    found += [path for path in densities if path.parent not in served]
    if not found:
        raise RhosightError(
            f"{folder}: no crystal below this folder; expected *.cif, POSCAR, CONTCAR or density "
            "files, compressed or not"
        )
    return Search(sorted(found), passed_over)
