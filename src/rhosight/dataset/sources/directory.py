"""A directory of densities, as DFT codes leave them, and a table of targets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from ...density.charge_density import ChargeDensity
from ...density.difference import add_difference, compute_difference
from ...density.electrons import Unit
from ...density.files import read_density, recognise
from ...errors import RhosightError
from .source import Entry, Source
from .tables import read_targets

# VASP's names are the same in every folder, so the folder names the material. A file of another
# name names it by itself.
_VASP = re.compile(r"^(CHGCAR|CHG|AECCAR[012])(\.(gz|bz2|xz))?$", re.IGNORECASE)
_OWN_NAME = re.compile(
    r"^(?P<stem>.+?)\.(cube|cub|xsf|chgcar|chg|vasp|h5|hdf5)(\.(gz|bz2|xz))?$|"
    r"^(CHGCAR|CHG)[._-](?P<vasp>.+?)(\.(gz|bz2|xz))?$",
    re.IGNORECASE,
)
# By-products in a folder that has a CHGCAR: sums, backups, magnetisations, inputs, HDF5 output
_OF_VASP = re.compile(
    r"^((CHGCAR|CHG)[._-](sum|tot|mag|spin|up|down|diff|old|bak|backup|orig|save|relax\d*)|"
    r"POSCAR|CONTCAR|vaspout|vaspwave)\b",
    re.IGNORECASE,
)
_PREFERRED = ("CHGCAR", "AECCAR2", "CHG")


class Directory(Source):
    """All densities under a folder.

    A material is a folder that holds a CHGCAR, CHG or AECCAR2 (its id is the folder's path below
    the root), or a file ``<id>.cube``, ``<id>.xsf``, ``<id>.chgcar``, ``<id>.vasp`` or
    ``CHGCAR_<id>``. All may be compressed (gz, bz2, xz). Beside a CHGCAR, other files of VASP and
    its tools (CHGCAR_sum, CHGCAR.bak, vaspout.h5, POSCAR.vasp) are no materials. Links to folders
    are followed.

    Parameters
    ----------
    folder
        The root.
    targets
        CSV, Parquet or Excel file; see :func:`rhosight.dataset.sources.tables.read_targets`.
    id_column
        Its column with the ids: a material's id, or the name of its last folder or file where that
        is unambiguous.
    kind
        What the files hold: ``"total"``, or ``"difference"`` for the output of a tool that
        subtracts.
    difference
        Where ``difference`` comes from, beside ``total``. ``"aeccar"``: AECCAR2 − AECCAR1, both
        all-electron; ``total`` is then AECCAR2, since the two never mix with CHGCAR.
        ``"free-atoms"``: minus the table of free atoms, see :mod:`rhosight.density.free_atoms`. Otherwise
        the path of another file with the difference, in which ``{parent}``, ``{name}`` and
        ``{stem}`` stand for parts of the path of the density.
    reference
        Path, as for ``difference``, of a file with the superposed free atoms of the same code:
        ``difference`` is the density minus it.
    unit
        Of the values in cube, XSF and HDF5 files, where it is not their format's; see
        :func:`rhosight.density.read_density`.
    """

    name: ClassVar[str] = "directory"

    def __init__(
        self,
        folder: str | os.PathLike,
        targets: str | os.PathLike | None = None,
        id_column: str | None = None,
        kind: Literal["total", "difference"] = "total",
        difference: str | None = None,
        reference: str | None = None,
        unit: Unit | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise RhosightError(f"{folder}: no such folder; give the one with the densities")
        if difference and reference:
            raise RhosightError("give a file of the difference or of the reference, not both")
        if kind == "difference" and (difference or reference):
            raise RhosightError("the files hold the difference already (kind); give no other one")
        self.kind = kind
        self.difference, self.reference = _checked(difference), _checked(reference)
        self.unit = unit
        self.targets = Path(targets).resolve() if targets else None
        self.id_column = id_column
        self._files: dict[str, Path] = {}
        self._labels: pd.DataFrame | None = None
        self._rows: dict[str, str] = {}
        self._units: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    def ids(self) -> list[str]:
        self._files, self._problems = self._find()
        if not self._files:
            raise RhosightError(
                f"{self.folder}: no density file below it; looked for CHGCAR, CHG, AECCAR2, and "
                "*.cube, *.xsf, *.chgcar, *.vasp, compressed or not"
            )
        if self.targets:
            self._labels, self._units = read_targets(self.targets, self.id_column)
            self._join()
        return sorted(self._files)

    def problems(self) -> dict[str, str]:
        return self._problems

    def read(self, material_id: str) -> Entry:
        path = self._files[material_id]
        density = self._density(path)
        provenance = {**density.provenance, "file": path.relative_to(self.folder).as_posix()}
        return Entry(ChargeDensity(density.structure, density.grids, material_id, provenance))

    def state(self, material_id: str) -> str:
        """Size and time of its files: their content would take as long as reading them."""
        path = self._files[material_id]
        return "; ".join(_size_and_time(p) for p in (path, *self._companions(path)))

    def table_row(self, material_id: str) -> dict[str, Any]:
        if self._labels is None:
            return {}
        if material_id not in self._rows:
            return dict.fromkeys(self._labels)
        row = self._labels.loc[self._rows[material_id]]
        return {name: None if pd.isna(value) else value for name, value in row.items()}

    def settings(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "difference": self.difference,
            "reference": self.reference,
            "unit": self.unit,
        }

    def about(self) -> dict[str, Any]:
        return {"name": self.folder.name, "units": self._units}

    def _density(self, path: Path) -> ChargeDensity:
        """One material's grids, with the difference as asked for."""
        companions = self._companions(path)
        for file in (path, *companions):
            if self.difference == "aeccar" and not file.exists():
                raise RhosightError(
                    f"{file.parent}: no {file.name} beside the density; VASP writes it with "
                    "LAECHG = .TRUE."
                )
        density = self._read(path, self.kind)
        if self.difference == "free-atoms":
            from ...density.free_atoms import difference_from_total

            return difference_from_total(density)
        if not companions:
            return density
        (companion,) = companions
        if self.difference and self.difference != "aeccar":
            other = self._read(companion, "difference")
            merged = add_difference(density, other)
        else:
            other = compute_difference(density, self._read(companion))
            merged = density.merge(other)
        origin = {"difference": other.provenance.get("source", other.name)}
        return replace(merged, provenance={**merged.provenance, **origin})

    def _read(self, path: Path, kind: Literal["total", "difference"] = "total") -> ChargeDensity:
        """A CHGCAR has the unit of its format, whatever the files beside it have."""
        unit = None if recognise(path) == "CHGCAR" else self.unit
        return read_density(path, kind, unit)

    def _companions(self, path: Path) -> list[Path]:
        """The other file that a density's difference comes from, if one does."""
        if self.difference == "aeccar":
            return [_beside(path, "AECCAR1")]
        pattern = self.reference or self.difference
        return [companion(pattern, path)] if pattern not in (None, "free-atoms") else []

    def _find(self) -> tuple[dict[str, Path], dict[str, str]]:
        """Id → its density file, and what could not be told apart."""
        found: dict[str, Path] = {}
        problems: dict[str, str] = {}
        files = [
            entry
            for parent, names in _folders(self.folder)
            for entry in self._in_folder(Path(parent), names)
        ]
        patterns = [p for p in (self.difference, self.reference) if p and "{" in p]
        companions = {
            other
            for pattern in patterns
            for _, path in files
            if (other := companion(pattern, path)) != path
        }
        for material_id, path in files:
            if path not in companions:
                if material_id in found:
                    problems[path.relative_to(self.folder).as_posix()] = (
                        f"{path}: {found[material_id]} has the same id {material_id}; rename one"
                    )
                else:
                    found[material_id] = path
        return found, problems

    def _in_folder(self, parent: Path, names: list[str]) -> list[tuple[str, Path]]:
        vasp = {}
        for name in names:
            if match := _VASP.match(name):
                vasp.setdefault(match[1].upper(), name)
        chosen = next((vasp[name] for name in _PREFERRED if name in vasp), None)
        if chosen and self.difference == "aeccar":  # reading says so if there is none
            chosen = vasp.get("AECCAR2", "AECCAR2")
        below = parent.relative_to(self.folder).as_posix()
        own = self.folder.name if below == "." else below
        entries = [(own, parent / chosen)] if chosen else []
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if chosen and _OF_VASP.match(name):  # what else lies about in a folder of VASP's
                continue
            if (match := _OWN_NAME.match(name)) and not _VASP.match(name):
                entries.append((f"{prefix}{match['stem'] or match['vasp']}", parent / name))
        return entries

    def _join(self) -> None:
        """Which row of the table belongs to which material."""
        last: dict[str, list[str]] = {}
        for material_id in self._files:
            last.setdefault(material_id.rpartition("/")[2], []).append(material_id)
        for row in self._labels.index:
            names = self._names(row)
            found = next((name for name in names if name in self._files), None)
            # the last part of an id alone, where only one material has it
            short = (last[name] for name in names if "/" not in row and name in last)
            candidates = [found] if found else next(short, [])
            if len(candidates) > 1:
                self._problems[row] = (
                    f"{row}: in {self.targets.name}, and {' and '.join(candidates)} are called so; "
                    "give the path below the folder"
                )
            elif not candidates:
                self._problems[row] = f"{row}: in {self.targets.name}, but no density has this id"
            elif (before := self._rows.setdefault(candidates[0], row)) != row:
                self._problems[row] = (
                    f"{row}: in {self.targets.name}, and means {candidates[0]} as {before} does; "
                    "keep one of the rows"
                )
        if not self._rows:
            raise RhosightError(
                f"{self.targets}: none of its ids ({', '.join(self._labels.index[:3])}, ...) is "
                f"one of a density ({', '.join(sorted(self._files)[:3])}, ...); see --id-column"
            )

    def _names(self, row: str) -> list[str]:
        """What a row of the table may call its material: its id, or its file or folder."""
        path = Path(row)
        if path.is_absolute() and path.is_relative_to(self.folder):
            path = path.relative_to(self.folder)
        text = path.as_posix()
        if _VASP.match(path.name):
            return [row, self.folder.name if path.parent == Path() else path.parent.as_posix()]
        own = own_name(path)
        return [row, text, *([path.with_name(own).as_posix()] if own else [])]


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """All folders below, those behind links as well, and their files, in the order of names.

    Raises
    ------
    RhosightError
        If a folder cannot be read: its materials would seem to be gone.
    """
    seen = set()

    def fail(error: OSError) -> None:
        raise RhosightError(
            f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable, "
            "or move it out of the way"
        ) from error

    for parent, folders, names in os.walk(root, onerror=fail, followlinks=True):
        about = os.stat(parent)
        if (about.st_dev, about.st_ino) in seen:  # a link back up, or a second way here
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders.sort()
        yield parent, sorted(names)


