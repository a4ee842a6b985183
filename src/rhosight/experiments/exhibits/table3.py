"""Table 3: CLIP's hyper-parameters, on Fourier transforms in grey."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .trials import trial_entries, trial_exhibit

TITLE = "CLIP's hyper-parameters for the formation energy, on Fourier transforms of the slices"


def entries(plan: Plan) -> list[Entry]:
    return trial_entries(plan, fourier=True)


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    return trial_exhibit("table3", TITLE, frames)
