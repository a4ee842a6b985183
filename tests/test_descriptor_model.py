"""The `best` and `no-dft` models: fitting, intervals, saving, and those that come bundled."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from rhosight import (
    ChargeDensity,
    DescriptorModel,
    PropertyModel,
    RhosightError,
    load_dataset,
    load_model,
    split,
)
from rhosight.cli import app
from rhosight.dataset import Dataset
from rhosight.density.files import read_density
from rhosight.models.blocks import BlockReader, keep_describable
from rhosight.models.folder import BUNDLED_MODELS, MODELS, bundled_folder
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

TARGETS = ["formation_energy_per_atom", "efermi", "bulk_modulus_vrh"]

SMALL = DescriptorRecipe(
    kernels=(
        Kernel(alone=("fractions",), together=("magpie", "prototype", "total", "overlap")),
        Kernel(together=("volume", "difference", "bonds")),
    ),
    n_splits=3,
)
"""Two members that need few descriptors."""


@pytest.fixture(scope="module")
def parts(dataset: Dataset) -> tuple[Dataset, Dataset]:
    some = dataset[::7]
    train, test = split(some, 0.25)
    return some[train], some[test]


@pytest.fixture(scope="module")
def model(parts) -> DescriptorModel:
    return DescriptorModel(SMALL).fit(parts[0])


def test_predictions_with_intervals(model, parts):
    found = model.predict_intervals(parts[1])
    assert found.index.to_list() == parts[1].ids
    for target in TARGETS:
        assert (found[f"{target}_low"] < found[target]).all()
        assert (found[f"{target}_high"] > found[target]).all()
    pd.testing.assert_frame_equal(model.predict(parts[1]), found[TARGETS])
    nothing = model.predict_intervals([])
    assert nothing.empty and list(nothing) == list(found)
    scores = model.score(parts[1])
    assert scores["bulk_modulus_vrh"]["r2"] > 0.6
    with pytest.raises(RhosightError, match="are in the training set"):
        model.score(parts[0])


def test_intervals_are_calibrated_on_materials_not_seen(model, parts):
    """Nine tenths of the out-of-fold residuals lie inside, by construction; each material of the
    training part has one for each label."""
    frame = model.out_of_fold
    labels = parts[0].targets.notna().sum()
    assert frame.groupby("target").size().to_dict() == labels.to_dict()
    fitted = model.predict(parts[0]).stack()
    own = frame.set_index(["material_id", "target"])["predicted"]
    assert np.abs(fitted.reindex(own.index) - own).mean() > 0.05


def test_the_same_crystal_from_a_file(model, parts, tmp_path):
    """A CHGCAR of the total alone: its difference is the table's, a little off the code's own."""
    density = parts[1].densities[0]
    density.to_chgcar(tmp_path / "CHGCAR")
    from_file = model.predict([read_density(tmp_path / "CHGCAR")])
    assert from_file.index.to_list() == [str(tmp_path / "CHGCAR")]
    own = model.predict_intervals(parts[1][:1])
    for target in TARGETS:
        width = (own[f"{target}_high"] - own[f"{target}_low"]).iloc[0]
        assert abs(from_file[target].iloc[0] - own[target].iloc[0]) < 0.05 * width


def test_other_elements_and_codes_are_said(model, dataset, caplog):
    known = {e for d in model.about["training_ids"] for e in dataset[d].structure.symbol_set}
    foreign = next(m for m in dataset if not known.issuperset(m.structure.symbol_set))
    missing = min(set(foreign.structure.symbol_set) - known)
    assert missing in model.predict_intervals([foreign.density])["outside"].iloc[0]
    density = foreign.density
    vasp = ChargeDensity(density.structure, density.grids, "x", {"code": "VASP"})
    with caplog.at_level(logging.WARNING):
        model.predict([vasp])
    assert "densities of VASP, but the model learned from those of GPAW: near" in caplog.text
    assert "use best, which ignores that region" in caplog.text
    caplog.clear()
    best = load_model("best")
    bare = ChargeDensity(density.structure, {"total": density.grid("total")}, "x", vasp.provenance)
    with caplog.at_level(logging.WARNING):
        found = best.predict([bare])
    assert "it reads the density only between the atoms" in caplog.text
    pd.testing.assert_frame_equal(found, best.predict([vasp]))  # its difference is not looked at


def test_saved_and_loaded_it_predicts_the_same(model, parts, tmp_path):
    model.score(parts[1])
    model.save_pretrained(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "README.md"}
    again = load_model(tmp_path / "model")
    before, after = (m.predict_intervals(parts[1]) for m in (model, again))
    pd.testing.assert_frame_equal(before, after, check_exact=False, rtol=1e-9)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "bulk_modulus_vrh" in card and "Materials Project" in card and "90 %" in card
    with pytest.raises(RhosightError, match="load_model loads any kind"):
        PropertyModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["best", "no-dft"])
def test_the_card_of_a_shipped_model_is_its_own_and_its_example_runs(
    name, dataset, tmp_path, monkeypatch
):
    load_model(name).save_pretrained(tmp_path / "this-folder")
    card = (tmp_path / "this-folder" / "README.md").read_text(encoding="utf-8")
    packaged = bundled_folder(name) / "README.md"
    assert card == packaged.read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    silicon = dataset["mp-149"].density
    silicon.to_chgcar(tmp_path / "CHGCAR")
    silicon.structure.to(tmp_path / "mine.cif")
    monkeypatch.chdir(tmp_path)
    exec(example, {})


def test_a_spoilt_model_is_an_error_with_a_cure(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RhosightError, match="not a readable rhosight model"):
        load_model(tmp_path / "model")
    with pytest.raises(RhosightError, match="not fitted"):
        DescriptorModel().predict([])


def test_structures_are_enough_without_density(parts, few):
    kernel = Kernel(alone=("fractions",), together=("magpie", "volume", "packing"))
    recipe = DescriptorRecipe(kernels=(kernel,), targets=("efermi",), n_splits=3)
    assert not recipe.uses_density
    model = DescriptorModel(recipe).fit(parts[0])
    by_structure = model.predict({m.material_id: m.structure for m in few})
    pd.testing.assert_frame_equal(by_structure, model.predict(few))
    with pytest.raises(RhosightError, match="reads charge densities; use the model no-dft"):
        BlockReader(SMALL).table([few.structures[0]])


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_bundled_models_have_not_seen_their_test_materials(name):
    """And give, for these, the scores of their cards."""
    is_general = name.startswith("structure")
    if name.endswith("potential"):
        pytest.importorskip("chgnet")
    bundled = load_model(name)
    scored = bundled
    if not is_general:
        elastic = load_dataset("mp-elastic")
        assert not set(bundled.about["training_ids"]) & {elastic.ids[i] for i in split(elastic)[1]}
        bundled = bundled.special
    dataset = load_dataset("mp-elastic" if is_general else "mp-fcc")
    dataset = keep_describable(dataset, bundled.recipe)
    train, test = split(dataset)
    assert set(bundled.about["training_ids"]) == {dataset.ids[i] for i in train}
    formulas = dataset.table["formula"]
    assert not set(formulas.iloc[train]) & set(formulas.iloc[test])
    config = json.loads((MODELS / name / "config.json").read_text())
    arrays = load_file(MODELS / name / "model.safetensors")
    targets = list(bundled.targets)
    labels = bundled.recipe.target_scales.learn(dataset.targets[targets].iloc[train].to_numpy())
    for column, own in enumerate(labels.T):  # not only its word: the labels that it holds
        scale = config["process"]["members"][0]["targets"][column]
        held = arrays[f"process/member/0/target/{column}/labels"] * scale["scale"] + scale["mean"]
        np.testing.assert_allclose(held, own[~np.isnan(own)], rtol=1e-9, atol=1e-9)
    claimed = config["scores"]
    assert set(claimed) == set(scored.targets)
    if is_general:  # whose descriptors of all take a minute
        asked = dataset[test][::8]
        found = bundled.predict(asked)
        for target, score in claimed.items():
            error = np.sqrt(((found[target] - asked.targets[target]) ** 2).mean())
            assert error < 2 * score["rmse"], target
        return
    assert bundled.about["dataset_sha256"] == dataset[train].fingerprint()
    for target, score in scored.score(dataset[test]).items():
        assert score["n"] == claimed[target]["n"]
        assert score["rmse"] == pytest.approx(claimed[target]["rmse"], rel=1e-3)


def test_intervals_of_the_bundled_model_hold(dataset):
    test = dataset[split(dataset)[1]]
    found = load_model("best").predict_intervals(test)
    inside = {}
    for target in TARGETS:
        true = test.targets[target]
        known = true.notna()
        between = true.between(found[f"{target}_low"], found[f"{target}_high"])
        inside[target] = between[known].mean()
    # 90 % of some 60 labels each, give or take: the Fermi energies of this part are hard
    assert np.mean(list(inside.values())) > 0.85, inside
    assert min(inside.values()) > 0.7, inside


def test_predicting_from_the_command_line(dataset, tmp_path):
    dataset["mp-149"].density.to_chgcar(tmp_path / "CHGCAR")
    dataset["mp-22862"].structure.to(filename=str(tmp_path / "salt.cif"))
    runner = CliRunner()
    done = runner.invoke(app, ["predict", "best", str(tmp_path / "CHGCAR"), "--format", "json"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["predictions"][0]
    assert row["efermi_low"] < row["efermi"] < row["efermi_high"]
    done = runner.invoke(app, ["predict", "no-dft", str(tmp_path / "salt.cif")])
    assert done.exit_code == 0, done.output
    assert "±" in done.stdout
