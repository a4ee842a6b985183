"""Make Figure 9: image, text and stacked model, before and after fine-tuning."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import draw_heat_map
from ..scores import add_paper_scores, summarise

TITLE = "Image, text and image+text models before and after fine-tuning"

NOTE = (
    "The head stage of image+text combines an image and a text network that were fine-tuned "
    "separately; its fine-tuning shows what joint training adds."
)


def list_entries(plan: Plan) -> list[Entry]:
    """Return the jobs of the exhibit."""
    return [*plan.stacked(), *plan.baselines()]


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make the exhibit from the results of its jobs."""
    table = add_paper_scores(summarise(frames.predictions), "figure9")
    return Exhibit("figure9", TITLE, table, draw_heat_map(table, TITLE), NOTE)
