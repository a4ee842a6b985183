"""How a sweep scores a recipe: by folds of the training part, here or on a worker."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pandas as pd

from ...dataset.dataset import Dataset
from ...inputs.descriptors.blocks import to_blocks
from ...inputs.progress import AnyProgress
from ...inputs.tensors import Inputs
from ...metrics import rmse
from ...models.descriptor_model import committee_of, descriptor_table
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.inputs import inputs_key, known_prototypes, make_inputs
from ...networks.recipe import Recipe
from ...training.folds import inner_split, scaler_of
from ...training.stages import StageResult, train

_ONE_AT_A_TIME = threading.Lock()
"""Training draws from the process's generator of random numbers."""


class InnerFolds:
    """Folds of the training part, and what their trials share.

    Inputs are made again only for a recipe that reads other ones than the recipe before. Pickled,
    for a worker, it has made nothing yet.

    Parameters
    ----------
    dataset
        The materials.
    parts
        (train, validation) positions for each fold; no other materials are looked at.
    """

    def __init__(self, dataset: Dataset, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        used = np.unique(np.concatenate([rows for part in parts for rows in part]))
        self.dataset = dataset[used]
        self.parts = [
            (np.searchsorted(used, train), np.searchsorted(used, validation))
            for train, validation in parts
        ]
        self._forget()

    def __len__(self) -> int:
        return len(self.parts)

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
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
        """Train on one fold's training part and score the final model on its validation part.

        Returns
        -------
        Target → RMSE in standard deviations of the fold's training labels.

        Raises
        ------
        RhosightError
            If a material lacks what the recipe reads; :class:`rhosight.training.loop.Diverged` if training
            has no finite loss.
        """
        learn, ask = self.parts[number]
        labels = self.dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        scaler = scaler_of(labels[learn])
        with _ONE_AT_A_TIME:
            if isinstance(recipe, DescriptorRecipe):
                predicted = self._descriptors(recipe, labels, learn, ask, progress)
            else:
                predicted = self._network(recipe, labels, learn, ask, scaler, progress)
        known = ~np.isnan(labels[ask])
        return {
            target: rmse(labels[ask][known[:, i], i], predicted[known[:, i], i]) / scaler[1][i]
            for i, target in enumerate(recipe.targets)
        }

    def _descriptors(
        self,
        recipe: DescriptorRecipe,
        labels: np.ndarray,
        learn: np.ndarray,
        ask: np.ndarray,
        progress: AnyProgress | None,
    ) -> np.ndarray:
        if self._table is None or not self._blocks.issuperset(recipe.blocks):
            self._table = descriptor_table(self.dataset.densities, recipe, progress)
            self._blocks = set(recipe.blocks)
        prototypes = sorted(set(self._table["prototype"].iloc[learn]))
        known, new = (to_blocks(self._table.iloc[rows], prototypes) for rows in (learn, ask))
        return committee_of(recipe).fit(known, labels[learn]).predict(new)

    def _network(
        self,
        recipe: Recipe,
        labels: np.ndarray,
        learn: np.ndarray,
        ask: np.ndarray,
        scaler: tuple[np.ndarray, np.ndarray],
        progress: AnyProgress | None,
    ) -> np.ndarray:
        key = inputs_key(recipe)
        if key != self._key:
            prototypes = known_prototypes(self.dataset, recipe)
            self._inputs = make_inputs(
                self.dataset, recipe, progress=progress, prototypes=prototypes
            )
            self._key = key
        recipe.require_training()
        fit_rows, stop_rows = learn, ask  # the paper's way: optimistic
        if recipe.training.early_stopping == "inner":
            fit, stop = inner_split(self.dataset[learn], recipe)
            fit_rows, stop_rows = learn[fit], learn[stop]
        stages: list[StageResult] = []
        train(
            recipe,
            self._inputs,
            labels,
            fit_rows,
            stop_rows,
            scaler,
            on_stage=stages.append,
            progress=progress,
            formulas=self.dataset.table["formula"].to_list(),
        )
        return stages[-1].predict(ask)
