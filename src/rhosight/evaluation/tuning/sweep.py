"""Tune the hyperparameters of a recipe with Optuna on folds of the training set.

Akiba et al., KDD 2019, doi:10.1145/3292500.3330701. A trial is a recipe. Its error is the RMSE on
each fold of the training set, in units of the targets' standard deviations. A trial that is worse
than the median of the previous trials is stopped after a fold. The test set of the outer split is
used only if the chosen recipe is scored on it, once.

>>> result = sweep(dataset, "network", "runs/mine", trials=50)
>>> result.recipe, result.trials
>>> result.score(dataset)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from ...dataset.build.workers import open_client
from ...dataset.dataset import Dataset
from ...dataset.splits import Groups, folds, split
from ...errors import RhosightError
from ...inputs.progress import AnyProgress
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.loading import model_for
from ...networks.recipe import Recipe
from ...storage import open_run, replacing
from .folds import InnerFolds
from .space import SearchSpace
from .study import FINISHED, enqueue_first_trials, open_study, quiet_optuna
from .trials import TrialRunner

logger = logging.getLogger(__name__)

BEST_RECIPE, TRIALS, SCORE = "best-recipe.json", "trials.csv", "score.json"
"""Result files in the folder of a sweep."""

SPLIT = ("test_fraction", "split_seed", "groups")
"""Settings of a sweep that define the split into training and test set."""


@dataclass
class Sweep:
    """Result of :func:`sweep`.

    Attributes
    ----------
    study
        The study of Optuna.
    space
        The search space.
    folder
        Folder of the run.
    settings
        Space, split and dataset.
    """

    study: optuna.Study = field(repr=False)
    space: SearchSpace
    folder: Path
    settings: dict[str, Any] = field(repr=False)

    @property
    def best(self) -> FrozenTrial:
        """Trial with the lowest error; a RhosightError is raised if no trial is complete."""
        try:
            return self.study.best_trial
        except ValueError as error:
            raise RhosightError(
                f"{self.folder}: no trial is complete yet; run more trials"
            ) from error

    @property
    def recipe(self) -> Recipe | DescriptorRecipe:
        """Recipe of :attr:`best`."""
        return self.space.make_recipe(self.best.params)

    @property
    def trials(self) -> pd.DataFrame:
        """Finished trials, one row each, the best one first.

        Columns: number, state, rmse (mean over folds and targets, in standard deviations of the
        training labels), each parameter, the mean over the scored folds for each target (``rmse of
        ...``), folds, and seconds.
        """
        rows: list[dict[str, Any]] = []
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state not in FINISHED:
                continue
            scores = pd.DataFrame(trial.user_attrs.get("folds", []))
            assert trial.duration is not None, "the trial is finished"
            errors = {f"rmse of {target}": mean for target, mean in scores.mean().items()}
            rows.append(
                {
                    "number": trial.number,
                    "state": trial.state.name.lower(),
                    "rmse": trial.value if trial.state == TrialState.COMPLETE else np.nan,
                    **trial.params,
                    **errors,
                    "folds": len(scores),
                    "seconds": round(trial.duration.total_seconds(), 1),
                }
            )
        columns = ["number", "state", "rmse", *self.space.parameters]
        table = pd.DataFrame(rows, columns=None if rows else columns)
        return table.sort_values(["rmse", "number"], ignore_index=True)

    def write(self) -> None:
        """Write figures, best-recipe.json and trials.csv unless they are up to date."""
        table = self.trials.to_csv(index=False)
        file = self.folder / TRIALS
        if file.exists() and file.read_text(encoding="utf-8") == table:
            return
        from .figures import write_figures

        write_figures(self.study, self.space, self.folder)
        with replacing(self.folder / BEST_RECIPE) as draft:
            text = json.dumps(self.recipe.model_dump(mode="json"), indent=2, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8")
        with replacing(file) as draft:  # last: it marks the others as written
            draft.write_text(table, encoding="utf-8")

    def score(
        self, dataset: Dataset, progress: AnyProgress | None = None
    ) -> dict[str, dict[str, float]]:
        """Train the best recipe on the training set and score it once on the test set.

        The model and its score are saved in the folder. Later calls return the saved score and do
        not use the test set again.

        Returns
        -------
        Target → ``r2``, ``rmse`` (target's unit), ``n``.

        Raises
        ------
        RhosightError
            If another recipe of this sweep was scored before.
        """
        file, recipe = self.folder / SCORE, self.recipe.flat()
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            if before["recipe"] != recipe:
                raise RhosightError(
                    f"{file}: an earlier best recipe was already scored on the test set; a second "
                    "score would select a recipe by the test set. Keep the first score, or start a "
                    "sweep with another split seed"
                )
            return before["scores"]
        used = dataset.require_targets(self.recipe.targets, how="any")
        train, test = split(used, *(self.settings[name] for name in SPLIT))
        model = model_for(self.recipe)
        model.fit(used[train], run_dir=self.folder / "final.run", progress=progress)
        scores = model.score(used[test])
        model.save_pretrained(self.folder / "model")
        with replacing(file) as draft:
            draft.write_text(json.dumps({"recipe": recipe, "scores": scores}, indent=2))
        return scores


def sweep(
    dataset: Dataset,
    space: SearchSpace | str = "network",
    run_dir: str | os.PathLike = "sweep",
    trials: int = 20,
    n_splits: int = 5,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    groups: Groups = "formula",
    seed: int = 0,
    storage: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    heartbeat: int = 15,
    progress: AnyProgress | None = None,
) -> Sweep:
    """Search for hyperparameters on folds of the training set.

    Parameters
    ----------
    dataset
        Materials with the recipe's targets. The test set of its split is not used.
    space
        A :class:`SearchSpace` or the name of one.
    run_dir
        Folder of the run. The same call resumes a run, or adds trials if ``trials`` is larger.
    trials
        Number of finished trials, including those stopped early; a shared storage may get more.
    n_splits, test_fraction, split_seed, groups
        See :func:`rhosight.cross_validate`.
    seed
        Seed of the sampler. With one worker, the same seed gives the same trials.
    storage
        Database URL for SQLAlchemy, shared by machines; by default a SQLite file in the folder.
    workers, scheduler
        Trials at a time, each in its own process; or the address of a running Dask scheduler, whose
        workers need neither the dataset nor the storage.
    heartbeat
        Seconds. A trial without a sign of life for four heartbeats is repeated.
    progress
        Called with (label, step, steps, ...) while a single worker trains.

    Raises
    ------
    RhosightError
        If the dataset lacks data for the recipe, or the storage or the folder cannot be used.
    """
    space = SearchSpace.from_name(space) if isinstance(space, str) else space
    dataset = dataset.require_targets(_initial_recipe(space).targets, how="any")
    numbers = {"n_splits": n_splits, "test_fraction": test_fraction, "split_seed": split_seed}
    settings = _run_settings(dataset, space, {**numbers, "groups": groups, "seed": seed})
    folder = open_run(run_dir, settings)
    assert folder is not None, "a sweep always has a folder"
    with quiet_optuna():
        study = _open_study(storage, folder, settings, heartbeat)
        runner = TrialRunner(study, space, trials, seed, n_splits)
        _run_trials(runner, _inner_folds(dataset, settings), workers, scheduler, progress)
        result = Sweep(study, space, folder, settings)
        result.write()
    return result


def _initial_recipe(space: SearchSpace) -> Recipe | DescriptorRecipe:
    """Return the recipe without varied fields; log if its scores are optimistic."""
    recipe = space.make_recipe({})
    if recipe.watches_validation:
        logger.info("early stopping uses the scored fold, as in the paper; scores are optimistic")
    return recipe


def _run_settings(dataset: Dataset, space: SearchSpace, numbers: dict[str, Any]) -> dict[str, Any]:
    """Return all that identifies a sweep; ``numbers`` belong to split and sampler."""
    return {
        "space": space.model_dump(mode="json"),
        **numbers,
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
    }


def _inner_folds(dataset: Dataset, settings: dict[str, Any]) -> InnerFolds:
    """Return the folds of the training set."""
    test_fraction, seed, groups = (settings[name] for name in SPLIT)
    train, _ = split(dataset, test_fraction, seed, groups)
    return InnerFolds(dataset, folds(dataset, settings["n_splits"], seed, groups, indices=train))


def _open_study(
    storage: str | None, folder: Path, settings: dict[str, Any], heartbeat: int
) -> optuna.Study:
    """Open the study of a sweep; its name is a hash of the settings."""
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return open_study(storage or f"sqlite:///{folder.resolve()}/trials.db", name, heartbeat)


def _run_trials(
    runner: TrialRunner,
    inner: InnerFolds,
    workers: int,
    scheduler: str | None,
    progress: AnyProgress | None,
) -> None:
    """Run the missing trials in this process or on Dask workers."""
    enqueue_first_trials(runner.study, runner.space)
    missing = runner.missing
    if missing > 0 and workers == 1 and scheduler is None:
        runner.run(partial(inner.score, progress=progress))
    elif missing > 0:
        with open_client(workers, scheduler, "0 B", missing) as client:
            runner.run_in_parallel(client, inner, workers if scheduler is None else None)
