"""Draw a dataset's targets, elements, grids and labels, and slices of densities.

Each function returns a matplotlib Figure that belongs to no window: ``figure.savefig("a.png")``.
Colours are distinguishable with any colour vision, and no information depends on colour alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from pymatgen.core import Composition, DummySpecies, Element

from ..density.charge_density import Kind
from ..density.crystals import SYMPREC
from ..density.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    choose_ink,
    draw_colour_bar,
    draw_slices,
)
from ..errors import RhosightError
from .schema import AXIS_NAMES

if TYPE_CHECKING:
    from .dataset import Dataset


_MOST_GRIDS = 16
_VIOLINS_IN_ROW = 5
_F_BLOCK_ROW = 8  # lanthanides and actinides have rows of their own below the table


def targets_violin(dataset: Dataset) -> Figure:
    """Draw the distributions of all targets and element numbers (paper Figure 3).

    The width of a violin shows how many materials have a value. The white mark is the median, the
    black bar the interquartile range, the number above it how many materials have the label.
    """
    _check_not_empty(dataset)
    columns = {
        f"{AXIS_NAMES.get(name, name)}{f' ({unit})' if unit else ''}": dataset.targets[
            name
        ].dropna()
        for name, unit in dataset.units.items()
    }
    elements = [len(Composition(formula).element_composition) for formula in _formulas(dataset)]
    columns["number of elements"] = pd.Series(elements, dtype=float)
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    wide = min(len(columns), _VIOLINS_IN_ROW)
    high = -(-len(columns) // wide)
    figure = Figure(figsize=(2.3 * wide, 4.2 * high), layout="constrained")
    axes = figure.subplots(high, wide, squeeze=False).ravel()
    for axis in axes[len(columns) :]:
        axis.remove()
    for i, (axis, (name, values)) in enumerate(zip(axes, columns.items(), strict=False)):
        _violin(axis, values.to_numpy(float), colours[i % len(colours)])
        axis.set_title(f"n = {len(values)}", fontsize=10)
        axis.set_ylabel(name, fontsize=11)
        axis.set_xticks([])
    axes[len(columns) - 1].yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _violin(axis: Axes, values: np.ndarray, colour: str) -> None:
    axis.set_xlim(-0.6, 0.6)
    if not len(values):
        axis.set_yticks([])
        axis.text(0, 0.5, "no value", ha="center", transform=axis.get_xaxis_transform())
        return
    if len(np.unique(values)) > 1:  # one value alone has no distribution
        parts = axis.violinplot(values, [0], widths=0.95, showextrema=False, points=300)
        body: Any = parts["bodies"]
        body[0].set(facecolor=colour, edgecolor="black", linewidth=0.8, alpha=0.75)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    axis.vlines(0, low, high, color="black", linewidth=6)
    axis.plot(0, median, "o", color="white", markeredgecolor="black", markersize=6, zorder=3)
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.7)
    axis.set_axisbelow(True)


def element_heatmap(dataset: Dataset) -> Figure:
    """Draw the periodic table with the number of materials that contain each element."""
    _check_not_empty(dataset)
    counts = Counter(
        element.symbol
        for formula in _formulas(dataset)
        for element in Composition(formula).element_composition
        if not isinstance(element, DummySpecies)
    )
    figure = Figure(figsize=(11.5, 6.2), layout="constrained")
    axis = figure.subplots()
    colours = colormaps["viridis"]
    scale = LogNorm(1, max(10, *counts.values()))
    for element in (Element.from_Z(z) for z in range(1, 119)):
        x, y = _locate_square(element)
        number = counts.get(element.symbol, 0)
        face, ink = (1.0, 1.0, 1.0, 1.0), "#6E6E6E"
        if number:
            face = colours(scale(number))
            ink = choose_ink(face)
        axis.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], fc=face, ec="#9A9A9A", lw=0.6)
        axis.text(x + 0.5, y + 0.42, element.symbol, color=ink, ha="center", va="center", size=13)
        if number:
            axis.text(x + 0.5, y + 0.78, str(number), color=ink, ha="center", va="center", size=9)
    for row, numbers in ((6, "57–71"), (7, "89–103")):
        axis.text(3.5, row + 0.5, numbers, color="#6E6E6E", ha="center", va="center", size=9)
    axis.set(xlim=(0.9, 19.1), ylim=(_F_BLOCK_ROW + 2.6, 0.9), aspect="equal")
    axis.axis("off")
    bar = draw_colour_bar(figure, axis, scale, "viridis", "materials with the element", shrink=0.75)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.minorticks_off()
    axis.set_title(f"{len(counts)} elements in {len(dataset)} materials", fontsize=12)
    return figure


def _locate_square(element: Element) -> tuple[float, float]:
    """Return left and top of an element's square, in columns and rows."""
    z = element.Z
    if 57 <= z <= 71:
        return z - 57 + 3, _F_BLOCK_ROW + 0.5
    if 89 <= z <= 103:
        return z - 89 + 3, _F_BLOCK_ROW + 1.5
    return element.group, element.row


