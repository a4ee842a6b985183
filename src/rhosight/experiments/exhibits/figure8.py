"""Make Figure 8: images of the difference density, and their Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...density.charge_density import ChargeDensity
from ...density.plane import lattice_plane
from ...evaluation.html import page_style
from ...inputs.image import density_image, window_side
from ..exhibit import Exhibit
from .pictures import choose_image_settings, choose_materials

if TYPE_CHECKING:
    from ...dataset.dataset import Dataset

TITLE = "Three images of the difference in viridis, and their Fourier transforms"
COUNT = 3


def draw(dataset: Dataset, material_ids: Sequence[str] | None = None) -> Figure:
    """Draw images above and their Fourier transforms below (paper Figure 8).

    The networks of Tables 2 and 3 read these images. The transform is the logarithm of its
    modulus, with the origin in the centre.
    """
    ids = list(material_ids or choose_materials(dataset, COUNT))
    with page_style("figure8"):
        figure = Figure(figsize=(2.9 * len(ids), 6.2), layout="constrained")
        panels = figure.subplots(2, len(ids), squeeze=False)
        letters = iter("abcdefghijklmnopqrstuvwxyz")
        for i, name in enumerate(ids):
            axes, material = panels[0, i], dataset[name]
            image = density_image(
                material.density, choose_image_settings(material.density, colour="viridis")
            )
            half = _side(material.density) / 2
            axes.imshow((np.moveaxis(image, 0, -1) + 1) / 2, extent=(-half, half, -half, half))
            axes.set_title(f"{next(letters)}) {material.formula}", loc="left")
            axes.set(xlabel="x (Å)", ylabel="y (Å)" if i == 0 else "")
        for i, name in enumerate(ids):
            axes, material = panels[1, i], dataset[name]
            settings = choose_image_settings(material.density, fourier=True)
            image = density_image(material.density, settings)
            highest = settings.size / _side(material.density) / 2
            extent = (-highest, highest, -highest, highest)
            axes.imshow(image[0], cmap="gray", vmin=-1, vmax=1, extent=extent)
            axes.set_title(f"{next(letters)}) {material.formula}, Fourier", loc="left")
            axes.set(xlabel="cycles per Å", ylabel="cycles per Å" if i == 0 else "")
    return figure


def make_exhibit(dataset: Dataset, material_ids: Sequence[str] | None = None) -> Exhibit:
    """Draw the pictures, with plane and window of each as the table."""
    ids = list(material_ids or choose_materials(dataset, COUNT))
    rows = []
    for name in ids:
        material = dataset[name]
        plane = lattice_plane(material.structure)
        row: dict[str, Any] = {"material_id": name, "formula": material.formula}
        row |= {"plane": "({} {} {})".format(*plane.hkl), "d_angstrom": plane.spacing}
        rows.append(row | {"window_angstrom": _side(material.density)})
    note = "Materials of the dataset; the paper does not name its three."
    return Exhibit("figure8", TITLE, pd.DataFrame(rows), draw(dataset, ids), note)


def _side(density: ChargeDensity) -> float:
    """Return the side of the image, Å."""
    channel = choose_image_settings(density).channels[0]
    return window_side(channel, lattice_plane(density.structure))
