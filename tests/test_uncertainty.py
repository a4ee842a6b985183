"""Conformal intervals and the training domain: known distributions, and the bundled materials."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition
from safetensors.numpy import load, save
from sklearn.linear_model import BayesianRidge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from rhosight.dataset import Dataset, split
from rhosight.errors import RhosightError
from rhosight.evaluation.coverage import coverage_table, nested_intervals
from rhosight.evaluation.statistics import Candidate, cross_validate_models
from rhosight.models.uncertainty import (
    ConformalIntervals,
    TrainingDomain,
    conformal_quantile,
    cv_plus,
)

NUMBERS = ["nsites", "cubic_lattice_constant", "spacegroup_number"]


@pytest.fixture(scope="module")
def predictions(dataset: Dataset) -> pd.DataFrame:
    """Out-of-fold predictions of a quick model on the training part."""
    features = dataset.table[NUMBERS].reset_index(drop=True)
    ridge = Candidate(
        features,
        lambda seed: make_pipeline(StandardScaler(), PolynomialFeatures(2), BayesianRidge()),
        gives_std=True,
    )
    return cross_validate_models({"ridge": ridge}, dataset, repeats=1, indices=split(dataset)[0])


# intervals


def test_the_quantile_is_that_of_a_finite_sample():
    scores = np.arange(1.0, 20.0)[::-1]  # 19 of them: (19 + 1)·0.9 = 18
    assert conformal_quantile(scores, 0.9) == 18
    assert conformal_quantile(scores, 0.91) == 19
    assert conformal_quantile(scores, 0.5) == 10
    assert conformal_quantile(scores, 0.96) == np.inf
    assert conformal_quantile(np.append(scores, np.nan), 0.9) == 18
    assert conformal_quantile(np.arange(9.0), 0.9) == 8
    assert conformal_quantile(np.arange(8.0), 0.9) == np.inf
    for level in (0, 1, 90):
        with pytest.raises(RhosightError, match=f"between 0 and 1, not be {level}"):
            conformal_quantile(scores, level)


def test_new_truths_lie_inside_as_often_as_asked():
    """39 residuals at 90 %: exactly 36/40 of new ones, on average over calibrations."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        true = rng.standard_exponential(39) + 5
        intervals = ConformalIntervals.fit(true, np.zeros(39))
        low, high = intervals(np.zeros(200))
        new = rng.standard_exponential(200) + 5
        shares.append(np.mean((low <= new) & (new <= high)))
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_each_target_has_its_own_width():
    true = np.column_stack([np.arange(1.0, 20), 10 * np.arange(1.0, 20)])
    true[0, 1] = np.nan
    true[3, 1] = np.nan
    intervals = ConformalIntervals.fit(true, np.zeros((19, 2)), level=0.8)
    assert intervals.quantiles == (16, 170)  # the 15th smallest of the 17 that are left
    low, high = intervals(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    np.testing.assert_allclose(low, [[-15, -168], [-13, -166], [-11, -164]])
    np.testing.assert_allclose(high, [[17, 172], [19, 174], [21, 176]])
    with pytest.raises(RhosightError, match=r"1 target\(s\), but intervals of 2"):
        intervals(np.zeros(3))


def test_widths_that_follow_the_models_doubt_are_narrower_and_fairer():
    rng = np.random.default_rng(1)
    std = rng.choice([0.2, 2.0], size=4000)
    true = 3 + std * rng.standard_normal(4000)
    old, new = slice(0, 2000), slice(2000, None)
    mean = np.full(2000, 3.0)
    plain = ConformalIntervals.fit(true[old], mean)
    scaled = ConformalIntervals.fit(true[old], mean, std[old])
    assert scaled.quantiles[0] == pytest.approx(1.645, abs=0.1)  # 90 % of a normal distribution
    assert scaled.half_widths(mean, std[new]).mean() < 0.85 * plain.half_widths(mean).mean()
    low, high = scaled(mean, std[new])
    for value in (0.2, 2.0):
        here = std[new] == value
        inside = (low[here] <= true[new][here]) & (true[new][here] <= high[here])
        assert inside.mean() == pytest.approx(0.9, abs=0.03)
    with pytest.raises(RhosightError, match="proportional to the model's std"):
        scaled(mean)


def test_no_model_is_certain():
    true, std = np.linspace(-1, 1, 21), np.full(21, 0.5)
    intervals = ConformalIntervals.fit(true, np.zeros(21), std)
    widths = intervals.half_widths(np.zeros(3), np.array([0.0, 0.05, 0.5]))
    assert widths[0] == widths[1] == pytest.approx(widths[2] / 10)
    always = ConformalIntervals.fit(true, true, np.zeros(21))
    assert np.isfinite(always.half_widths(np.zeros(3), np.zeros(3))).all()


def test_intervals_survive_json():
    true = np.column_stack([np.arange(20.0), np.full(20, np.nan)])
    true[:3, 1] = 1.0
    for std in (None, np.ones((20, 2))):
        intervals = ConformalIntervals.fit(true, np.zeros((20, 2)), std)
        assert intervals.quantiles[1] == np.inf  # three residuals are too few for 90 %
        text = json.dumps(intervals.to_dict(), allow_nan=False)
        assert ConformalIntervals.from_dict(json.loads(text)) == intervals


def test_cv_plus_by_hand():
    predicted = np.array([[10.0, 20.0]])
    residuals, fold = np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])
    low, high = cv_plus(predicted, residuals, fold, level=0.75)  # rank 3 of 3
    assert (low[0], high[0]) == (8, 23)  # 9, 8, 17 and 11, 12, 23
    low, high = cv_plus(predicted, residuals, fold, level=0.5)  # rank 2, from either end
    assert (low[0], high[0]) == (9, 12)


