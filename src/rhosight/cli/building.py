"""``rhosight data build``: a dataset from a source of materials."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..errors import RhosightError
from .common import FirstBlock, console, progress_bar, shared_options

app = typer.Typer(
    help="Build a dataset from many materials, in parallel. An interrupted build goes on where it "
    "stopped when the same command is given again.",
    no_args_is_help=True,
)

OutArgument = Annotated[
    Path, typer.Argument(help="x.parquet for one file; else a folder of files for a large set.")
]
TargetsOption = Annotated[
    Path | None, typer.Option(help="CSV, Parquet or Excel table with an id column and targets.")
]
IdOption = Annotated[str | None, typer.Option(help="Its column with the ids.")]


class Interpolation(StrEnum):
    spline = "spline"
    fourier = "fourier"


class Unit(StrEnum):
    bohr = "e/bohr3"
    angstrom = "e/angstrom3"
    electrons = "e"


_BUILD_OPTIONS = {
    "texts": (str, "formula,keywords,all", "Extents of text to make, comma-separated, or none."),
    "image_size": (int | None, None, "Draw the default image, so many pixels, and store it."),
    "interpolation": (Interpolation, Interpolation.fourier, "Of these images."),
    "margin": (bool, False, "Store the margin that training with augmentation needs."),
    "workers": (int | None, None, "Processes on this machine; one for each core if not given."),
    "scheduler": (str | None, None, "Address of a Dask scheduler to use instead, tcp://host:8786."),
    "memory": (str, "2GiB", "Limit of each worker on this machine."),
}


def _options(
    texts: str,
    image_size: int | None,
    interpolation: Interpolation,
    margin: bool,
    workers: int | None,
    scheduler: str | None,
    memory: str,
) -> dict[str, Any]:
    from pydantic import ValidationError

    from ..image import ImageSettings

    try:
        image = None
        if image_size:
            image = ImageSettings(size=image_size, interpolation=interpolation.value)
    except ValidationError as error:
        raise RhosightError(f"--image-size {image_size}: {error.errors()[0]['msg']}") from error
    extents = () if texts == "none" else tuple(part.strip() for part in texts.split(","))
    return {
        "texts": extents,
        "image": image,
        "margin": margin,
        "workers": workers,
        "scheduler": scheduler,
        "memory": memory,
    }


_takes_options = shared_options("options", _BUILD_OPTIONS, _options, "Building")


@app.command(
    epilog="Example: rhosight data build directory relaxed/ mine.parquet --targets moduli.csv"
)
@_takes_options
def directory(
    options: Any,
    folder: Annotated[Path, typer.Argument(help="Searched with all folders below it.")],
    out: OutArgument,
    targets: TargetsOption = None,
    id_column: IdOption = None,
    kind: Annotated[FirstBlock, typer.Option(help="What the files hold.")] = FirstBlock.total,
    difference: Annotated[
        str | None,
        typer.Option(
            help="aeccar: AECCAR2 − AECCAR1. free-atoms: minus rhosight's table of free atoms. Or "
            "a file with the difference: {parent}/{stem}_diff.cube."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="File with the superposed free atoms: {parent}/{stem}_atoms.cube."),
    ] = None,
    unit: Annotated[
        Unit | None, typer.Option(help="Of cube and XSF files that are not in e/bohr3.")
    ] = None,
) -> None:
    """From density files below a folder: CHGCAR, CHG, AECCAR, cube, XSF, compressed or not."""
    from ..sources.directory import Directory

    source = Directory(
        folder, targets, id_column, kind.value, difference, reference, unit and unit.value
    )
    _build(source, out, options)


def _build(source: Any, out: Path, options: dict[str, Any]) -> None:
    """Build, and say what became of every material."""
    from ..dataset import build

    with progress_bar() as progress:
        report = build(source, out, progress=progress, **options)
    console.print(f"{report.materials} materials ({report.added} new): {report.path}")
    if len(report.problems):
        console.print(f"{len(report.problems)} problems: {report.path}.problems.csv")
        table = Table("material", "step", "problem")
        for row in report.problems.head(20).itertuples():
            table.add_row(row.material_id, row.step, row.problem)
        console.print(table)
    if report.seconds:
        whole = sum(report.seconds.values())
        steps = ", ".join(f"{step} {s / whole:.0%}" for step, s in report.seconds.items())
        console.print(f"time of the workers: {whole:.1f} s ({steps})")
