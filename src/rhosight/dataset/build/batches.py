"""Process one batch of materials in a worker: read it, or give it new labels."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...density.bare_crystal import Crystal, require_density
from ...errors import RhosightError
from ...inputs.image import ImageSettings, density_image, turn_margin
from ...inputs.text.description import describe
from ...inputs.text.extents import Extent
from ...storage import replacing
from .. import schema
from ..dataset import Dataset
from ..parquet import parquet_options
from ..sources.source import Entry, Source
from ..table import build_table
from .merging import Place, make_row_reader

PART_LEVEL = 1
"""zstd's compression level for files that exist only until the end of the build."""

RELABEL_BATCH = 32

# labels of every row, taken from the structure if the source lacks them
_FROM_STRUCTURE = ("formula", "spacegroup_number", "nsites")

Problems = dict[str, list[tuple[str, str]]]
"""Material id → (step, problem) of each."""


class State(NamedTuple):
    """Identify the input of a row: digests, and the names of a table's labels.

    The row's provenance (``build``) keeps it, so that a later build can tell what has changed.
    """

    input: str
    table: str
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, material_id: str) -> State:
        """Return the state of the input now, before it is read.

        A change during reading is noticed in the next build.
        """
        row = source.table_row(material_id)
        units = {k: v for k, v in source.about().get("units", {}).items() if k in row}
        return cls(_digest(source.state(material_id)), _digest([row, units] if row else ""))

    @classmethod
    def in_provenance(cls, text: str | None) -> State:
        """Return the state that a row stores; the empty state if no build made the row."""
        stored = json.loads(text or "{}").get("build", {})
        columns = tuple(stored.get("columns", ()))
        return cls(stored.get("input", ""), stored.get("table", ""), columns)

    def add_to(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Return a provenance with this state."""
        mine = {name: value for name, value in self._asdict().items() if value}
        return {**provenance, **({"build": mine} if mine else {})}


def _digest(content: Any) -> str:
    if not content:
        return ""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """Report the result of one batch."""

    ids: list[str]
    problems: Problems
    seconds: dict[str, float]


@dataclass(frozen=True)
class Task:
    """Hold all that a worker needs to read materials and write them as a part."""

    source: Source
    states: Mapping[str, State]
    folder: Path
    texts: tuple[Extent, ...]
    image: ImageSettings | None
    margin: bool

    @property
    def batch(self) -> int:
        """Number of materials per batch."""
        return self.source.batch

    def run(self, ids: list[str]) -> Outcome:
        """Read a batch and write its part. A failing material does not stop the others."""
        clock = _Clock()
        problems: Problems = {}
        rows: list[_Row] = []
        for material_id in ids:
            step = "read"
            try:
                with clock("read"):
                    entry = self.source.read(material_id)
                step = "image"
                with clock("image"):
                    image = self._draw(entry.crystal)
            except Exception as error:  # no error of a library on one file may end the build
                problems[material_id] = [(step, _explain_error(error))]
                continue
            with clock("text"):
                texts, failed = self._describe(entry)
            if failed:
                problems[material_id] = failed
            rows.append(self._row(entry, texts, image))
        with clock("write"):
            _write_part(self.folder, ids, _convert(rows, problems), problems)
        return Outcome(ids, problems, clock.seconds)

    def _draw(self, crystal: Crystal) -> np.ndarray | None:
        if self.image is None:
            return None
        density = require_density(crystal)
        return density_image(density, self.image, turn_margin(self.image.size) * self.margin)

    def _describe(self, entry: Entry) -> tuple[dict[str, str], list[tuple[str, str]]]:
        name, structure = entry.crystal.name, entry.crystal.structure
        texts: dict[str, str] = {}
        failed: list[tuple[str, str]] = []
        for extent in self.texts:
            try:
                texts[extent] = entry.texts.get(extent) or describe(structure, extent, name)
            except Exception as error:  # the material is useful without the text
                failed.append((f"text {extent}", _explain_error(error)))
        return texts, failed

    def _row(self, entry: Entry, texts: dict[str, str], image: np.ndarray | None) -> _Row:
        crystal = entry.crystal
        from_table = {
            column: value
            for column, value in self.source.table_row(crystal.name).items()
            if value is not None and column not in entry.labels
        }
        state = self.states[crystal.name]._replace(columns=tuple(sorted(from_table)))
        crystal = replace(crystal, provenance=state.add_to(crystal.provenance))
        return _Row(crystal, {**from_table, **entry.labels}, texts, image)


class _Row(NamedTuple):
    """Hold one material on its way into a part."""

    crystal: Crystal
    labels: dict[str, Any]
    texts: dict[str, str]
    image: np.ndarray | None

    @property
    def name(self) -> str:
        return self.crystal.name


def _convert(rows: Sequence[_Row], problems: Problems) -> list[pa.Table]:
    """Convert all rows to one table, or to as many as possible.

    Labels that fit no column become a problem of their material.
    """
    if not rows:
        return []
    labels = pd.DataFrame(
        [row.labels for row in rows], index=pd.Index([row.name for row in rows], name="material_id")
    )
    try:
        table = build_table(
            [row.crystal for row in rows], labels, {row.name: row.texts for row in rows}
        )
    except Exception as error:
        if len(rows) == 1:
            problems.setdefault(rows[0].name, []).append(("labels", _explain_error(error)))
            return []
        return [table for row in rows for table in _convert([row], problems)]
    if rows[0].image is not None:
        flat = [np.ravel(row.image).astype(np.float16) for row in rows if row.image is not None]
        table = table.append_column("image", pa.array(flat, pa.list_(pa.float16())))
    return [table]


@dataclass(frozen=True)
class Relabel:
    """Hold all that a worker needs to give rows the labels of a changed table."""

    source: Source
    states: Mapping[str, State]
    folder: Path
    places: Mapping[str, Place]
    problems: Problems
    batch: int = RELABEL_BATCH

    def run(self, ids: list[str]) -> Outcome:
        """Copy a batch of rows with the current labels."""
        clock = _Clock()
        with clock("labels"):
            read = make_row_reader()
            tables = [self._row(i, schema.validate(read(self.places[i]), i)) for i in ids]
            known = {i: self.problems[i] for i in ids if i in self.problems}
            _write_part(self.folder, ids, tables, known)
        return Outcome(ids, {}, clock.seconds)

    def _row(self, material_id: str, old: pa.Table) -> pa.Table:
        """Return the row exactly as reading the density again would give it."""
        state = State.in_provenance(old["provenance"][0].as_py())
        dataset = Dataset(old)
        # labels that came from reading or from the structure
        old_columns = list(state.columns)
        row = dataset.table.iloc[0].drop(old_columns, errors="ignore").dropna()
        own = {str(name): value for name, value in row.items()}
        raw = dataset.masked.set_index("target")["value"].drop(old_columns, errors="ignore")
        own |= {str(name): value for name, value in raw.items()}
        from_structure = {name: own.pop(name) for name in _FROM_STRUCTURE if name in own}
        from_table = {
            column: value
            for column, value in self.source.table_row(material_id).items()
            if value is not None and column not in own
        }
        now = self.states[material_id]._replace(columns=tuple(sorted(from_table)))
        labels = pd.DataFrame(
            [{**from_structure, **from_table, **own}],
            index=pd.Index([material_id], name="material_id"),
        )
        texts = {str(k): v for k, v in dataset.texts.iloc[0].items() if v is not None}
        new = build_table([dataset[0].crystal], labels, {material_id: texts})
        for name in schema.columns_with(old.schema, "structure", "density", "image"):
            new = _with_column(new, old.schema.field(name), old[name])
        provenance = now.add_to(dataset.provenances[0])
        text = json.dumps(provenance, ensure_ascii=False)
        return _with_column(new, old.schema.field("provenance"), pa.array([text]))


def _with_column(table: pa.Table, field: pa.Field, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if field.name in table.column_names:
        return table.set_column(table.column_names.index(field.name), field, values)
    return table.append_column(field, values)


def _explain_error(error: Exception) -> str:
    """Return the text for an error in the table of problems."""
    if isinstance(error, RhosightError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _write_part(
    folder: Path, ids: Sequence[str], tables: Sequence[pa.Table], problems: Problems
) -> None:
    """Write the rows of a batch and their problems to the batch's own file."""
    if not tables:
        return
    rows = [table.replace_schema_metadata(None) for table in tables]
    table = pa.concat_tables(rows, promote_options="permissive")
    written = set(table["material_id"].to_pylist())
    about = {i: noted for i, noted in problems.items() if i in written}
    table = table.replace_schema_metadata({"problems": json.dumps(about, ensure_ascii=False)})
    name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    with replacing(folder / f"{name}.parquet") as draft:
        pq.write_table(table, draft, row_group_size=1, **parquet_options(PART_LEVEL))


class _Clock:
    """Measure the seconds spent in each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[step] = self.seconds.get(step, 0.0) + spent
