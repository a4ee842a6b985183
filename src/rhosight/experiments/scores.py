"""From predictions of many runs to scores: one row a cell, with the paper's beside ours.

All functions read one long table of predictions, with columns :data:`COLUMNS`. ``extent`` is
empty for models that read no text, ``stage`` for baselines and descriptor models. Further columns,
such as ``trial``, keep apart what the paper does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..dataset.schema import TARGETS
from ..errors import RhosightError
from ..evaluation.statistics import fold_scores, repeat_deviations, score_table
from ..inputs.text.description import EXTENTS
from ..models.baselines.baselines import ALL_BASELINES
from ..models.gaussian_process.recipe import DESCRIPTOR_RECIPES
from ..networks.recipe import MODALITIES, PARTS, STAGES
from . import paper

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
"""Of predictions, in the target's unit."""

CELL: tuple[str, ...] = ("target", "extent", "model", "stage", "part")
"""What names a cell of the paper's tables and figures."""



def summary(
    predictions: pd.DataFrame, by: Sequence[str] = (), resamples: int = 1000
) -> pd.DataFrame:
    """Mean, standard deviation and bootstrap interval of each cell.

    Parameters
    ----------
    predictions
        With :data:`COLUMNS`.
    by
        Further columns that keep cells apart, such as ``trial``.
    resamples
        Of the bootstrap, see :func:`rhosight.evaluation.statistics.score_table`.

    Returns
    -------
    DataFrame with columns ``by``, :data:`CELL`, then ``r2``, ``r2_std``, ``r2_run_std``,
    ``r2_low``, ``r2_high`` and the same of ``rmse`` (target's unit): mean and standard deviation
    over all folds of all repeats; standard deviation of the repeats' means, which is how much a run
    of the whole protocol varies (NaN for one repeat); and the 95 % interval of the pooled score
    when materials are drawn with replacement. ``folds`` and ``repeats``, how many were scored, and
    ``n`` materials. In the order of appearance.

    Raises
    ------
    RhosightError
        If a column is missing.
    """
    predictions = checked(predictions, by)
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


def average(predictions: pd.DataFrame, resamples: int = 1000) -> pd.DataFrame:
    """R² averaged over targets (Figure 2 d), of the models that predict all of them.

    Parameters and columns are those of :func:`summary`; ``target`` is "average", and there is no
    RMSE: targets have units of their own.
    """
    predictions = checked(predictions)
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
        table.loc[number, ["r2_low", "r2_high"]] = _interval(
            wide["true"].to_numpy(), wide["squared"].to_numpy(), resamples
        )
        table.loc[number, "n"] = len(wide)
    return cells.assign(target="average").join(table.reindex(columns=_ORDER))


def _interval(true: np.ndarray, squared: np.ndarray, resamples: int) -> np.ndarray:
    """95 % interval of the mean R² of several targets; both of shape (materials, targets), NaN
    where a label is missing. Materials are drawn as :func:`rhosight.evaluation.statistics.score_table` does.
    """
    count = len(true)
    drawn = np.random.default_rng(0).integers(count, size=(resamples, count))
    # how often each material was drawn: sums over all draws are one product of matrices
    places = drawn + count * np.arange(resamples)[:, None]
    times = np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count)
    known = ~np.isnan(true)
    centred = np.where(known, true - np.nanmean(true, axis=0), 0.0)
    sums = (times @ part for part in (np.where(known, squared, 0.0), centred, centred**2))
    mse, mean, square = (total / (times @ known) for total in sums)
    r2 = 1 - mse / (square - mean**2)
    return np.nanpercentile(r2.mean(axis=1), [2.5, 97.5])


def beside_paper(table: pd.DataFrame, exhibit: str) -> pd.DataFrame:
    """Ours with the paper's figures in columns of their own.

    Parameters
    ----------
    table
        From :func:`summary`. If it has a column ``trial``, each row stands beside that trial of the
        paper, else Table 1's mean is taken.
    exhibit
        Whose figures: one of :data:`rhosight.experiments.paper.EXHIBITS`.

    Returns
    -------
    ``table`` with ``paper_r2``, ``paper_rmse`` and ``rmse_unit``; NaN where the paper has nothing,
    such as baselines. A model of ours that reads no text stands once for each extent of the paper,
    which trained it anew each time.
    """
    printed = paper.cells(exhibit).rename(columns={"r2": "paper_r2", "rmse": "paper_rmse"})
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
    found = table.merge(values, on=on, how="left", validate="many_to_one")
    return in_order(found.assign(rmse_unit=found["target"].map(units)))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as the paper has them: target, extent (none first), model, stage, part."""
    orders = {
        "target": list(TARGETS),
        "extent": ["", *EXTENTS],
        "model": [*ALL_BASELINES, *DESCRIPTOR_RECIPES, *MODALITIES],
        "stage": ["", *STAGES],
        "part": list(PARTS),
    }

    def rank(column: pd.Series) -> pd.Series:
        order = orders[column.name]
        # what has no place of its own, such as chgnet, follows the baselines
        middle = len(ALL_BASELINES) - 0.5 if column.name == "model" else len(order)
        return column.map({name: i for i, name in enumerate(order)}).fillna(middle)

    return table.sort_values(list(orders), key=rank, kind="stable", ignore_index=True)


def standardised(predictions: pd.DataFrame) -> pd.DataFrame:
    """True and predicted values in standard deviations of the fold's training labels.

    The unit of the errors in Tables 2 and 3 and Figures 6 and 7. Needs the training part.
    """
    keys = ["repeat", "fold", "target"]
    labels = predictions[predictions["part"] == "train"].drop_duplicates([*keys, "material_id"])
    groups = labels.groupby(keys)["true"]
    scale = pd.DataFrame({"mean": groups.mean(), "std": groups.std(ddof=0)})
    scale = predictions[keys].join(scale, on=keys)
    if scale["std"].isna().any():
        raise RhosightError("predictions: a fold lacks its training part; score that too")
    values = {
        name: (predictions[name] - scale["mean"]) / scale["std"] for name in ("true", "predicted")
    }
    return predictions.assign(**values)


def checked(predictions: pd.DataFrame, more: Sequence[str] = ()) -> pd.DataFrame:
    """The same, if all columns are there."""
    missing = [name for name in (*COLUMNS, *more) if name not in predictions]
    if missing:
        raise RhosightError(f"predictions lack the column(s) {', '.join(missing)}")
    return predictions


def row_name(model: str, extent: str, stage: str) -> str:
    """Such as "image+text (keywords), head stage"; fine-tuning goes without saying."""
    name = f"{model} ({extent})" if extent else model
    return f"{name}, head stage" if stage == "head" else name
