"""Score the predictions of many runs, one row per cell, beside the paper.

All functions read one long table of predictions, with columns :data:`COLUMNS`. ``extent`` is
empty for models that read no text, ``stage`` for baselines and descriptor models. Further columns,
such as ``trial``, separate cells as the paper does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from ..dataset.schema import TARGETS
from ..errors import RhosightError
from ..evaluation.html import format_number, format_significant
from ..evaluation.statistics import draw_materials, fold_scores, repeat_deviations, score_table
from ..inputs.text.extents import EXTENTS
from ..models.baselines.baselines import ALL_BASELINES
from ..models.baselines.chgnet import CHGNET_NOTE
from ..models.baselines.potential import SEEN
from ..models.gaussian_process.recipe import POTENTIAL_RECIPES
from ..networks.recipe import MODALITIES, PARTS, STAGES
from . import paper
from .processes import PROCESSES

COLUMNS: tuple[str, ...] = (
    "repeat",
    "fold",
    "target",
    "extent",
    "model",
    "stage",
    "part",
    "material_id",
    "true",
    "predicted",
)
"""Columns of predictions; values are in the unit of the target."""

Whose = Literal["ours", "paper"]
BOTH: tuple[Whose, ...] = ("ours", "paper")
"""Columns of scores, in the order of the tables."""

CELL: tuple[str, ...] = ("target", "extent", "model", "stage", "part")
"""Columns that identify a cell of the paper's tables and figures."""


def summarise(
    predictions: pd.DataFrame, by: Sequence[str] = (), resamples: int = 1000
) -> pd.DataFrame:
    """Compute mean, standard deviation and bootstrap interval of each cell.

    Parameters
    ----------
    predictions
        Table with :data:`COLUMNS`.
    by
        Further columns that separate cells, such as ``trial``.
    resamples
        Number of bootstrap samples, see :func:`rhosight.evaluation.statistics.score_table`.

    Returns
    -------
    DataFrame with columns ``by``, :data:`CELL`, then ``r2``, ``r2_std``, ``r2_run_std``,
    ``r2_low``, ``r2_high`` and the same for ``rmse`` (unit of the target): mean and standard
    deviation over all folds of all repeats; standard deviation of the means of the repeats, which
    tells how much a run of the whole protocol varies (NaN for one repeat); and the 95 % interval
    of the pooled score when materials are drawn with replacement. ``folds``, ``repeats`` and ``n``
    are the numbers of scored folds, repeats and materials. Rows are in the order of appearance.

    Raises
    ------
    RhosightError
        If a column is missing.
    """
    require_columns(predictions, by)
    groups = predictions.groupby([*by, *CELL], sort=False)
    cells = groups.size().index.to_frame(index=False)
    keyed = predictions.assign(model=groups.ngroup())
    table = score_table(keyed, resamples=resamples).reset_index().set_index("model").sort_index()
    return cells.join(table[_ORDER])


_ORDER = [
    *(
        f"{score}{kind}"
        for score in ("r2", "rmse")
        for kind in ("", "_std", "_run_std", "_low", "_high")
    ),
    "folds",
    "repeats",
    "n",
]


def average_targets(predictions: pd.DataFrame, resamples: int = 1000) -> pd.DataFrame:
    """Average R² over targets (Figure 2 d) for the models that predict all of them.

    Parameters and columns are those of :func:`summarise`; ``target`` is "average". There is no
    RMSE because targets differ in unit.
    """
    require_columns(predictions)
    keys = [name for name in CELL if name != "target"]
    targets = predictions.groupby(keys)["target"].transform("nunique")
    predictions = predictions[targets == predictions["target"].nunique()]
    groups = predictions.groupby(keys, sort=False)
    cells = groups.size().index.to_frame(index=False)
    keyed = predictions.assign(model=groups.ngroup())
    folds = fold_scores(keyed).groupby(["model", "repeat", "fold"])[["r2"]].mean().reset_index()
    scores = folds.groupby("model")["r2"]
    table = pd.DataFrame(
        {"r2": scores.mean(), "r2_std": scores.std(ddof=1), "folds": scores.size()}
    )
    table = table.join(repeat_deviations(folds, ["model"]))
    for number, group in keyed.groupby("model"):
        squared = (group["predicted"] - group["true"]) ** 2
        wide = group.assign(squared=squared).pivot_table(
            index="material_id", columns="target", values=["true", "squared"]
        )
        table.loc[number, ["r2_low", "r2_high"]] = _bootstrap_interval(
            wide["true"].to_numpy(), wide["squared"].to_numpy(), resamples
        )
        table.loc[number, "n"] = len(wide)
    return cells.assign(target="average").join(table.reindex(columns=_ORDER))


def _bootstrap_interval(true: np.ndarray, squared: np.ndarray, resamples: int) -> np.ndarray:
    """Return the 95 % interval of the mean R² of several targets.

    ``true`` and ``squared`` (errors) have shape (materials, targets), with NaN for a missing label.
    Materials are drawn as in :func:`rhosight.evaluation.statistics.score_table`.
    """
    count = len(true)
    drawn = draw_materials(count, resamples)
    # counts of each material turn the sums over all draws into one product of matrices
    places = drawn + count * np.arange(resamples)[:, None]
    times = np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count)
    known = ~np.isnan(true)
    centred = np.where(known, true - np.nanmean(true, axis=0), 0.0)
    sums = (times @ part for part in (np.where(known, squared, 0.0), centred, centred**2))
    mse, mean, square = (total / (times @ known) for total in sums)
    r2 = 1 - mse / (square - mean**2)
    return np.nanpercentile(r2.mean(axis=1), [2.5, 97.5])


