"""Draw explanations as matplotlib figures that belong to no window.

Orange raises a prediction and blue lowers it. Bars also show their numbers and maps a colour scale,
so no information depends on colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter

from ..dataset.schema import AXIS_NAMES
from ..density.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, mark_atoms
from ..density.plane import LAYER_TOLERANCE
from ..density.predicted import MARK
from ..errors import RhosightError
from ..inputs.text.description import NEAREST_FACTOR

if TYPE_CHECKING:
    from .explanation import Explanation
    from .maps import SliceMap

MOST_ROWS = 10
"""Largest number of words or descriptors in a figure."""

BLUR = 0.03
"""Width of the Gaussian that smooths drawn maps, as a fraction of half the side of a slice."""

COLOURS = LinearSegmentedColormap.from_list("lowers-raises", [BLUE, "white", "#D55E00"])
"""The two most distinct colours of Okabe and Ito's palette, with white for zero."""

REACH = 4.0
"""Å, distance up to which the nearest neighbours of an atom are searched."""


def draw_explanation(why: Explanation) -> Figure:
    """Draw the contributions of the modalities and of the main words or descriptors."""
    details = why.words if why.words is not None else why.descriptors
    what = "word" if why.words is not None else "descriptor"
    rows = [len(why.modalities) + 1]
    if details is not None:
        rows.append(min(MOST_ROWS, len(details)) + 1)
    columns = len(why.targets)
    size = (5.4 * columns, 1.6 + 0.34 * sum(rows))
    figure = Figure(figsize=size, layout="constrained")
    # a title above the whole column with its row names; a title above the bars alone is cut off
    parts = figure.subfigures(1, columns, squeeze=False)[0]
    for part, target in zip(parts, why.targets, strict=True):
        axes = part.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
        unit = why.units[target]
        _draw_bars(axes[0], why.modalities[target], unit)
        part.suptitle(
            f"{AXIS_NAMES.get(target, target)}: {why.prediction[target]:.3g} {unit}\n"
            f"= base {why.base[target]:.3g} {unit} + contributions:",
            fontsize=10,
        )
        if details is not None:
            _draw_bars(axes[1], why.largest(target, MOST_ROWS).rename(_shorten), unit)
            axes[1].set_title(f"main {what}s", fontsize=10)
    joint = "; " if columns > 1 else "\n"
    figure.suptitle(f"{_title(why)}{joint}base: {why.background}", fontsize=11)
    return figure


def _title(why: Explanation) -> str:
    """Return formula and name; long paths are shortened to their end."""
    name = why.name if len(why.name) <= 40 else f"…{why.name[-39:]}"
    return f"{why.formula} ({name})"


def _draw_bars(axis: Axes, values: pd.Series, unit: str) -> None:
    """Draw horizontal bars from zero, the first one on top."""
    colours = [ORANGE if value > 0 else BLUE for value in values]
    places = np.arange(len(values))
    axis.barh(places, values, color=colours, edgecolor="black", linewidth=0.5)
    axis.axvline(0, color="black", linewidth=0.8)
    low, high = min(values.min(), 0), max(values.max(), 0)
    span = max(high - low, 1e-12)
    for place, value in enumerate(values):
        shift = np.copysign(0.03 * span, value)
        side = "left" if value >= 0 else "right"
        label = f"{value:+.2g}" if abs(value) < 99.5 else f"{value:+.0f}"
        axis.text(value + shift, place, label, ha=side, va="center", fontsize=8)
    axis.set_yticks(places, [str(name) for name in values.index], fontsize=9)
    axis.invert_yaxis()
    # leaves room for the numbers beside the bars
    axis.set_xlim(low - (0.4 if low else 0.06) * span, high + (0.4 if high else 0.06) * span)
    axis.set_xlabel(unit, fontsize=9)
    axis.tick_params(axis="x", labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(5))  # keeps tick labels apart


def _shorten(name: str) -> str:
    """Return a descriptor's name without prefix, at most 36 characters long."""
    name = name.replace("MagpieData ", "")
    return name if len(name) <= 36 else f"{name[:35]}…"


def draw_maps(why: Explanation, target: str) -> Figure:
    """Draw the slices that a network reads and their contributions to one target.

    Axes are in Å; atoms and bonds are marked.

    Raises
    ------
    RhosightError
        If the model reads no image or does not predict this target.
    """
    if target not in why.targets:
        raise RhosightError(
            f"{target!r} is not predicted by this model; choose from {', '.join(why.targets)}"
        )
    if not why.maps:
        reasons = [note for note in why.notes if not note.startswith(MARK)]
        reason = reasons[0] if reasons else "explain the material with details=True"
        raise RhosightError(f"{why.name}: there is no map to draw: {reason}")
    unit = why.units[target]
    figure = Figure(figsize=(5.2 * len(why.maps), 5.4), layout="constrained")
    axes = figure.subplots(1, len(why.maps), squeeze=False)[0]
    for axis, one in zip(axes, why.maps, strict=True):
        _draw_map(figure, axis, one, target, unit)
    name = AXIS_NAMES.get(target, target)
    start = why.starts["maps"][target]
    figure.suptitle(
        f"{_title(why)}, {name}: {why.prediction[target]:.3g} {unit}\n"
        f"= {start:.3g} {unit} for the mean image + contributions of the slices",
        fontsize=11,
    )
    if not any(one.fourier for one in why.maps):
        figure.supxlabel(
            "lines join nearest neighbours: solid in the plane, dotted where they leave it, "
            "× where they cross it",
            fontsize=9,
        )
    return figure


