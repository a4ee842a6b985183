"""Find the most probable hyperparameters of a Gaussian process for one target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize
from scipy.spatial.distance import squareform

from .kernel import JITTER, KernelFunction, mean_squares

LARGEST_LOG = 8.0
"""Bound on the logarithms of variances and lengths: nothing beyond makes a difference."""

LARGEST_SET = 1000
"""Materials up to which all determine the hyperparameters."""

DRAWN = 800
"""Materials that determine them in a larger set."""

REWEIGHTINGS, REWEIGHTING_STEPS = 3, 12
"""How often labels are reweighted, and the steps that the optimiser may take after each."""


@dataclass(frozen=True)
class Optimum:
    """The most probable hyperparameters of one target.

    Attributes
    ----------
    parameters
        Their logarithms.
    weights
        How much each label counts.
    log_posterior
        What they maximise.
    kernel
        The kernel of the labelled materials, without noise.
    """

    parameters: np.ndarray
    weights: np.ndarray
    log_posterior: float
    kernel: np.ndarray


def maximise_posterior(
    kernel: KernelFunction,
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    robust: float | None,
    max_iterations: int,
    restarts: int,
    seed: int,
) -> Optimum:
    """Find the most probable hyperparameters of one target.

    Parameters
    ----------
    kernel
        The kernel.
    features
        Scaled features of the n materials with a label, block → (n, features).
    labels
        Standardised, shape (n,).
    robust, max_iterations, restarts, seed
        See :class:`rhosight.models.gaussian_process.process.GaussianProcess`.
    """
    centre, width = kernel.prior()
    rng = np.random.default_rng(seed)
    is_large = len(labels) > LARGEST_SET
    drawn = np.sort(np.random.default_rng(seed).permutation(len(labels))[:DRAWN])
    rows = drawn if is_large else np.arange(len(labels))
    posterior = _Posterior(kernel, {b: own[rows] for b, own in features.items()}, labels[rows])
    starts = [centre, *rng.normal(centre, width / 2, (restarts - 1, len(centre)))]
    best = min((posterior.climb(start, max_iterations) for start in starts), key=lambda o: o.fun)
    if robust is not None:
        for _ in range(REWEIGHTINGS):
            posterior.reweigh(best.x, robust)
            best = posterior.climb(best.x, REWEIGHTING_STEPS)
    if is_large:
        posterior = _Posterior(kernel, features, labels)
        for _ in range(REWEIGHTINGS if robust is not None else 0):
            assert robust is not None
            posterior.reweigh(best.x, robust)
    return Optimum(best.x, posterior.weights, float(-best.fun), posterior.matrix(best.x))


class _Posterior:
    """Negative log posterior of the hyperparameters, given the labels of one target."""

    def __init__(
        self,
        kernel: KernelFunction,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
    ):
        self.kernel = kernel
        self.labels = labels
        self.weights = np.ones(len(labels))
        # each pair of materials once: half the memory and time
        own = (features[name] for name in kernel.blocks)
        self._distances = np.stack([upper_triangle(mean_squares(block, block)) for block in own])

    def __call__(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log posterior and its gradient.

        With the kernel K, noise included, and the labels y, the gradient by the kernel is
        (K⁻¹ - K⁻¹y yᵀK⁻¹)/2 (Rasmussen & Williams, eq. 5.9).
        """
        pairs, gradient_of = self.kernel.pairs_and_gradient(parameters, self._distances)
        noise = np.exp(parameters[-1]) / self.weights
        covariance = squareform(pairs, checks=False)
        np.fill_diagonal(covariance, self.kernel.variance(parameters) + noise + JITTER)
        # a symmetric matrix transposed is in LAPACK's order: no copies
        factor = cho_factor(covariance.T, lower=True, overwrite_a=True)
        alpha = cho_solve(factor, self.labels)
        log_determinant = 2 * np.log(np.diag(factor[0])).sum()
        inverse, _ = dpotri(factor[0], lower=True, overwrite_c=True)
        on_diagonal = (np.diag(inverse) - alpha**2) / 2
        gradient = gradient_of(upper_triangle(inverse.T - np.outer(alpha, alpha)))
        for _, at, _, _ in self.kernel.layout():
            gradient[at] += np.exp(parameters[at]) * on_diagonal.sum()
        gradient[-1] += on_diagonal @ noise
        centre, width = self.kernel.prior()
        away = (parameters - centre) / width
        value = (self.labels @ alpha + log_determinant + away @ away) / 2
        return value, gradient + away / width

    def climb(self, start: np.ndarray, steps: int) -> Any:
        """Maximise the posterior from a start; return SciPy's result."""
        return minimize(
            self,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-LARGEST_LOG, LARGEST_LOG)] * len(start),
            options={"maxiter": steps},
        )

    def matrix(self, parameters: np.ndarray) -> np.ndarray:
        """Return the kernel of all materials, shape (n, n), without noise."""
        pairs, _ = self.kernel.pairs_and_gradient(parameters, self._distances)
        matrix = squareform(pairs, checks=False)
        np.fill_diagonal(matrix, self.kernel.variance(parameters))
        return matrix

    def reweigh(self, parameters: np.ndarray, robust: float) -> None:
        """Update how much each label counts under t-distributed noise.

        A t-distribution is a mixture of normal ones; the mean precision of each label's, given the
        expected square of its residual, is the variational update of Tipping & Lawrence
        (Neurocomputing 69, 123 (2005), doi:10.1016/j.neucom.2005.02.016).
        """
        kernel, noise = self.matrix(parameters), np.exp(parameters[-1])
        factor = cho_factor(kernel + np.diag(noise / self.weights + JITTER), lower=True)
        if len(kernel) > LARGEST_SET:
            # with D on the diagonal, K - K (K + D)⁻¹ K = D - D (K + D)⁻¹ D
            own = noise / self.weights + JITTER
            residual = own * cho_solve(factor, self.labels)
            inverse, _ = dpotri(factor[0], lower=True, overwrite_c=True)
            spread = own - own**2 * np.diag(inverse)
        else:
            gain = cho_solve(factor, kernel)
            residual = self.labels - gain.T @ self.labels
            spread = np.diag(kernel) - np.einsum("ij,ij->j", kernel, gain)
        squares = residual**2 + np.maximum(spread, 0)
        self.weights = (robust + 1) / (robust + squares / noise)


def upper_triangle(matrix: np.ndarray) -> np.ndarray:
    """Return the elements above the diagonal, row by row, in ``squareform``'s order."""
    return squareform(matrix, checks=False)
