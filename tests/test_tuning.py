"""Fine-tuning a part of the backbones: what learns, what stays, and what a saved model holds.

Backbones are small, randomly initialised and on disk in the hub's own format, but for those that
rhosight's packages bring."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from rhosight import PropertyModel, Recipe, RhosightError, load_dataset
from rhosight.cli import app
from rhosight.inputs.image import ImageSettings
from rhosight.networks.adapters import limit_tuning
from rhosight.networks.backbones import ClipBackbone, ImageBackbone, TextBackbone
from rhosight.networks.modules import build_model

SIZE = 48


@pytest.fixture(scope="module")
def materials():
    return load_dataset("mp-fcc")[:16]


def small(checkpoints: dict[str, str], **changes) -> Recipe:
    fields = {
        "modality": "image",
        "image": {
            "backbone": checkpoints["image"],
            "settings": ImageSettings().model_copy(update={"size": SIZE}),
        },
        "text": {"backbone": checkpoints["text"], "extent": "formula", "element_steps": 0},
        "head": {"epochs": 0},
        "fine_tuning": {"epochs": 2, "tuned_blocks": 1, "lora_rank": 2},
        "stacked": {"head_epochs": 0, "fine_tuning_epochs": 1},
        "augmentation": {"views": 1},
    }
    if changes.get("modality") == "clip":
        fields |= {"clip": checkpoints["clip"], "pretraining": {"epochs": 0}}
    return Recipe(**fields).replace(**changes)


def bundled(**changes) -> Recipe:
    """A recipe on the encoders of rhosight's packages."""
    plain = Recipe()
    names = {"image": plain.image.backbone, "text": plain.text.backbone}
    return small(names).replace(fine_tuning={"lora_rank": 4}).replace(**changes)


# encoder → what its last block is, in the names of its own model
LAST = {
    "image": ("blocks.4.", "conv_head.", "bn2."),
    "text": ("encoder.layer.1.",),
    "clip": (
        "vision_model.encoder.layers.1.", "vision_model.post_layernorm.", "visual_projection.",
        "text_model.encoder.layers.1.", "text_model.final_layer_norm.", "text_projection.",
    ),
}  # fmt: skip
ENCODERS = {"image": ImageBackbone, "text": TextBackbone, "clip": ClipBackbone}


