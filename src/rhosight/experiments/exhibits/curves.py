"""What Figures 6 and 7 have in common: the learning curves of Table 2's chosen trial."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import learning_curves
from ..presets import CHOSEN
from .trials import TARGET


def curve_entries(plan: Plan) -> list[Entry]:
    """The chosen trial."""
    return plan.clip((CHOSEN,), targets=(TARGET,))


def curve_exhibit(name: str, title: str, metric: str, frames: Frames) -> Exhibit:
    """One row an epoch of fine-tuning and fold; ``r2``, ``rmse`` on the validation fold, of the
    standardised target. The paper prints curves, no numbers.
    """
    tuned = frames.history[frames.history["stage"] == "fine-tuning"]
    names = {f"r2_{TARGET}": "r2", f"rmse_{TARGET}": "rmse"}
    columns = ["repeat", "fold", "extent", "model", "stage", "epoch", "train", "watched", *names]
    table = tuned[columns].rename(columns=names).reset_index(drop=True)
    table = table.assign(target=TARGET, part="validation")
    return Exhibit(name, title, table, learning_curves(table, metric, title))
