"""``rhosight data build``: a dataset from a source of materials."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

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
IdOption = Annotated[
    str | None,
    typer.Option(
        help="Column of that table with the ids; material_id, id, name or file if not given."
    ),
]


class Interpolation(StrEnum):
    spline = "spline"
    fourier = "fourier"


class Unit(StrEnum):
    bohr = "e/bohr3"
    angstrom = "e/angstrom3"
    electrons = "e"


SHOWN = 20
"""Problems that are printed; all of them are in a file."""

_BUILD_OPTIONS = {
    "texts": (str, "formula,keywords,all", "Extents of text to make, comma-separated, or none."),
    "image_size": (int | None, None, "Draw the default image, so many pixels, and store it."),
    "interpolation": (
        Interpolation,
        Interpolation.fourier,
        "How the stored image is sampled between the points of the grid.",
    ),
    "margin": (bool, False, "Store the margin that training with augmentation needs."),
    "workers": (int | None, None, "Processes on this machine; one for each core if not given.", 1),
    "scheduler": (str | None, None, "Address of a Dask scheduler to use instead, tcp://host:8786."),
    "memory": (str, "2GiB", "Most memory that each worker on this machine may take."),
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

    from ..inputs.image import ImageSettings

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
        Unit | None,
        typer.Option(help="Unit of the values in cube and XSF files, where it is not e/bohr3."),
    ] = None,
) -> None:
    """From density files below a folder: CHGCAR, CHG, AECCAR, cube, XSF, compressed or not."""
    from ..dataset.sources.directory import Directory

    source = Directory(
        folder,
        targets,
        id_column,
        kind.value,
        difference,
        reference,
        unit.value if unit else None,
    )
    _build(source, out, options)


@app.command(
    "materials-project",
    epilog="Example: MP_API_KEY=... rhosight data build materials-project mp-fcc.parquet",
)
@_takes_options
def materials_project(
    options: Any,
    out: OutArgument,
    stable: Annotated[bool, typer.Option(help="Only what lies on the convex hull.")] = True,
    bravais: Annotated[str, typer.Option(help="Bravais lattice such as cF, or `any`.")] = "cF",
    require: Annotated[
        list[str] | None, typer.Option(help="Label that must be there; repeat for several.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option(help="Elements that must all be present: Fe,O.")
    ] = None,
    chemsys: Annotated[list[str] | None, typer.Option(help="Chemical system: Fe-O.")] = None,
    material: Annotated[
        list[str] | None, typer.Option("--id", help="These materials instead of a query.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first so many.")] = None,
    thermo_type: Annotated[
        str, typer.Option(help="Hull that stability and formation energy refer to.")
    ] = "GGA_GGA+U_R2SCAN",
    gnome: Annotated[bool, typer.Option(help="Take GNoME's too, licensed CC BY-NC.")] = False,
    endpoint: Annotated[str | None, typer.Option(help="Another server of the same API.")] = None,
) -> None:
    """From the Materials Project; by default the paper's query. Needs an API key (MP_API_KEY)."""
    from ..dataset.schema import TARGETS
    from ..dataset.sources.materials_project.source import MaterialsProject

    source = MaterialsProject(
        stable=stable,
        bravais=None if bravais == "any" else bravais,
        require=tuple(TARGETS if require is None else require),
        thermo_type=thermo_type,
        elements=tuple(elements.split(",")) if elements else (),
        chemsys=tuple(chemsys or ()),
        material_ids=tuple(material or ()),
        limit=limit,
        gnome=gnome,
        texts="all" in options["texts"],
        endpoint=endpoint,
    )
    _build(source, out, options)


@app.command(epilog="Example: rhosight data build gpaw cifs/ mine.parquet --targets moduli.csv")
@_takes_options
def gpaw(
    options: Any,
    folder: Annotated[Path, typer.Argument(help="Folder of CIF files, or one CIF file.")],
    out: OutArgument,
    targets: TargetsOption = None,
    id_column: IdOption = None,
    python: Annotated[
        str | None, typer.Option(help="The Python that has GPAW; found if not given.")
    ] = None,
    cutoff: Annotated[float, typer.Option(min=50, help="Cut-off of the plane waves, eV.")] = 400.0,
    kpoint_density: Annotated[float, typer.Option(min=0.1, help="k-points per Å⁻¹.")] = 3.0,
    functional: Annotated[str, typer.Option(help="Functional, as GPAW names it.")] = "PBE",
    max_iterations: Annotated[int, typer.Option(min=1, help="Most iterations of the SCF.")] = 333,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one material.")] = 7200.0,
) -> None:
    """Calculate densities with GPAW from CIF files: plane waves, no relaxation."""
    from ..dataset.sources.gpaw import Gpaw
    from ..dataset.sources.tables import read_targets

    labels, units = read_targets(targets, id_column) if targets else (None, {})
    source = Gpaw(
        folder if folder.is_dir() else [folder],
        labels=labels,
        python=python,
        cutoff=cutoff,
        kpoint_density=kpoint_density,
        functional=functional,
        max_iterations=max_iterations,
        timeout=timeout,
        units=units,
    )
    _build(source, out, options)


def _build(source: Any, out: Path, options: dict[str, Any]) -> None:
    """Build, and say what became of every material."""
    from ..dataset.build.building import build

    with progress_bar() as progress:
        report = build(source, out, progress=progress, **options)
    counts = {
        "new": report.added,
        "read again, since their files have changed": report.replaced,
        "with new labels, since the table has changed": report.relabelled,
    }
    done = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    line = f"{report.materials} materials ({done or 'nothing new'}): {report.path}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_targets(report.path), markup=False, highlight=False, soft_wrap=True)
    if report.masked:
        counts = ", ".join(f"{count} of {name}" for name, count in report.masked.items())
        line = f"left out, since they cannot be right: {counts}; `rhosight data clean` says why"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name in list(report.notes)[:SHOWN]:
        line = f"note: {name}: {'; '.join(report.notes[name])}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(report.notes) > SHOWN:
        console.print(f"and notes on {len(report.notes) - SHOWN} more, in their provenance")
    if len(report.problems):
        shown = report.problems.head(SHOWN)
        for row in shown.itertuples():
            line = f"problem: {row.material_id} ({row.step}): {row.problem}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        rest = ", which has more" if len(shown) < len(report.problems) else ""
        line = f"{len(report.problems)} problem(s): {report.path}.problems.csv{rest}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if report.seconds:
        whole = sum(report.seconds.values())
        steps = ", ".join(f"{step} {s / whole:.0%}" for step, s in report.seconds.items())
        console.print(f"time of the workers: {whole:.1f} s ({steps})")


def _targets(path: Path) -> str:
    """Which columns of a dataset can be learned: a table may have been meant otherwise."""
    import pyarrow.parquet as pq

    from ..dataset.dataset import files_of
    from ..dataset.schema import columns_with, unit_of

    fields = pq.read_schema(files_of(path)[0])
    names = columns_with(fields, "target")
    units = {name: unit_of(fields.field(name)) for name in names}
    shown = (f"{name} ({unit})" if unit else name for name, unit in units.items())
    return f"targets: {', '.join(shown) or 'none'}"
