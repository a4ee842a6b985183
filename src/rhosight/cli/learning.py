"""Commands that train, score and predict."""

from __future__ import annotations

import hashlib
import json
import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import RhosightError
from .common import (
    DatasetArgument,
    FilesArgument,
    FirstBlock,
    KindOption,
    console,
    progress_bar,
    read_materials,
    shared_options,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset import Dataset
    from ..evaluation import CrossValidation


class Modality(StrEnum):
    image = "image"
    text = "text"
    both = "image+text"


class Extent(StrEnum):
    formula = "formula"
    keywords = "keywords"
    all = "all"


class Preset(StrEnum):
    default = "default"
    paper = "paper"


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


_RECIPE_OPTIONS = {
    "preset": (Preset, Preset.default, "The default recipe, or the paper's (section 2.2)."),
    "recipe_file": (Path | None, None, "JSON file with fields of the recipe; wins over preset."),
    "modality": (Modality | None, None, "Which inputs."),
    "extent": (Extent | None, None, "How much text."),
    "target": (list[str] | None, None, "Column to predict; repeat for several."),
    "image_backbone": (str | None, None, "Any timm model, or a folder."),
    "text_backbone": (str | None, None, "Any Hugging Face encoder, or a folder."),
    "size": (int | None, None, "Pixels along an image's side."),
    "epochs": (tuple[int, int] | None, None, "Of the head and the fine-tuning stage."),
    "seed": (int | None, None, "Of everything random in training."),
}


def _recipe(
    preset: Preset, recipe_file: Path | None, target: list[str] | None, size: int | None, **options
) -> Any:
    from ..training import Recipe

    base = Recipe.paper() if preset is Preset.paper else Recipe()
    fields = base.model_dump()
    if recipe_file:
        try:
            fields |= json.loads(recipe_file.read_text())
        except (OSError, ValueError, TypeError) as error:
            raise RhosightError(f"{recipe_file}: not a readable JSON recipe ({error})") from error
    fields |= {name: value for name, value in options.items() if value is not None}
    if target:
        fields["targets"] = tuple(target)
    if size:
        fields["image"] = dict(fields["image"]) | {"size": size}
    return Recipe.checked(fields)


_takes_recipe = shared_options("recipe", _RECIPE_OPTIONS, _recipe, "Recipe")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path("demo"),
) -> None:
    """The main job on the bundled data: one split, all models and baselines, a table, a report."""
    from ..dataset import load_dataset
    from ..evaluation import cross_validate
    from ..training import Recipe

    dataset = load_dataset("mp-fcc")
    console.print(f"{len(dataset)} face-centred cubic crystals with DFT charge densities (mp-fcc)")
    with progress_bar() as progress:
        result = cross_validate(
            dataset, Recipe.quick(), run_dir=out, only_folds=1, progress=progress
        )
    _finish(result, dataset, out)


@_takes_recipe
def crossval(
    recipe: Any,
    dataset: DatasetArgument = "mp-fcc",
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; goes on where it stopped. Default: runs/ and a name."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    only_folds: Annotated[int | None, typer.Option(min=1, help="Run only the first few.")] = None,
    split_seed: Annotated[int, typer.Option(help="Of the test split and the folds.")] = 0,
) -> None:
    """Cross-validate a recipe beside the baselines (paper section 3, Figure 2)."""
    from ..dataset import load_dataset
    from ..evaluation import cross_validate

    loaded = load_dataset(dataset)
    if out is None:
        text = f"{recipe.model_dump_json()}{loaded.fingerprint()}{folds}{split_seed}"
        name = f"crossval-{recipe.modality.replace('+', '-')}"
        out = Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    console.print(f"run folder: {out}")
    with progress_bar() as progress:
        result = cross_validate(
            loaded,
            recipe,
            run_dir=out,
            n_splits=folds,
            split_seed=split_seed,
            only_folds=only_folds,
            progress=progress,
        )
    _finish(result, loaded, out)


