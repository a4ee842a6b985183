"""What Figures 6 and 7 have in common: the learning curves of Table 2's chosen trial."""

from __future__ import annotations

from .exhibit import Exhibit
from .plan import Entry, Frames, Plan
from .presets import CHOSEN
from .trials import TARGET


def curve_entries(plan: Plan) -> list[Entry]:
    """The chosen trial."""
    return plan.clip((CHOSEN,), targets=(TARGET,))


def curve_exhibit(name: str, title: str, metric: str, frames: Frames) -> Exhibit:
    """One row an epoch of fine-tuning and fold; ``r2``, ``rmse`` on the validation fold, of the
    standardised target. The paper prints curves, no numbers."""
    tuned = frames.history[frames.history["stage"] == "fine-tuning"]
    names = {f"r2_{TARGET}": "r2", f"rmse_{TARGET}": "rmse"}
    columns = ["repeat", "fold", "stage", "epoch", "train", "watched", *names]
    table = (
        tuned[columns].rename(columns=names).assign(target=TARGET, model="clip", part="validation")
    )
    return Exhibit(name, title, table.reset_index(drop=True))
