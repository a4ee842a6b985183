"""Fit the Gaussian processes of a recipe; predict materials left out of a fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import pandas as pd

from ...inputs.descriptors.blocks import SPARSE, to_blocks
from ...inputs.progress import Progress
from .committee import Committee
from .posterior import LARGEST_SET
from .process import GaussianProcess
from .recipe import ENCODERS, POTENTIAL_BLOCKS, DescriptorRecipe

LINEAR = (*SPARSE, *POTENTIAL_BLOCKS)
"""Blocks that are scaled without arcsinh: sparse ones, and a potential's values, on which targets
depend almost linearly."""

FEWEST, RARE_SHARE = 3, 0.1
"""Materials that a structure type needs in a large set, and the share of materials that are alone
in their type from which types count as recurring no longer."""


def make_committee(recipe: DescriptorRecipe, blocks: Collection[str]) -> Committee:
    """Return the unfitted Gaussian processes of a recipe.

    Parameters
    ----------
    recipe
        The settings.
    blocks
        Names of all blocks, among which are those of the encoders.
    """
    kernels = [kernel.expand(ENCODERS, blocks) for kernel in recipe.kernels]
    return Committee([GaussianProcess(k.terms, linear=LINEAR, seed=recipe.seed) for k in kernels])


def select_types(labels: pd.Series) -> tuple[list[str], bool]:
    """Return the structure types of a training set, and whether types recur.

    In a set of crystals of any symmetry, most types are those of one or two materials: they teach
    nothing, and a new crystal of an unknown type is nothing special.
    """
    counts = labels.value_counts()
    recurring = len(labels) <= LARGEST_SET or (counts == 1).sum() < RARE_SHARE * len(labels)
    kept = counts.index if recurring else counts.index[counts >= FEWEST]
    return sorted(map(str, kept)), bool(recurring)


def predict_left_out(
    recipe: DescriptorRecipe,
    process: Committee,
    blocks: dict[str, pd.DataFrame],
    labels: np.ndarray,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    groups: np.ndarray,
    progress: Progress | None,
    read_fold: Callable[[np.ndarray], pd.DataFrame] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict each training material without its label and those of its group.

    Up to :data:`LARGEST_SET` materials by models of folds. More would take long: they are left out
    of the fitted process, whose few hyperparameters have seen all labels.

    Parameters
    ----------
    recipe, process
        The settings, and the process that was fitted to all materials.
    blocks, labels
        What it was fitted to; labels of shape (n, targets).
    parts
        Training set and rest of each fold.
    groups
        Group of each material, shape (n,).
    progress
        Called with (label, fold, folds).
    read_fold
        Training set of a fold → table of all n materials, if blocks depend on labels.

    Returns
    -------
    Mean and standard deviation, (n, targets), and for each target the factor by which standard
    deviations are smaller if the model learned from all materials.
    """
    if len(labels) > LARGEST_SET and read_fold is None:
        mean, std = process.leave_out(np.unique(groups, return_inverse=True)[1])
        return mean, std, np.ones(labels.shape[1])
    mean, std = np.full(labels.shape, np.nan), np.full(labels.shape, np.nan)
    for number, (train, rest) in enumerate(parts, start=1):
        if read_fold:
            blocks = to_blocks(read_fold(train), [str(name) for name in blocks["prototype"]])
        own = make_committee(recipe, blocks)
        own.fit(_rows(blocks, train), labels[train])
        mean[rest], std[rest] = own.predict_with_std(_rows(blocks, rest))
        if progress:
            progress("folds for the intervals", number, len(parts))
    # The models of the folds learned from a fifth less and have larger std: their quantile of
    # |error| / std is too small for the std of a model that learned from all.
    less_sure = np.nanmedian(std / process.leave_out()[1], axis=0)
    return mean, std, np.maximum(less_sure, 1)


def fit_descriptors(
    recipe: DescriptorRecipe, table: pd.DataFrame, targets: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit the Gaussian processes of a descriptor recipe on some rows of its table.

    Returns rows → predictions, shape (rows, targets), in the targets' units.
    """
    prototypes = sorted(set(table["prototype"].iloc[rows]))
    blocks = to_blocks(table.iloc[rows], prototypes)
    scales = recipe.target_scales
    process = make_committee(recipe, blocks).fit(blocks, scales.learn(targets[rows]))

    def predict(where: np.ndarray) -> np.ndarray:
        values = process.predict_with_std(to_blocks(table.iloc[where], prototypes))[0]
        return scales.restore(values)

    return predict


def _rows(blocks: dict[str, pd.DataFrame], rows: np.ndarray) -> dict[str, pd.DataFrame]:
    return {name: block.iloc[rows] for name, block in blocks.items()}
