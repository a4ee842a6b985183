"""Make Table 2: hyperparameters of CLIP, on slices in viridis."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from .trials import list_trial_entries, make_trial_exhibit

TITLE = "Hyperparameters of CLIP for the formation energy, on density slices in viridis"


def list_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the exhibit."""
    return list_trial_entries(plan, fourier=False)


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make the exhibit from the results of its jobs."""
    return make_trial_exhibit("table2", TITLE, frames)
