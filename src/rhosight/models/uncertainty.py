"""Prediction intervals, and flags for materials outside the training domain.

Input and output are arrays, so any model can use this module. Intervals are conformal: their widths
come from residuals of materials that the model was not trained on. They are valid for any model,
good or bad, as long as new materials are like the training set. :class:`TrainingDomain` flags those
that are not.

>>> intervals = ConformalIntervals.fit(true, out_of_fold)  # both (materials, targets)
>>> low, high = intervals(predicted)
>>> domain = TrainingDomain.fit(features, elements)
>>> domain.reasons(new_features, new_elements)
[None, 'element Pu is in no training material']
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any, Self

import numpy as np
from scipy.spatial import KDTree

from ..errors import RhosightError
from .arrays import take_array

STD_FLOOR = 0.1
"""Smallest standard deviation, as a share of the median: no model is certain."""

MIN_SPREAD = 1e-9
"""Spread of a feature, in its unit, below which it counts as constant."""

MAX_DEVIATION = 100.0
"""Largest deviation of a feature that counts, in standard deviations of the training set: a feature
that was nearly constant there would outweigh all others."""


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """Return the ⌈(n + 1)·level⌉-th smallest of n scores; infinite if n is too small.

    A new score that is exchangeable with these is at most this quantile with a probability of at
    least ``level`` (Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018),
    doi:10.1080/01621459.2017.1307116, section 2.2). NaNs are ignored.
    """
    if not 0 < level < 1:
        raise RhosightError(f"the level of an interval must lie between 0 and 1, not be {level}")
    known = np.sort(scores[~np.isnan(scores)])
    rank = ceil(round((len(known) + 1) * level, 9))  # 10 · 0.9 is 9, without rounding error
    return float(known[rank - 1]) if rank <= len(known) else float("inf")


@dataclass(frozen=True)
class ConformalIntervals:
    """Prediction intervals from out-of-fold residuals, separate for each target.

    Attributes
    ----------
    level
        Share of new materials whose true value should lie inside, such as 0.9.
    quantiles
        For each target: half the width, in its unit; or, with ``floors``, the factor by which the
        model's standard deviation is multiplied. Infinite if there were too few residuals.
    floors
        For each target the smallest standard deviation that is used, in its unit. None for plain
        intervals, which are equally wide for all materials.
    outside
        For each target the factor by which intervals of materials outside the training domain are
        wider. None if it was not measured.
    """

    level: float
    quantiles: tuple[float, ...]
    floors: tuple[float, ...] | None = None
    outside: tuple[float, ...] | None = None

    @classmethod
    def fit(
        cls,
        true: np.ndarray,
        predicted: np.ndarray,
        std: np.ndarray | None = None,
        level: float = 0.9,
    ) -> Self:
        """Calibrate on predictions of materials that the model was not trained on.

        Parameters
        ----------
        true, predicted
            Shape (materials, targets), or (materials,) for one target, in the targets' units.
            Missing true values, NaN, are ignored.
        std
            The model's own standard deviations of these predictions, same shape. The widths are
            then proportional to them (locally weighted; Lei et al., section 5.2).
        level
            Between 0 and 1.
        """
        residuals = np.abs(_columns(true) - _columns(predicted))
        if std is None:
            return cls(level, tuple(conformal_quantile(r, level) for r in residuals.T))
        spread = np.where(np.isnan(residuals), np.nan, _columns(std))
        middle = np.array(
            [np.median(s[~np.isnan(s)]) if (~np.isnan(s)).any() else 0.0 for s in spread.T]
        )
        floors = np.maximum(STD_FLOOR * middle, np.finfo(float).tiny)
        scores = residuals / np.maximum(spread, floors)
        quantiles = tuple(conformal_quantile(s, level) for s in scores.T)
        return cls(level, quantiles, tuple(floors.tolist()))

    def widen(self, factors: np.ndarray) -> Self:
        """Return intervals that are wider by a factor for each target, shape (targets,)."""
        wider = tuple((np.array(self.quantiles) * factors).tolist())
        return replace(self, quantiles=wider)

    def calibrate_outside(
        self, true: np.ndarray, predicted: np.ndarray, std: np.ndarray | None = None
    ) -> Self:
        """Return intervals that hold outside the training domain, too.

        Parameters
        ----------
        true, predicted, std
            As :meth:`fit` takes them, of materials unlike those that the predictions were learned
            from: whole groups that were left out.
        """
        half = self.half_widths(_columns(predicted), std)
        ratios = np.abs(_columns(true) - _columns(predicted)) / half
        factors = tuple(max(1.0, conformal_quantile(r, self.level)) for r in ratios.T)
        return replace(self, outside=factors)

    def half_widths(
        self,
        predicted: np.ndarray,
        std: np.ndarray | None = None,
        outside: Sequence[bool] | None = None,
    ) -> np.ndarray:
        """Return half the width of each interval, in the predictions' shape and unit.

        ``std``, in the same shape, is needed if the intervals were calibrated with it. ``outside``
        tells which materials are outside the training domain.

        Raises
        ------
        RhosightError
            If the number of targets differs from the calibration, or ``std`` is missing.
        """
        values = _columns(predicted)
        if values.shape[1] != len(self.quantiles):
            raise RhosightError(
                f"predictions of {values.shape[1]} target(s), but intervals of "
                f"{len(self.quantiles)}; give the targets in the order of the calibration"
            )
        factor: np.ndarray | float = 1.0
        if self.floors is not None:
            if std is None:
                raise RhosightError("these intervals are proportional to the model's std; give std")
            factor = np.maximum(_columns(std), self.floors)
        half = np.broadcast_to(np.array(self.quantiles) * factor, values.shape).copy()
        if outside is not None and self.outside is not None:
            half[np.asarray(outside, dtype=bool)] *= np.array(self.outside)
        return half.reshape(np.shape(predicted))

    def __call__(
        self,
        predicted: np.ndarray,
        std: np.ndarray | None = None,
        outside: Sequence[bool] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends, see :meth:`half_widths`."""
        half = self.half_widths(predicted, std, outside)
        return np.asarray(predicted, dtype=float) - half, np.asarray(predicted, dtype=float) + half

    def to_dict(self) -> dict[str, Any]:
        """Return the state for JSON; infinities become None."""
        state = asdict(self)
        state["quantiles"] = [q if np.isfinite(q) else None for q in self.quantiles]
        state["floors"] = None if self.floors is None else list(self.floors)
        if self.outside is None:
            del state["outside"]
        else:
            state["outside"] = [f if np.isfinite(f) else None for f in self.outside]
        return state

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild the intervals from the result of :meth:`to_dict`."""
        quantiles, outside = (
            tuple(float("inf") if q is None else float(q) for q in state.get(name) or ())
            for name in ("quantiles", "outside")
        )
        floors = state.get("floors")
        floors = None if floors is None else tuple(floors)
        return cls(float(state["level"]), quantiles, floors, outside or None)


def cv_plus(
    predicted: np.ndarray, residuals: np.ndarray, fold: np.ndarray, level: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """Compute CV+ intervals, which use the models of all folds.

    Barber et al., Ann. Stat. 49, 486 (2021), doi:10.1214/20-AOS1965, section 3: the true value lies
    inside with a probability of at least 2·level − 1 (less a term that vanishes with the number of
    materials) for any model, and about ``level`` in practice. With one fold for each material this
    is the jackknife+.

    Parameters
    ----------
    predicted
        Shape (new materials, folds): predictions of one target by the model of each fold.
    residuals
        Shape (training materials,): |true − predicted| of each, by the model of the fold that had
        it in its validation set.
    fold
        Shape (training materials,): column of this fold in ``predicted``.
    level
        Between 0 and 1.

    Returns
    -------
    Lower and upper ends, each of shape (new materials,).
    """
    centres = np.asarray(predicted, dtype=float)[:, np.asarray(fold, dtype=int)]
    lows, highs = centres - residuals, centres + residuals
    low = np.array([-conformal_quantile(-row, level) for row in lows])
    high = np.array([conformal_quantile(row, level) for row in highs])
    return low, high


@dataclass(frozen=True)
class TrainingDomain:
    """The training materials of a model, to flag materials outside their domain.

    A material lies outside if it has an element that no training material has, if its features are
    farther from its nearest training materials than those of nearly all training materials are from
    theirs, or if the model's standard deviation is larger than for nearly all training materials.

    Attributes
    ----------
    elements
        Symbols of all elements of the training set, sorted.
    mean, scale
        Shape (features,): mean and standard deviation over the training set; a constant feature
        has scale 1.
    points
        Shape (training materials, features): standardised features, float32.
    max_distance
        Largest distance inside the domain.
    max_std
        Largest standard deviation inside the domain, for each target in its unit; empty if the
        model has no standard deviations.
    neighbours
        Number of nearest training materials whose distances are averaged.
    quantile
        Share of the training materials that lie within each limit.
    """

    elements: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    points: np.ndarray
    max_distance: float
    max_std: tuple[float, ...] = ()
    neighbours: int = 3
    quantile: float = 0.99

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        elements: Sequence[Collection[str]],
        std: np.ndarray | None = None,
        neighbours: int = 3,
        quantile: float = 0.99,
    ) -> Self:
        """Learn the limits from the training set.

        Parameters
        ----------
        features
            Shape (materials, features), numbers without NaN.
        elements
            For each material the symbols of its elements.
        std
            Shape (materials, targets) or (materials,): the model's out-of-fold standard deviations;
            those of a model trained on the same materials would be too small. NaNs are ignored.
        neighbours
            See the attributes; fewer if there are not that many materials.
        quantile
            Between 0 and 1. The distance of a training material is to the others (leave-one-out).

        Raises
        ------
        RhosightError
            If the numbers of rows differ, there are fewer than two, or one is not finite.
        """
        values = np.asarray(features, dtype=float)
        if values.ndim != 2 or len(values) != len(elements) or len(values) < 2:
            raise RhosightError(
                f"features of shape {values.shape} for {len(elements)} materials; the training "
                "domain needs one row for each material, and at least two materials"
            )
        if not np.isfinite(values).all():
            raise RhosightError("features of the training domain contain NaN or infinities")
        scale = values.std(axis=0)
        # rounding errors give a constant column a small spread, also about zero
        smallest = np.maximum(1e-9 * np.abs(values).max(axis=0), MIN_SPREAD)
        scale = np.where(scale > smallest, scale, 1.0)
        mean = values.mean(axis=0)
        points = ((values - mean) / scale).astype(np.float32)
        neighbours = min(neighbours, len(points) - 1)
        nearest = KDTree(points).query(points, k=neighbours + 1)[0][:, 1:]  # the nearest is itself
        distances = nearest.mean(axis=1) / np.sqrt(max(points.shape[1], 1))
        limits = () if std is None else np.nanquantile(_columns(std), quantile, axis=0).tolist()
        return cls(
            elements=tuple(sorted(set().union(*elements))),
            mean=mean,
            scale=scale,
            points=points,
            max_distance=float(np.quantile(distances, quantile)),
            max_std=tuple(limits),
            neighbours=neighbours,
            quantile=quantile,
        )

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Compute the mean distance to the nearest training materials, shape (materials,).

        Euclidean over standardised features, divided by the square root of their number: 1 is one
        standard deviation in each.
        """
        return self.nearest(features, self.neighbours)[1].mean(axis=1)

    def _standardise(self, features: np.ndarray) -> np.ndarray:
        values = np.asarray(features, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise RhosightError(
                f"features of shape {values.shape}, but the training domain has {len(self.mean)}"
            )
        deviations = (values - self.mean) / self.scale
        return np.clip(deviations, -MAX_DEVIATION, MAX_DEVIATION).astype(np.float32)

    def nearest(self, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the training materials that are most like given materials.

        Parameters
        ----------
        features
            Of the given materials, as :meth:`fit` takes them.
        count
            Number of training materials for each.

        Returns
        -------
        Their positions in the training set and their distances, in the unit of :meth:`distances`;
        both of shape (materials, count), nearest first.
        """
        points = self._standardise(features)
        count = min(count, len(self.points))
        distances, rows = KDTree(self.points).query(points, k=list(range(1, count + 1)))
        return rows, distances / np.sqrt(max(points.shape[1], 1))

    def reasons(
        self,
        features: np.ndarray,
        elements: Sequence[Collection[str]],
        std: np.ndarray | None = None,
        targets: Sequence[str] = (),
    ) -> list[str | None]:
        """Return why each material lies outside the training domain; None if it does not.

        Parameters
        ----------
        features, elements, std
            Of the given materials, as :meth:`fit` takes them; ``std`` of the final model.
        targets
            Names of the targets, for the text.
        """
        spread = None if std is None or not self.max_std else _columns(std)
        share = f"{100 * self.quantile:g} %"
        results = []
        for i, distance in enumerate(self.distances(features)):
            reasons = []
            if unknown := sorted(set(elements[i]) - set(self.elements)):
                subject = (
                    f"element {unknown[0]} is"
                    if len(unknown) == 1
                    else f"elements {', '.join(unknown)} are"
                )
                reasons.append(f"{subject} in no training material")
            if not distance <= self.max_distance:  # NaN is outside, too
                reasons.append(
                    f"farther from its nearest training materials than {share} of the training "
                    f"materials are from theirs (distance {distance:.2f}, limit "
                    f"{self.max_distance:.2f})"
                )
            if spread is not None:
                reasons += [
                    f"the prediction{f' of {targets[column]}' if targets else ''} is less certain "
                    f"than for {share} of the training materials (standard deviation "
                    f"{spread[i, column]:.3g}, limit {limit:.3g})"
                    for column, limit in enumerate(self.max_std)
                    if not spread[i, column] <= limit
                ]
            results.append("; ".join(reasons) or None)
        return results

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state that belongs in a file of arrays, such as safetensors."""
        arrays = {"mean": self.mean, "scale": self.scale, "points": self.points}
        # safetensors writes the memory in its order and ignores strides
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the rest of the state, for JSON."""
        return {
            "elements": list(self.elements),
            "max_distance": self.max_distance,
            "max_std": list(self.max_std),
            "neighbours": self.neighbours,
            "quantile": self.quantile,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the domain from the results of :meth:`to_dict` and :meth:`arrays`."""
        points = take_array(arrays, "points", (None, None))
        scale = take_array(arrays, "scale", points.shape[1:])
        if not len(points) or not (scale > 0).all():
            raise RhosightError("the training domain has no materials, or a scale of zero")
        return cls(
            elements=tuple(state["elements"]),
            mean=take_array(arrays, "mean", points.shape[1:]),
            scale=scale,
            points=points,
            max_distance=state["max_distance"],
            max_std=tuple(state["max_std"]),
            neighbours=state["neighbours"],
            quantile=state["quantile"],
        )


def _columns(values: np.ndarray) -> np.ndarray:
    """Return an array of shape (materials, targets); one target may lack its axis."""
    values = np.asarray(values, dtype=float)
    return values[:, None] if values.ndim == 1 else values
