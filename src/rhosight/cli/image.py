"""``rhosight image``: slices of densities as figures, or as networks read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RhosightError
from .common import (
    FigureFormat,
    FilesArgument,
    Kind,
    check_files,
    console,
    format_count,
    print_remark,
    progress_bar,
)
from .reading import KindOption, NotesMode, NotesOption, Reading, UnitOption, expand_folders

if TYPE_CHECKING:
    from ..density.charge_density import ChargeDensity
    from ..density.charge_density import Kind as KindName
    from ..inputs.image import Channel


class Normalisation(StrEnum):
    """Maps from density values to pixels."""

    physical = "physical"
    paper = "paper"
    zero = "zero"


class Colour(StrEnum):
    """Colours of the images."""

    grey = "grey"
    viridis = "viridis"


PlaneOption = Annotated[
    str | None,
    typer.Option(
        help="Miller indices of the lattice plane, such as 1,1,0 or 110. Default: the densest "
        "plane.",
        metavar="H,K,L",
        show_default=False,
    ),
]
OffsetOption = Annotated[
    float,
    typer.Option(help="Shift of the plane along its normal, in interplanar spacings."),
]
FreeAtomsOption = Annotated[
    bool,
    typer.Option(
        "--free-atoms",
        help="Compute difference and promolecule from total and the table of free atoms.",
    ),
]
WindowOption = Annotated[float, typer.Option(min=0.1, help="Side of the square window, Å.")]
LatticeUnitsOption = Annotated[
    bool, typer.Option("--lattice-units", help="Give the window in lattice scales, not Å.")
]
NORMALISATION_HELP = (
    "Map from values to pixels: paper, by mean and spread of each image; zero, by the largest "
    "value of each image, so that zero stays zero; physical, one map for all materials. "
    "Default: paper."
)
RAW = "For a network (--raw)"
FormatOption = Annotated[FigureFormat, typer.Option("--format", help="File format of the figures.")]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", help="Material of the dataset; repeat for several.")
]
RawOption = Annotated[
    bool,
    typer.Option(
        "--raw", help="Write the pixels alone, as networks read them.", rich_help_panel=RAW
    ),
]
NormalisationOption = Annotated[
    Normalisation | None,
    typer.Option(help=NORMALISATION_HELP, rich_help_panel=RAW, show_default=False),
]
ColourOption = Annotated[
    Colour | None,
    typer.Option(
        help="Shades of grey or viridis. Default: viridis.",
        rich_help_panel=RAW,
        show_default=False,
    ),
]
FourierOption = Annotated[
    bool,
    typer.Option("--fourier", help="Draw the Fourier transform of the slice.", rich_help_panel=RAW),
]


def image(
    files: FilesArgument,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("slices"),
    show: Annotated[
        Kind | None,
        typer.Option(help="Kind of density to draw. Default: the kind in the first block."),
    ] = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    size: Annotated[int, typer.Option(min=8, max=4096, help="Pixels along each side.")] = 299,
    window: WindowOption = 8.0,
    lattice_units: LatticeUnitsOption = False,
    hkl: PlaneOption = None,
    offset: OffsetOption = 0.0,
    free_atoms: FreeAtomsOption = False,
    file_format: FormatOption = FigureFormat.png,
    material: IdOption = None,
    notes: NotesOption = NotesMode.show,
    raw: RawOption = False,
    normalisation: NormalisationOption = None,
    colour: ColourOption = None,
    fourier: FourierOption = False,
) -> None:
    """Cut slices of densities along a lattice plane and draw them as figures.

    A figure shows lengths in Å, the atoms on the plane, its indices and offset, and a colour bar;
    colours of signed kinds are centred at zero.
    """
    given = {"--normalisation": normalisation, "--colour": colour, "--fourier": fourier}
    if not raw and (needless := [name for name, value in given.items() if value]):
        raise RhosightError(f"{needless[0]}: is for images that networks read; add --raw")
    if raw and file_format is not FigureFormat.png:
        raise RhosightError("--raw writes pixels, as PNG files; omit --format")
    check_files(files)
    shown: Any = (show or kind or Kind.total).value
    channel = _make_channel(shown, window, lattice_units, hkl, offset)
    reading = Reading(kind, unit, mode=notes, structures="rhosight density {file}")
    names, densities = _read_densities(expand_folders(files), reading, material)
    out.mkdir(parents=True, exist_ok=True)
    if raw:
        style = (normalisation or Normalisation.paper).value, (colour or Colour.viridis).value
        draw = _make_painter(channel, size, *style, fourier, free_atoms)
    else:
        draw = _make_figures(channel, size, free_atoms)
    with progress_bar() as progress:
        for done, (name, density) in enumerate(zip(names, densities, strict=True), start=1):
            draw(density, out / f"{name}-{channel.kind}.{file_format.value}")
            progress("slices", done, len(densities))
    reading.print_notes(material)
    slices = format_count(len(densities), "slice")
    console.print(f"{slices} of the {channel.kind} density: {out}")


def _make_channel(
    kind: KindName, window: float, lattice_units: bool, hkl: str | None, offset: float
) -> Channel:
    from ..inputs.image import Channel

    return Channel(
        kind=kind,
        window=window,
        unit="lattice" if lattice_units else "angstrom",
        hkl=parse_indices(hkl) if hkl else None,
        offset=offset,
    )


def parse_indices(text: str) -> tuple[int, int, int]:
    """Return the Miller indices in a text.

    Forms are ``1,1,0``, ``1 1 0``, ``110`` and ``1-10``.

    Raises
    ------
    RhosightError
        If they are not three integers.
    """
    separated = re.search(r"[,\s]", text.strip())
    parts = re.split(r"[,\s]+", text.strip("() ")) if separated else re.findall(r"-?\d", text)
    if len(parts) != 3 or not all(re.fullmatch(r"[+-]?\d+", part) for part in parts):
        raise RhosightError(f"--hkl {text}: not three Miller indices; give them as 1,1,0 or 110")
    h, k, l = map(int, parts)  # noqa: E741
    return h, k, l


def join_indices(arguments: list[str]) -> list[str]:
    """Join the three words after ``--hkl``, which may be separate, into one."""
    if "--hkl" not in arguments:
        return arguments
    first = arguments.index("--hkl") + 1
    words = arguments[first : first + 3]
    if len(words) < 3 or not all(re.fullmatch(r"[+-]?\d+", word) for word in words):
        return arguments
    return [*arguments[:first], ",".join(words), *arguments[first + 3 :]]


def _make_figures(channel: Channel, size: int, free_atoms: bool) -> Callable[..., None]:
    """Return a function that draws a density as a figure with axes and writes it."""
    from ..density.drawing import draw_slices
    from ..density.free_atoms import difference_from_total

    def draw(density: ChargeDensity, path: Path) -> None:
        figure = draw_slices(
            difference_from_total(density) if free_atoms else density,
            channel.window,
            channel.hkl,
            channel.offset,
            (channel.kind,),
            size,
            unit=channel.unit,
        )
        figure.savefig(path, dpi=300)

    return draw


def _make_painter(
    channel: Channel, size: int, normalisation: str, colour: str, fourier: bool, free_atoms: bool
) -> Callable[..., None]:
    """Return a function that writes the pixels of a density as a network reads them."""
    from ..density.colours import is_noise
    from ..inputs.image import ImageSettings, density_image, to_pil

    settings = ImageSettings.model_validate(
        {
            "size": size,
            "channels": (channel,),
            "normalisation": normalisation,
            "colour": colour,
            "fourier": fourier,
            "reference": "free-atoms" if free_atoms else "code",
        }
    )

    def draw(density: ChargeDensity, path: Path) -> None:
        if channel.kind == "spin" and is_noise(density.grid("spin"), "spin"):
            name = density.name or path.stem
            print_remark("note", name, "no magnetisation: the image shows noise")
        to_pil(density_image(density, settings)).save(path)

    return draw


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
