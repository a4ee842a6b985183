"""Write a cross-validation as one self-contained HTML file.

This module computes numbers and figures; text and layout are in ``templates/report.html.j2``.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..density.plane import lattice_plane
from ..inputs.image import ImageSettings, density_image, to_pil, window_side
from ..metrics import r2_score, rmse
from ..models.baselines.baselines import BASELINES, COMPARED
from ..models.baselines.chgnet import CHGNET_NOTE
from ..models.baselines.potential import SEEN
from ..models.gaussian_process.recipe import (
    DESCRIPTOR_RECIPES,
    ENCODERS,
    POTENTIAL_RECIPES,
    DescriptorRecipe,
)
from ..networks.recipe import PARTS
from .cross_validation import CrossValidation
from .folds import CUSTOM
from .html import (
    FIRST,
    SECOND,
    SOFT,
    describe_channel,
    describe_target,
    format_number,
    inline_svg,
    page_style,
    write_page,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

    from ..dataset.dataset import Dataset

Row = tuple[str, str]
"""Model and stage; baselines have an empty stage."""

EXAMPLES = 6
"""Number of example materials."""

EXAMPLE_TARGET = "bulk_modulus_vrh"
"""Examples cover the range of this target where the test set has labels of it."""

MAX_PIXELS = 300
"""Largest side of an embedded picture; larger pictures are reduced."""

MAX_POINTS = 2000
"""Largest number of points drawn as vectors; a plot with more points is rasterised."""


def write_report(result: CrossValidation, dataset: Dataset, path: str | os.PathLike) -> Path:
    """Write a cross-validation as one HTML file with scores, plots and examples.

    Parameters
    ----------
    result
        From :func:`rhosight.evaluation.cross_validation.cross_validate`.
    dataset
        The dataset that was cross-validated.
    path
        File to write. It is written atomically and needs neither a network nor scripts.

    Raises
    ------
    RhosightError
        If the dataset lacks a material of the result, or the file cannot be written.
    """
    return write_page(path, "report.html.j2", report=_Report(result, dataset))


class _Report:
    """Numbers and figures for the template."""

    def __init__(self, result: CrossValidation, dataset: Dataset):
        self.result, self.targets = result, result.targets
        self.dataset = dataset.with_targets(self.targets)
        self.settings, self.predictions = result.settings, result.predictions
        self.recipe: dict[str, Any] = self.settings["recipe"]
        self.trains = "modality" in self.recipe
        parts = [part for part in ENCODERS if self.recipe.get(part)]
        # empty if only descriptors are read
        self.modality: str = self.recipe["modality"] if self.trains else "+".join(parts)
        self.image = _first_image(self.recipe, self.trains) if "image" in self.modality else {}
        self.sources = [] if self.trains else DescriptorRecipe(**self.recipe).weight_sources
        self.units: dict[str, str] = self.settings["units"]
        self.test = self.predictions[self.predictions["part"] == "test"]
        # raises if a material is missing
        self.used = self.dataset[self.predictions["material_id"].unique().tolist()]
        self.folds = int(self.predictions["fold"].nunique())
        self._scores, summary = result.scores, result.summary()
        means = ((key, part, row[part]) for key, row in summary.iterrows() for part in PARTS)
        self._means = {(key, part): values.to_dict() for key, part, values in means}
        rows = list(dict.fromkeys((model, stage) for _, model, stage in summary.index))
        self.baselines = [row for row in rows if row[0] in BASELINES]
        self.pretrained = [row for row in rows if row[0] in COMPARED]
        own = (*DESCRIPTOR_RECIPES, *POTENTIAL_RECIPES, CUSTOM)
        self.descriptors = [row for row in rows if row[0] in own]
        reads_potential = any(row[0] in POTENTIAL_RECIPES for row in rows)
        notes = (CHGNET_NOTE if self.pretrained else "", SEEN if reads_potential else "")
        self.pretrained_notes = [note for note in notes if note]
        self.trained = [row for row in rows if row[1]] if self.trains else []
        others = self.baselines + self.pretrained + self.descriptors + self.trained
        self.encoders = [row for row in rows if row not in others]
        self.ours = self.descriptors + self.encoders + self.trained
        self.final = result.final
        spread = self.used.targets[self.targets].std()
        self.digits = {t: _decimals(spread[t]) for t in self.targets}

    def score(self, target: str, row: Row, part: str) -> dict[str, float]:
        """Return the means over folds and their deviations: r2, r2_std, rmse, rmse_std."""
        absent = dict.fromkeys(("r2", "r2_std", "rmse", "rmse_std"), math.nan)
        return self._means.get(((target, *row), part), absent)  # chgnet-potential has two targets

    def average_r2(self, row: Row, part: str) -> float:
        """Return R² averaged over targets."""
        return float(np.mean([self.score(target, row, part)["r2"] for target in self.targets]))

    def best(self, target: str, rows: list[Row], part: str = "validation") -> Row:
        """Return the row with the lowest RMSE."""
        errors = [self.score(target, row, part)["rmse"] for row in rows]
        return rows[int(np.nanargmin(errors))] if np.isfinite(errors).any() else rows[0]

    def comparison(self, target: str) -> dict[str, Any]:
        """Compare our best model with the strongest baseline on the validation sets."""
        model, baseline = self.best(target, self.ours), self.best(target, self.baselines)
        scores = _where(self._scores, target=target, part="validation").set_index("fold")
        ours = _where(scores, model=model[0], stage=model[1])["rmse"]
        theirs = _where(scores, model=baseline[0], stage="")["rmse"]
        larger = max(ours.mean(), theirs.mean())
        gap = abs(ours.mean() - theirs.mean()) / larger if larger > 0 else 0.0
        better = bool(ours.mean() < theirs.mean())
        wins = int(((ours < theirs) if better else (theirs < ours)).sum())
        outcome = {"better": better, "gap": gap, "wins": wins, "folds": len(ours)}
        return {"model": model, "baseline": baseline, **outcome}

    def parity(self, target: str) -> list[Markup]:
        """Plot predicted against true values of the best and final models and a baseline."""
        both = self.best(target, self.ours), self.final
        rows, plots = list(dict.fromkeys([*both, self.best(target, self.baselines)])), []
        points = _where(self.predictions[self.predictions["part"] != "train"], target=target)
        frames = [_where(points, model=model, stage=stage) for model, stage in rows]
        values = pd.concat(frames)[["true", "predicted"]].to_numpy()
        if not len(values):
            return []
        margin = 0.04 * (np.ptp(values) or 1.0)
        limits = values.min() - margin, values.max() + margin
        for row, frame in zip(rows, frames, strict=True):
            title = f"{row[0]}, {row[1]}" if row[1] else row[0]
            title += ", baseline" * (row in self.baselines)
            draw = _parity_plot(frame, title, limits, self.units[target], self.digits[target])
            label = f"{describe_target(target)}, predicted against true: {title}"
            plots.append(_draw_svg(draw, (3.5, 4.2), label))
        return plots

    def curves(self, stage: str) -> list[Markup]:
        """Plot the learning curves of one stage, one plot for each model."""
        plots = []
        for model in [model for model, other in self.trained if other == stage]:
            history = _where(self.result.history, model=model, stage=stage)
            if len(history):
                draw = _learning_curves(history, f"{model}, {stage}")
                plots.append(_draw_svg(draw, (3.4, 2.5), f"learning curves: {model}, {stage}"))
        return plots

    def example_target(self) -> str:
        """Return the target by which the examples are chosen."""
        labelled = [target for target in self.targets if target in set(self.test["target"])]
        return EXAMPLE_TARGET if EXAMPLE_TARGET in labelled else labelled[0]

    def example_ids(self) -> list[str]:
        """Return test materials from the smallest to the largest value of a target."""
        test = _where(self.test, target=self.example_target())
        ids = test.sort_values(["true", "material_id"])["material_id"].unique()
        where = np.linspace(0, len(ids) - 1, min(EXAMPLES, len(ids)))
        return ids[np.rint(where).astype(int)].tolist()

    def mean_prediction(self, material_id: str, target: str) -> float:
        """Return the final model's prediction averaged over folds; NaN without a label."""
        model, stage = self.final
        rows = _where(self.test, material_id=material_id, target=target, model=model, stage=stage)
        return float(rows["predicted"].mean())

    def pictures(self, material_id: str) -> list[dict[str, Any]]:
        """Return title, picture and scale bar of an image and of its channels."""
        settings = ImageSettings(**self.image)
        density = self.dataset[material_id].density
        image, bars, names = density_image(density, settings), [], []
        for channel in settings.channels:
            plane = lattice_plane(density.structure, channel.hkl, settings.symprec)
            bars.append(_scale_bar(window_side(channel, plane), settings))
            names.append(describe_channel(channel.model_dump()))
        if len(names) == 1:
            return [{"title": names[0], "src": _png(to_pil(image)), "bar": bars[0]}]
        one_scale = all(bar == bars[0] for bar in bars)
        title = "as the network sees it" + ("" if one_scale else ", channels of different scale")
        pictures = [{"title": title, "src": _png(to_pil(image)), "bar": one_scale and bars[0]}]
        for i, colour in enumerate(("red", "green", "blue")):
            src = _png(_palette(image[i]))
            pictures.append({"title": f"{colour}: {names[i]}", "src": src, "bar": bars[i]})
        return pictures