class TestWhatLearns:
    @pytest.mark.parametrize("modality", ENCODERS)
    def test_the_last_blocks_move_and_nothing_else(self, modality, checkpoints, materials):
        model = PropertyModel(
            small(checkpoints, modality=modality, fine_tuning={"tuned": "last"})
        ).fit(materials)
        before = ENCODERS[modality](checkpoints[modality]).model
        after = model.network.backbone.model.state_dict()
        weights = dict(before.named_parameters())
        for key, value in before.state_dict().items():
            moved = not torch.equal(after[key], value)
            if not key.startswith(LAST[modality]):
                assert not moved, key
            # the bias of attention's keys cancels in the softmax
            elif key in weights and not key.endswith(("key.bias", "k_proj.bias")):
                assert moved, key

    @pytest.mark.parametrize("modality", ENCODERS)
    def test_low_rank_updates_move_and_no_weight_of_the_encoder(
        self, modality, checkpoints, materials
    ):
        model = PropertyModel(
            small(checkpoints, modality=modality, fine_tuning={"tuned": "lora"})
        ).fit(materials)
        after = model.network.backbone.model.state_dict()
        updates = {key for key in after if ".lora_" in key}
        kept = {k.replace(".base_layer.", "."): v for k, v in after.items() if k not in updates}
        before = ENCODERS[modality](checkpoints[modality]).model.state_dict()
        assert kept.keys() == before.keys()
        assert all(torch.equal(value, before[key]) for key, value in kept.items())
        learnt = [key for key in updates if ".lora_B." in key and after[key].any()]
        assert len(learnt) == len(updates) / 2 > 8, "an update that begins at zero is still there"

    def test_linear_and_convolutional_layers_get_updates(self, checkpoints):
        network = build_model(small(checkpoints, modality="image+text"))
        limit_tuning(
            network, small(checkpoints, modality="image+text", fine_tuning={"tuned": "lora"})
        )
        keys = [key for key in network.state_dict() if ".lora_A." in key]
        places = ("attention.self.query", "intermediate.dense", "conv_pw", "conv_exp", "conv_head")
        for place in places:
            assert any(place in key for key in keys), place
        assert not any("conv_dw" in key for key in keys), "a depthwise kernel has no rank to lower"

    def test_updates_change_nothing_before_they_learn(self, checkpoints):
        network = build_model(small(checkpoints)).eval()
        images = torch.rand(2, 3, SIZE, SIZE)
        with torch.inference_mode():
            before = network(images)
            limit_tuning(network, small(checkpoints, fine_tuning={"tuned": "lora"}))
            torch.testing.assert_close(network(images), before, rtol=0, atol=0)

    @pytest.mark.parametrize("tuned", ["last", "lora"])
    def test_statistics_of_frozen_normalisation_do_not_drift(self, tuned, checkpoints):
        network = build_model(small(checkpoints))
        limit_tuning(network, small(checkpoints, fine_tuning={"tuned": tuned}))
        before = {key: value.clone() for key, value in network.backbone.named_buffers()}
        network.train()(torch.rand(4, 3, SIZE, SIZE))
        after = dict(network.backbone.named_buffers())
        drifted = {key for key in before if not torch.equal(after[key], before[key])}
        last = tuple(f"model.{name}" for name in LAST["image"])
        expected = {k for k in before if tuned == "last" and k.startswith(last)}
        assert drifted == expected

    def test_the_default_freezes_and_adds_nothing(self, checkpoints, materials):
        recipe = small(
            checkpoints, modality="image+text", head={"epochs": 0}, fine_tuning={"epochs": 1}
        )
        assert recipe.fine_tuning.tuned == Recipe().fine_tuning.tuned == "all"
        network = PropertyModel(recipe).fit(materials).network
        torch.manual_seed(recipe.seed)
        before = build_model(recipe)
        assert network.state_dict().keys() == before.state_dict().keys()
        weights = dict(before.named_parameters())
        assert all(weight.requires_grad for weight in network.parameters())
        layers = [key for key in weights if "backbone" in key and weights[key].ndim > 1]
        moved = [key for key in layers if not torch.equal(network.get_parameter(key), weights[key])]
        assert moved == layers

    @pytest.mark.slow
    @pytest.mark.parametrize("tuned", ["last", "lora"])
    def test_two_processes_tune_a_part(self, tuned, checkpoints, materials):
        recipe = small(
            checkpoints,
            modality="image+text",
            fine_tuning={"tuned": tuned},
            hardware={"devices": 2},
        )
        network = PropertyModel(recipe).fit(materials).network
        alone = build_model(recipe)
        limit_tuning(alone, recipe)
        frozen = {key: weight for key, weight in alone.named_parameters() if "backbone" in key}
        for key, value in network.named_parameters():
            if key in frozen and not frozen[key].requires_grad:
                assert torch.equal(value, frozen[key]), key
        updated = [
            v for k, v in network.named_parameters() if "lora_B" in k or LAST["text"][0] in k
        ]
        assert updated and any(value.any() for value in updated)


