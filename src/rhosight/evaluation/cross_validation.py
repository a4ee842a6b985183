"""Cross-validation as the paper does it, with the baselines on the same folds in the same table.

85 % of the materials are divided into folds, 15 % are a test part that no fold sees (paper section
3). Every model is scored after its head stage and after fine-tuning, on the training, validation
and test part of each fold.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from ..dataset.dataset import Dataset
from ..dataset.splits import check_labels, folds, split
from ..errors import RhosightError
from ..inputs.descriptors.blocks import to_blocks
from ..inputs.progress import AnyProgress
from ..inputs.tensors import Inputs
from ..metrics import r2_score, rmse
from ..models.baselines.baselines import BASELINES, PRETRAINED, baseline_features, make_baseline
from ..models.baselines.chgnet import CHGNET_NOTE, chgnet_version
from ..models.descriptor_model import committee_of, descriptor_table
from ..models.gaussian_process.recipe import DESCRIPTOR_RECIPES, DescriptorRecipe, descriptor_recipe
from ..models.inputs import known_prototypes, make_inputs, texts_of
from ..models.provenance import local_weights, versions
from ..networks.recipe import MODALITIES, PARTS, Recipe
from ..storage import open_run, replacing
from ..training.contrastive import pretrained_ids
from ..training.folds import inner_split, scaler_of
from ..training.stages import StageResult, train

logger = logging.getLogger(__name__)

CUSTOM = "custom"
"""The row of a descriptor recipe that is neither `best` nor `no-dft`."""


@dataclass
class CrossValidation:
    """The outcome of :func:`cross_validate`.

    Attributes
    ----------
    predictions
        One row a prediction: model, stage, fold, part, target, material_id, true, predicted, in
        the target's unit. Baselines and descriptor recipes have an empty stage.
    history
        One row an epoch: model, stage, fold, epoch, train, watched (Huber losses of standardised
        targets).
    settings
        Recipe, split, dataset and versions: all that it takes to run this again.
    texts
        Material id → the text that the models read (empty without text).
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    settings: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> pd.DataFrame:
        """R² and RMSE (target's unit) of every model, stage, fold, part and target."""
        keys = ["model", "stage", "target", "part", "fold"]
        groups = self.predictions.groupby(keys, sort=False)[["true", "predicted"]]
        return groups.apply(_scores).reset_index()

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over folds, in the form of the paper's Figure 2.

        Rows: (target, model, stage). Columns: (part, score), with scores ``r2``, ``r2_std``,
        ``rmse``, ``rmse_std``. With one fold the deviations are NaN.
        """
        keys = ["target", "model", "stage", "part"]
        groups = self.scores.groupby(keys, sort=False)[["r2", "rmse"]]
        table = groups.mean().join(groups.std(ddof=1).add_suffix("_std"))
        table = table.unstack("part").swaplevel(axis=1)
        order = [(p, s) for p in PARTS for s in ("r2", "r2_std", "rmse", "rmse_std")]
        rows = self.scores[["target", "model", "stage"]].drop_duplicates()
        names = [*BASELINES, *PRETRAINED, *DESCRIPTOR_RECIPES, CUSTOM, *MODALITIES]
        rows = rows.sort_values(
            by=["target", "model"],
            key=lambda column: column.map(
                {n: i for i, n in enumerate(names if column.name == "model" else self.targets)}
            ),
            kind="stable",
        )
        return table.reindex(columns=order).loc[list(rows.itertuples(index=False, name=None))]

    @property
    def targets(self) -> list[str]:
        """Targets in the recipe's order."""
        return list(self.settings["recipe"]["targets"])

    @property
    def final(self) -> tuple[str, str]:
        """Model and stage that the recipe is about: its last network, or its descriptor recipe."""
        own = self.settings["recipe"]
        if "kernels" in own:
            kernels = DescriptorRecipe(**own).kernels
            named = (n for n in DESCRIPTOR_RECIPES if descriptor_recipe(n).kernels == kernels)
            return next(named, CUSTOM), ""
        rows = self.predictions.loc[self.predictions["stage"] != "", ["model", "stage"]]
        return tuple(rows.iloc[-1])

    def rmse(self, model: str, stage: str, part: str = "validation") -> dict[str, float]:
        """Mean RMSE over folds by target, in the target's unit."""
        table = self.summary()
        return {t: float(table.loc[(t, model, stage), (part, "rmse")]) for t in self.targets}


