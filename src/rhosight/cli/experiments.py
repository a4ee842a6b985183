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

    from ..experiments import Exhibit

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
    dataset: Annotated[str, typer.Option(help="mp-fcc, or a Parquet file.")] = "mp-fcc",
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
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers run the jobs.")
    ] = None,
) -> None:
    """Run tables and figures of the paper, with its own figures beside.

    Several processes may work on one run folder at a time: give the same command twice.
    """
    from ..dataset import load_dataset
    from ..experiments import EXPERIMENTS, JobFolder, Plan, preset_named
    from ..experiments import reproduce as run
    from ..experiments.published import publish, take_up

    wanted = {experiment.value for experiment in experiments}
    names = [name for name in EXPERIMENTS if name in wanted or "all" in wanted]
    plan = Plan.of(load_dataset(dataset), preset_named(preset.value), repeats, only_folds)
    console.print(f"run folder: {out}", highlight=False)
    command = shlex.join(["rhosight", *sys.argv[1:]])
    if write and (count := take_up(write, JobFolder(out))):
        console.print(f"{count} finished jobs come from {write}", highlight=False)
    with progress_bar() as progress:
        result = run(names, plan, out, progress, command, log and log.value, dask)
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
    from ..experiments.scores import row_name

    frame, heading = exhibit.table, f"{exhibit.heading}: {exhibit.title}"
    if not {"r2", "rmse", "part", "paper_r2"} <= set(frame):
        rows = 12  # the rest is in the CSV file
        more = f" (first {rows} of {len(frame)} rows)" if len(frame) > rows else ""
        yield frame_table(frame.head(rows), heading + more)
        return
    keys = [key for key in ("trial", "model", "extent", "stage") if key in frame]
    parts = [part for part in ("validation", "test") if part in set(frame["part"])]
    for target, rows in frame.groupby("target", sort=False):
        unit = next(iter(rows["rmse_unit"].dropna()), "")
        title = f"{heading}\n{target}: R²/RMSE{f' ({unit})' if unit else ''}"
        table = Table(
            title=title, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False
        )
        table.add_column("model", no_wrap=True)
        for part in parts:
            table.add_column(part, justify="right", overflow="fold")
            table.add_column("paper", justify="right", style="dim", overflow="fold")
        for values, cells in rows.groupby(keys, sort=False):
            trial, name = values[:-3], row_name(*values[-3:])
            shown = cells.set_index("part")
            scores = []
            for part in parts:
                row = shown.loc[part] if part in shown.index else None
                scores += ["", ""] if row is None else [_score(row), _printed(row)]
            run = [value for value in trial if value not in ("", "mean")]  # the mean of all runs
            table.add_row(", ".join([*run, name]), *scores)
        yield table


def _score(row: pd.Series) -> str:
    spread = "" if row["r2_std"] != row["r2_std"] else f"±{row['r2_std']:.2f}"
    rmse = "" if row["rmse"] != row["rmse"] else f" /{row['rmse']:.3g}"
    return f"{row['r2']:.2f}{spread}{rmse}"


def _printed(row: pd.Series) -> str:
    if row["paper_r2"] != row["paper_r2"]:
        return ""
    rmse = "" if row["paper_rmse"] != row["paper_rmse"] else f"/{row['paper_rmse']:.3g}"
    return f"{row['paper_r2']:.2f}{rmse}"


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
    from ..experiments.records import compare_runs

    settings, scores = compare_runs(one, other)
    console.print(frame_table(settings, "settings that differ"))
    console.print(frame_table(scores, f"one: {one}; other: {other}"))


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
