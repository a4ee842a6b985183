"""Write the report of the paper's experiments as one self-contained HTML file.

This module computes its contents; ``templates/experiments.html.j2`` has the words and the layout.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..evaluation.html import (
    NBSP,
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
from .methods import Runs, describe_methods
from .scores import format_cell, name_row

if TYPE_CHECKING:
    from ..dataset.dataset import Dataset

_ROWS_SHOWN = 40  # of a table without scores; its CSV file has all rows
_ROW = ("trial", "extent", "model", "stage")

# keys of references that are always cited, and of those for a backbone or model with this name
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
        File to write, atomically. It needs no network, and its only script copies the citations.
    exhibits
        Reproduced tables and figures, in the order of the report.
    predictions
        Predictions of image, text and image+text models and baselines on the same folds, with
        :data:`rhosight.experiments.scores.COLUMNS`, for the answers. May be empty.
    settings
        As :func:`rhosight.experiments.reproduction.describe_run` returns them: ``preset``,
        ``weights`` and ``deviations`` in words, ``recipe`` of the stacked models and ``clip``, that
        of the chosen trial (None if no such model was run), ``versions``, and more. Missing entries
        are left out of the report.
    dataset
        Dataset that the models were trained on.

    Raises
    ------
    RhosightError
        If the file cannot be written.
    """
    report = _Report(list(exhibits), predictions, dict(settings), dataset)
    return write_page(path, "experiments.html.j2", "rhosight.experiments", report=report)


class _Report:
    """Contents of the template."""

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
        """Target → answers to all questions; empty without predictions."""
        if self.predictions.empty:
            return {}
        return answer(self.predictions, self.dataset.units, self.alpha)

    @cached_property
    def runs(self) -> Runs | None:
        """Extent of the cross-validation behind the answers."""
        table = self.predictions
        if table.empty:
            return None
        counts = table.groupby(["part", "repeat"])["material_id"].nunique()
        learned = table[table["part"] != "test"].groupby("repeat")["material_id"].nunique()
        test = counts[counts.index.get_level_values("part") == "test"]
        return Runs(
            repeats=int(table["repeat"].nunique()),
            folds=int(table.groupby("repeat")["fold"].nunique().max()),
            test=_format_range(test),
            learned=_format_range(learned),
        )

    @cached_property
    def models(self) -> set[str]:
        """Names of the models that any exhibit scores."""
        return {str(name) for e in self.exhibits for name in e.table.get("model", ())}

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines among the models."""
        return [name for name in BASELINES if name in self.models]

    def comparisons(self, target: str) -> pd.DataFrame:
        """Return all tested pairs of a target with their questions."""
        tables = [
            a.comparisons.assign(question=a.question.name)
            for a in self.answers[target]
            if len(a.comparisons)
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def panels(self, exhibit: Exhibit) -> list[dict[str, Any]]:
        """Return a table for each target: sets, and rows of cells, ours and the paper's."""
        table = exhibit.table
        keys = [key for key in _ROW if key in table]
        parts = [part for part in PARTS if part in set(table["part"])]
        panels: list[dict[str, Any]] = []
        for target, frame in table.groupby("target", sort=False):
            cells = {(*row[keys], row["part"]): row for _, row in frame.iterrows()}
            rows = []
            for key in frame[keys].drop_duplicates().itertuples(index=False, name=None):
                names = dict(zip(keys, key, strict=True))
                name = name_row(names["model"], names["extent"], names["stage"])
                trial = names.get("trial", "")
                trial = "" if trial == "mean" else trial  # of all runs, as in the other exhibits
                there = [cells.get((*key, part)) for part in parts]
                rows.append({"name": name, "trial": trial, "cells": [_make_cell(c) for c in there]})
            units = frame["rmse_unit"].dropna().to_list() if "rmse_unit" in frame else []
            unit = str(units[0]) if units else ""
            panels.append({"target": target, "unit": unit, "parts": parts, "rows": rows})
        return panels

    def plain(self, exhibit: Exhibit) -> dict[str, Any]:
        """Return head and first rows of a table without scores."""
        table = exhibit.table
        rows = [
            [_format_value(v) for v in row]
            for row in table.head(_ROWS_SHOWN).itertuples(index=False)
        ]
        return {"head": list(table), "rows": rows, "left": max(0, len(table) - _ROWS_SHOWN)}

    def svg(self, exhibit: Exhibit) -> Markup:
        """Return the figure of an exhibit as inline SVG."""
        assert exhibit.figure is not None
        return inline_svg(exhibit.figure, f"{exhibit.heading}: {exhibit.title}")

    def csv(self, table: pd.DataFrame) -> str:
        """Return a table as the address of a link."""
        content = base64.b64encode(table.to_csv(index=False).encode()).decode()
        return f"data:text/csv;charset=utf-8;base64,{content}"

    @cached_property
    def methods(self) -> str:
        """Paragraph for a methods section."""
        return describe_methods(self.dataset, self.settings, self.models, self.baselines, self.runs)

    @property
    def run_settings(self) -> dict[str, Any]:
        """Settings without those that the report shows elsewhere."""
        apart = {"recipe", "clip", "versions", "hardware", "weights", "deviations", "units"}
        rows = {key: value for key, value in self.settings.items() if key not in apart}
        return {"dataset": self.name, "materials": len(self.dataset)} | rows

    @cached_property
    def bibtex(self) -> str:
        """References of the work, as BibTeX."""
        names = " ".join(str(value) for value in self.recipe.values() if isinstance(value, str))
        names = f"{names} {self.settings.get('weights', '')} {self.methods}".lower()
        wanted = [*_CITED, *(key for word, key in _CITED_FOR.items() if word in names)]
        text = (resources.files("rhosight") / "data" / "references.bib").read_text("utf-8")
        entries = {re.split(r"[{,]", entry)[1]: entry for entry in text.strip().split("\n\n")}
        return "\n\n".join(entries[key] for key in wanted) + "\n"

    @property
    def bibtex_link(self) -> str:
        """References as the address of a link."""
        content = base64.b64encode(self.bibtex.encode()).decode()
        return f"data:application/x-bibtex;charset=utf-8;base64,{content}"

    def items(self, name: str) -> list[tuple[str, str]]:
        """Return a setting (words, a list of them, or a mapping) as pairs."""
        value = self.settings.get(name)
        if not value:
            return []
        if isinstance(value, Mapping):
            return [(str(key), str(text)) for key, text in value.items()]
        return [("", str(text)) for text in ([value] if isinstance(value, str) else value)]


def _make_cell(row: pd.Series | None) -> dict[str, Any]:
    """Return the texts of a cell, ours and the paper's, and the R² of its shades."""
    if row is None:
        return {"ours": [], "paper": [], "shade": 0.0, "paper_shade": 0.0, "notes": []}
    notes = []
    if not np.isnan(row["r2"]):
        notes.append(f"{format_number(row['r2_low'], 2)} to {format_number(row['r2_high'], 2)}")
        if not np.isnan(row["r2_run_std"]):
            notes.append(f"runs ±{NBSP}{row['r2_run_std']:.2f}")
    shades = [float(np.clip(np.nan_to_num(row[c]), 0, 1)) for c in ("r2", "paper_r2")]
    return {
        "ours": format_cell(row, rmse_spread=True),
        "paper": format_cell(row, "paper"),
        "shade": shades[0],
        "paper_shade": shades[1],
        "notes": notes,
    }


def _format_value(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return format_significant(float(value))
    return str(value)


def _format_range(counts: pd.Series) -> str:
    """Return a text such as "61" or "60 to 62"."""
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return f"{low}" if low == high else f"{low} to {high}"