@_takes_recipe
def train(
    recipe: Any,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    dataset: DatasetArgument = "mp-fcc",
    test_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Held out and scored; 0 trains on everything.")
    ] = 0.15,
    split_seed: Annotated[int, typer.Option(help="Of the test split.")] = 0,
) -> None:
    """Train a model and save it. Materials of the test split are not looked at until the end."""
    from ..dataset import load_dataset, split
    from ..property_model import PropertyModel

    loaded = load_dataset(dataset).require_targets(recipe.targets, how="any")
    rows, test = range(len(loaded)), []
    if test_fraction:
        rows, test = split(loaded, test_fraction, split_seed)
    model = PropertyModel(recipe)
    with progress_bar() as progress:
        model.fit(loaded[rows], run_dir=out.with_name(f"{out.name}.run"), progress=progress)
        if len(test):
            model.score(loaded[test])
    model.save_pretrained(out)
    shutil.rmtree(out.with_name(f"{out.name}.run"), ignore_errors=True)
    if len(test):
        table = Table("target", "R²", "RMSE", "unit", title=f"test part: {len(test)} materials")
        for target, score in model.scores.items():
            unit = model.units[target]
            table.add_row(target, f"{score['r2']:.3f}", f"{score['rmse']:.3g}", unit)
        console.print(table)
    console.print(f"model: {out}")


def predict(
    model: Annotated[str, typer.Argument(help="Folder of a saved model, or a hub id.")],
    files: FilesArgument,
    kind: KindOption = FirstBlock.total,
    difference: Annotated[
        str | None,
        typer.Option(
            help="File with the difference beside each CHGCAR, for models that read both; "
            "{parent}, {name} and {stem} stand for parts of the CHGCAR's path."
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Predict properties from density files or a dataset with a saved model."""
    from ..property_model import PropertyModel

    loaded = PropertyModel.from_pretrained(model)
    materials = read_materials(files, kind, difference)
    with progress_bar() as progress:
        predicted = loaded.predict(materials, progress=progress)
    _show_predictions(predicted, loaded.units, output, out)


def _show_predictions(
    predicted: pd.DataFrame, units: dict[str, str], output: Format, out: Path | None
) -> None:
    if output is Format.table and out is None:
        table = Table("material", *(f"{t}\n{units[t]}" for t in predicted.columns))
        for name, row in predicted.iterrows():
            table.add_row(str(name), *(f"{value:.4f}" for value in row))
        console.print(table)
        return
    if output is Format.json:
        rows = [{"material": str(name), **row} for name, row in predicted.to_dict("index").items()]
        text = json.dumps({"units": units, "predictions": rows}, indent=2, ensure_ascii=False)
    else:
        named = predicted.rename(columns={t: f"{t} ({units[t]})" for t in predicted.columns})
        text = named.to_csv(lineterminator="\n").rstrip()
    if out:
        out.write_text(text + "\n")
    else:
        print(text)


def _finish(result: CrossValidation, dataset: Dataset, out: Path) -> None:
    """Table on the terminal, CSV files and report in the run folder."""
    from ..report import write_report

    result.scores.to_csv(out / "scores.csv", index=False)
    units = result.settings["units"]
    for target in result.targets:
        table = Table(title=f"{target}: R² / RMSE ({units[target]})")
        for name in ("model", "stage", "train", "validation", "test"):
            table.add_column(name, justify="left" if name in ("model", "stage") else "right")
        for (name, model, stage), row in result.summary().iterrows():
            if name == target:
                cells = [_cell(row[part]) for part in ("train", "validation", "test")]
                table.add_row(model, stage, *cells)
        console.print(table)
    report = write_report(result, dataset, out / "report.html")
    console.print(f"report: {report}")


def _cell(row: pd.Series) -> str:
    r2, rmse = f"{row['r2']:.2f}", f"{row['rmse']:.3g}"
    if row["r2_std"] == row["r2_std"]:  # more than one fold
        r2, rmse = f"{r2}±{row['r2_std']:.2f}", f"{rmse}±{row['rmse_std']:.2g}"
    return f"{r2} / {rmse}"
