"""Run the jobs of the paper's experiments and keep their results in a folder.

A job is one model, or one chain of models, trained on one fold. Its name is derived from everything
that determines its result. Figures that share a model therefore share the job, and a finished job
is never run again. Any number of processes may work on one folder: each job is locked while it
runs, and the operating system releases the lock of a process that dies.

    FOLDER/jobs/NAME/job.json             everything that determines the result
                     result.json          seconds, hardware, versions; marks a finished job
                     predictions.parquet  one row per prediction
                     history.parquet      one row per epoch (networks)
                     stages/              weights and checkpoints, while another job needs them
                     trained              marks complete stages
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from ..models.baselines.chgnet import find_chgnet_version
from ..models.provenance import collect_versions
from ..storage import hold_lock, replacing, share_lock
from .processes import PROCESSES, make_process_recipe

if TYPE_CHECKING:
    import pandas as pd

    from ..networks.recipe import Recipe

logger = logging.getLogger(__name__)

RESULT = "result.json"
"""File that marks a finished job."""

TRAINED = "trained"
"""File that marks complete stages."""

POLL_SECONDS = 1.0
"""Interval at which jobs of another process are checked."""


@dataclass(frozen=True)
class Split:
    """Split into a test set of 15 % and five folds (paper section 3).

    Attributes
    ----------
    repeat
        Seed of the test set and the folds; another repeat draws both again.
    fold
        Number of the fold that is the validation set.
    n_splits, test_fraction
        Number of folds, and share of the test set.
    """

    repeat: int = 0
    fold: int = 0
    n_splits: int = 5
    test_fraction: float = 0.15


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes
    ----------
    kind
        ``"network"`` trains the models of the recipe in their order; ``"baseline"`` fits one.
    dataset
        Fingerprint of the materials.
    split
        Fold to train on.
    recipe
        Recipe of a network.
    baseline
        Name of a baseline, or one of :data:`.processes.PROCESSES`.
    seed
        Seed of a baseline; that of a network is in its recipe.
    needs
        Jobs whose trained stages this job starts from.
    """

    kind: Literal["network", "baseline"]
    dataset: str
    split: Split
    recipe: Recipe | None = None
    baseline: str = ""
    seed: int = 0
    needs: tuple[Job, ...] = ()

    @cached_property
    def basis(self) -> dict[str, Any]:
        """Everything that determines the result, as JSON.

        Versions of libraries are left out: repeats accumulate over months, and each result
        records the versions it was made with.
        """
        recipe = self.recipe.flat(exclude_none=True) if self.recipe else None
        return {
            "kind": self.kind,
            "dataset_sha256": self.dataset,
            "split": vars(self.split),
            "recipe": recipe,
            "baseline": self.baseline,
            "seed": self.seed,
            "needs": [job.name for job in self.needs],
            "descriptors": self._descriptors,
        }

    @property
    def _descriptors(self) -> dict[str, Any] | None:
        known = self.baseline in PROCESSES
        return make_process_recipe(self.baseline).flat() if known else None

    @cached_property
    def name(self) -> str:
        """Readable prefix with a hash of :attr:`basis`."""
        return _make_name(self.basis)

    @property
    def network(self) -> Recipe:
        """Recipe of a job that trains a network."""
        assert self.recipe is not None, f"{self.name} is a baseline"
        return self.recipe


def _make_name(basis: dict[str, Any]) -> str:
    what = basis["baseline"] or basis["recipe"]["modality"].replace("+", "-")
    if basis["kind"] == "network" and not any(basis["recipe"]["epochs"]):
        what += "-pretraining"
    digest = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:12]
    return f"{what}-r{basis['split']['repeat']}-f{basis['split']['fold']}-{digest}"


