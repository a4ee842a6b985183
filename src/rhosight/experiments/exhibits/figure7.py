"""Make Figure 7: RMSE of the chosen trial over the epochs, for each fold."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .curves import list_curve_entries, make_curve_exhibit

TITLE = "RMSE of the standardised formation energy over the epochs of CLIP's fine-tuning"


def list_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the exhibit."""
    return list_curve_entries(plan)


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make the exhibit from the results of its jobs."""
    return make_curve_exhibit("figure7", TITLE, "rmse", frames)
