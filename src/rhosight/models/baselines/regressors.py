"""Regressors of the baselines: scikit-learn pipelines over frames of features.

:func:`rhosight.models.baselines.baselines.make_baseline` assigns them to names.
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
"""Where the kernel machine's inputs are cut off, in standard deviations of the training set."""


def make_mean() -> RegressorMixin:
    """Make a regressor that predicts the mean of the training labels."""
    return DummyRegressor(strategy="mean")


def make_trees(inputs: str, seed: int) -> Pipeline:
    """Make extremely randomised trees over one of the inputs of the baselines."""
    forest = ExtraTreesRegressor(n_estimators=N_TREES, random_state=seed, n_jobs=1)
    return Pipeline([("encode", _make_encoder(inputs, "passthrough")), ("trees", forest)])


def make_gaussian_process(inputs: str) -> Pipeline:
    """Make a Gaussian process over the same features.

    The marginal likelihood sets its hyperparameters.
    """
    numbers = Pipeline(
        [
            ("standardise", StandardScaler()),
            ("straighten", PowerTransformer(method="yeo-johnson", standardize=True)),
            # the power law would turn values outside the training range into huge ones
            ("clip", FunctionTransformer(np.clip, kw_args={"a_min": -SIGMAS, "a_max": SIGMAS})),
        ]
    )
    kernel = ConstantKernel(4.0, (1e-2, 1e4)) * RBF(15.0, (1.0, 1e3)) + WhiteKernel(
        0.05, (1e-4, 1.0)
    )
    machine = _GaussianProcess(kernel, alpha=1e-8, normalize_y=True)
    return Pipeline([("encode", _make_encoder(inputs, numbers)), ("kernel", machine)])


def make_average(inputs: str, seed: int) -> VotingRegressor:
    """Make a regressor that predicts the mean of both."""
    return VotingRegressor(
        [("trees", make_trees(inputs, seed)), ("kernel", make_gaussian_process(inputs))]
    )


def _make_encoder(inputs: str, numbers: Any) -> Any:
    """Make a transformer: prototypes to zeros and ones, other columns by ``numbers``."""
    if "composition" not in inputs:
        return numbers
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [("prototype", one_hot, ["prototype"])],
        remainder=numbers,
        verbose_feature_names_out=False,
    )


class _GaussianProcess(GaussianProcessRegressor):
    """One without a warning for hyperparameters at a bound: no noise, or all noise."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Fit as scikit-learn does."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().fit(X, y)
