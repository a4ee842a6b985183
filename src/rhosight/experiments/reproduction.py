"""Run the paper's experiments: their jobs, then tables and figures from what the jobs left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any, Literal

import pandas as pd

from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from ..models.baselines.chgnet import CHGNET_NOTE
from ..storage import replacing
from .exhibit import Exhibit
from .jobs import Job, JobFolder, in_order
from .plan import Frames, Plan
from .report import write_experiments_report

TRAINED: tuple[str, ...] = (
    "table1",
    "table2",
    "table3",
    "figure2",
    "figure6",
    "figure7",
    "figure9",
)
"""Experiments that are made of jobs; the others are pictures of the data and the networks."""

EXPERIMENTS: tuple[str, ...] = (
    *(f"table{number}" for number in range(1, 4)),
    *(f"figure{number}" for number in range(1, 10)),
)
"""Names of the paper's tables and figures, each a module of this package."""


@dataclass(frozen=True, eq=False)
class Reproduction:
    """What :func:`reproduce` found.

    Attributes
    ----------
    exhibits
        Name → table and figure.
    frames
        Name → predictions and history of an experiment that is made of jobs.
    settings
        Preset, weights, deviations, split, dataset, versions, hardware, seconds.
    folder
        Where the files are.
    """

    exhibits: dict[str, Exhibit]
    frames: dict[str, Frames]
    settings: dict[str, Any]
    folder: Path

    @property
    def answered(self) -> pd.DataFrame | None:
        """Predictions that the answers come from: Figure 9's or 2's, if one of them was made."""
        found = (self.frames[name] for name in ("figure9", "figure2") if name in self.frames)
        return next((frames.predictions for frames in found), None)


def reproduce(
    names: Sequence[str],
    plan: Plan,
    out: str | os.PathLike,
    progress: AnyProgress | None = None,
    command: str = "",
    log: Literal["tensorboard"] | None = None,
    scheduler: str | None = None,
) -> Reproduction:
    """Run some of the paper's experiments and write their tables and figures.

    Parameters
    ----------
    names
        Some of :data:`EXPERIMENTS`.
    plan
        Dataset, preset, repeats.
    out
        Run folder. Jobs that are finished there are not run again, whichever experiment, number
        of repeats or process ran them; several processes may work on one folder.
    progress
        Called with (label, step, steps, ...).
    command
        What the user typed, for the record.
    log
        ``"tensorboard"``: write losses and scores of every epoch to ``OUT/tensorboard``.
    scheduler
        Address of a running Dask scheduler whose workers reach ``out``; they run the jobs.

    Returns
    -------
    The exhibits; ``out`` holds each as CSV, LaTeX, PNG, SVG and PDF, and ``settings.json``.

    Raises
    ------
    RhosightError
        For an unknown name, materials that lack what the networks read, or weights that cannot be
        had.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise RhosightError(
                f"no experiment is called {name!r}; known: {', '.join(EXPERIMENTS)}"
            )
    folder = JobFolder(out)
    entries = {name: _module(name).entries(plan) for name in names if name in TRAINED}
    jobs = {entry.job.name: entry.job for found in entries.values() for entry in found}
    if scheduler:
        run_on_cluster(plan, list(jobs.values()), folder, scheduler, log)
    run_jobs(plan, list(jobs.values()), folder, progress, log)
    if log:
        log_jobs(list(jobs.values()), folder)
    settings = describe_run(plan, list(jobs.values()), folder, command)
    read: dict[str, Frames] = {}
    exhibits = {}
    for name in names:
        if progress:
            progress("tables and figures", len(exhibits), len(names))
        if name in TRAINED:
            read[name] = Frames(entries[name], folder)
            exhibit = _module(name).exhibit(plan, read[name])
            exhibits[name] = replace(exhibit, note=_note(exhibit, plan))
        else:
            exhibits[name] = _picture(name, plan)
        exhibits[name].save(out)
    path = Path(out) / "settings.json"
    with replacing(path) as draft:
        draft.write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
    found = Reproduction(exhibits, read, settings, Path(out))
    answered = pd.DataFrame() if found.answered is None else found.answered
    shown = list(exhibits.values())
    write_experiments_report(Path(out) / "report.html", shown, answered, settings, plan.dataset)
    return found


_ALONE = Lock()
"""Workers that are threads of one process take turns: jobs draw the process's random numbers."""


def run_jobs(
    plan: Plan,
    jobs: Sequence[Job],
    folder: JobFolder,
    progress: AnyProgress | None = None,
    log: Literal["tensorboard"] | None = None,
) -> None:
    """Run those jobs of a plan that are not finished."""
    if all(folder.finished(job) for job in jobs):
        return
    from .work import Workbench  # the networks' libraries take seconds to load

    on_finish = tensorboard_logger(folder) if log else None
    with _ALONE:
        folder.run(jobs, Workbench(plan.dataset, plan.preset.targets), progress, on_finish)


