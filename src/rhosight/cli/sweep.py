"""``rhosight sweep``: hyperparameters chosen on folds of the training set."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .common import DatasetArgument, choose_targets, console, progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset.dataset import Dataset
    from ..evaluation.tuning.space import SearchSpace


RunFolderOption = Annotated[
    Path | None,
    typer.Option(
        help="Run folder; an earlier run in it is resumed. Default: named after the "
        "settings, in runs/."
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Column to predict; repeat for several. Default: the paper's targets, or all "
        "targets if the dataset has none of them."
    ),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(help="Dask scheduler whose workers run the trials: tcp://host:8786."),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        help="Database of the trials, which several processes can share: postgresql://... "
        "Default: a SQLite file in the run folder."
    ),
]


def sweep(
    dataset: DatasetArgument = "mp-fcc",
    space: Annotated[
        str,
        typer.Option(help="Search space: network, best, paper-table2, paper-table3 or JSON file."),
    ] = "network",
    trials: Annotated[
        int,
        typer.Option(min=1, help="Total number of finished trials, including earlier ones."),
    ] = 20,
    out: RunFolderOption = None,
    target: TargetOption = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds of the training set.")] = 5,
    split_seed: Annotated[int, typer.Option(help="Seed of the test set and the folds.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the sampled values.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time, one process each.")] = 1,
    scheduler: SchedulerOption = None,
    storage: StorageOption = None,
    score: Annotated[
        bool,
        typer.Option("--score", help="Score the chosen recipe once on the test set."),
    ] = False,
) -> None:
    """Tune the hyperparameters of a recipe with Optuna, on folds of the training set."""
    from ..dataset.packing import load_dataset
    from ..evaluation.tuning.sweep import BEST_RECIPE
    from ..evaluation.tuning.sweep import sweep as run_sweep

    loaded = load_dataset(dataset)
    chosen = _read_space(space, target, loaded)
    if out is None:
        text = f"{chosen.model_dump_json()}{loaded.fingerprint()}{folds}{split_seed}{seed}"
        out = Path("runs") / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    console.print(f"run folder: {out}")
    with progress_bar() as progress:
        result = run_sweep(
            loaded,
            chosen,
            out,
            trials=trials,
            n_splits=folds,
            split_seed=split_seed,
            seed=seed,
            storage=storage,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
        )
        scores = result.score(loaded, progress) if score else {}
    console.print(_make_trials_table(result.trials, chosen))
    if scores:
        console.print(_make_scores_table(scores, loaded.units))
    console.print(f"recipe: {out / BEST_RECIPE} (train with it: rhosight train --recipe-file)")


def _read_space(space: str, target: list[str] | None, dataset: Dataset) -> SearchSpace:
    """Return the search space, with targets that the dataset has."""
    from ..dataset.schema import TARGETS
    from ..evaluation.tuning.space import SPACES, SearchSpace

    is_file = space not in SPACES and Path(space).suffix == ".json"
    chosen = SearchSpace.from_json(space) if is_file else SearchSpace.from_name(space)
    targets = tuple(target or ())
    if not targets and not chosen.has_targets:
        targets = choose_targets(dataset)
        console.print(f"targets: {', '.join(targets)}")
    if target or targets not in ((), tuple(TARGETS)):  # a space without targets has all of these
        chosen = chosen.with_targets(targets)
    return chosen


def _make_trials_table(trials: pd.DataFrame, space: SearchSpace) -> Table:
    table = Table(title="best trials: RMSE in standard deviations, mean over folds and targets")
    shown = ["number", "rmse", *space.parameters]
    for name in shown:
        table.add_column(name, justify="right" if name in ("number", "rmse") else "left")
    for row in trials.query("state == 'complete'").head(5).to_dict("records"):
        cells = (f"{row[n]:.4g}" if isinstance(row[n], float) else str(row[n]) for n in shown)
        table.add_row(*cells)
    return table


def _make_scores_table(scores: dict[str, dict[str, float]], units: dict[str, str]) -> Table:
    table = Table("target", "R²", "RMSE", title="chosen recipe on the test set")
    for name, values in scores.items():
        table.add_row(name, f"{values['r2']:.3f}", f"{values['rmse']:.3g} {units[name]}")
    return table
