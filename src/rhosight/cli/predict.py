"""Commands that use a trained model."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import RhosightError
from ..inputs.progress import Progress
from .common import (
    DifferenceOption,
    FirstBlock,
    KindOption,
    check_difference,
    console,
    errors,
    named_as_structure,
    progress_bar,
    read_materials,
    read_model,
    read_structures,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..models.base import SavedModel


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="best or no-dft (these come with the package), the folder of a saved model, or a "
            "hub id. no-dft needs no density: CIF and POSCAR files will do."
        ),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES...",
            help="Density files (CHGCAR, CHG, cube, XSF, compressed or not), or a dataset.",
            show_default=False,
        ),
    ] = None,
    kind: KindOption = FirstBlock.total,
    difference: DifferenceOption = None,
    output: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="How to print or write. Default: a table on the terminal; of a file, what its "
            "suffix says.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file instead of printing: JSON if it is called x.json, else CSV."
        ),
    ] = None,
) -> None:
    """Predict properties, with intervals, from density files or a dataset.

    Files that cannot be read are listed at the end, with exit code 1; the others are predicted.
    """
    if not files or Path(model).is_file():
        raise RhosightError(_what_is_missing(model))
    if out and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        reason = "is a folder" if out.is_dir() else f"no writable folder {out.parent}"
        raise RhosightError(f"{out}: cannot be written ({reason}); choose another")
    check_difference(difference, files)
    loaded = read_model(model)
    read: Callable[[list[str]], Any] = read_structures
    if loaded.uses_density:
        command = "rhosight predict no-dft {file}"
        read = partial(read_materials, kind=kind, difference=difference, structures=command)
    with progress_bar() as progress:
        found, bad = _predicted(loaded, read, files, progress)
    _show(found, loaded.targets, loaded.units, output or _format_of(out), out)
    for file, reason in bad.items():
        line = reason if file in reason else f"{file}: {reason}"
        errors.print(f"not predicted: {line}", markup=False, highlight=False, soft_wrap=True)
    if bad:
        raise typer.Exit(1)


def _predicted(
    model: SavedModel,
    read: Callable[[list[str]], Any],
    files: list[str],
    progress: Progress,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Predictions for all files, or if one of them is bad for each by itself; and why there is none
    for some: file → reason. One error if there is none for any.
    """
    try:
        return model.predict_intervals(read(files), progress=progress), {}
    except RhosightError as error:
        if len(files) == 1:
            raise
        first = error
    import pandas as pd

    found, bad = [], {}
    with _said_once(logging.getLogger("rhosight.models.provenance")):
        for done, file in enumerate(files, start=1):
            try:
                found.append(model.predict_intervals(read([file])))
            except RhosightError as error:
                bad[file] = str(error)
            progress("one by one, for a file is bad", done, len(files))
    if not found:
        raise first
    return pd.concat(found), bad


@contextmanager
def _said_once(logger: logging.Logger) -> Iterator[None]:
    """Of what is logged about one file after the other, let each line through once."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        line, count = record.getMessage(), len(said)
        said.add(line)
        return len(said) > count

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _format_of(out: Path | None) -> Format:
    """How to print, or what the suffix of a file says."""
    if out is None:
        return Format.table
    return Format.json if out.suffix.lower() == ".json" else Format.csv


def _what_is_missing(first: str) -> str:
    """Of a command whose only argument is this one, or whose model is a file."""
    from ..models.folder import BUNDLED_MODELS

    if first in BUNDLED_MODELS or Path(first).is_dir():
        return f"files are missing: give density files or a dataset after the model {first}"
    model = "no-dft" if named_as_structure(first) else "best"
    return (
        f"{first} stands where the model goes: `rhosight predict {model} {first}`; best reads "
        "densities, no-dft reads structures (CIF, POSCAR) too"
    )


def _show(
    found: pd.DataFrame,
    targets: tuple[str, ...],
    units: dict[str, str],
    output: Format,
    out: Path | None,
) -> None:
    if output is Format.table and out is None:
        _print_table(found, targets, units)
        return
    if output is Format.json:
        rows = [
            {"material": str(name), **{k: _plain(v) for k, v in row.items()}}
            for name, row in zip(found.index, found.to_dict("records"), strict=True)
        ]
        content = {"units": units, "predictions": rows}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    else:
        ends = ("", "_low", "_high", "_std")
        names = {f"{t}{end}": f"{t}{end} ({units[t]})" for t in targets for end in ends}
        text = found.rename(columns=names).to_csv(lineterminator="\n").rstrip()
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


def _plain(value: Any) -> Any:
    """JSON has no number for what is missing, or for the ends of an interval without end."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(found: pd.DataFrame, targets: tuple[str, ...], units: dict[str, str]) -> None:
    has_intervals = f"{targets[0]}_low" in found
    table = Table()
    table.add_column("material", overflow="fold")
    for target in targets:
        table.add_column(f"{target}\n{units[target]}")
    for name, row in found.iterrows():
        cells = [f"{row[t]:.4f}" for t in targets]
        if has_intervals:
            cells = [f"{row[t]:.3f} ± {row[t + '_high'] - row[t]:.3f}" for t in targets]
        table.add_row(str(name), *cells)
    console.print(table)
    for name, reason in found.get("outside", {}).items():
        if reason:
            console.print(
                f"{name}: outside the training domain: {reason}", style="yellow", highlight=False
            )
