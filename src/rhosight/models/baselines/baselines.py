"""Simple models for comparison with the scores of learned models.

- ``mean``: the mean of the training labels
- ``composition``: Magpie statistics of the elements, volume per atom, size of the cell, prototype
- ``promolecule``: statistics over the cell of the superposition of free atoms; needs no SCF
- ``density``: statistics over the cell of the SCF density, `total` and `difference`
- ``promolecule+composition``, ``density+composition``: both side by side
- ``chgnet``, ``chgnet+composition``: the embedding of a pre-trained graph network, for comparison;
  it never counts as the baseline to beat, see :mod:`rhosight.models.baselines.chgnet`
- ``chgnet-potential``: formation energy and bulk modulus as CHGNet itself gives them, without
  learning, see :mod:`rhosight.models.baselines.potential`

All but the first and the last come in three forms. The bare name is extremely randomised trees
(Geurts et al., Mach. Learn. 63, 3 (2006), doi:10.1007/s10994-006-6226-1) with fixed settings;
``-kernel`` is a Gaussian process with an RBF kernel, whose hyperparameters maximise the marginal
likelihood of the training set (Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT
Press 2006, section 5.4.1); ``-average`` is the mean of both predictions. Nothing here is tuned on
scored materials. Features do not use labels and do not depend on the cell in which a crystal is
stored.
Everything learned, including the set of prototypes, is learned in ``fit``, from the training set
only.

>>> X = compute_baseline_features("density", dataset)
>>> make_baseline("density", seed=0).fit(X.iloc[train], y[train]).predict(X.iloc[test])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from ...dataset.dataset import Dataset
from ...density.bare_crystal import Crystal, require_density
from ...density.charge_density import ChargeDensity, Kind
from ...errors import RhosightError
from ...inputs.descriptors.composition import composition_features
from ...inputs.descriptors.statistics import density_features
from ..materials import list_crystals
from .chgnet import compute_embeddings
from .potential import compute_potential

if TYPE_CHECKING:
    from sklearn.base import RegressorMixin

BASELINES: tuple[str, ...] = ("mean", "composition", "promolecule", "density")
"""Names of the baselines in every table, from the one that reads least."""

INPUTS: tuple[str, ...] = (
    "composition",
    "promolecule",
    "density",
    "promolecule+composition",
    "density+composition",
)
"""What a baseline can read of a material."""

ALL_BASELINES: tuple[str, ...] = (
    "mean",
    *(f"{inputs}{form}" for inputs in INPUTS for form in ("", "-kernel", "-average")),
)
"""Names of all baselines, :data:`BASELINES` among them."""

PRETRAINED: tuple[str, ...] = ("chgnet", "chgnet+composition")
"""Inputs that need the optional package chgnet, in the three forms of the others. They are not in
:data:`ALL_BASELINES` and so never chosen by :func:`find_strongest`: CHGNet was pre-trained on
energies of the Materials Project."""

POTENTIAL = "chgnet-potential"
"""Name of the row of CHGNet's own values. Targets that it does not have are left out."""

COMPARED: tuple[str, ...] = (*PRETRAINED, POTENTIAL)
"""Rows that stand in tables if CHGNet is installed."""

_STRUCTURE_FEATURES: dict[str, Callable[..., pd.DataFrame]] = {
    "composition": composition_features,
    "chgnet": compute_embeddings,
    POTENTIAL: compute_potential,
}

_KNOWN: tuple[str, ...] = (
    *ALL_BASELINES,
    POTENTIAL,
    *(f"{inputs}{form}" for inputs in PRETRAINED for form in ("", "-kernel", "-average")),
)


def compute_baseline_features(name: str, materials: Dataset | Sequence[Crystal]) -> pd.DataFrame:
    """Compute the features that one baseline reads of each material.

    Parameters
    ----------
    name
        One of :data:`ALL_BASELINES`, of :data:`PRETRAINED` in one of the three forms, or
        :data:`POTENTIAL`, whose columns are targets.
    materials
        n materials. ``promolecule`` needs `total` and `difference` of each. ``density`` uses those
        of the two that every material has, so that all rows have the same columns.

    Returns
    -------
    DataFrame of n rows in the order given, index 0 … n − 1. No columns for ``mean``.

    Raises
    ------
    RhosightError
        For an unknown name, or a material without the required density.
    """
    return compute_features_of_baselines([name], materials)[name]


