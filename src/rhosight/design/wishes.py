"""Ranges of properties, and the probability that predictions lie in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal, norm

from ..errors import RhosightError
from ..evaluation.html import describe_target

HULL = "energy_above_hull"
"""Target that follows from the formation energy, eV/atom."""

FORMATION_ENERGY = "formation_energy_per_atom"

MAX_CORRELATION = 0.95


def describe_property(target: str) -> str:
    """Return the name in words of a target, or of the energy above the hull."""
    return "energy above the hull" if target == HULL else describe_target(target)


@dataclass(frozen=True)
class Wish:
    """A range of a property.

    Attributes
    ----------
    target
        Name of the property.
    low, high
        Its bounds in the unit of the target; infinite if there is none.
    """

    target: str
    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``bulk_modulus_vrh=200..250``, ``…=..-0.5`` or ``…=200..``.

        Raises
        ------
        RhosightError
            If the text has another form, or the range is empty.
        """
        target, equals, bounds = text.partition("=")
        first, dots, last = bounds.partition("..")
        example = "write for example bulk_modulus_vrh=200..250 or formation_energy_per_atom=..-0.5"
        if not (target.strip() and equals and dots) or not (first.strip() or last.strip()):
            raise RhosightError(f"target {text!r}: not a range; {example}")
        try:
            low, high = float(first.strip() or "-inf"), float(last.strip() or "inf")
        except ValueError:
            raise RhosightError(f"target {text!r}: a bound is not a number; {example}") from None
        if not low < high:
            raise RhosightError(
                f"target {text!r}: the lower bound must be below the upper one; {example}"
            )
        return cls(target.strip(), low, high)

    def __str__(self) -> str:
        ends = (f"{end:g}" if np.isfinite(end) else "" for end in (self.low, self.high))
        return f"{self.target}={'..'.join(ends)}"

    def describe(self, unit: str) -> str:
        """Return the wish in words, such as ``200 to 250 GPa``."""
        if not np.isfinite(self.low):
            text = f"at most {self.high:g}"
        elif not np.isfinite(self.high):
            text = f"at least {self.low:g}"
        else:
            text = f"{self.low:g} to {self.high:g}"
        return f"{text} {unit}".strip()

    def is_met(self, values: np.ndarray) -> np.ndarray:
        """Return which values lie in the range."""
        return (values >= self.low) & (values <= self.high)


def read_wishes(targets: Mapping[str, tuple[float | None, float | None]] | Sequence[str]) -> list:
    """Return the wishes of a mapping target → (low, high), or of texts.

    Raises
    ------
    RhosightError
        If there is none, a target is named twice, or a range is empty or not a range.
    """
    if isinstance(targets, str):
        targets = [targets]
    if isinstance(targets, Mapping):
        texts = []
        for name, ends in targets.items():
            try:
                low, high = ("" if end is None else str(float(end)) for end in ends)
            except (TypeError, ValueError):
                raise RhosightError(
                    f"target {name}: {ends!r} is not a pair of bounds; give (low, high), None for "
                    "no bound"
                ) from None
            texts.append(f"{name}={low}..{high}")
        targets = texts
    wishes = [Wish.parse(text) for text in targets]
    if not wishes:
        raise RhosightError("no target is given; a design needs at least one wish")
    names = [wish.target for wish in wishes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RhosightError(f"target {twice[0]} is given twice; give one range for each target")
    return wishes


def standardise(
    bounds: np.ndarray, predictions: pd.DataFrame, target: str, level: float
) -> np.ndarray:
    """Return where bounds lie in the predictive distributions, in standard deviations.

    Parameters
    ----------
    bounds
        Shape (n,), in the unit of the target; may be infinite.
    predictions
        Columns ``target``, ``target_low`` and ``target_high``, n rows. Each side of the prediction
        is half of a normal distribution with the interval's end on this side: a property that is
        learned as a logarithm has a longer upper side.
    target
        Name of the property.
    level
        Share of the distribution in the interval.

    Returns
    -------
    Shape (n,); 0 for a finite bound if the interval is infinite.
    """
    mean, low, high = (
        predictions[f"{target}{end}"].to_numpy(float) for end in ("", "_low", "_high")
    )
    width = np.where(bounds < mean, mean - low, high - mean)
    quantile = float(norm.ppf((1 + level) / 2))
    # beyond 12 standard deviations a bound is none
    return np.clip((bounds - mean) / np.maximum(width, 1e-12) * quantile, -12, 12)


def joint_probability(lower: np.ndarray, upper: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Return the probability that all properties lie in their ranges.

    Parameters
    ----------
    lower, upper
        Bounds in standard deviations from the predictions, shape (n, targets).
    correlation
        Of the errors of different targets, shape (targets, targets).

    Returns
    -------
    numpy.ndarray
        Shape (n,).
    """
    result = np.clip(norm.cdf(upper) - norm.cdf(lower), 0, 1).prod(axis=1)
    others = correlation - np.eye(len(correlation))
    # the correlation changes a probability by a factor; where it is tiny the product will do
    rows: list[int] = np.flatnonzero(result > 1e-6).tolist() if others.any() else []
    for row in rows:
        result[row] = multivariate_normal.cdf(
            upper[row],
            mean=np.zeros(len(correlation)),
            cov=correlation,
            lower_limit=lower[row],
            allow_singular=True,
        )
    return np.clip(np.nan_to_num(result), 0, 1)


def error_correlation(errors: pd.DataFrame) -> np.ndarray:
    """Return the correlation of errors of several targets, robust against outliers.

    Parameters
    ----------
    errors
        Shape (materials, targets), NaN where a label is missing.
    """
    # ranks, then the normal distribution's relation: Spearman to Pearson
    ranks = errors.corr(method="spearman", min_periods=30).fillna(0.0).to_numpy()
    values = np.clip(2 * np.sin(np.pi * ranks / 6), -MAX_CORRELATION, MAX_CORRELATION)
    np.fill_diagonal(values, 1.0)
    return values
