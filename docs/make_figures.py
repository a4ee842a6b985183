"""Draw the pictures of the README and the documentation: `python docs/make_figures.py`."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import rhosight
from rhosight.figures import BLUE, GREEN, GREY, ORANGE, total_and_difference
from rhosight.image import Channel, density_slice, to_pil

FORMULAS = ("NaCl", "Si", "GaAs", "Cu", "ZrC", "Cs2TiCl6")
OUT = Path(__file__).parent / "images"


def main() -> None:
    dataset = rhosight.load_dataset("mp-fcc")
    OUT.mkdir(exist_ok=True)
    slices(dataset).savefig(OUT / "slices.png", dpi=110)
    total_and_difference(dataset, "mp-149").savefig(OUT / "silicon.png", dpi=110)
    plane_in_cell(dataset).savefig(OUT / "plane.png", dpi=110)


def slices(dataset: rhosight.Dataset) -> Figure:
    """The channels of the default image for six crystals."""
    settings = rhosight.ImageSettings(size=256)
    have = dataset.table["formula"]
    ids = [have.index[have == formula][0] for formula in FORMULAS if (have == formula).any()]
    figure = Figure(figsize=(1.9 * len(ids), 7.4), layout="constrained")
    axes = figure.subplots(4, len(ids))
    for column, material_id in enumerate(ids):
        material = dataset[material_id]
        image = rhosight.density_image(material.density, settings)
        side = rhosight.lattice_plane(material.structure)
        axes[0, column].imshow(to_pil(image))
        axes[0, column].set_title(f"{material.formula}\nd(111) = {side.spacing:.2f} Å", fontsize=9)
        for row, channel in enumerate(image, start=1):
            axes[row, column].imshow(channel, cmap="gray", vmin=-1, vmax=1)
    names = ["all three"]
    for channel in settings.channels:
        shift = f", {channel.offset:g} d above" if channel.offset else ""
        names.append(f"{channel.kind}\n{channel.window:g} Å{shift}")
    for row, name in enumerate(names):
        axes[row, 0].set_ylabel(name, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def plane_in_cell(dataset: rhosight.Dataset, formula: str = "NaCl", window: float = 8.0) -> Figure:
    """The densest plane of rock salt in its cubic cell, and the density on it."""
    have = dataset.table["formula"]
    material = dataset[have.index[have == formula][0]]
    plane = rhosight.lattice_plane(material.structure)
    primitive = material.structure.lattice
    centre = primitive.get_cartesian_coords(plane.points(0.0, 0.0, 0.0))
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    axis = figure.add_subplot(1, 2, 1, projection="3d")
    # the conventional cell of an F lattice around the plane's origin, in the primitive one's axes
    a = plane.lattice_scale
    edges = (primitive.matrix.sum(axis=0) - 2 * primitive.matrix) * (a / _norm(primitive.matrix))
    corner = centre - edges.sum(axis=0) / 2
    for start, end in combinations(product((0, 1), repeat=3), 2):
        if np.abs(np.subtract(start, end)).sum() == 1:
            line = corner + np.array([start, end]) @ edges
            axis.plot(*line.T, color=GREY, linewidth=1)
    marks = dict(zip(("Na", "Cl"), (ORANGE, GREEN), strict=True))
    sites = material.structure.get_sites_in_sphere(centre, a)
    for symbol, colour in marks.items():
        inside = [
            site.coords
            for site in sites
            if site.species_string == symbol
            and np.all(np.abs(np.linalg.solve(edges.T, site.coords - centre)) < 0.501)
        ]
        axis.scatter(*np.transpose(inside), s=60, color=colour, label=symbol, depthshade=False)
    turns = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * window / 2
    square = centre + turns @ np.array([plane.x, plane.y])
    axis.add_collection3d(Poly3DCollection([square], facecolor=BLUE, alpha=0.25, edgecolor=BLUE))
    axis.set_box_aspect((1, 1, 1))
    axis.set_axis_off()
    axis.legend(loc="lower left", frameon=False)
    axis.set_title(f"({' '.join(map(str, plane.hkl))}), window of {window:g} Å", fontsize=10)
    beside = figure.add_subplot(1, 2, 2)
    values = density_slice(material.density, Channel(kind="total", window=window), 300)
    half = window / 2
    shown = beside.imshow(values, extent=(-half, half, -half, half), vmax=np.quantile(values, 0.98))
    figure.colorbar(shown, ax=beside, label="e/Å³", extend="max", shrink=0.85)
    beside.set(title="total on it", xlabel="x (Å)", ylabel="y (Å)")
    return figure


def _norm(primitive: np.ndarray) -> float:
    """Length of an edge of the conventional cell of an F lattice."""
    return float(np.linalg.norm(primitive.sum(axis=0) - 2 * primitive[0]))


if __name__ == "__main__":
    main()
