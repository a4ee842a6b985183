"""The report of the paper's experiments: one self-contained HTML file, answers first.

What is computed is here; words and layout are in ``templates/experiments.html.j2``.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..evaluation.html import (
    NBSP,
    describe_channel,
    format_number,
    format_significant,
    inline_svg,
    write_page,
)
from ..models.baselines.baselines import BASELINES
from ..networks.recipe import PARTS
from . import paper
from .answers import ALPHA, QUESTIONS, SMALL, Answer, answer
from .exhibit import Exhibit
from .scores import row_name

if TYPE_CHECKING:
    from ..dataset.dataset import Dataset

_ROWS_SHOWN = 40  # of a table that is not one of scores; its CSV has them all
_ROW = ("trial", "extent", "model", "stage")

# what is cited always, and what where a backbone or model of that name takes part
_CITED = (
    "massa2024transfer",
    "jain2013commentary",
    "dejong2015charting",
    "enkovaara2010electronic",
    "ganose2019robocrystallographer",
    "ward2016general",
    "geurts2006extremely",
    "nadeau2003inference",
    "holm1979simple",
    "breiman1996stacked",
)
_CITED_FOR = {
    "gaussian processes": "rasmussen2006gaussian",
    "inception": "szegedy2016rethinking",
    "roberta": "liu2019roberta",
    "clip": "radford2021learning",
    "efficientnet": "tan2019efficientnet",
    "minilm": "wang2020minilm",
    "chgnet": "deng2023chgnet",
}


def write_experiments_report(
    path: str | os.PathLike,
    exhibits: Sequence[Exhibit],
    predictions: pd.DataFrame,
    settings: Mapping[str, Any],
    dataset: Dataset,
) -> Path:
    """Write tables, figures, answers and methods as one HTML file.

    Parameters
    ----------
    path
        Of the file. It appears at once or not at all, and needs no network; its only script copies
        the citations.
    exhibits
        What was made anew, in the order to be shown.
    predictions
        Of image, text and image+text models and baselines on the same folds, with
        :data:`rhosight.experiments.scores.COLUMNS`: what the answers come from. May be empty.
    settings
        As :func:`rhosight.experiments.reproduction.describe_run` has them; what is absent is left
        out: ``preset``, ``weights`` and ``deviations`` in words, ``recipe`` of the stacked models
        and ``clip``, that of the chosen trial (None if no such model was run), ``versions``, and
        more.
    dataset
        The one that was learned from.

    Raises
    ------
    RhosightError
        If the file cannot be written.
    """
    report = _Report(list(exhibits), predictions, dict(settings), dataset)
    return write_page(path, "experiments.html.j2", "rhosight.experiments", report=report)


class _Report:
    """What the template asks for."""

    questions, alpha, small = QUESTIONS, ALPHA, SMALL
    contradictions = paper.CONTRADICTIONS
    samples = paper.SAMPLES

    def __init__(
        self,
        exhibits: list[Exhibit],
        predictions: pd.DataFrame,
        settings: dict[str, Any],
        dataset: Dataset,
    ):
        self.exhibits, self.settings, self.dataset = exhibits, settings, dataset
        self.predictions = predictions
        self.name = dataset.metadata.get("name") or "an unnamed dataset"
        self.recipe: dict[str, Any] = settings.get("recipe") or {}

    @cached_property
    def answers(self) -> dict[str, list[Answer]]:
        """Target → answers to all questions; none without predictions."""
        if self.predictions.empty:
            return {}
        return answer(self.predictions, self.dataset.units, self.alpha)

    @cached_property
    def runs(self) -> dict[str, Any]:
        """How many repeats, folds of each, and materials in the parts of a repeat, in words."""
        table = self.predictions
        if table.empty:
            return {"repeats": 0, "folds": 0, "test": "0", "learned": "0"}
        counts = table.groupby(["part", "repeat"])["material_id"].nunique()
        learned = table[table["part"] != "test"].groupby("repeat")["material_id"].nunique()
        test = counts["test"] if "test" in counts else counts[:0]
        return {
            "repeats": int(table["repeat"].nunique()),
            "folds": int(table.groupby("repeat")["fold"].nunique().max()),
            "test": _range(test),
            "learned": _range(learned),
        }

    @cached_property
    def models(self) -> set[str]:
        """Names of all models that are scored in any exhibit."""
        return {str(name) for e in self.exhibits for name in e.table.get("model", ())}

    @property
    def baselines(self) -> list[str]:
        """The simple ones among the models."""
        return [name for name in BASELINES if name in self.models]

    @property
    def has_chgnet(self) -> bool:
        return any(name.startswith("chgnet") for name in self.models)

    def comparisons(self, target: str) -> pd.DataFrame:
        """All tested pairs of a target, with the question they belong to."""
        tables = [
            a.comparisons.assign(question=a.question.name)
            for a in self.answers[target]
            if len(a.comparisons)
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def panels(self, exhibit: Exhibit) -> list[dict[str, Any]]:
        """One table a target: parts, and rows of cells, ours and the paper's."""
        table = exhibit.table
        keys = [key for key in _ROW if key in table]
        parts = [part for part in PARTS if part in set(table["part"])]
        found = []
        for target, frame in table.groupby("target", sort=False):
            cells = {(*row[keys], row["part"]): row for _, row in frame.iterrows()}
            rows = []
            for key in frame[keys].drop_duplicates().itertuples(index=False, name=None):
                names = dict(zip(keys, key, strict=True))
                name = row_name(names["model"], names["extent"], names["stage"])
                trial = names.get("trial", "")
                trial = "" if trial == "mean" else trial  # of all runs: as the other exhibits have
                there = [cells.get((*key, part)) for part in parts]
                rows.append({"name": name, "trial": trial, "cells": [_cell(c) for c in there]})
            unit = frame["rmse_unit"].dropna() if "rmse_unit" in frame else []
            unit = str(unit.iloc[0]) if len(unit) else ""
            found.append({"target": target, "unit": unit, "parts": parts, "rows": rows})
        return found

    def plain(self, exhibit: Exhibit) -> dict[str, Any]:
        """Head and first rows of a table that is not one of scores."""
        table = exhibit.table
        rows = [[_plain(v) for v in row] for row in table.head(_ROWS_SHOWN).itertuples(index=False)]
        return {"head": list(table), "rows": rows, "left": max(0, len(table) - _ROWS_SHOWN)}

    def svg(self, exhibit: Exhibit) -> Markup:
        """Its figure, inline."""
        return inline_svg(exhibit.figure, f"{exhibit.heading}: {exhibit.title}")

    def csv(self, table: pd.DataFrame) -> str:
        """A link's address that holds a table."""
        content = base64.b64encode(table.to_csv(index=False).encode()).decode()
        return f"data:text/csv;charset=utf-8;base64,{content}"

    @cached_property
    def methods(self) -> str:
        """A paragraph for a methods section."""
        return " ".join(_methods(self))

    @property
    def run_settings(self) -> dict[str, Any]:
        """Settings that are neither tables nor shown elsewhere."""
        apart = {"recipe", "clip", "versions", "hardware", "weights", "deviations", "units"}
        rows = {key: value for key, value in self.settings.items() if key not in apart}
        return {"dataset": self.name, "materials": len(self.dataset)} | rows

    @cached_property
    def bibtex(self) -> str:
        """What this work rests on, as BibTeX."""
        names = " ".join(str(value) for value in self.recipe.values() if isinstance(value, str))
        names = f"{names} {self.settings.get('weights', '')} {self.methods}".lower()
        wanted = [*_CITED, *(key for word, key in _CITED_FOR.items() if word in names)]
        text = (resources.files("rhosight") / "data" / "references.bib").read_text("utf-8")
        entries = {re.match(r"@\w+{(\w+)", e).group(1): e for e in text.strip().split("\n\n")}
        return "\n\n".join(entries[key] for key in wanted) + "\n"

    @property
    def bibtex_link(self) -> str:
        content = base64.b64encode(self.bibtex.encode()).decode()
        return f"data:application/x-bibtex;charset=utf-8;base64,{content}"

    def items(self, name: str) -> list[tuple[str, str]]:
        """A setting that may be words, a list of words or a table of them, as pairs."""
        value = self.settings.get(name)
        if not value:
            return []
        if isinstance(value, Mapping):
            return [(str(key), str(text)) for key, text in value.items()]
        return [("", str(text)) for text in ([value] if isinstance(value, str) else value)]


