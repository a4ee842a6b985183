"""Write predictions beside GPAW's results as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ..evaluation.html import (
    FIRST,
    SECOND,
    SOFT,
    describe_target,
    inline_svg,
    page_style,
    write_page,
)
from .correction import MODULUS, Correction
from .verification import COMPUTED, QUANTILE, UNITS, describe_verdict, summarise
from .wishes import FORMATION_ENERGY, HULL, Wish, describe_property


def write_verification_report(
    table: pd.DataFrame, correction: Correction, wishes: Sequence[Wish], path: Path
) -> None:
    """Write the results of all rounds as one HTML file."""
    report = _Report(table, correction, wishes)
    write_page(path, "verification.html.j2", package="rhosight.design", report=report)


class _Report:
    """Numbers and plots for the template."""

    def __init__(self, table: pd.DataFrame, correction: Correction, wishes: Sequence[Wish]):
        self.rows: list[Any] = table.astype(object).where(table.notna(), None).to_dict("records")
        self.wishes = [
            f"{describe_property(w.target)} {w.describe(UNITS.get(w.target, ''))}" for w in wishes
        ]
        known = correction.table
        self.known: list[Any] = known.astype(object).where(known.notna(), None).to_dict("records")
        self.shares = [
            ("any compound", correction.shares[0]),
            *zip(correction.elements, correction.shares[1:], strict=True),
        ]
        self.missed = float(np.sqrt(np.mean(correction.left_out**2)))
        self.before = float(np.sqrt(np.mean(correction.differences**2)))
        self.factor, self.factor_spread = correction.modulus, float(np.std(correction.ratios))
        self.computed = len(correction.ratios)
        self.rounds = sorted(table["round"].unique())
        self.summaries = [
            ("all rounds", summarise(table)),
            *((f"round {n}", summarise(table[table["round"] == n])) for n in self.rounds),
        ]
        self.names = list(dict.fromkeys(key for _, one in self.summaries for key in one))
        self.plots = [draw_parity(table, target) for target in COMPUTED if target in table]
        self.energy, self.modulus, self.hull = FORMATION_ENERGY, MODULUS, HULL

    def verdict(self, row: dict[str, Any]) -> str:
        """Return whether the wishes hold."""
        return describe_verdict(row)

    def interval(self, row: dict[str, Any], target: str) -> str:
        """Return a predicted value with the ends of its interval."""
        if pd.isna(row.get(target, np.nan)):
            return "–"
        digits = 0 if target == MODULUS else 2
        ends = (row[target], row[f"{target}_low"], row[f"{target}_high"])
        mean, low, high = (f"{end:.{digits}f}".replace("-", "−") for end in ends)
        return f"{mean} ({low} to {high})"


def draw_parity(table: pd.DataFrame, target: str) -> Markup:
    """Return the plot of predictions with intervals against computed values, as SVG."""
    from matplotlib.figure import Figure

    good = table[table["problem"].isna()]
    with page_style(f"parity-{target}"):
        figure = Figure(figsize=(3.6, 3.4), layout="constrained")
        axis = figure.add_subplot()
        for number, color in zip(sorted(good["round"].unique()), _cycle(), strict=False):
            own = good[good["round"] == number]
            y, low, high = (own[f"{target}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
            axis.errorbar(
                own[f"{target}_verified"].to_numpy(float),
                y,
                xerr=QUANTILE * own[f"{target}_error"].to_numpy(float),
                yerr=np.maximum(np.stack([y - low, high - y]), 0),
                fmt="o",
                markersize=3.5,
                linewidth=0.8,
                color=color,
                label=f"round {number}",
            )
        ends = [*axis.get_xlim(), *axis.get_ylim()]
        axis.plot([min(ends), max(ends)], [min(ends), max(ends)], color=SOFT, linewidth=0.8)
        axis.set_xlabel(f"GPAW, corrected ({UNITS[target]})")
        axis.set_ylabel(f"predicted ({UNITS[target]})")
        axis.set_title(describe_target(target))
        if len(good):
            axis.legend(frameon=False)
        return inline_svg(figure, f"predicted and computed {describe_target(target)}")


def _cycle() -> list[str]:
    return [FIRST, SECOND, "#4d4d4d", "#8c6bb1", "#41ab5d", "#cb181d"]
