"""How far a prediction may be off, and whether the model was ever shown such a material.

Arrays in, arrays out: any model can use this. Intervals are conformal: their widths come from
residuals of materials that the model was not trained on, so they hold for any model, good or bad,
as long as new materials are like those. :class:`TrainingDomain` says when they are not.

>>> intervals = ConformalIntervals.fit(true, out_of_fold)  # both (materials, targets)
>>> low, high = intervals(predicted)
>>> domain = TrainingDomain.fit(features, elements)
>>> domain.reasons(new_features, new_elements)
[None, 'element Pu is in no training material']
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Self

import numpy as np
from scipy.spatial import KDTree

from ..errors import RhosightError

STD_FLOOR = 0.1
"""Standard deviations below this share of their median are raised to it: no model is certain."""


def conformal_quantile(scores: np.ndarray, level: float) -> float:
    """The ⌈(n + 1)·level⌉-th smallest of n scores; infinite if n is too small for that.

    A new score, exchangeable with these, is not above it with a probability of at least ``level``
    (Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), doi:10.1080/01621459.2017.1307116,
    section 2.2). NaNs are left out.
    """
    if not 0 < level < 1:
        raise RhosightError(f"the level of an interval lies between 0 and 1, not {level}")
    known = np.sort(scores[~np.isnan(scores)])
    rank = ceil(round((len(known) + 1) * level, 9))  # 10 · 0.9 is nine, not a little more
    return float(known[rank - 1]) if rank <= len(known) else float("inf")


@dataclass(frozen=True)
class ConformalIntervals:
    """Prediction intervals from out-of-fold residuals, for each target its own.

    Attributes
    ----------
    level
        Share of new materials whose truth is meant to lie inside, such as 0.9.
    quantiles
        For each target: half the width, in its unit; or, with ``floors``, the factor by which the
        model's standard deviation is multiplied. Infinite if there were too few residuals.
    floors
        For each target the smallest standard deviation that is believed, in its unit. None for
        plain intervals, which are equally wide for all materials.
    """

    level: float
    quantiles: tuple[float, ...]
    floors: tuple[float, ...] | None = None

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
            Shape (materials, targets), or (materials,) for one target, in the targets' units. A
            missing true value, NaN, is left out.
        std
            The model's own standard deviations of these predictions, same shape: the intervals are
            then as wide as the model is unsure (locally weighted; Lei et al., section 5.2).
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

    def widened(self, factors: np.ndarray) -> Self:
        """The same, by a factor for each target, shape (targets,)."""
        wider = tuple((np.array(self.quantiles) * factors).tolist())
        return type(self)(self.level, wider, self.floors)

    def half_widths(self, predicted: np.ndarray, std: np.ndarray | None = None) -> np.ndarray:
        """The ± of each prediction, in its shape and unit.

        ``std``, in the same shape, is needed if the intervals were calibrated with it.
        """
        values = _columns(predicted)
        if values.shape[1] != len(self.quantiles):
            raise RhosightError(
                f"predictions of {values.shape[1]} target(s) for intervals of "
                f"{len(self.quantiles)}; give them in the order of the calibration"
            )
        factor: np.ndarray | float = 1.0
        if self.floors is not None:
            if std is None:
                raise RhosightError("these intervals scale with the model's std; give it as well")
            factor = np.maximum(_columns(std), self.floors)
        half = np.broadcast_to(np.array(self.quantiles) * factor, values.shape)
        return half.reshape(np.shape(predicted)).copy()

    def __call__(
        self, predicted: np.ndarray, std: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends, each in the shape of ``predicted``."""
        half = self.half_widths(predicted, std)
        return np.asarray(predicted, dtype=float) - half, np.asarray(predicted, dtype=float) + half

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinities become None."""
        state = asdict(self)
        state["quantiles"] = [q if np.isfinite(q) else None for q in self.quantiles]
        state["floors"] = None if self.floors is None else list(self.floors)
        return state

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """From what :meth:`to_dict` gave."""
        quantiles = tuple(float("inf") if q is None else float(q) for q in state["quantiles"])
        floors = state.get("floors")
        return cls(float(state["level"]), quantiles, None if floors is None else tuple(floors))


def cv_plus(
    predicted: np.ndarray, residuals: np.ndarray, fold: np.ndarray, level: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """CV+ intervals, which let the models of all folds speak.

    Barber et al., Ann. Stat. 49, 486 (2021), doi:10.1214/20-AOS1965, section 3: the truth lies
    inside with a probability of at least 2·level − 1 (less a term that vanishes with the number of
    materials), whatever the model does, and of ``level`` in practice. With one fold for each
    material it is the jackknife+.

    Parameters
    ----------
    predicted
        Shape (new materials, folds): predictions of one target by the model of each fold.
    residuals
        Shape (training materials,): each one's |true − predicted| by the model of the fold in whose
        validation part it was.
    fold
        Shape (training materials,): that fold's column in ``predicted``.
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
    """What a model was trained on, as far as it takes to say that a material is not like it.

    A material lies outside if it has an element that no training material has, if its features are
    farther from its nearest training materials than those of nearly all training materials are from
    theirs, or if the model is less sure of it than of nearly all of these.

    Attributes
    ----------
    elements
        Symbols of all elements of the training part, sorted.
    mean, scale
        Shape (features,): mean and standard deviation of the training part; a constant feature is
        scaled by one.
    points
        Shape (training materials, features): standardised features, float32.
    max_distance
        Largest distance that is inside.
    max_std
        Largest standard deviation that is inside, for each target in its unit; empty if the model
        has none.
    neighbours
        How many nearest training materials the distance is a mean over.
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
        """Learn the limits from the training part.

        Parameters
        ----------
        features
            Shape (materials, features), numbers without NaN.
        elements
            For each material the symbols of its elements.
        std
            Shape (materials, targets) or (materials,): out-of-fold standard deviations by the
            model; those of materials that it was trained on would be too small. NaNs are left out.
        neighbours
            See the attributes; fewer if there are not that many materials.
        quantile
            Between 0 and 1. The distance of a training material is to the others (leave-one-out).
        """
        values = np.asarray(features, dtype=float)
        if values.ndim != 2 or len(values) != len(elements) or len(values) < 2:
            raise RhosightError(
                f"features of shape {values.shape} for {len(elements)} materials; the training "
                "domain needs one row for each of two materials or more"
            )
        if not np.isfinite(values).all():
            raise RhosightError("features of the training domain hold NaN or infinities")
        scale = values.std(axis=0)
        # a constant column may have a spread of rounding errors
        scale = np.where(scale > 1e-9 * np.abs(values).max(axis=0), scale, 1.0)
        mean = values.mean(axis=0)
        points = ((values - mean) / scale).astype(np.float32)
        neighbours = min(neighbours, len(points) - 1)
        nearest = KDTree(points).query(points, k=neighbours + 1)[0][:, 1:]  # the first is itself
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
        """Mean distance to the nearest training materials, shape (materials,).

        Euclidean over standardised features, divided by the square root of their number: 1 is one
        standard deviation in each.
        """
        return self.nearest(features, self.neighbours)[1].mean(axis=1)

    def _standardised(self, features: np.ndarray) -> np.ndarray:
        values = np.asarray(features, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise RhosightError(
                f"features of shape {values.shape}; the training domain knows {len(self.mean)}"
            )
        return ((values - self.mean) / self.scale).astype(np.float32)

    def nearest(self, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The training materials that are most like others.

        Parameters
        ----------
        features
            Of the materials in question, as :meth:`fit` takes them.
        count
            How many of each; no more than there are.

        Returns
        -------
        Their positions in the training part and their distances, in the unit of :meth:`distances`;
        both of shape (materials, count), nearest first.
        """
        points = self._standardised(features)
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
        """Why each material lies outside the training domain; None if it does not.

        Parameters
        ----------
        features, elements, std
            Of the materials in question, as :meth:`fit` takes them; ``std`` of the final model.
        targets
            Names of the targets, for the text.
        """
        spread = None if std is None or not self.max_std else _columns(std)
        share = f"{100 * self.quantile:g} %"
        found = []
        for i, distance in enumerate(self.distances(features)):
            said = []
            if unknown := sorted(set(elements[i]) - set(self.elements)):
                what = (
                    f"element {unknown[0]} is"
                    if len(unknown) == 1
                    else (f"elements {', '.join(unknown)} are")
                )
                said.append(f"{what} in no training material")
            if not distance <= self.max_distance:  # NaN is outside, too
                said.append(
                    f"less like its nearest training materials than {share} of these are like "
                    f"theirs (distance {distance:.2f}, limit {self.max_distance:.2f})"
                )
            if spread is not None:
                for column, limit in enumerate(self.max_std):
                    if not spread[i, column] <= limit:
                        name = f" of {targets[column]}" if targets else ""
                        said.append(
                            f"the model is less sure{name} than for {share} of its training "
                            f"materials (standard deviation {spread[i, column]:.3g}, "
                            f"limit {limit:.3g})"
                        )
            found.append("; ".join(said) or None)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """The part of the state that belongs in a file of arrays, such as safetensors."""
        arrays = {"mean": self.mean, "scale": self.scale, "points": self.points}
        # safetensors writes the memory as it lies, whatever the strides say
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def to_dict(self) -> dict[str, Any]:
        """The rest of the state, for JSON."""
        return {
            "elements": list(self.elements),
            "max_distance": self.max_distance,
            "max_std": list(self.max_std),
            "neighbours": self.neighbours,
            "quantile": self.quantile,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """From what :meth:`to_dict` and :meth:`arrays` gave."""
        rest = {**state, "elements": tuple(state["elements"]), "max_std": tuple(state["max_std"])}
        return cls(
            **rest, **{name: np.asarray(arrays[name]) for name in ("mean", "scale", "points")}
        )


def _columns(values: np.ndarray) -> np.ndarray:
    """Shape (materials, targets); one target may come without its axis."""
    values = np.asarray(values, dtype=float)
    return values[:, None] if values.ndim == 1 else values
