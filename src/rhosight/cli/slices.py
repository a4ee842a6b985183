"""``rhosight image``: slices of densities as pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RhosightError
from .common import (
    FilesArgument,
    FirstBlock,
    Kind,
    KindOption,
    console,
    progress_bar,
    read_materials,
)


class Normalisation(StrEnum):
    physical = "physical"
    paper = "paper"
    zero = "zero"


class Colour(StrEnum):
    grey = "grey"
    viridis = "viridis"


def image(
    files: FilesArgument,
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
    free_atoms: Annotated[
        bool,
        typer.Option(
            "--free-atoms",
            help="Take difference and promolecule from the table of free atoms: total is enough.",
        ),
    ] = False,
    material: Annotated[
        list[str] | None, typer.Option("--id", help="Only these materials of the dataset.")
    ] = None,
) -> None:
    """Cut slices along a lattice plane and write them as PNG files."""
    from ..image import Channel, ImageSettings, density_image, to_pil

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
        reference="free-atoms" if free_atoms else "code",
    )
    materials = read_materials(files, kind, None)
    if material:
        from ..dataset import Dataset

        if not isinstance(materials, Dataset):
            raise RhosightError("--id chooses from a dataset, not from CHGCAR files")
        materials = materials[material]
    out.mkdir(parents=True, exist_ok=True)
    densities = getattr(materials, "densities", materials)
    with progress_bar() as progress:
        for done, density in enumerate(densities, start=1):
            name = Path(density.name)
            stem = name.stem if name.stem != "CHGCAR" or not name.parent.name else name.parent.name
            to_pil(density_image(density, settings)).save(out / f"{stem}-{channel.kind}.png")
            progress("slices", done, len(densities))
    console.print(f"{len(densities)} slices of {channel.kind}: {out}")