def _checked(pattern: str | None) -> str | None:
    """A pattern that means the same wherever a worker stands."""
    if pattern in (None, "aeccar", "free-atoms"):
        return pattern
    check_pattern(pattern)
    return pattern if pattern.startswith("{parent}") else str(Path(pattern).absolute())


def check_pattern(pattern: str, several: bool = True) -> None:
    """That a pattern can name the companion of a density.

    Raises
    ------
    RhosightError
        If it has parts that no path has, or names one file for all of ``several`` densities.
    """
    try:
        filled = companion(pattern, Path("parent/name.cube"))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise RhosightError(
            f"{pattern}: {error} is no part of a path; known are {{parent}}, {{name}}, {{stem}}"
        ) from error
    if several and filled == Path(pattern):
        raise RhosightError(
            f"{pattern}: the same file for every density; use {{parent}}, {{name}} or {{stem}}"
        )


def companion(pattern: str, path: Path) -> Path:
    """The file that belongs to a density by a pattern with parts of its path."""
    stem = own_name(path) or path.stem
    return Path(pattern.format(parent=path.parent, name=path.name, stem=stem))


def own_name(path: Path) -> str:
    """What a file of a density calls its material; empty if it does not, as VASP's files do not."""
    return path.name[_own_part(path.name)]


