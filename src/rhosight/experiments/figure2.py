"""Figure 2: image, text and stacked model after fine-tuning, for each extent of the text."""

from __future__ import annotations

from .exhibit import Exhibit
from .plan import Entry, Frames, Plan
from .plots import heat_map
from .scores import beside_paper, summary

TITLE = "Image, text and image+text models for each target and extent of the text, fine-tuned"


def entries(plan: Plan) -> list[Entry]:
    return [*plan.stacked(), *plan.baselines()]


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    table = beside_paper(summary(frames.predictions.query("stage != 'head'")), "figure2")
    return Exhibit("figure2", TITLE, table, heat_map(table, TITLE))
