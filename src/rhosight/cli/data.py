"""``rhosight data``: look at datasets and make them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from . import build as building
from .common import DatasetArgument, Kind, console, progress_bar


class FigureFormat(StrEnum):
    png = "png"
    svg = "svg"
    pdf = "pdf"


app = typer.Typer(help="Look at datasets and make them.", no_args_is_help=True)
app.add_typer(building.app, name="build")


@app.command("info", epilog="Example: rhosight data info mp-fcc --iqr difference")
def data_info(
    dataset: DatasetArgument = "mp-fcc",
    iqr: Annotated[
        Kind | None, typer.Option(help="What the paper's IQR filter on this kind would remove.")
    ] = None,
) -> None:
    """Materials, targets, masked labels, grids, provenance of a dataset."""
    from ..dataset.packing import load_dataset
    from ..dataset.selection import iqr_filter

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


@app.command("pack", epilog="Example: rhosight data pack mp-fcc/ mp-fcc.parquet")
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
    from ..dataset.packing import pack

    with progress_bar() as progress:
        report = pack(folder, out, describe_texts=texts, about=about, progress=progress)
    console.print(f"{report.materials} materials: {report.path}")
    console.print(f"{len(report.masked)} labels masked; see `rhosight data info {report.path}`")
    if len(report.problems):
        table = Table("material", "step", "problem", title="problems")
        for row in report.problems.itertuples():
            table.add_row(row.material_id, row.step, row.problem)
        console.print(table)


@app.command("clean", epilog="Example: rhosight data clean mine.parquet clean.parquet")
def data_clean(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    bravais: Annotated[str, typer.Option(help="Bravais lattice such as cF, or `any`.")] = "any",
    symprec: Annotated[float, typer.Option(min=1e-6, help="Symmetry tolerance, Å.")] = 0.1,
    duplicates: Annotated[bool, typer.Option(help="Remove crystals that stand twice.")] = True,
    iqr: Annotated[
        Kind | None, typer.Option(help="Remove outlying extremes of this kind (the paper).")
    ] = None,
    iqr_factor: Annotated[float, typer.Option(min=0.1, help="In interquartile ranges.")] = 1.5,
) -> None:
    """Remove what should not be trained on. What was removed, and why, goes to OUT.report.csv."""
    from ..dataset.cleaning import clean
    from ..dataset.packing import load_dataset

    kept, report = clean(
        load_dataset(dataset),
        bravais=None if bravais == "any" else bravais,
        symprec=symprec,
        duplicates=duplicates,
        iqr=iqr.value if iqr else None,
        iqr_factor=iqr_factor,
    )
    kept.to_parquet(out)
    notes = out.with_name(f"{out.name}.report.csv")
    report.to_csv(notes)
    table = Table("step", "before", "after", "removed", "masked", "noted")
    for step, row in report.counts.iterrows():
        cells = [row[name] for name in ("before", "after", "removed", "masked", "noted")]
        table.add_row(str(row.get("step", step)), *(f"{cell:.0f}" for cell in cells))
    console.print(table)
    for row in report.table.head(20).itertuples():
        _say(f"{row.action} {row.material_id} ({row.step}): {row.reason}")
    if len(report.table) > 20:
        console.print("...")
    _say(f"{len(kept)} materials: {out}; the whole report: {notes}")


@app.command("validate", epilog="Example: rhosight data validate mine.parquet")
def data_validate(
    path: Annotated[Path, typer.Argument(help="Parquet file, or folder of them.")],
) -> None:
    """All that is wrong with a dataset made elsewhere; exit code 1 if there are errors."""
    from ..dataset.validation import validate_file

    problems = validate_file(path)
    for row in problems.itertuples():
        where = ", ".join(part for part in (row.material_id, row.column) if part)
        _say(f"{row.severity}: {where}: {row.problem}; {row.cure}")
    failed = int((problems["severity"] == "error").sum())
    if not len(problems):
        _say(f"{path}: sound")
    else:
        _say(f"{path}: {failed} error(s), {len(problems) - failed} warning(s)")
    if failed:
        raise typer.Exit(1)


@app.command("show", epilog="Example: rhosight data show mp-fcc --id mp-149 --out figures")
def data_show(
    dataset: DatasetArgument = "mp-fcc",
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("figures"),
    material: Annotated[
        str | None, typer.Option("--id", help="Material of the slices; the first if not given.")
    ] = None,
    window: Annotated[float, typer.Option(min=0.1, help="Side of the slices, Å.")] = 8.0,
    file_format: Annotated[
        FigureFormat, typer.Option("--format", help="File type of the figures.")
    ] = FigureFormat.png,
) -> None:
    """Figures of a dataset: targets, elements, grids, missing labels, slices (Figures 3 and 4)."""
    from ..dataset import figures
    from ..dataset.packing import load_dataset

    loaded = load_dataset(dataset)
    material = material or loaded.ids[0]
    kinds = tuple(k for k in ("total", "difference") if k in loaded[material].density.kinds)
    drawn = {
        "targets": figures.targets_violin(loaded),
        "elements": figures.element_heatmap(loaded),
        "grids": figures.grid_sizes(loaded),
        "missing-labels": figures.missing_labels(loaded),
        f"slices-{material}": figures.total_and_difference(
            loaded, material, window=window, kinds=kinds
        ),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        path = out / f"{name.replace('/', '-')}.{file_format.value}"
        figure.savefig(path, dpi=150)
        _say(str(path))


def _say(line: str) -> None:
    """As it is, on one line: paths and ids are there to be copied."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
