"""Read tables of targets beside calculations: CSV, Parquet or Excel."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from ...density.charge_density import STORED_KINDS
from ...errors import RhosightError, first_line
from ..schema import KNOWN, is_same_unit

logger = logging.getLogger(__name__)

ID_NAMES = ("material_id", "id", "name", "file")
"""Default names of the id column, in order of precedence."""

_RESERVED = {"structure", "provenance", "masked", "image", *STORED_KINDS}

_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*$")
_UNIT = re.compile(r"^(?P<name>.*\S)\s*[\[(](?P<unit>[^\])]*)[\])]$")


def read_targets(
    path: str | os.PathLike, id_column: str | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a table of labels, indexed by material id as text.

    Parameters
    ----------
    path
        ``.csv`` (or ``.tsv``), ``.parquet``, ``.xlsx`` or ``.ods``.
    id_column
        The column with the ids; by default the first of material_id, id, name, file.

    Returns
    -------
    labels
        Columns of the file; units in brackets (``gap (eV)``) are removed from their names.
    units
        Column → unit, for columns that name one.

    Raises
    ------
    RhosightError
        If the file cannot be read or has no such column, an id is empty or duplicated, or a target
        is not a number.
    """
    path = Path(path)
    return clean_table(read_frame(path, id_column), path, id_column)


def clean_table(
    table: pd.DataFrame, path: Path, id_column: str | None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return labels and units of a table as :func:`read_targets` does."""
    table.columns = [str(name).strip() for name in table.columns]
    if id_column is None:
        id_column = next((name for name in ID_NAMES if name in table), None)
    if id_column is None or id_column not in table:
        raise RhosightError(
            f"{path}: no column {id_column or ', '.join(ID_NAMES)}, only "
            f"{', '.join(table.columns)[:100]}; name the column with the ids (--id-column)"
        )
    ids = table.pop(id_column)
    if ids.isna().any():
        raise RhosightError(
            f"{path}: {id_column} is empty in row {int(ids.isna().argmax()) + 1}; fill it in"
        )
    # Excel converts ids such as 149 to numbers
    ids = ids.map(lambda value: str(int(value) if _is_whole(value) else value).strip())
    if ids.duplicated().any():
        raise RhosightError(f"{path}: {ids[ids.duplicated()].iloc[0]} is duplicated; keep one row")
    units = {}
    for column in map(str, table.columns.to_list()):
        if match := _UNIT.match(column):
            table = table.rename(columns={column: match["name"]})
            units[match["name"]] = match["unit"]
    _check_names(table, path)
    table.index = pd.Index(ids, name="material_id")
    _check_units(units, path)
    for column in map(str, table.columns):
        known = column in KNOWN and pa.types.is_floating(KNOWN[column].type)
        if known or column in units:  # a column with a unit holds numbers
            table[column] = to_numbers(table[column], path)
        else:
            table[column] = _unify_types(table[column])
            _warn_of_numbers(table[column], path)
    return table, units


def read_frame(path: Path, id_column: str | None) -> pd.DataFrame:
    """Read a CSV, Parquet or Excel file; ids stay text."""
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv", ".txt"):
            # detect the separator: tables from Excel often have semicolons
            head = pd.read_csv(path, sep=None, engine="python", nrows=0)
            names = {id_column} if id_column else set(ID_NAMES)
            ids = {name: str for name in head if str(name).strip() in names}  # keeps 001
            return pd.read_csv(path, sep=None, engine="python", dtype=ids)
        if kind == ".parquet":
            return pd.read_parquet(path).reset_index().drop(columns="index", errors="ignore")
        if kind in (".xlsx", ".xlsm", ".ods"):
            return pd.read_excel(path)
    except ImportError as error:
        raise RhosightError(
            f"{path}: the library {error.name} is missing; pip install 'rhosight[excel]', or save "
            "the table as CSV"
        ) from error
    except Exception as error:  # the readers share no type of error
        raise RhosightError(
            f"{path}: not a readable table ({first_line(error)}); save it again"
        ) from error
    raise RhosightError(f"{path}: unknown type of table; give a CSV, Parquet or Excel file")


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _check_names(table: pd.DataFrame, path: Path) -> None:
    """Check that names are unique and not reserved for other contents of a dataset."""
    duplicates = table.columns[table.columns.duplicated()]
    if len(duplicates):
        raise RhosightError(f"{path}: {duplicates[0]} is the name of two columns; rename one")
    if reserved := [name for name in table if name in _RESERVED]:
        raise RhosightError(
            f"{path}: the column name {reserved[0]} is reserved for other contents of a dataset; "
            "rename the column"
        )


def _unify_types(column: pd.Series) -> pd.Series:
    """Return text throughout unless all values are numbers.

    Cells of Excel have types of their own.
    """
    if column.dtype != object or not column.notna().any():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers[column.notna()].notna().all() and not column.map(lambda v: isinstance(v, str)).any():
        return numbers
    return column.map(lambda value: value if value is None or value is pd.NA else str(value))


def _warn_of_numbers(column: pd.Series, path: Path) -> None:
    """Warn of text columns that were probably meant as targets."""
    given = column.dropna()
    numbers = pd.to_numeric(given, errors="coerce").notna()
    if len(given) and given.map(lambda value: bool(_DECIMAL_COMMA.match(str(value)))).all():
        logger.warning(
            "%s: %s is read as text, not as a target: its decimals have a comma; write a point",
            path,
            column.name,
        )
    if 0.5 * len(given) <= numbers.sum() < len(given):
        bad = given[~numbers]
        logger.warning(
            "%s: %s is read as text, not as a target, since %r of %s is not a number; leave "
            "missing labels empty",
            path,
            column.name,
            bad.iloc[0],
            bad.index[0],
        )


def _check_units(units: dict[str, str], path: Path) -> None:
    """Raise if a known target is in another unit: it would be wrong by a factor."""
    for name, unit in units.items():
        if name in KNOWN and KNOWN[name].unit and not is_same_unit(unit, KNOWN[name].unit):
            raise RhosightError(
                f"{path}: {name} is in {unit}, rhosight requires {KNOWN[name].unit}; convert the "
                "values, or rename the column"
            )


def to_numbers(column: pd.Series, path: Path) -> pd.Series:
    """Convert a column to numbers.

    Raises
    ------
    RhosightError
        For the first value that is not a number.
    """
    numbers = pd.to_numeric(column, errors="coerce")
    bad = column[numbers.isna() & column.notna()]
    if len(bad):
        comma = _DECIMAL_COMMA.match(str(bad.iloc[0]))
        cure = "write decimals with a point" if comma else "leave missing labels empty"
        raise RhosightError(
            f"{path}: {column.name} of {bad.index[0]} is {bad.iloc[0]!r}, not a number; {cure}"
        )
    return numbers
