"""Make Figure 6: R² of the chosen trial over the epochs, for each fold."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .curves import list_curve_entries, make_curve_exhibit

TITLE = "R² of the formation energy over the epochs of CLIP's fine-tuning, validation folds"


def list_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the exhibit."""
    return list_curve_entries(plan)


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make the exhibit from the results of its jobs."""
    return make_curve_exhibit("figure6", TITLE, "r2", frames)
