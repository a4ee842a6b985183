"""What a worker does with a batch of materials."""

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

from .. import schema
from ...density.charge_density import ChargeDensity
from ...errors import RhosightError
from ...inputs.image import ImageSettings, density_image, turn_margin
from ...storage import replacing
from ..sources.source import Entry, Source
from ...inputs.text.description import describe
from ..dataset import Dataset
from ..parquet import parquet_options
from .merging import Place, row_reader
from ..table import build_table

PART_LEVEL = 1
"""zstd's, of what is kept only until the end of the build."""

RELABEL_BATCH = 32

# labels that every row has, if not from the source then from its structure
_FOUND = ("formula", "spacegroup_number", "nsites")

Problems = dict[str, list[tuple[str, str]]]
"""Material id → (step, problem) of each."""


class State(NamedTuple):
    """What a row was made from: digests, and the labels that are a table's.

    Kept in the row's provenance (``build``), so that a later build can tell what has changed.
    """

    input: str
    table: str
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Source, material_id: str) -> State:
        """As the input is now, before it is read: what changes meanwhile is noticed next time."""
        row = source.table_row(material_id)
        units = {k: v for k, v in source.about().get("units", {}).items() if k in row}
        return cls(_digest(source.state(material_id)), _digest([row, units] if row else ""))

    @classmethod
    def in_provenance(cls, text: str | None) -> State:
        """As a row has it; the empty state if it is of no build."""
        found = json.loads(text or "{}").get("build", {})
        return cls(found.get("input", ""), found.get("table", ""), tuple(found.get("columns", ())))

    def added_to(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """A provenance with this state."""
        mine = {name: value for name, value in self._asdict().items() if value}
        return {**provenance, **({"build": mine} if mine else {})}


def _digest(content: Any) -> str:
    if not content:
        return ""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What became of one batch."""

    ids: list[str]
    problems: Problems
    seconds: dict[str, float]


@dataclass(frozen=True)
class Task:
    """All that a worker needs to turn ids into a part."""

    source: Source
    states: Mapping[str, State]
    folder: Path
    texts: tuple[str, ...]
    image: ImageSettings | None
    margin: bool

    @property
    def batch(self) -> int:
        """Materials in one go."""
        return self.source.batch

    def run(self, ids: list[str]) -> Outcome:
        """Read a batch, write its part. Nothing that a material does stops the others."""
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
                    image = self._draw(entry.density)
            except Exception as error:  # a library's failure on one file must not end the build
                problems[material_id] = [(step, _reason(error))]
                continue
            with clock("text"):
                texts, failed = self._describe(entry)
            if failed:
                problems[material_id] = failed
            rows.append(self._row(entry, texts, image))
        with clock("write"):
            _write_part(self.folder, ids, _tables(rows, problems), problems)
        return Outcome(ids, problems, clock.seconds)

    def _draw(self, density: ChargeDensity) -> np.ndarray | None:
        if self.image is None:
            return None
        return density_image(density, self.image, turn_margin(self.image.size) * self.margin)

    def _describe(self, entry: Entry) -> tuple[dict[str, str], list[tuple[str, str]]]:
        name, found, failed = entry.density.name, {}, []
        for extent in self.texts:
            try:
                found[extent] = entry.texts.get(extent) or describe(
                    entry.density.structure, extent, name
                )
            except Exception as error:  # the density is worth having without it
                failed.append((f"text {extent}", _reason(error)))
        return found, failed

    def _row(self, entry: Entry, texts: dict[str, str], image: np.ndarray | None) -> _Row:
        density = entry.density
        from_table = {
            column: value
            for column, value in self.source.table_row(density.name).items()
            if value is not None and column not in entry.labels
        }
        state = self.states[density.name]._replace(columns=tuple(sorted(from_table)))
        density = replace(density, provenance=state.added_to(density.provenance))
        return _Row(density, {**from_table, **entry.labels}, texts, image)


class _Row(NamedTuple):
    """What becomes a row of the part."""

    density: ChargeDensity
    labels: dict[str, Any]
    texts: dict[str, str]
    image: np.ndarray | None

    @property
    def name(self) -> str:
        return self.density.name


def _tables(rows: Sequence[_Row], problems: Problems) -> list[pa.Table]:
    """All rows as one table, or as many as can be: labels that fit no column are a problem."""
    if not rows:
        return []
    labels = pd.DataFrame(
        [row.labels for row in rows], index=pd.Index([row.name for row in rows], name="material_id")
    )
    try:
        table = build_table(
            [row.density for row in rows], labels, {row.name: row.texts for row in rows}
        )
    except Exception as error:
        if len(rows) == 1:
            problems.setdefault(rows[0].name, []).append(("labels", _reason(error)))
            return []
        return [table for row in rows for table in _tables([row], problems)]
    if rows[0].image is not None:
        flat = [np.ravel(row.image).astype(np.float16) for row in rows]
        table = table.append_column("image", pa.array(flat, pa.list_(pa.float16())))
    return [table]


@dataclass(frozen=True)
class Relabel:
    """All that a worker needs to give rows that are there the labels of a changed table."""

    source: Source
    states: Mapping[str, State]
    folder: Path
    places: Mapping[str, Place]
    problems: Problems
    batch: int = RELABEL_BATCH

    def run(self, ids: list[str]) -> Outcome:
        """Copy a batch of rows, with the labels as they are now."""
        clock = _Clock()
        with clock("labels"):
            read = row_reader()
            tables = [self._row(i, schema.validate(read(self.places[i]), i)) for i in ids]
            known = {i: self.problems[i] for i in ids if i in self.problems}
            _write_part(self.folder, ids, tables, known)
        return Outcome(ids, {}, clock.seconds)

    def _row(self, material_id: str, old: pa.Table) -> pa.Table:
        """As reading the density again would give it, to the bit."""
        state = State.in_provenance(old["provenance"][0].as_py())
        dataset = Dataset(old)
        # what was read, or found in the structure
        mine = dataset.table.iloc[0].drop(list(state.columns), errors="ignore").dropna().to_dict()
        raw = dataset.masked.set_index("target")["value"].drop(list(state.columns), errors="ignore")
        mine |= raw.to_dict()
        found = {name: mine.pop(name) for name in _FOUND if name in mine}
        from_table = {
            column: value
            for column, value in self.source.table_row(material_id).items()
            if value is not None and column not in mine
        }
        now = self.states[material_id]._replace(columns=tuple(sorted(from_table)))
        labels = pd.DataFrame(
            [{**found, **from_table, **mine}], index=pd.Index([material_id], name="material_id")
        )
        texts = {k: v for k, v in dataset.texts.iloc[0].items() if v is not None}
        new = build_table([dataset.densities[0]], labels, {material_id: texts})
        kept = schema.columns_with(old.schema, "structure", "density", "image")
        for name in kept:
            new = _with_column(new, old.schema.field(name), old[name])
        provenance = now.added_to(dataset.densities[0].provenance)
        text = json.dumps(provenance, ensure_ascii=False)
        return _with_column(new, old.schema.field("provenance"), pa.array([text]))


def _with_column(table: pa.Table, field: pa.Field, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if field.name in table.column_names:
        return table.set_column(table.column_names.index(field.name), field, values)
    return table.append_column(field, values)


def _reason(error: Exception) -> str:
    """What a table of problems says of an error."""
    if isinstance(error, RhosightError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _write_part(
    folder: Path, ids: Sequence[str], tables: Sequence[pa.Table], problems: Problems
) -> None:
    """The rows of a batch, and what is to be said of them, under a name of the batch's own."""
    if not tables:
        return
    rows = [table.replace_schema_metadata(None) for table in tables]
    table = pa.concat_tables(rows, promote_options="permissive")
    there = set(table["material_id"].to_pylist())
    about = {i: found for i, found in problems.items() if i in there}
    table = table.replace_schema_metadata({"problems": json.dumps(about, ensure_ascii=False)})
    name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    with replacing(folder / f"{name}.parquet") as draft:
        pq.write_table(table, draft, row_group_size=1, **parquet_options(PART_LEVEL))


class _Clock:
    """Seconds spent in each step."""

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
