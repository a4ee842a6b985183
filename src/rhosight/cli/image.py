"""``rhosight image``: slices of densities as pictures."""

from __future__ import annotations

from collections import Counter
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
    window: Annotated[
        float, typer.Option(min=0.1, help="Side of the square that is drawn, Å.")
    ] = 8.0,
    lattice_units: Annotated[
        bool, typer.Option("--lattice-units", help="The window is in lattice scales, not Å.")
    ] = False,
    hkl: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Lattice plane, three Miller indices; the densest if not given."),
    ] = None,
    offset: Annotated[
        float,
        typer.Option(help="Shift of the plane along its normal, in interplanar spacings."),
    ] = 0.0,
    normalisation: Annotated[
        Normalisation,
        typer.Option(
            help="What values become: paper, by the mean and spread of each image; zero, by its "
            "largest value, so that zero stays zero; physical, by one map for all materials."
        ),
    ] = Normalisation.paper,
    colour: Annotated[
        Colour, typer.Option(help="Colours of the pictures: shades of grey, or viridis.")
    ] = Colour.viridis,
    fourier: Annotated[
        bool, typer.Option("--fourier", help="Draw the Fourier transform of the slice.")
    ] = False,
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
    from ..dataset.dataset import Dataset
    from ..inputs.image import Channel, ImageSettings, density_image, to_pil

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
    is_dataset = isinstance(materials, Dataset)
    if material:
        if not is_dataset:
            raise RhosightError("--id chooses from a dataset, not from CHGCAR files")
        materials = materials[material]
    stems = [i.replace("/", "-") for i in materials.ids] if is_dataset else _stems(files)
    out.mkdir(parents=True, exist_ok=True)
    densities = materials.densities if is_dataset else materials
    with progress_bar() as progress:
        for done, (stem, density) in enumerate(zip(stems, densities, strict=True), start=1):
            to_pil(density_image(density, settings)).save(out / f"{stem}-{channel.kind}.png")
            progress("slices", done, len(densities))
    console.print(f"{len(densities)} slices of {channel.kind}: {out}")


def _stems(files: list[str]) -> list[str]:
    """What the picture of each file is called: as its material is, or by the whole path where two
    would be called alike.

    Raises
    ------
    RhosightError
        If a file is given twice.
    """
    from ..dataset.sources.directory import material_of

    names = [material_of(Path(file)) for file in files]
    twice = {name for name, count in Counter(names).items() if count > 1}
    whole = ["-".join(part for part in Path(file).parts if part.strip("./")) for file in files]
    stems = [long if short in twice else short for short, long in zip(names, whole, strict=True)]
    for stem, count in Counter(stems).items():
        if count > 1:
            raise RhosightError(
                f"{files[stems.index(stem)]}: two of the files would have one picture, {stem}; "
                "give each file once"
            )
    return stems