def stored(folder: Path) -> dict[str, int]:
    """Name → bytes of the tensors in a saved model."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {key: file.get_tensor(key).nbytes for key in file.keys()}  # noqa: SIM118


class TestSaved:
    def test_updates_are_stored_without_the_packages_weights(self, materials, tmp_path):
        recipe = bundled(
            modality="image+text", fine_tuning={"tuned": "lora", "epochs": 1}, head={"epochs": 0}
        )
        model = PropertyModel(recipe).fit(materials)
        model.save_pretrained(tmp_path / "model")
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))

        sizes = stored(tmp_path / "model")
        of_encoders = {key: size for key, size in sizes.items() if ".backbone." in key}
        assert of_encoders and all(".lora_" in key for key in of_encoders)
        files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < 10e6
        whole = sum(value.nbytes for value in model.network.image.backbone.state_dict().values())
        whole += sum(value.nbytes for value in model.network.text.backbone.state_dict().values())
        assert sum(of_encoders.values()) < 0.02 * whole

        loaded.save_pretrained(tmp_path / "again")
        assert stored(tmp_path / "again") == sizes
        card = (tmp_path / "model" / "README.md").read_text()
        assert "updates of rank 4 (LoRA)" in card

    def test_the_last_blocks_are_stored_and_those_before_are_not(self, materials, tmp_path):
        model = PropertyModel(bundled(fine_tuning={"tuned": "last"})).fit(materials)
        model.save_pretrained(tmp_path / "model")
        keys = [key for key in stored(tmp_path / "model") if key.startswith("backbone.")]
        assert keys and all(".blocks.6." in k or ".conv_head." in k or ".bn2." in k for k in keys)
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))

    def test_an_encoder_that_learnt_the_elements_is_no_longer_its_packages(
        self, materials, tmp_path
    ):
        recipe = bundled(modality="text", fine_tuning={"tuned": "lora"}, text={"element_steps": 2})
        model = PropertyModel(recipe).fit(materials)
        model.save_pretrained(tmp_path / "model")
        assert any(key.endswith("query.base_layer.weight") for key in stored(tmp_path / "model"))
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))

    @pytest.mark.parametrize("modality", ["image+text", "clip"])
    def test_with_a_checkpoint_of_ones_own_the_model_is_whole(
        self, modality, checkpoints, materials, tmp_path
    ):
        folders = {name: shutil.copytree(c, tmp_path / name) for name, c in checkpoints.items()}
        recipe = small(
            {k: str(v) for k, v in folders.items()},
            modality=modality,
            fine_tuning={"tuned": "lora"},
        )
        model = PropertyModel(recipe).fit(materials)
        model.save_pretrained(tmp_path / "model")
        expected = model.predict(materials)
        for folder in folders.values():
            shutil.rmtree(folder)
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), expected)

    def test_other_weights_in_the_package_and_missing_updates_are_refused(
        self, materials, tmp_path
    ):
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "model"
        PropertyModel(bundled(fine_tuning={"tuned": "lora", "epochs": 1}, head={"epochs": 0})).fit(
            materials
        ).save_pretrained(folder)
        path, weights = folder / "config.json", folder / "model.safetensors"
        config = json.loads(path.read_text())
        tensors = load_file(weights)
        update = next(key for key in tensors if ".lora_A." in key)
        save_file({k: v for k, v in tensors.items() if k != update}, weights)
        with pytest.raises(RhosightError, match="not a readable rhosight model"):
            PropertyModel.from_pretrained(folder)
        config["packaged"] = dict.fromkeys(config["packaged"], "0" * 64)
        path.write_text(json.dumps(config))
        with pytest.raises(RhosightError, match=r"other weights of tf_efficientnet_lite0 \(SHA"):
            PropertyModel.from_pretrained(folder)

    def test_a_model_from_before_there_was_a_choice_loads(self, checkpoints, materials, tmp_path):
        model = PropertyModel(small(checkpoints)).fit(materials)
        model.save_pretrained(tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        config = json.loads(path.read_text())
        del config["packaged"]
        for field in ("tuned", "tuned_blocks", "lora_rank", "precision", "compiled"):
            del config["recipe"][field]
        path.write_text(json.dumps(config))
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))


def test_an_interrupted_run_with_updates_ends_as_one_that_was_not(
    checkpoints, materials, tmp_path, monkeypatch
):
    monkeypatch.setattr("rhosight.training.loop.CHECKPOINT_SECONDS", 0.0)
    recipe = small(checkpoints, fine_tuning={"tuned": "lora", "epochs": 4}, head={"epochs": 0})
    whole = PropertyModel(recipe).fit(materials)
    epochs = []

    def interrupt(label, epoch, *_):
        if label.endswith("fine-tuning") and epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PropertyModel(recipe).fit(materials, tmp_path / "run", interrupt)
    assert (tmp_path / "run" / "image-fine-tuning" / "last.ckpt").exists()
    resumed = PropertyModel(recipe).fit(
        materials, tmp_path / "run", lambda label, epoch, *_: epochs.append((label, epoch))
    )
    assert ("image, fine-tuning", 1) not in epochs and epochs[-1] == ("image, fine-tuning", 4)
    expected = whole.network.state_dict()
    assert resumed.network.state_dict().keys() == expected.keys()
    for key, value in resumed.network.state_dict().items():
        assert torch.equal(value, expected[key]), key


class TestPrecision:
    def test_half_precision_learns_and_keeps_whole_weights(self, checkpoints, materials):
        recipe = small(checkpoints, modality="clip")
        whole = PropertyModel(recipe).fit(materials).predict(materials)
        half = PropertyModel(recipe, hardware={"precision": "bf16-mixed"}).fit(materials)
        weights = {v.dtype for v in half.network.state_dict().values() if v.is_floating_point()}
        assert weights == {torch.float32}
        difference = (half.predict(materials) - whole).abs() / materials.targets[list(whole)].std()
        assert 0 < difference.max(axis=None) < 0.2

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_float16_without_a_gpu_says_what_to_use(self, checkpoints, materials):
        with pytest.raises(RhosightError, match="16-mixed needs a GPU; use auto, or bf16-mixed"):
            PropertyModel(small(checkpoints, hardware={"precision": "16-mixed"})).fit(materials)

    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
    def test_a_compiled_run_gives_the_same_model(self, checkpoints, materials, tmp_path):
        recipe = small(checkpoints, modality="text", fine_tuning={"tuned": "lora"})
        plain = PropertyModel(recipe).fit(materials)
        compiled = PropertyModel(recipe, hardware={"compiled": True}).fit(
            materials, tmp_path / "run"
        )
        assert compiled.network.state_dict().keys() == plain.network.state_dict().keys()
        pd.testing.assert_frame_equal(
            compiled.predict(materials), plain.predict(materials), rtol=1e-2, atol=1e-2
        )
        compiled.save_pretrained(tmp_path / "model")
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(
            loaded.predict(materials), compiled.predict(materials), rtol=1e-3, atol=1e-3
        )


def _path(changes: dict) -> str:
    """The path to the one field that is changed."""
    ((group, fields),) = changes.items()
    return f"{group}.{next(iter(fields))}"


class TestErrors:
    @pytest.mark.parametrize(
        "changes",
        [
            {"fine_tuning": {"tuned": "some"}},
            {"fine_tuning": {"tuned_blocks": 0}},
            {"fine_tuning": {"lora_rank": 0}},
            {"hardware": {"precision": "8"}},
        ],
    )
    def test_a_wrong_value_names_the_field(self, changes):
        with pytest.raises(RhosightError, match=f"recipe: {_path(changes)}"):
            PropertyModel(**changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"fine_tuning": {"tuned": "last", "tuned_blocks": 7}},
                r"tuned_blocks: \S+ has 6, not 7; give fewer",
            ),
            (
                {"fine_tuning": {"tuned": "last", "tuned_blocks": 4}, "modality": "text"},
                r"tuned_blocks: \S+ has 3, not 4",
            ),
            (
                {"fine_tuning": {"tuned": "lora", "lora_rank": 4096}},
                r"rank 4096; give a lower rank",
            ),
        ],
    )
    def test_more_than_the_encoder_has_is_refused(self, changes, message, checkpoints, materials):
        with pytest.raises(RhosightError, match=message):
            PropertyModel(small(checkpoints, **changes)).fit(materials)


def test_the_command_line_takes_what_a_recipe_has(checkpoints, folder, tmp_path):
    done = CliRunner().invoke(
        app,
        [
            "train", str(folder), "--out", str(tmp_path / "model"), "--test-fraction", "0",
            "--modality", "text", "--text-backbone", checkpoints["text"], "--extent", "formula",
            "--element-steps", "0", "--epochs", "1", "1", "--tuned", "lora", "--lora-rank", "2",
            "--precision", "bf16-mixed",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.exception
    network = PropertyModel.from_pretrained(tmp_path / "model").network
    ranks = {len(v) for k, v in network.named_parameters() if ".lora_A." in k}
    assert ranks == {2}
    recipe = json.loads((tmp_path / "model" / "config.json").read_text())["recipe"]
    assert (recipe["tuned"], recipe["precision"]) == ("lora", "bf16-mixed")
