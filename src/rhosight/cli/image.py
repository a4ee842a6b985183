"""``rhosight image``: slices of densities as PNG files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RhosightError
from .common import (
    FilesArgument,
    Kind,
    console,
    format_count,
    progress_bar,
)
from .reading import KindOption, NotesMode, NotesOption, Reading, UnitOption, expand_folders

if TYPE_CHECKING:
    from ..density.charge_density import ChargeDensity
    from ..inputs.image import ImageSettings


class Normalisation(StrEnum):
    """Maps from density values to pixels."""

    physical = "physical"
    paper = "paper"
    zero = "zero"


class Colour(StrEnum):
    """Colours of the images."""

    grey = "grey"
    viridis = "viridis"


LatticeUnitsOption = Annotated[
    bool, typer.Option("--lattice-units", help="Give the window in lattice scales, not Å.")
]
PlaneOption = Annotated[
    tuple[int, int, int] | None,
    typer.Option(help="Miller indices of the lattice plane. Default: the densest plane."),
]
OffsetOption = Annotated[
    float,
    typer.Option(help="Shift of the plane along its normal, in interplanar spacings."),
]
NormalisationOption = Annotated[
    Normalisation,
    typer.Option(
        help="Map from values to pixels: paper, by mean and spread of each image; zero, by the "
        "largest value of each image, so that zero stays zero; physical, one map for all "
        "materials."
    ),
]
FreeAtomsOption = Annotated[
    bool,
    typer.Option(
        "--free-atoms",
        help="Compute difference and promolecule from total and the table of free atoms.",
    ),
]


def image(
    files: FilesArgument,
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")] = Path("slices"),
    show: Annotated[
        Kind | None,
        typer.Option(help="Kind of density to draw. Default: the kind in the first block."),
    ] = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    size: Annotated[int, typer.Option(min=8, max=4096, help="Pixels along each side.")] = 299,
    window: Annotated[float, typer.Option(min=0.1, help="Side of the square window, Å.")] = 8.0,
    lattice_units: LatticeUnitsOption = False,
    hkl: PlaneOption = None,
    offset: OffsetOption = 0.0,
    normalisation: NormalisationOption = Normalisation.paper,
    colour: Annotated[
        Colour, typer.Option(help="Colours of the images: shades of grey or viridis.")
    ] = Colour.viridis,
    fourier: Annotated[
        bool, typer.Option("--fourier", help="Draw the Fourier transform of the slice.")
    ] = False,
    free_atoms: FreeAtomsOption = False,
    material: Annotated[
        list[str] | None, typer.Option("--id", help="Material of the dataset; repeat for several.")
    ] = None,
    notes: NotesOption = NotesMode.show,
) -> None:
    """Cut slices of densities along a lattice plane and write them as PNG files."""
    from ..inputs.image import Channel, ImageSettings

    channel = Channel(
        kind=(show or kind or Kind.total).value,
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
        reference="free-atoms" if free_atoms else "code",
    )
    reading = Reading(kind, unit, mode=notes)
    files = expand_folders(files)
    names, densities = _read_densities(files, reading, material)
    out.mkdir(parents=True, exist_ok=True)
    _write_images(names, densities, settings, out)
    reading.print_notes(material)
    slices = format_count(len(densities), "slice")
    console.print(f"{slices} of the {channel.kind} density: {out}")


def _read_densities(
    files: list[str], reading: Reading, ids: list[str] | None
) -> tuple[list[str], Sequence[ChargeDensity]]:
    """Return the names of the images and their densities."""
    from ..dataset.dataset import Dataset

    materials = reading.read_materials(files)
    if isinstance(materials, Dataset):
        chosen = materials[ids] if ids else materials
        return [material_id.replace("/", "-") for material_id in chosen.ids], chosen.densities
    if ids:
        raise RhosightError("--id chooses materials of a dataset; omit it for density files")
    return _name_images(files), materials


def _write_images(
    names: list[str], densities: Sequence[ChargeDensity], settings: ImageSettings, out: Path
) -> None:
    from ..inputs.image import density_image, to_pil

    kind = settings.channels[0].kind
    with progress_bar() as progress:
        for done, (name, density) in enumerate(zip(names, densities, strict=True), start=1):
            to_pil(density_image(density, settings)).save(out / f"{name}-{kind}.png")
            progress("slices", done, len(densities))


def _name_images(files: list[str]) -> list[str]:
    """Return the name of the image of each file.

    It is the name of the material, or the whole path where two materials have the same name.

    Raises
    ------
    RhosightError
        If a file is given twice.
    """
    from ..dataset.sources.directory import name_material

    names = [name_material(Path(file)) for file in files]
    shared = {name for name, count in Counter(names).items() if count > 1}
    paths = ["-".join(part for part in Path(file).parts if part.strip("./")) for file in files]
    images = [long if short in shared else short for short, long in zip(names, paths, strict=True)]
    for name, count in Counter(images).items():
        if count > 1:
            raise RhosightError(
                f"{files[images.index(name)]}: two files would write the same image, {name}; "
                "give each file once"
            )
    return images
