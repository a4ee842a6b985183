"""Cross-validate several models on the same folds and compare their scores.

A model is any estimator with scikit-learn's ``fit`` and ``predict`` and a table of features. A
model that is trained in another way supplies a table of predictions with the same columns; the same
functions score and compare it.

>>> features = {name: compute_baseline_features(name, dataset) for name in names}
>>> candidates = {n: Candidate(features[n], partial(make_baseline, n)) for n in names}
>>> predictions = cross_validate_models(candidates, dataset, repeats=3, indices=train)
>>> score_table(predictions)
>>> compare(predictions, "best", find_strongest(fold_scores(predictions)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ..dataset.dataset import Dataset
from ..dataset.splits import Groups, folds
from ..errors import RhosightError
from ..inputs.progress import Progress

PREDICTION_COLUMNS: tuple[str, ...] = (
    "model",
    "repeat",
    "fold",
    "target",
    "material_id",
    "true",
    "predicted",
)
"""Columns of out-of-fold predictions.

One row for each prediction, in the target's unit. An optional column ``std`` holds the model's own
standard deviation.
"""

FOLD_KEYS = ["model", "target", "repeat", "fold"]


@dataclass(frozen=True)
class Candidate:
    """A model to cross-validate.

    Attributes
    ----------
    features
        One row for each material, in the order of the dataset.
    make
        Seed → unfitted estimator for one target with ``fit(X, y)`` and ``predict(X)``.
    gives_std
        True if ``predict(X, return_std=True)`` also returns standard deviations.
    """

    features: pd.DataFrame
    make: Callable[[int], Any]
    gives_std: bool = False


@dataclass(frozen=True)
class Fold:
    """Positions in the dataset of one training set and its validation set."""

    repeat: int
    fold: int
    train: np.ndarray
    validation: np.ndarray


def repeated_folds(
    dataset: Dataset,
    n_splits: int = 5,
    repeats: int = 3,
    seed: int = 0,
    groups: Groups = "formula",
    indices: np.ndarray | None = None,
) -> Iterator[Fold]:
    """Yield the folds of :func:`rhosight.dataset.folds`, drawn anew for each repeat.

    Repeat r uses the seed ``seed + r``, so the first repeat has the folds of
    :func:`rhosight.cross_validate`. :func:`rhosight.dataset.folds` explains the other parameters.
    """
    for repeat in range(repeats):
        parts = folds(dataset, n_splits, seed + repeat, groups, indices)
        for number, (train, validation) in enumerate(parts):
            yield Fold(repeat, number, train, validation)


def cross_validate_models(
    candidates: Mapping[str, Candidate],
    dataset: Dataset,
    targets: Sequence[str] | None = None,
    n_splits: int = 5,
    repeats: int = 3,
    seed: int = 0,
    groups: Groups = "formula",
    indices: np.ndarray | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return out-of-fold predictions of several models on the same folds.

    Parameters
    ----------
    candidates
        Name → model.
    dataset
        Materials and labels. Missing labels are used neither for training nor for scoring.
    targets
        Columns of ``dataset.targets``; all by default.
    n_splits, repeats, seed, groups, indices
        See :func:`repeated_folds`; ``indices`` is usually the training set. In repeat r every model
        is made with the seed ``seed + r``.
    progress
        Called with (label, step, steps).

    Returns
    -------
    DataFrame with :data:`PREDICTION_COLUMNS`, and ``std`` if a candidate gives it.

    Raises
    ------
    RhosightError
        If a target is unknown, or a table of features has another number of materials.
    """
    names = [str(name) for name in dataset.targets] if targets is None else list(targets)
    for name in names:
        dataset.require_targets(name)  # raises and lists the known targets
    _check_features(candidates, len(dataset))
    labels = dataset.targets[names].to_numpy(dtype=float)
    ids = np.array(dataset.ids)
    parts = list(repeated_folds(dataset, n_splits, repeats, seed, groups, indices))
    frames = []
    for step, part in enumerate(parts):
        for name, candidate in candidates.items():
            if progress:
                label = f"repeat {part.repeat + 1}, fold {part.fold + 1}: {name}"
                progress(label, step, len(parts))
            for column, target in enumerate(names):
                keys = {"model": name, "repeat": part.repeat, "fold": part.fold, "target": target}
                values = _predict_fold(candidate, part, labels[:, column], ids, seed + part.repeat)
                frames.append(pd.DataFrame(keys | values))
    return pd.concat(frames, ignore_index=True)


