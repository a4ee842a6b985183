"""``rhosight reproduce`` and ``rhosight runs``: the paper's experiments, and what was run."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .common import console, progress_bar

if TYPE_CHECKING:
    from ..experiments import Exhibit

NUMBERS = ("table1", "table2", "table3", *(f"figure{n}" for n in range(1, 10)))

Experiment = StrEnum("Experiment", ["all", *NUMBERS])


class PresetName(StrEnum):
    offline = "offline"
    paper = "paper"


def reproduce(
    experiments: Annotated[list[Experiment], typer.Argument(help="Which; or all.")],
    preset: Annotated[
        PresetName,
        typer.Option(help="offline: bundled weights; paper: InceptionV3, RoBERTa, CLIP."),
    ] = PresetName.offline,
    repeats: Annotated[
        int, typer.Option(min=1, help="Splits and seeds; run again with more to add some.")
    ] = 1,
    dataset: Annotated[str, typer.Option(help="mp-fcc, or a Parquet file.")] = "mp-fcc",
    out: Annotated[Path, typer.Option(help="Run folder; goes on where it stopped.")] = Path(
        "runs/reproduce"
    ),
    only_folds: Annotated[
        int | None, typer.Option(min=1, help="Run only the first few folds of each repeat.")
    ] = None,
) -> None:
    """Run tables and figures of the paper, with its own figures beside.

    Several processes may work on one run folder at a time: give the same command twice.
    """
    from ..dataset import load_dataset
    from ..experiments import EXPERIMENTS, Plan, preset_named
    from ..experiments import reproduce as run

    wanted = {experiment.value for experiment in experiments}
    names = [name for name in EXPERIMENTS if name in wanted or "all" in wanted]
    plan = Plan.of(load_dataset(dataset), preset_named(preset.value), repeats, only_folds)
    console.print(f"run folder: {out}", highlight=False)
    with progress_bar() as progress:
        result = run(names, plan, out, progress, shlex.join(["rhosight", *sys.argv[1:]]))
    for exhibit in result.exhibits.values():
        console.print(_table(exhibit))
    console.print(f"weights: {plan.preset.weights}", highlight=False)
    for what, how in plan.deviations.items():
        console.print(f"  {what}: {how}", highlight=False)
    console.print(f"tables and figures: {out}", highlight=False)


def _table(exhibit: Exhibit) -> Table:
    """An exhibit as it is printed."""
    table = Table(title=f"{exhibit.heading}: {exhibit.title}")
    frame = exhibit.table
    for name in frame:
        table.add_column(str(name))
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row))
    return table
