"""Draw the README's picture of images: `python docs/make_figures.py`."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

import rhosight
from rhosight.image import to_pil

FORMULAS = ("NaCl", "Si", "GaAs", "Cu", "ZrC", "Cs2TiCl6")
OUT = Path(__file__).parent / "images"


def main() -> None:
    dataset = rhosight.load_dataset("mp-fcc")
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
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / "slices.png", dpi=110)


if __name__ == "__main__":
    main()