def _first_image(recipe: dict[str, Any], trains: bool) -> dict[str, Any]:
    """Return the settings of the image that examples show."""
    return recipe["image"] if trains else recipe["image"]["images"][0]


def _where(frame: pd.DataFrame, **values: str) -> pd.DataFrame:
    """Return the rows that have these values."""
    return frame[(frame[list(values)] == list(values.values())).all(axis=1)]


def _parity_plot(
    frame: pd.DataFrame, title: str, limits: tuple[float, float], unit: str, digits: int
) -> Callable[[Axes], None]:
    """Return a function that plots predicted against true values."""

    def draw(axes: Axes) -> None:
        axes.plot(limits, limits, color=SOFT, linewidth=0.8, zorder=1)
        for part, colour, marker in (("validation", FIRST, "o"), ("test", SECOND, "^")):
            true, predicted = frame.loc[frame["part"] == part, ["true", "predicted"]].to_numpy().T
            if not len(true):
                continue
            scores = f"R² {format_number(r2_score(true, predicted), 2)}, "
            scores += f"RMSE {format_number(rmse(true, predicted), digits)} {unit}"
            axes.scatter(
                true,
                predicted,
                s=12,
                marker=marker,
                color=colour,
                alpha=0.55,
                linewidth=0,
                rasterized=len(frame) > MAX_POINTS,
                label=f"{part}: {scores}",
            )
        axes.set(xlabel=f"true ({unit})", ylabel=f"predicted ({unit})")
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderpad=0, handletextpad=0.2)
        axes.set_title(title, loc="left", pad=34, weight="bold")

    return draw


