"""Draw the figures of the README and docs: `python docs/make_figures.py`."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

import rhosight
from rhosight.dataset.figures import total_and_difference
from rhosight.density.drawing import BLUE, GREEN, GREY, ORANGE
from rhosight.inputs.image import Channel, density_slice, to_pil

FORMULAS = ("NaCl", "Si", "GaAs", "Cu", "ZrC", "Cs2TiCl6")
OUT = Path(__file__).parent / "images"

LEARNING_CURVE = {35: 3.63, 70: 2.91, 140: 2.15, 275: 1.60}
"""Training crystals → mean error (%) on the first fold, of one network: ``python
benchmarks/density_prediction.py curve --steps 700``."""


def main() -> None:
    dataset = rhosight.load_dataset("mp-fcc")
    OUT.mkdir(exist_ok=True)
    slices(dataset).savefig(OUT / "slices.png", dpi=110)
    total_and_difference(dataset, "mp-149").savefig(OUT / "silicon.png", dpi=110)
    plane_in_cell(dataset).savefig(OUT / "plane.png", dpi=110)
    model = rhosight.DensityModel.from_pretrained("density")
    predicted_densities(dataset, model).savefig(OUT / "predicted-densities.png", dpi=110)
    density_errors(dataset, model).savefig(OUT / "density-errors.png", dpi=110)
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


def predicted_densities(
    dataset: rhosight.Dataset, model: rhosight.DensityModel, count: int = 4
) -> Figure:
    """Draw SCF density, predicted density, their difference, and the networks' disagreement."""
    test = dataset[rhosight.split(dataset)[1]]
    by_type = test.table.drop_duplicates(["spacegroup_number", "nsites"]).index[:count]
    figure = Figure(figsize=(2.5 * count, 8.6), layout="constrained")
    axes = figure.subplots(4, count)
    channel = Channel(kind="total", window=8.0)
    for column, material_id in enumerate(by_type):
        density = dataset[material_id].density
        predicted = model.predict(density.structure, grid=density.shape)
        truth, guess = (density_slice(one, channel, 200) for one in (density, predicted.density))
        limit = np.quantile(truth, 0.98)
        for row, values in enumerate((truth, guess)):
            shown = axes[row, column].imshow(values, vmin=0, vmax=limit)
        figure.colorbar(shown, ax=list(axes[:2, column]), extend="max", shrink=0.6)
        edge = limit / 10
        shown = axes[2, column].imshow(guess - truth, vmin=-edge, vmax=edge, cmap="RdBu_r")
        figure.colorbar(shown, ax=axes[2, column], extend="both", shrink=0.8)
        unsure = rhosight.ChargeDensity(density.structure, {"total": predicted.spread})
        shown = axes[3, column].imshow(density_slice(unsure, channel, 200), vmin=0, vmax=edge)
        figure.colorbar(shown, ax=axes[3, column], extend="max", shrink=0.8)
        share = np.abs(density.grid("total") - predicted.density.grid("total")).sum()
        share = 100 * share / density.grid("total").sum()
        axes[0, column].set_title(
            f"{dataset[material_id].formula}\nerror {share:.2f} %, expected "
            f"{100 * predicted.error:.1f} %",
            fontsize=9,
        )
    for row, name in enumerate(("SCF", "predicted", "predicted − SCF", "disagreement")):
        axes[row, 0].set_ylabel(f"{name} (e/Å³)", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def density_errors(dataset: rhosight.Dataset, model: rhosight.DensityModel) -> Figure:
    """Draw errors of predicted densities by element, distance from nuclei and training crystals."""
    figure = Figure(figsize=(12.5, 4.2), layout="constrained")
    left, right, last = figure.subplots(1, 3, width_ratios=(2.2, 1, 0.9))
    by_element: dict[str, list[float]] = {}
    for material_id, error in model.errors["error"].items():
        for element in dataset[str(material_id)].structure.composition:
            by_element.setdefault(element.symbol, []).append(100 * float(error))
    common = {symbol: values for symbol, values in by_element.items() if len(values) >= 5}
    order = sorted(common, key=lambda symbol: np.mean(common[symbol]))
    left.bar(order, [np.mean(common[symbol]) for symbol in order], color=BLUE)
    left.tick_params(axis="x", labelsize=7, rotation=90)
    left.set(ylabel="mean error (% of the electrons)", title="Crystals that contain an element")
    edges = np.arange(0, 3.4, 0.3)
    sums = np.zeros((3, len(edges) - 1))
    test = dataset[rhosight.split(dataset)[1]]
    for density in list(test.densities)[::4]:
        steps = [np.arange(n) / n for n in density.shape]
        frac = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
        lattice = density.structure.lattice
        nearest = lattice.get_all_distances(frac, density.structure.frac_coords).min(axis=1)
        predicted = model.predict_density(density.structure, grid=density.shape)
        truth = density.grid("total").ravel()
        columns = (
            np.abs(predicted.grid("total").ravel() - truth),
            np.abs(predicted.grid("promolecule").ravel() - truth),
            truth,
        )
        for row, values in enumerate(columns):
            sums[row] += np.histogram(nearest, edges, weights=values / truth.sum())[0]
    middle = (edges[1:] + edges[:-1]) / 2
    middle, sums = middle[sums[2] > 0], sums[:, sums[2] > 0]
    right.plot(middle, 100 * sums[0] / sums[2], "o-", color=BLUE, label="predicted")
    right.plot(middle, 100 * sums[1] / sums[2], "o-", color=ORANGE, label="free atoms")
    right.set(xlabel="distance from the nearest nucleus (Å)", yscale="log", ylabel="error (%)")
    right.set_title("Test crystals")
    right.legend(frameon=False)
    last.loglog(list(LEARNING_CURVE), list(LEARNING_CURVE.values()), "o-", color=BLUE)
    last.set_xticks(list(LEARNING_CURVE), list(map(str, LEARNING_CURVE)), minor=False)
    last.set_yticks([1.5, 2, 3, 4], ["1.5", "2", "3", "4"])
    last.minorticks_off()
    last.set(xlabel="training crystals", ylabel="mean error (%)", title="One network, one fold")
    return figure


if __name__ == "__main__":
    main()