def _draw_map(figure: Figure, axis: Axes, one: SliceMap, target: str, unit: str) -> None:
    """Draw one slice in grey with its smoothed attributions on top."""
    values = one.values[target]
    blurred = gaussian_filter(values, BLUR * len(values) / 2, mode="nearest")
    reach = max(float(np.quantile(np.abs(blurred), 0.995)), 1e-12)
    scale = Normalize(-reach, reach)
    extent = (-one.half, one.half, -one.half, one.half)
    grey = np.clip(one.density, *np.quantile(one.density, [0.01, 0.99]))
    axis.imshow(grey, cmap="gray_r", extent=extent, alpha=0.45)
    # places without a contribution show the density
    strength = np.clip(np.abs(blurred) / reach, 0, 1) ** 0.5
    colours = COLOURS(scale(blurred))
    colours[..., 3] = 0.85 * strength
    axis.imshow(colours, extent=extent)
    length = "Å⁻¹" if one.fourier else "Å"
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), ax=axis, shrink=0.8, extend="both")
    bar.set_label(f"{unit} per {'Å⁻²' if one.fourier else 'Å²'}")
    if not one.fourier:
        _mark_bonds(axis, one)
        mark_atoms(axis, one.structure, one.plane, one.half, one.channel.offset)
    indices = " ".join(map(str, one.plane.hkl))
    shift = f", {one.channel.offset:g} d above" if one.channel.offset else ""
    what = "Fourier transform of " if one.fourier else ""
    axis.set_title(
        f"{what}{one.channel.kind} on ({indices}){shift}\n"
        f"contributes {one.total(target):+.2g} {unit}",
        fontsize=10,
    )
    axis.set(xlabel=f"x ({length})", ylabel=f"y ({length})")
    axis.set(xlim=(-one.half, one.half), ylim=(-one.half, one.half))


def _mark_bonds(axis: Axes, one: SliceMap) -> None:
    """Draw bonds between nearest neighbours.

    Solid lines lie in the plane, dotted lines point to the projection of an atom outside the plane,
    and crosses mark bonds that cross the plane.
    """
    for ends in _find_bonds(one):
        (u, v, height), (u_other, v_other, other) = ends
        on, other_on = abs(height) < LAYER_TOLERANCE, abs(other) < LAYER_TOLERANCE
        if on and other_on:
            axis.plot([u, u_other], [v, v_other], "-", color="black", linewidth=1.2)
        elif on or other_on:
            axis.plot([u, u_other], [v, v_other], ":", color="black", linewidth=1.0)
        elif height * other < 0:
            share = height / (height - other)
            at = u + share * (u_other - u), v + share * (v_other - v)
            axis.plot(*at, "x", color="black", markersize=5, markeredgewidth=1.0)


def _find_bonds(one: SliceMap) -> list[np.ndarray]:
    """Return pairs of nearest neighbours, rows of (u, v, height above plane), Å."""
    structure, plane = one.structure, one.plane
    start = plane.points(0.0, 0.0, one.channel.offset)
    centre = structure.lattice.get_cartesian_coords(start)
    near = structure.get_sites_in_sphere(centre, np.sqrt(2) * one.half + REACH)
    places = plane.coordinates(np.array([site.frac_coords for site in near]))
    places[:, 2] -= one.channel.offset * plane.spacing
    places = places[np.abs(places[:, 2]) < REACH]
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    joined = apart <= NEAREST_FACTOR * np.minimum(nearest[:, None], nearest)
    pairs = (places[[i, j]] for i, j in np.argwhere(np.triu(joined)))
    return [pair for pair in pairs if (np.abs(pair[:, :2]) <= one.half).all(axis=1).any()]


def draw_summary(summary: pd.DataFrame) -> Figure:
    """Draw the fraction of each modality, one bar for each class of compounds."""
    targets = summary.index.unique("target")
    modalities = list(summary.index.unique("modality"))
    classes = list(summary.index.unique("class"))
    colours = [BLUE, ORANGE, GREEN, PURPLE, GREY, "#F0E442"]
    hatches = ["", "//", "..", "xx", "\\\\", "--"]
    size = (4.6 * len(targets), 1.6 + 0.36 * len(classes))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(targets), squeeze=False, sharey=True)[0]
    for axis, target in zip(axes, targets, strict=True):
        table = summary.loc[target]
        parts = table["part"].unstack("modality").reindex(index=classes, columns=modalities)
        start = np.zeros(len(classes))
        for number, modality in enumerate(modalities):
            width = parts[modality].fillna(0).to_numpy()
            style = {"color": colours[number % 6], "hatch": hatches[number % 6]}
            label = modality if axis is axes[0] else None
            axis.barh(classes, width, left=start, ec="black", lw=0.5, label=label, **style)
            start = start + width
        axis.set(
            title=AXIS_NAMES.get(target, target),
            xlim=(0, 1),
            xlabel="fraction of all contributions",
        )
    counts = summary.loc[targets[0], "materials"].groupby("class", observed=True).first()
    axes[0].set_yticks(range(len(classes)), [f"{name} ({counts[name]})" for name in classes])
    axes[0].invert_yaxis()
    figure.legend(loc="outside lower center", ncols=len(modalities), frameon=False)
    return figure