def add_paper_scores(table: pd.DataFrame, exhibit: str) -> pd.DataFrame:
    """Add the paper's scores to ours, in columns of their own.

    Parameters
    ----------
    table
        From :func:`summarise`. If it has a column ``trial``, each row is matched with that trial
        of the paper, else with the mean of Table 1.
    exhibit
        Exhibit of the paper with the scores: one of :data:`rhosight.experiments.paper.EXHIBITS`.

    Returns
    -------
    ``table`` with ``paper_r2``, ``paper_rmse`` and ``rmse_unit``; NaN where the paper has no score,
    such as for baselines. A model of ours that reads no text is repeated for each extent of the
    paper, which trained it again each time.
    """
    printed = paper.read_scores(exhibit).rename(columns={"r2": "paper_r2", "rmse": "paper_rmse"})
    on = [name for name in CELL if name != "extent" or exhibit not in ("table2", "table3")]
    if "trial" in table:
        on = ["trial", *on]
    elif exhibit == "table1":
        printed = printed[printed["trial"] == "mean"]
    values = printed[[*on, "paper_r2", "paper_rmse"]]
    textless = (table["extent"] == "") & table["model"].isin(printed["model"])
    if "extent" in on and textless.any():
        extents = [name for name in EXTENTS if name in set(printed["extent"])]
        copies = [table[textless].assign(extent=name) for name in extents]
        table = pd.concat([table[~textless], *copies])
    units = printed.drop_duplicates("target").set_index("target")["rmse_unit"]
    matched = table.merge(values, on=on, how="left", validate="many_to_one")
    return sort_rows(matched.assign(rmse_unit=matched["target"].map(units)))


def sort_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows as in the paper: by target, extent (none first), model, stage, part."""
    orders = {
        "target": list(TARGETS),
        "extent": ["", *EXTENTS],
        "model": [*ALL_BASELINES, *PROCESSES, *MODALITIES],
        "stage": ["", *STAGES],
        "part": list(PARTS),
    }

    def rank(column: pd.Series) -> pd.Series:
        order = orders[str(column.name)]
        # models without a place of their own, such as chgnet, follow the baselines
        middle = len(ALL_BASELINES) - 0.5 if column.name == "model" else len(order)
        return column.map({name: i for i, name in enumerate(order)}).fillna(middle)

    return table.sort_values(list(orders), key=rank, kind="stable", ignore_index=True)


def standardise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Express true and predicted values in standard deviations of the training labels.

    The labels are those of each fold's training set, which must be among the predictions. Tables 2
    and 3 and Figures 6 and 7 give errors in this unit.
    """
    keys = ["repeat", "fold", "target"]
    labels = predictions[predictions["part"] == "train"].drop_duplicates([*keys, "material_id"])
    groups = labels.groupby(keys)["true"]
    scale = pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=0)})
    scale = predictions[keys].join(scale, on=keys)
    if scale["std"].isna().any():
        raise RhosightError("predictions: a fold lacks its training set; score that too")
    values = {
        name: (predictions[name] - scale["mean"]) / scale["std"] for name in ("true", "predicted")
    }
    return predictions.assign(**values)


def require_columns(predictions: pd.DataFrame, more: Sequence[str] = ()) -> None:
    """Raise :class:`RhosightError` if a column of predictions is missing."""
    missing = [name for name in (*COLUMNS, *more) if name not in predictions]
    if missing:
        raise RhosightError(f"predictions lack the column(s) {', '.join(missing)}")


def name_row(model: str, extent: str, stage: str) -> str:
    """Name a row of a table, for example "image+text (keywords), head stage"."""
    name = f"{model} ({extent})" if extent else model
    return f"{name}, head stage" if stage == "head" else name


def format_cell(cell: pd.Series, whose: Whose = "ours", rmse_spread: bool = False) -> list[str]:
    """Return the texts of a cell: R², and RMSE if there is one.

    Parameters
    ----------
    cell
        Row of a table from :func:`add_paper_scores`.
    whose
        Our scores, R² with its standard deviation, or the scores that the paper prints.
    rmse_spread
        Add the standard deviation to our RMSE.

    Returns
    -------
    No text if there is no R².
    """
    if whose == "paper":
        r2, rmse = cell["paper_r2"], cell.get("paper_rmse", np.nan)
    else:
        r2, rmse = cell["r2"], cell.get("rmse", np.nan)
    if pd.isna(r2):
        return []
    if whose == "paper":
        texts = [format_number(r2, 2)]
        return texts if pd.isna(rmse) else [*texts, paper.format_error(rmse)]
    texts = [format_number(r2, 2, cell["r2_std"])]
    spread = cell["rmse_std"] if rmse_spread else np.nan
    return texts if pd.isna(rmse) else [*texts, format_significant(rmse, spread=spread)]


def chgnet_caveat(table: pd.DataFrame) -> str:
    """Return the caveats on CHGNet if a table of scores has rows that use it."""
    if "model" not in table:
        return ""
    notes = {
        CHGNET_NOTE: table["model"].str.startswith("chgnet"),
        SEEN: table["model"].isin(list(POTENTIAL_RECIPES)),
    }
    return " ".join(f"{note}." for note, rows in notes.items() if rows.any())
