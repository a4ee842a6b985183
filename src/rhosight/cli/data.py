"""``rhosight data``: inspect, build, clean and validate datasets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from . import build as building
from .common import (
    DatasetArgument,
    FigureFormat,
    Kind,
    console,
    format_count,
    print_line,
    print_remark,
    progress_bar,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..dataset.dataset import Dataset

MAX_GRIDS, MAX_REASONS = 6, 20
"""Maximum number of grids and of reasons that are printed."""


app = typer.Typer(help="Inspect, build, clean and validate datasets.", no_args_is_help=True)
app.add_typer(building.app, name="build")


@app.command("info", epilog="Example: rhosight data info mp-fcc --iqr difference")
def data_info(
    dataset: DatasetArgument = "mp-fcc",
    iqr: Annotated[
        Kind | None,
        typer.Option(help="List what the paper's IQR filter on this kind of density removes."),
    ] = None,
) -> None:
    """Show the materials, targets, masked labels, grids and provenance of a dataset."""
    from ..dataset.packing import load_dataset

    loaded = load_dataset(dataset)
    name = loaded.metadata.get("name") or dataset
    console.print(f"[bold]{name}[/bold]: {format_count(len(loaded), 'material')}")
    console.print(_make_targets_table(loaded))
    if len(loaded.masked):
        console.print(_make_masked_table(loaded.masked))
    _print_densities(loaded)
    texts = loaded.texts.notna().sum()
    console.print("texts: " + ", ".join(f"{extent} {n}" for extent, n in texts.items()))
    for key in ("attribution", "licence"):
        if loaded.metadata.get(key):
            console.print(f"{key}: {loaded.metadata[key]}")
    if iqr:
        console.print(_make_filter_table(loaded, iqr))


def _make_targets_table(dataset: Dataset) -> Table:
    table = Table("target", "unit", "labels", "missing", "min", "median", "max")
    for target, unit in dataset.units.items():
        values = dataset.targets[target].dropna()
        cells = [f"{v:.4g}" for v in (values.min(), values.median(), values.max())]
        missing = len(dataset) - len(values)
        table.add_row(target, unit, str(len(values)), str(missing), *cells)
    return table


def _make_masked_table(masked: pd.DataFrame) -> Table:
    table = Table("material", "target", "original value", "reason", title="masked labels")
    for row in masked.to_dict("records"):
        table.add_row(row["material_id"], row["target"], f"{row['value']:g}", row["reason"])
    return table


def _print_densities(dataset: Dataset) -> None:
    kinds: Counter[str] = Counter()
    grids: Counter[str] = Counter()
    for density in dataset[dataset.has_density].densities:
        kinds.update(density.grids.keys())
        grids["×".join(map(str, density.shape))] += 1
    if not kinds:
        console.print("densities: none; models of structures and texts can read this dataset")
        return
    console.print("densities: " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()))
    common = ", ".join(f"{grid} ({n})" for grid, n in grids.most_common(MAX_GRIDS))
    more = ", ..." if len(grids) > MAX_GRIDS else ""
    console.print(f"grids: {common}{more}")


def _make_filter_table(dataset: Dataset, kind: Kind) -> Table:
    from ..dataset.selection import iqr_filter

    kept, report = iqr_filter(dataset, kind.value)
    removed = len(dataset) - len(kept)
    title = f"IQR filter on {kind.value}: {removed} of {len(dataset)} removed"
    table = Table("material", "extreme", "e/Å³", "bound", title=title)
    for row in report.to_dict("records"):
        table.add_row(
            row["material_id"], row["extreme"], f"{row['value']:.4g}", f"{row['bound']:.4g}"
        )
    return table


@app.command("pack", epilog="Example: rhosight data pack mp-fcc/ mp-fcc.parquet")
def data_pack(
    folder: Annotated[
        Path, typer.Argument(help="Folder with materials.csv, structures/ and densities.h5.")
    ],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    texts: Annotated[bool, typer.Option(help="Generate descriptions of the structures.")] = True,
    about: Annotated[
        Path | None,
        typer.Option(
            help="JSON with attribution, licence, units. Default: FOLDER/provenance.json."
        ),
    ] = None,
) -> None:
    """Pack a folder of structures, densities and labels into one Parquet dataset."""
    from ..dataset.packing import pack

    with progress_bar() as progress:
        report = pack(folder, out, describe_texts=texts, about=about, progress=progress)
    console.print(f"{format_count(report.materials, 'material')}: {report.path}")
    masked = format_count(len(report.masked), "label")
    console.print(f"{masked} masked; see `rhosight data info {report.path}`")
    if len(report.problems):
        table = Table("material", "step", "problem", title="problems")
        for row in report.problems.to_dict("records"):
            table.add_row(row["material_id"], row["step"], row["problem"])
        console.print(table)


@app.command("clean", epilog="Example: rhosight data clean mine.parquet clean.parquet")
def data_clean(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    bravais: Annotated[
        str, typer.Option(help="Bravais lattice to keep, such as cF, or any.")
    ] = "any",
    symprec: Annotated[
        float, typer.Option(min=1e-6, help="Tolerance of the symmetry search, Å.")
    ] = 0.1,
    with_density: Annotated[
        bool, typer.Option("--with-density", help="Keep only materials with a charge density.")
    ] = False,
    duplicates: Annotated[bool, typer.Option(help="Remove duplicates of crystals.")] = True,
    iqr: Annotated[
        Kind | None,
        typer.Option(help="Apply the paper's IQR filter to the extremes of this kind of density."),
    ] = None,
    iqr_factor: Annotated[
        float, typer.Option(min=0.1, help="Bound of the IQR filter, interquartile ranges.")
    ] = 1.5,
) -> None:
    """Remove unsuitable materials and report the reasons in OUT.report.csv."""
    from ..dataset.cleaning import clean
    from ..dataset.packing import load_dataset

    kept, report = clean(
        load_dataset(dataset),
        with_density=with_density,
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
        counts = [row[name] for name in ("before", "after", "removed", "masked", "noted")]
        table.add_row(str(row.get("step", step)), *(f"{count:.0f}" for count in counts))
    console.print(table)
    for entry in report.table.head(MAX_REASONS).to_dict("records"):
        print_line(f"{entry['action']} {entry['material_id']} ({entry['step']}): {entry['reason']}")
    if len(report.table) > MAX_REASONS:
        console.print("...")
    print_line(f"{format_count(len(kept), 'material')}: {out}; complete report: {notes}")


@app.command("validate", epilog="Example: rhosight data validate mine.parquet")
def data_validate(
    path: Annotated[Path, typer.Argument(help="Parquet file, or folder of Parquet files.")],
) -> None:
    """List the errors in a dataset; the exit code is 1 if there are any."""
    from ..dataset.validation import validate_file

    problems = validate_file(path)
    for row in problems.to_dict("records"):
        where = ", ".join(part for part in (row["material_id"], row["column"]) if part)
        print_line(f"{row['severity']}: {where}: {row['problem']}; {row['cure']}")
    errors = int((problems["severity"] == "error").sum())
    warnings = len(problems) - errors
    if not len(problems):
        print_line(f"{path}: no errors")
    else:
        counts = f"{format_count(errors, 'error')}, {format_count(warnings, 'warning')}"
        print_line(f"{path}: {counts}")
    if errors:
        raise typer.Exit(1)


@app.command("show", epilog="Example: rhosight data show mp-fcc --id mp-149 --out figures")
def data_show(
    dataset: DatasetArgument = "mp-fcc",
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = Path("figures"),
    material: Annotated[
        str | None,
        typer.Option("--id", help="Material of the slices. Default: the first material."),
    ] = None,
    window: Annotated[float, typer.Option(min=0.1, help="Side of the slices, Å.")] = 8.0,
    file_format: Annotated[
        FigureFormat, typer.Option("--format", help="File format of the figures.")
    ] = FigureFormat.png,
) -> None:
    """Draw figures of a dataset, like Figures 3 and 4 of the paper.

    They show the targets, elements, grids, missing labels and slices of one material.
    """
    from ..dataset import figures
    from ..dataset.packing import load_dataset

    loaded = load_dataset(dataset)
    material = material or loaded.ids[0]
    drawn = {
        "targets": figures.targets_violin(loaded),
        "elements": figures.element_heatmap(loaded),
        "missing-labels": figures.missing_labels(loaded),
    }
    if loaded.kinds:
        drawn["grids"] = figures.grid_sizes(loaded)
    kinds: Any = tuple(k for k in ("total", "difference") if k in loaded[material].crystal.grids)
    if kinds:
        drawn[f"slices-{material}"] = figures.total_and_difference(
            loaded, material, window=window, kinds=kinds
        )
    else:
        print_remark("note", material, "it has no charge density, so no slices are drawn")
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        path = out / f"{name.replace('/', '-')}.{file_format.value}"
        figure.savefig(path, dpi=150)
        print_line(str(path))
