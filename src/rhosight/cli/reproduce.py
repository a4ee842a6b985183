"""``rhosight reproduce`` and ``rhosight runs``: the paper's experiments, and what was run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .common import console, progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from ..experiments.exhibit import Exhibit

SEEN = 0.005
"""Scores that differ by less look the same in tables."""

NUMBERS = ("table1", "table2", "table3", *(f"figure{n}" for n in range(1, 10)))

Experiment = StrEnum("Experiment", ["all", *NUMBERS])


class PresetName(StrEnum):
    offline = "offline"
    paper = "paper"


class Log(StrEnum):
    tensorboard = "tensorboard"


def reproduce(
    experiments: Annotated[list[Experiment], typer.Argument(help="Which; or all.")],
    preset: Annotated[
        PresetName,
        typer.Option(help="offline: bundled weights; paper: InceptionV3, RoBERTa, CLIP."),
    ] = PresetName.offline,
    repeats: Annotated[
        int, typer.Option(min=1, help="Splits and seeds; run again with more to add some.")
    ] = 1,
    dataset: Annotated[
        str, typer.Option(help="mp-fcc, or a Parquet file with all three targets.")
    ] = "mp-fcc",
    out: Annotated[Path, typer.Option(help="Run folder; goes on where it stopped.")] = Path(
        "runs/reproduce"
    ),
    only_folds: Annotated[
        int | None, typer.Option(min=1, help="Run only the first few folds of each repeat.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Keep results there, and go on from those kept, as in docs/results."),
    ] = None,
    log: Annotated[Log | None, typer.Option(help="Losses and scores of every epoch.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask scheduler whose workers run the jobs: tcp://host:8786."),
    ] = None,
) -> None:
    """Run tables and figures of the paper, with its own figures beside.

    Several processes may work on one run folder at a time: give the same command twice.
    """
    from ..dataset.packing import load_dataset
    from ..experiments.jobs import JobFolder
    from ..experiments.plan import Plan
    from ..experiments.presets import preset_named
    from ..experiments.published import publish, require_all, take_up
    from ..experiments.reproduction import EXPERIMENTS
    from ..experiments.reproduction import reproduce as run

    wanted = {experiment.value for experiment in experiments}
    names = [name for name in EXPERIMENTS if name in wanted or "all" in wanted]
    if write:
        require_all(write, names)
    plan = Plan.of(load_dataset(dataset), preset_named(preset.value), repeats, only_folds)
    console.print(f"run folder: {out}", highlight=False)
    command = shlex.join(["rhosight", *sys.argv[1:]])
    if write and (count := take_up(write, JobFolder(out))):
        console.print(f"{count} finished jobs come from {write}", highlight=False)
    with progress_bar() as progress:
        result = run(names, plan, out, progress, command, log and log.value, scheduler)
    if write:
        publish(result, write)
    for exhibit in result.exhibits.values():
        for table in _tables(exhibit):
            console.print(table)
    console.print(f"weights: {plan.preset.weights}", highlight=False)
    for what, how in plan.deviations.items():
        console.print(f"  {what}: {how}", highlight=False)
    console.print(f"tables, figures and report.html: {out}", highlight=False)


def _tables(exhibit: Exhibit) -> Iterator[Table]:
    """An exhibit for the terminal: of scores, one table a target with the paper's beside ours."""
    heading = f"{exhibit.heading}: {exhibit.title}"
    if not exhibit.has_scores:
        frame, rows = exhibit.table, 12  # the rest is in the CSV file
        more = f" (first {rows} of {len(frame)} rows)" if len(frame) > rows else ""
        yield frame_table(frame.head(rows), heading + more)
        return
    for title, frame in exhibit.score_tables().items():
        yield score_table(frame, f"{heading}\n{title}")


