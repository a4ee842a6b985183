"""Cross-validate a recipe as in the paper, with baselines on the same folds.

85 % of the materials are divided into folds; the remaining 15 % are a test set that no fold uses
(paper section 3). Every model is scored after its head stage and after fine-tuning, on the
training, validation and test set of each fold.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..dataset.dataset import Dataset
from ..dataset.splits import Groups, check_labels, folds, split
from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from ..metrics import r2_score, rmse
from ..models.baselines.baselines import BASELINES, COMPARED
from ..models.baselines.chgnet import find_chgnet_version
from ..models.blocks import keep_describable
from ..models.gaussian_process.recipe import (
    DESCRIPTOR_RECIPES,
    POTENTIAL_RECIPES,
    DescriptorRecipe,
    descriptor_recipe,
)
from ..models.provenance import collect_versions, hash_weights
from ..networks.recipe import FINE_TUNING, MODALITIES, PARTS, Recipe
from ..storage import open_run
from ..training.contrastive import read_pretrained_ids
from .folds import CUSTOM, SharedData, name_recipe, run_fold


@dataclass
class CrossValidation:
    """Result of :func:`cross_validate`.

    Attributes
    ----------
    predictions
        One row for each prediction: model, stage, fold, part, target, material_id, true, predicted,
        in the target's unit. The stage is that of a network, ``fine-tuning`` for a Gaussian process
        whose encoders were fine-tuned, and empty for all others.
    history
        One row for each epoch: model, stage, fold, epoch, train, watched (Huber losses of
        standardised targets on the training set and on the set used for early stopping).
    settings
        Recipe, split, dataset and versions: everything needed to repeat the run.
    texts
        Material id → the text that the models read; empty for models without text.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    settings: dict[str, Any]
    texts: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        from .notebook import render_text

        return render_text(self)

    def _repr_html_(self) -> str:
        from .notebook import render_html

        return render_html(self)

    @property
    def scores(self) -> pd.DataFrame:
        """R² and RMSE (target's unit) of every model, stage, fold, part and target."""
        keys = ["model", "stage", "target", "part", "fold"]
        groups = self.predictions.groupby(keys, sort=False)[["true", "predicted"]]
        return groups.apply(_scores).reset_index()

    def summary(self) -> pd.DataFrame:
        """Return means and standard deviations over folds, as in the paper's Figure 2.

        Rows: (target, model, stage). Columns: (part, score) with scores ``r2``, ``r2_std``,
        ``rmse``, ``rmse_std``. For a single fold the deviations are NaN.
        """
        keys = ["target", "model", "stage", "part"]
        groups = self.scores.groupby(keys, sort=False)[["r2", "rmse"]]
        means = groups.mean().join(groups.std(ddof=1).add_suffix("_std"))
        table = means.unstack("part")
        assert isinstance(table, pd.DataFrame)
        table = table.swaplevel(axis=1)
        order = [(p, s) for p in PARTS for s in ("r2", "r2_std", "rmse", "rmse_std")]
        rows = self.scores[["target", "model", "stage"]].drop_duplicates()
        own = (*DESCRIPTOR_RECIPES, *POTENTIAL_RECIPES, CUSTOM)
        names = [*BASELINES, *COMPARED, *own, *MODALITIES]
        names += [name for name in self.predictions["model"].unique() if name not in names]
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
        """Model and stage of the recipe itself: its last network or its descriptor recipe."""
        own = self.settings["recipe"]
        if "kernels" in own:
            recipe = DescriptorRecipe(**own)
            if recipe.uses_encoders:
                return recipe.label, FINE_TUNING if recipe.fine_tuning else ""
            return name_recipe(recipe), ""
        rows = self.predictions.loc[self.predictions["stage"] != "", ["model", "stage"]]
        return tuple(rows.iloc[-1])

    def rmse(self, model: str, stage: str, part: str = "validation") -> dict[str, float]:
        """Return target → mean RMSE over folds, in the target's unit."""
        values = self.summary()[part, "rmse"]
        return {target: float(values[target, model, stage]) for target in self.targets}