def _cell(row: pd.Series | None) -> dict[str, Any]:
    """What stands in a cell, ours and the paper's: lines, and R² from 0 to 1 to shade by."""
    if row is None:
        return {"ours": [], "paper": [], "shade": 0.0, "paper_shade": 0.0, "notes": []}
    ours, notes = [], []
    if not np.isnan(row["r2"]):
        ours.append(format_number(row["r2"], 2, row["r2_std"]))
        notes.append(f"{format_number(row['r2_low'], 2)} to {format_number(row['r2_high'], 2)}")
        if not np.isnan(row["r2_run_std"]):
            notes.append(f"runs ±{NBSP}{row['r2_run_std']:.2f}")
        if not np.isnan(row["rmse"]):
            ours.append(format_significant(row["rmse"], spread=row["rmse_std"]))
    printed = [] if np.isnan(row["paper_r2"]) else [format_number(row["paper_r2"], 2)]
    if printed and not np.isnan(row["paper_rmse"]):
        printed.append(paper.as_printed(row["paper_rmse"]))
    shades = [float(np.clip(np.nan_to_num(row[c]), 0, 1)) for c in ("r2", "paper_r2")]
    return {
        "ours": ours,
        "paper": printed,
        "shade": shades[0],
        "paper_shade": shades[1],
        "notes": notes,
    }


