"""Figure 7: RMSE of the chosen trial over the epochs, fold by fold."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .curves import curve_entries, curve_exhibit

TITLE = "RMSE of the standardised formation energy over the epochs of CLIP's fine-tuning"


def entries(plan: Plan) -> list[Entry]:
    return curve_entries(plan)


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    return curve_exhibit("figure7", TITLE, "rmse", frames)
