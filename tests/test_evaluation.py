"""Cross-validation on real data: the same folds for all, nothing leaks, runs resume."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score as sklearn_r2

from rhosight import Recipe, RhosightError, cross_validate, load_dataset, load_recipe
from rhosight.dataset import Dataset, folds, split
from rhosight.density import ChargeDensity
from rhosight.evaluation.report import write_report
from rhosight.inputs.image import ImageSettings
from rhosight.models.baselines.baselines import BASELINES, COMPARED, PRETRAINED
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DESCRIPTOR_RECIPES, DescriptorRecipe
from rhosight.models.provenance import hash_weights
from rhosight.storage import open_run

pytestmark = pytest.mark.usefixtures("small_forests")


@pytest.fixture(scope="module")
def recipe(checkpoints):
    """Return a recipe of tiny encoders: scores are compared, not judged."""
    size = ImageSettings().model_copy(update={"size": 48})
    return Recipe(
        image={"backbone": checkpoints["image"], "settings": size},
        text={"backbone": checkpoints["text"], "extent": "formula", "element_steps": 0},
        head={"epochs": 2},
        fine_tuning={"epochs": 1},
        stacked={"head_epochs": 1, "fine_tuning_epochs": 1},
        augmentation={"views": 2},
    )


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("mp-fcc")[:44]


@pytest.fixture(scope="module")
def run(dataset, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return cross_validate(dataset, recipe, run_dir=folder, n_splits=3, only_folds=2), folder


def test_every_model_and_baseline_is_scored_on_the_same_materials(run):
    result, _ = run
    keys = ["fold", "part", "target"]
    seen = result.predictions.groupby([*keys, "model", "stage"])["material_id"].agg(frozenset)
    for _, sets in seen.groupby(keys):
        assert sets.nunique() == 1
    stages = set(seen.index.droplevel(keys))
    trained = {(m, s) for m in ("image", "text", "image+text") for s in ("head", "fine-tuning")}
    assert stages == trained | {(name, "") for name in (*BASELINES, *COMPARED, *DESCRIPTOR_RECIPES)}


def test_the_parts_do_not_share_a_formula_and_the_test_part_is_the_split(run, dataset):
    result, _ = run
    formula = dataset.table["formula"]
    _, test = split(dataset)
    for _, frame in result.predictions.groupby("fold"):
        parts = frame.groupby("part")["material_id"].agg(lambda ids: set(formula[list(set(ids))]))
        assert not parts["train"] & parts["validation"]
        assert not parts["test"] & (parts["train"] | parts["validation"])
        found = set(frame.loc[frame["part"] == "test", "material_id"])
        assert found <= {dataset.ids[i] for i in test}


def test_predictions_are_compared_with_the_labels_and_masked_ones_left_out(run, dataset):
    result, _ = run
    frame = result.predictions
    labels = frame.apply(lambda row: dataset.targets.at[row["material_id"], row["target"]], axis=1)
    np.testing.assert_array_equal(labels, frame["true"])
    assert not frame["true"].isna().any()
    masked = set(dataset.masked["material_id"])
    assert masked and not masked & set(frame.loc[frame.target == "bulk_modulus_vrh", "material_id"])


def test_scores_are_scikit_learns(run):
    result, _ = run
    scores = result.scores.set_index(["model", "stage", "target", "part", "fold"])
    one = ("density", "", "bulk_modulus_vrh", "validation", 1)
    where = np.logical_and.reduce(
        [
            result.predictions[name] == value
            for name, value in zip(scores.index.names, one, strict=True)
        ]
    )
    frame = result.predictions[where]
    assert scores.loc[one, "r2"] == pytest.approx(sklearn_r2(frame["true"], frame["predicted"]))
    error = np.sqrt(np.mean((frame["true"] - frame["predicted"]) ** 2))
    assert scores.loc[one, "rmse"] == pytest.approx(error)


def test_the_summary_is_mean_and_deviation_over_folds(run, recipe):
    result, _ = run
    row = result.summary().loc[("efermi", "image", "fine-tuning")]
    scores = result.scores.query(
        "target == 'efermi' and model == 'image' and stage == 'fine-tuning' and part == 'test'"
    )
    assert row["test", "rmse"] == pytest.approx(scores["rmse"].mean())
    assert row["test", "rmse_std"] == pytest.approx(scores["rmse"].std(ddof=1))
    assert list(dict.fromkeys(result.summary().index.get_level_values(0))) == list(recipe.targets)


def test_a_result_shows_its_scores(run):
    result, _ = run
    text = repr(result)
    assert text.startswith("Cross-validation on mp-fcc, 2 of 3 folds\nimage+text, fine-tuning:\n")
    rmse = result.rmse("image+text", "fine-tuning", "test")["efermi"]
    assert f"/ {rmse:.4g} ±" in text and "efermi (eV)" in text and "density" not in text
    page = result._repr_html_()
    assert page.count("<tr") == 1 + len(result.summary()) and f"/ {rmse:.4g} ±" in page


def test_the_mean_baseline_is_the_mean_of_the_training_labels_only(run):
    result, _ = run
    mean = result.predictions.query("model == 'mean' and target == 'efermi' and fold == 0")
    train = mean.loc[mean["part"] == "train", "true"]
    np.testing.assert_allclose(mean["predicted"], train.mean())


def test_a_finished_run_is_not_run_again_and_one_more_fold_is_added(run, dataset, recipe):
    result, folder = run
    marks = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert len(marks) == 4
    again = cross_validate(dataset, recipe, run_dir=folder, n_splits=3, only_folds=2)
    pd.testing.assert_frame_equal(again.predictions, result.predictions)
    assert marks == {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert not list(folder.rglob("*.safetensors")), "weights of scored folds are left behind"


def test_a_folder_of_another_run_is_refused(run, dataset, recipe, tmp_path):
    _, folder = run
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(RhosightError, match=r"other settings \(recipe differ\)"):
        cross_validate(dataset, other, run_dir=folder, n_splits=3)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RhosightError, match="not a run"):
        cross_validate(dataset, recipe, run_dir=tmp_path)


def test_the_papers_stopping_watches_the_validation_fold(dataset, recipe):
    recipe = recipe.replace(
        training={"early_stopping": "validation"}, modality="text", augmentation={"views": 1}
    )
    result = cross_validate(dataset, recipe, n_splits=3, only_folds=1)
    last = result.history.query("stage == 'fine-tuning'")["watched"].min()
    frame = result.predictions.query("model == 'text' and stage == 'fine-tuning'")
    train_rows, _ = folds(dataset, 3, indices=split(dataset)[0])[0]
    train = dataset[train_rows].targets
    frame = frame[frame["part"] == "validation"]
    scaled = (frame["true"] - frame["predicted"]) / frame["target"].map(train.std(ddof=0))
    huber = np.where(scaled.abs() < 1, scaled**2 / 2, scaled.abs() - 0.5).mean()
    assert huber == pytest.approx(last, rel=1e-3)


def test_a_descriptor_recipe_trains_no_network(dataset, tmp_path):
    best = DescriptorRecipe(targets=("efermi",))
    result = cross_validate(dataset, best, run_dir=tmp_path / "run", n_splits=3, only_folds=1)
    assert result.final == ("best", "") and result.history.empty
    models = {*BASELINES, *PRETRAINED, *DESCRIPTOR_RECIPES}
    assert set(result.predictions["model"]) == models

    rows, validation = folds(dataset, 3, indices=split(dataset)[0])[0]
    model = DescriptorModel(best).fit(dataset[rows])
    frame = result.predictions.query("model == 'best' and part == 'validation'")
    expected = model.predict(dataset[validation])["efermi"][frame["material_id"]]
    np.testing.assert_allclose(frame["predicted"], expected, rtol=1e-6)

    again = cross_validate(dataset, best, run_dir=tmp_path / "run", n_splits=3, only_folds=1)
    pd.testing.assert_frame_equal(again.predictions, result.predictions)

    page = write_report(result, dataset, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No network was trained" in page and "Learning curves" not in page
    assert "<h1>Predicting Fermi energy from descriptors of crystal and density</h1>" in page


def test_another_descriptor_recipe_has_a_row_of_its_own(dataset):
    own = DescriptorRecipe(targets=("efermi",), kernels=(Kernel(together=("magpie",)),))
    result = cross_validate(dataset, own, n_splits=3, only_folds=1)
    assert result.final == ("custom", "")
    errors = result.scores.query("part == 'validation'").set_index("model")["rmse"]
    assert errors["custom"] > errors["best"], "composition alone is not as good as all blocks"


def test_a_run_knows_what_it_is_and_the_weights_that_it_began_with(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"one")
    recipe = Recipe(modality="text", text={"backbone": str(tmp_path / "encoder")})
    began = {"weights": hash_weights(recipe.weight_sources)}
    open_run(tmp_path / "run", began)
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"another")
    with pytest.raises(RhosightError, match=r"other settings \(weights differ\)"):
        open_run(tmp_path / "run", {"weights": hash_weights(recipe.weight_sources)})
    with pytest.raises(RhosightError, match=r"other settings \(task differ\)"):
        open_run(tmp_path / "run", began | {"task": "pretrain"})
    with pytest.raises(RhosightError, match=r"other settings \(weights differ\)"):
        open_run(tmp_path / "run", {})


def test_labels_that_a_fold_cannot_learn_from(dataset):
    labels = dataset.targets.assign(rare=np.nan)
    labels.loc[dataset.ids[:2], "rare"] = [1.0, 1.0]
    few = Dataset.from_densities(list(dataset.densities[:30]), labels[:30])
    recipe = Recipe(modality="text", targets=("efermi", "rare"))
    with pytest.raises(RhosightError, match=r"of 2 labels of `rare`, the training set of fold 1"):
        cross_validate(few, recipe, n_splits=2)
    with pytest.raises(RhosightError, match="leave the target out"):
        DescriptorModel(DescriptorRecipe(targets=("efermi", "rare"))).fit(few)
    with pytest.raises(RhosightError, match="fine_tuning_epochs are 0: nothing would be trained"):
        cross_validate(
            few, Recipe(targets=("efermi",), stacked={"head_epochs": 0, "fine_tuning_epochs": 0})
        )


def test_rows_that_the_densities_do_not_allow_are_left_out(dataset, caplog):
    """`total` alone: no promolecule; a recipe without density is scored all the same."""
    totals = [
        ChargeDensity(d.structure, {"total": d.grid("total")}, d.name)
        for d in dataset.densities[::10]
    ]
    recipe = load_recipe("no-dft", targets=("efermi",))
    found = cross_validate(
        Dataset.from_densities(totals, dataset.targets), recipe, n_splits=2, only_folds=1
    )
    models = set(found.predictions["model"])
    assert {"no-dft", "composition", "density"} <= models and "promolecule" not in models
    assert "baseline promolecule is omitted" in caplog.text


def test_unknown_targets_are_named(dataset):
    with pytest.raises(RhosightError, match="toughness"):
        cross_validate(dataset, Recipe(targets=("toughness",)))
