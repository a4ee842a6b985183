"""Train and score all models on one fold of a cross-validation."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from ..inputs.tensors import Inputs
from ..models.baselines.baselines import (
    BASELINES,
    COMPARED,
    POTENTIAL,
    compute_baseline_features,
    make_baseline,
)
from ..models.baselines.chgnet import CHGNET_NOTE, find_chgnet_version
from ..models.blocks import BlockReader
from ..models.gaussian_process.fitting import fit_descriptors
from ..models.gaussian_process.recipe import (
    DESCRIPTOR_RECIPES,
    POTENTIAL_RECIPES,
    DescriptorRecipe,
    descriptor_recipe,
)
from ..models.inputs import collect_texts, find_prototypes, make_inputs
from ..networks.recipe import FINE_TUNING, Recipe
from ..storage import replacing
from ..training.folds import prepare_fold
from ..training.stages import EncoderCache, StageResult, train

if TYPE_CHECKING:
    from ..models.encoder_tuning import EncoderTuner

logger = logging.getLogger(__name__)

CUSTOM = "custom"
"""Name of a descriptor recipe that has none."""


def name_recipe(recipe: DescriptorRecipe) -> str:
    """Return the name of a recipe without encoders, ``custom`` if it has none."""
    known = (*DESCRIPTOR_RECIPES, *POTENTIAL_RECIPES)
    return next((n for n in known if descriptor_recipe(n).kernels == recipe.kernels), CUSTOM)


class SharedData:
    """Data that all folds share, computed when a fold first needs them."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe | DescriptorRecipe, progress: AnyProgress | None
    ):
        self.dataset, self.recipe, self.progress = dataset, recipe, progress
        self.targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        self.cache = EncoderCache()
        self._inputs: Inputs | None = None

    @property
    def inputs(self) -> Inputs:
        """Inputs of the networks."""
        assert isinstance(self.recipe, Recipe), "only networks read tensors"
        if self._inputs is None:
            self._inputs = make_inputs(
                self.dataset,
                self.recipe,
                progress=self.progress,
                texts=self.texts,
                # a prototype that a fold's training set lacks is constant there and ignored
                prototypes=find_prototypes(self.dataset, self.recipe),
            )
        return self._inputs

    @cached_property
    def texts(self) -> list[str] | None:
        """Descriptions in the order of the dataset; each takes seconds to generate."""
        if isinstance(self.recipe, Recipe):
            extent = self.recipe.text.extent if self.recipe.uses_text else None
        else:
            extent = self.recipe.text.extents[0] if self.recipe.text else None
        return None if extent is None else collect_texts(self.dataset, extent)

    @cached_property
    def descriptor_recipes(self) -> dict[str, DescriptorRecipe]:
        """`best`, `no-dft`, and the recipe of this run if it reads descriptors only."""
        changes = {"targets": self.recipe.targets, "seed": self.recipe.seed}
        recipes = {name: descriptor_recipe(name, **changes) for name in DESCRIPTOR_RECIPES}
        if missing := int((~self.dataset.has_density).sum()):
            left_out = [name for name, recipe in recipes.items() if recipe.uses_density]
            recipes = {name: one for name, one in recipes.items() if name not in left_out}
            logger.warning(
                "%s is omitted: %d of %d materials have no charge density",
                " and ".join(left_out),
                missing,
                len(self.dataset),
            )
        if isinstance(self.recipe, DescriptorRecipe) and not self.recipe.uses_encoders:
            recipes.setdefault(name_recipe(self.recipe), self.recipe)
        return recipes

    @cached_property
    def encoder_recipes(self) -> dict[str, DescriptorRecipe]:
        """The recipe of this run if it reads encoders, after each of its encoders alone."""
        if not isinstance(self.recipe, DescriptorRecipe) or not self.recipe.uses_encoders:
            return {}
        return {recipe.label: recipe for recipe in self.recipe.list_parts()}

    @cached_property
    def features(self) -> pd.DataFrame:
        """All blocks of the encoder recipes."""
        assert isinstance(self.recipe, DescriptorRecipe)
        if self.descriptors is not None:
            return self.descriptors
        return BlockReader(self.recipe).table(self.dataset, self.progress)

    @cached_property
    def tuner(self) -> EncoderTuner | None:
        """Fine-tune the recipe's encoders on a fold's training set, if it asks for it."""
        recipe = self.recipe
        if isinstance(recipe, Recipe) or recipe.fine_tuning is None:
            return None
        from ..models.encoder_tuning import EncoderTuner  # loads PyTorch

        return EncoderTuner(recipe, self.dataset, self.features, self.progress)

    @cached_property
    def descriptors(self) -> pd.DataFrame | None:
        """Blocks of the descriptor recipes; None if the dataset lacks data for them.

        Those of the encoder recipes are read with them, in one pass over the crystals.
        """
        kernels = [k for recipe in self.descriptor_recipes.values() for k in recipe.kernels]
        together = DescriptorRecipe(kernels=kernels)
        if self.encoder_recipes and isinstance(self.recipe, DescriptorRecipe):
            together = self.recipe.model_copy(update={"kernels": (*self.recipe.kernels, *kernels)})
        try:
            return BlockReader(together).table(self.dataset, self.progress)
        except RhosightError as error:
            logger.warning("%s are omitted: %s", " and ".join(self.descriptor_recipes), error)
            if not isinstance(self.recipe, DescriptorRecipe) or self.recipe.uses_encoders:
                return None
        # the requested recipe may still be possible
        self.descriptor_recipes = {
            name: recipe
            for name, recipe in self.descriptor_recipes.items()
            if recipe.kernels == self.recipe.kernels
        }
        return BlockReader(self.recipe).table(self.dataset, self.progress)

    @cached_property
    def baselines(self) -> dict[str, pd.DataFrame]:
        """Features of the baselines that the dataset allows; CHGNet's if it is installed."""
        names: tuple[str, ...] = BASELINES
        if find_chgnet_version() is None:
            missing = " and ".join(COMPARED)
            logger.info("%s are omitted; install them with pip install 'rhosight[chgnet]'", missing)
        else:
            logger.info("%s", CHGNET_NOTE)
            names = (*BASELINES, *COMPARED)
        features = {}
        for name in names:
            if self.progress:
                self.progress(f"features of baseline {name}", 0, 1)
            try:
                features[name] = compute_baseline_features(name, self.dataset)
            except RhosightError as error:
                logger.warning("baseline %s is omitted: %s", name, error)
        return features