class Worker(Protocol):
    """Interface of what runs a job; see :class:`rhosight.experiments.work.Workbench`."""

    def run(
        self, job: Job, stages: Path, given: Sequence[Path], progress: AnyProgress | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Run a job and return its predictions and history.

        ``stages`` is its folder for weights and checkpoints; ``given`` are the folders of the jobs
        that it needs.
        """
        ...


class JobFolder:
    """Folder with the results of many jobs.

    Parameters
    ----------
    folder
        Run folder; created if it does not exist.
    """

    def __init__(self, folder: str | os.PathLike):
        # absolute: workers on other machines start in other folders
        self.folder = Path(folder).resolve() / "jobs"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RhosightError(
                f"{folder}: cannot create the folder ({error.strerror}); give another with --out"
            ) from error

    def path(self, job: Job) -> Path:
        """Return the folder of a job's results."""
        return self.folder / self._earlier.get(job.name, job.name)

    @cached_property
    def _earlier(self) -> dict[str, str]:
        """Current name of a job → its name in an earlier version of rhosight.

        Recipes gain fields over time. Their defaults describe what earlier versions did.
        """
        from ..networks.recipe import Recipe

        names: dict[str, str] = {}

        def current_name(name: str) -> str:
            basis = json.loads((self.folder / name / "job.json").read_text(encoding="utf-8"))
            if basis["recipe"]:
                recipe = Recipe.from_flat(basis["recipe"])
                basis["recipe"] = recipe.flat(exclude_none=True)
            basis["needs"] = [current_name(need) for need in basis["needs"]]
            basis.setdefault("descriptors", None)
            return _make_name(basis)

        for path in job_folders(self.folder, RESULT):
            try:
                names[current_name(path.name)] = path.name
            except (OSError, ValueError, KeyError, TypeError):  # another recipe: another job
                continue
        return names

    def is_finished(self, job: Job) -> bool:
        """Return whether the result of a job exists."""
        return (self.path(job) / RESULT).exists()

    def result(self, job: Job) -> dict[str, Any]:
        """Return seconds, time, hardware and versions of a finished job."""
        return json.loads((self.path(job) / RESULT).read_text(encoding="utf-8"))

    def predictions(self, job: Job) -> pd.DataFrame:
        """Return the predictions of a finished job, one row each."""
        return self._read_frame(job, "predictions")

    def history(self, job: Job) -> pd.DataFrame:
        """Return the training history of a finished job, one row per epoch."""
        return self._read_frame(job, "history")

    def _read_frame(self, job: Job, name: str) -> pd.DataFrame:
        import pyarrow.parquet as pq

        path = self.path(job) / f"{name}.parquet"
        try:
            return (
                pq.ParquetFile(path).read().to_pandas()
            )  # faster than pandas for hundreds of files
        except (OSError, ValueError) as error:
            raise RhosightError(
                f"{path}: cannot be read; remove the folder {path.parent}, and the same command "
                "runs this job again"
            ) from error

    def run(
        self,
        jobs: Sequence[Job],
        worker: Worker,
        progress: AnyProgress | None = None,
        on_finish: Callable[[Job], None] | None = None,
    ) -> None:
        """Run all unfinished jobs and the jobs they need; several processes may take part.

        Parameters
        ----------
        jobs
            Jobs in any order; the jobs that they need are added.
        worker
            Runs a single job.
        progress
            Called with (label, step, steps, ...).
        on_finish
            Called with each job that this call ran.
        """
        ordered = order_jobs(jobs)
        needed = {need.name for job in ordered for need in job.needs}
        waiting = [job for job in ordered if not self.is_finished(job)]
        while waiting:
            idle = True
            for job in list(waiting):
                place = f"job {len(ordered) - len(waiting) + 1} of {len(ordered)}"
                if self.is_finished(job):  # another process ran it
                    waiting.remove(job)
                elif self._try_job(job, worker, progress, place):
                    waiting.remove(job)
                    idle = False
                    if on_finish:
                        on_finish(job)
                    if job.name not in needed:
                        self._remove_stages(job)
            if waiting and idle:
                time.sleep(POLL_SECONDS)
        for job in ordered:
            self._remove_stages(job)

    def _try_job(self, job: Job, worker: Worker, progress: AnyProgress | None, place: str) -> bool:
        """Run a job unless another process holds it or a job that it needs.

        Returns whether the job is finished now.
        """
        if not all(self.is_finished(need) for need in job.needs):
            return False
        with ExitStack() as stack:
            if not stack.enter_context(self._lock(job)):
                return False
            if self.is_finished(job):
                return True
            for need in job.needs:
                if not self._has_stages(need):  # removed after an earlier run
                    with self._lock(need) as mine:
                        if not mine:
                            return False
                        self._train(need, worker, progress, place)  # keeps its result
                shared = stack.enter_context(self._lock(need, shared=True))
                if not shared or not self._has_stages(need):  # another process removed them again
                    return False
            seconds = self._run_job(job, worker, progress, place)
            logger.info("%s: %s, %.0f s", place, job.name, seconds)
            return True

    def _train(
        self, job: Job, worker: Worker, progress: AnyProgress | None, place: str
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Train the stages of a job, resuming from existing checkpoints."""

        def report(text: str, *values: Any) -> None:
            assert progress is not None
            fold = f"repeat {job.split.repeat + 1}, fold {job.split.fold + 1}"
            progress(f"{place} ({fold}): {text}", *values)

        stages = self._stages(job)
        stages.mkdir(exist_ok=True)
        given = [self._stages(need) for need in job.needs]
        frames = worker.run(job, stages, given, report if progress else None)
        (self.path(job) / TRAINED).touch()
        return frames

    def _run_job(self, job: Job, worker: Worker, progress: AnyProgress | None, place: str) -> float:
        folder = self.path(job)
        with replacing(folder / "job.json") as draft:
            draft.write_text(json.dumps(job.basis, indent=1), encoding="utf-8")
        started, used = time.monotonic(), time.process_time()
        predictions, history = self._train(job, worker, progress, place)
        seconds, used = time.monotonic() - started, time.process_time() - used
        for frame, name in ((predictions, "predictions"), (history, "history")):
            with replacing(folder / f"{name}.parquet") as draft:
                frame.to_parquet(draft)
        about = {
            "name": job.name,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(used, 2),
            "finished": _now(),
            "hardware": describe_hardware(),
            "versions": list_versions(),
        }
        with replacing(folder / RESULT) as draft:  # last: it marks the job as finished
            draft.write_text(json.dumps(about, indent=1), encoding="utf-8")
        return seconds

    @contextmanager
    def _lock(self, job: Job, shared: bool = False) -> Iterator[bool]:
        """Lock a job, alone or shared with others that only read its stages.

        Yields whether this process holds the lock.
        """
        folder = self.path(job)
        folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                lock = share_lock if shared else hold_lock
                mine = stack.enter_context(lock(folder / "lock"))
            except OSError as error:
                raise RhosightError(
                    f"{folder}: files cannot be locked there ({error.strerror}), so two processes "
                    "would run the same job; give a folder on another file system"
                ) from error
            yield mine

    def _stages(self, job: Job) -> Path:
        return self.path(job) / "stages"

    def _has_stages(self, job: Job) -> bool:
        """Return whether the stages are complete: training them may have been interrupted."""
        return (self.path(job) / TRAINED).exists() and self._stages(job).is_dir()

    def _remove_stages(self, job: Job) -> None:
        """Remove the weights of a finished job, unless another process reads them."""
        if self._stages(job).is_dir():
            with self._lock(job) as mine:
                if mine:
                    gone = self.path(job) / "forgotten"
                    shutil.rmtree(gone, ignore_errors=True)
                    with suppress(OSError):  # in one step: a run would resume from a remainder
                        (self.path(job) / TRAINED).unlink(missing_ok=True)
                        self._stages(job).rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)


def job_folders(jobs: Path, having: str) -> list[Path]:
    """Return the sorted folders of jobs with this file, without those being unpacked."""
    return sorted(p.parent for p in jobs.glob(f"*/{having}") if not p.parent.name.startswith("."))


def list_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine the numbers of a job."""
    chgnet = find_chgnet_version()
    return collect_versions() | ({"chgnet": chgnet} if chgnet else {})


def describe_hardware() -> dict[str, Any]:
    """Describe the machine that a job runs on."""
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "processor": _read_processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def _read_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def order_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return each job once, after the jobs that it needs."""
    ordered: dict[str, Job] = {}

    def add(job: Job) -> None:
        for need in job.needs:
            add(need)
        ordered.setdefault(job.name, job)

    for job in jobs:
        add(job)
    return list(ordered.values())
