"""The state of a Gaussian process that has learned one target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky
from scipy.linalg.lapack import dtrtri

from .kernel import JITTER


@dataclass
class FittedTarget:
    """One target: its labels, standardised, and what was learned from them.

    Attributes
    ----------
    rows
        Materials that have a label.
    labels, mean, scale
        Standardised labels, and the mean and standard deviation that were taken out.
    weights
        How much each label counts.
    parameters
        The logarithms of the hyperparameters.
    log_posterior
        See :attr:`GaussianProcess.log_posterior`.
    kernel
        The kernel of the labelled materials, without noise. None for a large set that was loaded.
    alpha
        (K + noise)⁻¹ of the labels, for a large set; None otherwise.
    """

    rows: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    parameters: np.ndarray
    mean: float
    scale: float
    log_posterior: float
    kernel: np.ndarray | None
    alpha: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is saved as arrays."""
        names = ("rows", "labels", "weights", "parameters")
        arrays = {name: getattr(self, name) for name in names}
        return arrays if self.alpha is None else {**arrays, "alpha": self.alpha}

    @property
    def is_local(self) -> bool:
        """True for a large set, whose variances come from the nearest materials."""
        return self.alpha is not None

    @property
    def noise(self) -> float:
        """Return the variance (normal) or squared scale (t) of standardised labels' noise."""
        return float(np.exp(self.parameters[-1]))

    @property
    def coefficients(self) -> np.ndarray:
        """Return (K + noise)⁻¹ of the labels."""
        return self.solve(self.labels) if self.alpha is None else self.alpha

    @cached_property
    def _factor(self) -> tuple[np.ndarray, bool]:
        assert self.kernel is not None, "the kernel of a large set is not kept"
        return cho_factor(self.kernel + np.diag(self.noise / self.weights + JITTER), lower=True)

    def compute_precisions(self) -> np.ndarray:
        """Return the diagonal of (K + noise)⁻¹, shape (n,); the factor is not kept."""
        assert self.kernel is not None, "the kernel of a large set is not kept"
        noise = np.diag(self.noise / self.weights + JITTER)
        lower = cholesky(self.kernel + noise, lower=True, overwrite_a=True)
        inverse, _ = dtrtri(lower, lower=1, overwrite_c=1)
        return (inverse**2).sum(axis=0)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Solve (K + noise) x = ``right``."""
        return cho_solve(self._factor, right)
