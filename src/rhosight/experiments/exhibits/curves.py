"""Draw the learning curves of Table 2's chosen trial, for Figures 6 and 7."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import draw_learning_curves
from ..presets import CHOSEN
from .trials import TARGET


def list_curve_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the chosen trial."""
    return plan.clip((CHOSEN,), targets=(TARGET,))


def make_curve_exhibit(name: str, title: str, metric: str, frames: Frames) -> Exhibit:
    """Make an exhibit with one row per epoch of fine-tuning and fold.

    ``r2`` and ``rmse`` are those of the standardised target on the validation fold. The paper
    prints curves, no numbers.
    """
    tuned = frames.history[frames.history["stage"] == "fine-tuning"]
    names = {f"r2_{TARGET}": "r2", f"rmse_{TARGET}": "rmse"}
    columns = ["repeat", "fold", "extent", "model", "stage", "epoch", "train", "watched", *names]
    table = tuned[columns].rename(columns=names).reset_index(drop=True)
    table = table.assign(target=TARGET, part="validation")
    return Exhibit(name, title, table, draw_learning_curves(table, metric, title))
