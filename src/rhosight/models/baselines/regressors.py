"""The regressors behind the baselines: scikit-learn pipelines over frames of features.

:func:`rhosight.models.baselines.baselines.make_baseline` says which is which.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor, VotingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PowerTransformer,
    StandardScaler,
)

N_TREES = 300

SIGMAS = 5.0
"""Where the kernel machine's inputs are cut off, in standard deviations of the training part."""


def mean() -> RegressorMixin:
    """The mean of the training labels, whatever it is shown."""
    return DummyRegressor(strategy="mean")


def trees(inputs: str, seed: int) -> Pipeline:
    """Extremely randomised trees over one of :data:`rhosight.models.baselines.baselines.INPUTS`."""
    forest = ExtraTreesRegressor(n_estimators=N_TREES, random_state=seed, n_jobs=1)
    return Pipeline([("encode", _encoder(inputs, "passthrough")), ("trees", forest)])


def kernel_machine(inputs: str) -> Pipeline:
    """A Gaussian process over the same, its hyper-parameters by marginal likelihood."""
    numbers = Pipeline(
        [
            ("standardise", StandardScaler()),
            ("straighten", PowerTransformer(method="yeo-johnson", standardize=True)),
            # what training never saw must not grow without bounds under the power law
            ("clip", FunctionTransformer(np.clip, kw_args={"a_min": -SIGMAS, "a_max": SIGMAS})),
        ]
    )
    kernel = ConstantKernel(4.0, (1e-2, 1e4)) * RBF(15.0, (1.0, 1e3)) + WhiteKernel(
        0.05, (1e-4, 1.0)
    )
    machine = _GaussianProcess(kernel, alpha=1e-8, normalize_y=True)
    return Pipeline([("encode", _encoder(inputs, numbers)), ("kernel", machine)])


def average(inputs: str, seed: int) -> VotingRegressor:
    """The mean of the predictions of both."""
    return VotingRegressor([("trees", trees(inputs, seed)), ("kernel", kernel_machine(inputs))])


def _encoder(inputs: str, numbers: Any) -> Any:
    """Prototypes as zeros and ones, the other columns by ``numbers``."""
    if "composition" not in inputs:
        return numbers
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [("prototype", one_hot, ["prototype"])],
        remainder=numbers,
        verbose_feature_names_out=False,
    )


class _GaussianProcess(GaussianProcessRegressor):
    """One that does not warn when a hyper-parameter ends at a bound: no noise, or all noise."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().fit(X, y)