def _plain(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return format_significant(float(value))
    return str(value)


def _methods(report: _Report) -> Iterator[str]:
    """Sentences on what was done, from what the settings say and which models were scored."""
    recipe, clip = report.recipe, report.settings.get("clip")
    about = report.dataset.metadata.get("description")
    count = f"{len(report.dataset)} materials"
    yield f"Data: {report.name}, {about.rstrip('.') if about else count}."
    if report.answers:
        runs = report.runs
        where = "A" if runs["repeats"] == 1 else f"In each of {runs['repeats']} repeats a"
        there = report.settings.get("n_splits", runs["folds"])
        some = f", of which {runs['folds']} were run" if runs["folds"] < there else ""
        yield (
            f"{where} test part of {runs['test']} materials was drawn and held out, and the other "
            f"{runs['learned']} were divided into {there} folds{some}; each repeat has seeds of "
            "its own for the parts and the training, and materials of one formula stay in one part."
        )
    if recipe:
        yield (
            f"Image model: {recipe['image_backbone']}, on {_pictures(recipe['image'])}; text "
            f"model: {recipe['text_backbone']}, on texts by Robocrystallographer in the extents "
            "formula, keywords and all. Each first trains its readout of four dense layers on "
            "frozen features (head stage), then everything (fine-tuning); the stacked model joins "
            "the 256 penultimate features of both and does the same."
        )
        stacked = recipe["stacked_epochs"]
        yield (
            f"At most {recipe['epochs'][0]} and {recipe['epochs'][1]} epochs of the two stages "
            f"({stacked[0]} and {stacked[1]} of the stacked model), {_training(recipe)}."
        )
    if clip:
        encoders = clip["clip"] or (
            f"a dual encoder of {clip['image_backbone']} and {clip['text_backbone']}"
        )
        learned = clip["pretraining"]
        before = (
            ""
            if clip["clip"]
            else f", which learned for at most {learned['epochs']} epochs which image and which "
            "text of the fold's training part belong together"
        )
        yield (
            f"CLIP: {encoders}{before}; on {_pictures(clip['image'])} and the first "
            f"{clip['max_tokens']} tokens of the text, a linear layer on both embeddings. At most "
            f"{clip['epochs'][0]} and {clip['epochs'][1]} epochs of the two stages, "
            f"{_training(clip)} (those of trial T3; the trials of Tables 2 and 3 differ)."
        )
    if report.baselines:
        yield (
            f"Baselines on the same folds: {_listed(report.baselines, _BASELINES)}, extremely "
            "randomised trees but for the mean."
        )
    if report.has_chgnet:
        yield (
            "The baseline chgnet reads an embedding of CHGNet, whose pre-training saw Materials "
            "Project energies, perhaps of the very materials that are scored."
        )
    if processes := [name for name in _PROCESSES if name in report.models]:
        yield (
            f"Gaussian processes over descriptors, fitted to the same folds: "
            f"{_listed(processes, _PROCESSES)}."
        )
    yield (
        "Scores are means over folds with standard deviations; intervals are 95 % percentile "
        "bootstrap intervals of the pooled score over materials. Pairs of models are compared by "
        "the corrected resampled t-test of Nadeau and Bengio on the RMSE of each fold, p values "
        "corrected by Holm's method over all targets and pairs of a question, intervals of "
        "differences by Bonferroni's; blends are made by stacking as Breiman proposed."
    )


_BASELINES = {
    "mean": "of the training labels",
    "composition": "Magpie statistics of the elements, volume per atom, size of the cell and "
    "structure type",
    "promolecule": "statistics of the superposed free atoms' density",
    "density": "statistics of the density itself",
}  # what each is shown; all but the mean are extremely randomised trees

_PROCESSES = {
    "best": "composition, structure, superposed free atoms, and the density between the atoms",
    "no-dft": "composition, structure and superposed free atoms",
}


def _listed(names: Sequence[str], words: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({words[name]})" for name in names)


def _pictures(image: Mapping[str, Any]) -> str:
    """What a network is shown of the density."""
    channels = "; ".join(describe_channel(channel) for channel in image["channels"])
    kind = "Fourier transforms of images" if image["fourier"] else "images"
    return (
        f"{kind} of the density on a lattice plane ({channels}; {image['size']} pixels wide, "
        f"normalised as “{image['normalisation']}”, colours “{image['colour']}”)"
    )


def _training(recipe: Mapping[str, Any]) -> str:
    watched = {
        "inner": "an inner split of the training part",
        "validation": "the validation fold, as in the paper, which makes its scores optimistic",
    }[recipe["early_stopping"]]
    return (
        f"in batches of {recipe['batch_size'][0]} and {recipe['batch_size'][1]}, AdamW with a "
        f"{recipe['schedule']} schedule and rates of {recipe['learning_rate'][0]:g} and "
        f"{recipe['learning_rate'][1]:g} (readout), {recipe['image_rate']:g} (image) and "
        f"{recipe['text_rate']:g} (text); Huber loss of standardised targets; early stopping "
        f"watched {watched}"
    )


def _range(counts: pd.Series) -> str:
    """Such as "61", or "60 to 62"."""
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return f"{low}" if low == high else f"{low} to {high}"