def run_on_cluster(
    plan: Plan,
    jobs: Sequence[Job],
    folder: JobFolder,
    scheduler: str,
    log: Literal["tensorboard"] | None = None,
) -> None:
    """Let every worker of a Dask scheduler run jobs, until none is left.

    The workers share the run folder, whose locks give each job to one of them.

    Raises
    ------
    RhosightError
        If no scheduler answers there, or it has no workers.
    """
    from distributed import Client

    from ..dataset.build.workers import CONNECT_SECONDS

    waiting = [job for job in jobs if not folder.finished(job)]
    if not waiting:
        return
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RhosightError(
            f"{scheduler}: no Dask scheduler answers there ({type(error).__name__}); start one "
            "with `dask scheduler`, or leave out --scheduler to use this process"
        ) from error
    with client:
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise RhosightError(f"{scheduler}: has no workers; start some with `dask worker`")
        everywhere = client.scatter(plan, broadcast=True, hash=False)
        futures = [
            client.submit(
                run_jobs, everywhere, waiting, folder, None, log, workers=[worker], pure=False
            )
            for worker in workers
        ]
        client.gather(futures)


def log_jobs(jobs: Sequence[Job], folder: JobFolder) -> None:
    """Write what was not logged when it ran, such as jobs that were kept elsewhere."""
    write = tensorboard_logger(folder)
    for job in in_order(jobs):
        if not _logged(job, folder).exists():
            write(job)


def _logged(job: Job, folder: JobFolder) -> Path:
    return folder.folder.parent / "tensorboard" / job.name


def tensorboard_logger(folder: JobFolder) -> Callable[[Job], None]:
    """Writes the history of a job where TensorBoard finds it: one run a job.

    Raises
    ------
    RhosightError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RhosightError(
            "--log tensorboard: it is not installed; pip install 'rhosight[tensorboard]'"
        ) from error

    def write(job: Job) -> None:
        history = folder.history(job)
        if history.empty:
            return
        with SummaryWriter(str(_logged(job, folder))) as writer:
            for (model, stage), rows in history.groupby(["model", "stage"], sort=False):
                scores = rows.drop(columns=["model", "stage", "epoch"]).dropna(axis=1)
                for name, values in scores.items():
                    for epoch, value in zip(rows["epoch"], values, strict=True):
                        writer.add_scalar(f"{model}, {stage}/{name}", value, int(epoch))

    return write


def describe_run(
    plan: Plan, jobs: Sequence[Job], folder: JobFolder, command: str = ""
) -> dict[str, Any]:
    """All that it takes to run this again, and what it took."""
    preset, dataset = plan.preset, plan.dataset
    results = [folder.result(job) for job in in_order(jobs)]
    hardware = _all_of(result["hardware"] for result in results)
    hardware.pop("host", None)  # whose machine it was is for the run folder to know
    ran = {job.recipe.modality for job in jobs if job.recipe}
    stacked = next(entry.job.recipe for entry in plan.stacked() if entry.extent == "all")
    chosen = plan.chosen_clip()[0].job.recipe
    return {
        "command": command,
        "preset": preset.name,
        "weights": preset.weights,
        "deviations": plan.deviations,
        "recipe": stacked.flat() if "image+text" in ran else None,
        "clip": chosen.flat() if "clip" in ran else None,
        "repeats": plan.repeats,
        "n_splits": preset.n_splits,
        "test_fraction": preset.test_fraction,
        "only_folds": plan.only_folds,
        "groups": "formula",
        "dataset": dataset.metadata.get("name", ""),
        "materials": len(dataset),
        "dataset_sha256": plan.fingerprint,
        "targets": list(preset.targets),
        "units": {target: dataset.units[target] for target in preset.targets},
        "versions": _all_of(result["versions"] for result in results),
        "hardware": hardware,
        "jobs": len(results),
        "seconds_of_all_jobs": round(sum(result["seconds"] for result in results)),
        "processor_seconds_of_all_jobs": round(sum(result["cpu_seconds"] for result in results)),
    }


def _all_of(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Key → its value in all records, or its values in words where jobs ran on several."""
    found: dict[str, dict[Any, None]] = {}
    for record in records:
        for key, value in record.items():
            found.setdefault(key, {})[value] = None
    return {
        key: next(iter(values)) if len(values) == 1 else ", ".join(map(str, values))
        for key, values in found.items()
    }


def _note(exhibit: Exhibit, plan: Plan) -> str:
    """With which networks, and what one should know of a row."""
    said = [f"Preset {plan.preset.name}.", exhibit.note]
    if "model" in exhibit.table and exhibit.table["model"].str.startswith("chgnet").any():
        said.append(f"{CHGNET_NOTE}.")
    return " ".join(filter(None, said))


def _module(name: str) -> ModuleType:
    return import_module(f".exhibits.{name}", __package__)


def _picture(name: str, plan: Plan) -> Exhibit:
    """Figures without training: of the data, or of the networks."""
    module = _module(name)
    if name == "figure5":
        return module.exhibit(plan.preset.stacked("all")[0])
    return module.exhibit(plan.dataset)
