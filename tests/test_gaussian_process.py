"""Gaussian processes over blocks: against scikit-learn's, on labels that are known or spoiled, and
on the bundled materials."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from rhosight.dataset import Dataset, folds, split
from rhosight.errors import RhosightError
from rhosight.inputs.descriptors.statistics import density_features
from rhosight.models.gaussian_process.committee import Committee
from rhosight.models.gaussian_process.kernel import Kernel, Term
from rhosight.models.gaussian_process.process import GaussianProcess

TRAIN, NEW = slice(0, 80), slice(80, None)


def sum_and_product(blocks) -> tuple[Term, ...]:
    """A term for each block, and one over all."""
    names = tuple(sorted(blocks))
    return Kernel(alone=names, together=names).terms


@pytest.fixture
def blocks() -> dict[str, np.ndarray]:
    """Two blocks that matter and one of noise, 120 materials."""
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(120, 2)),
        "b": rng.normal(size=(120, 1)),
        "noise": rng.normal(size=(120, 3)),
    }


@pytest.fixture
def y(blocks: dict[str, np.ndarray]) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.sin(blocks["a"][:, 0]) + 0.5 * blocks["b"][:, 0] + 0.03 * rng.normal(size=120)


def part(blocks: dict[str, np.ndarray], rows: slice | np.ndarray) -> dict[str, np.ndarray]:
    return {name: table[rows] for name, table in blocks.items()}


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((a - b) ** 2)))


def test_prediction_is_scikit_learns_with_the_learned_hyperparameters(blocks, y):
    model = GaussianProcess([Term("rbf", ("a",))], linear=["a"], robust=None)
    mean, std = model.fit(part(blocks, TRAIN), y[TRAIN]).predict(part(blocks, NEW), return_std=True)
    learned = model.hyperparameters().iloc[0]
    x = (blocks["a"] - blocks["a"][TRAIN].mean(axis=0)) / blocks["a"][TRAIN].std(axis=0)
    # the mean over two features, not their sum: lengths are √2 longer in scikit-learn's terms
    kernel = ConstantKernel(learned.variance) * RBF(np.sqrt(2) * learned.length)
    other = GaussianProcessRegressor(
        kernel + ConstantKernel(1.0) + WhiteKernel(learned.noise),
        alpha=1e-8,
        optimizer=None,
    ).fit(x[TRAIN], (y[TRAIN] - y[TRAIN].mean()) / y[TRAIN].std())
    expected, expected_std = other.predict(x[NEW], return_std=True)
    np.testing.assert_allclose(mean, expected * y[TRAIN].std() + y[TRAIN].mean(), atol=1e-6)
    np.testing.assert_allclose(std, expected_std * y[TRAIN].std(), rtol=1e-5)


def test_the_hyperparameters_are_the_most_probable(blocks, y):
    """scikit-learn's marginal likelihood, with the documented prior, is not higher around them."""
    model = GaussianProcess([Term("rbf", ("a",))], linear=["a"], robust=None, max_iterations=200)
    model.fit(blocks, y)
    learned = np.log(model.hyperparameters().iloc[0][["variance", "length", "noise"]].astype(float))
    x = (blocks["a"] - blocks["a"].mean(axis=0)) / blocks["a"].std(axis=0)
    labels = (y - y.mean()) / y.std()

    def log_posterior(log: np.ndarray) -> float:
        variance, length, noise = np.exp(log)
        kernel = ConstantKernel(variance) * RBF(np.sqrt(2) * length) + ConstantKernel(1.0)
        other = GaussianProcessRegressor(kernel + WhiteKernel(noise), alpha=1e-8, optimizer=None)
        likelihood = other.fit(x, labels).log_marginal_likelihood_value_
        prior = [log[0] / 2.0, log[1] - np.log(2), (log[2] - np.log(0.03)) / 1.5]
        return likelihood - np.sum(np.square(prior)) / 2

    best = log_posterior(learned.to_numpy())
    constant = len(y) * np.log(2 * np.pi) / 2
    assert model.log_posterior[0] == pytest.approx(best + constant, abs=1e-5)
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.05:
        assert log_posterior(learned.to_numpy() + step) < best


