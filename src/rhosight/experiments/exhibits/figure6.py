"""Figure 6: R² of the chosen trial over the epochs, fold by fold."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .curves import curve_entries, curve_exhibit

TITLE = "R² of the formation energy over the epochs of CLIP's fine-tuning, validation folds"


def entries(plan: Plan) -> list[Entry]:
    return curve_entries(plan)


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    return curve_exhibit("figure6", TITLE, "r2", frames)
