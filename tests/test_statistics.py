"""Repeated folds, scores and paired tests: by hand, and on the bundled materials."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rhosight.dataset import Dataset, folds, group_labels, split
from rhosight.errors import RhosightError
from rhosight.evaluation.statistics import (
    PREDICTION_COLUMNS,
    Candidate,
    compare,
    corrected_t_test,
    cross_validate_models,
    fold_scores,
    holm,
    repeated_folds,
    score_table,
)

TARGETS = ["efermi", "bulk_modulus_vrh"]


@pytest.fixture(scope="module")
def candidates(dataset: Dataset) -> dict[str, Candidate]:
    """Three quick models of a few numbers that every table has."""
    features = dataset.table[["nsites", "cubic_lattice_constant", "spacegroup_number"]]
    features = features.reset_index(drop=True)
    return {
        "mean": Candidate(features, lambda seed: DummyRegressor()),
        "ridge": Candidate(
            features,
            lambda seed: make_pipeline(StandardScaler(), BayesianRidge()),
            gives_std=True,
        ),
        "trees": Candidate(features, lambda seed: ExtraTreesRegressor(20, random_state=seed)),
    }


@pytest.fixture(scope="module")
def predictions(dataset: Dataset, candidates: dict[str, Candidate]) -> pd.DataFrame:
    indices = split(dataset)[0]
    return cross_validate_models(candidates, dataset, TARGETS, repeats=2, indices=indices)


# folds


@pytest.mark.parametrize("groups", ["formula", "chemsys", "prototype"])
def test_each_repeat_divides_the_materials_anew(dataset: Dataset, groups: str):
    indices = split(dataset, groups=groups)[0]
    parts = list(repeated_folds(dataset, 4, 3, seed=7, groups=groups, indices=indices))
    assert [(p.repeat, p.fold) for p in parts] == [(r, f) for r in range(3) for f in range(4)]
    labels = group_labels(dataset, groups)
    for part in parts:
        np.testing.assert_array_equal(
            np.sort(np.concatenate([part.train, part.validation])), np.sort(indices)
        )
        assert not set(labels[part.train]) & set(labels[part.validation])
    for repeat in range(3):
        here = [p.validation for p in parts if p.repeat == repeat]
        np.testing.assert_array_equal(np.sort(np.concatenate(here)), np.sort(indices))
        again = folds(dataset, 4, 7 + repeat, groups, indices)
        assert all(np.array_equal(a, b) for a, (_, b) in zip(here, again, strict=True))
    members = {frozenset(p.validation.tolist()) for p in parts}
    # a prototype of a quarter of all materials is a fold of its own, every time
    assert len(members) == 12 if groups != "prototype" else 4 < len(members) < 12


# cross-validation


def test_each_label_of_the_training_set_is_predicted_once_a_repeat(
    dataset: Dataset, predictions: pd.DataFrame
):
    train, test = split(dataset)
    ids = np.array(dataset.ids)
    assert set(PREDICTION_COLUMNS) < set(predictions)
    assert not set(predictions.material_id) & set(ids[test])
    for target in TARGETS:
        labels = dataset.targets[target].iloc[train].dropna()
        for _, group in predictions[predictions.target == target].groupby(["model", "repeat"]):
            assert sorted(group.material_id) == sorted(labels.index)
            values = group.set_index("material_id")["true"]
            pd.testing.assert_series_equal(values[labels.index], labels, check_names=False)
    missing = dataset.targets["bulk_modulus_vrh"].iloc[train].isna().sum()
    assert missing > 0
    sizes = predictions.groupby("target").size() / (3 * 2)
    assert sizes["efermi"] - sizes["bulk_modulus_vrh"] == missing


def test_predictions_are_those_of_models_fitted_by_hand(
    dataset: Dataset, candidates: dict[str, Candidate], predictions: pd.DataFrame
):
    train, validation = folds(dataset, 5, seed=1, indices=split(dataset)[0])[3]
    y = dataset.targets["efermi"].to_numpy()
    for name, candidate in candidates.items():
        model = candidate.make(1).fit(candidate.features.iloc[train], y[train])
        found = predictions[predictions.model == name].query("repeat == 1 and fold == 3")
        found = found[found.target == "efermi"].set_index("material_id")
        found = found.loc[np.array(dataset.ids)[validation]]
        np.testing.assert_array_equal(
            found.predicted, model.predict(candidate.features.iloc[validation])
        )
    bayes = candidates["ridge"].make(0).fit(candidates["ridge"].features.iloc[train], y[train])
    _, std = bayes.predict(candidates["ridge"].features.iloc[validation], return_std=True)
    rows = predictions.query("model == 'ridge' and repeat == 1 and fold == 3")
    rows = rows[rows.target == "efermi"].set_index("material_id")
    np.testing.assert_array_equal(rows.loc[np.array(dataset.ids)[validation], "std"], std)
    assert predictions.loc[predictions.model != "ridge", "std"].isna().all()


def test_a_seed_fixes_folds_and_models(dataset: Dataset, candidates: dict[str, Candidate]):
    trees = {"trees": candidates["trees"]}
    run: Callable[..., pd.DataFrame] = partial(
        cross_validate_models, trees, dataset, ["efermi"], n_splits=3, repeats=1
    )
    pd.testing.assert_frame_equal(run(seed=4), run(seed=4))
    assert not run(seed=4).equals(run(seed=5))


def test_cross_validation_refuses_what_does_not_fit(
    dataset: Dataset, candidates: dict[str, Candidate]
):
    short = {"short": Candidate(candidates["mean"].features.head(10), candidates["mean"].make)}
    with pytest.raises(RhosightError, match=r"short: features of 10 materials for .* 405"):
        cross_validate_models(short, dataset)
    with pytest.raises(RhosightError, match="unknown target `mass`"):
        cross_validate_models(candidates, dataset, ["mass"])


# scores


def test_fold_scores_are_scikit_learns(predictions: pd.DataFrame):
    scores = fold_scores(predictions)
    assert len(scores) == 3 * 2 * 2 * 5
    for row in scores.itertuples():
        keys = ["model", "target", "repeat", "fold"]
        same = (predictions[keys] == [getattr(row, key) for key in keys]).all(axis=1)
        true, predicted = predictions.loc[same, "true"], predictions.loc[same, "predicted"]
        assert row.n == len(true)
        assert row.r2 == pytest.approx(r2_score(true, predicted))
        assert row.rmse == pytest.approx(root_mean_squared_error(true, predicted))
        assert row.mae == pytest.approx(mean_absolute_error(true, predicted))


def test_a_fold_without_spread_has_no_r2(predictions: pd.DataFrame):
    constant = predictions.assign(true=1.0)
    scores = fold_scores(constant)
    assert scores.r2.isna().all()
    assert scores.rmse.notna().all()
    with pytest.raises(RhosightError, match=r"lack the column\(s\) repeat, fold"):
        fold_scores(predictions.drop(columns=["repeat", "fold"]))


def test_score_table_sums_up_the_folds(predictions: pd.DataFrame):
    table, scores = score_table(predictions), fold_scores(predictions)
    assert list(table.index) == [(t, m) for t in TARGETS for m in ("mean", "ridge", "trees")]
    for (target, model), row in table.iterrows():
        here = scores[(scores.target == target) & (scores.model == model)]
        for name in ("r2", "rmse", "mae"):
            assert row[name] == pytest.approx(here[name].mean())
            assert row[f"{name}_std"] == pytest.approx(here[name].std(ddof=1))
        assert row["folds"] == 10
        rows = predictions[(predictions.target == target) & (predictions.model == model)]
        assert row["n"] == rows.material_id.nunique()
        assert row["pooled_rmse"] == pytest.approx(
            root_mean_squared_error(rows["true"], rows["predicted"])
        )
        assert row["pooled_r2"] == pytest.approx(r2_score(rows["true"], rows["predicted"]))
        assert row["r2_low"] < row["pooled_r2"] < row["r2_high"]
        assert row["rmse_low"] < row["pooled_rmse"] < row["rmse_high"]
    pd.testing.assert_frame_equal(table, score_table(predictions))


def test_bootstrap_intervals_are_as_wide_as_theory_says():
    """Errors ±1 and ±3, half each: the mean square is 5 ± 4/√n."""
    n = 400
    errors = np.where(np.arange(n) % 2, 1.0, 3.0)
    frame = pd.DataFrame(
        {
            "model": "m",
            "repeat": 0,
            "fold": np.arange(n) % 5,
            "target": "t",
            "material_id": [f"mp-{i}" for i in range(n)],
            "true": np.arange(n) / 10,
            "predicted": np.arange(n) / 10 + errors,
        }
    )
    row = score_table(frame, confidence=0.95, resamples=4000).iloc[0]
    assert row.pooled_rmse == pytest.approx(np.sqrt(5))
    assert row.rmse_low**2 == pytest.approx(5 - 1.96 * 4 / np.sqrt(n), abs=0.05)
    assert row.rmse_high**2 == pytest.approx(5 + 1.96 * 4 / np.sqrt(n), abs=0.05)
    narrow = score_table(frame, confidence=0.5).iloc[0]
    assert row.rmse_low < narrow.rmse_low < narrow.rmse_high < row.rmse_high
    twice = pd.concat([frame, frame.assign(repeat=1)])  # a repeat adds no materials
    assert score_table(twice, resamples=4000).iloc[0].rmse_low == pytest.approx(row.rmse_low)


# tests of significance


def test_corrected_t_test_by_hand():
    differences = np.array([0.5, 1.0, 1.5, 1.0, 0.5, 1.5])  # mean 1, variance 0.2
    t, p, error = corrected_t_test(differences, ratio=0.25)
    assert error == pytest.approx(np.sqrt((1 / 6 + 1 / 4) * 0.2))
    assert t == pytest.approx(1 / error)
    usual = ttest_1samp(differences, 0)
    assert p > usual.pvalue
    t, p, _ = corrected_t_test(differences, ratio=0)
    assert (t, p) == (pytest.approx(usual.statistic), pytest.approx(usual.pvalue))
    assert corrected_t_test(-differences, 0.25)[0] == pytest.approx(-1 / error)
    assert corrected_t_test(np.zeros(5), 0.25) == (0.0, 1.0, 0.0)
    assert corrected_t_test(np.full(5, -2.0), 0.25) == (-np.inf, 0.0, 0.0)
    with pytest.raises(RhosightError, match="two folds or more, not 1"):
        corrected_t_test(np.ones(1), 0.25)


def test_holm_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
    np.testing.assert_allclose(holm(np.array([0.2])), [0.2])


def test_a_model_with_four_fifths_of_the_error(predictions: pd.DataFrame):
    ridge = predictions[predictions.model == "ridge"]
    shrunk = ridge.assign(model="new", predicted=ridge.true + 0.8 * (ridge.predicted - ridge.true))
    table = compare(pd.concat([predictions, shrunk]), "new", "ridge")
    assert list(table.index) == TARGETS
    np.testing.assert_allclose(table.relative, -0.2)
    np.testing.assert_allclose(table.difference, -0.2 * table.baseline_rmse)
    assert (table.folds == 10).all()
    assert table.better.all()
    assert ((table.low < table.difference) & (table.difference < table.high)).all()
    assert (table.high < 0).all()
    np.testing.assert_allclose(table.p_holm, holm(table.p.to_numpy()))
    worse = compare(pd.concat([predictions, shrunk]), "ridge", "new")
    np.testing.assert_allclose(worse.relative, 0.25)
    np.testing.assert_allclose(worse.p, table.p)
    assert not worse.better.any()


def test_compare_takes_ratio_and_degrees_of_freedom_from_the_folds(predictions: pd.DataFrame):
    row = compare(predictions, "trees", "ridge").loc["efermi"]
    scores = fold_scores(predictions[predictions.target == "efermi"])
    rmse = scores.pivot(index=["repeat", "fold"], columns="model", values="rmse")
    differences = (rmse["trees"] - rmse["ridge"]).to_numpy()
    t, p, error = corrected_t_test(differences, ratio=1 / 4)  # five folds
    assert row.t == pytest.approx(t, rel=1e-3)
    assert row.p == pytest.approx(p, rel=1e-2)
    assert row.high - row.low == pytest.approx(2 * 2.262157 * error, rel=1e-3)  # Student, 9
    assert row.difference == pytest.approx(differences.mean())


def test_equal_models_do_not_differ(predictions: pd.DataFrame):
    table = compare(predictions, "ridge", "ridge")
    assert (table.difference == 0).all()
    assert (table.p_holm == 1).all()
    assert not table.better.any()


def test_each_target_may_have_its_own_baseline(predictions: pd.DataFrame):
    chosen = {"efermi": "mean", "bulk_modulus_vrh": "ridge"}
    table = compare(predictions, "trees", chosen)
    assert table.baseline.to_dict() == chosen
    for target, name in chosen.items():
        alone = compare(predictions, "trees", name).loc[target]
        assert table.loc[target, "t"] == alone["t"]
    assert (
        table.loc["bulk_modulus_vrh", "rmse"]
        < compare(predictions, "mean", "mean").loc["bulk_modulus_vrh", "rmse"]
    )


def test_compare_refuses_what_is_not_paired(predictions: pd.DataFrame):
    with pytest.raises(RhosightError, match="efermi: no predictions of 'best'"):
        compare(predictions, "best", "mean")
    with pytest.raises(RhosightError, match="efermi: no predictions of ''"):
        compare(predictions, "trees", {"bulk_modulus_vrh": "mean"})
    moved = predictions.copy()
    trees = moved.model == "trees"
    moved.loc[trees, "fold"] = (moved.loc[trees, "fold"] + 1) % 5
    with pytest.raises(RhosightError, match="trees and mean were not scored on the same folds"):
        compare(moved, "trees", "mean")
    fewer = predictions[~trees | (predictions.repeat == 0)]
    with pytest.raises(RhosightError, match="not scored on the same folds"):
        compare(fewer, "trees", "mean")
