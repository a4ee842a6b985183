"""Make Figure 1: from a crystal and its density to an image and a text."""

from __future__ import annotations

import textwrap
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ...dataset.schema import KNOWN
from ...density.charge_density import Kind
from ...density.plane import LatticePlane, lattice_plane
from ...density.sampling import sample
from ...evaluation.html import INK, SECOND, SOFT, describe_target, format_significant, page_style
from ...inputs.image import density_image, density_slice, window_side
from ...inputs.text.extents import EXTENTS
from ..exhibit import Exhibit
from .pictures import choose_image_settings, choose_materials

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from mpl_toolkits.mplot3d import Axes3D

    from ...dataset.dataset import Dataset, Material

TITLE = "From a crystal and its charge density to an image and a text, drawn from the data"
REPEATS = 8  # unit cells along a side of the slice around the square (section 2.1)

_COLOURS = "RdBu_r"
_MARKERS = (("o", "white"), ("s", SOFT), ("^", SECOND), ("D", INK), ("v", "white"))
_LINES = {"formula": 1, "keywords": 4, "all": 8}  # shown lines of text
_COLUMNS = 118


def make_exhibit(dataset: Dataset, material_id: str | None = None) -> Exhibit:
    """Draw the picture, with its texts and targets as the table."""
    material = _choose_material(dataset, material_id)
    density, settings = material.density, choose_image_settings(material.density)
    plane = lattice_plane(density.structure)
    rows = {
        "material": f"{material.formula}, {material.material_id}",
        "plane": f"({' '.join(map(str, plane.hkl))}), d = {plane.spacing:.3f} Å",
        "window": f"{window_side(settings.channels[0], plane):.3f} Å, {settings.size} pixels",
    }
    rows |= {f"text, {extent}": text for extent, text in material.texts.items() if text}
    for target, value in material.targets.items():
        rows[target] = f"{value:.4g} {dataset.units[target]}"
    table = pd.DataFrame({"what": list(rows), "value": list(rows.values())})
    note = (
        f"One material of the dataset, {material.formula}. The slice is sampled from the periodic "
        f"density, without the paper's {REPEATS}×{REPEATS}×{REPEATS} supercell."
    )
    return Exhibit("figure1", TITLE, table, draw(dataset, material_id), note)


def draw(dataset: Dataset, material_id: str | None = None) -> Figure:
    """Draw the four steps for one material (paper Figure 1).

    Parameters
    ----------
    dataset
        Dataset with the material; it needs the difference, or a total to derive it from.
    material_id
        Id of a material, preferably with all texts; one is chosen by default.
    """
    material = _choose_material(dataset, material_id)
    density, settings = material.density, choose_image_settings(material.density)
    channel = settings.channels[0]
    plane = lattice_plane(density.structure)
    kind: Kind = channel.kind if channel.kind in density.kinds else "total"
    side = window_side(channel, plane)
    wide = channel.model_copy(
        update={
            "window": REPEATS * _shortest_vector(density.structure),
            "unit": "angstrom",
            "kind": kind,
        }
    )
    with page_style("figure1"):
        figure = Figure(figsize=(10.5, 5.9), layout=ConstrainedLayoutEngine(h_pad=0.1))
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.5, 1))[:, 0]
        bulk = upper.add_subplot(1, 3, 1, projection="3d")
        _draw_crystal(bulk, material, plane, kind)
        axes = upper.add_subplot(1, 3, 2)
        values = density_slice(density, wide, 300, plane=plane)
        half = window_side(wide, plane) / 2
        norm = CenteredNorm(0, np.quantile(np.abs(values), 0.99)) if kind != "total" else None
        axes.imshow(values, cmap=_COLOURS, norm=norm, extent=(-half, half, -half, half))
        corner = (-side / 2, -side / 2)
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=INK, linewidth=1.5))
        axes.set(xlabel="x (Å)", ylabel="y (Å)")
        indices = " ".join(map(str, plane.hkl))
        axes.set_title(f"b) {kind} on plane ({indices}), and the square", loc="left")
        axes = upper.add_subplot(1, 3, 3)
        image = density_image(density, settings)
        look: dict[str, Any] = {"cmap": "gray", "vmin": -1, "vmax": 1}
        shown = axes.imshow(image[0], extent=(-side / 2, side / 2, -side / 2, side / 2), **look)
        upper.colorbar(shown, ax=axes, shrink=0.8, label="z-score / largest |z|")
        axes.set(xlabel="x (Å)", yticks=[])
        axes.set_title(f"c) image, {settings.size} × {settings.size}", loc="left")
        _write_texts(lower.add_subplot(), material)
    return figure


def _choose_material(dataset: Dataset, material_id: str | None) -> Material:
    return dataset[material_id or choose_materials(dataset, 1)[0]]


