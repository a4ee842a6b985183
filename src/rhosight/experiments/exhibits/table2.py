"""Table 2: CLIP's hyper-parameters, on slices in viridis."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .trials import trial_entries, trial_exhibit

TITLE = "CLIP's hyper-parameters for the formation energy, on density slices in viridis"


def entries(plan: Plan) -> list[Entry]:
    return trial_entries(plan, fourier=False)


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    return trial_exhibit("table2", TITLE, frames)
