"""Run a job: train networks or fit a baseline on a fold, and predict."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..dataset.dataset import Dataset
from ..dataset.splits import folds, split
from ..evaluation.folds import fit_baseline
from ..inputs.progress import AnyProgress
from ..inputs.tensors import Inputs
from ..models.baselines.baselines import compute_baseline_features
from ..models.baselines.potential import compute_potential_blocks
from ..models.blocks import BlockReader
from ..models.gaussian_process.fitting import fit_descriptors
from ..models.gaussian_process.recipe import DescriptorRecipe, descriptor_recipe
from ..models.inputs import find_prototypes, inputs_key, make_inputs
from ..networks.recipe import Recipe
from ..training.folds import prepare_fold
from ..training.stages import EncoderCache, StageResult, train
from .jobs import Job, Split
from .processes import PROCESSES, make_process_recipe

Predict = Callable[[np.ndarray], np.ndarray]


class Workbench:
    """Run jobs on one dataset; inputs that several jobs share are computed once.

    Parameters
    ----------
    dataset
        All materials of the experiment.
    targets
        Columns to predict.
    """

    def __init__(self, dataset: Dataset, targets: Sequence[str]):
        self.dataset, self.targets = dataset, list(targets)
        self._inputs: dict[str, Inputs] = {}
        self._caches: dict[str, EncoderCache] = {}
        self._features: dict[str, pd.DataFrame] = {}

    def run(
        self, job: Job, stages: Path, given: Sequence[Path], progress: AnyProgress | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return predictions and history of a job.

        See :class:`rhosight.experiments.jobs.Worker`.
        """
        rows = self.parts(job.split)
        try:
            if job.kind == "baseline":
                return self._baseline(job, rows, progress)
            return self._network(job, rows, stages, given, progress)
        finally:
            _release_memory()

    def parts(self, where: Split) -> dict[str, np.ndarray]:
        """Return the positions of the training, validation and test set."""
        train_part, test = split(self.dataset, where.test_fraction, where.repeat)
        parts = folds(self.dataset, where.n_splits, where.repeat, indices=train_part)
        train_rows, validation = parts[where.fold]
        return {"train": train_rows, "validation": validation, "test": test}

    def _network(
        self,
        job: Job,
        rows: dict[str, np.ndarray],
        stages: Path,
        given: Sequence[Path],
        progress: AnyProgress | None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        recipe = job.network
        for folder in given:
            for stage in folder.iterdir():
                if not (stages / stage.name).is_dir():
                    _copy_stage(stage, stages / stage.name)
        trained_before = {stage.name for folder in given for stage in folder.iterdir()}
        inputs, validation = self._inputs_of(recipe, progress), rows["validation"]
        data = prepare_fold(recipe, self.dataset, inputs, rows["train"], validation, validation)
        predictions, history = [], []

        def on_stage(result: StageResult) -> None:
            if f"{result.modality}-{result.stage}" in trained_before:
                return  # scored by the job that trained it
            keys = {"model": result.modality, "stage": result.stage}
            predictions.append(self._predictions(keys, rows, recipe.targets, result.predict))
            history.append(pd.DataFrame(keys | pd.DataFrame(result.history).to_dict("series")))

        train(recipe, data, self._cache_of(recipe), stages, on_stage, progress)
        nothing = pd.DataFrame()
        return (
            pd.concat(predictions, ignore_index=True) if predictions else nothing,
            pd.concat(history, ignore_index=True) if history else nothing,
        )

    def _baseline(
        self, job: Job, rows: dict[str, np.ndarray], progress: AnyProgress | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        name, labels = job.baseline, self._labels(self.targets)
        if name in PROCESSES:
            recipe = make_process_recipe(name, job.seed)
            table = self._features_of_encoders if recipe.uses_encoders else self._descriptors
            if recipe.uses_potential:
                table = pd.concat([table, self._potential], axis=1)
            predict = fit_descriptors(recipe, table, labels, rows["train"])
        else:
            if name not in self._features:
                if progress:
                    progress(f"features of baseline {name}", 0, 1)
                self._features[name] = compute_baseline_features(name, self.dataset)
            targets = self.dataset.targets[self.targets]
            predict = fit_baseline(name, self._features[name], targets, rows["train"], job.seed)
        keys = {"model": name, "stage": ""}
        return self._predictions(keys, rows, self.targets, predict), pd.DataFrame()

    def _predictions(
        self,
        keys: dict[str, str],
        rows: dict[str, np.ndarray],
        targets: Sequence[str],
        predict: Predict,
    ) -> pd.DataFrame:
        labels, ids = self._labels(targets), np.array(self.dataset.ids)
        frames = []
        for part, where in rows.items():
            values = np.asarray(predict(where), dtype=float)
            for column, target in enumerate(targets):
                frame = keys | {
                    "part": part,
                    "target": target,
                    "material_id": ids[where],
                    "true": labels[where, column],
                    "predicted": values[:, column],
                }
                frames.append(pd.DataFrame(frame))
        table = pd.concat(frames, ignore_index=True)
        known = table[["true", "predicted"]].notna().all(axis=1)
        return table[known].reset_index(drop=True)

    def _labels(self, targets: Sequence[str]) -> np.ndarray:
        return self.dataset.targets[list(targets)].to_numpy(dtype=float)

    @cached_property
    def _descriptors(self) -> pd.DataFrame:
        return BlockReader(DescriptorRecipe()).table(self.dataset)

    @cached_property
    def _potential(self) -> pd.DataFrame:
        return compute_potential_blocks(list(self.dataset.structures))

    @cached_property
    def _features_of_encoders(self) -> pd.DataFrame:
        return BlockReader(descriptor_recipe("image+text")).table(self.dataset)

    def _inputs_of(self, recipe: Recipe, progress: AnyProgress | None) -> Inputs:
        key = inputs_key(recipe)
        if key not in self._inputs:
            prototypes = find_prototypes(self.dataset, recipe)
            self._inputs[key] = make_inputs(
                self.dataset, recipe, progress=progress, prototypes=prototypes
            )
        return self._inputs[key]

    def _cache_of(self, recipe: Recipe) -> EncoderCache:
        """Return the cache of encoders for a recipe.

        Features that depend on no label may serve all folds. A pre-trained dual encoder has seen
        the training set of a fold, and serves only that fold.
        """
        if recipe.modality == "clip":
            return EncoderCache()
        learned = recipe.text.element_steps, recipe.seed * bool(recipe.text.element_steps)
        key = f"{inputs_key(recipe)} {recipe.image.backbone} {learned}"
        return self._caches.setdefault(key, EncoderCache())


def _release_memory() -> None:
    """Return freed memory to the system.

    Glibc keeps it: gigabytes after some jobs with texts of all lengths.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _copy_stage(source: Path, target: Path) -> None:
    """Copy a finished stage for another job, as hard links if possible."""

    def place(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    draft = target.with_name(f".{target.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, copy_function=place)
    os.replace(draft, target)
