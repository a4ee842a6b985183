"""Exact Gaussian processes over named blocks of features, for tens to a few thousand materials.

A block is a table of numbers about each material that belong together: elemental fractions,
statistics of the density, energies … Each block has its own length scale, and the kernel is a sum

    k(x, x′) = Σ_t v_t · s_t( Σ_b d_b(x, x′)² / l_tb² ) + 1

over terms t that each look at some of the blocks b, where d_b² is the mean of the squared
differences of the block's scaled features. A term over one block learns what this block adds
whatever the others say; a term over many multiplies similarities: materials are alike if they are
alike in every respect. Which matters how much for a target is for the variances v and the lengths l
to say; they, and the noise, maximise the marginal likelihood of the training labels under a weak
prior (Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT Press 2006, sections 4.2.4
and 5.4.1). No label is held back for it, and none outside the training part is seen.

Some labels are odd: moduli of crystals that are not stable, Fermi energies anywhere within a gap.
The noise may therefore follow Student's t-distribution, under which such labels count less.

>>> kernel = Kernel(alone=("fractions",), together=("fractions", "magpie"))
>>> model = GaussianProcess(kernel.terms, seed=0).fit(blocks, y)
>>> mean, std = model.predict(new_blocks, return_std=True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from torch import Tensor

from ...errors import RhosightError
from ...inputs.scaling import BlockScaler
from .kernel import Blocks, Term

JITTER = 1e-8
"""Added to the diagonal of a kernel of standardised labels, for the factorisation's sake."""

LARGEST_LOG = 8.0
"""Bound on the logarithms of variances and lengths: nothing beyond makes a difference."""

CHUNK = 256
"""Materials that are predicted at once."""

REWEIGHTINGS, REWEIGHTING_STEPS = 3, 12
"""How often labels are weighed anew, and the steps that the optimiser may take after each."""


