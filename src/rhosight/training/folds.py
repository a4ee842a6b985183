"""Train a network on the rows of one fold."""

from __future__ import annotations

import numpy as np

from ..dataset.dataset import Dataset
from ..dataset.splits import split
from ..networks.recipe import Recipe


def inner_split(dataset: Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Rows to learn from and rows to watch for early stopping; a formula stays in one."""
    return split(dataset, test_fraction=recipe.training.inner_fraction, seed=recipe.seed)


def scaler_of(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, missing labels left out; a constant column is
    scaled by one.
    """
    std = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(std > 0, std, 1.0)
