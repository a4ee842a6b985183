"""``rhosight density``: charge densities predicted from structures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RhosightError
from .batches import report, work_through
from .common import check_files, console, errors, print_line, progress_bar
from .reading import NotesMode, NotesOption, Reading

if TYPE_CHECKING:
    from ..ecd.prediction import DensityPrediction


class PredictedKind(StrEnum):
    """Kinds of density that can be predicted."""

    total = "total"
    difference = "difference"


ErrorMapOption = Annotated[
    Path | None,
    typer.Option(
        help="Also write the error that is expected at each point, e/Å³, to this file, in the "
        "format of its name. For one crystal.",
    ),
]


def density(
    files: Annotated[
        list[str], typer.Argument(help="Crystals: CIF, POSCAR, or the structure of a density file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="File to write: a CHGCAR, or a Gaussian cube or HDF5 if its name ends in .cube "
            "or .h5. Default: the name of the crystal's file with the suffix .CHGCAR.",
        ),
    ] = None,
    error_map: ErrorMapOption = None,
    spacing: Annotated[
        float,
        typer.Option(help="Largest distance between grid points along the lattice vectors, Å."),
    ] = 0.2,
    kind: Annotated[
        PredictedKind,
        typer.Option(help="Total density, or its difference from superposed free atoms."),
    ] = PredictedKind.total,
    model: Annotated[
        str, typer.Option(help="density (comes with the package), or the folder of such a model.")
    ] = "density",
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    notes: NotesOption = NotesMode.show,
) -> None:
    """Predict charge densities from structures, without a calculation.

    The files say that their density is predicted, and how large its error probably is. It is a
    pseudo-density as GPAW writes it: near the nuclei it is not that of another code.
    """
    check_files(files)
    targets = _choose_outputs(files, output, force)
    if error_map:
        _check_error_map(error_map, files, targets, force)
    from ..ecd.model import DensityModel

    loaded = DensityModel.from_pretrained(model)
    reading = Reading(mode=notes)

    def predict(names: list[str]) -> None:
        for name in names:
            structure = reading.read_structure(name)
            reading.print_notes([name])
            result = loaded.predict(structure, spacing)
            _write(result, name, targets[name], kind)
            if error_map:
                _write_map(result, error_map)

    with progress_bar() as progress:
        outcome = work_through(files, list, predict, progress, "predicted", at_once=1)
    if code := report(outcome, "predicted"):
        raise typer.Exit(code)


def _choose_outputs(files: list[str], output: Path | None, force: bool) -> dict[str, Path]:
    """Return the file to write for each crystal; refuse to overwrite."""
    from ..density.predicted import check_output

    if output and len(files) > 1:
        raise RhosightError(f"{output}: one file for {len(files)} crystals; omit --output")
    targets = {
        file: check_output(output or Path(file).with_name(f"{Path(file).stem}.CHGCAR"))
        for file in files
    }
    if len(set(targets.values())) < len(targets):
        raise RhosightError("two crystals would write the same file; predict them one by one")
    for file, target in targets.items():
        if target.exists() and (not force or target.resolve() == Path(file).resolve()):
            raise RhosightError(
                f"{target}: exists already; choose another name with --output, or overwrite it "
                "with --force"
            )
    return targets


def _check_error_map(path: Path, files: list[str], targets: dict[str, Path], force: bool) -> None:
    """Check that the file of an error map can be written."""
    from ..density.predicted import check_output

    if len(files) > 1:
        raise RhosightError(
            f"--error-map {path}: one file for {len(files)} crystals; predict them one by one"
        )
    target = check_output(path).resolve()
    if target in {other.resolve() for other in (Path(files[0]), targets[files[0]])}:
        raise RhosightError(f"--error-map {path}: is the file of the crystal or of its density")
    if path.exists() and not force:
        raise RhosightError(
            f"{path}: exists already; choose another name, or overwrite it with --force"
        )


def _write_map(result: DensityPrediction, path: Path) -> None:
    from ..density.predicted import write_error_map

    write_error_map(result.density, result.error_map, path)
    print_line(
        f"{path}: error expected at each point, at most {result.error_map.max():.2g} e/Å³, "
        "from the disagreement of the networks"
    )


def _write(result: DensityPrediction, file: str, target: Path, kind: PredictedKind) -> None:
    """Write one density, and print what it is."""
    from ..density.predicted import format_percent, write_density

    structure = result.density.structure
    write_density(result.density, target, kind.value)
    grid = "×".join(map(str, result.density.shape))
    console.print(
        f"{target}: predicted {kind.value} density of {structure.composition.reduced_formula}, "
        f"{grid} points, not SCF; expected error {format_percent(result.error)} % of the "
        f"electrons, 90 % of crystals below {format_percent(result.error_bound)} %",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for reason in result.outside:
        errors.print(
            f"{file}: outside the training domain: {reason}", style="yellow", highlight=False
        )
