"""Sweeps: search spaces, the objective within the training set, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

from rhosight import PropertyModel, RhosightError, load_model, load_recipe, split
from rhosight.cli import app
from rhosight.dataset import Dataset, folds
from rhosight.evaluation.tuning.space import SPACES, SearchSpace
from rhosight.evaluation.tuning.sweep import sweep
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

pytestmark = pytest.mark.usefixtures("small_forests")

QUICK = {
    "modality": "text",
    "text": {"extent": "formula", "element_steps": 0},
    "head": {"epochs": 3},
    "fine_tuning": {"epochs": 0},
    "augmentation": {"views": 1, "enabled": False},
    "targets": ["formation_energy_per_atom", "bulk_modulus_vrh"],
}
CONTENT = {
    "changes": QUICK,
    "parameters": {
        "rate": {"low": 1e-6, "high": 1e-1, "log": True, "fields": ["head.learning_rate"]},
        "dropout": {"low": 0.0, "high": 0.6, "fields": ["training.dropout"]},
        "batch": {"choices": {"small": 8, "large": 16}, "fields": ["head.batch_size"]},
    },
    "first": [
        {"rate": 1e-6, "dropout": 0.5, "batch": "large"},
        {"rate": 1e-3, "dropout": 0.1, "batch": "small"},
    ],
}
SPACE = SearchSpace.model_validate(CONTENT)
FOLDS = 2


@pytest.fixture(scope="module")
def some(dataset: Dataset) -> Dataset:
    return dataset[::7]


@pytest.fixture(scope="module")
def found(some: Dataset, tmp_path_factory):
    return sweep(some, SPACE, tmp_path_factory.mktemp("sweep") / "run", 5, FOLDS)


def results(found) -> pd.DataFrame:
    return found.trials.drop(columns="seconds").set_index("number").sort_index()


# search spaces


@pytest.mark.parametrize("table", [2, 3])
def test_the_papers_trials_come_first(table):
    space = SearchSpace.from_name(f"paper-table{table}")
    trials = [space.make_recipe(values) for values in space.first]
    assert trials == [load_recipe(f"paper-table{table}-T{number}") for number in range(1, 6)]


def test_our_spaces_begin_with_our_recipes():
    assert set(SPACES) == {"network", "best", "paper-table2", "paper-table3"}
    for name, recipe in {"network": load_recipe("default"), "best": DescriptorRecipe()}.items():
        space = SearchSpace.from_name(name)
        assert space.make_recipe(space.first[0]) == recipe


def test_a_parameter_sets_its_fields():
    recipe = SPACE.make_recipe({"rate": 0.02, "dropout": 0.3, "batch": "small"})
    assert (recipe.head.learning_rate, recipe.fine_tuning) == (
        0.02,
        load_recipe("default", **QUICK).fine_tuning,
    )
    assert (recipe.training.dropout, recipe.head.batch_size, recipe.epochs()) == (0.3, 8, (3, 0))
    assert SPACE.with_targets(("efermi",)).make_recipe({}).targets == ("efermi",)


def _only(name: str, low: float, high: float) -> dict:
    return {"parameters": {name: {"low": low, "high": high}}, "first": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": {}}, "parameters: Dictionary should have at least 1 item"),
        ({"parametres": {}}, "parametres: Extra inputs are not permitted"),
        ({"recipe": "bset"}, "no recipe is called 'bset'"),
        (
            {"parameters": {"dropuot": {"low": 0, "high": 0.5}}, "first": []},
            "dropuot: the recipe has no such field",
        ),
        (
            {"parameters": {"head.epoch": {"low": 1, "high": 5}}, "first": []},
            "head.epoch: the recipe has no such field",
        ),
        (
            {"parameters": {"training.dropout": {"low": 0, "high": 3}}, "first": []},
            "training.dropout: Input should be",
        ),
        (
            {"parameters": {"dropout": {"low": 0.5, "high": 0.1}}, "first": []},
            r"low \(0.5\) must be less than high",
        ),
        ({"first": [{"rate": 1e-3}]}, "one value for each parameter; see batch, dropout"),
        ({"first": [{"rate": 1, "dropout": 0, "batch": "large"}]}, "rate: 1 is outside the range"),
        ({"first": [{"rate": 0.1, "dropout": 0, "batch": 8}]}, "batch: 8 is outside the range"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(change, message, tmp_path):
    path = tmp_path / "space.json"
    path.write_text(json.dumps(CONTENT | change))
    with pytest.raises(RhosightError, match=rf"space.json: .*{message}"):
        SearchSpace.from_json(path)


def test_what_is_no_space_is_an_error(tmp_path):
    with pytest.raises(RhosightError, match="'table2'; choose from network, best, paper-table2"):
        SearchSpace.from_name("table2")
    (tmp_path / "space.json").write_text("{")
    with pytest.raises(RhosightError, match=r"space.json: cannot be read as a search space"):
        SearchSpace.from_json(tmp_path / "space.json")


# sweeps


def test_a_hopeless_trial_is_given_up_after_a_fold(some: Dataset, tmp_path):
    """Five trials learn; the sixth, far too fast, is worse than their median at once."""
    drops = (0.0, 0.02, 0.04, 0.06, 0.08)
    first = [{"rate": 1e-3, "dropout": drop, "batch": "small"} for drop in drops]
    first.append({"rate": 1e-1, "dropout": 0.0, "batch": "large"})
    space = SearchSpace.model_validate(CONTENT | {"first": first})
    table = sweep(some, space, tmp_path / "run", 6, FOLDS).trials.set_index("number").sort_index()
    assert table["state"].to_list() == ["complete"] * 5 + ["pruned"]
    assert table["folds"].to_list() == [FOLDS] * 5 + [1]


def test_the_first_trials_are_the_spaces(found):
    table = results(found)
    assert len(table) == 5 and list(table.index) == list(range(5))
    for number, values in enumerate(SPACE.first):
        assert table.loc[number, ["rate", "dropout", "batch"]].to_dict() == values
    assert table["dropout"].between(0, 0.6).all() and table["dropout"].nunique() == 5


def test_a_trial_is_scored_like_models_trained_on_the_folds(found, some):
    """In standard deviations of each fold's training labels, on its validation set.

    Features that were computed in other batches differ in their last digits. Training amplifies
    that to 5e-7, and at a rate of 1e-2 to 3e-3; the spread of the validation set as scale makes
    7e-3 and more.
    """
    table, recipe = results(found), SPACE.make_recipe(SPACE.first[1])
    errors, otherwise = [], []
    for train, validation in folds(some, FOLDS, indices=split(some)[0]):
        model = PropertyModel(recipe).fit(some[train])
        labels = some[validation].targets[list(recipe.targets)]
        scale = some[train].targets[list(recipe.targets)].std(ddof=0)
        misses = (model.predict(some[validation]) - labels) / scale
        errors.append((misses**2).mean() ** 0.5)
        otherwise.append((misses**2).mean() ** 0.5 * scale / labels.std(ddof=0))
    expected, other = pd.DataFrame(errors).mean(), pd.DataFrame(otherwise).mean()
    for target in recipe.targets:
        assert table.loc[1, f"rmse of {target}"] == pytest.approx(expected[target], rel=1e-4)
        assert other[target] != pytest.approx(expected[target], rel=1e-3)
    assert table.loc[1, "rmse"] == pytest.approx(expected.mean(), rel=1e-4)
    assert table.loc[1, "folds"] == FOLDS


def test_labels_of_the_test_set_are_not_used(found, some, tmp_path):
    _, test = split(some)
    labels = some.targets.copy()
    labels.iloc[test] = 1e6
    other = Dataset.from_densities(list(some.densities), labels)
    assert split(other)[1].tolist() == test.tolist()
    again = sweep(other, SPACE, tmp_path / "run", 2, FOLDS)
    pd.testing.assert_frame_equal(results(again), results(found).loc[:1])


def test_finished_trials_are_never_run_again(found, some):
    files = {path: path.stat().st_mtime_ns for path in found.folder.iterdir()}
    again = sweep(some, SPACE, found.folder, 5, FOLDS)
    pd.testing.assert_frame_equal(again.trials, found.trials)
    written = {path for path in files if path.stat().st_mtime_ns != files[path]}
    assert not {path for path in written if path.suffix != ".db"}
    with pytest.raises(RhosightError, match=r"other settings \(seed differ\)"):
        sweep(some, SPACE, found.folder, 5, FOLDS, seed=1)


def test_in_two_parts_it_is_the_same_sweep(found, some, tmp_path):
    sweep(some, SPACE, tmp_path / "run", 3, FOLDS)
    written = {path.name: path.read_bytes() for path in tmp_path.glob("run/*.*")}
    whole = sweep(some, SPACE, tmp_path / "run", 5, FOLDS)
    pd.testing.assert_frame_equal(results(whole), results(found))
    # killed after the last trial, before files were written
    best, trials = (tmp_path / "run" / name for name in ("best-recipe.json", "trials.csv"))
    ended = best.read_bytes(), trials.read_bytes()
    for path in (best, trials):
        path.write_bytes(written[path.name])
    sweep(some, SPACE, tmp_path / "run", 5, FOLDS)
    assert (best.read_bytes(), trials.read_bytes()) == ended
    assert trials.read_bytes() != written["trials.csv"]


@pytest.mark.slow
def test_what_a_network_reads_may_vary(some, checkpoints, tmp_path):
    """Tokens, planes and descriptors are made anew for a trial that reads others."""
    parameters = {
        "max_tokens": {"choices": [4, 16], "fields": ["text.max_tokens"]},
        "descriptors": {"choices": {"none": [], "known": ["magpie", "prototype"]}},
    }
    first = [
        {"max_tokens": 4, "descriptors": "none"},
        {"max_tokens": 16, "descriptors": "known"},
    ]
    changes = QUICK | {
        "text": {"backbone": checkpoints["text"], "extent": "keywords", "element_steps": 0},
        "head": {"epochs": 1},
        "fine_tuning": {"epochs": 0},
    }
    space = SearchSpace.model_validate(
        {"changes": changes, "parameters": parameters, "first": first}
    )
    swept = results(sweep(some, space, tmp_path / "run", 2, FOLDS))
    for values, (_, row) in zip(first, swept.iterrows(), strict=True):
        alone = SearchSpace.model_validate(
            {"changes": changes, "parameters": parameters, "first": [values]}
        )
        again = results(sweep(some, alone, tmp_path / values["descriptors"], 1, FOLDS))
        assert again.loc[0, "rmse"] == pytest.approx(row["rmse"], rel=1e-6)


def test_the_folder_holds_table_figures_and_a_recipe(found, some, tmp_path):
    folder = found.folder
    table = pd.read_csv(folder / "trials.csv")
    pd.testing.assert_frame_equal(table, found.trials, check_dtype=False)
    assert (table["rmse"].dropna().diff().dropna() >= 0).all()
    for stem in ("parallel-coordinates", "importances"):
        assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (folder / f"{stem}.svg").read_text()
    some.to_parquet(tmp_path / "some.parquet")
    arguments = ["train", str(tmp_path / "some.parquet"), "--out", str(tmp_path / "model")]
    arguments += ["--recipe-file", str(folder / "best-recipe.json")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "model").recipe == found.recipe


def test_training_without_a_finite_loss_is_given_up(some, tmp_path):
    wild = {"rate": {"choices": [1e30, 1e-3], "fields": ["head.learning_rate"]}}
    changes = QUICK | {"training": {"schedule": "constant"}}
    space = SearchSpace(changes=changes, parameters=wild, first=({"rate": 1e30}, {"rate": 1e-3}))
    table = results(sweep(some, space, tmp_path / "run", 2, FOLDS))
    assert table["state"].to_list() == ["pruned", "complete"]


def test_a_descriptor_recipe(some, tmp_path):
    lean, rich = ([{"together": blocks}] for blocks in (["volume"], ["volume", "fractions"]))
    parameters = {"kernels": {"choices": {"lean": lean, "rich": rich}}}
    first = ({"kernels": "lean"}, {"kernels": "rich"})
    space = SearchSpace(
        recipe="no-dft", changes={"targets": ["efermi"]}, parameters=parameters, first=first
    )
    found = sweep(some, space, tmp_path / "run", 3, FOLDS)
    assert len(found.trials) == 3 and found.trials["rmse"].nunique() == 2
    assert isinstance(found.recipe, DescriptorRecipe)
    file = tmp_path / "run" / "best-recipe.json"
    some.to_parquet(tmp_path / "some.parquet")
    arguments = ["train", str(tmp_path / "some.parquet"), "--out", str(tmp_path / "model")]
    done = CliRunner().invoke(app, [*arguments, "--recipe-file", str(file)])
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "model").recipe == found.recipe


def test_the_test_set_is_scored_once(some, tmp_path):
    some.to_parquet(tmp_path / "some.parquet")
    first = [{"rate": rate, "dropout": 0.0, "batch": "large"} for rate in (1e-1, 1e-6)]
    (tmp_path / "space.json").write_text(json.dumps(CONTENT | {"first": first}))
    folder = tmp_path / "run"
    command = ["sweep", str(tmp_path / "some.parquet"), "--space", str(tmp_path / "space.json")]
    command += ["--out", str(folder), "--folds", str(FOLDS), "--score", "--trials"]
    done = CliRunner().invoke(app, [*command, "1"])
    assert done.exit_code == 0 and "test set" in done.output, done.output
    scored = json.loads((folder / "score.json").read_text())
    assert scored["scores"] == load_model(folder / "model").scores
    first = (folder / "score.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, [*command, "1"]).exit_code == 0
    assert (folder / "score.json").stat().st_mtime_ns == first
    done = CliRunner().invoke(app, [*command, "2"])  # less learned, less harm done
    assert isinstance(done.exception, RhosightError)
    assert "was already scored on the test set" in str(done.exception)


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/trials.db", "foo://a:b@c/d"])
def test_a_storage_that_cannot_be_opened(url, some, tmp_path):
    with pytest.raises(RhosightError, match=r"--storage .*database cannot be opened") as error:
        sweep(some, SPACE, tmp_path / "run", 1, FOLDS, storage=url)
    assert "a:b" not in str(error.value)


@pytest.mark.slow
def test_dask_workers_find_the_same(found, some, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        again = sweep(some, SPACE, tmp_path / "run", 4, FOLDS, scheduler=address)
    table = results(again)
    assert len(table) == 4
    pd.testing.assert_frame_equal(table.loc[:1], results(found).loc[:1])


KILLED = """
import json, sys
from rhosight.dataset import load_dataset
from rhosight.evaluation.tuning.space import SearchSpace
from rhosight.evaluation.tuning.sweep import sweep
import logging
logging.basicConfig(level=logging.INFO)
dataset, space, folder = sys.argv[1:]
sweep(load_dataset(dataset), SearchSpace.from_json(space), folder, 50, 2, heartbeat=1)
"""


@pytest.mark.slow
def test_a_kill_costs_the_trial_in_flight(some, tmp_path):
    some.to_parquet(tmp_path / "some.parquet")
    (tmp_path / "space.json").write_text(json.dumps(CONTENT))
    files = [str(tmp_path / name) for name in ("some.parquet", "space.json", "run")]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *files], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    for line in process.stderr:
        if "trial 2:" in line:
            break
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{files[2]}/trials.db")
    while not any(t.state.name == "RUNNING" and t.params for t in study.get_trials()):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    space = SearchSpace.from_json(files[1])
    some = Dataset.from_parquet(files[0])
    ended = sweep(some, space, files[2], 6, FOLDS, heartbeat=1)
    trials = ended.study.get_trials()
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 6
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert len(failed) == 1  # what it tried is tried again
    assert failed[0].params in [other.params for other in finished]
    assert len({json.dumps(trial.params) for trial in finished}) == 6
