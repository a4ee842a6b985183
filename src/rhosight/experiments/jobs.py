"""Jobs: the units of the paper's experiments, and the folder that holds their results.

A job is one model, or one chain of models, trained on one fold. Its name is derived from all that
decides about its result, so that figures that share a model share the job, and a finished job is
never run again. Any number of processes may work on one folder: each job is locked while it runs,
and the system lifts the lock of a process that dies.

    FOLDER/jobs/NAME/job.json             what decides about the result
                     result.json          seconds, hardware, versions; it marks the end
                     predictions.parquet  one row a prediction
                     history.parquet      one row an epoch (networks)
                     stages/              weights and checkpoints, as long as something needs them
                     trained              marks that the stages are whole
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
from ..models.baselines.chgnet import chgnet_version
from ..models.gaussian_process.recipe import DESCRIPTOR_RECIPES, descriptor_recipe
from ..models.provenance import versions
from ..storage import hold_lock, replacing, share_lock

if TYPE_CHECKING:
    import pandas as pd

    from ..networks.recipe import Recipe

logger = logging.getLogger(__name__)

RESULT = "result.json"
"""Its presence says that a job is finished."""

TRAINED = "trained"

POLL_SECONDS = 1.0
"""Between two looks at jobs that another process is running."""


@dataclass(frozen=True)
class Split:
    """Which materials are held out: 15 % for a test part, the rest in five folds (paper section 3).

    Attributes
    ----------
    repeat
        Seed of test part and folds; another repeat draws both anew.
    fold
        Which of the folds validates.
    n_splits, test_fraction
        Number of folds, and share of the test part.
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
        ``"network"`` trains the recipe's models in their order; ``"baseline"`` fits one.
    dataset
        Fingerprint of the materials.
    split
        Which fold it is about.
    recipe
        Of a network.
    baseline
        Name of a baseline or of a descriptor recipe.
    seed
        Of a baseline; a network's stands in its recipe.
    needs
        Jobs whose trained stages it begins with.
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
        """All that decides about the result, as JSON. Versions of libraries are no part of it:
        repeats accumulate over months, and each result says with which it was made.
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
        if self.baseline not in DESCRIPTOR_RECIPES:
            return None
        return descriptor_recipe(self.baseline).model_dump(mode="json")

    @cached_property
    def name(self) -> str:
        """Readable in front, derived from the content behind."""
        return _name(self.basis)


def _name(basis: dict[str, Any]) -> str:
    what = basis["baseline"] or basis["recipe"]["modality"].replace("+", "-")
    if basis["kind"] == "network" and not any(basis["recipe"]["epochs"]):
        what += "-pretraining"
    digest = hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:12]
    return f"{what}-r{basis['split']['repeat']}-f{basis['split']['fold']}-{digest}"


class Worker(Protocol):
    """What does the work; see :class:`rhosight.experiments.work.Workbench`."""

    def run(
        self, job: Job, stages: Path, given: Sequence[Path], progress: AnyProgress | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predictions and history of a job. ``stages`` is its folder for weights and checkpoints,
        ``given`` are those of the jobs it needs.
        """
        ...


