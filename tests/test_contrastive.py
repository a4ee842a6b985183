"""The dual encoder: its loss, pre-training without labels, retrieval, and a linear readout."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from rhosight import PropertyModel, RhosightError, cross_validate, load_dataset, load_recipe
from rhosight.cli.train import pretrain
from rhosight.inputs.image import ImageSettings
from rhosight.models.image_text_encoder import ImageTextEncoder
from rhosight.models.inputs import make_inputs
from rhosight.networks.recipe import Recipe
from rhosight.training.contrastive import contrastive_loss, score_retrieval
from rhosight.training.stages import TrainingData, train

pytestmark = pytest.mark.usefixtures("small_forests")

IMAGE = ImageSettings().model_copy(update={"size": 48})


def small(**pretraining) -> Recipe:
    """The recipe of a CLIP without a hub, on small images and short texts."""
    settings = {"epochs": 2, "batch_size": 16, "width": 32} | pretraining
    return load_recipe(
        "clip-offline", image={"settings": IMAGE}, text={"extent": "formula", "element_steps": 0},
        augmentation={"views": 2}, head={"epochs": 2}, fine_tuning={"epochs": 1},
        pretraining=settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("mp-fcc")[:32]


@pytest.fixture(scope="module")
def tiny(checkpoints):
    """Return :func:`small` with tiny encoders, for what does not depend on what they know."""
    image, text = ({"backbone": checkpoints[name]} for name in ("image", "text"))
    return lambda **pretraining: small(**pretraining).replace(image=image, text=text)


@pytest.fixture(scope="module")
def pretrained(dataset, tiny):
    return ImageTextEncoder(tiny()).fit(dataset[:24])


class TestLoss:
    def test_it_is_clips_symmetric_cross_entropy(self):
        torch.manual_seed(0)
        image, text, scale = torch.randn(4, 8), torch.randn(4, 8), torch.tensor(2.0)
        found = contrastive_loss(image, text, scale, torch.arange(4))
        unit = [np.array(x / x.norm(dim=1, keepdim=True)) for x in (image, text)]
        logits = np.exp(2.0) * unit[0] @ unit[1].T
        by_image = np.log(np.exp(logits).sum(1)) - np.diag(logits)
        by_text = np.log(np.exp(logits).sum(0)) - np.diag(logits)
        assert float(found) == pytest.approx((by_image.mean() + by_text.mean()) / 2, rel=1e-5)

    def test_materials_of_one_formula_are_no_negatives(self):
        torch.manual_seed(0)
        image, text = torch.randn(3, 8), torch.randn(3, 8)
        image[1], text[1] = image[0], text[0]  # the hardest negatives that there are
        scale = torch.tensor(3.0)
        alike = contrastive_loss(image, text, scale, torch.tensor([0, 0, 1]))
        without = contrastive_loss(image[[0, 2]], text[[0, 2]], scale, torch.tensor([0, 1]))
        apart = contrastive_loss(image, text, scale, torch.tensor([0, 1, 2]))
        assert apart > alike + 0.1
        unit = [np.array(x / x.norm(dim=1, keepdim=True)) for x in (image, text)]
        logits = np.exp(3.0) * unit[0] @ unit[1].T
        logits[0, 1] = logits[1, 0] = -np.inf
        by_image = np.log(np.exp(logits).sum(1)) - np.diag(logits)
        by_text = np.log(np.exp(logits).sum(0)) - np.diag(logits)
        assert float(alike) == pytest.approx((by_image.mean() + by_text.mean()) / 2, rel=1e-5)
        assert without.isfinite()

    def test_the_temperature_has_clips_bound(self):
        image, text = torch.randn(4, 8), torch.randn(4, 8)
        bound, beyond = torch.tensor(np.log(100.0)), torch.tensor(9.0)
        losses = [contrastive_loss(image, text, s, torch.arange(4)) for s in (bound, beyond)]
        assert float(losses[0]) == pytest.approx(float(losses[1]))


class TestRetrieval:
    def test_counterparts_that_are_nearest_are_found(self):
        unit = np.eye(12)
        table = score_retrieval(unit, unit, [f"A{i}" for i in range(12)])
        assert (table.loc["text → density", ["recall@1", "recall@5", "recall@10"]] == 1).all()
        assert table.loc["density → text", "median_rank"] == 1
        chance = table.loc["chance"]
        assert chance["recall@1"] == pytest.approx(1 / 12)
        assert chance["recall@10"] == pytest.approx(10 / 12)
        assert chance["median_rank"] == 6.5 and chance["materials"] == 12

    def test_ranks_count_what_is_nearer(self):
        angle = np.radians([0, 10, 40])
        text = np.column_stack([np.cos(angle), np.sin(angle)])
        image = text[[2, 1, 0]]  # the first and the last belong to each other's text
        table = score_retrieval(image, text, ["A", "B", "C"])
        # text 0 (0°): images at 40°, 10°, 0°, its own the farthest; text 1: its own the nearest
        assert table.loc["text → density", "recall@1"] == pytest.approx(1 / 3)
        assert table.loc["text → density", "median_rank"] == 3

    def test_other_materials_of_the_formula_are_not_in_the_way(self):
        unit = np.eye(3)[[0, 0, 1, 2]]
        table = score_retrieval(unit, unit, ["A", "A", "B", "C"])
        assert table.loc["text → density", "recall@1"] == 1
        assert table.loc["chance", "recall@1"] == pytest.approx((1 / 3 + 1 / 3 + 1 / 4 + 1 / 4) / 4)

    def test_an_encoder_that_sees_no_difference_is_at_chance(self):
        table = score_retrieval(np.ones((9, 1)), np.ones((9, 1)), [f"A{i}" for i in range(9)])
        assert table.loc["density → text", "median_rank"] == table.loc["chance", "median_rank"]
        assert table.loc["density → text", "recall@1"] == 0


class TestPretraining:
    @pytest.mark.slow
    def test_it_learns_which_image_and_text_belong_together(self):
        dataset = load_dataset("mp-fcc")[:96]  # so that enough are watched to choose an epoch by
        encoder = ImageTextEncoder(small(epochs=40, patience=40)).fit(dataset)
        image, text = encoder.embed(dataset)
        table = score_retrieval(image, text, list(dataset.table["formula"]))
        assert table.loc["text → density", "recall@5"] > 3 * table.loc["chance", "recall@5"]
        assert table.loc["density → text", "recall@5"] > 3 * table.loc["chance", "recall@5"]
        losses = [epoch["train"] for epoch in encoder.history]
        assert losses[-1] < 0.6 * losses[0]

    def test_an_interrupted_run_ends_as_one_that_was_not(self, dataset, tiny, pretrained, tmp_path):
        def stop(label, epoch, *_):
            if label == "pre-training" and epoch == 2:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rhosight.training.loop.CHECKPOINT_SECONDS", 0.0)
            with pytest.raises(KeyboardInterrupt):
                ImageTextEncoder(tiny()).fit(dataset[:24], tmp_path / "run", stop)
        assert (tmp_path / "run" / "pre-training" / "last.ckpt").exists()
        epochs = []
        resumed = ImageTextEncoder(tiny()).fit(
            dataset[:24], tmp_path / "run", lambda label, epoch, *_: epochs.append((label, epoch))
        )
        assert ("pre-training", 1) not in epochs and ("pre-training", 2) in epochs
        for mine, its in zip(resumed.embed(dataset), pretrained.embed(dataset), strict=True):
            np.testing.assert_array_equal(mine, its)

    def test_a_saved_encoder_embeds_the_same_and_remembers_its_scores(
        self, dataset, pretrained, tmp_path
    ):
        scores = pretrained.retrieval(dataset[24:])
        pretrained.save_pretrained(tmp_path / "encoder")
        loaded = ImageTextEncoder.from_pretrained(tmp_path / "encoder")
        for mine, its in zip(loaded.embed(dataset), pretrained.embed(dataset), strict=True):
            np.testing.assert_allclose(mine, its, atol=1e-6)
            np.testing.assert_allclose(np.linalg.norm(mine, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(loaded.scores.astype(float), scores.astype(float))
        assert "recall@10" in (tmp_path / "encoder" / "README.md").read_text()
        assert not [p for p in (tmp_path / "encoder").rglob("*") if p.suffix in (".bin", ".ckpt")]

    def test_materials_that_it_has_seen_are_not_scored(self, dataset, pretrained):
        with pytest.raises(RhosightError, match="1 of these materials were used in pre-training"):
            pretrained.retrieval(dataset[23:])

    def test_folders_that_hold_none_are_refused(self, tmp_path):
        with pytest.raises(RhosightError, match="not a pre-trained dual encoder"):
            ImageTextEncoder.from_pretrained(tmp_path)
        with pytest.raises(RhosightError, match=r"pretraining\.epochs is 0"):
            ImageTextEncoder(small(epochs=0)).fit(load_dataset("mp-fcc")[:4])

    def test_the_command_prints_retrieval_beside_chance(self, dataset, tmp_path):
        dataset.to_parquet(tmp_path / "small.parquet")
        app = typer.Typer()
        app.command()(pretrain)
        arguments = [
            str(tmp_path / "small.parquet"), "--out", str(tmp_path / "encoder"), "--size", "48",
            "--extent", "formula", "--pretraining-epochs", "1",
        ]  # fmt: skip
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        for word in ("recall@10", "text → density", "density → text", "chance", "test set"):
            assert word in done.stdout
        assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder", "small.parquet"]
        assert ImageTextEncoder.from_pretrained(tmp_path / "encoder").scores.loc[
            "chance", "materials"
        ] in (4, 5, 6)


def weights_after_pretraining(dataset, recipe, inputs, folder):
    """Train on rows 8 to 24, watch rows up to 8; the rest is held out."""
    targets = dataset.targets[list(recipe.targets)].to_numpy()
    rows = np.arange(24)
    scaler = np.nanmean(targets[rows], axis=0), np.nanstd(targets[rows], axis=0)
    formulas = list(dataset.table["formula"])
    seen = []
    data = TrainingData(inputs, targets, rows[8:], rows[:8], scaler, formulas)
    train(recipe, data, run_dir=folder, on_stage=seen.append)
    assert [(r.modality, r.stage) for r in seen] == [("clip", "head"), ("clip", "fine-tuning")]
    return load_file(folder / "pre-training" / "weights.safetensors")


class TestReadout:
    def test_pretraining_sees_the_training_part_only(self, dataset, tiny, tmp_path):
        recipe = tiny(epochs=1)
        inputs = make_inputs(dataset, recipe)
        canvas, ids = inputs.canvas.clone(), inputs.input_ids.clone()
        canvas[24:], ids[:, 24:] = 0, ids[:, :1]
        other = replace(inputs, canvas=canvas, input_ids=ids)
        first = weights_after_pretraining(dataset, recipe, inputs, tmp_path / "a")
        second = weights_after_pretraining(dataset, recipe, other, tmp_path / "b")
        assert first.keys() == second.keys()
        for key in first:
            assert torch.equal(first[key], second[key]), key
        canvas[8:24] = canvas[8:9]  # and of the training part it does depend
        third = weights_after_pretraining(dataset, recipe, other, tmp_path / "c")
        assert any(not torch.equal(first[key], third[key]) for key in first)

    @pytest.mark.slow
    def test_a_cross_validation_pretrains_in_each_fold(self, dataset):
        labels = set()
        result = cross_validate(
            dataset, small(epochs=1), n_splits=2,
            progress=lambda label, *_: labels.add(label),
        )  # fmt: skip
        assert {f"fold {k} of 2: pre-training" for k in (1, 2)} <= labels
        rows = result.summary().loc["efermi"].loc["clip"]
        assert list(rows.index) == ["head", "fine-tuning"]
        assert np.isfinite(rows["validation", "rmse"]).all()

    def test_it_begins_with_what_a_folder_holds(self, dataset, tiny, pretrained, tmp_path):
        pretrained.save_pretrained(tmp_path / "encoder")
        recipe = tiny(weights=str(tmp_path / "encoder")).replace(
            head={"epochs": 1}, fine_tuning={"epochs": 0}
        )
        model = PropertyModel(recipe).fit(dataset[:24])
        assert list(model.history) == [("clip", "head")]
        for key, value in pretrained.encoder.state_dict().items():
            assert torch.equal(value, model.network.backbone.state_dict()[key]), key
        model.save_pretrained(tmp_path / "model")
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        np.testing.assert_allclose(loaded.predict(dataset), model.predict(dataset), rtol=1e-4)
        with pytest.raises(RhosightError, match="other backbones or another width"):
            wide = tiny(weights=str(tmp_path / "encoder"), width=16)
            PropertyModel(wide).fit(dataset[:24])

    def test_materials_of_the_pretraining_are_scored_nowhere(
        self, dataset, tiny, pretrained, tmp_path
    ):
        pretrained.save_pretrained(tmp_path / "encoder")
        recipe = tiny(weights=str(tmp_path / "encoder"))
        with pytest.raises(RhosightError, match=r"pre-trained on \d+ of the scored materials"):
            cross_validate(dataset, recipe, n_splits=2)
        model = PropertyModel(recipe.replace(head={"epochs": 1}, fine_tuning={"epochs": 0})).fit(
            dataset[26:]
        )
        with pytest.raises(RhosightError, match="are in the training set"):
            model.score(dataset[:8])
        config = json.loads((tmp_path / "encoder" / "config.json").read_text())
        assert config["about"]["pretrained_ids"] == sorted(dataset[:24].ids)
