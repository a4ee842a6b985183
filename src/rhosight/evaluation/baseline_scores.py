"""Score a baseline on the split of a single training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dataset.dataset import Dataset
from ..metrics import r2_score, rmse
from ..models.baselines.baselines import compute_baseline_features, make_baseline


def score_baseline(
    name: str, dataset: Dataset, train: np.ndarray, test: np.ndarray, targets: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Fit a baseline to a training set and score it on a test set.

    Parameters
    ----------
    name
        One of :data:`rhosight.models.baselines.baselines.ALL_BASELINES`.
    dataset
        Holds both sets.
    train, test
        Positions of the materials.
    targets
        Each gets a regressor of its own.

    Returns
    -------
    Target → ``r2``, and ``rmse`` in the target's unit; NaN without a label in the test set.
    """
    features = compute_baseline_features(name, dataset)
    scores = {}
    for target in targets:
        labels = dataset.targets[target].to_numpy(float)
        known, asked = (rows[~np.isnan(labels[rows])] for rows in (train, test))
        if not len(asked):
            scores[target] = {"r2": np.nan, "rmse": np.nan}
            continue
        regressor = make_baseline(name, seed=0).fit(features.iloc[known], labels[known])
        pair = labels[asked], np.asarray(regressor.predict(features.iloc[asked]))
        scores[target] = {"r2": r2_score(*pair), "rmse": rmse(*pair)}
    return scores