def score_table(frame: pd.DataFrame, title: str) -> Table:
    """Cells of text, narrow: a name, then numbers."""
    table = Table(
        title=title, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False
    )
    table.add_column(str(frame.columns[0]), no_wrap=True)
    for name in frame.columns[1:]:
        style = "dim" if name == "paper" else ""
        table.add_column(str(name), justify="right", style=style, overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*row)
    return table


runs = typer.Typer(help="What a run folder of `rhosight reproduce` holds.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option(help="Run folder.")]


@runs.command("list", epilog="Example: rhosight runs list --out runs/reproduce")
def runs_list(out: OutOption = Path("runs/reproduce")) -> None:
    """The jobs of a run folder: which are finished, running or interrupted."""
    from ..experiments.records import list_jobs

    jobs = list_jobs(out)
    table = Table(
        title=f"{out}: {len(jobs)} jobs", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False
    )
    table.add_column("name", no_wrap=True)  # what `runs show` wants; it tells repeat and fold, too
    for column in ("state", "models", "seconds"):
        table.add_column(
            column, justify="right" if column == "seconds" else "left", overflow="fold"
        )
    for row in jobs.itertuples(index=False):
        seconds = "" if row.seconds is None or row.seconds != row.seconds else f"{row.seconds:.0f}"
        table.add_row(row.name, row.state, row.models, seconds)
    console.print(table)
    states = jobs["state"].value_counts()
    total = jobs["seconds"].sum()
    said = ", ".join(f"{count} {state}" for state, count in states.items())
    console.print(f"{said}; {total / 60:.0f} min in all", highlight=False)


@runs.command("show", epilog="Example: rhosight runs show image-r0-f0")
def runs_show(
    name: Annotated[str, typer.Argument(help="Of a job, or its beginning or end.")],
    out: OutOption = Path("runs/reproduce"),
) -> None:
    """What decided about a job's result, and how it scored."""
    from ..experiments.records import show_job

    about, scores = show_job(out, name)
    console.print_json(data=about)
    if len(scores):
        console.print(frame_table(scores, "scores, in the target's unit"))


@runs.command("compare", epilog="Example: rhosight runs compare runs/reproduce runs/other")
def runs_compare(
    one: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Path, typer.Argument(help="Run folder.")],
) -> None:
    """Two run folders side by side: settings that differ, and the scores of both."""
    from ..evaluation.html import describe_target
    from ..experiments.records import compare_runs

    settings, scores = compare_runs(one, other)
    console.print(f"one: {one}\nother: {other}", highlight=False)
    console.print(frame_table(settings, "settings that differ"))
    if scores.empty:
        console.print("no scores that both have")
        return
    alike = (scores["r2_change"].abs() < SEEN) & ~(
        scores["rmse_change"].abs() > SEEN * scores["rmse_one"]
    )
    console.print(
        f"{alike.sum()} of {len(scores)} cells agree to within {SEEN} (R², and share of RMSE)",
        highlight=False,
    )
    for (exhibit, target), cells in scores[~alike].groupby(["exhibit", "target"], sort=False):
        console.print(score_table(_side_by_side(cells), f"{exhibit}: {describe_target(target)}"))


def _side_by_side(cells: pd.DataFrame) -> pd.DataFrame:
    """Scores of two runs as text."""
    import pandas as pd

    from ..experiments.scores import row_name

    rows = []
    for row in cells.itertuples(index=False):
        name = row_name(row.model, row.extent, row.stage)
        r2 = [f"{row.r2_one:.2f}", f"{row.r2_other:.2f}", f"{row.r2_change:+.2f}"]
        rmse = [_cell(row.rmse_one), _cell(row.rmse_other)]
        rows.append([f"{row.trial}, {name}" if row.trial else name, row.part, *r2, *rmse])
    columns = ["model", "part", "R² one", "other", "change", "RMSE one", "other"]
    return pd.DataFrame(rows, columns=columns)


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """A table for the terminal: three digits of each number."""
    table = Table(title=title)
    for name in frame:
        numbers = frame[name].dtype.kind in "if"
        table.add_column(str(name), justify="right" if numbers else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