class GaussianProcess:
    """Regression of one target or several, each with hyper-parameters of its own.

    Parameters
    ----------
    terms
        The kernel, such as those of a :class:`rhosight.models.gaussian_process.kernel.Kernel`.
    linear
        Names of blocks that are standardised as they are. Features of the others, whose tails may
        be long, are first drawn in: arcsinh((x - median) / interquartile range).
    robust
        Degrees of freedom of the noise's t-distribution, above 2; None for normal noise.
    max_iterations
        Of the optimiser, for each target and start.
    restarts
        Starts of the optimiser: the first from the prior's centre, others drawn from the prior
        with ``seed``; the most probable wins.
    seed
        For the restarts. The same seed and data give the same model.

    Notes
    -----
    Fitting takes time ∝ n³ and memory ∝ blocks · n² for n materials.
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
        self.terms = tuple(terms)
        self.linear = tuple(linear)
        self.robust = robust
        self.max_iterations = max_iterations
        self.restarts = restarts
        self.seed = seed
        if not self.terms or not all(term.blocks for term in self.terms):
            raise RhosightError("a kernel needs at least one term, and a term at least one block")
        if unknown := {term.kind for term in self.terms} - {"rbf", "rational"}:
            raise RhosightError(f"unknown kernel {min(unknown)!r}; known are rbf, rational")
        if robust is not None and robust <= 2:
            raise RhosightError(f"robust is above 2 (or None), not {robust}: no variance else")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks that the kernel looks at, sorted."""
        return tuple(sorted({name for term in self.terms for name in term.blocks}))

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
            For a missing block, one of another length, one that is not finite, or a target with
            fewer than two different labels.
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
        distances = self.distances(self._features)
        self._tasks = []
        for column, values in enumerate(labels.reshape(n, -1).T):
            rows = np.flatnonzero(~np.isnan(values))
            if len(np.unique(values[rows])) < 2:
                raise RhosightError(
                    f"target {column} has fewer than two different labels; leave it out"
                )
            near = {name: d[rows][:, rows] for name, d in distances.items()}
            self._tasks.append(self._fit_task(near, rows, values[rows]))
        return self

    def predict(
        self, blocks: Blocks, return_std: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Predict m materials.

        Parameters
        ----------
        blocks
            The kernel's, m rows each, with the features that :meth:`fit` was shown.
        return_std
            Also return the standard deviation that new labels should have about the mean.

        Returns
        -------
        mean, or (mean, standard deviation), shape (m,) or (m, targets) as ``y`` was, in the
        targets' units.
        """
        scaled = self.scaled(blocks)
        rows = len(next(iter(scaled.values())))
        # a few at a time: the distances of all take memory ∝ blocks · m · n
        parts = [
            self._mean_and_std({name: x[start : start + CHUNK] for name, x in scaled.items()})
            for start in range(0, max(rows, 1), CHUNK)
        ]
        mean, std = (np.concatenate(values) for values in zip(*parts, strict=True))
        if self._one_target:
            mean, std = mean[:, 0], std[:, 0]
        return (mean, std) if return_std else mean

    def _mean_and_std(self, features: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Both of shape (m, targets), in the targets' units."""
        distances = self.distances(features)
        found = []
        for task in self._tasks:
            near = {name: d[:, task.rows] for name, d in distances.items()}
            kernel = self._kernel(torch.from_numpy(task.parameters), near).numpy()
            mean = kernel @ task.solve(task.labels) * task.scale + task.mean
            prior = 1 + sum(np.exp(task.parameters[at]) for at, _ in self._layout)
            spread = prior - np.einsum("ij,ji->i", kernel, task.solve(kernel.T))
            variance = np.maximum(spread, 0) + task.noise * self._wider
            found.append((mean, np.sqrt(variance) * task.scale))
        mean, std = np.stack(found, axis=-1)
        return mean, std

    def leave_one_out(self) -> tuple[np.ndarray, np.ndarray]:
        """What the model without one material would say of it, for each of the n (Rasmussen &
        Williams, section 5.4.2): hyper-parameters stay those of all labels.

        Returns
        -------
        mean and standard deviation as :meth:`predict` gives them; NaN where a label is missing.
        """
        n = len(next(iter(self._features.values())))
        found = np.full((2, n, len(self._tasks)), np.nan)
        for column, task in enumerate(self._tasks):
            inverse = task.solve(np.eye(len(task.rows)))
            precision = np.diag(inverse)
            mean = task.labels - inverse @ task.labels / precision
            spread = 1 / precision - task.noise / task.weights - JITTER
            variance = np.maximum(spread, 0) + task.noise * self._wider
            found[0, task.rows, column] = mean * task.scale + task.mean
            found[1, task.rows, column] = np.sqrt(variance) * task.scale
        mean, std = found
        return (mean[:, 0], std[:, 0]) if self._one_target else (mean, std)

    @property
    def _wider(self) -> float:
        """How much wider a t-distribution is than the normal one of the same scale."""
        return 1.0 if self.robust is None else self.robust / (self.robust - 2)

    def scaled(self, blocks: Blocks) -> dict[str, np.ndarray]:
        """Features of m materials as the kernel compares them: block → (m, features used)."""
        tables = self._tables(blocks)
        return {name: self._scalers[name](table, name) for name, table in tables.items()}

    def distances(self, features: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
        """d_b² of each block between m materials and the n of the training part, shape (m, n).

        ``features`` are scaled, float64; differentiable in them if they are tensors.
        """
        return {
            name: _mean_squares(
                torch.as_tensor(features[name]), torch.from_numpy(self._features[name])
            )
            for name in self.blocks
        }

    @property
    def training_features(self) -> dict[str, np.ndarray]:
        """As :meth:`scaled`, of the n materials that :meth:`fit` was shown."""
        return self._features

    @property
    def used(self) -> dict[str, np.ndarray]:
        """Which features of each block are scaled and compared: those that are not constant."""
        return {name: self._scalers[name].std > 0 for name in self.blocks}

    def mean_at(self, distances: Mapping[str, Tensor]) -> Tensor:
        """The mean that :meth:`predict` gives, for points that are known by their distances.

        Parameters
        ----------
        distances
            As :meth:`distances` returns them; rows of several materials may be mixed, block by
            block, and one row stands for as many as the others have.

        Returns
        -------
        Shape (m, targets), in the targets' units; differentiable in the distances.
        """
        found = []
        for task in self._tasks:
            near = {name: d[:, task.rows] for name, d in distances.items()}
            kernel = self._kernel(torch.from_numpy(task.parameters), near)
            weights = torch.from_numpy(task.solve(task.labels) * task.scale)
            found.append(kernel @ weights + task.mean)
        return torch.stack(found, dim=-1)

    @property
    def log_posterior(self) -> np.ndarray:
        """Of each target: logarithm of the marginal likelihood of its standardised labels times
        the prior of the hyper-parameters, up to a constant; what ``fit`` maximises.
        """
        return np.array([task.log_posterior for task in self._tasks])

    def hyperparameters(self) -> pd.DataFrame:
        """What was learned: one row a target, term and block.

        Columns: target (its number), kind, blocks (of the term), block, length (of scaled
        features; a block with a larger one matters less), variance (of the term) and noise, both
        in units of the labels' variance.
        """
        rows = [
            (t, term.kind, "+".join(term.blocks), block, *np.exp([parameters[i], v]), task.noise)
            for t, task in enumerate(self._tasks)
            for parameters in [task.parameters]
            for term, (at, end) in zip(self.terms, self._layout, strict=True)
            for v in [parameters[at]]
            for block, i in zip(term.blocks, range(at + 1, end), strict=False)
        ]
        columns = ["target", "kind", "blocks", "block", "length", "variance", "noise"]
        return pd.DataFrame(rows, columns=columns)

    def label_scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the training labels of each target, shape (targets,)."""
        mean, std = np.array([(task.mean, task.scale) for task in self._tasks]).T
        return mean, std

    def label_weights(self) -> np.ndarray:
        """How much each training label counts, shape (n,) or (n, targets): about 1 for one that
        fits, towards 0 for one that the rest contradicts, NaN for one that is missing.
        """
        weights = np.full((len(next(iter(self._features.values()))), len(self._tasks)), np.nan)
        for column, task in enumerate(self._tasks):
            weights[task.rows, column] = task.weights
        return weights[:, 0] if self._one_target else weights

    # saving

    def arrays(self) -> dict[str, np.ndarray]:
        """The part of the state that belongs in a file of arrays, such as safetensors."""
        found = {}
        for name, features in self._features.items():
            found[f"features/{name}"] = features
            for key, value in asdict(self._scalers[name]).items():
                found[f"scaler/{name}/{key}"] = np.asarray(value)
        for number, task in enumerate(self._tasks):
            for key in ("rows", "labels", "weights", "parameters"):
                found[f"target/{number}/{key}"] = getattr(task, key)
        return {name: np.ascontiguousarray(array) for name, array in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The rest of the state, for JSON."""
        return {
            "terms": [{"kind": term.kind, "blocks": list(term.blocks)} for term in self.terms],
            "linear": list(self.linear),
            "robust": self.robust,
            "max_iterations": self.max_iterations,
            "restarts": self.restarts,
            "seed": self.seed,
            "one_target": self._one_target,
            "targets": [
                {"mean": task.mean, "scale": task.scale, "log_posterior": task.log_posterior}
                for task in self._tasks
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """From what :meth:`to_dict` and :meth:`arrays` gave: predicts as the model did."""
        names = ("linear", "robust", "max_iterations", "restarts", "seed")
        terms = [Term(term["kind"], tuple(term["blocks"])) for term in state["terms"]]
        model = cls(terms, **{name: state[name] for name in names})
        model._one_target = state["one_target"]
        model._features = {name: arrays[f"features/{name}"] for name in model.blocks}
        fields = BlockScaler.__dataclass_fields__
        model._scalers = {
            name: BlockScaler(**{key: arrays[f"scaler/{name}/{key}"] for key in fields})
            for name in model.blocks
        }
        distances = model.distances(model._features)
        model._tasks = []
        for number, rest in enumerate(state["targets"]):
            keys = ("rows", "labels", "weights", "parameters")
            parts = {key: arrays[f"target/{number}/{key}"] for key in keys}
            near = {name: d[parts["rows"]][:, parts["rows"]] for name, d in distances.items()}
            kernel = model._kernel(torch.from_numpy(parts["parameters"]), near).numpy()
            model._tasks.append(_Task(**parts, **rest, kernel=kernel))
        return model

    # inside: hyper-parameters are logarithms, for each term its variance, its lengths, and the
    # shape if it is rational; the noise comes last

    @cached_property
    def _layout(self) -> list[tuple[int, int]]:
        """Where each term's hyper-parameters begin and end."""
        ends = np.cumsum([1 + len(t.blocks) + (t.kind == "rational") for t in self.terms]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the normal prior of the hyper-parameters.

        Two materials taken at random have d_b² = 2. Lengths are centred so that all blocks of a
        term together make them exp(-1/4) alike. Variances share the labels' variance, give or
        take an order of magnitude; noise has a few per cent of it.
        """
        centre, width = [], []
        for term in self.terms:
            lengths = [np.log(2 * np.sqrt(len(term.blocks)))] * len(term.blocks)
            shape = [0.0] if term.kind == "rational" else []
            centre += [-np.log(len(self.terms)), *lengths, *shape]
            width += [2.0, *[1.0] * len(lengths + shape)]
        return np.array([*centre, np.log(0.03)]), np.array([*width, 1.5])

    def _tables(self, blocks: Blocks) -> dict[str, np.ndarray]:
        """The kernel's blocks as finite arrays of shape (materials, features)."""
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

    def _kernel(self, parameters: Tensor, distances: Mapping[str, Tensor]) -> Tensor:
        """K of the module's docstring; differentiable in the parameters."""
        total: Any = 1.0
        for term, (at, end) in zip(self.terms, self._layout, strict=True):
            inverse = torch.exp(-2 * parameters[at + 1 : end])
            r2: Any = 0.0
            for name, weight in zip(term.blocks, inverse, strict=False):
                r2 = r2 + distances[name] * weight
            if term.kind == "rbf":
                log_similarity = -r2 / 2
            else:
                shape = torch.exp(parameters[end - 1])
                log_similarity = -shape * torch.log1p(r2 / (2 * shape))
            total = total + torch.exp(parameters[at] + log_similarity)
        return total

    def _fit_task(
        self, distances: Mapping[str, Tensor], rows: np.ndarray, values: np.ndarray
    ) -> _Task:
        """Hyper-parameters of one target."""
        mean, scale = float(values.mean()), float(values.std())
        labels = (values - mean) / scale
        centre, width = self._prior()
        weights = np.ones(len(labels))
        identity = np.eye(len(labels))

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            """Negative log posterior and its gradient. Only the kernel needs differentiating:
            ∂loss/∂K = (K⁻¹ - K⁻¹y yᵀK⁻¹)/2 (Rasmussen & Williams, eq. 5.9).
            """
            leaves = torch.tensor(parameters, requires_grad=True)
            kernel = self._kernel(leaves, distances)
            noise = np.exp(parameters[-1]) / weights
            factor = cho_factor(kernel.detach().numpy() + np.diag(noise + JITTER), lower=True)
            inverse = cho_solve(factor, identity)
            alpha = inverse @ labels
            by_kernel = (inverse - np.outer(alpha, alpha)) / 2
            kernel.backward(torch.from_numpy(by_kernel))
            gradient = leaves.grad.numpy()
            gradient[-1] += np.diag(by_kernel) @ noise
            away = (parameters - centre) / width
            log_determinant = 2 * np.log(np.diag(factor[0])).sum()
            value = (labels @ alpha + log_determinant + away @ away) / 2
            return value, gradient + away / width

        def climb(start: np.ndarray, steps: int) -> Any:
            return minimize(
                loss,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=[(-LARGEST_LOG, LARGEST_LOG)] * len(start),
                options={"maxiter": steps},
            )

        rng = np.random.default_rng(self.seed)
        starts = [centre, *rng.normal(centre, width / 2, (self.restarts - 1, len(centre)))]
        found = min((climb(start, self.max_iterations) for start in starts), key=lambda o: o.fun)
        for _ in range(REWEIGHTINGS if self.robust else 0):
            with torch.no_grad():
                kernel = self._kernel(torch.from_numpy(found.x), distances).numpy()
            weights = self._reweigh(kernel, labels, weights, np.exp(found.x[-1]))
            found = climb(found.x, REWEIGHTING_STEPS)
        with torch.no_grad():
            kernel = self._kernel(torch.from_numpy(found.x), distances).numpy()
        return _Task(rows, labels, weights, found.x, mean, scale, float(-found.fun), kernel)

    def _reweigh(
        self, kernel: np.ndarray, labels: np.ndarray, weights: np.ndarray, noise: float
    ) -> np.ndarray:
        """How much each label counts under t-distributed noise of the scale ``noise``.

        A t-distribution is a mixture of normal ones; the mean precision of each label's, given the
        expected square of its residual, is the variational update of Tipping & Lawrence
        (Neurocomputing 69, 123 (2005), doi:10.1016/j.neucom.2005.02.016).
        """
        factor = cho_factor(kernel + np.diag(noise / weights + JITTER), lower=True)
        gain = cho_solve(factor, kernel)
        residual = labels - gain.T @ labels
        spread = np.diag(kernel) - np.einsum("ij,ij->j", kernel, gain)
        squares = residual**2 + np.maximum(spread, 0)
        return (self.robust + 1) / (self.robust + squares / noise)


@dataclass
class _Task:
    """One target: its labels, standardised, and what was learned from them."""

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    parameters: np.ndarray
    mean: float
    scale: float
    log_posterior: float
    kernel: np.ndarray

    @property
    def noise(self) -> float:
        """Variance (normal) or squared scale (t) of the noise of standardised labels."""
        return float(np.exp(self.parameters[-1]))

    @cached_property
    def _factor(self) -> tuple[np.ndarray, bool]:
        return cho_factor(self.kernel + np.diag(self.noise / self.weights + JITTER), lower=True)

    def solve(self, right: np.ndarray) -> np.ndarray:
        return cho_solve(self._factor, right)


def _mean_squares(a: Tensor, b: Tensor) -> Tensor:
    """Mean over features of the squared differences of all rows of a and b; 0 without features."""
    squares = (a**2).sum(dim=1)[:, None] + (b**2).sum(dim=1) - 2 * a @ b.T
    return squares.clamp(min=0) / max(a.shape[1], 1)
