"""Work through many materials: a failure stops no other, Ctrl-C keeps the rest."""

from __future__ import annotations

import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import RhosightError, first_line, name_missing_extra
from ..inputs.progress import Progress
from .common import errors, is_dataset, is_debugging

MAX_AT_ONCE = 16
"""Largest number of materials that are worked on at once; an interruption loses so many."""

_QUICK = 1.0  # s; a part that took less is followed by a larger one


@dataclass
class Outcome:
    """The results of :func:`work_through`.

    Attributes
    ----------
    results
        One for each part, in order.
    bad
        File or material → why it failed.
    interrupted
        Whether the user interrupted the work.
    done, succeeded, count
        Number of materials that were worked on, of those with a result, and of all.
    """

    results: list[Any] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    done: int = 0
    succeeded: int = 0
    count: int = 0


def work_through(
    files: list[str],
    read: Callable[[list[str]], Any],
    work: Callable[[Any], Any],
    progress: Progress,
    label: str,
    at_once: int = MAX_AT_ONCE,
) -> Outcome:
    """Apply a function to files or to the materials of one dataset, some at a time.

    Parameters
    ----------
    files
        The arguments of a command.
    read
        Returns the materials of files; for one dataset, the dataset.
    work
        Takes what ``read`` returns for a few of them, and returns one result.
    progress
        Called with (label, done, all).
    at_once
        Largest number of materials that ``work`` takes.

    Raises
    ------
    RhosightError
        If the dataset cannot be read, or nothing succeeds: the first failure.
    """
    names, get = _list_materials(files, read)
    outcome = Outcome(count=len(names))
    first: RhosightError | None = None
    size = 1
    with _log_once(), _interrupt_at_termination():
        try:
            if not names:
                outcome.results.append(work(get(slice(0, 0))))
            while outcome.done < len(names):
                part = slice(outcome.done, min(outcome.done + size, len(names)))
                began = time.monotonic()
                error = _work_on(names, part, get, work, outcome)
                first = first or error
                outcome.done = part.stop
                progress(label, outcome.done, len(names))
                if time.monotonic() - began < _QUICK:
                    size = min(2 * size, at_once)
        except KeyboardInterrupt:
            outcome.interrupted = True
    if first and not outcome.results and not outcome.interrupted:
        raise first
    return outcome


def report(outcome: Outcome, what: str) -> int:
    """Print what failed or was not finished; return the exit code."""
    for name, reason in outcome.bad.items():
        line = reason if name in reason else f"{name}: {reason}"
        errors.print(f"not {what}: {line}", markup=False, highlight=False, soft_wrap=True)
    if outcome.interrupted:
        errors.print(
            f"interrupted: {outcome.succeeded} of {outcome.count} were {what}; "
            "give the others again",
            markup=False,
        )
        return 130
    return 1 if outcome.bad else 0


def _list_materials(
    files: list[str], read: Callable[[list[str]], Any]
) -> tuple[Sequence[str], Callable[[slice], Any]]:
    """Return the names of all materials, and a function that reads some of them."""
    if not is_dataset(files):
        return files, lambda part: read(files[part])
    dataset = read(files)
    return dataset.ids, partial(dataset.__getitem__)


def _work_on(
    names: Sequence[str],
    part: slice,
    get: Callable[[slice], Any],
    work: Callable[[Any], Any],
    outcome: Outcome,
) -> RhosightError | None:
    """Work on a part, or on each of its materials if one of them fails."""
    try:
        with name_missing_extra():
            outcome.results.append(work(get(part)))
        outcome.succeeded += part.stop - part.start
        return None
    except Exception as error:
        if part.stop - part.start == 1:
            failure = describe_failure(error, names[part.start])
            outcome.bad[names[part.start]] = str(failure)
            return failure
    first: RhosightError | None = None
    for number in range(part.start, part.stop):
        one = _work_on(names, slice(number, number + 1), get, work, outcome)
        first = first or one
    return first


def describe_failure(error: Exception, where: str) -> RhosightError:
    """Return the message of an error; print the traceback with ``--debug``."""
    if isinstance(error, RhosightError):
        return error
    if is_debugging():
        errors.print("".join(traceback.format_exception(error)), markup=False, highlight=False)
    reason = f"{type(error).__name__}: {first_line(error)}"
    return RhosightError(
        f"{where}: rhosight failed with an unexpected error ({reason}); check the file, or report "
        "the traceback that `rhosight --debug` prints"
    )


@contextmanager
def _interrupt_at_termination() -> Iterator[None]:
    """Let SIGTERM, with which queues end jobs, do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _log_once() -> Iterator[None]:
    """Log each message about the models' training once, not again for each part."""
    from ..models.provenance import logger

    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message, count = record.getMessage(), len(seen)
        seen.add(message)
        return len(seen) > count

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)
