"""Keep results with the code, and write their tables into a page.

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
from ..evaluation.html import NBSP
from ..storage import replacing
from .answers import SMALL, answer
from .archive import pack_jobs, unpack_jobs
from .exhibits.catalogue import EXPERIMENTS
from .jobs import JobFolder
from .scores import chgnet_caveat, format_cell

if TYPE_CHECKING:
    from .reproduction import Reproduction

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
"""Markers around the generated tables."""

SETTINGS, JOBS, ANSWERS, REPORT = "settings.json", "jobs", "answers.csv", "report.html"
"""Files and folder beside the tables."""


def publish(reproduction: Reproduction, folder: str | os.PathLike) -> list[Path]:
    """Write the tables of all experiments as CSV, the settings as JSON, and the jobs.

    Returns
    -------
    The paths: ``NAME.csv`` of each exhibit with scores or curves, ``report.html``, ``answers.csv``
    (target, question, verdict, text) if Figure 2 or 9 is among the exhibits, ``settings.json`` with
    command, preset, weights, deviations, versions, hardware, seconds, and the jobs of the run
    folder, from which another machine continues (:mod:`rhosight.experiments.archive`).

    Raises
    ------
    RhosightError
        If the folder is not writable, or contains other exhibits (:func:`require_all`).
    """
    folder = Path(folder)
    require_all(folder, reproduction.exhibits)
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in reproduction.frames:
            paths.extend(reproduction.exhibits[name].save(folder, ("csv",)))
        if (predictions := reproduction.answer_predictions) is not None:
            with replacing(folder / ANSWERS) as draft:
                _tabulate_answers(predictions, reproduction.settings["units"]).to_csv(
                    draft, index=False
                )
            paths.append(folder / ANSWERS)
        with replacing(folder / REPORT) as draft:
            shutil.copyfile(reproduction.folder / REPORT, draft)
        with replacing(folder / SETTINGS) as draft:
            text = json.dumps(reproduction.settings, indent=1, ensure_ascii=False)
            draft.write_text(text + "\n", encoding="utf-8")
        jobs = JobFolder(reproduction.folder)
        import_jobs(folder, jobs)  # also keep the jobs that this run folder lacks
        paths.extend(pack_jobs(jobs, folder / JOBS))
    except OSError as error:
        raise RhosightError(f"{folder}: cannot write to the folder; give another") from error
    return [*paths, folder / REPORT, folder / SETTINGS]


def require_all(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Check that no exhibit of another run remains in a folder.

    One file of settings describes all exhibits.

    Raises
    ------
    RhosightError
        If the folder contains an exhibit that is not among the names.
    """
    there = {path.stem for path in Path(folder).glob("*.csv")} & set(EXPERIMENTS)
    if left := sorted(there - set(names)):
        raise RhosightError(
            f"{folder}: contains {', '.join(left)} of another run, which {SETTINGS} would no "
            "longer describe; reproduce them too (finished jobs take seconds), or give another "
            "folder with --write"
        )


def import_jobs(folder: str | os.PathLike, jobs: JobFolder) -> int:
    """Unpack the jobs that :func:`publish` kept into a run folder.

    Returns the number of jobs that the run folder did not have.

    Raises
    ------
    RhosightError
        If a file of packed jobs is damaged.
    """
    return unpack_jobs(Path(folder) / JOBS, jobs)