def test_cv_plus_of_one_model_is_the_plain_interval():
    residuals = np.random.default_rng(2).gamma(1.0, size=60)
    low, high = cv_plus(np.array([[5.0] * 4]), residuals, np.arange(60) % 4)
    plain = ConformalIntervals.fit(residuals, np.zeros(60))
    assert (low[0], high[0]) == plain(5.0 * np.ones(1))


def test_an_interval_has_not_seen_the_truth_that_it_is_to_cover(predictions: pd.DataFrame):
    before = nested_intervals(predictions)
    changed = predictions.copy()
    here = (changed.fold == 2) & (changed.target == "efermi")
    changed.loc[here, "true"] += 1000
    after = nested_intervals(changed)
    pd.testing.assert_frame_equal(
        before.loc[here, ["low", "high"]], after.loc[here, ["low", "high"]]
    )
    others = ~here & (changed.target == "efermi")
    assert (after.high - after.low)[others].min() > (before.high - before.low)[others].max()
    untouched = changed.target != "efermi"
    pd.testing.assert_frame_equal(before[untouched], after[untouched])


@pytest.mark.parametrize("normalised", [False, True])
def test_coverage_on_the_bundled_materials(predictions: pd.DataFrame, normalised: bool):
    intervals = nested_intervals(predictions, level=0.9, normalised=normalised)
    table = coverage_table(intervals)
    assert list(table.index.get_level_values("model").unique()) == ["ridge"]
    assert table.n.sum() == len(predictions)
    assert table.coverage.between(0.87, 0.93).all()
    spread = predictions.groupby("target").true.std()
    width = table.width.droplevel("model")
    assert (width < 3.29 * spread[width.index]).all()  # of a normal guess at the mean
    half = coverage_table(nested_intervals(predictions, level=0.5, normalised=normalised))
    assert half.coverage.between(0.45, 0.55).all()
    assert (half.width < 0.7 * table.width).all()


def test_coverage_by_hand():
    frame = pd.DataFrame(
        {
            "model": "m",
            "target": "t",
            "true": [1.0, 2.0, 3.0, 4.0],
            "low": [0.0, 2.0, 4.0, 3.0],
            "high": [2.0, 3.0, 5.0, 13.0],
        }
    )
    row = coverage_table(frame).loc[("t", "m")]
    assert (row.coverage, row.width, row.width_median, row.n) == (0.75, 3.5, 1.5, 4)


def test_normalised_intervals_need_standard_deviations(predictions: pd.DataFrame):
    for frame in (predictions.drop(columns="std"), predictions.assign(std=np.nan)):
        with pytest.raises(RhosightError, match="need a value of `std`"):
            nested_intervals(frame, normalised=True)


# training domain


def elements_of(dataset: Dataset) -> list[set[str]]:
    return [{e.symbol for e in Composition(formula)} for formula in dataset.table["formula"]]


def test_oxides_are_foreign_to_a_model_that_saw_none(dataset: Dataset):
    features, elements = dataset.table[NUMBERS].to_numpy(float), elements_of(dataset)
    oxide = np.array(["O" in e for e in elements])
    assert 10 < oxide.sum() < 200
    rest = [e for e, has in zip(elements, oxide, strict=True) if not has]
    domain = TrainingDomain.fit(features[~oxide], rest)
    reasons = domain.reasons(features, elements)
    for reason, has in zip(reasons, oxide, strict=True):
        assert (reason or "").startswith("element O is in no training material") == has
    foreign = domain.reasons(features[:1], [{"Og", "O", "Ts"}])
    assert foreign[0].startswith("elements O, Og, Ts are in no training material")


def test_nearly_all_held_out_materials_are_inside_and_stretched_ones_are_not(dataset: Dataset):
    train, test = split(dataset)
    features, elements = dataset.table[NUMBERS].to_numpy(float), elements_of(dataset)
    domain = TrainingDomain.fit(features[train], [elements[i] for i in train])
    known = [domain.elements] * len(test)
    assert sum(r is None for r in domain.reasons(features[test], known)) > 0.9 * len(test)
    stretched = features[test] * [1, 2.5, 1]  # lattice constants
    for reason in domain.reasons(stretched, known):
        assert reason.startswith("farther from its nearest training materials than 99 % of the")


