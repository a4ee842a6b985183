"""Reproduce the paper's experiments: run their jobs, then make tables and figures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..errors import RhosightError
from ..inputs.progress import AnyProgress
from ..storage import replacing
from .execution import run_jobs, run_on_cluster
from .exhibit import Exhibit
from .exhibits.catalogue import EXPERIMENTS, TRAINED, draw_picture, load_trained
from .jobs import Job, JobFolder, order_jobs
from .plan import Frames, Plan
from .report import write_experiments_report
from .scores import chgnet_caveat
from .tensorboard import log_jobs


@dataclass(frozen=True, eq=False)
class Reproduction:
    """The result of :func:`reproduce`.

    Attributes
    ----------
    exhibits
        Name → table and figure.
    frames
        Name → predictions and history of an exhibit that is made from jobs.
    settings
        Preset, weights, deviations, split, dataset, versions, hardware, seconds.
    folder
        Folder with the files.
    """

    exhibits: dict[str, Exhibit]
    frames: dict[str, Frames]
    settings: dict[str, Any]
    folder: Path

    @property
    def answer_predictions(self) -> pd.DataFrame | None:
        """Predictions behind the answers, of Figure 9 or else of Figure 2."""
        for name in ("figure9", "figure2"):
            if name in self.frames:
                return self.frames[name].predictions
        return None


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
        The command that the user typed, for the record.
    log
        ``"tensorboard"``: write losses and scores of every epoch to ``OUT/tensorboard``.
    scheduler
        Address of a running Dask scheduler whose workers can reach ``out``; they run the jobs.

    Returns
    -------
    The exhibits; ``out`` holds each as CSV, LaTeX, PNG, SVG and PDF, ``settings.json`` and
    ``report.html``.

    Raises
    ------
    RhosightError
        For an unknown name, materials without the inputs of the networks, or weights that are not
        available.
    """
    _require_known(names)
    folder = JobFolder(out)
    entries = {name: load_trained(name).list_entries(plan) for name in names if name in TRAINED}
    by_name = {entry.job.name: entry.job for group in entries.values() for entry in group}
    jobs = list(by_name.values())
    if scheduler:
        run_on_cluster(plan, jobs, folder, scheduler, log)
    run_jobs(plan, jobs, folder, progress, log)
    if log:
        log_jobs(jobs, folder)
    settings = describe_run(plan, jobs, folder, command)
    frames = {name: Frames(group, folder) for name, group in entries.items()}
    exhibits = _make_exhibits(names, plan, frames, Path(out), progress)
    result = Reproduction(exhibits, frames, settings, Path(out))
    _write_summary(result, plan)
    return result


def _require_known(names: Iterable[str]) -> None:
    for name in names:
        if name not in EXPERIMENTS:
            raise RhosightError(
                f"no experiment is called {name!r}; choose from {', '.join(EXPERIMENTS)}"
            )


def _make_exhibits(
    names: Sequence[str],
    plan: Plan,
    frames: dict[str, Frames],
    out: Path,
    progress: AnyProgress | None,
) -> dict[str, Exhibit]:
    """Make and save all exhibits."""
    exhibits: dict[str, Exhibit] = {}
    for name in names:
        if progress:
            progress("tables and figures", len(exhibits), len(names))
        if name in TRAINED:
            exhibit = load_trained(name).make_exhibit(plan, frames[name])
            exhibits[name] = replace(exhibit, note=_extend_note(exhibit, plan))
        else:
            exhibits[name] = draw_picture(name, plan)
        exhibits[name].save(out)
    return exhibits


def _write_summary(result: Reproduction, plan: Plan) -> None:
    """Write ``settings.json`` and ``report.html``."""
    with replacing(result.folder / "settings.json") as draft:
        text = json.dumps(result.settings, indent=1, ensure_ascii=False)
        draft.write_text(text, encoding="utf-8")
    predictions = result.answer_predictions
    write_experiments_report(
        result.folder / "report.html",
        list(result.exhibits.values()),
        pd.DataFrame() if predictions is None else predictions,
        result.settings,
        plan.dataset,
    )


def describe_run(
    plan: Plan, jobs: Sequence[Job], folder: JobFolder, command: str = ""
) -> dict[str, Any]:
    """Return the settings needed to repeat a run, its versions, hardware and seconds."""
    preset, dataset = plan.preset, plan.dataset
    results = [folder.result(job) for job in order_jobs(jobs)]
    hardware = _merge_records(result["hardware"] for result in results)
    hardware.pop("host", None)  # the name of the machine stays in the run folder
    modalities = {job.recipe.modality for job in jobs if job.recipe}
    stacked = next(entry.job.network for entry in plan.stacked() if entry.extent == "all")
    chosen = plan.chosen_clip()[0].job.network
    return {
        "command": command,
        "preset": preset.name,
        "weights": preset.weights,
        "deviations": plan.deviations,
        "recipe": stacked.flat() if "image+text" in modalities else None,
        "clip": chosen.flat() if "clip" in modalities else None,
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
        "versions": _merge_records(result["versions"] for result in results),
        "hardware": hardware,
        "jobs": len(results),
        "seconds_of_all_jobs": round(sum(result["seconds"] for result in results)),
        "processor_seconds_of_all_jobs": round(sum(result["cpu_seconds"] for result in results)),
    }


def _merge_records(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return key → its value, or all its values in words if the records differ."""
    values: dict[str, dict[Any, None]] = {}
    for record in records:
        for key, value in record.items():
            values.setdefault(key, {})[value] = None
    return {
        key: next(iter(distinct)) if len(distinct) == 1 else ", ".join(map(str, distinct))
        for key, distinct in values.items()
    }


def _extend_note(exhibit: Exhibit, plan: Plan) -> str:
    """Return the note of an exhibit with the preset and the caveat on CHGNet."""
    parts = [f"Preset {plan.preset.name}.", exhibit.note, chgnet_caveat(exhibit.table)]
    return " ".join(filter(None, parts))
