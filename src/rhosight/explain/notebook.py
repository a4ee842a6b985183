"""Show explanations as text, and as HTML with a figure in notebooks."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import pandas as pd

from ..dataset.schema import TARGET_NAMES
from .figures import draw_explanation, draw_summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .explanation import Explanation, Explanations

MOST_ROWS = 5
"""Largest number of words or descriptors listed for each target."""

MOST_MATERIALS = 10
"""Largest number of materials listed for several explanations."""

WIDTH = 900
"""Largest width of an inline figure, in pixels."""


def render_text(why: Explanation) -> str:
    """Return the text that Python shows for an explanation: title and contributions."""
    table = _contributions(why).to_string()
    return f"Explanation of {_title(why)}\n{table}\nbase: {why.background}"


def render_html(why: Explanation) -> str:
    """Return the HTML that a notebook shows: predictions, contributions and a figure."""
    predictions = ", ".join(
        f"{_name(target)} {why.prediction[target]:.4g} {why.units[target]}"
        for target in why.targets
    )
    parts = [
        f"<p><strong>{html.escape(_title(why))}</strong>: {html.escape(predictions)}</p>",
        _render_table(_contributions(why)),
        f"<p>base: {html.escape(why.background)}</p>",
    ]
    largest = _largest_details(why)
    if largest is not None:
        what = "Words" if why.words is not None else "Descriptors"
        parts += [f"<p>{what} with the largest contributions:</p>", _render_table(largest)]
    parts += [f"<p>{html.escape(note)}</p>" for note in why.notes]
    label = f"Contributions to the predictions for {_title(why)}"
    return "".join([*parts, _render_figure(draw_explanation(why), label)])


def render_several_as_text(explanations: Explanations) -> str:
    """Return the text that Python shows for several: their mean fractions."""
    if not len(explanations):
        return _count(explanations)
    fractions = _fractions(explanations)
    return f"{_count(explanations)}; mean fractions of the modalities:\n{fractions.to_string()}"


def render_several_as_html(explanations: Explanations) -> str:
    """Return the HTML for several: mean fractions, predictions and a figure."""
    title = f"<p><strong>{html.escape(_count(explanations))}</strong></p>"
    if not len(explanations):
        return title
    shown = explanations[:MOST_MATERIALS]
    predictions = pd.DataFrame(
        [[why.formula, *(f"{why.prediction[t]:.4g}" for t in why.targets)] for why in shown],
        index=[why.name for why in shown],
        columns=["formula", *(_column(shown[0], target) for target in shown[0].targets)],
    )
    more = len(explanations) - len(shown)
    return "".join(
        [
            title,
            "<p>Mean fractions of the modalities:</p>",
            _render_table(_fractions(explanations)),
            "<p>Predictions:</p>",
            _render_table(predictions),
            f"<p>… and {more} more</p>" if more else "",
            _render_figure(draw_summary(explanations.summary()), "Fractions by class of compounds"),
        ]
    )


def _title(why: Explanation) -> str:
    return f"{why.formula} ({why.name})" if why.name else why.formula


def _count(explanations: Explanations) -> str:
    count = len(explanations)
    return f"Explanations of {count} material{'' if count == 1 else 's'}"


def _name(target: str) -> str:
    return TARGET_NAMES[target].short if target in TARGET_NAMES else target


def _column(why: Explanation, target: str) -> str:
    return f"{target} ({why.units[target]})" if why.units[target] else target


def _contributions(why: Explanation) -> pd.DataFrame:
    """Return base, contributions and prediction as text, a column for each target."""
    table = why.table().rename(columns={target: _column(why, target) for target in why.targets})
    text = table.map("{:+.4g}".format).rename_axis(None)
    for end in ("base", "prediction"):
        text.loc[end] = table.loc[end].map("{:.4g}".format)
    return text


def _largest_details(why: Explanation) -> pd.DataFrame | None:
    """Return the largest words or descriptors as text, a column for each target."""
    columns = {
        _column(why, target): [
            f"{name} {value:+.3g}" for name, value in why.largest(target, MOST_ROWS).items()
        ]
        for target in why.targets
    }
    table = pd.DataFrame(columns)
    return None if table.empty else table.set_axis(range(1, len(table) + 1))


def _fractions(explanations: Explanations) -> pd.DataFrame:
    """Return the fraction of each modality as text, a row for each target."""
    parts = explanations.summary()["part"].xs("all", level="class").unstack("modality")
    table = parts.map("{:.0%}".format)
    # plain labels instead of categories
    return pd.DataFrame(
        {str(name): column.to_list() for name, column in table.items()},
        index=[str(target) for target in table.index],
    )


def _render_table(table: pd.DataFrame) -> str:
    return table.to_html(border=0, index_names=False)


def _render_figure(figure: Figure, label: str) -> str:
    """Return a figure as an inline PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=min(100.0, WIDTH / figure.get_figwidth()))
    image = base64.b64encode(file.getvalue()).decode("ascii")
    return f"<img src='data:image/png;base64,{image}' alt='{html.escape(label, quote=True)}'>"
