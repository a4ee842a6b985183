"""``rhosight data build``: a dataset from a source of materials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RhosightError
from .common import (
    console,
    errors,
    format_count,
    print_line,
    print_remark,
    progress_bar,
    shared_options,
)
from .reading import FileKind, NotesMode, NotesOption, Unit

if TYPE_CHECKING:
    from ..dataset.build.building import BuildReport

app = typer.Typer(
    help="Build a dataset from many materials in parallel. Repeat the same command to resume an "
    "interrupted build.",
    no_args_is_help=True,
)

OutArgument = Annotated[
    Path,
    typer.Argument(help="File x.parquet, or for a large dataset a folder for several files."),
]
TargetsOption = Annotated[
    Path | None, typer.Option(help="CSV, Parquet or Excel table with ids and targets.")
]
IdOption = Annotated[
    str | None,
    typer.Option(help="Column of the table with the ids. Default: material_id, id, name or file."),
]


class Interpolation(StrEnum):
    """Interpolations between grid points."""

    spline = "spline"
    fourier = "fourier"


MAX_SHOWN = 20
"""Maximum number of problems, and of notes, that are printed; files contain all."""

_BUILD_OPTIONS = {
    "texts": (
        str,
        "formula,keywords,all",
        "Text extents to generate, separated by commas, or none.",
    ),
    "image_size": (
        int | None,
        None,
        "Store the default image with this number of pixels per side.",
    ),
    "interpolation": (
        Interpolation,
        Interpolation.fourier,
        "Interpolation of the stored image between grid points.",
    ),
    "margin": (bool, False, "Store the margin of the image that augmentation needs."),
    "workers": (int | None, None, "Processes on this machine. Default: one per core.", 1),
    "scheduler": (
        str | None,
        None,
        "Dask scheduler to use instead of local processes: tcp://host:8786.",
    ),
    "memory": (str, "2GiB", "Memory limit of each local worker."),
}


def _make_options(
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


_add_options = shared_options("options", _BUILD_OPTIONS, _make_options, "Building")


def _make_bare_options(
    texts: str, workers: int | None, scheduler: str | None, memory: str
) -> dict[str, Any]:
    return _make_options(texts, None, Interpolation.fourier, False, workers, scheduler, memory)


_BARE_OPTIONS = {name: _BUILD_OPTIONS[name] for name in ("workers", "scheduler", "memory")}
_BARE_OPTIONS = {
    "texts": (
        str,
        "none",
        "Text extents to generate, separated by commas: formula, keywords, all (seconds each).",
    ),
    **_BARE_OPTIONS,
}
_add_bare_options = shared_options("options", _BARE_OPTIONS, _make_bare_options, "Building")


@app.command(
    epilog="Example: rhosight data build directory relaxed/ mine.parquet --targets moduli.csv"
)
@_add_options
def directory(
    options: Any,
    folder: Annotated[
        Path, typer.Argument(help="Folder of density files, searched with its subfolders.")
    ],
    out: OutArgument,
    targets: TargetsOption = None,
    id_column: IdOption = None,
    kind: Annotated[
        FileKind, typer.Option(help="Kind of density in the files: total or difference.")
    ] = FileKind.total,
    difference: Annotated[
        str | None,
        typer.Option(
            help="Source of the difference density: aeccar (AECCAR2 − AECCAR1), free-atoms (minus "
            "rhosight's table of free atoms), or a file ({parent}/{stem}_diff.cube)."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="File with the superposed free atoms to subtract: {parent}/{stem}_atoms.cube."
        ),
    ] = None,
    unit: Annotated[
        Unit | None,
        typer.Option(help="Unit of the values in cube and XSF files. Default: e/bohr3."),
    ] = None,
    notes: NotesOption = NotesMode.show,
) -> None:
    """Build from a folder of CHGCAR, CHG, AECCAR, cube and XSF files, also compressed."""
    from ..dataset.sources.directory import Directory

    stored: Any = kind.value
    source = Directory(
        folder,
        targets,
        id_column,
        stored,
        difference,
        reference,
        unit.value if unit else None,
        notes.value,
    )
    _build(source, out, options)
    _print_passed_over(source.passed_over)


@app.command(
    "materials-project",
    epilog="Example: MP_API_KEY=... rhosight data build materials-project mp-fcc.parquet",
)
@_add_options
def materials_project(
    options: Any,
    out: OutArgument,
    stable: Annotated[bool, typer.Option(help="Only materials on the convex hull.")] = True,
    bravais: Annotated[str, typer.Option(help="Bravais lattice, such as cF, or any.")] = "cF",
    require: Annotated[
        list[str] | None, typer.Option(help="Required label; repeat for several.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option(help="Elements that a material must contain: Fe,O.")
    ] = None,
    chemsys: Annotated[
        list[str] | None, typer.Option(help="Chemical system: Fe-O; repeat for several.")
    ] = None,
    material: Annotated[
        list[str] | None,
        typer.Option("--id", help="Id of a material, instead of a query; repeat for several."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of materials.")] = None,
    thermo_type: Annotated[
        str, typer.Option(help="Convex hull for stability and formation energy.")
    ] = "GGA_GGA+U_R2SCAN",
    gnome: Annotated[
        bool, typer.Option(help="Include materials of GNoME, licensed CC BY-NC.")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(help="Another server of the same API.")] = None,
) -> None:
    """Build from the Materials Project, by default with the query of the paper.

    Needs an API key in the environment variable MP_API_KEY.
    """
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
@_add_options
def gpaw(
    options: Any,
    folder: Annotated[Path, typer.Argument(help="Folder of CIF files, or one CIF file.")],
    out: OutArgument,
    targets: TargetsOption = None,
    id_column: IdOption = None,
    python: Annotated[
        str | None, typer.Option(help="Python interpreter with GPAW. Default: search for one.")
    ] = None,
    cutoff: Annotated[float, typer.Option(min=50, help="Plane-wave cut-off, eV.")] = 400.0,
    kpoint_density: Annotated[float, typer.Option(min=0.1, help="k-points per Å⁻¹.")] = 3.0,
    functional: Annotated[str, typer.Option(help="Functional, by its name in GPAW.")] = "PBE",
    max_iterations: Annotated[
        int, typer.Option(min=1, help="Maximum number of SCF iterations.")
    ] = 333,
    timeout: Annotated[
        float, typer.Option(min=1, help="Maximum time for one material, s.")
    ] = 7200.0,
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


@app.command(
    epilog="Example: rhosight data build structures cifs/ mine.parquet --targets moduli.csv"
)
@_add_bare_options
def structures(
    options: Any,
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder of CIF and POSCAR files, or a CSV, Parquet or JSON-lines file with a "
            "column structure or cif."
        ),
    ],
    out: OutArgument,
    targets: TargetsOption = None,
    id_column: IdOption = None,
) -> None:
    """Build from structures alone, without densities, for models that read no density."""
    from ..dataset.sources.structures import Structures

    source = Structures(path, targets, id_column)
    _build(source, out, options)
    _print_passed_over(source.passed_over)


def _build(source: Any, out: Path, options: dict[str, Any]) -> None:
    """Build a dataset and print a report."""
    from ..dataset.build.building import build

    with progress_bar() as progress:
        report = build(source, out, progress=progress, **options)
    counts = {
        "new": report.added,
        f"read again because {'its file has' if report.replaced == 1 else 'their files have'} "
        "changed": report.replaced,
        "with new labels because the table has changed": report.relabelled,
    }
    changes = ", ".join(f"{count} {change}" for change, count in counts.items() if count)
    materials = format_count(report.materials, "material")
    print_line(f"{materials} ({changes or 'nothing new'}): {report.path}")
    print_line(_describe_targets(report.path))
    if report.masked:
        masked = ", ".join(f"{count} of {name}" for name, count in report.masked.items())
        print_line(f"implausible labels masked: {masked}; `rhosight data clean` gives the reasons")
    _print_notes(report.notes)
    _print_problems(report)
    if report.seconds:
        total = sum(report.seconds.values())
        steps = ", ".join(f"{step} {s / total:.0%}" for step, s in report.seconds.items())
        console.print(f"computing time of the workers: {total:.1f} s ({steps})")


def _print_notes(notes: Mapping[str, Sequence[str]]) -> None:
    for name in list(notes)[:MAX_SHOWN]:
        print_remark("note", name, "; ".join(notes[name]))
    if len(notes) > MAX_SHOWN:
        more = format_count(len(notes) - MAX_SHOWN, "more material")
        errors.print(f"notes on {more} are in the provenance of the dataset")


def _print_passed_over(files: Mapping[str, str]) -> None:
    for file in list(files)[:MAX_SHOWN]:
        print_remark("passed over", file, files[file])
    if len(files) > MAX_SHOWN:
        errors.print(f"passed over: {format_count(len(files) - MAX_SHOWN, 'more file')}")


def _print_problems(report: BuildReport) -> None:
    if not len(report.problems):
        return
    shown = report.problems.head(MAX_SHOWN)
    for row in shown.to_dict("records"):
        print_line(f"problem: {row['material_id']} ({row['step']}): {row['problem']}")
    problems = format_count(len(report.problems), "problem")
    more = " (complete list)" if len(shown) < len(report.problems) else ""
    print_line(f"{problems}: {report.path}.problems.csv{more}")


def _describe_targets(path: Path) -> str:
    """Return a line with the columns that a model can learn, to make errors visible."""
    import pyarrow.parquet as pq

    from ..dataset.parquet import find_files
    from ..dataset.schema import columns_with, unit_of

    fields = pq.read_schema(find_files(path)[0])
    names = columns_with(fields, "target")
    units = {name: unit_of(fields.field(name)) for name in names}
    shown = (f"{name} ({unit})" if unit else name for name, unit in units.items())
    return f"targets: {', '.join(shown) or 'none'}"
