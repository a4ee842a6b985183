"""``rhosight reproduce`` and ``rhosight runs``: experiments and their run folders."""

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

from .common import console, format_count, progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from ..experiments.exhibit import Exhibit

VISIBLE_CHANGE = 0.005
"""Smaller differences between scores do not show in the tables."""


class Experiment(StrEnum):
    """Tables and figures of the paper."""

    all = "all"
    table1 = "table1"
    table2 = "table2"
    table3 = "table3"
    figure1 = "figure1"
    figure2 = "figure2"
    figure3 = "figure3"
    figure4 = "figure4"
    figure5 = "figure5"
    figure6 = "figure6"
    figure7 = "figure7"
    figure8 = "figure8"
    figure9 = "figure9"


class PresetName(StrEnum):
    """Settings of the experiments."""

    offline = "offline"
    paper = "paper"


class Log(StrEnum):
    """Formats of the training log."""

    tensorboard = "tensorboard"


WriteOption = Annotated[
    Path | None,
    typer.Option(help="Folder to publish results in and to resume from, such as docs/results."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="Dask scheduler whose workers run the jobs: tcp://host:8786."),
]


def reproduce(
    experiments: Annotated[list[Experiment], typer.Argument(help="Tables and figures, or all.")],
    preset: Annotated[
        PresetName,
        typer.Option(help="offline: bundled weights; paper: InceptionV3, RoBERTa and CLIP."),
    ] = PresetName.offline,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of splits and seeds; a later run can add more.")
    ] = 1,
    dataset: Annotated[
        str, typer.Option(help="mp-fcc, or a Parquet file with all three targets of the paper.")
    ] = "mp-fcc",
    out: Annotated[Path, typer.Option(help="Run folder; an earlier run in it is resumed.")] = Path(
        "runs/reproduce"
    ),
    only_folds: Annotated[
        int | None, typer.Option(min=1, help="Number of folds to run in each repeat. Default: all.")
    ] = None,
    write: WriteOption = None,
    log: Annotated[
        Log | None, typer.Option(help="Log the losses and scores of every epoch.")
    ] = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Reproduce tables and figures of the paper and compare with the published ones.

    Several processes can share a run folder: run the same command more than once.
    """
    from ..dataset.packing import load_dataset
    from ..experiments.exhibits.catalogue import EXPERIMENTS
    from ..experiments.jobs import JobFolder
    from ..experiments.plan import Plan
    from ..experiments.presets import get_preset
    from ..experiments.published import import_jobs, publish, require_all
    from ..experiments.reproduction import reproduce as run

    wanted = {experiment.value for experiment in experiments}
    names = [name for name in EXPERIMENTS if name in wanted or "all" in wanted]
    if write:
        require_all(write, names)
    plan = Plan.of(load_dataset(dataset), get_preset(preset.value), repeats, only_folds)
    console.print(f"run folder: {out}", highlight=False)
    command = shlex.join(["rhosight", *sys.argv[1:]])
    if write and (count := import_jobs(write, JobFolder(out))):
        jobs = format_count(count, "finished job")
        console.print(f"{jobs} imported from {write}", highlight=False)
    with progress_bar() as progress:
        result = run(names, plan, out, progress, command, log.value if log else None, scheduler)
    if write:
        publish(result, write)
    for exhibit in result.exhibits.values():
        for table in _make_tables(exhibit):
            console.print(table)
    console.print(f"weights: {plan.preset.weights}", highlight=False)
    for setting, deviation in plan.deviations.items():
        console.print(f"  {setting}: {deviation}", highlight=False)
    console.print(f"tables, figures and report.html: {out}", highlight=False)


def _make_tables(exhibit: Exhibit) -> Iterator[Table]:
    """Yield the tables of an exhibit: scores per target, or the first rows."""
    heading = f"{exhibit.heading}: {exhibit.title}"
    if not exhibit.has_scores:
        frame, rows = exhibit.table, 12  # the CSV file has all rows
        more = f" (first {rows} of {len(frame)} rows)" if len(frame) > rows else ""
        yield make_frame_table(frame.head(rows), heading + more)
        return
    for title, frame in exhibit.score_tables().items():
        yield make_score_table(frame, f"{heading}\n{title}")


def make_score_table(frame: pd.DataFrame, title: str) -> Table:
    """Make a narrow table of texts for the terminal: a name, then numbers."""
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


runs = typer.Typer(
    help="Inspect and compare run folders of `rhosight reproduce`.", no_args_is_help=True
)

OutOption = Annotated[Path, typer.Option(help="Run folder.")]


@runs.command("list", epilog="Example: rhosight runs list --out runs/reproduce")
def runs_list(out: OutOption = Path("runs/reproduce")) -> None:
    """List the jobs of a run folder: finished, running or interrupted."""
    import pandas as pd

    from ..experiments.records import list_jobs

    jobs = list_jobs(out)
    table = Table(
        title=f"{out}: {format_count(len(jobs), 'job')}",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("name", no_wrap=True)  # argument of `runs show`; it includes repeat and fold
    for column in ("state", "models", "seconds"):
        table.add_column(
            column, justify="right" if column == "seconds" else "left", overflow="fold"
        )
    for row in jobs.to_dict("records"):
        seconds = "" if pd.isna(row["seconds"]) else f"{row['seconds']:.0f}"
        table.add_row(row["name"], row["state"], row["models"], seconds)
    console.print(table)
    states = jobs["state"].value_counts()
    total = jobs["seconds"].sum()
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    console.print(f"{counts}; {total / 60:.0f} min in total", highlight=False)


@runs.command("show", epilog="Example: rhosight runs show image-r0-f0")
def runs_show(
    name: Annotated[str, typer.Argument(help="Name of a job, or its beginning or end.")],
    out: OutOption = Path("runs/reproduce"),
) -> None:
    """Show the settings and scores of a job."""
    from ..experiments.records import show_job

    about, scores = show_job(out, name)
    console.print_json(data=about)
    if len(scores):
        console.print(make_frame_table(scores, "scores, in the unit of the target"))


@runs.command("compare", epilog="Example: rhosight runs compare runs/reproduce runs/other")
def runs_compare(
    one: Annotated[Path, typer.Argument(help="Run folder.")],
    other: Annotated[Path, typer.Argument(help="Run folder.")],
) -> None:
    """Compare two run folders: settings that differ, and scores of both."""
    from ..evaluation.html import describe_target
    from ..experiments.records import compare_runs

    settings, scores = compare_runs(one, other)
    console.print(f"one: {one}\nother: {other}", highlight=False)
    console.print(make_frame_table(settings, "different settings"))
    if scores.empty:
        console.print("the run folders have no scores in common")
        return
    alike = (scores["r2_change"].abs() < VISIBLE_CHANGE) & ~(
        scores["rmse_change"].abs() > VISIBLE_CHANGE * scores["rmse_one"]
    )
    console.print(
        f"{alike.sum()} of {len(scores)} scores agree within {VISIBLE_CHANGE} (R², and RMSE "
        "relative to the first run)",
        highlight=False,
    )
    for (exhibit, target), cells in scores[~alike].groupby(["exhibit", "target"], sort=False):
        console.print(
            make_score_table(_compare_scores(cells), f"{exhibit}: {describe_target(str(target))}")
        )


def _compare_scores(cells: pd.DataFrame) -> pd.DataFrame:
    """Return a table of texts with the scores of two runs side by side."""
    import pandas as pd

    from ..experiments.scores import name_row

    rows = []
    for row in cells.to_dict("records"):
        name = name_row(row["model"], row["extent"], row["stage"])
        r2 = [f"{row['r2_one']:.2f}", f"{row['r2_other']:.2f}", f"{row['r2_change']:+.2f}"]
        rmse = [_format_cell(row["rmse_one"]), _format_cell(row["rmse_other"])]
        label = f"{row['trial']}, {name}" if row["trial"] else name
        rows.append([label, row["part"], *r2, *rmse])
    columns = ["model", "part", "R² one", "other", "change", "RMSE one", "other"]
    return pd.DataFrame(rows, columns=columns)


def make_frame_table(frame: pd.DataFrame, title: str) -> Table:
    """Make a table for the terminal with three digits of each number."""
    table = Table(title=title)
    for name in frame:
        is_numeric = frame[name].dtype.kind in "if"
        table.add_column(str(name), justify="right" if is_numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(_format_cell(value) for value in row))
    return table


def _format_cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
