"""A dataset in a few lines of text, and as HTML with its first rows for notebooks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from .dataset import Dataset

PREVIEW_ROWS = 5


def summarise(dataset: Dataset) -> dict[str, str]:
    """Return the main facts about a dataset, label → text; empty ones are left out."""
    counts = dataset.targets.count()
    texts = dataset.texts.notna().any()
    facts = {
        "Targets": ", ".join(f"{name} ({number})" for name, number in counts.items()),
        "Kinds": ", ".join(dataset.kinds),
        "Texts": ", ".join(str(extent) for extent in texts.index[texts]),
        "Licence": dataset.metadata.get("licence", ""),
    }
    return {label: text for label, text in facts.items() if text}


def render_text(dataset: Dataset) -> str:
    """Return the text that Python shows for a dataset, one fact per line."""
    lines = [f"  {label:<9}{text}" for label, text in summarise(dataset).items()]
    return "\n".join([_title(dataset), *lines])


def render_html(dataset: Dataset) -> str:
    """Return the HTML that a notebook shows: facts, target ranges and first rows."""
    facts = {label: text for label, text in summarise(dataset).items() if label != "Targets"}
    about = "<br>".join(f"{label}: {html.escape(text)}" for label, text in facts.items())
    targets = dataset.targets
    ranges = pd.DataFrame(
        {
            "unit": pd.Series(dataset.units, dtype=object),
            "materials": targets.count(),
            "lowest": targets.min(),
            "highest": targets.max(),
        }
    )
    preview = dataset.table[["formula", *targets.columns]].head(PREVIEW_ROWS)
    more = len(dataset) - len(preview)
    rest = f"<p>… and {more} more</p>" if more else ""
    return (
        f"<p><strong>{html.escape(_title(dataset))}</strong><br>{about}</p>"
        f"{_render_table(ranges)}{_render_table(preview)}{rest}"
    )


def _title(dataset: Dataset) -> str:
    name = dataset.metadata.get("name", "")
    count = len(dataset)
    return f"Dataset{f' {name!r}' if name else ''}: {count} material{'' if count == 1 else 's'}"


def _render_table(table: pd.DataFrame) -> str:
    return table.to_html(na_rep="", float_format="{:.4g}".format, border=0, index_names=False)
