"""Draw results beside the paper's, from the tables of :mod:`.scores`.

No information depends on colour alone. The colours are those of Okabe and Ito, and cividis, which
readers with colour vision deficiency can tell apart. Save a figure with
``figure.savefig("a.png")``; it has no window.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import product
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ..dataset.schema import TARGET_NAMES
from ..errors import RhosightError
from ..evaluation.html import FIRST, NBSP, SECOND, SOFT, page_style
from ..networks.recipe import PARTS
from .scores import BOTH, Whose, format_cell, name_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHORT = {"train": "train", "validation": "val", "test": "test"}
_MAX_PANELS = 9  # of learning curves


def draw_heat_map(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw scores as in Figures 2 and 9, ours and the paper's side by side.

    Parameters
    ----------
    table
        From :func:`rhosight.experiments.scores.add_paper_scores`. Each target is a panel; each
        model, extent and stage is a row. Each cell gives R² (± its standard deviation) and RMSE;
        the shade is R².
    title
        Title above all panels.

    Raises
    ------
    RhosightError
        If the table is empty.
    """
    _require_rows(table)
    keys = ["extent", "model", "stage"]
    rows = list(table[keys].drop_duplicates().itertuples(index=False, name=None))
    targets = list(table["target"].unique())
    parts = [part for part in PARTS if part in set(table["part"])]
    columns: list[tuple[str, Whose]] = list(product(parts, BOTH))
    cells = table.set_index(["target", *keys, "part"])
    with page_style(title):
        size = 1.15 * len(columns) + 2.4, 0.36 * len(rows) + 0.75
        figure = Figure(figsize=(size[0], size[1] * len(targets)), layout="constrained")
        panels = figure.subplots(len(targets), 1, squeeze=False).ravel()
        for letter, axes, target in zip(ascii_lowercase, panels, targets, strict=False):
            for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
                part, whose = column
                key = (target, *row, part)
                if key in cells.index:
                    _draw_cell(axes, x, y, cells.loc[key], whose)
            unit = next(filter(None, cells.loc[target]["rmse_unit"].dropna()), "")
            unit = f" / RMSE ({unit})" if unit else ""
            axes.set_title(f"{letter}) {_name_target(target)}: R²{unit}", loc="left", weight="bold")
            axes.set_xticks(
                range(len(columns)), [f"{_SHORT[part]}\n{whose}" for part, whose in columns]
            )
            axes.set_yticks(range(len(rows)), [name_row(m, e, s) for e, m, s in rows])
            axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        if title:
            figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _draw_cell(axes: Axes, x: int, y: int, cell: pd.Series, whose: Whose) -> None:
    from matplotlib import colormaps

    text = "\n".join(format_cell(cell, whose)).replace(NBSP, "")
    if not text:
        return
    r2 = float(cell["paper_r2" if whose == "paper" else "r2"])
    colour = colormaps["cividis"](0.15 + 0.85 * float(np.clip(r2, 0, 1)))
    left, width = (x - 0.46, 0.96) if x % 2 == 0 else (x - 0.5, 0.96)  # ours touches the paper's
    axes.add_patch(Rectangle((left, y - 0.48), width, 0.96, facecolor=colour, linewidth=0))
    ink = "black" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.45 else "white"
    axes.text(x, y, text, ha="center", va="center", color=ink, fontsize=6.5, linespacing=1.1)


