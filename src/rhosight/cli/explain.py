"""``rhosight explain``: why a model predicts what it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import RhosightError
from .common import (
    DifferenceOption,
    FilesArgument,
    FirstBlock,
    KindOption,
    check_difference,
    console,
    progress_bar,
    read_materials,
    read_model,
    read_structures,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..explain.explanation import Explanation, Explanations

MOST_SHOWN = 5
"""Materials, and words or descriptors of each, that are printed; files hold all."""


def explain(
    files: FilesArgument,
    model: Annotated[
        str,
        typer.Option(
            help="best or no-dft (which needs no density: CIF and POSCAR files will do), the "
            "folder of a saved model, or a hub id."
        ),
    ] = "best",
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("why"),
    material: Annotated[
        list[str] | None, typer.Option("--id", help="Only these materials of the dataset.")
    ] = None,
    details: Annotated[
        bool | None,
        typer.Option(
            "--details/--no-details",
            help="Look into each material: maps, words, descriptors. The default, but not for a "
            "whole dataset, which is summarised.",
            show_default=False,
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            help="Dataset whose mean prediction is the base; by default the training materials.",
        ),
    ] = None,
    kind: KindOption = FirstBlock.total,
    difference: DifferenceOption = None,
) -> None:
    """Explain predictions: what each modality adds, where on the density, which words."""
    from ..dataset.dataset import Dataset
    from ..dataset.packing import load_dataset
    from ..explain.explain import explain as explain_predictions
    from ..explain.files import save

    check_difference(difference, files)
    loaded = read_model(model)
    if loaded.uses_density:
        materials: Any = read_materials(
            files, kind, difference, structures="rhosight explain {file} --model no-dft"
        )
    else:
        materials = read_structures(files)
    is_dataset = isinstance(materials, Dataset)
    if material:
        if not is_dataset:
            raise RhosightError("--id chooses from a dataset, not from files")
        materials = materials[material]
    if details is None:
        details = not is_dataset or bool(material)
    others = load_dataset(background) if background else None
    with progress_bar() as progress:
        found = explain_predictions(loaded, materials, details, others, progress)
    # of a whole dataset the summary is enough
    for one in found[:MOST_SHOWN] if details or len(found) <= MOST_SHOWN else ():
        _print(one)
    if len(found) > 1:
        _print_summary(found)
    written = save(found, out, each=details)
    console.print(f"{len(written)} files: {out}", highlight=False)


def _print(one: Explanation) -> None:
    table = Table(title=f"{one.name}: {one.formula}", title_justify="left")
    table.add_column("")
    for target in one.targets:
        table.add_column(f"{target}\n{one.units[target]}", justify="right")
    rows = one.table()
    for name, values in rows.iterrows():
        form = "{:.3f}" if name in ("base", "prediction") else "{:+.3f}"
        table.add_row(str(name), *(form.format(value) for value in values))
        if name == rows.index[-2]:
            table.add_section()
    console.print(table)
    console.print(f"base: {one.background}", highlight=False)
    for what, details in (("words", one.words), ("descriptors", one.descriptors)):
        if details is not None:
            console.print(f"{what} that add most:", highlight=False)
            for target in one.targets:
                console.print(f"  {target}: {_most(details[target])}", highlight=False)
    for note in one.notes:
        console.print(note, style="yellow", highlight=False)


def _most(values: pd.Series) -> str:
    largest = values.abs().sort_values(ascending=False).index[:MOST_SHOWN]
    return ", ".join(f"{name} {values[name]:+.3g}" for name in largest)


def _print_summary(found: Explanations) -> None:
    summary = found.summary()
    for target in summary.index.unique("target"):
        part = summary.loc[target]
        parts = part["part"].unstack("modality")
        counts = part["materials"].groupby("class", observed=True).first()
        # no lines between columns, and names over two: six modalities fit into 80 characters
        table = Table(
            title=f"part of each modality in {target}",
            title_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 1 if len(parts.columns) <= 4 else 0),
            pad_edge=False,
        )
        table.add_column("materials")
        table.add_column("", justify="right")
        for modality in parts:
            table.add_column(str(modality).replace(" ", "\n"), justify="right", no_wrap=True)
        for name, row in parts.iterrows():
            cells = (f"{100 * value:.0f} %" for value in row)
            table.add_row(str(name), str(counts[name]), *cells)
        console.print(table)