def _shortest_vector(structure: Structure) -> float:
    return min(structure.lattice.get_niggli_reduced_lattice().abc)


def _draw_crystal(axes: Axes3D, material: Material, plane: LatticePlane, kind: Kind) -> None:
    """Draw the conventional cell with its atoms and the density on the plane."""
    structure = material.structure
    to_cartesian = structure.lattice.get_cartesian_coords
    centre = to_cartesian(plane.origin)
    cell = _conventional_cell(structure)
    corners = np.array(list(product((0.0, 1.0), repeat=3)))
    # origin of the plane: the corner from which it divides the others most evenly
    heights = (corners[:, None] - corners) @ np.array(plane.hkl)
    corner = corners[np.argmin(np.abs(np.sign(heights).sum(0)))]

    def inside(points: np.ndarray) -> np.ndarray:
        frac = points @ np.linalg.inv(cell) + corner
        return ((frac > -1e-3) & (frac < 1 + 1e-3)).all(-1)

    reach = np.linalg.norm(cell, axis=1).sum()
    u = np.linspace(-reach / 1.5, reach / 1.5, 181)
    frac = plane.points(u[None, :], u[:, None])
    points = to_cartesian(frac.reshape(-1, 3)).reshape(frac.shape) - centre
    shown = inside(points)
    values = sample(material.density.grid(kind), frac)
    scale = np.quantile(np.abs(values), 0.99) or 1.0
    colours = colormaps[_COLOURS](0.5 + 0.5 * np.clip(values / scale, -1, 1))
    colours[~shown] = 0.0  # transparent
    points[~shown] = np.nan
    surface = {"rcount": len(u), "ccount": len(u), "shade": False, "antialiased": False}
    axes.plot_surface(*np.moveaxis(points, -1, 0), facecolors=colours, rasterized=True, **surface)
    sites = structure.get_sites_in_sphere(centre, reach)
    species = sorted({site.species_string for site in structure})
    for i, name in enumerate(species):
        atoms = np.array([s.coords for s in sites if s.species_string == name]) - centre
        marker, face = _MARKERS[i % len(_MARKERS)]
        look: dict[str, Any] = {
            "s": 60,
            "marker": marker,
            "color": face,
            "edgecolors": INK,
            "label": name,
        }
        axes.scatter(*atoms[inside(atoms)].T, depthshade=False, **look)
    for a, b in combinations(corners, 2):
        if np.abs(a - b).sum() == 1:
            axes.plot(*((np.array([a, b]) - corner) @ cell).T, color=INK, linewidth=0.8)
    axes.set_axis_off()
    middle, half = (0.5 - corner) @ cell, 0.6 * np.linalg.norm(cell, axis=1).max()
    low, high = middle - half, middle + half
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect((1, 1, 1), zoom=0.95)
    normal = to_cartesian(plane.normal)  # 1 Å long; the view is at an angle to it
    azimuth, elevation = np.arctan2(normal[1], normal[0]), np.arcsin(np.clip(normal[2], -1, 1))
    axes.view_init(elev=np.degrees(elevation) - 15, azim=np.degrees(azimuth) + 28)
    axes.legend(loc="upper left", ncols=len(species), handletextpad=0.1, borderpad=0)
    axes.set_title(f"a) {material.formula}: conventional cell, {kind}", loc="left")


def _conventional_cell(structure: Structure) -> np.ndarray:
    """Return the conventional cell as rows, in the structure's frame, Å."""
    symmetry = SpacegroupAnalyzer(structure).get_symmetry_dataset()
    # spglib: (a b c) = (a_s b_s c_s) P, vectors as columns
    return np.linalg.solve(symmetry.transformation_matrix.T, structure.lattice.matrix)


def _write_texts(axes: Axes, material: Material) -> None:
    axes.set_axis_off()
    axes.set_title("d) text in three extents, and the targets", loc="left")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    y = 0.97
    step = 0.085
    for extent in EXTENTS:
        text = material.texts.get(extent) or "no text"
        lines = textwrap.wrap(text, _COLUMNS)
        if len(lines) > _LINES[extent]:
            lines = [*lines[: _LINES[extent] - 1], lines[_LINES[extent] - 1][: _COLUMNS - 2] + " …"]
        axes.text(0, y, extent, weight="bold", va="top")
        axes.text(0.1, y, "\n".join(lines), va="top", linespacing=1.25)
        y -= step * len(lines) + 0.03
    values = [
        f"{describe_target(name)} {format_significant(value)}"
        f" {KNOWN[name].unit if name in KNOWN else ''}".strip()
        for name, value in material.targets.items()
        if value == value
    ]
    axes.text(0, y, "targets", weight="bold", va="top")
    axes.text(0.1, y, "; ".join(values), va="top")
