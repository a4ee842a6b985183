"""Show a cross-validation as a few lines of text, and as HTML in notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

from ..networks.recipe import PARTS

if TYPE_CHECKING:
    from .cross_validation import CrossValidation


def render_text(result: CrossValidation) -> str:
    """Return the text that Python shows: the scores of the final model."""
    model, stage = result.final
    table = _tabulate(result)
    final = table[(table["model"] == model) & (table["stage"] == stage)]
    name = f"{model}, {stage}" if stage else model
    return f"{_title(result)}\n{name}:\n{final.drop(columns=['model', 'stage']).to_string()}"


def render_html(result: CrossValidation) -> str:
    """Return the HTML that a notebook shows: the scores of all models."""
    table = _tabulate(result).reset_index().to_html(border=0, index=False)
    note = "R² / RMSE in the target's unit; ± is the standard deviation over folds."
    return f"<p><strong>{html.escape(_title(result))}</strong></p>{table}<p>{note}</p>"


def _title(result: CrossValidation) -> str:
    run, name = result.predictions["fold"].nunique(), result.settings["dataset"]
    folds = f"{run} of {result.settings['n_splits']} folds"
    return f"Cross-validation on {name or 'an unnamed dataset'}, {folds}"


def _tabulate(result: CrossValidation) -> pd.DataFrame:
    """Return R² / RMSE of each set as text, one row for each target, model and stage."""
    summary, units = result.summary(), result.settings["units"]
    target, model, stage = (list(summary.index.get_level_values(level)) for level in range(3))
    table = pd.DataFrame({"model": model, "stage": stage}, index=pd.Index(target, name="target"))
    for part in PARTS:
        table[part] = [_format_scores(row) for _, row in summary[part].iterrows()]
    return table.rename(index={name: f"{name} ({units[name]})" for name in target})


def _format_scores(scores: pd.Series) -> str:
    texts = []
    for name, form in (("r2", "{:.3f}"), ("rmse", "{:.4g}")):
        value, spread = scores[name], scores[f"{name}_std"]
        text = "–" if pd.isna(value) else form.format(value)
        texts.append(text if pd.isna(spread) else f"{text} ± {spread:.2g}")
    return " / ".join(texts)
