"""Draw the figures of the README and docs: `python docs/make_figures.py`."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import rhosight
from rhosight.dataset.figures import total_and_difference
from rhosight.inputs.drawing import BLUE, GREEN, GREY, ORANGE
from rhosight.inputs.image import Channel, density_slice, to_pil

FORMULAS = ("NaCl", "Si", "GaAs", "Cu", "ZrC", "Cs2TiCl6")
OUT = Path(__file__).parent / "images"


def main() -> None:
    dataset = rhosight.load_dataset("mp-fcc")
    OUT.mkdir(exist_ok=True)
    slices(dataset).savefig(OUT / "slices.png", dpi=110)
    total_and_difference(dataset, "mp-149").savefig(OUT / "silicon.png", dpi=110)
    plane_in_cell(dataset).savefig(OUT / "plane.png", dpi=110)
    why = rhosight.explain(rhosight.load_model("best"), dataset["mp-149"].density)
    rhosight.explain.draw_explanation(why).savefig(OUT / "explanation.png", dpi=100)


def slices(dataset: rhosight.Dataset) -> Figure:
    """Draw the channels of the default image for six crystals."""
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
    """Draw the densest plane of rock salt in its cubic cell and the density on it."""
    have = dataset.table["formula"]
    material = dataset[have.index[have == formula][0]]
    plane = rhosight.lattice_plane(material.structure)
    lattice, scale = material.structure.lattice, plane.lattice_scale
    centre = plane.points(0.0, 0.0, 0.0)
    # the primitive vectors a, b, c give the edges b + c - a, … of an F lattice's cubic cell
    to_cubic = np.linalg.inv(np.ones((3, 3)) - 2 * np.eye(3)) * scale
    corners = (-scale / 2, scale / 2)
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    axis = figure.add_subplot(1, 2, 1, projection="3d")
    for start, end in combinations(product(corners, repeat=3), 2):
        if np.count_nonzero(np.subtract(start, end)) == 1:
            axis.plot(*np.transpose([start, end]), color=GREY, linewidth=1)
    around = material.structure.get_sites_in_sphere(lattice.get_cartesian_coords(centre), scale)
    for symbol, colour in zip(("Na", "Cl"), (ORANGE, GREEN), strict=True):
        places = np.array([s.frac_coords - centre for s in around if s.species_string == symbol])
        inside = places @ to_cubic
        inside = inside[np.abs(inside).max(axis=1) < 0.501 * scale]
        axis.scatter(*inside.T, s=60, color=colour, label=symbol, depthshade=False)
    half = window / 2
    turns = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * half
    square = [(plane.points(u, v, 0.0) - centre) @ to_cubic for u, v in turns]
    axis.add_collection3d(Poly3DCollection([square], facecolor=BLUE, alpha=0.25, edgecolor=BLUE))
    axis.set(xlim=(-half, half), ylim=(-half, half), zlim=(-half, half))
    axis.set_box_aspect((1, 1, 1), zoom=1.4)
    axis.view_init(elev=22, azim=-20)
    axis.set_axis_off()
    axis.legend(loc="lower left", frameon=False)
    axis.set_title(f"({' '.join(map(str, plane.hkl))}), window of {window:g} Å", fontsize=10)
    beside = figure.add_subplot(1, 2, 2)
    values = density_slice(material.density, Channel(kind="total", window=window), 300)
    shown = beside.imshow(values, extent=(-half, half, -half, half), vmax=np.quantile(values, 0.98))
    figure.colorbar(shown, ax=beside, label="e/Å³", extend="max", shrink=0.85)
    beside.set(title="total on it", xlabel="x (Å)", ylabel="y (Å)")
    return figure


if __name__ == "__main__":
    main()
