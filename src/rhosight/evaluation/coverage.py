"""Measure how often prediction intervals contain the true value."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import RhosightError
from ..models.uncertainty import ConformalIntervals


def nested_intervals(
    predictions: pd.DataFrame, level: float = 0.9, normalised: bool = False
) -> pd.DataFrame:
    """Add prediction intervals to out-of-fold predictions.

    The intervals of a fold are calibrated on the residuals of the other folds of the same repeat.
    No interval is therefore calibrated on the label that it should contain.

    Parameters
    ----------
    predictions
        With :data:`rhosight.evaluation.statistics.PREDICTION_COLUMNS`; with ``normalised`` also
        ``std``.
    level
        Between 0 and 1.
    normalised
        Scale the intervals with the model's own standard deviation.

    Returns
    -------
    The same rows with columns ``low`` and ``high``, in the target's unit.

    Raises
    ------
    RhosightError
        If ``normalised`` is set and a standard deviation is missing.
    """
    if normalised and ("std" not in predictions or predictions["std"].isna().any()):
        raise RhosightError("normalised intervals need a value of `std` for each prediction")
    result = predictions.reset_index(drop=True)
    result["low"] = result["high"] = np.nan
    for _, group in result.groupby(["model", "target", "repeat"], sort=False):
        for fold in group["fold"].unique():
            held, rest = group[group["fold"] == fold], group[group["fold"] != fold]
            stds = [part["std"].to_numpy() if normalised else None for part in (rest, held)]
            true, out_of_fold = rest["true"].to_numpy(), rest["predicted"].to_numpy()
            intervals = ConformalIntervals.fit(true, out_of_fold, stds[0], level)
            low, high = intervals(held["predicted"].to_numpy(), stds[1])
            result.loc[held.index, "low"], result.loc[held.index, "high"] = low, high
    return result


def coverage_table(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return coverage and width of intervals, pooled over folds and repeats.

    Parameters
    ----------
    intervals
        Table returned by :func:`nested_intervals`.

    Returns
    -------
    DataFrame indexed by (target, model): ``coverage``, the fraction of true values inside, between
    0 and 1; ``width`` and ``width_median``, high − low in the target's unit; ``n``, the number of
    intervals.
    """
    inside = intervals["true"].between(intervals["low"], intervals["high"])
    width = intervals["high"] - intervals["low"]
    groups = intervals.assign(inside=inside, width=width).groupby(["target", "model"], sort=False)
    return pd.DataFrame(
        {
            "coverage": groups["inside"].mean(),
            "width": groups["width"].mean(),
            "width_median": groups["width"].median(),
            "n": groups.size(),
        }
    )