def compute_features_of_baselines(
    names: Iterable[str], materials: Dataset | Sequence[Crystal]
) -> dict[str, pd.DataFrame]:
    """Compute the features of several baselines; shared parts are computed once.

    Parameters
    ----------
    names
        As :func:`compute_baseline_features` takes them.
    materials
        n materials.

    Returns
    -------
    Name → DataFrame of n rows. Baselines with the same inputs share one frame.
    """
    inputs = {name: _inputs_of(name) for name in names}
    parts = {part for shown in inputs.values() for part in shown.split("+")}
    frames = {part: _part(part, materials) for part in sorted(parts)}
    for shown in set(inputs.values()) - set(frames):
        first, second = shown.split("+")
        repeated = frames[second].columns.intersection(frames[first].columns)
        frames[shown] = frames[first].join(frames[second].drop(columns=repeated))
    return {name: frames[shown] for name, shown in inputs.items()}


def make_baseline(name: str, seed: int) -> RegressorMixin:
    """Make an unfitted scikit-learn regressor for the features of a baseline.

    Parameters
    ----------
    name
        As :func:`compute_baseline_features` takes it.
    seed
        Of the trees' random thresholds: the same seed and data give the same predictions. The
        Gaussian process is deterministic.

    Returns
    -------
    For ``mean`` a DummyRegressor. For a bare name a Pipeline that ends in an ExtraTreesRegressor of
    300 trees, otherwise with scikit-learn's default settings. For ``-kernel`` one that ends in a
    Gaussian process, so that ``predict(X, return_std=True)`` also returns standard deviations;
    numbers are transformed towards a normal distribution (Yeo & Johnson, Biometrika 87, 954 (2000),
    doi:10.1093/biomet/87.4.954) and standardised with the training set. For ``-average`` a
    VotingRegressor of the two.

    ``fit(X, y)`` takes the frame and one target of shape (n,) without missing values. A prototype
    outside the training set is encoded as none of the known ones.
    """
    inputs = _inputs_of(name)
    # scikit-learn's ensembles are slow to import; models that share features do without
    from .regressors import make_average, make_gaussian_process, make_mean, make_trees

    if inputs == "mean":
        return make_mean()
    if name.endswith("-kernel"):
        return make_gaussian_process(inputs)
    return make_average(inputs, seed) if name.endswith("-average") else make_trees(inputs, seed)


def find_strongest(scores: pd.DataFrame, names: Iterable[str] = ALL_BASELINES) -> dict[str, str]:
    """Find the baseline to beat for each target.

    Parameters
    ----------
    scores
        Columns ``model``, ``target``, ``rmse``; one row a fold or one a model, as
        :func:`rhosight.evaluation.statistics.fold_scores` returns them. Other models are ignored.
    names
        Names of the models that count as baselines.

    Returns
    -------
    Target → name of the baseline with the lowest mean RMSE.
    """
    baselines = scores[scores["model"].isin(list(names))]
    if baselines.empty:
        raise RhosightError("the scores contain no baseline; score some baselines first")
    means = baselines.groupby(["target", "model"], sort=False)["rmse"].mean()
    best = means.groupby(level="target", sort=False).idxmin()
    return {target: model for target, model in best}


def _inputs_of(name: str) -> str:
    """Return the input of a baseline.

    It is one of :data:`INPUTS` or :data:`PRETRAINED`, or ``mean``.
    """
    if name not in _KNOWN:
        raise RhosightError(f"unknown baseline {name!r}; known are {', '.join(_KNOWN)}")
    return name.removesuffix("-kernel").removesuffix("-average")


def _part(part: str, materials: Dataset | Sequence[Crystal]) -> pd.DataFrame:
    if part == "mean":
        return pd.DataFrame(index=pd.RangeIndex(len(materials)))
    if part in _STRUCTURE_FEATURES:
        return _STRUCTURE_FEATURES[part]([one.structure for one in list_crystals(materials)])
    densities: Sequence[ChargeDensity]
    if isinstance(materials, Dataset):
        densities = materials.densities  # decoded on access
    else:
        densities = [require_density(one) for one in materials]
    if part == "promolecule":
        return density_features(densities, ("promolecule",))
    kinds: tuple[Kind, ...] = ("total", "difference")
    shared = [kind for kind in kinds if all(kind in density.kinds for density in densities)]
    return density_features(densities, shared or kinds)
