"""What Tables 2 and 3 have in common: CLIP with five sets of hyper-parameters."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import dots
from ..scores import beside_paper, standardised, summary

TARGET = "formation_energy_per_atom"


def trial_entries(plan: Plan, fourier: bool) -> list[Entry]:
    """All trials, and the baselines on the same folds."""
    return [*plan.clip(fourier=fourier, targets=(TARGET,)), *plan.baselines()]


def trial_exhibit(name: str, title: str, frames: Frames) -> Exhibit:
    """R² and RMSE of each trial; as in the paper, errors are those of the standardised target."""
    energy = frames.predictions[frames.predictions["target"] == TARGET]
    shown = standardised(energy).query("part != 'train' and stage != 'head'")
    table = beside_paper(summary(shown, by=("trial",)), name)
    return Exhibit(name, title, table, dots(table, "r2"))
