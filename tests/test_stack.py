"""More than one grey square: descriptors in the stack, shifts and planes, masked cores."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from rhosight import ChargeDensity, PropertyModel, Recipe, RhosightError, cross_validate, load_model
from rhosight.cli import app
from rhosight.dataset import Dataset
from rhosight.density.free_atoms import promolecule
from rhosight.density.plane import lattice_plane
from rhosight.inputs.descriptors.blocks import compute_block_table, to_blocks
from rhosight.inputs.image import Channel, ImageSettings, density_image, find_core_pixels
from rhosight.inputs.tensors import Inputs, crop_middle, draw_images, turn
from rhosight.models.inputs import make_inputs
from rhosight.networks.modules import build_model
from rhosight.training.stages import TrainingData, train

SMALL = {
    "image": {"settings": ImageSettings(size=32)},
    "text": {"extent": "formula", "element_steps": 0},
    "augmentation": {"views": 2},
    "head": {"epochs": 2},
    "fine_tuning": {"epochs": 1},
    "stacked": {"head_epochs": 1, "fine_tuning_epochs": 1},
}
BLOCKS = ("volume", "prototype", "fractions", "total")


@pytest.fixture(scope="module")
def some(dataset: Dataset) -> Dataset:
    return dataset[:28]


@pytest.fixture(scope="module")
def fitted(some: Dataset) -> PropertyModel:
    return PropertyModel(modality="image", descriptors=BLOCKS, **SMALL).fit(some[:22])


def test_descriptors_are_a_model_of_their_own_and_part_of_the_stack(fitted: PropertyModel):
    assert list(fitted.history) == [
        ("image", "head"),
        ("image", "fine-tuning"),
        ("descriptors", "head"),  # nothing of it is pre-trained, so nothing is fine-tuned
        ("image+descriptors", "head"),
        ("image+descriptors", "fine-tuning"),
    ]
    assert fitted.network.inputs == ("image", "descriptors")
    assert fitted.network.head[0][0].in_features == 2 * 256


def test_all_three_modalities_are_stacked():
    recipe = Recipe(descriptors=("magpie",), **SMALL)
    network = build_model(recipe, columns=132)
    assert network.inputs == ("image", "input_ids", "attention_mask", "descriptors")
    assert network.head[0][0].in_features == 3 * 256
    assert recipe.modalities == ("image", "text", "descriptors", "image+text+descriptors")


def test_the_stack_predicts_the_same_after_saving_and_from_files(
    fitted: PropertyModel, some: Dataset, tmp_path
):
    expected = fitted.predict(some[22:])
    fitted.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(list(some[22:].densities)), expected, rtol=1e-5)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "image+descriptors model" in card and f"descriptors {', '.join(BLOCKS)}" in card


def test_predictions_depend_on_the_descriptors(fitted: PropertyModel, some: Dataset):
    inputs = fitted.read(some[22:])
    other = dataclasses.replace(inputs, descriptors=inputs.descriptors.flip(0))
    assert np.abs(fitted.predict_inputs(other) - fitted.predict_inputs(inputs)).max() > 1e-3


def test_descriptors_are_standardised_by_what_is_learned_from(some: Dataset):
    recipe = Recipe(modality="image", descriptors=("volume",), **SMALL)
    recipe = recipe.replace(
        head={"epochs": 1},
        fine_tuning={"epochs": 0},
        stacked={"head_epochs": 1, "fine_tuning_epochs": 0},
    )
    made = make_inputs(some, recipe)
    watched = torch.arange(len(some)) < 8
    # like a structure type that only watched materials have
    numbers = torch.cat([made.descriptors, watched[:, None].float()], dim=1)
    inputs = dataclasses.replace(made, descriptors=numbers, linear=torch.tensor([False, True]))
    targets = some.targets[list(recipe.targets)].to_numpy()
    scaler = np.nanmean(targets, axis=0), np.nanstd(targets, axis=0)
    rows = np.arange(len(some))

    def learned(inputs: Inputs):
        network = train(recipe, TrainingData(inputs, targets, rows[8:], rows[:8], scaler))
        return network.descriptors.backbone

    scaling = learned(inputs)
    changed = numbers.clone()
    changed[:8] += 100.0
    again = learned(dataclasses.replace(inputs, descriptors=changed))
    for name, values in scaling.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], values, rtol=0, atol=0)
    scaled = scaling(numbers)
    assert abs(float(scaled[8:, 0].mean())) < 0.05
    assert float(scaled[8:, 0].std()) == pytest.approx(1, abs=0.1)
    assert (scaled[:, 1] == 0).all()  # it says nothing of what was learned
    assert float(scaling(changed).abs().max()) == 5


def test_a_material_of_an_unknown_structure_type_is_none_of_the_known(some: Dataset):
    table = compute_block_table(some.structures, ["prototype"])
    known = sorted(set(table["prototype"]))[1:]
    encoded = to_blocks(table, known)["prototype"]
    assert (encoded.sum(axis=1) == table["prototype"].isin(known)).all()


def test_the_command_line_names_the_blocks(dataset: Dataset, tmp_path):
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
    dataset[:16].to_parquet(data)
    command = ["train", str(data), "--modality", "image", "--recipe-file", str(recipe)]
    command += ["--test-fraction", "0", "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--descriptors", "volume", "--descriptors", "total"])
    assert done.exit_code == 0, done.output
    about = json.loads((out / "config.json").read_text())["recipe"]
    assert about["descriptors"] == ["volume", "total"]
    with pytest.raises(RhosightError, match="no block is called 'charm'"):
        CliRunner().invoke(app, [*command, "--descriptors", "charm"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"descriptors": ("charm",)}, "no block is called 'charm'"),
        ({"descriptors": ("volume",), "modality": "clip"}, "not clip"),
        ({"augmentation": {"shift": 0.1, "enabled": False}}, "augment"),
        ({"augmentation": {"parallel": (0.5,), "enabled": False}}, "augment"),
        (
            {
                "augmentation": {"shift": 0.1},
                "image": {"settings": ImageSettings.paper(fourier=True)},
            },
            "Fourier",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(RhosightError, match=message):
        PropertyModel(**changes)


def test_a_shift_by_a_lattice_vector_of_the_plane_changes_nothing(few: Dataset):
    density = few["mp-149"].density
    plane = lattice_plane(density.structure)
    period = plane.lattice_scale / np.sqrt(
        2
    )  # the shortest lattice vector of a {111} plane, along x
    narrow, wide = (Channel(kind="total", window=n * period) for n in (2, 4))
    settings = ImageSettings(size=32, channels=(narrow, narrow, wide))
    inputs = Inputs(
        draw_images([density], settings, True, dtype=torch.float32, shift=0.5),
        32,
        shift=16.0,
        steps=settings.steps,
    )
    assert settings.steps == (1.0, 1.0, 0.5)
    plain = inputs.batch(["image"], torch.tensor([0]))[0]
    still, same = torch.zeros(1), torch.tensor([False])
    for pixels, channel in ((16.0, 0), (8.0, 2)):  # of the same length in Å
        moved = turn(inputs.canvas[:, [channel]], 32, still, same, torch.tensor([[pixels, 0.0]]))
        torch.testing.assert_close(moved[:, 0], plain[:, channel], atol=1e-3, rtol=0)
    half = turn(inputs.canvas[:, [0]], 32, still, same, torch.tensor([[8.0, 0.0]]))
    assert (half[:, 0] - plain[:, 0]).abs().max() > 0.1


def test_augmentation_moves_all_channels_by_one_length(few: Dataset):
    """Two channels of the same window stay the same picture, one of twice the width moves half."""
    settings = ImageSettings(
        size=32, channels=[{"kind": "total", "window": w} for w in (4, 4, 8)], colour="channels"
    )
    canvas = draw_images(few.densities, settings, True, shift=0.25)
    inputs = Inputs(canvas, 32, shift=8.0, steps=settings.steps)
    rows = torch.arange(len(few))
    torch.manual_seed(0)
    drawn = inputs.batch(["image"], rows, augment=True)[0]
    torch.testing.assert_close(drawn[:, 0], drawn[:, 1])
    # the middle of the wide window is the narrow one, however both were turned and moved
    coarse = torch.nn.functional.avg_pool2d(drawn[:, 0], 2)
    torch.testing.assert_close(drawn[:, 2, 8:24, 8:24], coarse, atol=0.15, rtol=0)
    torch.manual_seed(0)
    still = dataclasses.replace(inputs, shift=0.0).batch(["image"], rows, augment=True)[0]
    assert (drawn - still).abs().max() > 0.2


def test_parallel_planes_are_views_and_augmentation(few: Dataset):
    """Three spacings up, an F-cubic crystal has the same plane; half a spacing up, another."""
    recipe = Recipe(modality="image", **SMALL).replace(augmentation={"parallel": (3.0, 0.5)})
    cubic = few[["mp-149"]]
    inputs = make_inputs(cubic, recipe, dtype=torch.float32)
    torch.testing.assert_close(inputs.parallel[0], inputs.canvas, atol=2e-3, rtol=0)
    assert (inputs.parallel[1] - inputs.canvas).abs().max() > 0.1
    rows = torch.zeros(40, dtype=torch.long)
    alone = dataclasses.replace(inputs, parallel=None)
    for view, other in ((1, inputs.parallel[0]), (2, inputs.parallel[1]), (3, inputs.canvas)):
        expected = dataclasses.replace(alone, canvas=other).batch(["image"], rows[:1], view=view)
        found = inputs.batch(["image"], rows[:1], view=view)
        torch.testing.assert_close(found[0], expected[0])
    drawn = inputs.batch(["image"], rows, augment=True)[0]
    centres = {round(float(value), 1) for value in drawn[:, 0, 15:17, 15:17].mean((-1, -2))}
    assert len(centres) == 2  # the planes 0 and 3 look alike in the centre, ½ does not


def test_without_shift_and_planes_augmentation_is_the_turn_alone(few: Dataset):
    settings = ImageSettings(size=32)
    inputs = Inputs(draw_images(few.densities, settings, True), 32)
    rows = torch.arange(len(few))
    torch.manual_seed(3)
    found = inputs.batch(["image"], rows, augment=True)[0]
    torch.manual_seed(3)
    angle, mirror = 2 * np.pi * torch.rand(len(few)), torch.rand(len(few)) < 0.5
    assert torch.equal(found, turn(inputs.canvas.float(), 32, angle, mirror))
    torch.testing.assert_close(
        inputs.batch(["image"], rows)[0], crop_middle(inputs.canvas.float(), 32), rtol=0, atol=0
    )


@pytest.mark.parametrize("material_id", ["mp-149", "mp-1002206", "mp-21075"])
def test_a_masked_image_does_not_see_what_a_code_writes_at_the_nuclei(
    few: Dataset, material_id: str
):
    """GPAW's pseudo-density has smooth cores; codes that write the valence alone have none."""
    density = few[material_id].density
    structure, shape = density.structure, density.shape
    cores = promolecule(structure, shape, core=True) - promolecule(structure, shape, core=False)
    total = density.grid("total")
    other = ChargeDensity(structure, {"total": total - cores}, "valence alone")
    settings = ImageSettings(size=64)
    masked = settings.model_copy(update={"core": "mask"})

    def apart(settings: ImageSettings) -> float:
        return float(
            np.abs(density_image(density, settings) - density_image(other, settings)).max()
        )

    plain = apart(settings)
    assert plain > 0.1  # of the image's [-1, 1]
    assert apart(masked) < 0.05 * plain
    # and yet it is an image
    assert density_image(density, masked).std() > 0.1


