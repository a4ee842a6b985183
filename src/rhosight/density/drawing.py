"""Draw slices of densities with Matplotlib: colours, limits, atoms on the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from pymatgen.core import Structure

from ..errors import RhosightError
from .colours import COLOUR_MAPS, compute_colour_limits, is_noise
from .crystals import SYMPREC
from .plane import LAYER_TOLERANCE, LatticePlane, lattice_plane
from .sampling import sample_window

if TYPE_CHECKING:
    from .charge_density import ChargeDensity, Kind

# from the palette of Okabe and Ito, https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
GREY = "#BDBDBD"


def draw_slices(
    density: ChargeDensity,
    window: float = 8.0,
    hkl: tuple[int, int, int] | None = None,
    offset: float = 0.0,
    kinds: Sequence[Kind] = ("total", "difference"),
    size: int = 300,
    symprec: float = SYMPREC,
    unit: Literal["angstrom", "lattice"] = "angstrom",
) -> Figure:
    """Draw slices of several kinds of one density side by side.

    Parameters
    ----------
    density
        Has the kinds.
    window
        Side of the square, in ``unit``.
    hkl
        Miller indices in spglib's standardised conventional setting; by default the densest plane.
    offset
        Shift of the plane along its normal, in interplanar spacings.
    kinds
        Kinds of density, one slice each.
    size
        Pixels along each side of a slice.
    symprec
        Tolerance of the symmetry search, Å.
    unit
        Unit of the window: ``angstrom``, or ``lattice`` for the lattice scale of the plane.

    Raises
    ------
    RhosightError
        If the window is not positive, the size below 8 or a kind missing.
    """
    if not (window > 0 and size >= 8 and len(kinds)):
        raise RhosightError("give a positive window (Å), at least 8 pixels and a kind of density")
    plane = lattice_plane(density.structure, hkl, symprec)
    figure = Figure(figsize=(5.3 * len(kinds), 4.9), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(kinds)))
    side = window * (plane.lattice_scale if unit == "lattice" else 1.0)
    half = side / 2
    for axis, kind in zip(axes, kinds, strict=True):
        values = sample_window(density.grid(kind), plane, side, size, offset)
        scale = Normalize(*compute_colour_limits(values, kind))
        name = COLOUR_MAPS[kind]
        axis.imshow(values, cmap=name, norm=scale, extent=(-half, half, -half, half))
        above, below = values.max() > scale.vmax, values.min() < scale.vmin
        ends = {(1, 1): "both", (1, 0): "max", (0, 1): "min"}.get((above, below), "neither")
        draw_colour_bar(figure, axis, scale, name, "e/Å³", extend=ends, shrink=0.85)
        mark_atoms(axis, density.structure, plane, half, offset)
        title = f"{kind}: no magnetisation" if is_noise(density.grid(kind), kind) else kind
        axis.set(title=title, xlabel="x (Å)", ylabel="y (Å)")
    indices = " ".join(map(str, plane.hkl))
    shift = f", {offset:g} d above it" if offset else ""
    formula = density.structure.composition.reduced_formula
    named = f" ({density.name})" if density.name else ""
    figure.suptitle(f"{formula}{named}, plane ({indices}){shift}", fontsize=12)
    return figure


def find_atoms_on_plane(
    structure: Structure, plane: LatticePlane, half: float, offset: float
) -> list[tuple[float, float, str]]:
    """Find the atoms within 0.05 Å of a plane and within a square on it.

    Parameters
    ----------
    structure
        The crystal.
    plane
        Its plane.
    half
        Half the side of the square, Å.
    offset
        Shift of the plane along its normal, in interplanar spacings.

    Returns
    -------
    list of tuple
        x and y in the window, Å, and element of each atom.
    """
    centre = structure.lattice.get_cartesian_coords(plane.points(0.0, 0.0, offset))
    atoms = []
    for site in structure.get_sites_in_sphere(centre, 1.5 * half + LAYER_TOLERANCE):
        u, v, height = plane.coordinates(site.frac_coords)
        inside = max(abs(u), abs(v)) <= half
        if inside and abs(height - offset * plane.spacing) < LAYER_TOLERANCE:
            atoms.append((float(u), float(v), site.species_string))
    return atoms


def mark_atoms(
    axis: Axes, structure: Structure, plane: LatticePlane, half: float, offset: float
) -> None:
    """Draw a ring and the element of each atom on the plane."""
    for u, v, element in find_atoms_on_plane(structure, plane, half, offset):
        ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 9}
        axis.plot(u, v, "o", markeredgecolor="white", markeredgewidth=3, **ring)
        axis.plot(u, v, "o", markeredgecolor="black", markeredgewidth=1.2, **ring)
        text = axis.annotate(
            element,
            (u, v),
            (7, 7) if u < 0.85 * half else (-7, 7),  # inside the frame
            textcoords="offset points",
            ha="left" if u < 0.85 * half else "right",
            fontsize=9,
            clip_on=True,
        )
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})
    axis.set(xlim=(-half, half), ylim=(-half, half))


def draw_colour_bar(
    figure: Figure, axis: Axes, scale: Normalize, name: str, label: str, **options: Any
) -> Colorbar:
    """Draw the colour bar of matplotlib's colour map ``name`` beside an axis."""
    return figure.colorbar(ScalarMappable(scale, name), ax=axis, label=label, **options)


def choose_ink(colour: tuple[float, ...]) -> str:
    """Return black or white, the one of more contrast by WCAG 2.1's luminance."""
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]
    )
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "white"