def _check_features(candidates: Mapping[str, Candidate], materials: int) -> None:
    """Raise if a candidate's features have another number of materials."""
    for name, candidate in candidates.items():
        if len(candidate.features) != materials:
            raise RhosightError(
                f"{name}: features of {len(candidate.features)} materials for a dataset of "
                f"{materials}; compute them from the dataset"
            )


def _predict_fold(
    candidate: Candidate, part: Fold, labels: np.ndarray, ids: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Fit a model of one target and predict the labelled validation materials."""
    known = ~np.isnan(labels)
    train, scored = (rows[known[rows]] for rows in (part.train, part.validation))
    model = candidate.make(seed)
    model.fit(candidate.features.iloc[train], labels[train])
    values = {"material_id": ids[scored], "true": labels[scored]}
    shown = candidate.features.iloc[scored]
    if candidate.gives_std:
        values["predicted"], values["std"] = model.predict(shown, return_std=True)
    else:
        values["predicted"] = model.predict(shown)
    return values


def fold_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return R², RMSE and MAE of each fold.

    Parameters
    ----------
    predictions
        With :data:`PREDICTION_COLUMNS`.

    Returns
    -------
    DataFrame with columns model, target, repeat, fold, n, r2, rmse, mae; errors in the target's
    unit. R² is NaN for a fold whose labels are all equal.
    """
    errors = _errors(predictions)
    groups = errors.groupby(FOLD_KEYS, sort=False)
    spread = groups["true"].var(ddof=0).where(lambda v: v > 0)
    mse = groups["squared"].mean()
    table = pd.DataFrame(
        {
            "n": groups.size(),
            "r2": 1 - mse / spread,
            "rmse": np.sqrt(mse),
            "mae": groups["absolute"].mean(),
        }
    )
    return table.reset_index()


def score_table(
    predictions: pd.DataFrame, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return mean scores over folds and pooled scores with bootstrap intervals.

    Parameters
    ----------
    predictions
        With :data:`PREDICTION_COLUMNS`.
    confidence
        Level of the bootstrap intervals (percentile method; Efron & Tibshirani, An Introduction to
        the Bootstrap, Chapman & Hall 1993, chapter 13). Materials are drawn with replacement, each
        with its predictions of all repeats. All models share the same draws.
    resamples
        Number of bootstrap samples.
    seed
        Seed of the draws.

    Returns
    -------
    DataFrame indexed by (target, model): ``r2``, ``rmse``, ``mae``, means over folds and repeats,
    each with its standard deviation as ``…_std``; ``pooled_r2`` and ``pooled_rmse`` over all
    materials at once, with ``…_low`` and ``…_high``; ``n`` materials; ``folds`` scored; and the
    columns of :func:`repeat_deviations`.
    """
    names = ["target", "model"]
    of_folds = fold_scores(predictions)
    scores = of_folds.groupby(names, sort=False)
    columns = ["r2", "rmse", "mae"]
    table = scores[columns].mean().join(scores[columns].std(ddof=1).add_suffix("_std"))
    order = [name for column in columns for name in (column, f"{column}_std")]
    pooled = {}
    for key, group in _errors(predictions).groupby(names, sort=False):
        materials = group.groupby("material_id", sort=True)[["true", "squared"]].mean()
        pooled[key] = _pooled(materials, confidence, resamples, seed)
    intervals = pd.DataFrame(list(pooled.values()), pd.MultiIndex.from_tuples(pooled, names=names))
    table = table[order].join(intervals).assign(folds=scores.size())
    table = table.join(repeat_deviations(of_folds, names))
    return pd.concat([table.loc[[target]] for target in table.index.unique("target")])


def repeat_deviations(scores: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return how much the scores vary between repeats of the whole protocol.

    Parameters
    ----------
    scores
        Table of :func:`fold_scores`, or some of its columns.
    names
        Columns that identify a model.

    Returns
    -------
    DataFrame indexed by ``names``: for each score the standard deviation of the repeats' means as
    ``…_run_std`` (NaN for one repeat), and ``repeats``.
    """
    columns = [name for name in ("r2", "rmse", "mae") if name in scores]
    runs = scores.groupby([*names, "repeat"])[columns].mean().groupby(list(names))
    return runs.std(ddof=1).add_suffix("_run_std").assign(repeats=runs.size())


def compare(
    predictions: pd.DataFrame,
    model: str,
    baseline: str | Mapping[str, str],
    alpha: float = 0.05,
    ratio: float | None = None,
) -> pd.DataFrame:
    """Compare a model with a baseline by a corrected t-test on the RMSE of each fold.

    The training sets of different folds overlap. The scores of folds are therefore not independent,
    and the usual t-test reports too many significant differences. Nadeau & Bengio (Mach. Learn. 52,
    239 (2003), doi:10.1023/A:1024068626366, section 3.3) replace the variance of the mean, s²/J, by
    s²·(1/J + n_validation/n_train). For J = folds × repeats see Bouckaert & Frank (PAKDD 2004,
    doi:10.1007/978-3-540-24775-3_3). p values are two-sided, with J − 1 degrees of freedom. Holm's
    method (Scand. J. Stat. 6, 65 (1979)) corrects them for the number of targets.

    Parameters
    ----------
    predictions
        With :data:`PREDICTION_COLUMNS`; both models on the same materials of the same folds.
    model
        Name of the model.
    baseline
        Name of the baseline, or target → name, for example from
        :func:`rhosight.models.baselines.baselines.find_strongest`.
    alpha
        Level of significance; intervals have a confidence of 1 − alpha.
    ratio
        Size of the validation set divided by that of the training set. By default it is computed
        from the predictions: each fold is validated by a model trained on the repeat's other folds.

    Returns
    -------
    DataFrame indexed by target: ``model``, ``baseline``; ``rmse`` and ``baseline_rmse``, means over
    folds in the target's unit; ``relative``, rmse / baseline_rmse − 1 (−0.15 is 15 % less);
    ``difference`` of the means with ``low`` and ``high``; ``t``, ``p``, ``p_holm``; ``better``,
    true if the model's error is lower with p_holm < alpha; ``folds``.

    Raises
    ------
    RhosightError
        If a model has no predictions, the folds differ, or there are fewer than two folds.
    """
    ordered = predictions.sort_values(["repeat", "fold", "material_id"], ignore_index=True)
    scores = dict(tuple(fold_scores(ordered).groupby("target", sort=False)))
    rows = {}
    for target in predictions["target"].drop_duplicates():
        other = baseline if isinstance(baseline, str) else baseline.get(target, "")
        _check_pairs(ordered[ordered["target"] == target], target, model, other)
        mine, theirs = (scores[target][scores[target]["model"] == name] for name in (model, other))
        test = _test_pair(mine, theirs, alpha, ratio)
        rows[target] = {"model": model, "baseline": other, **test}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "target"
    table.insert(list(table).index("p") + 1, "p_holm", holm(table["p"].to_numpy(dtype=float)))
    table["better"] = (table["p_holm"] < alpha) & (table["difference"] < 0)
    return table


def corrected_t_test(differences: np.ndarray, ratio: float) -> tuple[float, float, float]:
    """Test a mean difference against zero by the corrected resampled t-test.

    See :func:`compare` for the correction of Nadeau and Bengio.

    Parameters
    ----------
    differences
        Shape (folds × repeats,): score of one model minus that of the other.
    ratio
        Size of the validation set divided by that of the training set.

    Returns
    -------
    t, two-sided p, and the standard error of the mean difference. If all differences are equal,
    t = ±∞ and p = 0; if they are all zero, t = 0 and p = 1.

    Raises
    ------
    RhosightError
        If there are fewer than two differences.
    """
    count = len(differences)
    if count < 2:
        raise RhosightError(f"a t-test needs two folds or more, not {count}")
    mean = float(np.mean(differences))
    error = float(np.sqrt((1 / count + ratio) * np.var(differences, ddof=1)))
    if error == 0:
        return (float(np.copysign(np.inf, mean)), 0.0, 0.0) if mean else (0.0, 1.0, 0.0)
    value = mean / error
    return value, float(2 * student.sf(abs(value), count - 1)), error


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values corrected by Holm's step-down method, in the given order."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def draw_materials(materials: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Draw bootstrap samples of positions, shape (resamples, materials)."""
    return np.random.default_rng(seed).integers(materials, size=(resamples, materials))


def _errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Add columns of squared and absolute errors."""
    missing = [name for name in PREDICTION_COLUMNS if name not in predictions]
    if missing:
        raise RhosightError(f"predictions lack the column(s) {', '.join(missing)}")
    error = predictions["predicted"] - predictions["true"]
    return predictions.assign(squared=error**2, absolute=error.abs())


def _pooled(
    materials: pd.DataFrame, confidence: float, resamples: int, seed: int
) -> dict[str, float]:
    """Return pooled R² and RMSE with intervals; squared errors are repeat means."""
    true, squared = materials["true"].to_numpy(), materials["squared"].to_numpy()

    def scores(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mse, spread = squared[rows].mean(axis=-1), true[rows].var(axis=-1)
        return 1 - mse / np.where(spread > 0, spread, np.nan), np.sqrt(mse)

    drawn = draw_materials(len(true), resamples, seed)
    tails = 50 * (1 - confidence) * np.array([1, -1]) + [0, 100]
    result: dict[str, float] = {}
    exact, resampled = scores(np.arange(len(true))), scores(drawn)
    for name, value, values in zip(("r2", "rmse"), exact, resampled, strict=True):
        low, high = np.nanpercentile(values, tails)
        result |= {f"pooled_{name}": float(value), f"{name}_low": low, f"{name}_high": high}
    return result | {"n": len(true)}


def _check_pairs(ordered: pd.DataFrame, target: str, model: str, baseline: str) -> None:
    """Raise unless both models have predictions of the same materials and folds."""
    tables = []
    for name in (model, baseline):
        table = ordered.loc[ordered["model"] == name, ["repeat", "fold", "material_id", "true"]]
        if table.empty:
            raise RhosightError(f"{target}: no predictions of {name!r}; cross-validate it too")
        tables.append(table.reset_index(drop=True))
    if not tables[0].equals(tables[1]):
        raise RhosightError(
            f"{target}: {model} and {baseline} were not scored on the same folds; "
            "cross-validate both with the same seed, repeats and groups"
        )


def _test_pair(
    mine: pd.DataFrame, other: pd.DataFrame, alpha: float, ratio: float | None
) -> dict[str, float]:
    """Compare two models' scores of the same folds, given in the same order."""
    if ratio is None:
        everything = mine.groupby("repeat")["n"].transform("sum")
        ratio = float((mine["n"] / (everything - mine["n"])).mean())
    differences = mine["rmse"].to_numpy() - other["rmse"].to_numpy()
    t, p, error = corrected_t_test(differences, ratio)
    mean, half = differences.mean(), student.ppf(1 - alpha / 2, len(differences) - 1) * error
    return {
        "rmse": mine["rmse"].mean(),
        "baseline_rmse": other["rmse"].mean(),
        "relative": mine["rmse"].mean() / other["rmse"].mean() - 1,
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "t": t,
        "p": p,
        "folds": len(differences),
    }
