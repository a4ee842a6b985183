"""Tables of targets that users keep beside their calculations: CSV, Parquet or Excel."""

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
"""Columns that are taken for the id where none is named, in this order."""

_KEPT = {"structure", "provenance", "masked", "image", *STORED_KINDS}

_DECIMAL_COMMA = re.compile(r"^\s*[-+]?\d+,\d+([eE][-+]?\d+)?\s*$")
_UNIT = re.compile(r"^(?P<name>.*\S)\s*[\[(](?P<unit>[^\])]*)[\])]$")


def read_targets(
    path: str | os.PathLike, id_column: str | None = None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table of labels, indexed by material id as text.

    Parameters
    ----------
    path
        ``.csv`` (or ``.tsv``), ``.parquet``, ``.xlsx`` or ``.ods``.
    id_column
        The column with the ids; by default the first there is of material_id, id, name, file.

    Returns
    -------
    labels
        Columns as in the file, a unit in brackets (``gap (eV)``) cut off.
    units
        Column → unit, of those that name one.

    Raises
    ------
    RhosightError
        If the file cannot be read, or has no such column, or an id is empty or stands twice, or a
        target is not a number.
    """
    path = Path(path)
    table = _read(path, id_column)
    table.columns = [str(name).strip() for name in table.columns]
    if id_column is None:
        id_column = next((name for name in ID_NAMES if name in table), None)
    if id_column not in table:
        raise RhosightError(
            f"{path}: no column {id_column or ', '.join(ID_NAMES)}, found "
            f"{', '.join(table.columns)[:100]}; name the one with the ids (--id-column)"
        )
    ids = table.pop(id_column)
    if ids.isna().any():
        raise RhosightError(f"{path}: {id_column} is empty in row {int(ids.isna().argmax()) + 1}")
    # Excel makes numbers of ids such as 149
    ids = ids.map(lambda value: str(int(value) if _is_whole(value) else value).strip())
    if ids.duplicated().any():
        raise RhosightError(
            f"{path}: {ids[ids.duplicated()].iloc[0]} stands more than once; keep one row"
        )
    units = {}
    for column in list(table):
        if found := _UNIT.match(column):
            table = table.rename(columns={column: found["name"]})
            units[found["name"]] = found["unit"]
    _check_names(table, path)
    table.index = pd.Index(ids, name="material_id")
    _check_units(units, path)
    for column in table:
        known = column in KNOWN and pa.types.is_floating(KNOWN[column].type)
        if known or column in units:  # what has a unit is a number
            table[column] = numbers_of(table[column], path)
        else:
            table[column] = _of_one_type(table[column])
            _warn_of_numbers(table[column], path)
    return table, units


def _read(path: Path, id_column: str | None) -> pd.DataFrame:
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv", ".txt"):
            # the separator is found out: tables from Excel often have semicolons
            head = pd.read_csv(path, sep=None, engine="python", nrows=0)
            names = {id_column} if id_column else set(ID_NAMES)
            ids = {name: str for name in head if str(name).strip() in names}  # 001 stays
            return pd.read_csv(path, sep=None, engine="python", dtype=ids)
        if kind == ".parquet":
            return pd.read_parquet(path).reset_index().drop(columns="index", errors="ignore")
        if kind in (".xlsx", ".xlsm", ".ods"):
            return pd.read_excel(path)
    except ImportError as error:
        raise RhosightError(
            f"{path}: reading it needs a library ({error.name}): pip install 'rhosight[excel]', or "
            "save the table as CSV"
        ) from error
    except Exception as error:  # the readers have no common type of error
        raise RhosightError(f"{path}: not a readable table ({first_line(error)})") from error
    raise RhosightError(f"{path}: unknown kind of table; give CSV, Parquet or Excel")


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _check_names(table: pd.DataFrame, path: Path) -> None:
    """Each column has one meaning, and none is what a dataset keeps there by itself."""
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise RhosightError(f"{path}: {twice[0]} is the name of two columns; rename one")
    if taken := [name for name in table if name in _KEPT]:
        raise RhosightError(
            f"{path}: no column can be called {taken[0]}, where a dataset keeps something else; "
            "rename it"
        )


def _of_one_type(column: pd.Series) -> pd.Series:
    """Text throughout, if it is not numbers throughout: cells of Excel have a type each."""
    if column.dtype != object or not column.notna().any():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers[column.notna()].notna().all() and not column.map(lambda v: isinstance(v, str)).any():
        return numbers
    return column.map(lambda value: value if value is None or value is pd.NA else str(value))


def _warn_of_numbers(column: pd.Series, path: Path) -> None:
    """A column that is text for the sake of a few cells was most likely meant as a target."""
    given = column.dropna()
    numbers = pd.to_numeric(given, errors="coerce").notna()
    if len(given) and given.map(lambda value: bool(_DECIMAL_COMMA.match(str(value)))).all():
        logger.warning(
            "%s: %s is taken for text, and is no target: its decimals have a comma; write a point",
            path,
            column.name,
        )
    if 0.5 * len(given) <= numbers.sum() < len(given):
        bad = given[~numbers]
        logger.warning(
            "%s: %s is taken for text, and is no target, since %r of %s is not a number; leave a "
            "missing label empty",
            path,
            column.name,
            bad.iloc[0],
            bad.index[0],
        )


def _check_units(units: dict[str, str], path: Path) -> None:
    """A known target in another unit would be wrong by a factor: say so."""
    for name, unit in units.items():
        if name in KNOWN and KNOWN[name].unit and not is_same_unit(unit, KNOWN[name].unit):
            raise RhosightError(
                f"{path}: {name} is in {unit}, rhosight has it in {KNOWN[name].unit}; convert it, "
                "or give it another name"
            )


def numbers_of(column: pd.Series, path: Path) -> pd.Series:
    """A column as numbers; RhosightError names the first value that is none."""
    numbers = pd.to_numeric(column, errors="coerce")
    bad = column[numbers.isna() & column.notna()]
    if len(bad):
        comma = _DECIMAL_COMMA.match(str(bad.iloc[0]))
        cure = "write decimals with a point" if comma else "leave a missing label empty"
        raise RhosightError(
            f"{path}: {column.name} of {bad.index[0]} is {bad.iloc[0]!r}, not a number; {cure}"
        )
    return numbers
