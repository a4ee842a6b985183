"""Ensembles: every training material is out of fold once, and intervals keep what they promise."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from rhosight import Ensemble, PropertyModel, RhosightError, load_model
from rhosight.cli import app
from rhosight.dataset import Dataset
from rhosight.inputs.image import ImageSettings
from rhosight.models.uncertainty import cv_plus

# heads on frozen features: no backbone is tuned
TINY = {
    "modality": "image",
    "image": {"settings": ImageSettings(size=32)},
    "head": {"epochs": 10, "batch_size": 16},
    "fine_tuning": {"epochs": 0, "batch_size": 16},
    "augmentation": {"views": 1},
}


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> Ensemble:
    return Ensemble(members=3, seeds=2, **TINY).fit(dataset[:90])


@pytest.fixture(scope="module")
def unseen(dataset: Dataset) -> Dataset:
    return dataset[-80:]


@pytest.fixture(scope="module")
def predicted(fitted: Ensemble, unseen: Dataset) -> pd.DataFrame:
    return fitted.predict_intervals(unseen)


def test_every_training_material_is_predicted_by_members_that_had_not_seen_it(
    fitted: Ensemble, dataset: Dataset
):
    part = dataset[:90]
    assert len(fitted.networks) == 6
    found = fitted.out_of_fold
    for target in fitted.targets:
        known = part.targets[target].dropna()
        rows = found[found["target"] == target].set_index("material_id")
        pd.testing.assert_series_equal(rows["true"], known, check_names=False)
    for fold, rows in found.groupby("fold"):
        left_out = set(rows["material_id"])
        own = fitted.networks[2 * fold : 2 * fold + 2]
        assert not any(left_out & set(member.about["training_ids"]) for member in own)
        target = fitted.targets[0]
        rows = rows[rows["target"] == target].set_index("material_id")[:4]
        again = np.mean([m.predict(part[list(rows.index)])[target] for m in own], axis=0)
        np.testing.assert_allclose(again, rows["predicted"], atol=0.02)  # images in half precision
    assert fitted.about["training_ids"] == sorted(part.ids)


def test_members_differ_and_their_mean_is_the_prediction(
    fitted: Ensemble, unseen: Dataset, predicted: pd.DataFrame
):
    targets = list(fitted.targets)
    each = np.stack([member.predict(unseen[:5]) for member in fitted.networks])
    np.testing.assert_allclose(predicted[targets][:5], each.mean(axis=0), rtol=1e-4)
    spread = predicted[[f"{target}_std" for target in targets]][:5]
    np.testing.assert_allclose(spread, each.std(axis=0, ddof=1), rtol=1e-3)
    assert (each.std(axis=0) > 0).all()


def test_intervals_hold_the_truth_as_often_as_they_promise(
    predicted: pd.DataFrame, unseen: Dataset
):
    covered = []
    for target, true in unseen.targets.items():
        low, high = predicted[f"{target}_low"], predicted[f"{target}_high"]
        inside = true.between(low, high)[true.notna()]
        covered.append(inside.mean())
        assert (high - low).mean() < np.ptp(true.dropna())
    assert 0.84 < np.mean(covered) < 0.98, covered


def test_intervals_are_those_of_cv_plus(fitted: Ensemble, unseen: Dataset, predicted: pd.DataFrame):
    target = fitted.targets[1]
    rows = fitted.out_of_fold[fitted.out_of_fold["target"] == target]
    each = np.column_stack([member.predict(unseen[:4])[target] for member in fitted.networks])
    residuals = (rows["true"] - rows["predicted"]).abs().to_numpy()
    low, high = cv_plus(each.reshape(4, 3, 2).mean(axis=2), residuals, rows["fold"].to_numpy())
    mean = each.mean(axis=1)
    half = np.maximum(mean - low, high - mean)
    np.testing.assert_allclose(predicted[f"{target}_low"][:4], mean - half, rtol=1e-3)
    np.testing.assert_allclose(predicted[f"{target}_high"][:4], mean + half, rtol=1e-3)


def test_a_material_of_another_element_is_outside(fitted: Ensemble, dataset: Dataset):
    known = {e.symbol for s in dataset[:90].structures for e in s.composition}
    strange = next(i for i in range(90, len(dataset)) if _elements(dataset, i) - known)
    usual = next(i for i in range(60, 90) if len(_elements(dataset, i)) == 2)
    found = fitted.predict_intervals(dataset[[dataset.ids[strange], dataset.ids[usual]]])
    assert "in no training material" in found["outside"].iloc[0]
    assert found["outside"].iloc[1] is None


def _elements(dataset: Dataset, row: int) -> set[str]:
    return {e.symbol for e in dataset[row].structure.composition}


def test_an_ensemble_is_saved_as_a_folder_of_its_members(
    fitted: Ensemble, unseen: Dataset, predicted: pd.DataFrame, tmp_path
):
    fitted.score(unseen[:10])
    fitted.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, Ensemble) and loaded.scores == fitted.scores
    found = loaded.predict_intervals(list(unseen[:6].densities))
    pd.testing.assert_frame_equal(found, predicted[:6], rtol=1e-4, atol=1e-3)
    member = load_model(tmp_path / "model" / "member-6")
    assert isinstance(member, PropertyModel)
    files = [path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert set(files) <= {".safetensors", ".json", ".md"}
    card = (tmp_path / "model" / "README.md").read_text()
    assert "6 networks, 2 for each of 3 folds" in card and "90 %" in card
    with pytest.raises(RhosightError, match="kind 'ensemble'"):
        PropertyModel.from_pretrained(tmp_path / "model")
    (tmp_path / "model" / "member-2" / "config.json").unlink()
    with pytest.raises(RhosightError, match="member-2"):
        load_model(tmp_path / "model")


def test_training_goes_on_in_its_folder(dataset: Dataset, tmp_path):
    tiny = {**TINY, "head": {"epochs": 2}, "fine_tuning": {"epochs": 0}}
    part = dataset[:24]
    whole = Ensemble(members=2, **tiny).fit(part)

    def interrupt(label, step, *_):
        if label.startswith("member 2") and step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ensemble(members=2, **tiny).fit(part, tmp_path / "run", interrupt)
    labels = []
    resumed = Ensemble(members=2, **tiny).fit(
        part, tmp_path / "run", lambda label, *_: labels.append(label)
    )
    pd.testing.assert_frame_equal(resumed.out_of_fold, whole.out_of_fold)
    assert not any(label.startswith("member 1") for label in labels), "member 1 was run again"
    with pytest.raises(RhosightError, match="members differ"):
        Ensemble(members=3, **tiny).fit(part, tmp_path / "run")


def test_descriptors_join_an_ensemble(dataset: Dataset):
    part = dataset[:24]
    blocks = {
        "descriptors": ("volume", "prototype"),
        "stacked": {"head_epochs": 2, "fine_tuning_epochs": 0},
        "head": {"epochs": 2},
        "fine_tuning": {"epochs": 0},
    }
    model = Ensemble(members=2, **{**TINY, **blocks}).fit(part)
    inputs = model.networks[0].read(part[:3])
    other = dataclasses.replace(inputs, descriptors=inputs.descriptors.flip(0))
    for member in model.networks:
        assert member.network.inputs == ("image", "descriptors")
        assert np.abs(member.predict_inputs(other) - member.predict_inputs(inputs)).max() > 1e-4


def test_the_command_line_trains_one_and_prints_its_intervals(dataset: Dataset, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        json.dumps(
            {
                "image": {"settings": {"size": 32}},
                "head": {"epochs": 1},
                "fine_tuning": {"epochs": 0},
                "augmentation": {"views": 1},
            }
        )
    )
    data, out = tmp_path / "some.parquet", tmp_path / "model"
    dataset[:24].to_parquet(data)
    command = ["train", str(data), "--out", str(out), "--test-fraction", "0", "--members", "2"]
    with pytest.raises(RhosightError, match=r"--members is for networks"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    command += ["--modality", "image", "--recipe-file", str(recipe)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["predict", str(out), str(data)])
    assert shown.exit_code == 0 and "±" in shown.output, shown.output
    table = CliRunner().invoke(app, ["predict", str(out), str(data), "--format", "csv"])
    assert "efermi_low (eV)" in table.output and "efermi_std (eV)" in table.output


@pytest.mark.parametrize("wrong", [{"members": 1}, {"seeds": 0}, {"level": 1.0}])
def test_an_ensemble_takes_two_folds(wrong):
    with pytest.raises(RhosightError, match="two folds"):
        Ensemble(**wrong)