def render_markdown(folder: str | os.PathLike) -> str:
    """Render tables of R², ours and the paper's, and of the answers.

    Rows are the models of Figure 2, CLIP and the baselines.

    Parameters
    ----------
    folder
        Folder that :func:`publish` wrote ``figure2.csv`` to; ``table1.csv`` adds CLIP.

    Raises
    ------
    RhosightError
        If the results are missing.
    """
    folder = Path(folder)
    settings = _read_settings(folder)
    figure2 = _read_table(folder / "figure2.csv")
    rows = [figure2]
    if (folder / "table1.csv").exists():
        table1 = _read_table(folder / "table1.csv")
        rows.append(table1[(table1["trial"] == "mean") & (table1["model"] == "clip")])
    table = pd.concat(rows, ignore_index=True)
    targets = [target for target in TARGET_NAMES if target in set(table["target"])]
    folds, repeats = int(figure2["folds"].max()), int(figure2["repeats"].max())
    lines = [
        f"R² on validation folds and test set, mean ± standard deviation over {folds} folds "
        f"({repeats} {'repeats' if repeats > 1 else 'repeat'}); *paper*: its printed score. "
        f"Preset `{settings['preset']}`, `{settings['command']}`.",
        "",
        "| model | " + " | ".join(TARGET_NAMES[target].short for target in targets) + " |",
        "| --- " * (len(targets) + 1) + "|",
    ]
    for (model, extent), group in table.groupby(["model", "extent"], sort=False):
        name = f"{model} (`{extent}`)" if extent else str(model)
        count = int(group["folds"].max())
        name += f", {count} folds" if count != folds else ""
        cells = [_format_scores(group[group["target"] == target]) for target in targets]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if caveat := chgnet_caveat(table):
        lines += ["", caveat]
    if (folder / ANSWERS).exists():
        lines += ["", *_list_verdicts(pd.read_csv(folder / ANSWERS), targets)]
    return "\n".join(lines)


def _tabulate_answers(predictions: pd.DataFrame, units: dict[str, str]) -> pd.DataFrame:
    rows = [
        (target, item.question.words, item.verdict, item.text)
        for target, answers in answer(predictions, units).items()
        for item in answers
    ]
    return pd.DataFrame(rows, columns=["target", "question", "verdict", "text"])


def _list_verdicts(answers: pd.DataFrame, targets: list[str]) -> list[str]:
    """Return the lines of a table with one row per question."""
    table = answers.pivot_table("verdict", "question", "target", aggfunc="first", sort=False)
    lines = [
        f"Significant differences in a paired test over all folds (`{REPORT}` gives their sizes; "
        f"“no”: no gain of {100 * SMALL:.0f} % or more, “uncertain”: these runs cannot tell):",
        "",
        "| | " + " | ".join(TARGET_NAMES[target].short for target in targets) + " |",
        "| --- " * (len(targets) + 1) + "|",
    ]
    for question, verdicts in table.iterrows():
        lines.append(f"| {question} | " + " | ".join(verdicts[targets]) + " |")
    return lines


def insert_tables(page: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Write the tables between the markers of a page.

    Returns whether the page changed.

    Raises
    ------
    RhosightError
        If the page has no markers, or the folder no results.
    """
    path = Path(page)
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise RhosightError(
            f"{path}: no {BEGIN} and {END}; add both around the place of the tables"
        )
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    new = f"{before}{BEGIN}\n{render_markdown(folder)}\n{END}{after}"
    with replacing(path) as draft:
        draft.write_text(new, encoding="utf-8")
    return new != text


def _format_scores(rows: pd.DataFrame) -> str:
    """Return a text such as "0.85 ± 0.04, 0.80 ± 0.03 (*paper* 0.62, 0.72)"."""
    by_part = {row["part"]: row for _, row in rows.iterrows()}
    cells = [by_part[part] for part in ("validation", "test") if part in by_part]
    ours = [text for cell in cells for text in format_cell(cell)[:1]]
    printed = [text for cell in cells for text in format_cell(cell, "paper")[:1]]
    paper = f" (*paper* {', '.join(printed)})" if printed else ""
    return ", ".join(ours).replace(NBSP, " ") + paper


def _read_settings(folder: Path) -> dict:
    path = folder / SETTINGS
    if not path.exists():
        raise RhosightError(f"{folder}: no results; `rhosight reproduce` writes them with --write")
    return json.loads(path.read_text(encoding="utf-8"))


def _read_table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise RhosightError(f"{path}: no such file; run `rhosight reproduce figure2` with --write")
    names = dict.fromkeys(("trial", "target", "extent", "model", "stage", "part"), str)
    return pd.read_csv(path, dtype=names).fillna({name: "" for name in names})


if __name__ == "__main__":
    try:
        insert_tables(*sys.argv[1:3])
    except RhosightError as error:
        sys.exit(f"error: {error}")