def test_what_matters_not_gets_a_long_length(blocks, y):
    model = GaussianProcess(sum_and_product(blocks)).fit(part(blocks, TRAIN), y[TRAIN])
    assert rmse(model.predict(part(blocks, NEW)), y[NEW]) < 0.25 * y.std()
    learned = model.hyperparameters()
    product = learned[learned.kind == "rational"].set_index("block").length
    assert product["noise"] > 2 * product["a"]
    assert set(learned.blocks) == {"a", "b", "noise", "a+b+noise"}


def test_a_product_learns_what_a_sum_cannot(blocks):
    y = blocks["a"][:, 0] * blocks["b"][:, 0]
    errors = []
    for terms in ([Term("rbf", ("a",)), Term("rbf", ("b",))], [Term("rational", ("a", "b"))]):
        model = GaussianProcess(terms, robust=None).fit(part(blocks, TRAIN), y[TRAIN])
        errors.append(rmse(model.predict(part(blocks, NEW)), y[NEW]))
    assert errors[1] < 0.5 * errors[0]


def test_odd_labels_count_less(blocks, y):
    odd = [3, 17, 31, 55]
    spoiled = y.copy()
    spoiled[odd] += [5, -5, 5, -5]
    errors = {}
    for robust in (None, 4.0):
        model = GaussianProcess(sum_and_product(blocks), robust=robust)
        model.fit(part(blocks, TRAIN), spoiled[TRAIN])
        errors[robust] = rmse(model.predict(part(blocks, NEW)), y[NEW])
    assert errors[4.0] < 0.5 * errors[None]
    weights = model.label_weights()
    assert sorted(np.argsort(weights)[:4]) == odd
    assert weights[odd].max() < 0.1 < np.median(weights)


def test_targets_with_missing_labels_are_learned_apart(blocks, y):
    both = np.column_stack([y, -3 * y])
    both[:40, 1] = np.nan
    both[:40:2, 1] = np.nan
    model = GaussianProcess(sum_and_product(blocks)).fit(part(blocks, TRAIN), both[TRAIN])
    alone = GaussianProcess(sum_and_product(blocks)).fit(part(blocks, TRAIN), y[TRAIN])
    mean, std = model.predict(part(blocks, NEW), return_std=True)
    assert mean.shape == std.shape == (40, 2)
    np.testing.assert_allclose(mean[:, 0], alone.predict(part(blocks, NEW)), rtol=1e-6)
    assert rmse(mean[:, 1], both[NEW, 1]) < 0.4 * both[NEW, 1].std()
    assert std[:, 1].mean() > 3 * std[:, 0].mean()  # half the labels, three times the unit
    assert np.isnan(model.label_weights()[:, 1]).sum() == 40


def test_units_and_order_do_not_matter(blocks, y):
    model = GaussianProcess(sum_and_product(blocks)).fit(part(blocks, TRAIN), y[TRAIN])
    mean, std = model.predict(part(blocks, NEW), return_std=True)
    other = {name: 1000 * blocks[name] - 7 for name in ("noise", "b", "a")}
    other["b"] = other["b"][:, 0]  # one feature may come without its axis
    other["a"] = np.column_stack([other["a"], np.full(120, 2.5)])  # a constant says nothing
    model = GaussianProcess(sum_and_product(other)).fit(part(other, TRAIN), 40 * y[TRAIN] + 9)
    again, again_std = model.predict(part(other, NEW), return_std=True)
    np.testing.assert_allclose((again - 9) / 40, mean, atol=1e-3)
    np.testing.assert_allclose(again_std / 40, std, rtol=1e-2)


def test_far_from_the_training_part_it_says_so(blocks, y):
    model = GaussianProcess(sum_and_product(blocks)).fit(blocks, y)
    _, near = model.predict(blocks, return_std=True)
    _, far = model.predict({name: table + 50 for name, table in blocks.items()}, return_std=True)
    assert far.min() > 3 * np.median(near)


