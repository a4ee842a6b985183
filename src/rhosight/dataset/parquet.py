"""The Parquet files of a dataset: find, read and write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import RhosightError
from ..storage import replacing

ROWS_IN_GROUP = 32
"""Rows of a row group; one group can be read without the others."""


def parquet_options(compression_level: int) -> dict[str, Any]:
    """Return the options for writing a dataset: plain float32 under zstd.

    Symmetry repeats whole values, which zstd compresses better than byte planes.
    """
    return {
        "compression": "zstd",
        "compression_level": compression_level,
        "use_dictionary": False,
    }


def find_files(path: Path) -> list[Path]:
    """List the Parquet files of a dataset: the file itself, or those in the folder."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path] if path.exists() else []


def require_files(path: Path) -> list[Path]:
    """List the Parquet files of a dataset.

    Raises
    ------
    RhosightError
        If there are none.
    """
    files = find_files(path)
    if not files:
        raise RhosightError(
            f"{path}: no such Parquet file or folder of Parquet files; create a dataset with "
            "`rhosight data build`"
        )
    return files


def describe_unreadable(file: Path) -> str:
    """Return the message for a file that is not Parquet."""
    return (
        f"{file}: not a readable Parquet file; copy it again, or create it with "
        "`rhosight data build`"
    )


def read_table(path: Path) -> pa.Table:
    """Read all files of a dataset into one table.

    Raises
    ------
    RhosightError
        If there is no such file, a file cannot be read, or the files have different columns.
    """
    tables = []
    for file in require_files(path):
        try:
            with pq.ParquetFile(file) as content:
                table = content.read()
            table.validate(full=True)  # a damaged text or offset would fail later, or crash
            tables.append(table)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RhosightError(describe_unreadable(file)) from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise RhosightError(
            f"{path}: the files have different columns; build the dataset again"
        ) from error


def write_table(table: pa.Table, path: Path, compression_level: int) -> None:
    """Write a table to one Parquet file, atomically.

    Raises
    ------
    RhosightError
        If the file cannot be written.
    """
    try:
        with replacing(path) as draft:
            pq.write_table(
                table, draft, row_group_size=ROWS_IN_GROUP, **parquet_options(compression_level)
            )
    except OSError as error:
        folder = f"{path.parent} is not a writable folder"
        reason = "it is a folder" if path.is_dir() else folder
        raise RhosightError(f"{path}: cannot be written ({reason}); choose another path") from error
