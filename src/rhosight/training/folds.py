"""Prepare the training of one fold, in the same way for every experiment."""

from __future__ import annotations

import numpy as np

from ..dataset.dataset import Dataset
from ..dataset.splits import split
from ..inputs.tensors import Inputs
from ..networks.recipe import Recipe
from .stages import TrainingData


def inner_split(dataset: Dataset, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to learn from and rows to watch for early stopping.

    Materials of one formula are in one of the two.
    """
    return split(dataset, test_fraction=recipe.training.inner_fraction, seed=recipe.seed)


def fit_scaler(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each column, without missing labels.

    The standard deviation of a constant column is 1.
    """
    std = np.nanstd(targets, axis=0)
    return np.nanmean(targets, axis=0), np.where(std > 0, std, 1.0)


def prepare_fold(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    rows: np.ndarray,
    validation: np.ndarray | None = None,
    scored: np.ndarray | None = None,
) -> TrainingData:
    """Return the data of :func:`rhosight.training.stages.train` for one fold.

    Parameters
    ----------
    recipe
        Its targets, and its settings of early stopping.
    dataset, inputs
        All materials, and what the network reads of them.
    rows
        The training set. The labels of no other materials set the scaler.
    validation
        The validation set. It is watched for early stopping if the recipe says so, as in the paper:
        scores on it are then optimistic. Otherwise, and without it, an inner split of the training
        set is watched.
    scored
        Rows that are scored after every epoch.
    """
    targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
    if validation is None or not recipe.watches_validation:
        fit, stop = inner_split(dataset[rows], recipe)
        fit_rows, stop_rows = rows[fit], rows[stop]
    else:
        fit_rows, stop_rows = rows, validation
    return TrainingData(
        inputs,
        targets,
        fit_rows,
        stop_rows,
        fit_scaler(targets[rows]),
        formulas=dataset.table["formula"].to_list(),
        scored_rows=scored,
    )