def test_the_mask_covers_spheres_of_the_elements_covalent_radii(few: Dataset):
    """Silicon, 1.11 Å (Cordero 2008): circles on the plane, smaller ones above it."""
    density = few["mp-149"].density
    plane = lattice_plane(density.structure)
    window, size = 1.7, 300
    for height in (0.0, 0.6, 0.9):
        offset = height / plane.spacing
        # no other atom is so near the axis of this window that its sphere reaches it
        inside = find_core_pixels(density, Channel(window=window, offset=offset), size, 0.7, plane)
        area = np.pi * max(0.0, (0.7 * 1.11) ** 2 - height**2)
        assert inside.sum() * (window / size) ** 2 == pytest.approx(area, rel=0.02)


def test_a_padded_masked_image_is_the_image_in_its_middle(few: Dataset):
    settings = ImageSettings(size=32, core="mask")
    padded = density_image(few[0].density, settings, pad=7)
    np.testing.assert_allclose(
        padded[:, 7:-7, 7:-7], density_image(few[0].density, settings), atol=1e-6
    )


@pytest.mark.slow
def test_cross_validation_shows_the_parts_and_the_stack(some: Dataset):
    recipe = Recipe(modality="image", descriptors=("volume", "prototype"), **SMALL)
    result = cross_validate(some, recipe, n_splits=3, only_folds=1)
    table = result.summary()
    shown = [(model, stage) for target, model, stage in table.index if target == "efermi"]
    assert shown[-5:] == [
        ("image", "head"),
        ("image", "fine-tuning"),
        ("descriptors", "head"),
        ("image+descriptors", "head"),
        ("image+descriptors", "fine-tuning"),
    ]
    assert table["validation"]["rmse"].notna().all()
