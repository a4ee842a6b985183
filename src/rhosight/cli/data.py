"""``rhosight data``: look at datasets and make them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from . import building
from .common import DatasetArgument, Kind, console, progress_bar

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
    from ..dataset import iqr_filter, load_dataset

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
    from ..dataset import pack

    with progress_bar() as progress:
        report = pack(folder, out, describe_texts=texts, about=about, progress=progress)
    console.print(f"{report.materials} materials: {report.path}")
    console.print(f"{len(report.masked)} labels masked; see `rhosight data info {report.path}`")
    if len(report.problems):
        table = Table("material", "step", "problem", title="problems")
        for row in report.problems.itertuples():
            table.add_row(row.material_id, row.step, row.problem)
        console.print(table)