def cross_validate(
    dataset: Dataset,
    recipe: Recipe | DescriptorRecipe | None = None,
    run_dir: str | os.PathLike | None = None,
    n_splits: int = 5,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    groups: str = "formula",
    only_folds: int | None = None,
    progress: AnyProgress | None = None,
) -> CrossValidation:
    """Score a recipe, the descriptor recipes and the baselines on the same folds.

    Parameters
    ----------
    dataset
        Materials with the recipe's targets; those with none of them are left out.
    recipe
        The default recipe of networks if not given. A descriptor recipe trains no network, and has
        a row of its own, ``custom``, if it differs from ``best`` and ``no-dft``.
    run_dir
        Finished folds and stages are kept here; the same call with the same folder goes on where
        an interrupted one stopped, to the same result. A folder of another run is refused.
    n_splits, test_fraction, split_seed, groups
        See :func:`rhosight.dataset.split` and :func:`rhosight.dataset.folds`.
    only_folds
        Run only the first so many folds.
    progress
        Called with (label, step, steps, ...).

    Raises
    ------
    RhosightError
        For an unknown or empty target, materials that lack what the recipe reads, or a ``run_dir``
        that holds a run with other settings.
    """
    recipe = recipe or Recipe()
    if isinstance(recipe, Recipe):
        recipe.require_training()
    dataset = dataset.require_targets(recipe.targets, how="any")
    settings = {
        "recipe": recipe.flat(),
        "n_splits": n_splits,
        "test_fraction": test_fraction,
        "split_seed": split_seed,
        "groups": groups,
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
        "units": {target: dataset.units[target] for target in recipe.targets},
        "versions": versions(),
        "chgnet": chgnet_version(),
    }
    if isinstance(recipe, Recipe) and (weights := local_weights(recipe)):
        settings["weights"] = weights
    folder = open_run(run_dir, settings)
    train_part, test = split(dataset, test_fraction, split_seed, groups)
    parts = folds(dataset, n_splits, split_seed, groups, indices=train_part)[:only_folds]
    check_labels(dataset, recipe.targets, [rows for rows, _ in parts])

    scored = {dataset.ids[row] for row in [*test, *(row for _, rows in parts for row in rows)]}
    if isinstance(recipe, Recipe) and (seen := scored & pretrained_ids(recipe)):
        raise RhosightError(
            f"{recipe.pretraining.weights}: pre-trained on {len(seen)} materials that are scored "
            f"here, {min(seen)} for one; leave pretraining.weights out, and each fold pre-trains "
            "on its own training part"
        )
    shared = _Shared(dataset, recipe, progress)
    found = []
    for number, (train_rows, validation_rows) in enumerate(parts):
        rows = {"train": train_rows, "validation": validation_rows, "test": test}
        found.append(_fold(number, rows, shared, folder, len(parts)))
    return CrossValidation(
        predictions=pd.concat([f[0] for f in found], ignore_index=True),
        history=pd.concat([f[1] for f in found], ignore_index=True),
        settings=settings,
        texts=dict(zip(dataset.ids, shared.texts or (), strict=False)),
    )


def _scores(frame: pd.DataFrame) -> pd.Series:
    true, predicted = frame["true"].to_numpy(), frame["predicted"].to_numpy()
    return pd.Series(
        {"r2": r2_score(true, predicted), "rmse": rmse(true, predicted), "n": len(frame)}
    )


