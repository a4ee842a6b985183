"""Merge many small Parquet files into a dataset sorted by id, in constant memory."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import RhosightError
from ...inputs.progress import Progress
from ...storage import replacing
from .. import schema
from ..parquet import ROWS_IN_GROUP, parquet_options

SHARD_ROWS = 992
"""Materials per file if a dataset is a folder of files; a multiple of the row group."""

LEVEL = 9
"""zstd's compression level."""

GROUPS_KEPT = 4


class Place(NamedTuple):
    """Locate the row of a material."""

    file: Path
    group: int
    row: int


def make_row_reader() -> Callable[[Place], pa.Table]:
    """Create a function that reads rows and caches a few row groups.

    Neighbours in the order of ids are often neighbours in a file. The cache is small, since row
    groups of a finished dataset are large.
    """

    @lru_cache(maxsize=GROUPS_KEPT)
    def read_group(file: Path, group: int) -> pa.Table:
        with pq.ParquetFile(file) as content:
            return content.read_row_group(group)

    return lambda place: read_group(place.file, place.group).slice(place.row, 1)


def places_of(files: Sequence[Path]) -> Iterator[tuple[str, Place, str | None]]:
    """Yield material id, place and provenance of each row in these files."""
    names = ["material_id", "provenance"]
    for file in files:
        with pq.ParquetFile(file) as content:
            for group in range(content.num_row_groups):
                columns = content.read_row_group(group, columns=names).to_pydict()
                rows = zip(columns["material_id"], columns["provenance"], strict=True)
                for row, (material_id, provenance) in enumerate(rows):
                    yield material_id, Place(file, group, row), provenance


def merge(
    places: Mapping[str, Place],
    ids: Sequence[str],
    out: Path,
    about: Mapping[str, Any],
    progress: Progress | None = None,
) -> None:
    """Write the rows of these ids, in this order, to a dataset, atomically.

    ``out`` becomes one file if it ends in ``.parquet``, and a folder of files otherwise.

    Raises
    ------
    RhosightError
        If the type of a label differs between materials.
    """
    goal = _join_schemas({places[i].file for i in ids}, about)
    chunks = _read_chunks(places, ids, goal, progress)
    if out.suffix == ".parquet":
        with replacing(out) as draft:
            _write(chunks, draft, goal)
        return
    with _replace_folder(out) as draft:
        number = 0
        while (first := next(chunks, None)) is not None:
            more = itertools.islice(chunks, SHARD_ROWS // ROWS_IN_GROUP - 1)
            _write(itertools.chain([first], more), draft / f"part-{number:05d}.parquet", goal)
            number += 1


def _join_schemas(files: set[Path], about: Mapping[str, Any]) -> pa.Schema:
    """Join the columns of all files; an empty column takes the others' type."""
    types: dict[str, pa.DataType] = {}
    for file in sorted(files):
        for column in pq.read_schema(file):
            known = types.get(column.name, pa.null())
            if pa.types.is_null(known):
                types[column.name] = column.type
            elif not pa.types.is_null(column.type) and column.type != known:
                raise RhosightError(
                    f"label `{column.name}` has type {known} for some materials and {column.type} "
                    "for others; use only numbers, or only text"
                )
    names = [name for name in schema.KNOWN if name in types]
    names += sorted(set(types) - set(names))
    about = dict(about)
    units = about.pop("units", {})
    fields = [schema.make_field(name, types[name], units.get(name, "")) for name in names]
    texts = {
        k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in about.items()
    }
    goal = pa.schema(fields)
    return goal.with_metadata(schema.file_metadata(goal, texts))


def _read_chunks(
    places: Mapping[str, Place],
    ids: Sequence[str],
    goal: pa.Schema,
    progress: Progress | None,
) -> Iterator[pa.Table]:
    """Yield the rows of these ids, one row group at a time."""
    read = make_row_reader()
    for start in range(0, len(ids), ROWS_IN_GROUP):
        part = ids[start : start + ROWS_IN_GROUP]
        rows = [read(places[i]).replace_schema_metadata(None) for i in part]
        table = pa.concat_tables(rows, promote_options="permissive")
        columns = [
            table[f.name].cast(f.type)
            if f.name in table.column_names
            else pa.nulls(len(table), f.type)
            for f in goal
        ]
        yield schema.validate(pa.table(columns, schema=goal), "the merged dataset")
        if progress:
            progress("merge", start + len(part), len(ids))


def _write(chunks: Iterator[pa.Table], path: Path, goal: pa.Schema) -> None:
    with pq.ParquetWriter(path, goal, **parquet_options(LEVEL)) as writer:
        for chunk in chunks:
            writer.write_table(chunk.cast(goal), row_group_size=ROWS_IN_GROUP)


def _old_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def restore(path: Path) -> None:
    """Put back a folder that a killed process moved aside.

    :func:`merge` moves the old folder aside before the new one takes its place.
    """
    if _old_path(path).is_dir() and not path.exists():
        os.replace(_old_path(path), path)
    shutil.rmtree(_old_path(path), ignore_errors=True)


@contextmanager
def _replace_folder(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(draft, ignore_errors=True)  # left by a process with the same id
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            old = _old_path(path)
            os.replace(path, old)
            os.replace(draft, path)
            shutil.rmtree(old)
        else:
            os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