def test_many_are_predicted_as_one_by_one(blocks, y):
    model = GaussianProcess(sum_and_product(blocks)).fit(part(blocks, TRAIN), y[TRAIN])
    many = {name: np.resize(table, (700, *table.shape[1:])) for name, table in blocks.items()}
    mean, std = model.predict(many, return_std=True)
    assert mean.shape == std.shape == (700,)
    for row in (0, 255, 256, 699):
        one = model.predict({name: x[row : row + 1] for name, x in many.items()}, return_std=True)
        np.testing.assert_allclose((mean[row], std[row]), np.ravel(one), rtol=1e-9)


def test_seed_and_restarts(blocks, y):
    def fitted(**settings) -> GaussianProcess:
        return GaussianProcess(sum_and_product(blocks), **settings).fit(blocks, y)

    once, again = fitted(restarts=3, seed=1), fitted(restarts=3, seed=1)
    np.testing.assert_array_equal(once.predict(blocks), again.predict(blocks))
    single = fitted(restarts=1, robust=None, max_iterations=10)
    assert fitted(restarts=3, robust=None, max_iterations=10).log_posterior >= single.log_posterior


def test_saved_without_pickle_it_predicts_the_same(blocks, y, tmp_path: Path):
    both = np.column_stack([y, y**2])
    both[5:15, 1] = np.nan
    model = GaussianProcess(sum_and_product(blocks), linear=["b"])
    model.fit(part(blocks, TRAIN), both[TRAIN])
    save_file(model.arrays(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(model.to_dict()), encoding="utf-8")
    loaded = GaussianProcess.from_state(
        json.loads((tmp_path / "config.json").read_text(encoding="utf-8")),
        load_file(tmp_path / "model.safetensors"),
    )
    expected = model.predict(part(blocks, NEW), return_std=True)
    for found, wanted in zip(
        loaded.predict(part(blocks, NEW), return_std=True), expected, strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
    pd.testing.assert_frame_equal(loaded.hyperparameters(), model.hyperparameters())
    np.testing.assert_array_equal(loaded.label_weights(), model.label_weights())
    assert loaded.to_dict() == model.to_dict()


def test_what_the_rest_says_of_a_material_that_is_left_out(blocks, y):
    """Against models that do without it, with the hyper-parameters of all."""
    labels = y.copy()
    labels[3] = np.nan
    model = GaussianProcess([Term("rbf", ("a",)), Term("rational", ("a", "b"))], linear=["a", "b"])
    mean, std = model.fit(blocks, labels).leave_out()
    assert np.isnan(mean[3]) and np.isnan(std[3])
    arrays = model.arrays()
    for row in (0, 4, 60):
        at = int(np.flatnonzero(arrays["target/0/rows"] == row)[0])
        fewer = {
            key: np.delete(a, at) if key in [f"target/0/{k}" for k in ("rows", "labels", "weights")]
            else a
            for key, a in arrays.items()
        }  # fmt: skip
        without = GaussianProcess.from_state(model.to_dict(), fewer)
        expected = without.predict(part(blocks, slice(row, row + 1)), return_std=True)
        assert mean[row] == pytest.approx(expected[0][0], rel=1e-6)
        assert std[row] == pytest.approx(expected[1][0], rel=1e-6)


def test_groups_that_are_left_out(blocks, y):
    """Against a model that does without a whole group, with the hyperparameters of all."""
    model = GaussianProcess([Term("rational", ("a", "b"))], linear=["a", "b"]).fit(blocks, y)
    groups = np.arange(len(y)) % 7
    mean, std = model.leave_out(groups)
    arrays = model.arrays()
    rest = np.flatnonzero(groups != 3)
    for key in ("rows", "labels", "weights"):
        arrays[f"target/0/{key}"] = arrays[f"target/0/{key}"][rest]
    without = GaussianProcess.from_state(model.to_dict(), arrays)
    expected = without.predict(part(blocks, groups == 3), return_std=True)
    np.testing.assert_allclose(mean[groups == 3], expected[0], rtol=1e-6)
    np.testing.assert_allclose(std[groups == 3], expected[1], rtol=1e-6)


def test_a_committee_is_the_mixture_of_its_members(blocks, y, tmp_path: Path):
    def members() -> list[GaussianProcess]:
        return [GaussianProcess(sum_and_product(names)) for names in (["a"], ["a", "b", "noise"])]

    model = Committee(members()).fit(part(blocks, TRAIN), y[TRAIN])
    assert model.blocks == ("a", "b", "noise")
    apart = [member.fit(part(blocks, TRAIN), y[TRAIN]) for member in members()]
    (mean_a, std_a), (mean_b, std_b) = (
        member.predict(part(blocks, NEW), return_std=True) for member in apart
    )
    mean, std = model.predict(part(blocks, NEW), return_std=True)
    np.testing.assert_allclose(mean, (mean_a + mean_b) / 2)
    np.testing.assert_allclose(model.predict(part(blocks, NEW)), mean)
    second = (std_a**2 + mean_a**2 + std_b**2 + mean_b**2) / 2
    np.testing.assert_allclose(std, np.sqrt(second - mean**2))
    save_file(model.arrays(), tmp_path / "model.safetensors")
    state = json.loads(json.dumps(model.to_dict()))
    loaded = Committee.from_state(state, load_file(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(loaded.predict(part(blocks, NEW)), mean, rtol=1e-9)
    with pytest.raises(RhosightError, match="at least one member"):
        Committee([])


def test_errors_say_what_to_do(blocks, y):
    model = GaussianProcess(sum_and_product(blocks))
    with pytest.raises(RhosightError, match=r"block 'b' is missing; the kernel reads a, b, noise"):
        model.fit({"a": blocks["a"], "noise": blocks["noise"]}, y)
    with pytest.raises(RhosightError, match=r"block 'a' has 120 rows, but there are 100 labels"):
        model.fit(blocks, y[:100])
    with pytest.raises(RhosightError, match=r"block 'a' holds NaN"):
        model.fit({**blocks, "a": np.full((120, 2), np.nan)}, y)
    with pytest.raises(RhosightError, match=r"target 1 has fewer than two different labels"):
        model.fit(blocks, np.column_stack([y, np.full(120, np.nan)]))
    model.fit(blocks, y)
    with pytest.raises(RhosightError, match=r"block 'a' has 1 features, but .* fitted with 2"):
        model.predict({**blocks, "a": blocks["a"][:, :1]})
    with pytest.raises(RhosightError, match=r"at least one term"):
        GaussianProcess([])
    with pytest.raises(RhosightError, match=r"unknown kernel 'cosine'; known are rbf, rational"):
        GaussianProcess([Term("cosine", ("a",))])
    with pytest.raises(RhosightError, match=r"robust must be above 2"):
        GaussianProcess(sum_and_product(blocks), robust=1.0)


def test_bulk_modulus_from_the_density(dataset: Dataset):
    """On one fold of the training part, mean and standard deviation both mean something."""
    train = split(dataset)[0]
    fit, score = folds(dataset, indices=train)[0]
    table = density_features(dataset.densities, ("total", "difference"))
    kinds = {kind: table.filter(like=kind) for kind in ("total", "difference", "volume")}
    y = dataset.targets["bulk_modulus_vrh"].to_numpy(float)
    model = GaussianProcess(sum_and_product(kinds))
    model.fit({name: block.iloc[fit] for name, block in kinds.items()}, y[fit])
    mean, std = model.predict(
        {name: block.iloc[score] for name, block in kinds.items()}, return_std=True
    )
    known = ~np.isnan(y[score])
    error = (mean - y[score])[known]
    assert np.mean(error**2) < 0.15 * np.var(y[score][known])
    assert 0.8 <= np.mean(np.abs(error) < 1.645 * std[known]) <= 1.0
