"""The two-stage protocol on real densities: what learns when, and that it can be interrupted."""

from __future__ import annotations

import ctypes
import functools
import json
import resource

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rhosight import PropertyModel, Recipe, RhosightError, load_dataset, split
from rhosight.inputs.image import ImageSettings
from rhosight.inputs.tensors import crop_middle, draw_images, turn
from rhosight.models.inputs import make_inputs
from rhosight.networks.backbones import ImageBackbone, TextBackbone
from rhosight.networks.modules import ImageModel, StackedModel, TextModel, build_model
from rhosight.training.loop import keep_freed_memory
from rhosight.training.plan import one_cycle
from rhosight.training.stages import TrainingData, predict_rows, train

SMALL = {
    "image": {"settings": ImageSettings().model_copy(update={"size": 48})},
    "text": {"extent": "formula", "element_steps": 0},
    "augmentation": {"views": 2},
    "stacked": {"head_epochs": 1, "fine_tuning_epochs": 1},
}


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("mp-fcc")[:28]


@pytest.fixture(scope="module")
def tiny(checkpoints):
    """Return a recipe of tiny encoders, for what does not depend on what encoders know."""
    return Recipe(**SMALL).replace(
        image={"backbone": checkpoints["image"]}, text={"backbone": checkpoints["text"]}
    )


@pytest.fixture(scope="module")
def fitted(dataset, tiny):
    rows, test = split(dataset)
    recipe = tiny.replace(head={"epochs": 3}, fine_tuning={"epochs": 2})
    return PropertyModel(recipe).fit(dataset[rows]), dataset[rows], dataset[test]


def test_the_readout_is_the_papers():
    model = ImageModel(ImageBackbone(), outputs=3, dropout=0.1)
    kinds = [type(layer).__name__ for layer in model.head.modules()]
    assert kinds.count("Linear") == 4
    assert kinds.count("ReLU") == kinds.count("BatchNorm1d") == kinds.count("Dropout") == 3
    widths = [layer.in_features for layer in model.head.modules() if hasattr(layer, "in_features")]
    assert widths[0] == 1280 and widths[-1] == 256
    assert widths == sorted(widths, reverse=True)


