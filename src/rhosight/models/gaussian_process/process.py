"""Exact Gaussian processes over named blocks of features.

They suit training sets of tens to a few thousand materials. Up to 1000 all is exact. For more, the
hyperparameters are those of 800 materials drawn at random, and the variance of a prediction comes
from the 128 training materials that are most like it; the mean stays exact.

:mod:`rhosight.models.gaussian_process.kernel` defines the kernel. Its hyperparameters and the noise
maximise the marginal likelihood of the training labels under a weak prior (Rasmussen & Williams,
Gaussian Processes for Machine Learning, MIT Press 2006, sections 4.2.4 and 5.4.1). No label is held
back for it, and none outside the training set is used.

Some labels are odd: moduli of crystals that are not stable, Fermi energies anywhere within a gap.
The noise may therefore follow Student's t-distribution, under which such labels count less.

>>> kernel = Kernel(alone=("fractions",), together=("fractions", "magpie"))
>>> model = GaussianProcess(kernel.terms, seed=0).fit(blocks, y)
>>> mean, std = model.predict(new_blocks, return_std=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import pandas as pd

from ...errors import RhosightError
from ...inputs.scaling import BlockScaler
from ..arrays import take_array
from .fitted import FittedTarget
from .kernel import JITTER, Blocks, KernelFunction, Term, mean_squares
from .local import compute_kernels, local_variance
from .posterior import LARGEST_SET, maximise_posterior
from .saved import read_scaler, read_target

CHUNK = 256
"""Materials that are predicted at once."""


class GaussianProcess:
    """Regression of one target or several, each with hyperparameters of its own.

    Parameters
    ----------
    terms
        The kernel, such as those of a :class:`rhosight.models.gaussian_process.kernel.Kernel`.
    linear
        Names of blocks that are only standardised. Features of the others, which may have long
        tails, are first compressed: arcsinh((x - median) / interquartile range).
    robust
        Degrees of freedom of the noise's t-distribution, above 2; None for normal noise.
    max_iterations
        Largest number of steps of the optimiser, for each target and start.
    restarts
        Starts of the optimiser. The first is the centre of the prior; the others are drawn from the
        prior with ``seed``. The most probable result wins.
    seed
        For the restarts. The same seed and data give the same model.

    Notes
    -----
    Fitting takes time ∝ n³ and memory ∝ (blocks + terms) · n² for n materials.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        linear: Sequence[str] = (),
        robust: float | None = 4.0,
        max_iterations: int = 40,
        restarts: int = 1,
        seed: int = 0,
    ):
        self.kernel = KernelFunction(terms)
        self.linear = tuple(linear)
        self.robust = robust
        self.max_iterations = max_iterations
        self.restarts = restarts
        self.seed = seed
        if robust is not None and robust <= 2:
            raise RhosightError(f"robust must be above 2 for a finite variance, not {robust}")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the names of the kernel's blocks, sorted."""
        return self.kernel.blocks

    def fit(self, blocks: Blocks, y: np.ndarray | pd.DataFrame) -> Self:
        """Learn from n materials.

        Parameters
        ----------
        blocks
            At least those of the kernel, each of n rows, finite.
        y
            Shape (n,) or (n, targets), in the targets' units; NaN where a label is missing. Each
            target learns from the materials that have it.

        Raises
        ------
        RhosightError
            If a block is missing, has another length or is not finite, or a target has fewer than
            two different labels.
        """
        tables = self._tables(blocks)
        labels = np.asarray(y, dtype=float)
        n = len(labels)
        for name, table in tables.items():
            if len(table) != n:
                raise RhosightError(
                    f"block {name!r} has {len(table)} rows, but there are {n} labels; give each "
                    "block a row for each material"
                )
        self._one_target = labels.ndim == 1
        self._scalers = {
            name: BlockScaler.fit(table, name in self.linear) for name, table in tables.items()
        }
        self._features = {name: self._scalers[name](table) for name, table in tables.items()}
        self._targets = []
        for column, values in enumerate(labels.reshape(n, -1).T):
            rows = np.flatnonzero(~np.isnan(values))
            if len(np.unique(values[rows])) < 2:
                raise RhosightError(
                    f"target {column} has fewer than two different labels; leave it out"
                )
            self._targets.append(self._fit_target(rows, values[rows]))
        return self

    def _fit_target(self, rows: np.ndarray, values: np.ndarray) -> FittedTarget:
        mean, scale = float(values.mean()), float(values.std())
        labels = (values - mean) / scale
        optimum = maximise_posterior(
            self.kernel,
            {name: features[rows] for name, features in self._features.items()},
            labels,
            self.robust,
            self.max_iterations,
            self.restarts,
            self.seed,
        )
        target = FittedTarget(rows, labels, mean=mean, scale=scale, **vars(optimum))
        if len(rows) > LARGEST_SET:
            target.alpha = target.solve(labels)
        return target

    def predict(
        self, blocks: Blocks, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict m materials.

        Parameters
        ----------
        blocks
            The kernel's, m rows each, with the features that :meth:`fit` was given.
        return_std
            Also return the standard deviation that new labels should have about the mean.

        Returns
        -------
        mean, or (mean, standard deviation), shape (m,) or (m, targets) as ``y`` was, in the
        targets' units.
        """
        mean, std = self.predict_with_std(blocks)
        return (mean, std) if return_std else mean

    def predict_with_std(self, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """Predict mean and standard deviation, see :meth:`predict`."""
        scaled = self.scaled(blocks)
        rows = len(next(iter(scaled.values())))
        # a few at a time: the distances of all take memory ∝ blocks · m · n
        parts = [
            self._mean_and_std({name: x[start : start + CHUNK] for name, x in scaled.items()})
            for start in range(0, max(rows, 1), CHUNK)
        ]
        mean, std = (np.concatenate(values) for values in zip(*parts, strict=True))
        return self._shaped(mean, std)

    def _shaped(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Drop the axis of the targets if the labels had none."""
        return (mean[:, 0], std[:, 0]) if self._one_target else (mean, std)

    def _mean_and_std(self, features: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Both of shape (m, targets), in the targets' units."""
        distances = self.distances(features)
        means, stds = [], []
        for target in self._targets:
            near = {name: d[:, target.rows] for name, d in distances.items()}
            kernel = self.kernel(target.parameters, near)
            if target.is_local:
                spread = local_variance(self.kernel, target, self._features, kernel)
            else:
                spread = self.kernel.variance(target.parameters) - np.einsum(
                    "ij,ji->i", kernel, target.solve(kernel.T)
                )
            variance = np.maximum(spread, 0) + target.noise * self._widening
            means.append(kernel @ target.coefficients * target.scale + target.mean)
            stds.append(np.sqrt(variance) * target.scale)
        return np.stack(means, axis=-1), np.stack(stds, axis=-1)

    def leave_out(self, groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Predict each of the n materials from those of other groups.

        The hyperparameters stay those of all labels (Rasmussen & Williams, section 5.4.2).

        Parameters
        ----------
        groups
            Group of each material, shape (n,); by default each is a group of its own.

        Returns
        -------
        mean and standard deviation as :meth:`predict` gives them; NaN where a label is missing.
        """
        shape = len(next(iter(self._features.values()))), len(self._targets)
        mean, std = np.full(shape, np.nan), np.full(shape, np.nan)
        self._compute_kernels()
        for column, target in enumerate(self._targets):
            assert target.kernel is not None
            inverse = target.solve(np.eye(len(target.rows)))
            own = target.rows if groups is None else groups[target.rows]
            centre, total = inverse @ target.labels, np.empty(len(own))
            for group in np.unique(own):
                at = np.flatnonzero(own == group)
                covariance = np.linalg.inv(inverse[np.ix_(at, at)])
                centre[at] = target.labels[at] - covariance @ centre[at]
                total[at] = np.diag(covariance)
            spread = total - target.noise / target.weights - JITTER
            if target.is_local:
                spread = local_variance(
                    self.kernel, target, self._features, target.kernel, (own, own)
                )
            variance = np.maximum(spread, 0) + target.noise * self._widening
            mean[target.rows, column] = centre * target.scale + target.mean
            std[target.rows, column] = np.sqrt(variance) * target.scale
        return self._shaped(mean, std)

    def leave_one_out_errors(self, column: int) -> np.ndarray:
        """Return predictions of each material from all others, minus the labels.

        The means of :meth:`leave_out` in a fraction of its time: a diagonal suffices.

        Parameters
        ----------
        column
            Number of the target.

        Returns
        -------
        Shape (n,), in the target's unit; NaN where a label is missing.
        """
        self._compute_kernels()
        target = self._targets[column]
        errors = np.full(len(next(iter(self._features.values()))), np.nan)
        errors[target.rows] = -target.coefficients / target.compute_precisions() * target.scale
        return errors

    def _compute_kernels(self) -> None:
        """Compute and keep the kernels of a large set that was loaded."""
        if any(target.kernel is None for target in self._targets):
            self._targets = compute_kernels(
                self.kernel, self._targets, self._features, self.distances, CHUNK
            )

    @property
    def _widening(self) -> float:
        """Return the ratio of a t-distribution's variance to its squared scale."""
        return 1.0 if self.robust is None else self.robust / (self.robust - 2)

    # what explanations read

    def scaled(self, blocks: Blocks) -> dict[str, np.ndarray]:
        """Scale m materials' features for the kernel: block → (m, features used)."""
        tables = self._tables(blocks)
        return {name: self._scalers[name](table, name) for name, table in tables.items()}

    def distances(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Compute d_b² of each block between m materials and the n of the training set.

        ``features`` are scaled, float64. Shape (m, n) for each block. With tensors the result is
        differentiable in them.
        """
        return {name: mean_squares(features[name], self._features[name]) for name in self.blocks}

    @property
    def training_features(self) -> dict[str, np.ndarray]:
        """Return the features of the n training materials, as :meth:`scaled` does."""
        return self._features

    @property
    def used(self) -> dict[str, np.ndarray]:
        """Return which features of each block are compared: those that are not constant."""
        return {name: self._scalers[name].std > 0 for name in self.blocks}

    def mean_at(self, distances: Mapping[str, Any], xp: Any = np) -> Any:
        """Compute the mean that :meth:`predict` gives, from distances to the training set.

        Parameters
        ----------
        distances
            As :meth:`distances` returns them; rows of several materials may be mixed, block by
            block, and one row stands for as many as the others have.
        xp
            The module of the arrays: ``numpy``, or ``torch`` for a result that is differentiable in
            the distances.

        Returns
        -------
        Shape (m, targets), in the targets' units.
        """
        means = []
        for target in self._targets:
            near = {name: d[:, target.rows] for name, d in distances.items()}
            kernel = self.kernel(xp.asarray(target.parameters), near, xp)
            weights = xp.asarray(target.coefficients * target.scale)
            means.append(kernel @ weights + target.mean)
        return xp.stack(means, -1)

    # what was learned

    @property
    def log_posterior(self) -> np.ndarray:
        """Return what ``fit`` maximises, for each target.

        It is the logarithm of the marginal likelihood of the standardised labels times the prior of
        the hyperparameters, up to a constant.
        """
        return np.array([target.log_posterior for target in self._targets])

    def hyperparameters(self) -> pd.DataFrame:
        """Return what was learned: one row for each target, term and block.

        Columns: target (its number), kind, blocks (of the term), block, length (of scaled
        features; a block with a larger one matters less), variance (of the term) and noise, both
        in units of the labels' variance.
        """
        rows = [
            (number, term.kind, "+".join(term.blocks), block, length, values[at], target.noise)
            for number, target in enumerate(self._targets)
            for values in [np.exp(target.parameters)]
            for term, at, lengths, _ in self.kernel.layout()
            for block, length in zip(term.blocks, values[lengths], strict=True)
        ]
        columns = ["target", "kind", "blocks", "block", "length", "variance", "noise"]
        return pd.DataFrame(rows, columns=columns)

    def label_scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each target's training labels, (targets,)."""
        mean, std = np.array([(target.mean, target.scale) for target in self._targets]).T
        return mean, std

    def label_weights(self) -> np.ndarray:
        """Return how much each training label counts, shape (n,) or (n, targets).

        About 1 for a label that fits, towards 0 for one that the rest contradicts, NaN for a
        missing one.
        """
        n = len(next(iter(self._features.values())))
        weights = np.full((n, len(self._targets)), np.nan)
        for column, target in enumerate(self._targets):
            weights[target.rows, column] = target.weights
        return weights[:, 0] if self._one_target else weights

    # saving

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state that belongs in a file of arrays, such as safetensors."""
        arrays = {}
        for name, features in self._features.items():
            arrays[f"features/{name}"] = features
            for key, value in asdict(self._scalers[name]).items():
                arrays[f"scaler/{name}/{key}"] = np.asarray(value)
        for number, target in enumerate(self._targets):
            for key, array in target.arrays.items():
                arrays[f"target/{number}/{key}"] = array
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the rest of the state, for JSON."""
        return {
            "terms": [
                {"kind": term.kind, "blocks": list(term.blocks)} for term in self.kernel.terms
            ],
            "linear": list(self.linear),
            "robust": self.robust,
            "max_iterations": self.max_iterations,
            "restarts": self.restarts,
            "seed": self.seed,
            "one_target": self._one_target,
            "targets": [
                {"mean": target.mean, "scale": target.scale, "log_posterior": target.log_posterior}
                for target in self._targets
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the process that :meth:`to_dict` and :meth:`arrays` describe."""
        names = ("linear", "robust", "max_iterations", "restarts", "seed")
        terms = [Term(term["kind"], tuple(term["blocks"])) for term in state["terms"]]
        model = cls(terms, **{name: state[name] for name in names})
        model._one_target = state["one_target"]
        model._scalers = {name: read_scaler(arrays, name) for name in model.blocks}
        model._features = {}
        count: int | None = None
        for name in model.blocks:
            shape = count, int((model._scalers[name].std > 0).sum())
            model._features[name] = take_array(arrays, f"features/{name}", shape)
            count = len(model._features[name])
        assert count is not None, "a kernel has blocks"
        distances: dict[str, np.ndarray] = {}
        model._targets = []
        for number, rest in enumerate(state["targets"]):
            parts = read_target(arrays, number, count, len(model.kernel.prior()[0]))
            kernel = None
            if "alpha" not in parts:
                distances = distances or model.distances(model._features)
                at = np.ix_(parts["rows"], parts["rows"])
                near = {name: d[at] for name, d in distances.items()}
                kernel = model.kernel(parts["parameters"], near)
            model._targets.append(FittedTarget(**parts, **rest, kernel=kernel))
        return model

    def _tables(self, blocks: Blocks) -> dict[str, np.ndarray]:
        """Return the kernel's blocks as finite arrays of shape (materials, features)."""
        if missing := [name for name in self.blocks if name not in blocks]:
            raise RhosightError(
                f"block {missing[0]!r} is missing; the kernel reads {', '.join(self.blocks)}"
            )
        tables = {}
        for name in self.blocks:
            table = np.asarray(blocks[name], dtype=float)
            tables[name] = table[:, None] if table.ndim == 1 else table
            if not np.isfinite(tables[name]).all():
                raise RhosightError(
                    f"block {name!r} holds NaN or infinities; a Gaussian process needs numbers"
                )
        return tables
