"""Make Figure 2: fine-tuned image, text and stacked models for each extent."""

from __future__ import annotations

import pandas as pd

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import draw_heat_map
from ..scores import add_paper_scores, average_targets, summarise

TITLE = "Image, text and image+text models for each target and extent of the text, fine-tuned"
NOTE = (
    "The paper's RMSE of 0.17 (formation energy, formula, image, test) is probably a misprint of "
    "0.26."
)


def list_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the exhibit."""
    return [*plan.stacked(), *plan.baselines()]


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make the exhibit from the results of its jobs."""
    shown = frames.predictions.query("stage != 'head'")
    table = add_paper_scores(pd.concat([summarise(shown), average_targets(shown)]), "figure2")
    return Exhibit("figure2", TITLE, table, draw_heat_map(table, TITLE), NOTE)