class JobFolder:
    """The results of many jobs in one folder.

    Parameters
    ----------
    folder
        Is made if it is not there.
    """

    def __init__(self, folder: str | os.PathLike):
        # as workers elsewhere, in folders of their own, will find it
        self.folder = Path(folder).resolve() / "jobs"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RhosightError(
                f"{folder}: no folder can be made there ({error.strerror}); give another with --out"
            ) from error

    def path(self, job: Job) -> Path:
        """Where a job's results are, or will be."""
        return self.folder / self._earlier.get(job.name, job.name)

    @cached_property
    def _earlier(self) -> dict[str, str]:
        """Today's name of a job → the name under which an earlier version of rhosight ran it.

        A recipe may have grown fields since; their defaults are what was done before.
        """
        from ..networks.recipe import Recipe

        found: dict[str, str] = {}

        def name_today(name: str) -> str:
            basis = json.loads((self.folder / name / "job.json").read_text(encoding="utf-8"))
            if basis["recipe"]:
                recipe = Recipe.from_flat(basis["recipe"])
                basis["recipe"] = recipe.flat(exclude_none=True)
            basis["needs"] = [name_today(need) for need in basis["needs"]]
            basis.setdefault("descriptors", None)
            return _name(basis)

        for path in job_folders(self.folder, RESULT):
            try:
                found[name_today(path.name)] = path.name
            except (OSError, ValueError, KeyError, TypeError):  # of another recipe: another job
                continue
        return found

    def finished(self, job: Job) -> bool:
        return (self.path(job) / RESULT).exists()

    def result(self, job: Job) -> dict[str, Any]:
        """Seconds, time, hardware and versions of a finished job."""
        return json.loads((self.path(job) / RESULT).read_text(encoding="utf-8"))

    def predictions(self, job: Job) -> pd.DataFrame:
        return self._frame(job, "predictions")

    def history(self, job: Job) -> pd.DataFrame:
        return self._frame(job, "history")

    def _frame(self, job: Job, name: str) -> pd.DataFrame:
        import pyarrow.parquet as pq

        path = self.path(job) / f"{name}.parquet"
        try:
            return pq.ParquetFile(path).read().to_pandas()  # of hundreds: pandas' own takes longer
        except (OSError, ValueError) as error:
            raise RhosightError(
                f"{path}: not readable; remove the folder {path.parent}, and the same command runs "
                "this job again"
            ) from error

    def run(
        self,
        jobs: Sequence[Job],
        worker: Worker,
        progress: AnyProgress | None = None,
        on_finish: Callable[[Job], None] | None = None,
    ) -> None:
        """Run all jobs that are not finished, and what they need; several processes may do so.

        Parameters
        ----------
        jobs
            In any order, without those that they need.
        worker
            Does the work.
        progress
            Called with (label, step, steps, ...).
        on_finish
            Called with each job that this call has run.
        """
        ordered = in_order(jobs)
        needed = {need.name for job in ordered for need in job.needs}
        waiting = [job for job in ordered if not self.finished(job)]
        while waiting:
            idle = True
            for job in list(waiting):
                place = f"job {len(ordered) - len(waiting) + 1} of {len(ordered)}"
                if self.finished(job):  # by another process
                    waiting.remove(job)
                elif self._try(job, worker, progress, place):
                    waiting.remove(job)
                    idle = False
                    if on_finish:
                        on_finish(job)
                    if job.name not in needed:
                        self._forget_stages(job)
            if waiting and idle:
                time.sleep(POLL_SECONDS)
        for job in ordered:
            self._forget_stages(job)

    def _try(self, job: Job, worker: Worker, progress: AnyProgress | None, place: str) -> bool:
        """Run a job, unless another process holds it or one that it needs; whether it is finished
        now.
        """
        if not all(self.finished(need) for need in job.needs):
            return False
        with ExitStack() as stack:
            if not stack.enter_context(self._lock(job)):
                return False
            if self.finished(job):
                return True
            for need in job.needs:
                if not self._trained(need):  # forgotten after an earlier run
                    with self._lock(need) as mine:
                        if not mine:
                            return False
                        self._train(need, worker, progress, place)  # its result stays as it is
                shared = stack.enter_context(self._lock(need, shared=True))
                if not shared or not self._trained(need):  # another process has forgotten it again
                    return False
            seconds = self._work(job, worker, progress, place)
            logger.info("%s: %s, %.0f s", place, job.name, seconds)
            return True

    def _train(
        self, job: Job, worker: Worker, progress: AnyProgress | None, place: str
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Leave a job's stages whole, going on from what is there of them."""

        def report(text: str, *values: Any) -> None:
            fold = f"repeat {job.split.repeat + 1}, fold {job.split.fold + 1}"
            progress(f"{place} ({fold}): {text}", *values)

        stages = self._stages(job)
        stages.mkdir(exist_ok=True)
        given = [self._stages(need) for need in job.needs]
        found = worker.run(job, stages, given, report if progress else None)
        (self.path(job) / TRAINED).touch()
        return found

    def _work(self, job: Job, worker: Worker, progress: AnyProgress | None, place: str) -> float:
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
            "hardware": hardware(),
            "versions": software(),
        }
        with replacing(folder / RESULT) as draft:  # last: it marks the end
            draft.write_text(json.dumps(about, indent=1), encoding="utf-8")
        return seconds

    @contextmanager
    def _lock(self, job: Job, shared: bool = False) -> Iterator[bool]:
        """Whether this process holds the job now, alone or with others that only read its
        stages.
        """
        folder = self.path(job)
        folder.mkdir(exist_ok=True)
        with ExitStack() as stack:
            try:
                lock = share_lock if shared else hold_lock
                mine = stack.enter_context(lock(folder / "lock"))
            except OSError as error:
                raise RhosightError(
                    f"{folder}: no file can be locked there ({error.strerror}), so that two "
                    "processes would run the same job; give a folder on another file system"
                ) from error
            yield mine

    def _stages(self, job: Job) -> Path:
        return self.path(job) / "stages"

    def _trained(self, job: Job) -> bool:
        """Whether its stages are there and whole: training them anew may have been interrupted."""
        return (self.path(job) / TRAINED).exists() and self._stages(job).is_dir()

    def _forget_stages(self, job: Job) -> None:
        """Remove the weights of a finished job, unless another process reads them."""
        if self._stages(job).is_dir():
            with self._lock(job) as mine:
                if mine:
                    gone = self.path(job) / "forgotten"
                    shutil.rmtree(gone, ignore_errors=True)
                    with suppress(OSError):  # all at once: a part would be gone on from
                        (self.path(job) / TRAINED).unlink(missing_ok=True)
                        self._stages(job).rename(gone)
                    shutil.rmtree(gone, ignore_errors=True)


def job_folders(jobs: Path, having: str) -> list[Path]:
    """Folders of jobs that have a file of this name, sorted. A dot: one is being unpacked."""
    return sorted(p.parent for p in jobs.glob(f"*/{having}") if not p.parent.name.startswith("."))


def software() -> dict[str, str]:
    """Versions of what decides about the numbers of a job."""
    chgnet = chgnet_version()
    return versions() | ({"chgnet": chgnet} if chgnet else {})


def hardware() -> dict[str, Any]:
    """What a job ran on."""
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Each job once, after those that it needs."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        for need in job.needs:
            add(need)
        found.setdefault(job.name, job)

    for job in jobs:
        add(job)
    return list(found.values())
