"""The groups of a recipe, changes to them, and the flat form that jobs are named by."""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rhosight import Recipe, RhosightError, load_recipe
from rhosight.experiments.jobs import RESULT, JobFolder
from rhosight.experiments.plan import Plan
from rhosight.experiments.presets import get_preset
from rhosight.inputs.image import ImageSettings
from rhosight.models.loading import MODELS, model_for
from rhosight.networks.flat import FLAT_FIELDS, nest_fields
from rhosight.networks.presets import recipe_names
from rhosight.training.seeds import combine_seeds

FLAT_SHA256 = "9f9a4c0fc1ef2ebb54b6466e3788ea64afc4520c1203eb75b51fca5745f43561"
"""Of the flat forms of all named recipes, as they were when recipes had no groups."""

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "jobs"


def test_a_change_to_a_group_keeps_its_other_fields():
    recipe = load_recipe("quick", head={"epochs": 5}, image={"settings": {"size": 64}})
    quick = load_recipe("quick")
    assert recipe.head == quick.head.model_copy(update={"epochs": 5})
    assert recipe.image.settings == ImageSettings(size=64)
    assert recipe.replace(head={"epochs": 40}, image=quick.image) == quick
    assert recipe.fine_tuning.epochs == quick.fine_tuning.epochs == 6


def test_settings_replace_a_group():
    paper = load_recipe("paper-image", image={"settings": ImageSettings(size=64)})
    assert paper.image.settings == ImageSettings(size=64)
    assert paper.image.backbone == "inception_v3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"epoch": 5}}, "recipe: head.epoch: Extra inputs are not permitted"),
        ({"epochs": (5, 5)}, "recipe: epochs: Extra inputs are not permitted"),
        ({"fine_tuning": {"batch_size": 0}}, "recipe: fine_tuning.batch_size: Input should be"),
        ({"image": {"settings": {"size": 2}}}, "recipe: image.settings.size: "),
    ],
)
def test_a_wrong_change_names_its_path(changes, message):
    with pytest.raises(RhosightError, match=message):
        load_recipe("quick", **changes)


def test_the_flat_form_of_named_recipes_stays():
    flat = {name: load_recipe(name).flat() for name in recipe_names()}
    # a field that came later, where it is not what it was before
    later = {name: fields.pop("keep_start", False) for name, fields in flat.items()}
    assert [name for name, value in later.items() if value] == ["default", "quick"]
    text = json.dumps(flat, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == FLAT_SHA256


def test_every_recipe_comes_back_from_its_flat_form():
    for name in recipe_names():
        recipe = load_recipe(name)
        assert Recipe.from_flat(recipe.flat()) == recipe
        assert Recipe.from_flat(recipe.flat(exclude_none=True)) == recipe
    assert [*Recipe().flat(), "keep_start"] == sorted(
        FLAT_FIELDS, key=lambda name: (name == "keep_start", list(FLAT_FIELDS).index(name))
    )
    assert Recipe.from_flat({"epochs": [3, 2]}).epochs() == (3, 2)


@pytest.mark.parametrize("flat", [{"epochs": 3}, {"epochs": [1, 2, 3]}, {"epoch": 3}])
def test_a_wrong_flat_form_is_refused(flat):
    with pytest.raises((ValueError, TypeError)):
        Recipe.from_flat(flat)
    assert nest_fields({"epoch": 3}) == {"epoch": 3}


def test_finished_jobs_of_the_results_are_recognised(dataset, tmp_path):
    folder = JobFolder(tmp_path)
    for file in RESULTS.glob("repeat-*.parquet"):
        for name, about in json.loads(pq.read_schema(file).metadata[b"rhosight.jobs"]).items():
            path = folder.folder / name
            path.mkdir()
            (path / "job.json").write_text(json.dumps(about["job"]))
            (path / RESULT).touch()
    plan = Plan.of(dataset, get_preset("offline"), repeats=5)
    entries = [*plan.stacked(), *plan.clip(), *plan.clip(fourier=True), *plan.baselines()]
    assert len({entry.job.name for entry in entries}) > 500
    assert not [entry.job.name for entry in entries if not folder.is_finished(entry.job)]


def test_a_recipe_maps_to_its_model():
    for name, (kind, label) in {
        "best": ("descriptors", "descriptors"),
        "quick": ("network", "image+text"),
    }.items():
        recipe = load_recipe(name)
        model = model_for(recipe)
        assert (model.kind, recipe.label) == (kind, label) and model.recipe == recipe
        assert type(model) is MODELS[kind].load()
    assert model_for(load_recipe("quick"), members=3).members == 3
    with pytest.raises(RhosightError, match="an ensemble is made of networks"):
        model_for(load_recipe("best"), members=3)


def test_seeds_are_the_same_on_every_machine():
    assert combine_seeds(0, 3) == -4734289103435588629
    assert combine_seeds(5, 100, 2) == -286489571085205466
    assert combine_seeds(combine_seeds(0, 3), 1) == 4522145616471844042
