"""Write a search as one HTML file: table, Pareto plot, cards of proposals."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from pymatgen.core import Structure

from ..density.charge_density import ChargeDensity
from ..density.plane import lattice_plane
from ..evaluation.html import (
    FIRST,
    SECOND,
    SOFT,
    describe_target,
    format_significant,
    inline_svg,
    page_style,
    write_page,
)
from ..inputs.image import ImageSettings, density_image, to_pil
from .wishes import FORMATION_ENERGY, HULL, Wish, describe_property

if TYPE_CHECKING:
    from .result import Design

PIXELS = 200
"""Side of a slice."""

NUMBERED = 12
"""Proposals whose numbers are written beside their points."""


def write_report(result: Design, path: Path) -> None:
    """Write a search as one HTML file; it needs neither a network nor scripts."""
    write_page(path, "design.html.j2", package="rhosight.design", report=_Report(result))


class _Report:
    """Numbers and pictures for the template."""

    def __init__(self, result: Design):
        self.result = result
        self.settings = result.settings
        self.rows = result.shown.astype(object).where(result.shown.notna(), None)
        self.cards = self.rows.to_dict("records")
        self.targets = result.targets
        self.units = result.units
        self.inside = result.count_met()

    def describe_wish(self, wish: Wish) -> str:
        """Return a wish in words."""
        return f"{describe_property(wish.target)} {wish.describe(self.units[wish.target])}"

    def number(self, row: dict[str, Any], target: str) -> str:
        """Return a predicted value with half its interval."""
        half = (row[f"{target}_high"] - row[f"{target}_low"]) / 2
        digits = int(np.clip(1 - np.floor(np.log10(half)), 0, 4)) if half > 0 else 3
        return f"{row[target]:.{digits}f} ± {half:.{digits}f}".replace("-", "−")

    def percent(self, share: float) -> str:
        """Return a probability in percent."""
        return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"

    def significant(self, value: float) -> str:
        """Return a number with three significant digits."""
        return format_significant(value, 3)

    def picture(self, row: dict[str, Any]) -> str | None:
        """Return the slice of the predicted difference density as the address of an image."""
        prediction = self.result.densities.get(row["name"])
        return draw_slice(prediction.density) if prediction else None

    def plane(self, row: dict[str, Any]) -> str:
        """Return the indices of the plane of the slice."""
        return name_plane(self.result.structures[row["name"]])

    def error(self, row: dict[str, Any]) -> str:
        """Return the expected error of the predicted density."""
        return f"{100 * self.result.densities[row['name']].error:.1f} %"

    def pareto(self) -> Markup | None:
        """Plot all candidates by two properties, with the ranges and the proposals."""
        axes = self._choose_axes()
        tried = self.result.tried
        if axes is None or axes[0] not in tried:
            return None
        return draw_pareto(tried, self.result.shown, axes, self.result)

    def _choose_axes(self) -> tuple[str, str] | None:
        """Return the properties of the first two wishes; the formation energy stands in."""
        wanted = [FORMATION_ENERGY if w.target == HULL else w.target for w in self.result.wishes]
        names = list(dict.fromkeys([*wanted, FORMATION_ENERGY, *self.targets]))
        names = [name for name in names if name in self.targets]
        return (names[0], names[1]) if len(names) > 1 else None


def draw_slice(density: ChargeDensity) -> str:
    """Return the slice of a density, as models read it, as the address of an image."""
    image = to_pil(density_image(density, ImageSettings())).resize((PIXELS, PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def name_plane(structure: Structure) -> str:
    """Return the indices of the plane of a slice, such as ``(1 1 1)``."""
    return "(" + " ".join(str(i).replace("-", "−") for i in lattice_plane(structure).hkl) + ")"


def draw_pareto(
    tried: pd.DataFrame, shown: pd.DataFrame, axes: tuple[str, str], result: Design
) -> Markup:
    """Return the plot of :meth:`_Report.pareto` as SVG."""
    from matplotlib.figure import Figure

    with page_style("pareto"):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        axis = figure.add_subplot()
        x, y = (tried[name].to_numpy(float) for name in axes)
        axis.scatter(x, y, s=4, color=SOFT, alpha=0.5, linewidths=0, rasterized=True)
        limits = axis.get_xlim(), axis.get_ylim()
        ranges = {wish.target: (wish.low, wish.high) for wish in result.wishes}
        spans: list[Any] = [axis.axvspan, axis.axhspan]
        for name, span, (low, high) in zip(axes, spans, limits, strict=True):
            if name in ranges:
                own = ranges[name]
                span(max(own[0], low), min(own[1], high), color=FIRST, alpha=0.1, linewidth=0)
        if len(shown):
            px, py = (shown[name].to_numpy(float) for name in axes)
            axis.scatter(px, py, s=16, color=SECOND, linewidths=0)
            for number in range(min(NUMBERED, len(shown))):
                axis.annotate(
                    str(number + 1),
                    (px[number], py[number]),
                    (3, 3),
                    textcoords="offset points",
                    fontsize=7,
                )
        axis.set_xlim(limits[0])
        axis.set_ylim(limits[1])
        labels = [f"predicted {describe_target(n)} ({result.units[n]})" for n in axes]
        axis.set_xlabel(labels[0])
        axis.set_ylabel(labels[1])
        return inline_svg(figure, "predicted properties of all candidates")
