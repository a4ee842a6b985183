"""List the jobs of a run folder, show one of them, and compare two folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import RhosightError
from ..evaluation.statistics import FOLD_KEYS, fold_scores
from ..storage import hold_lock
from .jobs import RESULT, job_folders

COLUMNS = ["name", "state", "kind", "models", "targets", "repeat", "fold", "seconds", "finished"]


def list_jobs(folder: str | os.PathLike) -> pd.DataFrame:
    """List the jobs of a run folder, one row each.

    Returns
    -------
    DataFrame with columns name, state ("finished", "running" or "interrupted"), kind, models (those
    that are trained), targets (their number; empty for a baseline, which predicts all), repeat and
    fold (from 0, as in the name), seconds, finished (UTC).

    Raises
    ------
    RhosightError
        If the folder is not a run folder.
    """
    rows = []
    for path in _job_folders(Path(folder)):
        about = _read(path / "job.json")
        result = _read(path / RESULT) if (path / RESULT).exists() else {}
        state = "finished" if result else "running" if _is_held(path) else "interrupted"
        recipe = about["recipe"] or {}
        models = about["baseline"] or " ".join(
            filter(None, [recipe["modality"], recipe["extent"] if _reads_text(recipe) else ""])
        )
        row = [path.name, state, about["kind"], models, len(recipe.get("targets", ())) or ""]
        row += [about["split"]["repeat"], about["split"]["fold"]]
        rows.append([*row, result.get("seconds"), result.get("finished", "")])
    return pd.DataFrame(rows, columns=COLUMNS)


def show_job(folder: str | os.PathLike, name: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the settings of a job and its scores.

    Parameters
    ----------
    folder
        Run folder.
    name
        Name of the job, or a beginning or end of it that is unique.

    Returns
    -------
    The settings with run time and versions, and R², RMSE and MAE of each model, stage, target and
    part (unit of the target; empty if the job predicts nothing or is not finished).

    Raises
    ------
    RhosightError
        If no job, or more than one, matches the name.
    """
    jobs = _job_folders(Path(folder))
    matches = [p for p in jobs if p.name.startswith(name)]
    matches = matches or [p for p in jobs if p.name.endswith(name)]
    if len(matches) != 1:
        problem = f"{len(matches)} jobs are" if matches else "no job is"
        raise RhosightError(
            f"{folder}: {problem} called {name!r}; `rhosight runs list` shows their names"
        )
    about = _read(matches[0] / "job.json")
    result = matches[0] / RESULT
    if not result.exists():
        return about, pd.DataFrame()
    predictions = pd.read_parquet(matches[0] / "predictions.parquet")
    scores = _score_job(predictions, about) if len(predictions) else pd.DataFrame()
    return about | _read(result), scores


def compare_runs(
    one: str | os.PathLike, other: str | os.PathLike
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare two runs: settings that differ, and scores of the exhibits of both.

    Parameters
    ----------
    one, other
        Folders that ``rhosight reproduce`` wrote.

    Returns
    -------
    Settings that differ (setting, one, other), and the cells of the validation and test set that
    the tables of both have: exhibit, the columns that identify the cell, ``r2`` and ``rmse`` of
    both as ``…_one`` and ``…_other``, and their change, ``r2_change`` and ``rmse_change``
    (other − one).

    Raises
    ------
    RhosightError
        If a folder has no finished experiment.
    """
    settings = [_flatten(_read_settings(Path(folder))) for folder in (one, other)]
    names = [name for name in {**settings[0], **settings[1]}]
    rows = [[n, settings[0].get(n, ""), settings[1].get(n, "")] for n in names]
    differ = pd.DataFrame([r for r in rows if r[1] != r[2]], columns=["setting", "one", "other"])
    tables = []
    for path in sorted(Path(one).glob("*.csv")):
        if not (Path(other) / path.name).exists():
            continue
        blank = {"r2": [""], "rmse": [""]}  # in other columns an empty text is a name
        pair = [
            pd.read_csv(Path(f) / path.name, keep_default_na=False, na_values=blank)
            for f in (one, other)
        ]
        keys = ["trial", "target", "extent", "model", "stage", "part"]
        keys = [key for key in keys if all(key in table for table in pair)]
        if not all({"r2", "rmse", "part"} <= set(table) for table in pair) or "epoch" in pair[0]:
            continue
        left, right = (table.loc[table["part"] != "train", [*keys, "r2", "rmse"]] for table in pair)
        both = left.merge(right, on=keys, suffixes=("_one", "_other"))
        if "trial" not in both:  # tables of trials are concatenated with it
            both["trial"] = ""
        for score in ("r2", "rmse"):
            both[f"{score}_change"] = both[f"{score}_other"] - both[f"{score}_one"]
        both.insert(0, "exhibit", path.stem)
        tables.append(both)
    return differ, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _job_folders(folder: Path) -> list[Path]:
    jobs = folder / "jobs"
    if not jobs.is_dir():
        raise RhosightError(
            f"{folder}: not a run folder of `rhosight reproduce`; give one with --out"
        )
    folders = job_folders(jobs, "job.json")
    if not folders and list(jobs.glob("*.parquet")):
        raise RhosightError(
            f"{folder}: contains packed jobs; `rhosight reproduce all --write {folder}` unpacks "
            "them into its run folder, which can be listed"
        )
    return folders


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "settings.json"
    if not path.exists() or not (folder / "jobs").is_dir():
        raise RhosightError(
            f"{folder}: no finished experiment; run `rhosight reproduce` with --out {folder}"
        )
    return _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RhosightError(
            f"{path}: cannot be read ({error}); remove its folder, and the job runs again"
        ) from error


def _is_held(path: Path) -> bool:
    """Return whether a process is running the job."""
    with hold_lock(path / "lock") as mine:
        return not mine


def _reads_text(recipe: dict[str, Any]) -> bool:
    return recipe["modality"] != "image"


def _score_job(predictions: pd.DataFrame, about: dict[str, Any]) -> pd.DataFrame:
    split = {name: about["split"][name] for name in ("repeat", "fold")}
    tables = []
    for (part, stage), rows in predictions.groupby(["part", "stage"], sort=False):
        scores = fold_scores(rows.assign(**split))
        tables.append(scores.assign(stage=str(stage), part=str(part)))
    table = pd.concat(tables, ignore_index=True)
    first = [name for name in FOLD_KEYS if name not in split]
    return table[[*first, "stage", "part", "n", "r2", "rmse", "mae"]]


def _flatten(value: Any, name: str = "") -> dict[str, str]:
    """Flatten nested settings to ``a.b.c`` → text."""
    if not isinstance(value, dict):
        return {name: json.dumps(value, ensure_ascii=False)}
    texts: dict[str, str] = {}
    for key, item in value.items():
        texts |= _flatten(item, f"{name}.{key}" if name else key)
    return texts
