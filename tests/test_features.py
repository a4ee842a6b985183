"""Features of encoders, read by Gaussian processes: cached on disk, saved with the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rhosight
from rhosight.cli import app
from rhosight.dataset import Dataset
from rhosight.errors import RhosightError
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.loading import load_recipe, model_for
from rhosight.networks.feature_settings import three_planes

SIZE = 32
TARGETS = ["formation_energy_per_atom", "efermi", "bulk_modulus_vrh"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """A cache of its own for each test, so that no feature comes from another run."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RHOSIGHT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def materials(dataset: Dataset) -> Dataset:
    return dataset[:24]


def small_recipe(name: str, checkpoints: dict[str, str], **changes):
    """Return a recipe that reads tiny encoders with random weights."""
    recipe = load_recipe(name)
    fields: dict = {"n_splits": 2}
    if recipe.image:
        images = [three_planes(kind, SIZE).model_dump() for kind in ("total", "difference")]
        fields["image"] = {"backbone": checkpoints["image"], "images": images}
    if recipe.text:
        fields["text"] = {"backbone": checkpoints["text"]}
    return load_recipe(name, **(fields | changes))


@pytest.fixture(scope="module")
def fitted(materials: Dataset, checkpoints: dict[str, str], tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RHOSIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield DescriptorModel(small_recipe("image+text", checkpoints)).fit(materials[:18])


def test_predictions_have_intervals_and_a_domain(fitted, materials: Dataset):
    table = fitted.predict_intervals(materials[18:])
    assert list(table.index) == materials.ids[18:]
    for target in TARGETS:
        assert (table[f"{target}_low"] < table[target]).all()
        assert (table[target] < table[f"{target}_high"]).all()
    assert table["outside"].notna().any()  # elements that 18 materials do not have
    densities = list(materials[18:20].densities)
    alone = fitted.predict(densities)
    np.testing.assert_allclose(alone[TARGETS], table[TARGETS][:2], rtol=1e-4)


def test_features_are_computed_once(materials: Dataset, checkpoints, cache: Path):
    recipe = small_recipe("image+text", checkpoints)
    first = DescriptorModel(recipe).reader.table(materials[:4])
    files = sorted(cache.rglob("*.safetensors"))
    assert len(files) == 4 * 4  # two images and two texts each
    before = {path: path.read_bytes() for path in files}
    again = DescriptorModel(recipe).reader.table(materials[:4])
    pd.testing.assert_frame_equal(first, again)
    assert sorted(cache.rglob("*.safetensors")) == files
    # a damaged file is computed again; one of another setting is not taken
    files[0].write_bytes(b"damaged")
    pd.testing.assert_frame_equal(DescriptorModel(recipe).reader.table(materials[:4]), first)
    assert files[0].read_bytes() == before[files[0]]
    turned = small_recipe("image", checkpoints, image=recipe.image.model_dump() | {"turns": 1})
    other = DescriptorModel(turned).reader.table(materials[:4])
    columns = [name for name in other if name.startswith("image-")]
    assert not np.allclose(other[columns], first[columns])


def test_the_cache_has_a_size(materials: Dataset, checkpoints, cache: Path, monkeypatch):
    monkeypatch.setenv("RHOSIGHT_CACHE_MB", "0.02")
    DescriptorModel(small_recipe("text", checkpoints)).reader.table(materials[:6])
    assert 0 < sum(path.stat().st_size for path in cache.rglob("*.safetensors")) <= 20_000


def test_a_saved_model_is_whole_without_its_checkpoints(
    fitted, materials: Dataset, checkpoints, tmp_path: Path
):
    fitted.save_pretrained(tmp_path / "model")
    away = {name: Path(path).with_name(f"{name}.away") for name, path in checkpoints.items()}
    for name, path in checkpoints.items():
        shutil.move(path, away[name])
    try:
        loaded = rhosight.load_model(tmp_path / "model")
        np.testing.assert_allclose(
            loaded.predict(materials[18:]), fitted.predict(materials[18:]), rtol=1e-5
        )
    finally:
        for name, path in checkpoints.items():
            shutil.move(away[name], path)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["encoders"]["text"] = "0" * 64
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RhosightError, match="other weights of its text encoder"):
        rhosight.load_model(tmp_path / "model").predict(materials[18:19])


