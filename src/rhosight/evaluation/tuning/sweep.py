"""Sweeps: the fields of a recipe chosen by Optuna, on folds of the training part alone.

Akiba et al., KDD 2019, doi:10.1145/3292500.3330701. A trial is a recipe, scored by its RMSE on
each fold of the training part in units of the targets' standard deviation; a trial that is worse
than the median of the others so far is given up after a fold. The test part of the outer split is
not looked at, unless and until the chosen recipe is scored on it, once.

>>> found = sweep(dataset, "network", "runs/mine", trials=50)
>>> found.recipe, found.trials
>>> found.score(dataset)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pandas as pd
from distributed import KilledWorker
from optuna.trial import FrozenTrial, TrialState

from ...dataset.build.workers import open_client
from ...dataset.dataset import Dataset
from ...dataset.splits import folds, split
from ...errors import RhosightError
from ...inputs.progress import AnyProgress
from ...models.descriptor_model import DescriptorModel
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.property_model import PropertyModel
from ...models.provenance import versions
from ...networks.recipe import Recipe
from ...storage import open_run, replacing
from ...training.loop import Diverged
from .folds import InnerFolds
from .space import SearchSpace

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

BEST_RECIPE, TRIALS, SCORE = "best-recipe.json", "trials.csv", "score.json"
"""Files that a sweep leaves in its folder."""

FULL_TRIALS = 5
"""Complete trials before any is given up early."""

RETRIES = 2
"""How often a trial is run again whose process died in it."""


@dataclass
class Sweep:
    """The outcome of :func:`sweep`.

    Attributes
    ----------
    study
        Optuna's.
    space
        What was varied.
    folder
        Of the run.
    settings
        Space, split and dataset.
    """

    study: optuna.Study = field(repr=False)
    space: SearchSpace
    folder: Path
    settings: dict[str, Any] = field(repr=False)

    @property
    def best(self) -> FrozenTrial:
        """The trial of the lowest error; RhosightError if none is complete."""
        try:
            return self.study.best_trial
        except ValueError as error:
            raise RhosightError(
                f"{self.folder}: no trial is complete yet; ask for more trials"
            ) from error

    @property
    def recipe(self) -> Recipe | DescriptorRecipe:
        """The recipe of :attr:`best`."""
        return self.space.recipe_of(self.best.params)

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, the best first: number, state, rmse (mean over folds and targets, in
        standard deviations of the training labels), each parameter, the mean over the scored folds
        for each target (``rmse of ...``), folds, and seconds.
        """
        rows = []
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state not in FINISHED:
                continue
            scores = pd.DataFrame(trial.user_attrs.get("folds", []))
            rows.append(
                {
                    "number": trial.number,
                    "state": trial.state.name.lower(),
                    "rmse": trial.value if trial.state == TrialState.COMPLETE else np.nan,
                    **trial.params,
                    **scores.mean().add_prefix("rmse of ").to_dict(),
                    "folds": len(scores),
                    "seconds": round(trial.duration.total_seconds(), 1),
                }
            )
        columns = ["number", "state", "rmse", *self.space.parameters]
        table = pd.DataFrame(rows, columns=None if rows else columns)
        return table.sort_values(["rmse", "number"], ignore_index=True)

    def write(self) -> None:
        """Write the plots, best-recipe.json and trials.csv into the folder, unless they speak of
        all finished trials already.
        """
        table = self.trials.to_csv(index=False)
        file = self.folder / TRIALS
        if file.exists() and file.read_text(encoding="utf-8") == table:
            return
        from .figures import write_figures

        write_figures(self.study, self.space, self.folder)
        with replacing(self.folder / BEST_RECIPE) as draft:
            text = json.dumps(self.recipe.model_dump(mode="json"), indent=2, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8")
        with replacing(file) as draft:  # last: it says that the others are written
            draft.write_text(table, encoding="utf-8")

    def score(
        self, dataset: Dataset, progress: AnyProgress | None = None
    ) -> dict[str, dict[str, float]]:
        """Train the chosen recipe on the whole training part and score it on the test part, once.

        The model and its score stay in the folder. To ask again gives the same score without
        another look at the test part.

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
                    f"{file}: the test part was scored with an earlier choice, and another would "
                    "be chosen by it; keep that score, or start a sweep with another split seed"
                )
            return before["scores"]
        used = dataset.require_targets(self.recipe.targets, how="any")
        names = ("test_fraction", "split_seed", "groups")
        train, test = split(used, *(self.settings[name] for name in names))
        if isinstance(self.recipe, DescriptorRecipe):
            model: Any = DescriptorModel(self.recipe).fit(used[train], progress)
        else:
            run_dir = self.folder / "final.run"
            model = PropertyModel(self.recipe).fit(used[train], run_dir, progress)
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
    groups: str = "formula",
    seed: int = 0,
    storage: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    heartbeat: int = 15,
    progress: AnyProgress | None = None,
) -> Sweep:
    """Look for the fields of a recipe that predict best within the training part.

    Parameters
    ----------
    dataset
        Materials with the recipe's targets; the test part of its split is left alone.
    space
        A :class:`SearchSpace`, or the name of one.
    run_dir
        Folder of the run. The same call goes on where an interrupted one stopped, and with more
        ``trials`` it runs those that are missing; finished ones are never run again.
    trials
        How many are finished in the end, those that were given up early included. Several
        processes that share a storage may finish a few more.
    n_splits
        Folds of the training part; by default those of :func:`rhosight.cross_validate`.
    test_fraction, split_seed, groups
        See :func:`rhosight.split`.
    seed
        Of what is drawn. With one worker the same seed gives the same trials.
    storage
        Database URL that SQLAlchemy knows; a SQLite file in the folder by default. Processes on
        several machines take the same call with the URL of a server.
    workers
        Trials at a time, each in a process of its own if there are several.
    scheduler
        Address of a running Dask scheduler, whose workers train instead of this machine; they need
        rhosight, but neither the dataset nor the storage.
    heartbeat
        Seconds. A trial whose process has not been heard of for four of them is run again.
    progress
        Called with (label, step, steps, ...) while one worker trains.

    Raises
    ------
    RhosightError
        For a recipe that the dataset does not allow, a storage that cannot be opened, or a folder
        of another run.
    """
    space = SearchSpace.named(space) if isinstance(space, str) else space
    recipe = space.recipe_of({})  # as it is where nothing varies
    dataset = dataset.require_targets(recipe.targets, how="any")
    if not isinstance(recipe, DescriptorRecipe) and recipe.training.early_stopping == "validation":
        logger.info("early stopping watches the scored fold, as the paper does: optimistic")
    settings = {
        "space": space.model_dump(mode="json"),
        "n_splits": n_splits,
        "test_fraction": test_fraction,
        "split_seed": split_seed,
        "groups": groups,
        "seed": seed,
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
    }
    folder = open_run(run_dir, settings)
    train, _ = split(dataset, test_fraction, split_seed, groups)
    inner = InnerFolds(dataset, folds(dataset, n_splits, split_seed, groups, indices=train))
    name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    with _quiet_optuna():
        study = _open_study(storage or f"sqlite:///{folder.resolve()}/trials.db", name, heartbeat)
        found = Sweep(study, space, folder, settings)
        _enqueue_first(study, space)
        team = _Team(study, space, trials, seed, n_splits)
        missing = trials - len(study.get_trials(deepcopy=False, states=FINISHED))
        if missing > 0 and workers == 1 and scheduler is None:
            team.work(partial(inner.score, progress=progress))
        elif missing > 0:
            with open_client(workers, scheduler, "0 B", missing) as client:
                team.work_together(client, inner, workers if scheduler is None else None)
        found.write()
    return found


class _Team:
    """Those who run trials until there are enough: one thread each."""

    def __init__(self, study: optuna.Study, space: SearchSpace, trials: int, seed: int, count: int):
        self.study, self.space, self.trials, self.seed = study, space, trials, seed
        self.folds = count
        self.stop = threading.Event()
        self.taking = threading.Lock()

    def work_together(self, client: Client, inner: InnerFolds, count: int | None) -> None:
        """Trials side by side; a trial's folds are scored by Dask's workers, one after the other.

        Threads of this process alone see the storage, so that it may be a local file.
        """
        count = count or max(1, len(client.nthreads()))
        everywhere = client.scatter(inner, broadcast=True, hash=False)

        def score(recipe: Recipe | DescriptorRecipe, number: int) -> dict[str, float]:
            task = client.submit(InnerFolds.score, everywhere, recipe, number, pure=False)
            try:
                return task.result()
            except KilledWorker as error:
                raise RhosightError(
                    "a worker was killed several times while it trained, most likely for the "
                    "memory it took; have fewer workers, or smaller images and batches"
                ) from error

        with ThreadPoolExecutor(count) as pool:
            threads = [pool.submit(self.work, score, number) for number in range(count)]
            try:
                for thread in as_completed(threads):
                    thread.result()
            except BaseException:
                self.stop.set()
                client.close()  # what is being scored ends with an error at once
                raise

    def work(self, score: Callable[..., dict[str, float]], number: int = 0) -> None:
        """Run trials until so many are finished; those that others are at are waited for."""
        said = False
        while not self.stop.is_set():
            optuna.storages.fail_stale_trials(self.study)
            states = Counter(trial.state for trial in self.study.get_trials(deepcopy=False))
            finished = sum(states[state] for state in FINISHED)
            begun = finished + states[TrialState.RUNNING]
            if finished >= self.trials:
                return
            if begun >= self.trials:
                if not said:
                    logger.info("waiting for trials that run elsewhere, or were killed")
                said = True
                self.stop.wait(1.0)
                continue
            # what is drawn depends on what is finished, not on interruptions
            entropy = np.random.SeedSequence([self.seed, begun, number]).generate_state(1)
            sampler = optuna.samplers.TPESampler(seed=int(entropy[0]), constant_liar=True)
            study = optuna.load_study(
                study_name=self.study.study_name,
                storage=self.study._storage,
                sampler=sampler,
                pruner=self.study.pruner,
            )
            self._run_next(study, score)

    def _run_next(self, study: optuna.Study, score: Callable[..., dict[str, float]]) -> None:
        """One trial. SQLite lets two take the same waiting trial at the same moment: threads take
        turns until theirs begins; of two processes the slower finds its result told already.
        """
        with ExitStack() as turn:
            turn.enter_context(self.taking)

            def objective(trial: optuna.Trial) -> float:
                turn.close()
                return self._objective(score, trial)

            try:
                study.optimize(objective, n_trials=1, callbacks=[self._tell])
            except ValueError as error:
                if not str(error).startswith("Cannot tell a "):
                    raise

    def _objective(self, score: Callable[..., dict[str, float]], trial: optuna.Trial) -> float:
        values = self.space.draw(trial)
        for twin in trial.study.get_trials(deepcopy=False, states=FINISHED):
            if twin.params == values:  # training is deterministic
                trial.set_user_attr("folds", twin.user_attrs["folds"])
                if twin.state == TrialState.PRUNED:
                    raise optuna.TrialPruned
                return twin.value
        recipe, scores = self.space.recipe_of(values), []
        mean = float("nan")
        for number in range(self.folds):
            try:
                scores.append(score(recipe, number))
            except Diverged as error:
                logger.info("trial %d: %s", trial.number, error)
                trial.set_user_attr("folds", scores)
                raise optuna.TrialPruned from error
            trial.set_user_attr("folds", scores)
            trial.set_user_attr("versions", versions())
            mean = float(np.mean([list(found.values()) for found in scores]))
            trial.report(mean, number)
            if number + 1 < self.folds and trial.should_prune():
                raise optuna.TrialPruned
        return mean

    def _tell(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if trial.state == TrialState.PRUNED:
            scored = len(trial.user_attrs["folds"])
            logger.info("trial %d: given up after %d folds", trial.number, scored)
        elif trial.state == TrialState.COMPLETE:
            best = study.best_trial
            logger.info(
                "trial %d: RMSE %.4f; best %.4f, trial %d",
                trial.number,
                trial.value,
                best.value,
                best.number,
            )


def _enqueue_first(study: optuna.Study, space: SearchSpace) -> None:
    """Put the space's own trials in front, unless they are there already."""
    there = {
        trial.user_attrs.get("first")
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.FAIL
    }
    for number, values in enumerate(space.first):
        if number not in there:
            study.enqueue_trial(values, user_attrs={"first": number})


def _open_study(url: str, name: str, heartbeat: int) -> optuna.Study:
    import sqlalchemy

    # a SQLite file is locked while another process writes
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=heartbeat,
            grace_period=4 * heartbeat,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(
                RETRIES
            ),
        )
        return optuna.create_study(
            study_name=name,
            storage=storage,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FULL_TRIALS),
            load_if_exists=True,
        )
    except (ImportError, ValueError, sqlalchemy.exc.SQLAlchemyError) as error:
        shown = url.split("://")[0]  # the rest may hold a password
        reason = str(error).strip().splitlines()[0]
        raise RhosightError(
            f"--storage {shown}://...: no database can be opened there ({reason}); give a URL that "
            "SQLAlchemy knows, and install the driver that it names"
        ) from error


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """The heartbeat is called experimental, at every start; trials are told in our own words."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
