"""Fine-tuned encoders that Gaussian processes read: kept only where they help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import rhosight
from rhosight.dataset import Dataset
from rhosight.errors import RhosightError
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.loading import load_recipe
from rhosight.networks.feature_settings import three_planes

TUNED = Path("text_backbone", "tuned.safetensors")
STAGE = {"epochs": 1, "tuned": "all", "keep_start": False, "learning_rate": 1e-3}
TUNING = {"head": {"epochs": 1}, "stage": STAGE, "text_rate": 1e-2, "views": 1}


def make_recipe(checkpoints: dict[str, str], **tuning):
    """Return a recipe that fine-tunes a tiny text encoder, for one target."""
    return load_recipe(
        "text",
        n_splits=2,
        targets=("efermi",),
        text={"backbone": checkpoints["text"], "extents": ("formula", "keywords"), "layers": 1},
        fine_tuning=(TUNING | tuning) if tuning else None,
    )


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RHOSIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def materials(dataset: Dataset) -> Dataset:
    return dataset[:30]


@pytest.fixture(scope="module")
def frozen(materials: Dataset, checkpoints) -> DescriptorModel:
    return DescriptorModel(make_recipe(checkpoints)).fit(materials[:24])


@pytest.fixture(scope="module")
def tuned(materials: Dataset, checkpoints) -> DescriptorModel:
    """A model whose fine-tuned encoder is kept in any case."""
    return DescriptorModel(make_recipe(checkpoints, margin=-1e9)).fit(materials[:24])


def test_a_stage_that_does_not_help_changes_nothing(
    frozen, materials: Dataset, checkpoints, tmp_path: Path
):
    model = DescriptorModel(make_recipe(checkpoints, margin=1e9)).fit(materials[:24])
    crystals = materials[24:]
    expected = frozen.predict_intervals(crystals)
    np.testing.assert_allclose(
        model.predict_intervals(crystals)["efermi_low"], expected["efermi_low"], rtol=1e-6
    )
    assert "not kept" in model.about["fine_tuning"][0]
    model.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model" / TUNED).exists()


def test_a_kept_encoder_reads_the_first_text(tuned, frozen, materials: Dataset):
    before, after = (model.reader.table(materials[24:27]) for model in (frozen, tuned))
    first, second = (before.filter(like=f"text-{name}").columns for name in ("formula", "keywords"))
    assert not np.allclose(before[first], after[first])
    np.testing.assert_allclose(before[second], after[second], rtol=1e-5)
    assert not np.allclose(tuned.predict(materials[24:]), frozen.predict(materials[24:]))
    assert set(rhosight.explain(tuned, materials[25].structure).modalities.index) == {"text"}


def test_a_saved_model_holds_the_kept_tensors(tuned, materials: Dataset, tmp_path: Path):
    folder = tmp_path / "model"
    tuned.save_pretrained(folder)
    assert "encoder kept" in (folder / "README.md").read_text()
    expected = tuned.predict(materials[24:])
    loaded = rhosight.load_model(folder)
    np.testing.assert_allclose(loaded.predict(materials[24:]), expected, rtol=1e-5)
    loaded.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / TUNED).read_bytes() == (folder / TUNED).read_bytes()
    names = json.loads((folder / "config.json").read_text())["encoders"]
    assert set(names) == {"text", "tuned text"}
    (folder / TUNED).write_bytes(b"no tensors")
    with pytest.raises(RhosightError, match="the model's folder is damaged"):
        rhosight.load_model(folder).predict(materials[24:25])
    (folder / TUNED).unlink()
    with pytest.raises(RhosightError, match="other weights of its tuned text encoder"):
        rhosight.load_model(folder).predict(materials[24:25])


def test_fine_tuning_is_for_encoders_alone(checkpoints):
    with pytest.raises(RhosightError, match="fine_tuning needs an encoder"):
        load_recipe("best", fine_tuning={})
    with pytest.raises(RhosightError, match="fine_tuning needs an encoder"):
        load_recipe("text", clip=checkpoints["clip"], fine_tuning={})


def test_the_first_image_is_fine_tuned(materials: Dataset, checkpoints):
    from rhosight.models.encoder_tuning import EncoderTuner

    images = [three_planes(kind, 32).model_dump() for kind in ("total", "difference")]
    recipe = load_recipe(
        "image",
        image={"backbone": checkpoints["image"], "images": images, "layers": 2},
        fine_tuning=TUNING | {"image_rate": 1e-2, "stage": STAGE | {"tuned": "lora"}},
    )
    table = DescriptorModel(recipe.model_copy(update={"fine_tuning": None})).reader.table(
        materials[:12]
    )
    tuner = EncoderTuner(recipe, materials[:12], table)
    found = tuner.tune(np.arange(12))
    assert not set(found.fit) & set(found.judge)
    (encoder,) = found.encoders
    changed = encoder.replace(table, found.judge)
    rows = np.isin(np.arange(12), found.judge)
    first = table.filter(like="image-total").columns
    assert not np.allclose(changed.loc[rows, first], table.loc[rows, first])
    assert changed.loc[~rows].equals(table.loc[~rows])
    assert changed.drop(columns=first).equals(table.drop(columns=first))
