"""``rhosight demo``, ``crossval``, ``train``, ``pretrain``: fit and score models."""

from __future__ import annotations

import hashlib
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import RhosightError
from .common import DatasetArgument, console, format_count, progress_bar
from .recipe_options import PRETRAINING_OPTIONS, add_recipe_options, complete_targets

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..dataset.dataset import Dataset
    from ..evaluation.cross_validation import CrossValidation
    from ..models.base import SavedModel


NEXT_STEPS = """What to do next:
  rhosight predict best CHGCAR       predict a crystal of your own
  rhosight crossval mp-fcc           all five folds, for the spread between them
  rhosight data build directory ...  a dataset of your own calculations"""


FEW_MATERIALS = 30
"""Size of a test set below which scores come with a caution."""


class Groups(StrEnum):
    """Materials that stay together in splits and folds."""

    formula = "formula"
    chemsys = "chemsys"
    prototype = "prototype"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path("demo"),
) -> None:
    """Fit and compare all models on one fold of the bundled data.

    Prints a table and what was learned, and writes a report.
    """
    from ..dataset.packing import load_dataset
    from ..evaluation.conclusions import draw_conclusions
    from ..evaluation.cross_validation import cross_validate
    from ..models.gaussian_process.recipe import descriptor_recipe

    dataset = load_dataset("mp-fcc")
    console.print(f"{len(dataset)} face-centred cubic crystals with DFT charge densities (mp-fcc)")
    with progress_bar() as progress:
        result = cross_validate(
            dataset,
            descriptor_recipe("image+text"),
            run_dir=out,
            only_folds=1,
            progress=progress,
        )
    _report(result, dataset, out)
    for sentence in draw_conclusions(result):
        console.print(f"\n{sentence}", highlight=False)
    console.print(f"\n{NEXT_STEPS}", highlight=False, markup=False)


@add_recipe_options("image+text")
def crossval(
    recipe: Any,
    dataset: DatasetArgument = "mp-fcc",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; an earlier run in it is resumed. Default: named after the "
            "settings, in runs/."
        ),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    only_folds: Annotated[
        int | None, typer.Option(min=1, help="Number of folds to run. Default: all.")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the test set and the folds.")] = 0,
    groups: Annotated[
        Groups,
        typer.Option(
            help="Materials that stay together in splits and folds: those of the same formula, "
            "chemical system (chemsys) or structure type (prototype)."
        ),
    ] = Groups.formula,
) -> None:
    """Cross-validate a recipe, `best`, `no-dft` and the baselines (paper, Figure 2).

    By default image, text and image+text are read by Gaussian processes, which takes minutes. With
    --readout dense, networks are trained as in the paper.
    """
    from pydantic_core import to_json

    from ..dataset.packing import load_dataset
    from ..evaluation.cross_validation import cross_validate

    loaded = load_dataset(dataset)
    recipe = complete_targets(recipe, loaded)
    if out is None:
        text = f"{to_json(recipe.flat()).decode()}{loaded.fingerprint()}{folds}{split_seed}"
        text += "" if groups is Groups.formula else groups
        name = f"crossval-{recipe.label.replace('+', '-')}"
        out = Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    console.print(f"run folder: {out}")
    with progress_bar() as progress:
        result = cross_validate(
            loaded,
            recipe,
            run_dir=out,
            n_splits=folds,
            split_seed=split_seed,
            groups=groups.value,
            only_folds=only_folds,
            progress=progress,
        )
    _report(result, loaded, out)