def test_the_limit_is_a_leave_one_out_quantile():
    points = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 20])[:, None]
    elements = [{"Na"}] * 10
    domain = TrainingDomain.fit(points, elements, neighbours=1, quantile=0.9)
    scale = points.std()
    assert domain.max_distance == pytest.approx(np.quantile([1] * 9 + [12], 0.9) / scale)
    np.testing.assert_allclose(domain.distances([[5.5], [14.0]]), [0.5 / scale, 6 / scale], 1e-5)
    assert [r is None for r in domain.reasons([[5.5], [14.0]], elements[:2])] == [True, False]
    three = TrainingDomain.fit(points, elements, neighbours=3)
    np.testing.assert_allclose(three.distances([[5.0]]), 2 / 3 / scale, 1e-5)  # 0, 1, 1


def test_units_of_features_do_not_matter_nor_do_copies_of_them():
    rng = np.random.default_rng(3)
    values, new = rng.normal(size=(60, 4)), 2 * rng.normal(size=(20, 4))
    elements = [{"Na"}] * 60
    first = TrainingDomain.fit(values, elements)
    other = TrainingDomain.fit(values * 1e3 + 5, elements)
    np.testing.assert_allclose(first.distances(new), other.distances(new * 1e3 + 5), rtol=1e-3)
    double = TrainingDomain.fit(np.tile(values, 2), elements)
    np.testing.assert_allclose(first.distances(new), double.distances(np.tile(new, 2)), rtol=1e-5)
    assert first.max_distance == pytest.approx(double.max_distance, rel=1e-5)


def test_a_model_that_doubts_is_outside():
    values = np.arange(100.0)[:, None]
    std = np.column_stack([np.linspace(0, 1, 100), np.full(100, np.nan)])
    std[::2, 1] = 3.0
    domain = TrainingDomain.fit(values, [{"Na"}] * 100, std)
    reasons = domain.reasons(
        values[:3],
        [{"Na"}] * 3,
        np.array([[0.5, 3.0], [1.2, 3.0], [1.2, np.nan]]),
        targets=["efermi", "gap"],
    )
    assert reasons[0] is None
    assert reasons[1].startswith("the prediction of efermi is less certain than for 99 %")
    assert "of gap" not in reasons[1]
    assert "of efermi" in reasons[2] and "of gap" in reasons[2]


def test_the_domain_survives_saving(dataset: Dataset):
    features, elements = dataset.table[NUMBERS].to_numpy(float), elements_of(dataset)
    rows = slice(0, 80)
    domain = TrainingDomain.fit(features[rows], elements[rows], std=np.linspace(0, 1, 80))
    state = json.loads(json.dumps(domain.to_dict(), allow_nan=False))
    again = TrainingDomain.from_state(state, load(save(domain.arrays())))
    std = np.linspace(0, 2, len(dataset))
    reasons = domain.reasons(features, elements, std)
    assert again.reasons(features, elements, std) == reasons
    assert 0 < sum(r is None for r in reasons) < len(reasons)


def test_the_domain_refuses_what_does_not_fit():
    values, elements = np.eye(4), [{"Na"}] * 4
    domain = TrainingDomain.fit(values, elements)
    with pytest.raises(RhosightError, match="training domain has 4"):
        domain.distances(np.zeros((1, 5)))
    with pytest.raises(RhosightError, match=r"\(4, 4\) for 3 materials"):
        TrainingDomain.fit(values, elements[:3])
    with pytest.raises(RhosightError, match="NaN or infinities"):
        TrainingDomain.fit(np.where(values, np.nan, 0), elements)


def test_intervals_outside_are_wider_by_what_left_out_groups_show():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(400, 2))
    inside = ConformalIntervals.fit(true, true + rng.normal(size=true.shape), level=0.9)
    far = true + rng.normal(size=true.shape) * [3.0, 0.5]
    wider = inside.calibrate_outside(true, far)
    assert wider.outside == pytest.approx((3.0, 1.0), rel=0.2) and wider.outside[1] == 1.0
    half = wider.half_widths(true[:2], outside=[False, True])
    np.testing.assert_allclose(half[1] / half[0], wider.outside)
    low, high = wider(far, outside=[True] * 400)
    assert ((low <= true) & (true <= high)).mean(axis=0)[0] == pytest.approx(0.9, abs=0.01)
    assert ConformalIntervals.from_dict(wider.to_dict()) == wider
    assert ConformalIntervals.from_dict(inside.to_dict()).outside is None


def test_a_nearly_constant_feature_does_not_outweigh_the_others():
    """Noise about zero, and a feature that hardly varies: distances stay readable."""
    rng = np.random.default_rng(5)
    values = np.column_stack([rng.normal(size=(33, 8)), 1e-14 * rng.normal(size=33)])
    values[:, 7] = 3 + 1e-6 * rng.normal(size=33)
    domain = TrainingDomain.fit(values, [{"Na"}] * 33)
    new = values[:2].copy()
    new[0, 8], new[1, 7] = 1e-12, 4.0
    reasons = domain.reasons(new, [{"Na"}] * 2)
    assert reasons[0] is None and domain.distances(new[1:])[0] < 100
    assert reasons[1].startswith("farther")