Record: TypeAlias = Callable[[str, str, Callable[[np.ndarray], np.ndarray]], None]
"""Takes model, stage, and a function that predicts rows."""


def run_fold(
    number: int, rows: dict[str, np.ndarray], shared: SharedData, folder: Path | None, count: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return predictions and history of one fold, or load them if it is finished."""
    fold_dir = folder / f"fold-{number}" if folder else None
    if fold_dir and (fold_dir / "history.parquet").exists():
        logger.info("fold %d of %d: already finished", number + 1, count)
        predictions_file, history_file = (
            fold_dir / name for name in ("predictions.parquet", "history.parquet")
        )
        return pd.read_parquet(predictions_file), pd.read_parquet(history_file)
    recipe, dataset = shared.recipe, shared.dataset
    started = time.monotonic()
    predictions: list[pd.DataFrame] = []
    history = pd.DataFrame(columns=["model", "stage", "fold", "epoch"])

    def record(model: str, stage: str, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        for part, where in rows.items():
            values = predict(where)
            for column, target in enumerate(recipe.targets):
                true = shared.targets[where, column]
                frame = pd.DataFrame(
                    {
                        "model": model,
                        "stage": stage,
                        "fold": number,
                        "part": part,
                        "target": target,
                        "material_id": [dataset.ids[i] for i in where],
                        "true": true,
                        "predicted": np.asarray(values, dtype=float)[:, column],
                    }
                )
                predictions.append(frame[frame[["true", "predicted"]].notna().all(axis=1)])

    for name, features in shared.baselines.items():
        labels = pd.DataFrame(shared.targets, columns=list(recipe.targets))
        fitted = fit_baseline(name, features, labels, rows["train"], recipe.seed)
        record(name, "", fitted)

    if shared.descriptors is not None:
        for name, own in shared.descriptor_recipes.items():
            fitted = fit_descriptors(own, shared.descriptors, shared.targets, rows["train"])
            record(name, "", fitted)

    _read_encoders(number, rows, shared, count, record)
    if isinstance(recipe, Recipe):
        history = _train_networks(number, rows, shared, fold_dir, count, record)
    logger.info("fold %d of %d: %.0f s", number + 1, count, time.monotonic() - started)
    result = pd.concat(predictions, ignore_index=True), history
    if fold_dir:
        _write_fold(fold_dir, result)
    return result


def _read_encoders(
    number: int, rows: dict[str, np.ndarray], shared: SharedData, count: int, record: Record
) -> None:
    """Score the Gaussian processes that read encoders, frozen and fine-tuned."""
    for name, own in shared.encoder_recipes.items():
        if shared.progress:
            shared.progress(f"fold {number + 1} of {count}: Gaussian process of {name}", 0, 1)
        record(name, "", fit_descriptors(own, shared.features, shared.targets, rows["train"]))
    if shared.tuner:
        tuned = shared.tuner.tune(rows["train"])
        for name, own in shared.encoder_recipes.items():
            choice = tuned.choose(own)
            table = choice.table(np.concatenate(list(rows.values())))
            fitted = fit_descriptors(own, table, shared.targets, rows["train"])
            record(name, FINE_TUNING, fitted)
            for verdict in choice.verdicts:
                logger.info("fold %d of %d: %s: %s", number + 1, count, name, verdict)


def _write_fold(folder: Path, result: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Write predictions and history of a finished fold, and remove its weights."""
    folder.mkdir(exist_ok=True)
    names = ("predictions.parquet", "history.parquet")
    # the history comes last: it marks the fold as finished
    for frame, name in zip(result, names, strict=True):
        with replacing(folder / name) as draft:
            frame.to_parquet(draft)
    for stage in folder.iterdir():  # weights of a scored fold are not needed
        if stage.is_dir():
            shutil.rmtree(stage)


def _train_networks(
    number: int,
    rows: dict[str, np.ndarray],
    shared: SharedData,
    fold_dir: Path | None,
    count: int,
    record: Record,
) -> pd.DataFrame:
    """Train the networks of a fold, record predictions, and return the history."""
    recipe, dataset = shared.recipe, shared.dataset
    assert isinstance(recipe, Recipe), "only networks are trained in stages"
    history = []

    def on_stage(result: StageResult) -> None:
        record(result.modality, result.stage, result.predict)
        frame = pd.DataFrame(result.history)
        frame.insert(0, "model", result.modality)
        frame.insert(1, "stage", result.stage)
        frame.insert(2, "fold", number)
        history.append(frame)
        logger.info(
            "fold %d of %d: %s, %s: %d epochs",
            number + 1,
            count,
            result.modality,
            result.stage,
            len(result.history),
        )

    def label(text: str, *values: Any) -> None:
        assert shared.progress is not None
        shared.progress(f"fold {number + 1} of {count}: {text}", *values)

    data = prepare_fold(recipe, dataset, shared.inputs, rows["train"], rows["validation"])
    shown = label if shared.progress else None
    train(recipe, data, shared.cache, fold_dir, on_stage, shown)
    return pd.concat(history, ignore_index=True)


def fit_baseline(
    name: str,
    features: pd.DataFrame,
    targets: pd.DataFrame | np.ndarray,
    rows: np.ndarray,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Fit one baseline for each target on the available labels.

    Parameters
    ----------
    name
        Name of the baseline.
    features
        Table of :func:`rhosight.models.baselines.baselines.compute_baseline_features`.
    targets
        Labels, shape (n, targets); the names of the columns are those of the targets.
    rows
        Rows of the training set.
    seed
        Seed of the baseline.

    Returns
    -------
    Rows → predictions, shape (rows, targets), in the targets' units; NaN for all if the baseline
    has no such target.
    """
    labels = np.asarray(targets, dtype=float)
    if name == POTENTIAL:
        # a material without a value gets the mean of the training set, so that all are scored
        names = pd.DataFrame(targets).columns
        values = features.reindex(columns=names).to_numpy(dtype=float)
        guess = np.where(np.isnan(values).all(axis=0), np.nan, np.nanmean(labels[rows], axis=0))
        return np.where(np.isnan(values), guess, values).__getitem__
    models = []
    for column in range(labels.shape[1]):
        known = rows[~np.isnan(labels[rows, column])]
        model = make_baseline(name, seed)
        models.append(model.fit(features.iloc[known], labels[known, column]))

    # at once: each call of a forest costs as much as hundreds of rows
    predictions = np.column_stack([model.predict(features) for model in models])
    return predictions.__getitem__