def cross_validate(
    dataset: Dataset,
    recipe: Recipe | DescriptorRecipe | None = None,
    run_dir: str | os.PathLike | None = None,
    n_splits: int = 5,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    groups: Groups = "formula",
    only_folds: int | None = None,
    progress: AnyProgress | None = None,
) -> CrossValidation:
    """Score a recipe, the descriptor recipes and the baselines on the same folds.

    Parameters
    ----------
    dataset
        Materials with the recipe's targets; materials without any of them are left out.
    recipe
        ``image+text`` if not given. A Gaussian process that reads encoders has rows for each of
        them, too. One that reads descriptors only has its own row, ``custom``, if it differs from
        ``best`` and ``no-dft``. A network has a row for each of its stages.
    run_dir
        Folder for finished folds and stages. The same call with the same folder resumes an
        interrupted run with the same result. A folder of another run is refused.
    n_splits, test_fraction, split_seed, groups
        See :func:`rhosight.dataset.split` and :func:`rhosight.dataset.folds`.
    only_folds
        Number of folds to run, starting with the first; all by default.
    progress
        Called with (label, step, steps, ...).

    Raises
    ------
    RhosightError
        If a target is unknown or has no labels, a material lacks data that the recipe reads, or
        ``run_dir`` contains a run with other settings.
    """
    recipe = recipe or descriptor_recipe("image+text")
    recipe.require_training()
    dataset = dataset.require_targets(recipe.targets, how="any")
    if isinstance(recipe, DescriptorRecipe):
        dataset = keep_describable(dataset, recipe)
    numbers = {"n_splits": n_splits, "test_fraction": test_fraction, "split_seed": split_seed}
    settings = _run_settings(dataset, recipe, {**numbers, "groups": groups})
    folder = open_run(run_dir, settings)
    used_rows, test_rows = split(dataset, test_fraction, split_seed, groups)
    parts = folds(dataset, n_splits, split_seed, groups, indices=used_rows)[:only_folds]
    check_labels(dataset, recipe.targets, [rows for rows, _ in parts])
    scored = np.concatenate([test_rows, *(validation for _, validation in parts)])
    _check_pretraining(recipe, {dataset.ids[row] for row in scored})
    shared = SharedData(dataset, recipe, progress)
    results = []
    for number, (train_rows, validation_rows) in enumerate(parts):
        rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
        results.append(run_fold(number, rows, shared, folder, len(parts)))
    predictions, history = (
        pd.concat(frames, ignore_index=True) for frames in zip(*results, strict=True)
    )
    texts = dict(zip(dataset.ids, shared.texts or (), strict=False))
    return CrossValidation(predictions, history, settings, texts)


def _run_settings(
    dataset: Dataset, recipe: Recipe | DescriptorRecipe, division: dict[str, Any]
) -> dict[str, Any]:
    """Return all that identifies a run; ``division`` says how the dataset is split."""
    settings = {
        "recipe": recipe.flat(),
        **division,
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
        "units": {target: dataset.units[target] for target in recipe.targets},
        "versions": collect_versions(),
        "chgnet": find_chgnet_version(),
    }
    if weights := hash_weights(recipe.weight_sources):
        settings["weights"] = weights
    return settings


def _check_pretraining(recipe: Recipe | DescriptorRecipe, scored: set[str]) -> None:
    """Raise if the recipe's weights were pre-trained on materials that are scored."""
    if seen := scored & read_pretrained_ids(recipe.pretrained_folder):
        raise RhosightError(
            f"{recipe.pretrained_folder}: these weights were pre-trained on {len(seen)} of the "
            f"scored materials, for example {min(seen)}; remove pretraining.weights, so that each "
            "fold is pre-trained on its own training set"
        )


def _scores(frame: pd.DataFrame) -> pd.Series:
    """Return R², RMSE and the number of predictions."""
    true, predicted = frame["true"].to_numpy(), frame["predicted"].to_numpy()
    return pd.Series(
        {"r2": r2_score(true, predicted), "rmse": rmse(true, predicted), "n": len(frame)}
    )
