"""From many small Parquet files to one dataset, sorted by id, with flat memory."""

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
"""Materials in a file, where a dataset is a folder of files; whole row groups."""

LEVEL = 9  # of zstd

GROUPS_KEPT = 4


class Place(NamedTuple):
    """Where a material's row stands."""

    file: Path
    group: int
    row: int


def row_reader() -> Callable[[Place], pa.Table]:
    """Reads rows. It keeps a few row groups, as neighbours in order are often neighbours in a file,
    and no more than a few, as the groups of a finished dataset are large."""

    @lru_cache(maxsize=GROUPS_KEPT)
    def group_of(file: Path, group: int) -> pa.Table:
        with pq.ParquetFile(file) as content:
            return content.read_row_group(group)

    return lambda place: group_of(place.file, place.group).slice(place.row, 1)


def places_of(files: Sequence[Path]) -> Iterator[tuple[str, Place, str | None]]:
    """Material id, place and provenance of each row in these files."""
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
    """Write the rows of these ids, in this order, to a dataset, at once or not at all.

    ``out`` becomes one file if it ends in ``.parquet``, a folder of files otherwise.
    """
    goal = _schema({places[i].file for i in ids}, about)
    chunks = _chunks(places, ids, goal, progress)
    if out.suffix == ".parquet":
        with replacing(out) as draft:
            _write(chunks, draft, goal)
        return
    with _replacing_folder(out) as draft:
        number = 0
        while (first := next(chunks, None)) is not None:
            more = itertools.islice(chunks, SHARD_ROWS // ROWS_IN_GROUP - 1)
            _write(itertools.chain([first], more), draft / f"part-{number:05d}.parquet", goal)
            number += 1


def _schema(files: set[Path], about: Mapping[str, Any]) -> pa.Schema:
    """The columns of all files together. A column that is empty in one has the others' type."""
    types: dict[str, pa.DataType] = {}
    for file in sorted(files):
        for column in pq.read_schema(file):
            known = types.get(column.name, pa.null())
            if pa.types.is_null(known):
                types[column.name] = column.type
            elif not pa.types.is_null(column.type) and column.type != known:
                raise RhosightError(
                    f"label `{column.name}` is {known} for some materials and {column.type} for "
                    "others; make it numbers, or text, throughout"
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


def _chunks(
    places: Mapping[str, Place],
    ids: Sequence[str],
    goal: pa.Schema,
    progress: Progress | None,
) -> Iterator[pa.Table]:
    """The rows of ids, one row group at a time."""
    read = row_reader()
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


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def restore(path: Path) -> None:
    """Put a folder back that was moved aside by a process that was killed before its successor
    stood there."""
    if _old(path).is_dir() and not path.exists():
        os.replace(_old(path), path)
    shutil.rmtree(_old(path), ignore_errors=True)


@contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    shutil.rmtree(draft, ignore_errors=True)  # of a process that had this number before
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            old = _old(path)
            os.replace(path, old)
            os.replace(draft, path)
            shutil.rmtree(old)
        else:
            os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
