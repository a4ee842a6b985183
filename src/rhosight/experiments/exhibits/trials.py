"""Compare five sets of hyperparameters of CLIP, for Tables 2 and 3."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import draw_dots
from ..scores import add_paper_scores, standardise, summarise

TARGET = "formation_energy_per_atom"


def list_trial_entries(plan: Plan, fourier: bool) -> list[Entry]:
    """Return the jobs of all trials, and the baselines on the same folds."""
    return [*plan.clip(fourier=fourier, targets=(TARGET,)), *plan.baselines()]


def make_trial_exhibit(name: str, title: str, frames: Frames) -> Exhibit:
    """Make a table of R² and RMSE (standardised target) of each trial."""
    energy = frames.predictions[frames.predictions["target"] == TARGET]
    shown = standardise(energy).query("part != 'train' and stage != 'head'")
    table = add_paper_scores(summarise(shown, by=("trial",)), name)
    return Exhibit(name, title, table, draw_dots(table, "r2"))
