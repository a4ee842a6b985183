"""Figure 9: image, text and stacked model, before and after fine-tuning."""

from __future__ import annotations

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import heat_map
from ..scores import beside_paper, summary

TITLE = "Image, text and image+text models before and after fine-tuning"

NOTE = (
    "At its head stage image+text joins an image and a text network that were fine-tuned by "
    "themselves; its fine-tuning is what training both together adds."
)


def entries(plan: Plan) -> list[Entry]:
    return [*plan.stacked(), *plan.baselines()]


def exhibit(plan: Plan, frames: Frames) -> Exhibit:
    table = beside_paper(summary(frames.predictions), "figure9")
    return Exhibit("figure9", TITLE, table, heat_map(table, TITLE), NOTE)
