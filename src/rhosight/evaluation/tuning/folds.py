"""Score a recipe on folds of the training set, in this process or on a worker."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd

from ...dataset.dataset import Dataset
from ...inputs.progress import AnyProgress
from ...inputs.tensors import Inputs
from ...metrics import rmse
from ...models.blocks import BlockReader
from ...models.gaussian_process.fitting import fit_descriptors
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.inputs import find_prototypes, inputs_key, make_inputs
from ...networks.recipe import Recipe
from ...training.folds import fit_scaler, prepare_fold
from ...training.stages import StageResult, train

_ONE_AT_A_TIME = threading.Lock()
"""Held during training, which draws from the random generator of the process."""


class InnerFolds:
    """Folds of the training set and the data that their trials share.

    Inputs are computed again only if a recipe reads other inputs than the previous one. They are
    not pickled for a worker.

    Parameters
    ----------
    dataset
        The materials.
    parts
        (train, validation) positions for each fold; other materials are not used.
    """

    def __init__(self, dataset: Dataset, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        used = np.unique(np.concatenate([rows for part in parts for rows in part]))
        self.dataset = dataset[used]
        self.parts = [
            (np.searchsorted(used, train), np.searchsorted(used, validation))
            for train, validation in parts
        ]
        self._clear()

    def __len__(self) -> int:
        return len(self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def _clear(self) -> None:
        """Drop computed inputs."""
        self._key: str = ""
        self._inputs: Inputs | None = None
        self._table: pd.DataFrame | None = None
        self._blocks: set[str] = set()

    def score(
        self,
        recipe: Recipe | DescriptorRecipe,
        number: int,
        progress: AnyProgress | None = None,
    ) -> dict[str, float]:
        """Train on the training set of a fold and score the validation set.

        Returns
        -------
        Target → RMSE in standard deviations of the fold's training labels.

        Raises
        ------
        RhosightError
            If a material lacks data that the recipe reads.
        Diverged
            If training has no finite loss; see :class:`rhosight.training.loop.Diverged`.
        """
        rows, validation = self.parts[number]
        labels = self.dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        scaler = fit_scaler(labels[rows])
        with _ONE_AT_A_TIME:
            if isinstance(recipe, DescriptorRecipe):
                predicted = self._predict_with_descriptors(
                    recipe, labels, rows, validation, progress
                )
            else:
                predicted = self._predict_with_network(recipe, rows, validation, progress)
        known = ~np.isnan(labels[validation])
        return {
            target: rmse(labels[validation][known[:, i], i], predicted[known[:, i], i])
            / scaler[1][i]
            for i, target in enumerate(recipe.targets)
        }

    def _predict_with_descriptors(
        self,
        recipe: DescriptorRecipe,
        labels: np.ndarray,
        rows: np.ndarray,
        validation: np.ndarray,
        progress: AnyProgress | None,
    ) -> np.ndarray:
        """Return the predictions of Gaussian processes for the validation set."""
        encoders = str((recipe.image, recipe.text, recipe.clip))
        is_complete = encoders == self._key and self._blocks.issuperset(recipe.blocks)
        if self._table is None or not is_complete:
            self._table = BlockReader(recipe).table(self.dataset, progress)
            self._blocks, self._key = set(recipe.blocks), encoders
        table = self._table
        if recipe.fine_tuning:
            from ...models.encoder_tuning import EncoderTuner  # loads PyTorch

            tuner = EncoderTuner(recipe, self.dataset, table, progress)
            table = tuner.tune(rows).choose(recipe).table(np.concatenate([rows, validation]))
        return fit_descriptors(recipe, table, labels, rows)(validation)

    def _predict_with_network(
        self,
        recipe: Recipe,
        rows: np.ndarray,
        validation: np.ndarray,
        progress: AnyProgress | None,
    ) -> np.ndarray:
        """Return the predictions of a network for the validation set."""
        key = inputs_key(recipe)
        if key != self._key:
            prototypes = find_prototypes(self.dataset, recipe)
            self._inputs = make_inputs(
                self.dataset, recipe, progress=progress, prototypes=prototypes
            )
            self._key = key
        recipe.require_training()
        assert self._inputs is not None
        stages: list[StageResult] = []
        data = prepare_fold(recipe, self.dataset, self._inputs, rows, validation)
        train(recipe, data, on_stage=stages.append, progress=progress)
        return stages[-1].predict(validation)
