"""Keep results with the code, and write their tables into a page of the documentation.

rhosight reproduce all --repeats 5 --write docs/results
python -m rhosight.experiments.published docs/results.md docs/results
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ..dataset.schema import TARGET_NAMES
from ..errors import RhosightError
from ..models.baselines.chgnet import CHGNET_NOTE
from ..storage import replacing
from .answers import SMALL, answer
from .archive import pack_jobs, unpack_jobs
from .jobs import JobFolder
from .reproduction import EXPERIMENTS

if TYPE_CHECKING:
    from .reproduction import Reproduction

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Markers around the generated tables."""

SETTINGS, JOBS, ANSWERS, REPORT = "settings.json", "jobs", "answers.csv", "report.html"
"""What stands beside the tables."""

_TARGETS = {target: names.short for target, names in TARGET_NAMES.items()}


def publish(reproduction: Reproduction, folder: str | os.PathLike) -> list[Path]:
    """Write the tables of all experiments as CSV, how they came about as JSON, and the jobs.

    Returns
    -------
    The paths: ``NAME.csv`` of each exhibit that has scores or curves, ``report.html``, if Figure 2
    or 9 is among them ``answers.csv`` (target, question, verdict, text), ``settings.json`` with
    command, preset, weights, deviations, versions, hardware, seconds, and the jobs of the run
    folder, from which another machine goes on (:mod:`rhosight.experiments.archive`).

    Raises
    ------
    RhosightError
        If the folder cannot be written to, or holds other exhibits (:func:`require_all`).
    """
    folder = Path(folder)
    require_all(folder, reproduction.exhibits)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in reproduction.frames:
            paths.extend(reproduction.exhibits[name].save(folder, ("csv",)))
        if (predictions := reproduction.answered) is not None:
            with replacing(folder / ANSWERS) as draft:
                _answers(predictions, reproduction.settings["units"]).to_csv(draft, index=False)
            paths.append(folder / ANSWERS)
        with replacing(folder / REPORT) as draft:
            shutil.copyfile(reproduction.folder / REPORT, draft)
        with replacing(folder / SETTINGS) as draft:
            text = json.dumps(reproduction.settings, indent=1, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8")
        jobs = JobFolder(reproduction.folder)
        take_up(folder, jobs)  # what is kept there stays, whatever this run folder has
        paths.extend(pack_jobs(jobs, folder / JOBS))
    except OSError as error:
        raise RhosightError(f"{folder}: cannot be written to; give another folder") from error
    return [*paths, folder / REPORT, folder / SETTINGS]


def require_all(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """See that no exhibit would stay of another run: one file of settings speaks of all.

    Raises
    ------
    RhosightError
        If the folder holds an exhibit that is not among the names.
    """
    there = {path.stem for path in Path(folder).glob("*.csv")} & set(EXPERIMENTS)
    if left := sorted(there - set(names)):
        raise RhosightError(
            f"{folder}: holds {', '.join(left)} of another run, which would no longer be what "
            f"{SETTINGS} says; make them again, too (what is finished takes seconds), or give "
            "another folder with --write"
        )


def take_up(folder: str | os.PathLike, jobs: JobFolder) -> int:
    """Put the jobs that :func:`publish` kept into a run folder; how many it had not heard of.

    Raises
    ------
    RhosightError
        If a file of them is damaged.
    """
    return unpack_jobs(Path(folder) / JOBS, jobs)


def markdown(folder: str | os.PathLike) -> str:
    """The README's table: R² of Figure 2's models, CLIP and the baselines, and the paper's.

    Parameters
    ----------
    folder
        Where :func:`publish` wrote ``figure2.csv``; ``table1.csv`` adds CLIP.

    Raises
    ------
    RhosightError
        If there are no such results.
    """
    folder = Path(folder)
    settings = _settings(folder)
    figure2 = _table(folder / "figure2.csv")
    rows = [figure2]
    if (folder / "table1.csv").exists():
        table1 = _table(folder / "table1.csv")
        rows.append(table1[(table1["trial"] == "mean") & (table1["model"] == "clip")])
    table = pd.concat(rows, ignore_index=True)
    targets = [target for target in _TARGETS if target in set(table["target"])]
    folds, repeats = int(figure2["folds"].max()), int(figure2["repeats"].max())
    lines = [
        f"R², validation folds and test part, mean ± standard deviation over {folds} folds "
        f"({repeats} {'repeats' if repeats > 1 else 'repeat'}); *paper*: what it prints. "
        f"Preset `{settings['preset']}`, `{settings['command']}`.",
        "",
        "| model | " + " | ".join(_TARGETS[target] for target in targets) + " |",
        "| --- " * (len(targets) + 1) + "|",
    ]
    for (model, extent), group in table.groupby(["model", "extent"], sort=False):
        name = f"{model} (`{extent}`)" if extent else model
        count = int(group["folds"].max())
        name += f", {count} folds" if count != folds else ""
        cells = [_cell(group[group["target"] == target]) for target in targets]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if table["model"].str.startswith("chgnet").any():
        lines += ["", f"{CHGNET_NOTE}."]
    if (folder / ANSWERS).exists():
        lines += ["", *_verdicts(pd.read_csv(folder / ANSWERS), targets)]
    return "\n".join(lines)


def _answers(predictions: pd.DataFrame, units: dict[str, str]) -> pd.DataFrame:
    rows = [
        (target, found.question.words, found.verdict, found.text)
        for target, answers in answer(predictions, units).items()
        for found in answers
    ]
    return pd.DataFrame(rows, columns=["target", "question", "verdict", "text"])


def _verdicts(answers: pd.DataFrame, targets: list[str]) -> list[str]:
    """Lines of a table: one row a question."""
    table = answers.pivot_table("verdict", "question", "target", aggfunc="first", sort=False)
    lines = [
        f"Which differences survive a paired test over all folds (`{REPORT}` says by how much; "
        f"“no”: no gain of {100 * SMALL:.0f} % or more, “uncertain”: these runs cannot tell):",
        "",
        "| | " + " | ".join(_TARGETS[target] for target in targets) + " |",
        "| --- " * (len(targets) + 1) + "|",
    ]
    for question, verdicts in table.iterrows():
        lines.append(f"| {question} | " + " | ".join(verdicts[targets]) + " |")
    return lines


def insert(readme: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Put the table between the README's markers; whether that changed anything.

    Raises
    ------
    RhosightError
        If the README has no markers, or the folder no results.
    """
    path = Path(readme)
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise RhosightError(f"{path}: no {BEGIN} and {END}; put both where the table is to stand")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    new = f"{before}{BEGIN}\n{markdown(folder)}\n{END}{after}"
    with replacing(path) as draft:
        draft.write_text(new, encoding="utf-8")
    return new != text


def _cell(rows: pd.DataFrame) -> str:
    """Such as "0.85 ± 0.04, 0.80 ± 0.03 (*paper* 0.62, 0.72)"."""
    parts = rows.set_index("part")
    ours, printed = [], []
    for part in ("validation", "test"):
        if part in parts.index:
            row = parts.loc[part]
            spread = "" if pd.isna(row["r2_std"]) else f" ± {row['r2_std']:.2f}"
            ours.append(f"{round(row['r2'], 2) + 0:.2f}{spread}")  # no minus before zero
            if pd.notna(row["paper_r2"]):
                printed.append(f"{row['paper_r2']:.2f}")
    paper = f" (*paper* {', '.join(printed)})" if printed else ""
    return ", ".join(ours) + paper


def _settings(folder: Path) -> dict:
    path = folder / SETTINGS
    if not path.exists():
        raise RhosightError(f"{folder}: no results; `rhosight reproduce` writes them with --write")
    return json.loads(path.read_text(encoding="utf-8"))


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise RhosightError(f"{path}: not there; run `rhosight reproduce figure2` with --write")
    names = dict.fromkeys(("trial", "target", "extent", "model", "stage", "part"), str)
    return pd.read_csv(path, dtype=names).fillna({name: "" for name in names})


if __name__ == "__main__":
    try:
        insert(*sys.argv[1:3])
    except RhosightError as error:
        sys.exit(f"error: {error}")