def grid_sizes(dataset: Dataset) -> Figure:
    """Draw how many materials have which grid, and the spacings of their grid points."""
    _check_not_empty(dataset[dataset.has_density])
    shapes, spacings = [], []
    for density in dataset[dataset.has_density].densities:
        shapes.append(density.shape)
        spacings.append(max(np.array(density.structure.lattice.abc) / density.shape))
    counts = Counter(shapes)
    common = sorted(shape for shape, _ in counts.most_common(_MOST_GRIDS))
    names = ["×".join(map(str, shape)) for shape in common]
    numbers = [counts[shape] for shape in common]
    if len(counts) > len(common):
        names.append(f"{len(counts) - len(common)} others")
        numbers.append(len(shapes) - sum(numbers))
    figure = Figure(figsize=(10.5, max(3.2, 0.27 * len(names) + 1.2)), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = left.barh(range(len(names)), numbers, color=BLUE)
    left.bar_label(bars, padding=3, fontsize=9)
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.invert_yaxis()
    left.set_ylabel("grid points", labelpad=8)
    left.set(xlabel="materials", xlim=(0, 1.12 * max(numbers)))
    right.hist(spacings, bins=min(30, max(5, len(spacings) // 8)), color=ORANGE, ec="black", lw=0.6)
    right.set(xlabel="largest spacing of grid points along an axis (Å)", ylabel="materials")
    for axis in (left.xaxis, right.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


def total_and_difference(
    dataset: Dataset,
    material_id: str,
    window: float = 8.0,
    hkl: tuple[int, int, int] | None = None,
    offset: float = 0.0,
    kinds: Sequence[Kind] = ("total", "difference"),
    size: int = 300,
    symprec: float = SYMPREC,
) -> Figure:
    """Draw slices of one material's densities, side by side (paper Figure 4).

    Atoms within 0.05 Å of the plane are marked with their element. Colours span the middle 98 % of
    the values of the slice, symmetric about zero for kinds that change sign. A pointed end of a
    colour bar marks values beyond it.

    Parameters
    ----------
    dataset, material_id
        The material; it must have the ``kinds``.
    window
        Side of the square, Å.
    hkl, offset
        The plane, by default the densest, and its shift along the normal in interplanar spacings.
    kinds
        Kinds of density to draw, from left to right.
    size
        Pixels along a side.
    symprec
        Tolerance of the symmetry search, Å.
    """
    material = dataset[material_id]
    return draw_slices(material.density, window, hkl, offset, kinds, size, symprec)


def missing_labels(dataset: Dataset) -> Figure:
    """Draw how many materials have and lack each target, text and kind of density."""
    _check_not_empty(dataset)
    masked = dataset.masked["target"].value_counts()
    rows = [
        (AXIS_NAMES.get(name, name), int(dataset.targets[name].count()), int(masked.get(name, 0)))
        for name in dataset.units
    ]
    rows += [(f"text: {extent}", int(count), 0) for extent, count in dataset.texts.count().items()]
    densities = dataset[dataset.has_density].densities
    kinds = Counter(kind for density in densities for kind in density.grids)
    rows += [(f"density: {kind}", count, 0) for kind, count in kinds.items()]
    names = [name for name, _, _ in rows]
    present = np.array([number for _, number, _ in rows])
    hidden = np.array([number for _, _, number in rows])
    missing = len(dataset) - present - hidden
    figure = Figure(figsize=(9, 0.42 * len(rows) + 1.5), layout="constrained")
    axis = figure.subplots()
    start = np.zeros(len(rows), dtype=int)
    parts = (
        ("present", present, BLUE, "", "white"),
        ("masked (impossible)", hidden, ORANGE, "////", "black"),
        ("missing", missing, "white", "", "black"),
    )
    for label, numbers, colour, hatch, _ in parts:
        axis.barh(
            names, numbers, left=start, fc=colour, ec="black", lw=0.6, hatch=hatch, label=label
        )
        start = start + numbers
    for i in range(len(rows)):
        absent = [
            f"{n} {word}" for n, word in ((hidden[i], "masked"), (missing[i], "missing")) if n
        ]
        axis.text(
            0.01 * len(dataset),
            i,
            str(present[i]),
            color="white" if present[i] else "black",
            va="center",
        )
        axis.text(1.01 * len(dataset), i, ", ".join(absent), va="center", fontsize=9)
    axis.set(xlim=(0, 1.28 * len(dataset)), xlabel="materials")
    axis.set_xticks([tick for tick in axis.get_xticks() if tick <= len(dataset)])
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(parts), frameon=False)
    return figure


def _formulas(dataset: Dataset) -> list[str]:
    return dataset.table["formula"].to_list()


def _check_not_empty(dataset: Dataset) -> None:
    if not len(dataset):
        raise RhosightError("the dataset is empty; give one with materials to draw")
