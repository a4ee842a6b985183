"""Task of a worker process: search for crystals with wanted properties.

The arguments and the result are JSON, as those of :mod:`rhosight.app.tasks`.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pandas as pd

from ..design.report import draw_slice, name_plane, write_report
from ..design.result import Design, format_cif
from ..design.search import design
from ..design.wishes import HULL
from ..inputs.progress import Progress
from .limits import Limits

FACTS = (
    *("formula", "prototype", "like", "probability", "volume_per_atom", "energy_above_hull"),
    *("phases", "known", "stable_entry", "nearest", "charges", "outside", "text"),
)
"""Columns of a proposal that are passed on as they are."""

ENDS = {"value": "", "low": "_low", "high": "_high"}
"""Names of a prediction and the ends of its interval → ends of the names of their columns."""


def propose(arguments: dict[str, Any], limits: Limits, progress: Progress) -> dict[str, Any]:
    """Search for crystals, see :func:`rhosight.design.search.design`.

    The ``arguments`` are ``targets`` (texts such as ``bulk_modulus_vrh=200..250``), ``elements``
    and ``exclude`` (lists of symbols), ``candidates``, ``count``, ``max_atoms``, ``seed`` and
    ``include_known``.
    """
    progress("listing crystals", 0, 1)

    def report(label: str, done: int, total: int) -> None:
        verb = "predicted" if label == "candidates" else "described"
        progress(f"{verb} {done} of {total} {label}", done, total)

    return _to_json(design(progress=report, **arguments))


def _to_json(result: Design) -> dict[str, Any]:
    """Return a search as JSON: proposals or misses with files, table, report."""
    path = Path("report.html")
    write_report(result, path)
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return {
        "plausible": result.is_plausible,
        "tried": len(result.tried),
        "listed": result.counts["listed"],
        "wishes": [str(wish) for wish in result.wishes],
        "inside": result.count_met(),
        "units": {target: result.units[target] for target in (*result.targets, HULL)},
        "models": list(result.models),
        "proposals": [_describe(result, row) for row in result.shown.to_dict("records")],
        "csv": result.format_csv(),
        "report": base64.b64encode(text.encode()).decode(),
    }


def _describe(result: Design, row: dict[Any, Any]) -> dict[str, Any]:
    """Return facts about a proposal, its CIF, and a slice of its predicted density."""
    structure = result.structures[row["name"]]
    predicted = result.densities.get(row["name"])
    return {
        **{name: None if pd.isna(row.get(name)) else row[name] for name in FACTS},
        "properties": {
            target: {end: float(row[f"{target}{tail}"]) for end, tail in ENDS.items()}
            for target in result.targets
        },
        "cif": format_cif(structure),
        "picture": draw_slice(predicted.density) if predicted else None,
        "plane": name_plane(structure),
        "density_error": predicted.error if predicted else None,
    }
