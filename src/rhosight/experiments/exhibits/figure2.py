"""Figure 2: image, text and stacked model after fine-tuning, for each extent of the text."""

from __future__ import annotations

import pandas as pd

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import heat_map
from ..scores import average, beside_paper, summary

TITLE = "Image, text and image+text models for each target and extent of the text, fine-tuned"
NOTE = (
    "The paper's RMSE of 0.17 (formation energy, formula, image, test) seems to be a misprint of "
    "0.26."
)


def entries(plan: Plan) -> list[Entry]:
    return [*plan.stacked(), *plan.baselines()]


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    shown = frames.predictions.query("stage != 'head'")
    table = beside_paper(pd.concat([summary(shown), average(shown)]), "figure2")
    return Exhibit("figure2", TITLE, table, heat_map(table, TITLE), NOTE)