@add_recipe_options("best")
def train(
    recipe: Any,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    dataset: DatasetArgument = "mp-fcc",
    test_fraction: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Fraction of the test set; 0 trains on everything."),
    ] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Seed of the test set.")] = 0,
    members: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of networks in an ensemble, each trained on another fold: better "
            "predictions, and prediction intervals.",
        ),
    ] = 1,
    with_structure: Annotated[
        bool,
        typer.Option(
            "--with-structure",
            help="Combine it with `structure`, a model of all lattices that comes with the package "
            "and predicts beside it, and alone outside of its domain; best+potential with "
            "`structure+potential`.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model that is already in the folder.")
    ] = False,
) -> None:
    """Train and save a model: `best`, or the one that options ask for.

    The test set is used only for the final scores, which are printed beside those of a baseline.
    """
    from ..dataset.packing import load_dataset
    from ..models.loading import combine, model_for

    if members > 1 and not recipe.trains_network:
        raise RhosightError(
            "--members is for networks; best and no-dft have prediction intervals without it. Add "
            "--modality, or omit --members"
        )
    _check_folder(out, force)
    loaded = load_dataset(dataset)
    recipe = complete_targets(recipe, loaded)
    loaded = loaded.require_targets(recipe.targets, how="any")
    rows, test = _split_rows(loaded, test_fraction, split_seed)
    run_dir = out.with_name(f"{out.name}.run")
    model = combine(recipe) if with_structure else model_for(recipe, members)
    if with_structure:
        rows, test = _move_learned(model, loaded, rows, test)
    with progress_bar() as progress:
        model.fit(loaded[rows], run_dir=run_dir, progress=progress)
        if len(test):
            model.score(loaded[test])
    model.save_pretrained(out)
    shutil.rmtree(run_dir, ignore_errors=True)
    if len(test):
        _print_scores(model, loaded, rows, test)
    _print_model(model, out)


def _print_model(model: Any, out: Path) -> None:
    """Print the folder of a model, and the targets of which it combines two."""
    kept = getattr(model, "kept", None)
    if kept is not None:
        targets = ", ".join(kept) or "no target"
        console.print(f"takes part beside {model.general_name} in: {targets}")
    console.print(f"model: {out}")


def _check_folder(out: Path, force: bool) -> None:
    """Check that a model can be saved there, and replaces none by mistake."""
    from ..models.folder import CONFIG, check_new_folder

    check_new_folder(out)
    if (out / CONFIG).exists() and not force:
        raise RhosightError(
            f"{out}: holds a model already; choose another folder, or replace it with --force"
        )


