"""``rhosight explain``: contributions of inputs to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import RhosightError
from .batches import Outcome, report, work_through
from .common import (
    FilesArgument,
    check_files,
    console,
    format_count,
    is_dataset,
    progress_bar,
    read_model,
)
from .predictions import split_name
from .reading import (
    DifferenceOption,
    KindOption,
    NotesMode,
    NotesOption,
    Reading,
    UnitOption,
    check_difference,
    expand_folders,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset.dataset import Dataset
    from ..explain.explanation import Explanation, Explanations
    from ..models.base import SavedModel

MAX_SHOWN = 5
"""Maximum number of materials, and of words or descriptors, that are printed; files contain all."""


def explain(
    files: FilesArgument,
    model: Annotated[
        str,
        typer.Option(
            help="best, no-dft or structure+potential (which need no density: they read CIF and "
            "POSCAR files), the folder of a saved model, or a hub id."
        ),
    ] = "best",
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("why"),
    material: Annotated[
        list[str] | None, typer.Option("--id", help="Material of the dataset; repeat for several.")
    ] = None,
    details: Annotated[
        bool | None,
        typer.Option(
            "--details/--no-details",
            help="Also explain maps, words and descriptors of each material. Default: yes for "
            "files and --id, no for a whole dataset, which is summarised.",
            show_default=False,
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(
            help="Dataset whose mean prediction is the base. Default: the training set.",
        ),
    ] = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    difference: DifferenceOption = None,
    notes: NotesOption = NotesMode.show,
) -> None:
    """Explain predictions: contributions of modalities, density regions and words.

    Files that cannot be explained are listed at the end, and the exit code is 1. Ctrl-C writes the
    explanations made so far.
    """
    check_files(files)
    from ..dataset.packing import load_dataset

    check_difference(difference, files)
    loaded = read_model(model)
    dense = loaded.uses_density
    files = expand_folders(files, structures=not dense, predicts=dense)
    if material and not is_dataset(files):
        raise RhosightError("--id chooses materials of a dataset; omit it for files")
    if details is None:
        details = not is_dataset(files) or bool(material)
    others = load_dataset(background) if background else None
    command = "rhosight explain {file} --model no-dft"
    reading = Reading(kind, unit, difference, notes, command, predicts=dense)
    outcome = _explain_each(loaded, reading, files, material, details, others)
    if explanations := outcome.results:
        _show(explanations, details, out)
    reading.print_notes(material)
    if code := report(outcome, "explained"):
        raise typer.Exit(code)


def _explain_each(
    model: SavedModel,
    reading: Reading,
    files: list[str],
    material: list[str] | None,
    details: bool,
    others: Dataset | None,
) -> Outcome:
    """Explain one material after the other; the results are single explanations."""
    from ..explain.explain import explain as explain_predictions

    def read(some: list[str]) -> Any:
        read_files = reading.read_materials if model.uses_density else reading.read_structures
        materials: Any = read_files(some)
        return materials[material] if material else materials

    def explain_one(part: Any) -> Explanation:
        return explain_predictions(model, reading.add_densities(part), details, others)[0]

    with progress_bar() as progress:
        return work_through(files, read, explain_one, progress, "explained", at_once=1)


def _show(results: list[Explanation], details: bool, out: Path) -> None:
    """Print some explanations, and write all of them into a folder."""
    from ..explain.explanation import Explanations
    from ..explain.files import save

    explanations = Explanations(results)

    if details or len(explanations) <= MAX_SHOWN:  # the summary is enough for a whole dataset
        for explanation in explanations[:MAX_SHOWN]:
            _print(explanation)
    if len(explanations) > 1:
        _print_summary(explanations)
    written = save(explanations, out, each=details)
    console.print(f"{format_count(len(written), 'file')}: {out}", highlight=False)


def _print(explanation: Explanation) -> None:
    title = f"{explanation.name}: {explanation.formula}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for target in explanation.targets:
        lines = (*split_name(target), explanation.units[target])
        table.add_column("\n".join(lines), justify="right", no_wrap=True)
    rows = explanation.table()
    for name, values in rows.iterrows():
        form = "{:.3f}" if name in ("base", "prediction") else "{:+.3f}"
        table.add_row(str(name), *(form.format(value) for value in values))
        if name == rows.index[-2]:
            table.add_section()
    console.print(table)
    console.print(f"base: {explanation.background}", highlight=False)
    parts = {"words": explanation.words, "descriptors": explanation.descriptors}
    for name, shares in parts.items():
        if shares is not None:
            console.print(f"{name} with the largest contributions:", highlight=False)
            for target in explanation.targets:
                console.print(f"  {target}: {_format_largest(shares[target])}", highlight=False)
    for note in explanation.notes:
        console.print(note, style="yellow", highlight=False)


def _format_largest(values: pd.Series) -> str:
    largest = values.abs().sort_values(ascending=False).index[:MAX_SHOWN]
    return ", ".join(f"{name} {values[name]:+.3g}" for name in largest)


def _print_summary(explanations: Explanations) -> None:
    summary = explanations.summary()
    for target in summary.index.unique("target"):
        part = summary.loc[target]
        parts = part["part"].unstack("modality")
        counts = part["materials"].groupby("class", observed=True).first()
        # no lines between columns, and names on two lines: six modalities fit into 80 characters
        table = Table(
            title=f"share of each modality in {target}",
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
