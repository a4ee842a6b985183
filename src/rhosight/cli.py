"""The command line: parse, call one public function, show."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .errors import RhosightError

if TYPE_CHECKING:
    import pandas as pd

    from .dataset import Dataset
    from .density import ChargeDensity
    from .evaluation import CrossValidation

console = Console()
errors = Console(stderr=True)

app = typer.Typer(
    name="rhosight",
    help="Structure-property relations from electron charge densities.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at datasets and make them.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class Modality(StrEnum):
    image = "image"
    text = "text"
    both = "image+text"


class Extent(StrEnum):
    formula = "formula"
    keywords = "keywords"
    all = "all"


class FirstBlock(StrEnum):
    total = "total"
    difference = "difference"


class Kind(StrEnum):
    total = "total"
    difference = "difference"
    spin = "spin"
    promolecule = "promolecule"


class Normalisation(StrEnum):
    physical = "physical"
    paper = "paper"
    zero = "zero"


class Colour(StrEnum):
    grey = "grey"
    viridis = "viridis"


class Preset(StrEnum):
    default = "default"
    paper = "paper"


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


DatasetArgument = Annotated[
    str,
    typer.Argument(
        help="A bundled dataset (mp-fcc), a Parquet file, or a folder with materials.csv, "
        "structures/ and densities.h5."
    ),
]
KindOption = Annotated[
    FirstBlock,
    typer.Option(help="What the first block of the CHGCAR files holds."),
]


def _recipe_options(function):
    """The recipe's options, the same for every command that trains."""
    import inspect

    shared = {
        "preset": (Preset, Preset.default, "The default recipe, or the paper's (section 2.2)."),
        "recipe_file": (
            Path | None,
            None,
            "JSON file with fields of the recipe; wins over preset.",
        ),
        "modality": (Modality | None, None, "Which inputs."),
        "extent": (Extent | None, None, "How much text."),
        "target": (list[str] | None, None, "Column to predict; repeat for several."),
        "image_backbone": (str | None, None, "Any timm model, or a folder."),
        "text_backbone": (str | None, None, "Any Hugging Face encoder, or a folder."),
        "size": (int | None, None, "Pixels along an image's side."),
        "epochs": (tuple[int, int] | None, None, "Of the head and the fine-tuning stage."),
        "seed": (int | None, None, "Of everything random in training."),
    }
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "recipe"]
    extra = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, typer.Option(help=text, rich_help_panel="Recipe")],
        )
        for name, (kind, default, text) in shared.items()
    ]

    def wrapped(**values: Any):
        settings = {name: values.pop(name) for name in shared}
        return function(recipe=_recipe(**settings), **values)

    wrapped.__doc__ = function.__doc__
    wrapped.__name__ = function.__name__
    wrapped.__signature__ = signature.replace(
        parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
    )
    return wrapped


def _recipe(
    preset: Preset, recipe_file: Path | None, target: list[str] | None, size: int | None, **options
) -> Any:
    from .training import Recipe

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


@app.command(epilog="Example: rhosight demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path("demo"),
) -> None:
    """The main job on the bundled data: one split, all models and baselines, a table, a report."""
    from .dataset import load_dataset
    from .evaluation import cross_validate
    from .training import Recipe

    dataset = load_dataset("mp-fcc")
    console.print(f"{len(dataset)} face-centred cubic crystals with DFT charge densities (mp-fcc)")
    with _progress() as progress:
        result = cross_validate(
            dataset, Recipe.quick(), run_dir=out, only_folds=1, progress=progress
        )
    _finish(result, dataset, out)


@app.command(epilog="Example: rhosight crossval mp-fcc --modality image --target bulk_modulus_vrh")
@_recipe_options
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
    from .dataset import load_dataset
    from .evaluation import cross_validate

    loaded = load_dataset(dataset)
    if out is None:
        text = f"{recipe.model_dump_json()}{loaded.fingerprint()}{folds}{split_seed}"
        name = f"crossval-{recipe.modality.replace('+', '-')}"
        out = Path("runs") / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    console.print(f"run folder: {out}")
    with _progress() as progress:
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


