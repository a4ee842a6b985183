"""Open the Optuna study of a sweep."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import TrialState

from ...errors import RhosightError
from .space import SearchSpace

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of finished trials; pruned trials were stopped early."""

FULL_TRIALS = 5
"""Number of complete trials before a trial may be stopped early."""

RETRIES = 2
"""Number of times that a trial is repeated after its process died."""


def open_study(url: str, name: str, heartbeat: int) -> optuna.Study:
    """Open or create a study in a database.

    Parameters
    ----------
    url
        Database URL for SQLAlchemy.
    name
        Name of the study.
    heartbeat
        Seconds between the signs of life of a running trial.

    Raises
    ------
    RhosightError
        If the database cannot be opened.
    """
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
        shown = url.split("://")[0]  # the rest may contain a password
        reason = str(error).strip().splitlines()[0]
        raise RhosightError(
            f"--storage {shown}://...: the database cannot be opened ({reason}); give a URL that "
            "SQLAlchemy supports, and install the driver that it names"
        ) from error


def enqueue_first_trials(study: optuna.Study, space: SearchSpace) -> None:
    """Enqueue the first trials of a space unless the study already contains them."""
    present = {
        trial.user_attrs.get("first")
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.FAIL
    }
    for number, values in enumerate(space.first):
        if number not in present:
            study.enqueue_trial(values, user_attrs={"first": number})


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's own log and its warnings about the experimental heartbeat."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