def test_the_fusion_sees_256_features_of_each_and_adds_two_layers():
    image = ImageModel(ImageBackbone(), 3, 0.1)
    text = TextModel(TextBackbone(), 3, 0.1)
    model = StackedModel(image, text, 3, 0.1).eval()
    layers = [m for m in model.head.modules() if isinstance(m, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(512, 256), (256, 3)]
    tokens = text.backbone.tokenize(["NaCl", "MgO"])
    with torch.inference_mode():
        features = model.features(torch.zeros(2, 3, 64, 64), *tokens)
        torch.testing.assert_close(features[:, 256:], text.penultimate(*tokens))
    assert features.shape == (2, 512)


@functools.cache
def inputs_of(dataset):
    """Return images and tokens, which are the same for all recipes here."""
    return make_inputs(dataset, Recipe(**SMALL))


def stages_of(dataset, recipe, run_dir=None, stop_after=None):
    """Run the protocol; returns weights after each stage, and predictions."""
    inputs = inputs_of(dataset)
    targets = dataset.targets[list(recipe.targets)].to_numpy()
    seen = []

    def on_stage(result):
        seen.append((result.modality, result.stage, result.predict(np.arange(len(dataset)))))
        if len(seen) == stop_after:
            raise KeyboardInterrupt

    scaler = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    rows = np.arange(len(dataset))
    data = TrainingData(inputs, targets, rows[8:], rows[:8], scaler)
    return train(recipe, data, run_dir=run_dir, on_stage=on_stage), seen


def test_the_head_stage_leaves_the_backbone_alone_and_fine_tuning_does_not(dataset, tmp_path):
    recipe = Recipe(modality="image", head={"epochs": 2}, fine_tuning={"epochs": 1}, **SMALL)
    torch.manual_seed(recipe.seed)
    before = {k: v.clone() for k, v in build_model(recipe).state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        stages_of(dataset, recipe, tmp_path, stop_after=1)
    head = load_file(tmp_path / "image-head" / "weights.safetensors")
    assert all(not key.startswith("backbone") for key in head)
    assert any(not torch.equal(value, before[f"head.{key}"]) for key, value in head.items())
    network, seen = stages_of(dataset, recipe)
    assert [stage for _, stage, _ in seen] == ["head", "fine-tuning"]
    after = dict(network.named_parameters())
    moved = [k for k, v in after.items() if not torch.equal(v.detach(), before[k])]
    assert sum(key.startswith("backbone") for key in moved) > 100


@pytest.mark.parametrize("batch_statistics", ["learned", "kept"])
def test_statistics_of_batches(dataset, batch_statistics):
    """Of the image backbone: as they came in the head stage, and then as the recipe says."""
    recipe = Recipe(modality="image", fine_tuning={"batch_statistics": batch_statistics}, **SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        came = build_model(recipe).state_dict()
    for epochs, moves in (((1, 0), False), ((1, 1), batch_statistics == "learned")):
        head, fine_tuning = ({"epochs": count} for count in epochs)
        network, _ = stages_of(dataset, recipe.replace(head=head, fine_tuning=fine_tuning))
        after = network.state_dict()
        means = [k for k in came if k.startswith("backbone") and k.endswith("running_mean")]
        assert len(means) > 20
        assert all(torch.equal(came[k], after[k]) != moves for k in means)


def test_the_stacked_model_comes_after_both(dataset, tiny):
    _, seen = stages_of(dataset, tiny.replace(head={"epochs": 1}, fine_tuning={"epochs": 1}))
    order = [(modality, stage) for modality, stage, _ in seen]
    assert order == [
        (modality, stage)
        for modality in ("image", "text", "image+text")
        for stage in ("head", "fine-tuning")
    ]


def test_an_interrupted_run_ends_as_one_that_was_not(dataset, tiny, tmp_path):
    recipe = tiny.replace(head={"epochs": 2}, fine_tuning={"epochs": 1})
    _, whole = stages_of(dataset, recipe)
    for finished in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            stages_of(dataset, recipe, tmp_path, stop_after=finished)
    _, resumed = stages_of(dataset, recipe, tmp_path)
    for (modality, stage, expected), (_, _, found) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=f"{modality}, {stage}")


def test_a_stage_interrupted_between_epochs_goes_on_from_its_checkpoint(
    dataset, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr("rhosight.training.loop.CHECKPOINT_SECONDS", 0.0)
    recipe = tiny.replace(modality="image", head={"epochs": 4}, fine_tuning={"epochs": 3})
    _, whole = stages_of(dataset, recipe)
    inputs = inputs_of(dataset)
    targets = dataset.targets[list(recipe.targets)].to_numpy()
    scaler = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    rows = np.arange(len(dataset))
    epochs = []

    def run(interrupt):
        def progress(label, epoch, *_):
            epochs.append((label, epoch))
            if interrupt and label.endswith("fine-tuning") and epoch == 2:
                raise KeyboardInterrupt

        data = TrainingData(inputs, targets, rows[8:], rows[:8], scaler)
        return train(recipe, data, run_dir=tmp_path, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        run(interrupt=True)
    assert (tmp_path / "image-fine-tuning" / "last.ckpt").exists()
    epochs.clear()
    network = run(interrupt=False)
    assert epochs and epochs[0][1] > 1, "the head stage, or the first epoch, was run again"
    with torch.inference_mode():
        found = predict_rows(network, inputs, torch.arange(len(dataset)), recipe).numpy()
    np.testing.assert_array_equal(found * scaler[1] + scaler[0], whole[-1][2])


@pytest.mark.slow
def test_two_processes_share_the_batches_of_fine_tuning(dataset, tmp_path):
    recipe = Recipe(head={"epochs": 1}, fine_tuning={"epochs": 2}, **SMALL)
    _, alone = stages_of(dataset, recipe, tmp_path / "one")
    _, shared = stages_of(dataset, recipe.replace(hardware={"devices": 2}), tmp_path / "two")
    assert [stage[:2] for stage in shared] == [stage[:2] for stage in alone]
    for one, two in zip(alone, shared, strict=True):
        assert two[2].shape == one[2].shape and np.isfinite(two[2]).all()
    np.testing.assert_array_equal(shared[0][2], alone[0][2])  # a head is trained by one process
    for modality in ("image", "text", "image+text"):
        folders = [tmp_path / name / f"{modality}-fine-tuning" for name in ("one", "two")]
        histories = [json.loads((folder / "history.json").read_text()) for folder in folders]
        assert len(histories[0]) == len(histories[1])
        weights = [load_file(folder / "weights.safetensors") for folder in folders]
        assert weights[0].keys() == weights[1].keys()
        # both learned from the same materials, in other company
        one, two = (history[-1]["train"] for history in histories)
        assert 0.5 < two / one < 2, modality
    assert np.abs(shared[1][2] - shared[0][2]).max() > 1e-3


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(dataset, tiny):
    recipe = tiny.replace(modality="text", head={"epochs": 2}, fine_tuning={"epochs": 1})
    torch.manual_seed(1)
    first = stages_of(dataset, recipe)[1][-1][2]
    torch.manual_seed(2)
    np.testing.assert_array_equal(stages_of(dataset, recipe)[1][-1][2], first)
    other = recipe.model_copy(update={"seed": 1})
    assert np.abs(stages_of(dataset, other)[1][-1][2] - first).max() > 1e-3


def test_training_learns():
    """On its own training data a few epochs beat the mean by far, in both stages."""
    dataset = load_dataset("mp-fcc")[:72]
    recipe = Recipe(
        modality="image",
        head={"epochs": 40, "patience": 40},
        fine_tuning={"epochs": 20, "patience": 20},
        **SMALL,
    )
    _, seen = stages_of(dataset, recipe)
    truth = dataset.targets["bulk_modulus_vrh"].to_numpy()[8:]
    known = ~np.isnan(truth)
    spread = np.var(truth[known])
    for _, stage, predicted in seen:
        error = np.mean((predicted[8:, 2][known] - truth[known]) ** 2)
        assert error < 0.5 * spread, stage


def test_turning_leaves_the_centre_and_the_values(dataset):
    canvas = draw_images(dataset.densities[:3], SMALL["image"]["settings"], margin=True).float()
    plain = draw_images(dataset.densities[:3], SMALL["image"]["settings"]).float()
    torch.testing.assert_close(crop_middle(canvas, 48), plain, atol=2e-3, rtol=0)
    turned = turn(canvas, 48, torch.rand(3) * 6, torch.tensor([True, False, True]))
    assert turned.shape == plain.shape
    ring = slice(22, 26)
    torch.testing.assert_close(
        turned[..., ring, ring].mean((-1, -2)), plain[..., ring, ring].mean((-1, -2)),
        atol=0.05, rtol=0,
    )  # fmt: skip


def test_predicting_is_the_same_from_densities_and_from_the_dataset(fitted):
    model, _, test = fitted
    from_dataset = model.predict(test)
    from_densities = model.predict(list(test.densities))
    pd.testing.assert_frame_equal(from_dataset, from_densities, rtol=1e-5)
    assert list(from_dataset.columns) == list(model.recipe.targets)
    assert model.units["bulk_modulus_vrh"] == "GPa"


def test_a_saved_model_predicts_the_same_and_holds_no_pickle(fitted, tmp_path):
    model, _, test = fitted
    model.score(test)
    model.save_pretrained(tmp_path / "model")
    loaded = PropertyModel.from_pretrained(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(test), model.predict(test), rtol=1e-6)
    assert loaded.scores == model.scores and loaded.recipe == model.recipe
    names = [path.name for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {"model.safetensors", "config.json", "README.md"} <= set(names)
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "CC BY 4.0" in card and "GPa" in card and "Materials Project" in card


def test_scoring_on_training_materials_is_refused(fitted):
    model, train_part, _ = fitted
    with pytest.raises(RhosightError, match="are in the training set"):
        model.score(train_part)


def test_a_model_says_which_density_it_misses(fitted):
    model, _, test = fitted
    density = test.densities[0]
    only = type(density)(density.structure, {"difference": density.grid("difference")}, "mine")
    if model.recipe.image.settings.kinds != ("difference",):
        with pytest.raises(RhosightError, match=r"mine: the image needs total"):
            model.predict([only])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "sound"}, "modality"),
        ({"image": {"settings": {"size": 2}}}, "size"),
        ({"head": {"patience": -3}}, "patience"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_wrong_recipe_names_the_field(changes, message):
    with pytest.raises(RhosightError, match=message):
        PropertyModel(**changes)


def test_the_fraction_of_texts_that_is_cut_is_reported(dataset, caplog):
    with caplog.at_level("INFO"):
        make_inputs(
            dataset[["mp-1030", "mp-1022"]], Recipe(modality="text", text={"extent": "all"})
        )
    assert "texts (all): 50.0 % are longer than the 512 tokens" in caplog.text


def test_fitting_goes_on_in_its_folder_and_refuses_that_of_another(dataset, tiny, tmp_path):
    recipe = tiny.replace(modality="text", head={"epochs": 1}, fine_tuning={"epochs": 1})
    model = PropertyModel(recipe)
    epochs = []
    first = model.fit(dataset, tmp_path / "run").predict(dataset)
    again = model.fit(dataset, tmp_path / "run", lambda *step: epochs.append(step))
    pd.testing.assert_frame_equal(again.predict(dataset), first)
    assert not epochs, "finished stages were run again"
    with pytest.raises(RhosightError, match=r"other settings \(recipe differ\)"):
        PropertyModel(recipe.replace(head={"epochs": 2})).fit(dataset, tmp_path / "run")


def test_unknown_and_empty_targets_are_named(dataset):
    with pytest.raises(RhosightError, match="hardness"):
        PropertyModel(modality="text", targets=("hardness",)).fit(dataset)


def test_folders_that_are_no_models_are_refused(tmp_path, fitted):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RhosightError, match="not a rhosight model"):
            PropertyModel.from_pretrained(folder)
    fitted[0].save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(RhosightError, match="not a readable rhosight model"):
        PropertyModel.from_pretrained(tmp_path / "model")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RhosightError, match="not empty"):
        fitted[0].save_pretrained(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("warm_up", [0.1, 0.2])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 30])
def test_the_schedule_fits_any_number_of_steps(steps, warm_up):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([{"params": [weight], "lr": 1e-2}])
    schedule = one_cycle(optimiser, steps, warm_up)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert all(0 < rate <= 1e-2 for rate in rates)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a matter of glibc")
def test_memory_of_a_step_is_used_again():
    """Getting it from the system at each step would take a seventh of the time of training.

    Blocks are aligned, so it takes up to a handful of steps until a freed one fits the next.
    """

    def count_faults(steps):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(steps):
            torch.ones(2**24)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_freed_memory():
        count_faults(20)
        kept = count_faults(10)
    assert kept < 0.2 * count_faults(10)
