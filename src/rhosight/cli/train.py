"""Commands that train, score and predict."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic_core import to_json
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import RhosightError
from ..models.gaussian_process.recipe import descriptor_recipe
from ..networks.presets import network_recipe
from .common import DatasetArgument, console, default_targets, progress_bar, shared_options

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset.dataset import Dataset
    from ..evaluation.cross_validation import CrossValidation


class Modality(StrEnum):
    image = "image"
    text = "text"
    both = "image+text"
    clip = "clip"


class Extent(StrEnum):
    formula = "formula"
    keywords = "keywords"
    all = "all"


class BatchStatistics(StrEnum):
    learned = "learned"
    kept = "kept"


class Tuned(StrEnum):
    all = "all"
    last = "last"
    lora = "lora"


class Groups(StrEnum):
    formula = "formula"
    chemsys = "chemsys"
    prototype = "prototype"


class Precision(StrEnum):
    auto = "auto"
    single = "32-true"
    bfloat16 = "bf16-mixed"
    float16 = "16-mixed"


_RECIPE_OPTIONS = {
    "preset": (
        str | None,
        None,
        "best or no-dft (descriptors); default, quick, clip-offline (networks); paper-image, "
        "paper-text, paper-stacked, paper-clip; or a trial of the paper such as paper-table2-T3, "
        "paper-table1-E_F-1, paper-figure2-E_F-all.",
    ),
    "recipe_file": (Path | None, None, "JSON file with fields of the recipe; wins over preset."),
    "modality": (Modality | None, None, "Which inputs the networks read."),
    "extent": (Extent | None, None, "How much text describes each material."),
    "descriptors": (
        list[str] | None,
        None,
        "Block of numbers that joins the networks, such as magpie, total or outside; repeat for "
        "several.",
    ),
    "target": (
        list[str] | None,
        None,
        "Column to predict; repeat for several. Default: the paper's targets that the dataset has, "
        "or else all of its own.",
    ),
    "image_backbone": (str | None, None, "Any timm model, or a folder."),
    "text_backbone": (str | None, None, "Any Hugging Face encoder, or a folder."),
    "clip": (str | None, None, "Any CLIP of Hugging Face, or a folder; for modality clip."),
    "size": (int | None, None, "Pixels along an image's side."),
    "epochs": (
        tuple[int, int] | None,
        None,
        "Epochs of the head stage and of the fine-tuning stage, two numbers.",
    ),
    "element_steps": (
        int | None,
        None,
        "Batches from which the text backbone first learns the elements; 0 for none.",
    ),
    "pretraining_epochs": (
        int | None,
        None,
        "Epochs of the contrastive pre-training of a dual encoder (modality clip); 0 for none.",
    ),
    "tuned": (Tuned | None, None, "What of the backbones learns in the fine-tuning stage."),
    "learning_rate": (
        tuple[float, float] | None,
        None,
        "Peak learning rates of readouts and fusion in the two stages, two numbers.",
    ),
    "image_rate": (
        float | None,
        None,
        "Peak learning rate of the image backbone in the fine-tuning stage.",
    ),
    "text_rate": (
        float | None,
        None,
        "Peak learning rate of the text backbone in the fine-tuning stage.",
    ),
    "batch_statistics": (
        BatchStatistics | None,
        None,
        "Statistics of batch normalisation in the fine-tuning stage; kept is better for few "
        "epochs.",
    ),
    "tuned_blocks": (int | None, None, "How many blocks of a backbone learn, with --tuned last."),
    "lora_rank": (int | None, None, "Rank of the updates that learn, with --tuned lora."),
    "precision": (
        Precision | None,
        None,
        "Precision of the numbers in training; auto is what the hardware is fast at.",
    ),
    "compiled": (bool | None, None, "Fine-tune through torch.compile; needs a C++ compiler."),
    "devices": (int | None, None, "Processes to fine-tune in, each on a GPU if there are any."),
    "seed": (int | None, None, "Seed of everything random in training."),
}

# those that pre-training reads
_PRETRAINING_OPTIONS = {
    "preset": (
        str | None,
        None,
        "default, quick or clip-offline, or one of the paper's (paper-clip): backbones, images and "
        "texts are taken from it.",
    ),
    **{
        name: _RECIPE_OPTIONS[name]
        for name in ("recipe_file", "extent", "image_backbone", "text_backbone")
    },
    "clip": (str | None, None, "Any CLIP of Hugging Face, or a folder, in place of both."),
    "size": _RECIPE_OPTIONS["size"],
    "pretraining_epochs": (int | None, None, "Epochs of the contrastive pre-training.", 1),
    **{name: _RECIPE_OPTIONS[name] for name in ("precision", "seed")},
}


def _recipe(
    fallback: str,
    networks_only: bool,
    preset: str | None,
    recipe_file: Path | None,
    size: int | None,
    pretraining_epochs: int | None,
    target: list[str] | None = None,
    **options,
) -> Any:
    """The recipe of a command; ``fallback`` is its own preset if no option speaks of networks.

    Its ``targets`` are set if they were asked for, and only then.
    """
    from ..models.gaussian_process.recipe import DESCRIPTOR_RECIPES
    from ..networks.presets import recipe_names
    from ..networks.flat import nest_fields
    from ..networks.recipe import suggest_names
    from ..networks.settings import merge_settings

    given = {name: value for name, value in options.items() if value not in (None, [])}
    targets = {"targets": tuple(target)} if target else {}
    of_networks = [name for name in given if name != "seed"]
    of_networks += ["size"] * (size is not None)
    of_networks += ["recipe-file"] * (recipe_file is not None)
    of_networks += ["pretraining-epochs"] * (pretraining_epochs is not None)
    fields = _recipe_fields(recipe_file) if recipe_file else {}
    if "kernels" in fields:  # a descriptor recipe, as a sweep writes it
        of_networks.remove("recipe-file")
        preset = preset or "best"
    preset = preset or ("default" if of_networks else fallback)
    names = [*recipe_names(), *([] if networks_only else DESCRIPTOR_RECIPES)]
    if preset not in (*names, *DESCRIPTOR_RECIPES):
        close = suggest_names(preset, names) or [name for name in names if not name.startswith("paper-")]
        raise RhosightError(f"no preset is called {preset!r}; near it are {', '.join(close)}")
    if preset in DESCRIPTOR_RECIPES:
        if networks_only:
            raise RhosightError(f"{preset} trains no network; take default, quick or clip-offline")
        if of_networks:
            option = of_networks[0].replace("_", "-")
            raise RhosightError(f"{preset} trains no network and has no --{option}; leave one out")
        return descriptor_recipe(preset, **(fields | targets | given))
    if size:
        given["image"] = {"size": size}
    if pretraining_epochs is not None:
        given["pretraining"] = {"epochs": pretraining_epochs}
    changes = merge_settings(fields, nest_fields(given | targets))
    return network_recipe(preset).replace(**changes)


def _recipe_fields(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RhosightError(f"{file}: not a readable JSON recipe ({error})") from error


def _takes(fallback: str, options: dict[str, tuple] = _RECIPE_OPTIONS) -> Any:
    """Decorates a command that has these options of a recipe; without targets it has networks
    alone.
    """
    make = partial(_recipe, fallback, "target" not in options)
    return shared_options("recipe", options, make, "Recipe")


def _for_dataset(recipe: Any, dataset: Dataset) -> Any:
    """The recipe; if no target was asked for, that of targets which the dataset has."""
    if "targets" in recipe.model_fields_set or not (targets := default_targets(dataset)):
        return recipe
    console.print(f"targets: {', '.join(targets)}")
    return recipe.model_copy(update={"targets": targets})


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path("demo"),
) -> None:
    """The main job on the bundled data: one split, all models and baselines, a table, a report."""
    from ..dataset.packing import load_dataset
    from ..evaluation.cross_validation import cross_validate

    dataset = load_dataset("mp-fcc")
    console.print(f"{len(dataset)} face-centred cubic crystals with DFT charge densities (mp-fcc)")
    with progress_bar() as progress:
        result = cross_validate(
            dataset, network_recipe("quick"), run_dir=out, only_folds=1, progress=progress
        )
    _finish(result, dataset, out)


@_takes("default")
def crossval(
    recipe: Any,
    dataset: DatasetArgument = "mp-fcc",
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; goes on where it stopped. Default: runs/ and a name."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    only_folds: Annotated[
        int | None, typer.Option(min=1, help="Run only the first few folds.")
    ] = None,
    split_seed: Annotated[int, typer.Option(help="Seed of the test split and the folds.")] = 0,
    groups: Annotated[
        Groups,
        typer.Option(
            help="What stays together in splits and folds: materials of one formula, of one "
            "chemical system, or of one structure type (prototype)."
        ),
    ] = Groups.formula,
) -> None:
    """Cross-validate networks beside `best`, `no-dft` and the baselines (paper, Figure 2).

    With --preset best no network is trained: the rest of the table, in minutes.
    """
    from ..dataset.packing import load_dataset
    from ..evaluation.cross_validation import cross_validate
    from ..networks.recipe import Recipe

    loaded = load_dataset(dataset)
    recipe = _for_dataset(recipe, loaded)
    if out is None:
        text = f"{to_json(recipe.flat()).decode()}{loaded.fingerprint()}{folds}{split_seed}"
        text += "" if groups is Groups.formula else groups
        own = recipe.modalities[-1] if isinstance(recipe, Recipe) else "descriptors"
        name = f"crossval-{own.replace('+', '-')}"
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
    _finish(result, loaded, out)


@_takes("best")
def train(
    recipe: Any,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    dataset: DatasetArgument = "mp-fcc",
    test_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Held out and scored; 0 trains on everything.")
    ] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Seed of the test split.")] = 0,
    members: Annotated[
        int,
        typer.Option(
            min=1, help="So many networks on as many folds: better predictions, and intervals."
        ),
    ] = 1,
) -> None:
    """Train a model and save it: `best`, or a network if an option asks for one.

    Materials of the test split are not looked at until the end.
    """
    from ..dataset.packing import load_dataset
    from ..models.descriptor_model import DescriptorModel
    from ..models.ensemble import Ensemble
    from ..models.folder import check_new_folder
    from ..models.gaussian_process.recipe import DescriptorRecipe
    from ..models.property_model import PropertyModel

    if members > 1 and isinstance(recipe, DescriptorRecipe):
        raise RhosightError(
            "--members is for networks, and best and no-dft have intervals of their own; add "
            "--modality, or leave it out"
        )
    check_new_folder(out)
    loaded = load_dataset(dataset)
    recipe = _for_dataset(recipe, loaded)
    loaded = loaded.require_targets(recipe.targets, how="any")
    rows, test = _held_out(loaded, test_fraction, split_seed)
    run_dir = out.with_name(f"{out.name}.run")
    with progress_bar() as progress:
        if isinstance(recipe, DescriptorRecipe):
            model: Any = DescriptorModel(recipe).fit(loaded[rows], progress)
        else:
            network = PropertyModel(recipe) if members == 1 else Ensemble(recipe, members)
            model = network.fit(loaded[rows], run_dir=run_dir, progress=progress)
        if len(test):
            model.score(loaded[test])
    model.save_pretrained(out)
    shutil.rmtree(run_dir, ignore_errors=True)
    if len(test):
        table = Table("target", "R²", "RMSE", "unit", title=f"test part: {len(test)} materials")
        for target, score in model.scores.items():
            unit = model.units[target]
            table.add_row(target, f"{score['r2']:.3f}", f"{score['rmse']:.3g}", unit)
        console.print(table)
    console.print(f"model: {out}")


@_takes("default", _PRETRAINING_OPTIONS)
def pretrain(
    recipe: Any,
    out: Annotated[Path, typer.Option(help="Folder for the encoder.")],
    dataset: DatasetArgument = "mp-fcc",
    test_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Held out to retrieve among; 0 for none.")
    ] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Seed of the test split.")] = 0,
) -> None:
    """Pre-train a dual encoder on density images and their descriptions, without labels.

    Prints how well densities and texts of held-out materials find each other.
    """
    from ..dataset.packing import load_dataset
    from ..models.folder import check_new_folder
    from ..models.image_text_encoder import ImageTextEncoder

    check_new_folder(out)
    loaded = load_dataset(dataset)
    rows, test = _held_out(loaded, test_fraction, split_seed)
    encoder = ImageTextEncoder(recipe)
    run_dir = out.with_name(f"{out.name}.run")
    with progress_bar() as progress:
        encoder.fit(loaded[rows], run_dir=run_dir, progress=progress)
        if len(test):
            encoder.retrieval(loaded[test], progress=progress)
    encoder.save_pretrained(out)
    shutil.rmtree(run_dir, ignore_errors=True)
    if encoder.scores is not None:
        table = Table("", title=f"retrieval among {len(test)} held-out materials")
        for name in ("recall@1", "recall@5", "recall@10", "median rank"):
            table.add_column(name, justify="right")
        for name, row in encoder.scores.iterrows():
            recalls = (f"{row[f'recall@{k}']:.3f}" for k in (1, 5, 10))
            table.add_row(name, *recalls, f"{row['median_rank']:.1f}")
        console.print(table)
    console.print(f"encoder: {out}")


def _held_out(
    dataset: Dataset, test_fraction: float, split_seed: int
) -> tuple[Sequence[int], Sequence[int]]:
    """Rows to learn from, and rows not looked at until the end; none for a fraction of 0."""
    from ..dataset.splits import split

    if not test_fraction:
        return range(len(dataset)), []
    return split(dataset, test_fraction, split_seed)


def _finish(result: CrossValidation, dataset: Dataset, out: Path) -> None:
    """Table on the terminal, CSV files and report in the run folder."""
    from ..evaluation.report import write_report

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
        for (model, stage), row in summary.loc[target].iterrows():
            train, validation, test = (row[part] for part in ("train", "validation", "test"))
            scores = _r2(train), _cell(validation), _cell(test)
            table.add_row(f"{model} {stage}".strip(), *scores)
        console.print(table)
    report = write_report(result, dataset, out / "report.html")
    console.print(f"report: {report}")


def _r2(row: pd.Series) -> str:
    several = row["r2_std"] == row["r2_std"]  # more than one fold
    return f"{row['r2']:.2f}" + (f"±{row['r2_std']:.2f}" if several else "")


def _cell(row: pd.Series) -> str:
    several = row["rmse_std"] == row["rmse_std"]
    return f"{_r2(row)} / {row['rmse']:.3g}" + (f"±{row['rmse_std']:.2g}" if several else "")
