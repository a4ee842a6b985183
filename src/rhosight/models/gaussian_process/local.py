"""Variances of a process over thousands of materials, from the nearest ones.

The variance of a prediction is that of a process which knows only the training materials that the
kernel finds most similar. It is slightly larger than that of all of them, and takes time
independent of their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .fitted import FittedTarget
from .kernel import JITTER, KernelFunction, mean_squares

NEAREST = 128
"""Training materials that determine a variance."""


def local_variance(
    kernel: KernelFunction,
    target: FittedTarget,
    features: Mapping[str, np.ndarray],
    similar: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Compute the variance of the function at m materials, without noise, shape (m,).

    Parameters
    ----------
    kernel, target
        The kernel, and a target of n labelled materials.
    features
        Block → scaled features of all training materials.
    similar
        The kernel between the m materials and the n labelled ones, shape (m, n).
    groups
        Groups of the m and of the n materials; those of a material's own group are not used.
    """
    at_once = kernel.variance(target.parameters)
    noise = target.noise / target.weights + JITTER
    variances = np.empty(len(similar))
    for row, values in enumerate(similar):
        used = values
        if groups is not None:
            used = np.where(groups[1] == groups[0][row], -np.inf, values)
        count = min(NEAREST, int(np.isfinite(used).sum()))
        near = np.argpartition(-used, count - 1)[:count]
        if target.kernel is not None:
            own = target.kernel[np.ix_(near, near)]
        else:
            rows = target.rows[near]
            parts = {name: features[name][rows] for name in kernel.blocks}
            distances = {name: mean_squares(part, part) for name, part in parts.items()}
            own = kernel(target.parameters, distances)
        factor = cho_factor(own + np.diag(noise[near]), lower=True)
        variances[row] = at_once - values[near] @ cho_solve(factor, values[near])
    return variances


def compute_kernels(
    kernel: KernelFunction,
    targets: Sequence[FittedTarget],
    features: Mapping[str, np.ndarray],
    measure: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]],
    rows_at_once: int,
) -> list[FittedTarget]:
    """Return targets with their kernels, for a faster :func:`local_variance`.

    Parameters
    ----------
    kernel, targets, features
        As for :func:`local_variance`.
    measure
        Returns block → d² between some materials and all training materials.
    rows_at_once
        Materials whose distances are in memory at the same time.
    """
    kernels = [np.empty((len(target.rows),) * 2) for target in targets]
    for start in range(0, len(next(iter(features.values()))), rows_at_once):
        part = {name: x[start : start + rows_at_once] for name, x in features.items()}
        distances = measure(part)
        for target, values in zip(targets, kernels, strict=True):
            first, last = np.searchsorted(target.rows, [start, start + rows_at_once])
            own = target.rows[first:last] - start
            near = {name: d[np.ix_(own, target.rows)] for name, d in distances.items()}
            values[first:last] = kernel(target.parameters, near)
    return [replace(target, kernel=values) for target, values in zip(targets, kernels, strict=True)]
