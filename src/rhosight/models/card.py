"""Present a model: its model card, and a few lines of text or HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import SavedModel

COLUMNS = ("unit", "R²", "RMSE", "test set")
"""What a notebook shows for each target."""


def write_card(model: SavedModel, title: str, text: str) -> str:
    """Return the model card, Markdown with the YAML header of the Hugging Face hub.

    Parameters
    ----------
    model
        A fitted model.
    title, text
        Kind of model, and its inputs and limits, Markdown.
    """
    about = model.about
    targets = "\n".join(f"- `{name}` ({model.units[name]})" for name in model.targets)
    used = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    example = ["import rhosight", "", 'model = rhosight.load_model("this-folder")']
    if model.uses_density:
        example.append('model.predict(rhosight.read_density("CHGCAR"))')
    else:
        example.insert(1, "from pymatgen.core import Structure")
        example.append('model.predict({"mine": rhosight.read_structure("mine.cif")})')
    code = "\n".join(example)
    return f"""---
library_name: rhosight
tags: [materials-science, charge-density]
---

# {title} for {", ".join(model.targets)}

Predicts, for a crystal:

{targets}

{text}

## Scores

{_score_table(model)}
## Training data

{_list_training_sets(about)}

Made with {used}.

```python
{code}
```
"""


def _list_training_sets(about: Mapping[str, Any]) -> str:
    sets = [about, about["special"]] if "special" in about else [about]
    return "\n\n".join(
        f"{own['materials']} materials of `{own['dataset']}` (SHA-256\n`{own['dataset_sha256']}`). "
        f"{own['attribution']} {own['licence']}"
        for own in sets
    )


def _score_table(model: SavedModel) -> str:
    if not model.scores:
        return "Not scored: no test set was held out.\n"
    rows = [
        f"| `{name}` | {s['r2']:.3f} | {s['rmse']:.4g} {model.units[name]} | {s['n']} |"
        for name, s in model.scores.items()
    ]
    head = ["Scores on a test set:", "", "| target | R² | RMSE | materials |"]
    return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])


def render_text(model: SavedModel) -> str:
    """Return the text that Python shows for a model, one fact or target per line."""
    facts = [f"  {label:<9}{value}" for label, value in _list_facts(model)]
    table = [("target", *COLUMNS), *_list_targets(model)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if not model.scores:
        table, widths = [row[:2] for row in table], widths[:2]
    rows = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in table
    ]
    return "\n".join([type(model).__name__, *facts, *(row.rstrip() for row in rows)])


def render_html(model: SavedModel) -> str:
    """Return the HTML that a notebook shows for a model: facts, targets and scores."""
    facts = "<br>".join(
        f"{html.escape(label)} {html.escape(value)}" for label, value in _list_facts(model)
    )
    head = "".join(f"<th>{name}</th>" for name in ("target", *COLUMNS))
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _list_targets(model)
    )
    return (
        f"<div><strong>{type(model).__name__}</strong><br>{facts}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _list_facts(model: SavedModel) -> list[tuple[str, str]]:
    facts = [("Reads", "charge densities" if model.uses_density else "structures")]
    if not model.is_fitted:
        return [*facts, ("Trained", "not yet; call fit")]
    about = model.about
    sets = [about, about["special"]] if "special" in about else [about]
    learned = (f"{own['materials']} materials of {own['dataset'] or '?'}" for own in sets)
    return [*facts, ("Trained", f"on {' and '.join(learned)}")]


def _list_targets(model: SavedModel) -> list[tuple[str, ...]]:
    """Return each target and its :data:`COLUMNS`, as far as they are known."""
    rows: list[tuple[str, ...]] = []
    for name in model.targets:
        score = model.scores.get(name)
        scores = (f"{score['r2']:.3f}", f"{score['rmse']:.3g}", str(score["n"])) if score else ()
        rows.append((name, model.units.get(name, ""), *(scores or ("", "", ""))))
    return rows
