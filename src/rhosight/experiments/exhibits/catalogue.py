"""Look up the exhibits by name, and import their modules when needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..exhibit import Exhibit
from ..plan import Entry, Frames, Plan

TRAINED: tuple[str, ...] = (
    "table1",
    "table2",
    "table3",
    "figure2",
    "figure6",
    "figure7",
    "figure9",
)
"""Exhibits made from the results of jobs; the others are pictures of the data and the networks."""

EXPERIMENTS: tuple[str, ...] = (
    *(f"table{number}" for number in range(1, 4)),
    *(f"figure{number}" for number in range(1, 10)),
)
"""Names of the paper's tables and figures; each is a module of this package."""


class TrainedExhibit(Protocol):
    """Interface of the modules that make an exhibit from the results of jobs."""

    def list_entries(self, plan: Plan) -> list[Entry]:
        """Return the jobs of the exhibit."""
        ...

    def make_exhibit(self, plan: Plan, frames: Frames) -> Exhibit:
        """Make the exhibit from the results of its jobs."""
        ...


def load_trained(name: str) -> TrainedExhibit:
    """Return the module of one of :data:`TRAINED`. None of them imports PyTorch."""
    from . import figure2, figure6, figure7, figure9, table1, table2, table3

    modules: Mapping[str, TrainedExhibit] = {
        "table1": table1,
        "table2": table2,
        "table3": table3,
        "figure2": figure2,
        "figure6": figure6,
        "figure7": figure7,
        "figure9": figure9,
    }
    return modules[name]


def draw_picture(name: str, plan: Plan) -> Exhibit:
    """Draw an exhibit that needs no training: of the data, or of the networks."""
    return _PICTURES[name](plan)


def _draw_figure1(plan: Plan) -> Exhibit:
    from .figure1 import make_exhibit

    return make_exhibit(plan.dataset)


def _draw_figure3(plan: Plan) -> Exhibit:
    from .figure3 import make_exhibit

    return make_exhibit(plan.dataset)


def _draw_figure4(plan: Plan) -> Exhibit:
    from .figure4 import make_exhibit

    return make_exhibit(plan.dataset)


def _draw_figure5(plan: Plan) -> Exhibit:
    from .figure5 import make_exhibit

    return make_exhibit(plan.preset.stacked("all")[0])


def _draw_figure8(plan: Plan) -> Exhibit:
    from .figure8 import make_exhibit

    return make_exhibit(plan.dataset)


_PICTURES: Mapping[str, Callable[[Plan], Exhibit]] = {
    "figure1": _draw_figure1,
    "figure3": _draw_figure3,
    "figure4": _draw_figure4,
    "figure5": _draw_figure5,
    "figure8": _draw_figure8,
}
