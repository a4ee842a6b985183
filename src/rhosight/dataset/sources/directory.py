"""A directory of densities, as DFT codes write them, and a table of targets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from pymatgen.core import Composition

from ...density.channels import find_channel, find_partner, find_total
from ...density.charge_density import ChargeDensity
from ...density.difference import add_difference, compute_difference
from ...density.electrons import Unit
from ...density.files import NotesMode, read_density, recognise
from ...density.labels import identify_name
from ...errors import RhosightError
from .source import Entry, Source
from .tables import read_targets

# VASP's names are the same in every folder, so the folder names the material. Files of other codes
# name their material themselves.
_VASP = re.compile(r"^(CHGCAR|CHG|AECCAR[012])(\.(gz|bz2|xz))?$", re.IGNORECASE)
_OWN_NAME = re.compile(
    r"^(?P<stem>.+?)\.(cube|cub|xsf|chgcar|chg|vasp|h5|hdf5)(\.(gz|bz2|xz))?$|"
    r"^(CHGCAR|CHG)[._-](?P<vasp>.+?)(\.(gz|bz2|xz))?$",
    re.IGNORECASE,
)
# By-products in a folder that has a CHGCAR: sums, backups, magnetisations, inputs, HDF5 output
_BY_PRODUCT = re.compile(
    r"^((CHGCAR|CHG)[._-](sum|tot|mag|spin|up|down|diff|old|bak|backup|orig|save|relax\d*)|"
    r"POSCAR|CONTCAR|vaspout|vaspwave)\b",
    re.IGNORECASE,
)
_PREFERRED = ("CHGCAR", "AECCAR2", "CHG")


class Directory(Source):
    """Read all densities under a folder.

    A material is a folder that holds a CHGCAR, CHG or AECCAR2 (its id is the folder's path below
    the root), or a file ``<id>.cube``, ``<id>.xsf``, ``<id>.chgcar``, ``<id>.vasp`` or
    ``CHGCAR_<id>``. All may be compressed (gz, bz2, xz). Beside a CHGCAR, other files of VASP and
    its tools (CHGCAR_sum, CHGCAR.bak, vaspout.h5, POSCAR.vasp) are ignored. So are files whose name
    says that they hold something else (a potential, an orbital, a spin density), whatever code
    wrote them. Two files of one spin each are one material. Links to folders are followed.

    Parameters
    ----------
    folder
        The root.
    targets
        CSV, Parquet or Excel file; see :func:`rhosight.dataset.sources.tables.read_targets`.
    id_column
        Its column with the ids: a material's id, or the name of its last folder or file if that is
        unambiguous.
    kind
        Content of the files: ``"total"``, or ``"difference"`` for the output of a tool that
        subtracts.
    difference
        Origin of ``difference``, beside ``total``. ``"aeccar"``: AECCAR2 − AECCAR1, both
        all-electron; ``total`` is then AECCAR2, since the two never mix with CHGCAR.
        ``"free-atoms"``: minus the table of free atoms, see
        :mod:`rhosight.density.free_atoms`. Otherwise the path of another file with the difference,
        in which ``{parent}``, ``{name}`` and ``{stem}`` stand for parts of the density's path.
    reference
        Path, as for ``difference``, of a file with the superposed free atoms of the same code:
        ``difference`` is the density minus it.
    unit
        Unit of the values in cube, XSF and HDF5 files if it is not the one of their format; see
        :func:`rhosight.density.read_density`.
    notes
        ``"strict"`` makes a density with notes a problem.
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
        notes: NotesMode = "show",
    ) -> None:
        self.folder = Path(folder).resolve()
        if not self.folder.is_dir():
            raise RhosightError(f"{folder}: no such folder; give the folder with the densities")
        if difference and reference:
            raise RhosightError("give either a difference or a reference, not both")
        if kind == "difference" and (difference or reference):
            raise RhosightError(
                "the files hold the difference already (kind); omit difference and reference"
            )
        self.kind = kind
        self.difference, self.reference = _resolve_pattern(difference), _resolve_pattern(reference)
        self.unit = unit
        self.notes: NotesMode = notes
        self.targets = Path(targets).resolve() if targets else None
        self.id_column = id_column
        self._files: dict[str, Path] = {}
        self._labels: pd.DataFrame | None = None
        self._rows: dict[str, str] = {}
        self._units: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self.passed_over: dict[str, str] = {}
        """File below the folder → why it is not a material; known after :meth:`ids`."""

    def ids(self) -> list[str]:
        """List the ids of all densities, and match them with the rows of the table."""
        self._files, self._problems = self._find()
        if not self._files:
            passed = next((f" ({file}: {why})" for file, why in self.passed_over.items()), "")
            raise RhosightError(
                f"{self.folder}: no density file below this folder; expected CHGCAR, CHG, AECCAR2, "
                f"*.cube, *.xsf, *.chgcar or *.vasp, compressed or not{passed}"
            )
        if self.targets:
            self._labels, self._units = read_targets(self.targets, self.id_column)
            self._match_rows(self.targets, self._labels)
        return sorted(self._files)

    @property
    def files(self) -> dict[str, Path]:
        """Return id → density file; known after :meth:`ids`."""
        return self._files

    def problems(self) -> dict[str, str]:
        """Return duplicated ids, and rows of the table without a density."""
        return self._problems

    def read(self, material_id: str) -> Entry:
        """Read the density of one material."""
        path = self._files[material_id]
        density = self._read_density(path)
        provenance = {**density.provenance, "file": path.relative_to(self.folder).as_posix()}
        return Entry(ChargeDensity(density.structure, density.grids, material_id, provenance))

    def state(self, material_id: str) -> str:
        """Return size and time of its files; hashing them would take too long."""
        path = self._files[material_id]
        files = [path, *self._companions(path)]
        if channel := find_channel(path.name):
            files += [p for n in channel.partners if (p := path.with_name(n)).exists()]
        return "; ".join(map(_size_and_time, files))

    def table_row(self, material_id: str) -> dict[str, Any]:
        """Return its labels in the table; None if missing."""
        if self._labels is None:
            return {}
        if material_id not in self._rows:
            return dict.fromkeys(map(str, self._labels))
        row = self._labels.loc[self._rows[material_id]]
        return {str(name): None if pd.isna(value) else value for name, value in row.items()}

    def settings(self) -> dict[str, Any]:
        """Return the folder and how its files are read."""
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "difference": self.difference,
            "reference": self.reference,
            "unit": self.unit,
            **({"notes": self.notes} if self.notes != "show" else {}),
        }

    def about(self) -> dict[str, Any]:
        """Return the folder's name and the units of the table."""
        return {"name": self.folder.name, "units": self._units}

    def _read_density(self, path: Path) -> ChargeDensity:
        """Read one material's grids, with the difference from its configured origin."""
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
        """Read a file; a CHGCAR always has the unit of its format."""
        unit = None if recognise(path) == "CHGCAR" else self.unit
        said = None if kind == "total" else kind
        return read_density(path, said, unit, notes=self.notes)

    def _companions(self, path: Path) -> list[Path]:
        """Return the other file that the density needs, if any, for its difference."""
        if self.difference == "aeccar":
            return [_beside(path, "AECCAR1")]
        pattern = self.reference or self.difference
        if pattern is None or pattern == "free-atoms":
            return []
        return [fill_pattern(pattern, path)]

    def _find(self) -> tuple[dict[str, Path], dict[str, str]]:
        """Return id → density file, and ambiguous files as problems."""
        chosen: dict[str, Path] = {}
        problems: dict[str, str] = {}
        self.passed_over = {}
        files = [
            entry
            for parent, names in walk(self.folder)
            for entry in self._in_folder(Path(parent), names)
        ]
        patterns = [p for p in (self.difference, self.reference) if p and "{" in p]
        companions = {
            other
            for pattern in patterns
            for _, path in files
            if (other := fill_pattern(pattern, path)) != path
        }
        for material_id, path in files:
            if path in companions:
                continue
            if material_id in chosen:
                problems[path.relative_to(self.folder).as_posix()] = (
                    f"{path}: {chosen[material_id]} has the same id {material_id}; rename one"
                )
            else:
                chosen[material_id] = path
        return chosen, problems

    def _in_folder(self, parent: Path, names: list[str]) -> list[tuple[str, Path]]:
        vasp: dict[str, str] = {}
        for name in names:
            if match := _VASP.match(name):
                vasp.setdefault(match[1].upper(), name)
        chosen = next((vasp[name] for name in _PREFERRED if name in vasp), None)
        if chosen and self.difference == "aeccar":  # reading reports it if there is none
            chosen = vasp.get("AECCAR2", "AECCAR2")
        below = parent.relative_to(self.folder).as_posix()
        own = self.folder.name if below == "." else below
        entries = [(own, parent / chosen)] if chosen else []
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            if chosen and _BY_PRODUCT.match(name):
                continue
            if not (match := _OWN_NAME.match(name)) or _VASP.match(name):
                continue
            if why := self._explain_by_product(name, names):
                self.passed_over[f"{prefix}{name}"] = why
                continue
            entries.append((f"{prefix}{match['stem'] or match['vasp']}", parent / name))
        return entries

    def _explain_by_product(self, name: str, names: list[str]) -> str:
        """Return why a file is no material of its own; empty if it is one."""
        content = identify_name(name)
        if content and content.kind != self.kind and not _is_formula(name):
            return f"{content.name}, by its name"
        channel = find_channel(name)
        partner = find_partner(name, names)
        if channel and (total := find_total(name, names)):
            return f"one spin of {total}"
        if channel and not channel.is_first and partner:
            return f"the other spin of {partner}, read together with it"
        return ""

    def _match_rows(self, targets: Path, labels: pd.DataFrame) -> None:
        """Match the rows of the table with the materials."""
        last: dict[str, list[str]] = {}
        for material_id in self._files:
            last.setdefault(material_id.rpartition("/")[2], []).append(material_id)
        for row in map(str, labels.index):
            names = self._list_names(row)
            full = next((name for name in names if name in self._files), None)
            # the last part of an id is enough if only one material has it
            short = (last[name] for name in names if "/" not in row and name in last)
            candidates = [full] if full else next(short, [])
            if len(candidates) > 1:
                self._problems[row] = (
                    f"{row}: in {targets.name}, but {' and '.join(candidates)} have this name; "
                    "give the path below the folder"
                )
            elif not candidates:
                self._problems[row] = f"{row}: in {targets.name}, but no density has this id"
            elif (before := self._rows.setdefault(candidates[0], row)) != row:
                self._problems[row] = (
                    f"{row}: in {targets.name}, but {before} also refers to {candidates[0]}; "
                    "keep one of the rows"
                )
        if not self._rows:
            raise RhosightError(
                f"{targets}: none of its ids ({', '.join(map(str, labels.index[:3]))}, ...) "
                f"belongs to a density ({', '.join(sorted(self._files)[:3])}, ...); correct the "
                "ids, or name another column (--id-column)"
            )

    def _list_names(self, row: str) -> list[str]:
        """Return the possible names of a row's material: its id, its file or its folder."""
        path = Path(row)
        if path.is_absolute() and path.is_relative_to(self.folder):
            path = path.relative_to(self.folder)
        text = path.as_posix()
        if _VASP.match(path.name):
            return [row, self.folder.name if path.parent == Path() else path.parent.as_posix()]
        own = parse_name(path)
        return [row, text, *([path.with_name(own).as_posix()] if own else [])]


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield all folders and their files in the order of names, and follow links.

    Raises
    ------
    RhosightError
        If a folder cannot be read: its materials would seem to be gone.
    """
    seen = set()

    def fail(error: OSError) -> None:
        raise RhosightError(
            f"{error.filename}: the folder cannot be read ({error.strerror}); make it readable, or "
            "move it elsewhere"
        ) from error

    for parent, folders, names in os.walk(root, onerror=fail, followlinks=True):
        about = os.stat(parent)
        if (about.st_dev, about.st_ino) in seen:  # a link to a folder visited before
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders.sort()
        yield parent, sorted(names)


def _resolve_pattern(pattern: str | None) -> str | None:
    """Return a pattern that is valid in the current folder of any worker."""
    if pattern in (None, "aeccar", "free-atoms"):
        return pattern
    check_pattern(pattern)
    return pattern if pattern.startswith("{parent}") else str(Path(pattern).absolute())


def check_pattern(pattern: str, several: bool = True) -> None:
    """Check that a pattern can name the companion of a density.

    Raises
    ------
    RhosightError
        If it has unknown fields, or names one file for all of ``several`` densities.
    """
    try:
        filled = fill_pattern(pattern, Path("parent/name.cube"))
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise RhosightError(
            f"{pattern}: {error} is not a part of a path; use {{parent}}, {{name}} or {{stem}}"
        ) from error
    if several and filled == Path(pattern):
        raise RhosightError(
            f"{pattern}: names the same file for every density; use {{parent}}, {{name}} or "
            "{stem}"
        )


def fill_pattern(pattern: str, path: Path) -> Path:
    """Return the companion of a density: the pattern with parts of its path."""
    stem = parse_name(path) or path.stem
    return Path(pattern.format(parent=path.parent, name=path.name, stem=stem))


def parse_name(path: Path) -> str:
    """Return the material that a file's name gives; empty for VASP's file names."""
    return path.name[_find_name(path.name)]


def _is_formula(name: str) -> bool:
    """Return whether a file is named like a crystal of two elements, as VH.cube is."""
    try:
        return 1 <= len(Composition(parse_name(Path(name)), strict=True).elements) <= 2
    except ValueError:
        return False


def _find_name(name: str) -> slice:
    """Return the slice of a file's name that names its material; it may be empty."""
    match = None if _VASP.match(name) else _OWN_NAME.match(name)
    return slice(*match.span("stem" if match["stem"] else "vasp")) if match else slice(0, 0)


def name_material(path: Path) -> str:
    """Return the name of a density's material, from its file or (VASP) its folder."""
    folder = path.parent.name.strip(".") if _VASP.match(path.name) else ""
    return parse_name(path) or folder or path.stem


def guess_pattern(folder: Path) -> str:
    """Return a glob pattern for density files below a folder; empty without any."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        between = "*" * len(Path(parent).relative_to(folder).parts)
        for name in sorted(names):
            if _VASP.match(name):
                return str(Path(folder, *between, name))
            if (own := _find_name(name)).stop:
                last = f"{name[: own.start]}*{name[own.stop :]}"
                return str(Path(folder, *between, last))
    return ""


def _beside(path: Path, name: str) -> Path:
    """Return a file in the same folder, compressed or not."""
    places = [path.with_name(name + suffix) for suffix in ("", ".gz", ".bz2", ".xz")]
    return next((place for place in places if place.exists()), places[0])


def _size_and_time(path: Path) -> str:
    try:
        about = path.stat()
    except OSError:
        return f"{path.name}: absent"  # reading it reports why
    return f"{path.name}: {about.st_size} bytes, {about.st_mtime_ns} ns"
