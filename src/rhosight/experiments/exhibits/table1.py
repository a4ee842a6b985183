"""Make Table 1: CLIP for each target, in several runs, each on a split of its own."""

from __future__ import annotations

import pandas as pd

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan
from ..plots import draw_dots
from ..scores import add_paper_scores, summarise

TITLE = "CLIP for each target: validation folds and test set of each run, and their mean"


def list_entries(plan: Plan) -> list[Entry]:
    """Return the chosen trial in at least three runs, and the baselines."""
    runs = plan.chosen_clip()
    return [*runs, *plan.baselines(max(entry.job.split.repeat for entry in runs) + 1)]


def make_exhibit(plan: Plan, frames: Frames) -> Exhibit:
    """Make a table of each run (trial "1", "2" …) and all runs ("mean")."""
    shown = frames.predictions.query("part != 'train' and stage != 'head'")
    runs = shown.assign(trial=(shown["repeat"] + 1).astype(str))
    networks = runs[runs["model"] == "clip"]
    table = summarise(pd.concat([networks, shown.assign(trial="mean")]), by=("trial",))
    table = add_paper_scores(table, "table1")
    return Exhibit("table1", TITLE, table, draw_dots(table, "r2"))