def _move_learned(
    model: Any, dataset: Dataset, rows: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the split without test materials that the general model has learned."""
    import numpy as np

    learned = model.find_learned(dataset[test]) if len(test) else np.zeros(0, dtype=bool)
    if learned.any():
        count = format_count(int(learned.sum()), "test material")
        console.print(
            f"{count} moved to the training set: {model.general_name} has learned their formulas"
        )
    return np.sort(np.concatenate([rows, test[learned]])), test[~learned]


def _print_scores(model: SavedModel, dataset: Dataset, rows: np.ndarray, test: np.ndarray) -> None:
    """Print the scores of a test set beside those of trees on the composition."""
    from ..evaluation.baseline_scores import score_baseline

    known = dataset.targets.iloc[test].count()
    targets = [name for name in model.targets if known.get(name)]  # of this test set
    baseline = score_baseline("composition", dataset, rows, test, targets)
    title = f"test set: {format_count(len(test), 'material')}"
    table = Table("target", "R²", "RMSE", "baseline R²", "baseline RMSE", "unit", title=title)
    for target in targets:
        scores = model.scores[target], baseline[target]
        pairs = [(f"{one['r2']:.3f}", f"{one['rmse']:.3g}") for one in scores]
        table.add_row(target, *pairs[0], *pairs[1], model.units[target])
    console.print(table)
    console.print("baseline: trees on composition, volume and structure type", highlight=False)
    if model.caveat:
        console.print(f"{model.caveat}.", highlight=False)
    if len(test) < FEW_MATERIALS:
        console.print(
            f"Scores of {format_count(len(test), 'material')} depend on chance: compare models "
            "with `rhosight crossval`.",
            style="yellow",
            highlight=False,
        )


@add_recipe_options("default", PRETRAINING_OPTIONS)
def pretrain(
    recipe: Any,
    out: Annotated[Path, typer.Option(help="Folder for the encoder.")],
    dataset: DatasetArgument = "mp-fcc",
    test_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Fraction of the test set; 0 for none.")
    ] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Seed of the test set.")] = 0,
) -> None:
    """Pre-train a dual encoder on density images and descriptions, without labels.

    Prints how well densities and texts of the test set retrieve each other.
    """
    from ..dataset.packing import load_dataset
    from ..models.folder import check_new_folder
    from ..models.image_text_encoder import ImageTextEncoder

    check_new_folder(out)
    loaded = load_dataset(dataset)
    rows, test = _split_rows(loaded, test_fraction, split_seed)
    encoder = ImageTextEncoder(recipe)
    run_dir = out.with_name(f"{out.name}.run")
    with progress_bar() as progress:
        encoder.fit(loaded[rows], run_dir=run_dir, progress=progress)
        if len(test):
            encoder.retrieval(loaded[test], progress=progress)
    encoder.save_pretrained(out)
    shutil.rmtree(run_dir, ignore_errors=True)
    if encoder.scores is not None:
        table = Table("", title=f"retrieval in the test set: {format_count(len(test), 'material')}")
        for name in ("recall@1", "recall@5", "recall@10", "median rank"):
            table.add_column(name, justify="right")
        for direction, row in encoder.scores.iterrows():
            recalls = (f"{row[f'recall@{k}']:.3f}" for k in (1, 5, 10))
            table.add_row(str(direction), *recalls, f"{row['median_rank']:.1f}")
        console.print(table)
    console.print(f"encoder: {out}")


def _split_rows(
    dataset: Dataset, test_fraction: float, split_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of training set and test set; a fraction of 0 gives no test set."""
    import numpy as np

    from ..dataset.splits import split

    if not test_fraction:
        return np.arange(len(dataset)), np.array([], dtype=int)
    return split(dataset, test_fraction, split_seed)


def _report(result: CrossValidation, dataset: Dataset, out: Path) -> None:
    """Print the scores; write CSV and report to the run folder."""
    from ..evaluation.report import write_report
    from ..models.baselines.potential import SEEN
    from ..models.gaussian_process.recipe import POTENTIAL_RECIPES

    result.scores.to_csv(out / "scores.csv", index=False)
    units = result.settings["units"]
    summary = result.summary()
    for target in result.targets:
        table = Table(
            title=f"{target}: R² / RMSE ({units[target]})",
            box=SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        table.add_column("model", no_wrap=True)
        for name in ("train: R²", "validation", "test"):
            table.add_column(name, justify="right", overflow="fold")
        rows = summary.loc[target]
        for number, (model, stage) in enumerate(rows.index.to_list()):
            row = rows.iloc[number]
            train, validation, test = (row[part] for part in ("train", "validation", "test"))
            scores = _format_r2(train), _format_scores(validation), _format_scores(test)
            table.add_row(f"{model} {stage}".strip(), *scores)
        console.print(table)
    if any(name in POTENTIAL_RECIPES for name in result.predictions["model"].unique()):
        console.print(f"{SEEN}.", highlight=False)
    report = write_report(result, dataset, out / "report.html")
    console.print(f"report: {report}")


def _format_r2(row: pd.Series) -> str:
    has_spread = row["r2_std"] == row["r2_std"]  # not NaN: more than one fold
    return f"{row['r2']:.2f}" + (f"±{row['r2_std']:.2f}" if has_spread else "")


def _format_scores(row: pd.Series) -> str:
    has_spread = row["rmse_std"] == row["rmse_std"]
    rmse = f"{row['rmse']:.3g}" + (f"±{row['rmse_std']:.2g}" if has_spread else "")
    return f"{_format_r2(row)} / {rmse}"
