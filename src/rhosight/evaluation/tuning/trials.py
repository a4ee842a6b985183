"""Run the trials of a sweep, one after another or in parallel."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import optuna
from distributed import KilledWorker
from optuna.trial import FrozenTrial, TrialState

from ...errors import RhosightError
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.provenance import collect_versions
from ...networks.recipe import Recipe
from ...training.plan import Diverged
from .folds import InnerFolds
from .space import SearchSpace
from .study import FINISHED

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

Score = Callable[[Recipe | DescriptorRecipe, int], dict[str, float]]
"""Recipe and number of a fold → target → error, see :meth:`InnerFolds.score`."""


class TrialRunner:
    """Run trials until enough of them are finished.

    Parameters
    ----------
    study
        The study; several processes may share its storage.
    space
        The search space.
    trials
        Number of finished trials to reach.
    seed
        Seed of the sampler.
    folds
        Number of folds of a trial.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, trials: int, seed: int, folds: int):
        self.study, self.space, self.trials, self.seed = study, space, trials, seed
        self.folds = folds
        self._stop = threading.Event()
        self._taking = threading.Lock()

    @property
    def missing(self) -> int:
        """Number of trials that are not finished yet."""
        return self.trials - len(self.study.get_trials(deepcopy=False, states=FINISHED))

    def run_in_parallel(self, client: Client, inner: InnerFolds, count: int | None) -> None:
        """Run several trials at a time, each in a thread; Dask workers score their folds.

        Only the threads of this process access the storage, which may therefore be a local file.
        ``count`` trials run at a time, by default one for each worker.
        """
        count = count or max(1, len(client.nthreads()))
        everywhere = client.scatter(inner, broadcast=True, hash=False)

        def score(recipe: Recipe | DescriptorRecipe, number: int) -> dict[str, float]:
            task = client.submit(InnerFolds.score, everywhere, recipe, number, pure=False)
            try:
                return task.result()
            except KilledWorker as error:
                raise RhosightError(
                    "a worker was killed several times during training, most likely because it ran "
                    "out of memory; use fewer workers, or smaller images and batches"
                ) from error

        with ThreadPoolExecutor(count) as pool:
            threads = [pool.submit(self.run, score, number) for number in range(count)]
            try:
                for thread in as_completed(threads):
                    thread.result()
            except BaseException:
                self._stop.set()
                client.close()  # scoring in the other threads ends at once with an error
                raise

    def run(self, score: Score, number: int = 0) -> None:
        """Run trials until enough are finished; wait for those that run elsewhere."""
        has_logged = False
        while not self._stop.is_set():
            optuna.storages.fail_stale_trials(self.study)
            states = Counter(trial.state for trial in self.study.get_trials(deepcopy=False))
            finished = sum(states[state] for state in FINISHED)
            begun = finished + states[TrialState.RUNNING]
            if finished >= self.trials:
                return
            if begun >= self.trials:
                if not has_logged:
                    logger.info("waiting for trials that are running elsewhere or were killed")
                has_logged = True
                self._stop.wait(1.0)
                continue
            # the seed depends on the trials so far and not on interruptions
            entropy = np.random.SeedSequence([self.seed, begun, number]).generate_state(1)
            sampler = optuna.samplers.TPESampler(seed=int(entropy[0]), constant_liar=True)
            study = optuna.load_study(
                study_name=self.study.study_name,
                storage=self.study._storage,
                sampler=sampler,
                pruner=self.study.pruner,
            )
            self._run_next(study, score)

    def _run_next(self, study: optuna.Study, score: Score) -> None:
        """Run one trial.

        SQLite lets two callers take the same waiting trial at the same time. Threads therefore
        take turns until their trial has begun. Of two processes, the slower one finds that the
        result has already been stored.
        """
        with ExitStack() as turn:
            turn.enter_context(self._taking)

            def objective(trial: optuna.Trial) -> float:
                turn.close()
                return self._score_trial(score, trial)

            try:
                study.optimize(objective, n_trials=1, callbacks=[_log_trial])
            except ValueError as error:
                if not str(error).startswith("Cannot tell a "):
                    raise

    def _score_trial(self, score: Score, trial: optuna.Trial) -> float:
        """Return the mean error over folds, or stop the trial early."""
        values = self.space.draw(trial)
        for twin in trial.study.get_trials(deepcopy=False, states=FINISHED):
            if twin.params == values:  # training is deterministic
                trial.set_user_attr("folds", twin.user_attrs["folds"])
                if twin.state == TrialState.PRUNED or twin.value is None:
                    raise optuna.TrialPruned
                return twin.value
        recipe = self.space.make_recipe(values)
        scores: list[dict[str, float]] = []
        mean = float("nan")
        for number in range(self.folds):
            try:
                scores.append(score(recipe, number))
            except Diverged as error:
                logger.info("trial %d: %s", trial.number, error)
                trial.set_user_attr("folds", scores)
                raise optuna.TrialPruned from error
            trial.set_user_attr("folds", scores)
            trial.set_user_attr("versions", collect_versions())
            mean = float(np.mean([list(errors.values()) for errors in scores]))
            trial.report(mean, number)
            if number + 1 < self.folds and trial.should_prune():
                raise optuna.TrialPruned
        return mean


def _log_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Log the result of a finished trial."""
    if trial.state == TrialState.PRUNED:
        scored = len(trial.user_attrs["folds"])
        logger.info("trial %d: stopped early after %d folds", trial.number, scored)
    elif trial.state == TrialState.COMPLETE:
        best = study.best_trial
        logger.info(
            "trial %d: RMSE %.4f; best %.4f, trial %d",
            trial.number,
            trial.value,
            best.value,
            best.number,
        )