@app.command(epilog="Example: rhosight train mp-fcc --out model --modality image")
@_recipe_options
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
    from .dataset import load_dataset, split
    from .property_model import PropertyModel

    loaded = load_dataset(dataset).require_targets(recipe.targets, how="any")
    rows, test = range(len(loaded)), []
    if test_fraction:
        rows, test = split(loaded, test_fraction, split_seed)
    model = PropertyModel(recipe)
    with _progress() as progress:
        model.fit(loaded[rows], run_dir=out.with_name(f"{out.name}.run"), progress=progress)
        if len(test):
            model.score(loaded[test])
    model.save_pretrained(out)
    import shutil

    shutil.rmtree(out.with_name(f"{out.name}.run"), ignore_errors=True)
    if len(test):
        table = Table("target", "R²", "RMSE", "unit", title=f"test part: {len(test)} materials")
        for target, score in model.scores.items():
            unit = model.units[target]
            table.add_row(target, f"{score['r2']:.3f}", f"{score['rmse']:.3g}", unit)
        console.print(table)
    console.print(f"model: {out}")


@app.command(epilog="Example: rhosight predict model relaxed/*/CHGCAR --format csv")
def predict(
    model: Annotated[str, typer.Argument(help="Folder of a saved model, or a hub id.")],
    files: Annotated[list[str], typer.Argument(help="CHGCAR files, or one dataset.")],
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
    """Predict properties from CHGCAR files or a dataset with a saved model."""
    from .property_model import PropertyModel

    loaded = PropertyModel.from_pretrained(model)
    materials = _materials(files, kind, difference)
    with _progress() as progress:
        predicted = loaded.predict(materials, progress=progress)
    _show_predictions(predicted, loaded.units, output, out)


@app.command(epilog="Example: rhosight image CHGCAR --kind difference --out slices")
def image(
    files: Annotated[list[str], typer.Argument(help="CHGCAR files, or one dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("slices"),
    show: Annotated[
        Kind | None, typer.Option(help="Density to draw; that of the first block if not given.")
    ] = None,
    kind: KindOption = FirstBlock.total,
    size: Annotated[int, typer.Option(min=8, max=4096, help="Pixels along a side.")] = 299,
    window: Annotated[float, typer.Option(min=0.1, help="Side of the window.")] = 8.0,
    lattice_units: Annotated[
        bool, typer.Option("--lattice-units", help="The window is in lattice scales, not Å.")
    ] = False,
    hkl: Annotated[
        tuple[int, int, int] | None, typer.Option(help="Plane; the densest if not given.")
    ] = None,
    offset: Annotated[float, typer.Option(help="Along the normal, interplanar spacings.")] = 0.0,
    normalisation: Annotated[Normalisation, typer.Option()] = Normalisation.paper,
    colour: Annotated[Colour, typer.Option()] = Colour.viridis,
    fourier: Annotated[bool, typer.Option("--fourier", help="Fourier transform.")] = False,
    material: Annotated[
        list[str] | None, typer.Option("--id", help="Only these materials of the dataset.")
    ] = None,
) -> None:
    """Cut slices along a lattice plane and write them as PNG files."""
    from .image import Channel, ImageSettings, density_image, to_pil

    channel = Channel(
        kind=(show or kind).value,
        window=window,
        unit="lattice" if lattice_units else "angstrom",
        hkl=hkl,
        offset=offset,
    )
    settings = ImageSettings(
        size=size,
        channels=(channel,),
        normalisation=normalisation.value,
        colour=colour.value,
        fourier=fourier,
    )
    materials = _materials(files, kind, None)
    if material:
        from .dataset import Dataset

        if not isinstance(materials, Dataset):
            raise RhosightError("--id chooses from a dataset, not from CHGCAR files")
        materials = materials[material]
    out.mkdir(parents=True, exist_ok=True)
    densities = getattr(materials, "densities", materials)
    with _progress() as progress:
        for done, density in enumerate(densities, start=1):
            name = Path(density.name)
            stem = name.stem if name.stem != "CHGCAR" or not name.parent.name else name.parent.name
            to_pil(density_image(density, settings)).save(out / f"{stem}-{channel.kind}.png")
            progress("slices", done, len(densities))
    console.print(f"{len(densities)} slices of {channel.kind}: {out}")


@data_app.command("info", epilog="Example: rhosight data info mp-fcc --iqr difference")
def data_info(
    dataset: DatasetArgument = "mp-fcc",
    iqr: Annotated[
        Kind | None, typer.Option(help="What the paper's IQR filter on this kind would remove.")
    ] = None,
) -> None:
    """Materials, targets, masked labels, grids, provenance of a dataset."""
    from .dataset import iqr_filter, load_dataset

    loaded = load_dataset(dataset)
    console.print(f"[bold]{loaded.metadata.get('name') or dataset}[/bold]: {len(loaded)} materials")
    table = Table("target", "unit", "labels", "missing", "min", "median", "max")
    for target, unit in loaded.units.items():
        values = loaded.targets[target].dropna()
        row = [f"{v:.4g}" for v in (values.min(), values.median(), values.max())]
        table.add_row(target, unit, str(len(values)), str(len(loaded) - len(values)), *row)
    console.print(table)
    if len(loaded.masked):
        table = Table("material", "target", "as served", "masked because", title="masked labels")
        for row in loaded.masked.itertuples():
            table.add_row(row.material_id, row.target, f"{row.value:g}", row.reason)
        console.print(table)
    counts: dict[str, int] = {}
    grids: dict[str, int] = {}
    for density in loaded.densities:
        for kind in density.grids:
            counts[kind] = counts.get(kind, 0) + 1
        grid = "×".join(map(str, density.shape))
        grids[grid] = grids.get(grid, 0) + 1
    console.print("densities: " + ", ".join(f"{kind} {n}" for kind, n in counts.items()))
    common = sorted(grids.items(), key=lambda item: -item[1])[:6]
    console.print("grids: " + ", ".join(f"{grid} ({n})" for grid, n in common), "…")
    texts = loaded.texts.notna().sum()
    console.print("texts: " + ", ".join(f"{extent} {n}" for extent, n in texts.items()))
    for key in ("attribution", "licence"):
        if loaded.metadata.get(key):
            console.print(f"{key}: {loaded.metadata[key]}")
    if iqr:
        kept, report = iqr_filter(loaded, iqr.value)
        title = f"IQR filter on {iqr.value}: {len(loaded) - len(kept)} of {len(loaded)} removed"
        table = Table("material", "extreme", "e/Å³", "bound", title=title)
        for row in report.itertuples():
            table.add_row(row.material_id, row.extreme, f"{row.value:.4g}", f"{row.bound:.4g}")
        console.print(table)


@data_app.command("pack", epilog="Example: rhosight data pack mp-fcc/ mp-fcc.parquet")
def data_pack(
    folder: Annotated[Path, typer.Argument(help="materials.csv, structures/, densities.h5.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    texts: Annotated[bool, typer.Option(help="Describe the structures as well.")] = True,
    about: Annotated[
        Path | None,
        typer.Option(help="JSON with attribution, licence, units; else provenance.json of FOLDER."),
    ] = None,
) -> None:
    """Turn a folder of structures, densities and labels into one Parquet dataset."""
    from .dataset import pack

    with _progress() as progress:
        report = pack(folder, out, describe_texts=texts, about=about, progress=progress)
    console.print(f"{report.materials} materials: {report.path}")
    console.print(f"{len(report.masked)} labels masked; see `rhosight data info {report.path}`")
    if len(report.problems):
        table = Table("material", "step", "problem", title="problems")
        for row in report.problems.itertuples():
            table.add_row(row.material_id, row.step, row.problem)
        console.print(table)


def main() -> None:
    """Run the command line; a user's mistake ends in one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "lightning", "fsspec", "timm", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        app()
    except RhosightError as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on from here", markup=False)
        raise SystemExit(130) from None


@contextmanager
def _progress():
    """A bar for whatever reports (label, step, steps, watched loss)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def report(label: str, step: int, steps: int, watched: float | None = None) -> None:
            if label not in tasks:
                for old in tasks.values():
                    bar.update(old, visible=False)
                tasks[label] = bar.add_task(label, total=steps)
            text = label if watched is None else f"{label}, loss {watched:.3f}"
            bar.update(tasks[label], completed=step, description=text)

        yield report


def _materials(
    files: list[str], kind: FirstBlock, difference: str | None
) -> Dataset | list[ChargeDensity]:
    """CHGCAR files, or one dataset, from the arguments of a command."""
    from .dataset import BUNDLED, load_dataset
    from .density import ChargeDensity

    first = Path(files[0])
    if len(files) == 1 and (
        files[0] in BUNDLED or first.is_dir() or first.suffix.lower() == ".parquet"
    ):
        return load_dataset(files[0])
    densities = []
    for file in map(Path, files):
        density = ChargeDensity.from_chgcar(file, kind.value)
        if difference:
            other = difference.format(parent=file.parent, name=file.name, stem=file.stem)
            density = density.merged(ChargeDensity.from_chgcar(other, "difference"))
        densities.append(density)
    return densities


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
    from .report import write_report

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


if __name__ == "__main__":
    main()