def _own_part(name: str) -> slice:
    """Where in a file's name its material is named; nowhere, it may be."""
    match = None if _VASP.match(name) else _OWN_NAME.match(name)
    return slice(*match.span("stem" if match["stem"] else "vasp")) if match else slice(0, 0)


def material_of(path: Path) -> str:
    """What the material of a density file is called: as the file, or as its folder where the file
    has a name that VASP gives.
    """
    folder = path.parent.name.strip(".") if _VASP.match(path.name) else ""
    return own_name(path) or folder or path.stem


def densities_below(folder: Path) -> str:
    """A shell's pattern for density files below a folder, by the first that is found; or empty."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        between = "*" * len(Path(parent).relative_to(folder).parts)
        for name in sorted(names):
            if _VASP.match(name):
                return str(Path(folder, *between, name))
            if (own := _own_part(name)).stop:
                last = f"{name[: own.start]}*{name[own.stop :]}"
                return str(Path(folder, *between, last))
    return ""


def _beside(path: Path, name: str) -> Path:
    """A file in the same folder, as it is compressed there."""
    places = [path.with_name(name + suffix) for suffix in ("", ".gz", ".bz2", ".xz")]
    return next((place for place in places if place.exists()), places[0])


def _size_and_time(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f"{path.name}: absent"  # reading it says more
    return f"{path.name}: {found.st_size} bytes, {found.st_mtime_ns} ns"
