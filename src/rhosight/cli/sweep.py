"""`rhosight sweep`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .common import DatasetArgument, console, default_targets, progress_bar


def sweep(
    dataset: DatasetArgument = "mp-fcc",
    space: Annotated[
        str,
        typer.Option(
            help="What is varied: network, best, paper-table2, paper-table3, or a JSON file."
        ),
    ] = "network",
    trials: Annotated[
        int,
        typer.Option(min=1, help="Trials that are finished in the end, earlier ones included."),
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; goes on where it stopped. Default: runs/ and a name."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to predict; repeat for several. Default: the paper's targets that the "
            "dataset has, or else all of its own."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds of the training part.")] = 5,
    split_seed: Annotated[int, typer.Option(help="Seed of the test split and the folds.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the values that are drawn.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Trials at a time, a process each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Dask scheduler whose workers train: tcp://host:8786.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Database of the trials, shared by all processes that are given it: "
            "postgresql://... Default: a SQLite file in the run folder."
        ),
    ] = None,
    score: Annotated[
        bool,
        typer.Option("--score", help="Score the chosen recipe on the test part, once."),
    ] = False,
) -> None:
    """Choose fields of a recipe with Optuna, on folds of the training part."""
    from ..dataset.packing import load_dataset
    from ..dataset.schema import TARGETS
    from ..evaluation.tuning.space import SPACES, SearchSpace
    from ..evaluation.tuning.sweep import BEST_RECIPE
    from ..evaluation.tuning.sweep import sweep as run

    loaded = load_dataset(dataset)
    is_file = space not in SPACES and Path(space).suffix == ".json"
    chosen = SearchSpace.from_json(space) if is_file else SearchSpace.named(space)
    targets = tuple(target or ())
    if not targets and not chosen.has_targets:
        targets = default_targets(loaded)
        console.print(f"targets: {', '.join(targets)}")
    if target or targets not in ((), tuple(TARGETS)):  # a space without targets has all of these
        chosen = chosen.with_targets(targets)
    if out is None:
        text = f"{chosen.model_dump_json()}{loaded.fingerprint()}{folds}{split_seed}{seed}"
        out = Path("runs") / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    console.print(f"run folder: {out}")
    with progress_bar() as progress:
        found = run(
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
        scores = found.score(loaded, progress) if score else {}
    title = "best trials: RMSE in standard deviations, mean over folds and targets"
    table = Table(title=title)
    shown = ["number", "rmse", *chosen.parameters]
    for name in shown:
        table.add_column(name, justify="right" if name in ("number", "rmse") else "left")
    for row in found.trials.query("state == 'complete'").head(5).to_dict("records"):
        cells = (f"{row[n]:.4g}" if isinstance(row[n], float) else str(row[n]) for n in shown)
        table.add_row(*cells)
    console.print(table)
    if scores:
        table = Table("target", "R²", "RMSE", title="the chosen recipe on the test part")
        for name, values in scores.items():
            unit = loaded.units[name]
            table.add_row(name, f"{values['r2']:.3f}", f"{values['rmse']:.3g} {unit}")
        console.print(table)
    console.print(f"recipe: {out / BEST_RECIPE} (rhosight train --recipe-file takes it)")
