"""Commands that use a trained model."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import RhosightError
from .common import (
    FirstBlock,
    KindOption,
    console,
    named_as_structure,
    progress_bar,
    read_materials,
    read_model,
    read_structures,
)

if TYPE_CHECKING:
    import pandas as pd


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
    difference: Annotated[
        str | None,
        typer.Option(
            help="File with the difference beside each CHGCAR, for models that read both; "
            "{parent}, {name} and {stem} stand for parts of the CHGCAR's path."
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Predict properties, with intervals, from density files or a dataset."""
    if not files or Path(model).is_file():
        raise RhosightError(_what_is_missing(model))
    loaded = read_model(model)
    if loaded.uses_density:
        materials: Any = read_materials(
            files, kind, difference, structures="rhosight predict no-dft {file}"
        )
    else:
        materials = read_structures(files)
    with progress_bar() as progress:
        found = loaded.predict_intervals(materials, progress=progress)
    _show(found, loaded.targets, loaded.units, output, out)


def _what_is_missing(first: str) -> str:
    """Of a command whose only argument is this one, or whose model is a file."""
    from ..saved_model import BUNDLED_MODELS

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
            {"material": str(name), **{k: None if v != v else v for k, v in row.items()}}
            for name, row in found.to_dict("index").items()
        ]
        text = json.dumps({"units": units, "predictions": rows}, indent=2, ensure_ascii=False)
    else:
        ends = ("", "_low", "_high", "_std")
        names = {f"{t}{end}": f"{t}{end} ({units[t]})" for t in targets for end in ends}
        text = found.rename(columns=names).to_csv(lineterminator="\n").rstrip()
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


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