def _learning_curves(history: pd.DataFrame, title: str) -> Callable[[Axes], None]:
    """Return a function that plots the losses of each fold and marks the best epoch."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for _, fold in history.groupby("fold"):
            epoch, watched = fold["epoch"].to_numpy() + 1, fold["watched"].to_numpy()
            axes.plot(epoch, fold["train"], color=FIRST, linewidth=0.9, linestyle=(0, (3, 1.5)))
            axes.plot(epoch, watched, color=SECOND, linewidth=1.0)
            best = int(np.argmin(watched))
            axes.plot(epoch[best], watched[best], "o", color=SECOND, markersize=4)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.set_title(title, loc="left", weight="bold")

    return draw


def _draw_svg(draw: Callable[[Axes], None], size: tuple[float, float], label: str) -> Markup:
    """Draw on one pair of axes and return the figure as inline SVG."""
    from matplotlib.figure import Figure

    with page_style(label):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
    return inline_svg(figure, label)


def _scale_bar(side: float, settings: ImageSettings) -> dict[str, str]:
    """Return a round length of at most a third of the side, and its share in %."""
    unit = "Å"
    if settings.fourier:
        side, unit = settings.size / side, "Å⁻¹"
    power = 10.0 ** np.floor(np.log10(side / 3))
    length = max(n * power for n in (1, 2, 5) if n * power <= side / 3)
    return {"label": f"{length:g} {unit}", "share": f"{100 * length / side:.2f}"}


def _palette(layer: np.ndarray) -> Image:
    """Return one channel in matplotlib's cividis, −1 dark and 1 bright."""
    from matplotlib import colormaps
    from PIL import Image

    picture = Image.fromarray(np.rint((layer + 1) * 127.5).clip(0, 255).astype(np.uint8))
    colours = colormaps["cividis"](np.arange(256), bytes=True)
    picture.putpalette(colours[:, :3].ravel().tolist())
    return picture


def _png(picture: Image) -> str:
    """Return a picture as a data URL, reduced to at most MAX_PIXELS."""
    if picture.width > MAX_PIXELS:
        picture = picture.resize((MAX_PIXELS, MAX_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _decimals(spread: float) -> int:
    """Return the decimals that show an error of a tenth of the spread with two digits."""
    return int(np.clip(2 - np.floor(np.log10(spread)), 0, 9)) if spread > 0 else 3