def draw_dots(table: pd.DataFrame, score: str = "r2", title: str = "") -> Figure:
    """Draw the score of each model or trial, ours and the paper's.

    Parameters
    ----------
    table
        From :func:`rhosight.experiments.scores.add_paper_scores`. Each target and set is a
        panel. Rows are named by trial, if there are trials, else by model, extent and stage.
    score
        ``"r2"`` or ``"rmse"``.
    title
        Title above all panels.
    """
    _require_rows(table)
    if score not in ("r2", "rmse"):
        raise RhosightError(f"unknown score {score!r}; choose r2 or rmse")
    keys = [key for key in ("trial", "extent", "model", "stage") if key in table]
    rows = list(table[keys].drop_duplicates().itertuples(index=False, name=None))
    targets = list(table["target"].unique())
    parts = [part for part in PARTS if part in set(table["part"])]
    with page_style(title):
        figure = Figure(
            figsize=(2.5 * len(parts) + 1.2, (0.2 * len(rows) + 0.9) * len(targets)),
            layout="constrained",
        )
        panels = figure.subplots(len(targets), len(parts), squeeze=False, sharey=True)
        for (i, target), (j, part) in product(enumerate(targets), enumerate(parts)):
            axes = panels[i, j]
            mine = table[(table["target"] == target) & (table["part"] == part)]
            places = [rows.index(tuple(row)) for row in mine[keys].itertuples(index=False)]
            axes.errorbar(
                mine[score],
                places,
                xerr=mine[f"{score}_std"].fillna(0),
                fmt="o",
                color=FIRST,
                markersize=4,
                linewidth=1,
                label="ours, ± standard deviation",
            )
            look = {"marker": "^", "color": SECOND, "s": 22, "zorder": 3}
            axes.scatter(mine[f"paper_{score}"], places, label="paper", **look)
            unit = mine["rmse_unit"].dropna()
            unit = f" ({unit.iloc[0]})" if score == "rmse" and len(unit) else ""
            axes.set_xlabel(f"{'R²' if score == 'r2' else 'RMSE'}{unit}")
            axes.set_title(f"{_name_target(target)}, {part}", loc="left", weight="bold")
            axes.set_yticks(range(len(rows)), [_name_panel(keys, row) for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis="y", color=SOFT, alpha=0.25, linewidth=0.5)
            axes.xaxis.set_major_locator(MaxNLocator(4))
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        if title:
            figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _name_panel(keys: Sequence[str], values: Sequence[Hashable]) -> str:
    names = {key: str(value) for key, value in zip(keys, values, strict=True)}
    name = name_row(names["model"], names["extent"], names["stage"])
    return f"{names['trial']}, {name}" if names.get("trial") else name


_METRICS = {"r2": "R²", "rmse": "RMSE (standard deviations)"}


def draw_learning_curves(history: pd.DataFrame, metric: str, title: str = "") -> Figure:
    """Draw a score of the validation folds over the epochs (paper Figures 6 and 7).

    Parameters
    ----------
    history
        One row per epoch: repeat, fold, extent, model, stage, epoch (from 0), and the metric. Each
        model, extent and stage (and trial) is a panel. Each fold is a thin line; the mean ends
        where the first fold stops training.
    metric
        Column ``"r2"`` or ``"rmse"`` (of standardised labels).
    title
        Title above all panels.
    """
    _require_rows(history)
    if metric not in _METRICS or metric not in history:
        raise RhosightError(f"the history has no {metric!r}; choose from {', '.join(_METRICS)}")
    keys = [key for key in ("trial", "extent", "model", "stage") if key in history]
    groups = list(history.groupby(keys, sort=False))[:_MAX_PANELS]
    wide = min(3, len(groups))
    high = -(-len(groups) // wide)
    with page_style(title):
        # a single panel is as wide as its title
        size = max(3.2 * wide, 5.2), 2.5 * high + 0.6
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(high, wide, squeeze=False, sharey=True).ravel()
        for axes in panels[len(groups) :]:
            axes.remove()
        for axes, (values, frame) in zip(panels, groups, strict=False):
            for _, curve in frame.groupby(["repeat", "fold"]):
                epoch = curve["epoch"].to_numpy() + 1
                axes.plot(epoch, curve[metric], linewidth=0.7, alpha=0.45, color=SECOND)
            epochs = frame.groupby("epoch")[metric].agg(["mean", "size"])
            mean = epochs.loc[epochs["size"] == epochs["size"].max(), "mean"]
            name = "mean" if len(mean) == len(epochs) else "mean, while all folds train"
            axes.plot(mean.index.to_numpy() + 1, mean, linewidth=2, label=name, color=SECOND)
            axes.set(xlabel="epoch", ylabel=_METRICS[metric])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if metric == "r2":
                axes.set_ylim(bottom=max(-0.5, min(0, axes.get_ylim()[0])), top=1)
            else:
                axes.set_ylim(bottom=0)
            axes.set_title(_name_panel(keys, values), loc="left", weight="bold")
        handles, labels = panels[0].get_legend_handles_labels()
        thin = Line2D([], [], color=SECOND, linewidth=0.7, alpha=0.7)
        folds = int(
            history.groupby(keys)[["repeat", "fold"]].value_counts().groupby(keys).size().max()
        )
        figure.legend(
            [*handles, thin],
            [*labels, f"each of {folds} folds"],
            loc="outside lower center",
            ncols=3,
        )
        if title:
            figure.suptitle(title, x=0.01, ha="left", weight="bold", wrap=True)
    return figure


def _name_target(target: str) -> str:
    name = TARGET_NAMES[target].short if target in TARGET_NAMES else target
    return f"{name[0].upper()}{name[1:]}"


def _require_rows(table: pd.DataFrame) -> None:
    if table.empty:
        raise RhosightError("no results to draw; run the experiment first")