def test_a_clip_is_read_by_both_towers(materials: Dataset, checkpoints):
    network = load_recipe("paper-clip", clip=checkpoints["clip"], image={"settings": {"size": 48}})
    recipe = load_recipe(
        "paper-clip", readout="gp", clip=checkpoints["clip"], image={"settings": {"size": 48}}
    )
    assert network.trains_network and not recipe.trains_network
    table = DescriptorModel(recipe).reader.table(materials[:3])
    blocks = {name.partition(".")[0] for name in table}
    assert {"image-difference-layer1", "text-all-layer1"} <= blocks


def test_a_text_model_reads_structures(materials: Dataset, checkpoints):
    model = model_for(small_recipe("text", checkpoints)).fit(materials[:18])
    assert not model.uses_density
    table = model.predict([materials[20].structure])
    assert np.isfinite(table[TARGETS].to_numpy()).all()
    with pytest.raises(RhosightError, match="reads charge densities"):
        model_for(small_recipe("image", checkpoints)).fit(materials[:18]).predict(
            [materials[20].structure]
        )


def test_a_sweep_reads_what_each_recipe_reads(materials: Dataset, checkpoints):
    from rhosight.evaluation.tuning.folds import InnerFolds

    parts = [(np.arange(16), np.arange(16, 24))]
    recipes = [
        small_recipe("text", checkpoints, text={"backbone": checkpoints["text"], "layers": layers})
        for layers in (1, 2)
    ]
    shared = InnerFolds(materials, parts)
    scores = [shared.score(recipe, 0) for recipe in recipes]
    assert scores[1] != scores[0]
    assert scores[1] == InnerFolds(materials, parts).score(recipes[1], 0)


def test_descriptors_stand_beside_features(materials: Dataset, checkpoints):
    kernels = ({"together": ("image", "magpie", "volume")},)
    recipe = small_recipe("image", checkpoints, kernels=kernels, scales=None)
    assert recipe.label == "image+descriptors"
    model = DescriptorModel(recipe).fit(materials[:18])
    explanation = rhosight.explain(model, materials[20].density)
    assert set(explanation.modalities.index) == {"image", "composition", "structure"}
    total = explanation.modalities.sum() + pd.Series(explanation.base)
    for target in TARGETS:
        assert total[target] == pytest.approx(
            model.predict([materials[20].density])[target].iloc[0]
        )


def test_the_lesson_tells_elements_apart(cache: Path, dataset: Dataset):
    """The shipped lesson brings elements of one group together, and is read only with its hash."""
    with_lesson = load_recipe("text", text={"extents": ("formula",), "layers": 1})
    without = load_recipe("text", text={"extents": ("formula",), "layers": 1, "lesson": False})
    crystals = dataset[["mp-149", "mp-32", "mp-30"]]  # Si, Ge, Cu
    distances = []
    for recipe in (with_lesson, without):
        model = DescriptorModel(recipe)
        table = model.reader.table(crystals).filter(like="text-formula").to_numpy()
        alike, unlike = (np.linalg.norm(table[0] - table[n]) for n in (1, 2))
        distances.append(alike / unlike)
        assert (" and " in model.reader.encoders.weights["text"]) == recipe.text.lesson
    assert distances[0] < 0.8 * distances[1]


@pytest.mark.parametrize(
    ("options", "label"),
    [
        (["--modality", "text"], "text"),
        (["--preset", "image+text", "--descriptors", "magpie"], "image+text+descriptors"),
        (["--modality", "image", "--readout", "dense"], "image"),
        (["--modality", "image", "--fine-tune"], "image"),
    ],
)
def test_options_choose_the_readout(options: list[str], label: str, tmp_path: Path):
    from rhosight.cli.recipe_options import add_recipe_options

    made = []

    @add_recipe_options("best")
    def command(recipe):
        made.append(recipe)

    import typer

    runner_app = typer.Typer()
    runner_app.command()(command)
    result = CliRunner().invoke(runner_app, options)
    assert result.exit_code == 0, result.output
    assert made[0].label == label
    assert made[0].trains_network == ("dense" in options)
    is_tuned = not made[0].trains_network and made[0].fine_tuning is not None
    assert is_tuned == ("--fine-tune" in options)


def test_training_options_need_dense_layers(tmp_path: Path):
    out = str(tmp_path / "m")
    options = ["train", "mp-fcc", "--preset", "image+text", "--epochs", "1", "1", "--out", out]
    result = CliRunner().invoke(app, options)
    assert result.exit_code
    assert "trains no network and has no option --epochs" in str(result.exception or result.output)
    options = ["train", "mp-fcc", "--readout", "dense", "--fine-tune", "--out", out]
    result = CliRunner().invoke(app, options)
    assert "--fine-tune is for encoders" in str(result.exception or result.output)