class _Shared:
    """What all folds have in common, made when a fold first needs it."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe | DescriptorRecipe, progress: AnyProgress | None
    ):
        self.dataset, self.recipe, self.progress = dataset, recipe, progress
        self.targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
        self.frozen: dict[str, Tensor] = {}
        self._inputs: Inputs | None = None

    @property
    def inputs(self) -> Inputs:
        if self._inputs is None:
            self._inputs = make_inputs(
                self.dataset,
                self.recipe,
                progress=self.progress,
                texts=self.texts,
                # those that a fold's training part lacks are constant there, and left out
                prototypes=known_prototypes(self.dataset, self.recipe),
            )
        return self._inputs

    @cached_property
    def texts(self) -> list[str] | None:
        """In the order of the dataset; describing structures takes seconds each."""
        reads = isinstance(self.recipe, Recipe) and self.recipe.uses_text
        return texts_of(self.dataset, self.recipe.text.extent) if reads else None

    @cached_property
    def descriptor_recipes(self) -> dict[str, DescriptorRecipe]:
        """`best` and `no-dft`, and the recipe of this run if it is another."""
        changes = {"targets": self.recipe.targets, "seed": self.recipe.seed}
        found = {name: descriptor_recipe(name, **changes) for name in DESCRIPTOR_RECIPES}
        known = [recipe.kernels for recipe in found.values()]
        if isinstance(self.recipe, DescriptorRecipe) and self.recipe.kernels not in known:
            found[CUSTOM] = self.recipe
        return found

    @cached_property
    def descriptors(self) -> pd.DataFrame | None:
        """What the descriptor recipes read; None where the dataset does not allow it."""
        kernels = [k for recipe in self.descriptor_recipes.values() for k in recipe.kernels]
        try:
            return descriptor_table(
                self.dataset.densities, DescriptorRecipe(kernels=kernels), self.progress
            )
        except RhosightError as error:
            logger.warning("%s are left out: %s", " and ".join(DESCRIPTOR_RECIPES), error)
            if not isinstance(self.recipe, DescriptorRecipe):
                return None
        # at least what was asked for
        self.descriptor_recipes = {
            name: recipe
            for name, recipe in self.descriptor_recipes.items()
            if recipe.kernels == self.recipe.kernels
        }
        return descriptor_table(self.dataset.densities, self.recipe, self.progress)

    @cached_property
    def baselines(self) -> dict[str, pd.DataFrame]:
        """Features of those of every table, and of CHGNet where it is installed; without those that
        the dataset does not allow.
        """
        names: tuple[str, ...] = BASELINES
        if chgnet_version() is None:
            missing = " and ".join(PRETRAINED)
            logger.info("%s are left out: pip install 'rhosight[chgnet]' to see them", missing)
        else:
            logger.info("%s", CHGNET_NOTE)
            names = (*BASELINES, *PRETRAINED)
        found = {}
        for name in names:
            if self.progress:
                self.progress(f"features of baseline {name}", 0, 1)
            try:
                found[name] = baseline_features(name, self.dataset.densities)
            except RhosightError as error:
                logger.warning("baseline %s is left out: %s", name, error)
        return found


def _fold(
    number: int, rows: dict[str, np.ndarray], shared: _Shared, folder: Path | None, count: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions and history of one fold; read from the run folder if they are there."""
    fold_dir = folder / f"fold-{number}" if folder else None
    if fold_dir and (fold_dir / "history.parquet").exists():
        logger.info("fold %d of %d: already there", number + 1, count)
        files = ("predictions.parquet", "history.parquet")
        return tuple(pd.read_parquet(fold_dir / name) for name in files)
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
                predictions.append(frame[frame["true"].notna()])

    for name, features in shared.baselines.items():
        fitted = fitted_baseline(name, features, shared.targets, rows["train"], recipe.seed)
        record(name, "", fitted)

    if shared.descriptors is not None:
        for name, own in shared.descriptor_recipes.items():
            fitted = fitted_descriptors(own, shared.descriptors, shared.targets, rows["train"])
            record(name, "", fitted)

    if isinstance(recipe, Recipe):
        history = _networks(number, rows, shared, fold_dir, count, record)
    logger.info("fold %d of %d: %.0f s", number + 1, count, time.monotonic() - started)
    result = pd.concat(predictions, ignore_index=True), history
    if fold_dir:
        fold_dir.mkdir(exist_ok=True)
        names = ("predictions.parquet", "history.parquet")
        for frame, name in zip(result, names, strict=True):  # history last: it marks the end
            with replacing(fold_dir / name) as draft:
                frame.to_parquet(draft)
        for stage in fold_dir.iterdir():  # weights of a scored fold are of no further use
            if stage.is_dir():
                shutil.rmtree(stage)
    return result


def _networks(
    number: int,
    rows: dict[str, np.ndarray],
    shared: _Shared,
    fold_dir: Path | None,
    count: int,
    record: Callable[[str, str, Callable[[np.ndarray], np.ndarray]], None],
) -> pd.DataFrame:
    """Train a fold's networks, ``record`` what each stage predicts, return their history."""
    recipe, dataset = shared.recipe, shared.dataset
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
        shared.progress(f"fold {number + 1} of {count}: {text}", *values)

    if recipe.training.early_stopping == "inner":
        fit, stop = inner_split(dataset[rows["train"]], recipe)
        fit_rows, stop_rows = rows["train"][fit], rows["train"][stop]
    else:  # the paper's way: optimistic on the validation part
        fit_rows, stop_rows = rows["train"], rows["validation"]
    train(
        recipe,
        shared.inputs,
        shared.targets,
        fit_rows,
        stop_rows,
        scaler_of(shared.targets[rows["train"]]),
        run_dir=fold_dir,
        on_stage=on_stage,
        frozen=shared.frozen,
        progress=label if shared.progress else None,
        formulas=dataset.table["formula"].to_list(),
    )
    return pd.concat(history, ignore_index=True)


def fitted_baseline(
    name: str, features: pd.DataFrame, targets: np.ndarray, rows: np.ndarray, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """One baseline for each target, fitted on the labels that are there.

    ``features`` are those of :func:`rhosight.models.baselines.baselines.baseline_features`, ``targets``
    is (n, targets); returns rows → predictions (rows, targets) in the targets' units.
    """
    models = []
    for column in range(targets.shape[1]):
        known = rows[~np.isnan(targets[rows, column])]
        model = make_baseline(name, seed)
        models.append(model.fit(features.iloc[known], targets[known, column]))

    def predict(where: np.ndarray) -> np.ndarray:
        return np.column_stack([model.predict(features.iloc[where]) for model in models])

    return predict


def fitted_descriptors(
    recipe: DescriptorRecipe, table: pd.DataFrame, targets: np.ndarray, rows: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The Gaussian processes of a descriptor recipe, fitted on some rows of its table; returns rows
    → predictions (rows, targets) in the targets' units.
    """
    prototypes = sorted(set(table["prototype"].iloc[rows]))
    process = committee_of(recipe)
    process.fit(to_blocks(table.iloc[rows], prototypes), targets[rows])

    def predict(where: np.ndarray) -> np.ndarray:
        return process.predict(to_blocks(table.iloc[where], prototypes))

    return predict
