"""Crystals without densities: a folder of structure files, or one table."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from pymatgen.core import Structure

from ...density.bare_crystal import BareCrystal
from ...density.cif import parse_cif
from ...density.crystals import check_crystal
from ...density.structure_json import parse_structure_json
from ...density.structures import add_structure_notes, get_notes, read_structure
from ...errors import RhosightError, first_line
from .search import find_materials
from .source import Entry, Source
from .tables import ID_NAMES, clean_table, read_frame, read_targets

STRUCTURE_NAMES = ("structure", "cif")
"""Columns of a table that hold a structure: pymatgen's JSON, or the text of a CIF."""

PARTS = ("lattice", "species", "frac_coords")
"""Columns that together hold a structure: vectors as rows in Å, symbols, coordinates."""

TABLES = re.compile(r"\.(csv|tsv|parquet|jsonl|ndjson)(\.(gz|bz2|xz))?$", re.IGNORECASE)

_ENDING = re.compile(r"\.(m?cif|json|vasp|poscar)?(\.(gz|bz2|xz))?$", re.IGNORECASE)
_NAMELESS = re.compile(r"^(POSCAR|CONTCAR|CHGCAR|CHG|AECCAR\d)\b", re.IGNORECASE)
_SHOWN = 3


class Structures(Source):
    """Read crystals that have no charge density, and a table of their properties.

    Parameters
    ----------
    path
        A folder that is searched with its subfolders (CIF, POSCAR, CONTCAR, or the structures of
        density files; plain or compressed), one such file, or a table: CSV, Parquet or JSON lines,
        with a column of ids, a column ``structure`` (pymatgen's JSON) or ``cif`` (text), or the
        columns ``lattice``, ``species`` and ``frac_coords``. Its other columns are labels.
    targets
        Table of labels, see :func:`rhosight.dataset.sources.tables.read_targets`. It holds ids, or
        the last part of ids, or names of files.
    id_column
        Column of the ids in both tables.
    """

    name: ClassVar[str] = "structures"
    batch: ClassVar[int] = 32

    def __init__(
        self,
        path: str | os.PathLike,
        targets: str | os.PathLike | None = None,
        id_column: str | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        if not self.path.exists():
            raise RhosightError(f"{path}: no such file or folder; check the path")
        self.targets = Path(targets).resolve() if targets else None
        self.id_column = id_column
        self.passed_over: dict[str, str] = {}
        """File below the folder → why it is not a material; known after :meth:`ids`."""
        self._files: dict[str, Path] = {}
        self._rows: dict[str, Any] = {}
        self._labels: dict[str, dict[str, Any]] = {}
        self._units: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    def ids(self) -> list[str]:
        """List the ids of all crystals, and match them with the rows of the table."""
        self._problems = {}
        if self.path.is_file() and TABLES.search(self.path.name):
            self._read_table()
        else:
            self._find_files()
        if self.targets:
            labels, units = read_targets(self.targets, self.id_column)
            self._units |= units
            self._match(labels)
        return sorted({**self._files, **self._rows})

    def read(self, material_id: str) -> Entry:
        """Read one crystal."""
        if material_id in self._files:
            file = self._files[material_id]
            structure, source = read_structure(file), file.name
        else:
            structure = parse_row(self._rows[material_id], f"{self.path.name}: {material_id}")
            source = self.path.name
        provenance: dict[str, Any] = {"source": f"structure: {source}"}
        if notes := get_notes(structure):
            provenance["notes"] = notes
        structure.properties = {}
        return Entry(BareCrystal(structure, material_id, provenance))

    def settings(self) -> dict[str, Any]:
        """Return the place of the structures."""
        return {"path": str(self.path)}

    def state(self, material_id: str) -> str:
        """Return the size and time of its file, or the digest of its row."""
        if material_id in self._files:
            about = self._files[material_id].stat()
            return f"{about.st_size} {about.st_mtime_ns}"
        text = json.dumps(self._rows[material_id], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def table_row(self, material_id: str) -> dict[str, Any]:
        """Return its labels; None if missing."""
        return self._labels.get(material_id, {})

    def problems(self) -> dict[str, str]:
        """Return duplicated ids, and rows of the table without a structure."""
        return self._problems

    def about(self) -> dict[str, Any]:
        """Return the units of targets."""
        return {"units": self._units}

    def _find_files(self) -> None:
        if self.path.is_dir():
            search = find_materials(self.path, structures=True)
            files, self.passed_over = search.files, search.passed_over
        else:
            files = [self.path]
        root = self.path if self.path.is_dir() else self.path.parent
        self._files = {}
        for file in files:
            name = _name_file(file, root)
            if name in self._files:
                self._problems[file.relative_to(root).as_posix()] = (
                    f"{file}: {self._files[name]} has the same id {name}; rename one"
                )
            else:
                self._files[name] = file

    def _read_table(self) -> None:
        frame = read_structure_table(self.path, self.id_column)
        names = [n for n in (*STRUCTURE_NAMES, *PARTS) if n in frame]
        has_parts = set(PARTS) <= set(names)
        column = next((name for name in STRUCTURE_NAMES if name in names), None)
        if column is None and not has_parts:
            raise RhosightError(
                f"{self.path}: no column {' or '.join(STRUCTURE_NAMES)}, nor {', '.join(PARTS)}, "
                f"only {', '.join(map(str, frame))[:100]}; name the column of the structures so"
            )
        used = [column] if column else list(PARTS)
        structures = frame[used].to_dict("records")
        labels, self._units = clean_table(frame.drop(columns=names), self.path, self.id_column)
        self._rows = dict(zip(labels.index, structures, strict=True))
        self._labels = _to_labels(labels)

    def _match(self, labels: pd.DataFrame) -> None:
        """Give each crystal the labels of its row; rows without one are problems."""
        known = {**self._files, **self._rows}
        last: dict[str, list[str]] = {}
        for name in known:
            last.setdefault(name.rpartition("/")[2], []).append(name)
        absent = []
        rows = _to_labels(labels)
        for row, values in rows.items():
            text = row if row in known else _ENDING.sub("", row)
            owners = [text] if text in known else last.get(text, [])
            if len(owners) > 1:
                self._problems[row] = (
                    f"{row}: {' and '.join(owners[:2])} have this name; give the path below the "
                    "folder"
                )
            elif owners:
                self._labels[owners[0]] = {**self._labels.get(owners[0], {}), **values}
            else:
                absent.append(row)
        assert self.targets is not None
        if len(absent) == len(rows):
            raise RhosightError(
                f"{self.targets}: none of its ids ({', '.join(absent[:_SHOWN])}, ...) belongs to a "
                f"structure ({', '.join(sorted(known)[:_SHOWN])}, ...); correct the ids, or name "
                "another column (--id-column)"
            )
        if absent:
            self._problems[self.targets.name] = (
                f"{len(absent)} of its {len(rows)} rows have no structure here, such as "
                f"{', '.join(absent[:_SHOWN])}"
            )
        columns = list(map(str, labels))
        for name in known:  # every row has the same columns
            self._labels[name] = {**dict.fromkeys(columns), **self._labels.get(name, {})}


def _name_file(file: Path, root: Path) -> str:
    """Return the id of a file: its path without endings, or that of its folder."""
    path = file.relative_to(root)
    if _NAMELESS.match(path.name):
        folder = path.parent.as_posix()
        return file.parent.name if folder == "." else folder
    return path.with_name(_ENDING.sub("", path.name) or path.name).as_posix()


def read_structure_table(path: Path, id_column: str | None = None) -> pd.DataFrame:
    """Read a table of structures: CSV, Parquet, or one JSON object a line."""
    if re.search(r"\.(jsonl|ndjson)(\.|$)", path.name, re.IGNORECASE):
        names = {id_column} if id_column else set(ID_NAMES)
        try:
            return pd.read_json(
                path,
                lines=True,
                precise_float=True,
                convert_dates=False,
                dtype={name: str for name in names},
            )
        except (ValueError, OSError) as error:
            raise RhosightError(
                f"{path}: not readable as one JSON object a line ({first_line(error)}); write the "
                "file again"
            ) from error
    return read_frame(path, id_column)


def parse_row(row: Mapping[str, Any], where: str) -> Structure:
    """Return the structure of a row of a table.

    Parameters
    ----------
    row
        One of :data:`STRUCTURE_NAMES`, or all of :data:`PARTS`.
    where
        What error messages name.
    """
    content = next((row[name] for name in STRUCTURE_NAMES if name in row), None)
    if isinstance(content, str) and not content.lstrip().startswith("{"):
        return add_structure_notes(*parse_cif(content, where))
    if content is None and set(PARTS) <= set(row):
        content = _join_parts(row, where)
    if not isinstance(content, str | dict):
        raise RhosightError(f"{where}: there is no structure; fill it in, or remove the row")
    text = content if isinstance(content, str) else json.dumps(content)
    structure = parse_structure_json(text, where).remove_oxidation_states()
    check_crystal(structure, where)
    return structure


def _join_parts(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return pymatgen's form of lattice, species and coordinates."""
    lattice, species, places = (
        json.loads(value) if isinstance(value, str) else value
        for value in (row[name] for name in PARTS)
    )
    try:
        if len(species) != len(places):
            raise RhosightError(
                f"{where}: {len(species)} species, but {len(places)} coordinates; correct the row"
            )
        sites = [
            {"species": [{"element": str(symbol), "occu": 1}], "abc": [float(x) for x in place]}
            for symbol, place in zip(species, places, strict=True)
        ]
        return {"lattice": {"matrix": [[float(x) for x in v] for v in lattice]}, "sites": sites}
    except (TypeError, ValueError) as error:
        raise RhosightError(
            f"{where}: lattice, species and frac_coords are no lists ({first_line(error)}); write "
            "them as lists"
        ) from error


def _to_labels(labels: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return id → label → value, None where it is missing."""
    # without columns, pandas lists no records
    records = labels.to_dict("records") or [{}] * len(labels)
    return {
        str(name): {str(k): None if pd.isna(v) else v for k, v in record.items()}
        for name, record in zip(labels.index, records, strict=True)
    }
