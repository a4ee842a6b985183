"""``rhosight predict``: properties from density files, structures or a dataset."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import RhosightError
from .batches import report, work_through
from .common import (
    DifferenceOption,
    FirstBlock,
    KindOption,
    check_difference,
    console,
    has_structure_name,
    progress_bar,
    read_materials,
    read_model,
    read_structures,
)

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    """Formats of the predictions."""

    table = "table"
    csv = "csv"
    json = "json"


def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="best or no-dft (both come with the package), the folder of a saved model, or a "
            "hub id. no-dft needs no density: it reads CIF and POSCAR files."
        ),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES...",
            help="Density files (CHGCAR, CHG, cube, XSF; may be compressed) or one dataset.",
            show_default=False,
        ),
    ] = None,
    kind: KindOption = FirstBlock.total,
    difference: DifferenceOption = None,
    output: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Format of the output. Default: a table on the terminal; in a file, the format "
            "of its suffix.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write to this file instead of printing: JSON if its suffix is .json, CSV "
            "otherwise."
        ),
    ] = None,
) -> None:
    """Predict properties, with prediction intervals, from density files or a dataset.

    Files that cannot be predicted are listed at the end, and the exit code is 1. Ctrl-C writes the
    predictions made so far.
    """
    if not files or Path(model).is_file():
        raise RhosightError(_describe_missing_argument(model))
    if out:
        _check_writable(out)
    check_difference(difference, files)
    loaded = read_model(model)
    read: Callable[[list[str]], Any] = read_structures
    if loaded.uses_density:
        command = "rhosight predict no-dft {file}"
        read = partial(read_materials, kind=kind, difference=difference, structures=command)
    import pandas as pd

    with progress_bar() as progress:
        outcome = work_through(files, read, loaded.predict_intervals, progress, "predicted")
    if outcome.results:
        predictions = pd.concat(outcome.results)
        _show(predictions, loaded.targets, loaded.units, output or _choose_format(out), out)
    if code := report(outcome, "predicted"):
        raise typer.Exit(code)


def _check_writable(out: Path) -> None:
    if out.is_dir():
        raise RhosightError(f"{out}: is a folder; give the name of a file")
    if not os.access(out.parent, os.W_OK):
        raise RhosightError(f"{out}: {out.parent} is not a writable folder; choose another")


def _choose_format(out: Path | None) -> Format:
    """Return the default format, from the suffix of the file if there is one."""
    if out is None:
        return Format.table
    return Format.json if out.suffix.lower() == ".json" else Format.csv


def _describe_missing_argument(first: str) -> str:
    """Return the message for a command without files, or with a file as its model."""
    from ..models.folder import BUNDLED_MODELS

    if first in BUNDLED_MODELS or Path(first).is_dir():
        return f"no files are given; give density files or a dataset after the model {first}"
    model = "no-dft" if has_structure_name(first) else "best"
    return (
        f"{first}: the first argument must be a model: `rhosight predict {model} {first}`; best "
        "reads densities, no-dft also reads structures (CIF, POSCAR)"
    )


def _show(
    predictions: pd.DataFrame,
    targets: tuple[str, ...],
    units: dict[str, str],
    output: Format,
    out: Path | None,
) -> None:
    if output is Format.table and out is None:
        _print_table(predictions, targets, units)
        return
    if output is Format.json:
        rows = [
            {"material": str(name), **{k: _replace_infinite(v) for k, v in row.items()}}
            for name, row in zip(predictions.index, predictions.to_dict("records"), strict=True)
        ]
        content = {"units": units, "predictions": rows}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    else:
        ends = ("", "_low", "_high", "_std")
        names = {f"{t}{end}": f"{t}{end} ({units[t]})" for t in targets for end in ends}
        text = predictions.rename(columns=names).to_csv(lineterminator="\n").rstrip()
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


def _replace_infinite(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(
    predictions: pd.DataFrame, targets: tuple[str, ...], units: dict[str, str]
) -> None:
    has_intervals = f"{targets[0]}_low" in predictions
    table = Table()
    table.add_column("material", overflow="fold")
    for target in targets:
        table.add_column(f"{target}\n{units[target]}")
    for name, row in predictions.iterrows():
        cells = [f"{row[t]:.4f}" for t in targets]
        if has_intervals:
            cells = [f"{row[t]:.3f} ± {row[t + '_high'] - row[t]:.3f}" for t in targets]
        table.add_row(str(name), *cells)
    console.print(table)
    for name, reason in predictions.get("outside", {}).items():
        if reason:
            console.print(
                f"{name}: outside the training domain: {reason}", style="yellow", highlight=False
            )
