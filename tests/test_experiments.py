"""The paper's experiments: jobs, resumption, several processes, tables beside the paper's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from rhosight import RhosightError, load_recipe
from rhosight.dataset import Dataset, load_dataset
from rhosight.experiments import EXPERIMENTS, JobFolder, Plan, Preset, get_preset, reproduce
from rhosight.experiments.published import (
    BEGIN,
    END,
    import_jobs,
    insert_tables,
    publish,
    render_markdown,
)
from rhosight.experiments.records import compare_runs, list_jobs, show_job
from rhosight.inputs.image import ImageSettings
from rhosight.networks.recipe import Recipe
from rhosight.networks.settings import Pretraining

FORMATS = ("csv", "tex", "png", "svg", "pdf")


ENCODERS = "TINY_ENCODERS"
"""Environment variable with the folders of the tiny encoders, for this process and its children."""


@pytest.fixture(scope="module", autouse=True)
def encoders(checkpoints: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENCODERS, json.dumps(checkpoints))
        yield


def tiny() -> Preset:
    """Two folds, tiny encoders, images of 32 pixels, 16 tokens, one epoch a stage."""
    names = json.loads(os.environ[ENCODERS])
    image = {"backbone": names["image"]}
    common = {
        "image": image | {"settings": ImageSettings.paper("grey", size=32)},
        "text": {"backbone": names["text"], "max_tokens": 16, "element_steps": 0},
        "head": {"epochs": 2},
        "fine_tuning": {"epochs": 1},
        "stacked": {"head_epochs": 1, "fine_tuning_epochs": 1},
        "augmentation": {"enabled": False, "views": 1},
    }

    def stacked(extent: str) -> tuple[Recipe, ...]:
        return (Recipe(modality="image+text", **common).replace(text={"extent": extent}),)

    def clip(trial: str, fourier: bool, targets: tuple[str, ...]) -> tuple[Recipe, ...]:
        batch = 8 if trial in ("T1", "T3", "T5") else 16
        drawn = {"settings": ImageSettings.paper("grey", fourier, size=32)}
        fields = common | {"image": image | drawn}
        pretraining = Pretraining(epochs=1, batch_size=16)
        return (
            Recipe(modality="clip", pretraining=pretraining, **fields).replace(
                text={"extent": "all"},
                head={"batch_size": 8},
                fine_tuning={"batch_size": batch},
            ),
        )

    return Preset(
        "tiny",
        "bundled weights",
        stacked,
        clip,
        pretraining=clip("T3", False, ())[0].replace(head={"epochs": 0}, fine_tuning={"epochs": 0}),
        n_splits=2,
    )


def tiny_plan(repeats: int = 1) -> Plan:
    return Plan.of(load_dataset("mp-fcc")[:40], tiny(), repeats)


RUN = """
import logging, sys
sys.path.insert(0, {tests!r})
from test_experiments import tiny_plan
from rhosight.experiments import reproduce
logging.basicConfig(level=logging.INFO, format="%(message)s")
reproduce(["figure6", "figure7"], tiny_plan(), sys.argv[1])
"""


def start(out: Path) -> subprocess.Popen:
    """A process that runs Figures 6 and 7 in a folder."""
    code = RUN.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which Figures 6 and 7 were run in one go."""
    out = tmp_path_factory.mktemp("finished")
    reproduce(["figure6", "figure7"], tiny_plan(), out)
    return out


def test_a_job_is_named_by_what_decides_about_it(dataset: Dataset) -> None:
    preset = get_preset("offline")
    plan = Plan.of(dataset, preset)
    chosen = {entry.job.name for entry in plan.chosen_clip()}
    trials = {entry.job.name for entry in plan.clip()}
    assert {n for n in chosen if "-r0-" in n} <= trials  # Table 1's first run is Table 2's T3
    assert len({entry.job.name for entry in plan.stacked()}) == 5 * (1 + 3)
    more = Plan.of(dataset, preset, repeats=3)
    assert trials < {entry.job.name for entry in more.clip()}  # repeats accumulate
    assert {entry.job.name for entry in more.chosen_clip()} == chosen
    others = Plan.of(dataset[:300], preset)
    assert not trials & {entry.job.name for entry in others.clip()}
    fourier = {entry.job.name for entry in plan.clip(fourier=True)}
    assert len(fourier) == len(trials) == 25 and not fourier & trials


@pytest.mark.slow
def test_killed_and_shared_by_two_processes_it_ends_the_same(finished, tmp_path, caplog) -> None:
    first = start(tmp_path)
    while not list(tmp_path.glob("jobs/*/result.json")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("jobs/*/result.json")}
    other = start(tmp_path)
    with caplog.at_level("INFO", logger="rhosight"):
        reproduce(["figure6", "figure7"], tiny_plan(), tmp_path)
    log = other.communicate()[1]
    assert other.returncode == 0, log
    ran = [line for line in [*log.splitlines(), *caplog.messages] if line.startswith("job ")]
    names = [line.split(": ")[1].split(",")[0] for line in ran]
    jobs = {path.name for path in finished.glob("jobs/*")}
    assert sorted(names) == sorted(jobs - {path.parent.name for path in kept})  # none twice
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
    for name in ("figure6.csv", "figure7.csv", "figure6.png"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    assert not list(tmp_path.glob("jobs/*/stages"))


def test_a_kill_while_weights_are_made_again_costs_no_result(finished, tmp_path) -> None:
    """What a job needs was forgotten, and training it anew was interrupted."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    need = next(tmp_path.glob("jobs/clip-pretraining-r0-f0-*"))
    (need / "stages").mkdir()  # nothing whole in it yet
    kept = {path: path.read_bytes() for path in need.glob("*.*")}
    shutil.rmtree(next(tmp_path.glob("jobs/clip-r0-f0-*")))
    reproduce(["figure6", "figure7"], tiny_plan(), tmp_path)
    assert kept == {path: path.read_bytes() for path in need.glob("*.*")}
    assert not (need / "stages").exists()
    for name in ("figure6.csv", "figure7.csv"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_dask_workers_end_the_same(finished, tmp_path) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        reproduce(["figure6", "figure7"], tiny_plan(), tmp_path, scheduler=address)
    for name in ("figure6.csv", "figure7.csv"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    # the address of a cluster that is gone
    with pytest.raises(RhosightError, match="no Dask scheduler answers there"):
        reproduce(["figure2"], tiny_plan(), tmp_path, scheduler=address)


def test_finished_jobs_are_only_read(finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("jobs/*/*")}
    started = time.monotonic()
    result = reproduce(["figure6"], tiny_plan(), finished)
    assert time.monotonic() - started < 15
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("jobs/*/*")}
    table = result.exhibits["figure6"].table
    assert set(table["fold"]) == {0, 1} and table["r2"].notna().all()
    for name in ("figure6", "figure7"):
        for form in FORMATS:
            assert (finished / f"{name}.{form}").stat().st_size > 100
    settings = json.loads((finished / "settings.json").read_text())
    assert settings["weights"] == "bundled weights" and settings["jobs"] == 4


def test_reading_finished_jobs_does_not_wait_for_pytorch(finished) -> None:
    """Most of what a small exhibit takes would be the networks' libraries."""
    code = RUN.format(tests=str(Path(__file__).parent))
    code += "from rhosight.experiments.exhibits import figure2, figure9, table1, table2, table3\n"
    code += "print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(finished)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


def test_records_say_what_a_folder_holds(finished) -> None:
    jobs = list_jobs(finished)
    assert len(jobs) == 4 and set(jobs["state"]) == {"finished"}
    assert (jobs["seconds"] > 0).all()
    about, scores = show_job(finished, "clip-r0-f0")
    assert about["recipe"]["modality"] == "clip" and about["hardware"]["processor"]
    assert about["versions"]["torch"]
    assert set(scores["part"]) == {"train", "validation", "test"}
    with pytest.raises(RhosightError, match="4 jobs are called 'clip'"):
        show_job(finished, "clip")
    settings, _ = compare_runs(finished, finished)
    assert settings.empty


def test_two_runs_side_by_side(tmp_path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from rhosight.cli import app

    keys = {"target": "efermi", "extent": "all", "model": "text", "stage": "fine-tuning"}
    for name, r2, rmse in (("one", 0.811, 1.5), ("other", 0.874, 1.25)):
        (tmp_path / name / "jobs").mkdir(parents=True)
        (tmp_path / name / "settings.json").write_text(json.dumps({"repeats": len(name)}))
        rows = [
            keys | {"part": "train", "r2": 0.1 * len(name), "rmse": 1.0},
            keys | {"part": "validation", "r2": r2, "rmse": rmse},
            keys | {"part": "test", "r2": 0.9, "rmse": 1.0},
            keys | {"part": "test", "target": "average", "r2": 0.5, "rmse": None},
        ]
        pd.DataFrame(rows).to_csv(tmp_path / name / "figure2.csv", index=False)
        trials = [keys | {"trial": "T3", "part": "test", "r2": r2, "rmse": 1.0}]
        pd.DataFrame(trials).to_csv(tmp_path / name / "table1.csv", index=False)
    settings, scores = compare_runs(tmp_path / "one", tmp_path / "other")
    assert settings.to_dict("records") == [{"setting": "repeats", "one": "3", "other": "5"}]
    assert len(scores) == 4 and "train" not in set(scores["part"])
    changed = scores[scores["part"] == "validation"].iloc[0]
    assert changed["r2_change"] == pytest.approx(0.063) and changed["rmse_change"] == -0.25
    monkeypatch.setenv("COLUMNS", "120")
    shown = CliRunner().invoke(
        app, ["runs", "compare", *(str(tmp_path / n) for n in ("one", "other"))]
    )
    assert "2 of 4 scores agree" in shown.output
    lines = [line.strip() for line in shown.output.splitlines()]
    assert sum(line.startswith("T3, text (all)") for line in lines) == 1
    row = next(line for line in lines if line.startswith("text (all)"))
    assert row.split() == ["text", "(all)", "validation", "0.81", "0.87", "+0.06", "1.5", "1.25"]


def test_results_outlive_new_fields_of_the_recipe(finished, tmp_path) -> None:
    """A folder of an earlier version: recipes without a field of today, another name."""
    shutil.copytree(finished / "jobs", tmp_path / "jobs")
    renamed = {}
    for path in sorted(
        (tmp_path / "jobs").iterdir(), key=lambda path: "pretraining" not in path.name
    ):
        file = path / "job.json"
        basis = json.loads(file.read_text())
        assert basis["recipe"].pop("devices") == 1
        basis["needs"] = [renamed[name] for name in basis["needs"]]
        file.write_text(json.dumps(basis))
        renamed[path.name] = f"{path.name[:-12]}{len(renamed):012d}"
        path.rename(path.with_name(renamed[path.name]))
    folder, jobs = JobFolder(tmp_path), [entry.job for entry in tiny_plan().chosen_clip()]
    assert all(folder.is_finished(job) for job in jobs if job.split.repeat == 0)
    file = folder.path(jobs[0]) / "job.json"
    basis = json.loads(file.read_text())
    basis["recipe"]["dropout"] = 0.5  # what was done otherwise is another job
    file.write_text(json.dumps(basis))
    assert not JobFolder(tmp_path).is_finished(jobs[0])


def test_kept_results_are_taken_up_elsewhere(finished, tmp_path) -> None:
    names = ["figure6", "figure7"]
    again = reproduce(names, tiny_plan(), finished)
    publish(again, tmp_path / "kept")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("kept/jobs/*")}
    publish(again, tmp_path / "kept")
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("kept/jobs/*")}
    folder = JobFolder(tmp_path / "elsewhere")
    # what another process is unpacking at this moment, or left behind
    shutil.copytree(next(finished.glob("jobs/clip-r0-*")), folder.folder / ".clip-r0.1.part")
    assert import_jobs(tmp_path / "kept", folder) == 4
    assert import_jobs(tmp_path / "kept", folder) == 0
    assert "host" in next(finished.glob("jobs/*/result.json")).read_text()
    assert "host" not in next(folder.folder.glob("clip-r0-*/result.json")).read_text()
    assert (list_jobs(tmp_path / "elsewhere") == list_jobs(finished)).all(axis=None)
    there = reproduce(names, tiny_plan(), tmp_path / "elsewhere")
    for name in names:
        one, other = (result.exhibits[name].table for result in (again, there))
        pd.testing.assert_frame_equal(one, other, rtol=1e-5)
    with pytest.raises(RhosightError, match=r"packed jobs; `rhosight reproduce all --write"):
        list_jobs(tmp_path / "kept")
    report = (tmp_path / "kept" / "report.html").read_bytes()
    assert report == (finished / "report.html").read_bytes()
    shutil.rmtree(next(folder.folder.glob("*-r0-*")))
    publish(there, tmp_path / "kept")
    assert import_jobs(tmp_path / "kept", JobFolder(tmp_path / "third")) == 4, "what was kept stays"
    next(tmp_path.glob("kept/jobs/*")).write_text("no Parquet")
    with pytest.raises(RhosightError, match=r"repeat-0\.parquet: cannot be read"):
        import_jobs(tmp_path / "kept", folder)


def published_settings(folder: Path) -> None:
    settings = {"repeats": 2, "n_splits": 5, "preset": "offline", "command": "rhosight reproduce"}
    (folder / "settings.json").write_text(json.dumps(settings))


def test_a_page_gets_its_table_from_published_results(finished, tmp_path) -> None:
    target, model = "efermi", {"extent": "all", "model": "image+text", "stage": "fine-tuning"}
    scores = {"r2": 0.91, "r2_std": 0.02, "paper_r2": 0.8, "folds": 10, "repeats": 2}
    rows = [model | scores | {"target": target, "part": part} for part in ("validation", "test")]
    pd.DataFrame(rows).to_csv(tmp_path / "figure2.csv", index=False)
    clip = {"model": "clip", "trial": "mean", "folds": 15, "repeats": 3}
    pd.DataFrame([row | clip for row in rows]).to_csv(tmp_path / "table1.csv", index=False)
    said = {"target": target, "question": "Does it help?", "verdict": "partly", "text": "So so."}
    pd.DataFrame([said]).to_csv(tmp_path / "answers.csv", index=False)
    published_settings(tmp_path)
    page = tmp_path / "results.md"
    page.write_text(f"# a\n{BEGIN}\nbefore\n{END}\nb\n")
    assert insert_tables(page, tmp_path)
    text = page.read_text()
    assert text.startswith("# a\n") and text.endswith(f"{END}\nb\n") and "before" not in text
    row = "| image+text (`all`) | 0.91 ± 0.02, 0.91 ± 0.02 (*paper* 0.80, 0.80) |"
    assert row in text.splitlines()
    assert "over 10 folds (2 repeats)" in text
    assert any(line.startswith("| clip (`all`), 15 folds | 0.91") for line in text.splitlines())
    assert "| Does it help? | partly |" in text.splitlines()
    assert not insert_tables(page, tmp_path)
    page.write_text("no markers")
    with pytest.raises(RhosightError, match="no <!-- results: begin -->"):
        insert_tables(page, tmp_path)
    with pytest.raises(RhosightError, match=r"figure2\.csv: no such file"):
        render_markdown(finished)


def test_the_page_and_the_committed_results_agree() -> None:
    root = Path(__file__).parents[1]
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    table = text.split(BEGIN)[1].split(END)[0].strip()
    assert table == render_markdown(root / "docs" / "results")


def test_no_exhibit_of_another_run_stays_beside_new_ones(finished, tmp_path) -> None:
    """One settings.json speaks of all that is kept."""
    both = reproduce(["figure6", "figure7"], tiny_plan(), finished)
    publish(both, tmp_path)
    one = reproduce(["figure6"], tiny_plan(), finished)
    before = (tmp_path / "settings.json").read_bytes()
    with pytest.raises(RhosightError, match="contains figure7 of another run"):
        publish(one, tmp_path)
    assert (tmp_path / "settings.json").read_bytes() == before
    publish(both, tmp_path)


@pytest.mark.slow
def test_tables_have_the_papers_figures_and_baselines(finished, tmp_path) -> None:
    plan = tiny_plan()
    folder = JobFolder(tmp_path)
    result = reproduce(["table1"], plan, tmp_path)
    table = result.exhibits["table1"].table
    ours = table[(table["model"] == "clip") & (table["target"] == "efermi")]
    mean = ours[(ours["trial"] == "mean") & (ours["part"] == "test")].iloc[0]
    assert mean["paper_r2"] == 0.73 and mean["paper_rmse"] == 1.41
    runs = ours[(ours["part"] == "test") & (ours["trial"] != "mean")]
    assert list(runs["trial"]) == ["1", "2", "3"]
    assert mean["r2"] == pytest.approx(runs["r2"].mean())
    assert {"mean", "composition", "promolecule", "density", "best"} <= set(table["model"])
    assert all(folder.is_finished(entry.job) for entry in plan.chosen_clip())


def test_every_epoch_is_logged_for_tensorboard(finished, tmp_path, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = JobFolder(tmp_path)
    job = tiny_plan().chosen_clip()[0].job
    reproduce(["figure6"], tiny_plan(), tmp_path, log="tensorboard")  # finished without a log
    (log,) = tmp_path.glob(f"tensorboard/{job.name}/*")
    written = EventAccumulator(str(log)).Reload().Scalars("clip, fine-tuning/r2_efermi")
    history = folder.history(job).query("stage == 'fine-tuning'")
    assert [event.step for event in written] == history["epoch"].to_list()
    assert [event.value for event in written] == pytest.approx(history["r2_efermi"].to_list())
    reproduce(["figure6"], tiny_plan(), tmp_path, log="tensorboard")
    assert list(tmp_path.glob(f"tensorboard/{job.name}/*")) == [log]  # once
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RhosightError, match=r"pip install 'rhosight\[tensorboard\]'"):
        reproduce(["figure6"], tiny_plan(), tmp_path, log="tensorboard")


def test_mistakes_are_named(dataset: Dataset, tmp_path) -> None:
    labels = dataset.targets[["efermi"]].assign(hardness=1.0)
    own = Dataset.from_densities(list(dataset.densities[:3]), labels.iloc[:3])
    with pytest.raises(RhosightError, match="no formation_energy_per_atom and no bulk_modulus_vrh"):
        Plan.of(own, get_preset("offline"))
    with pytest.raises(RhosightError, match="no experiment is called 'table4'"):
        reproduce(["table4"], tiny_plan(), tmp_path)
    with pytest.raises(RhosightError, match="no preset is called 'online'"):
        get_preset("online")
    with pytest.raises(RhosightError, match="not a run folder"):
        list_jobs(tmp_path / "nothing")
    assert len(EXPERIMENTS) == 12


def test_the_papers_preset_has_its_recipes(dataset: Dataset) -> None:
    plan = Plan.of(dataset, get_preset("paper"))
    stacked = [entry.job.recipe for entry in plan.stacked() if entry.extent == "all"]
    assert stacked[0] == load_recipe("paper-figure2-E_F-all")
    trials = {entry.trial: entry.job.recipe for entry in plan.clip(targets=("efermi",))}
    assert trials["T4"] == load_recipe("paper-table2-T4", targets=("efermi",))
    second = next(e for e in plan.chosen_clip() if e.job.split.repeat == 1)
    assert second.job.recipe == load_recipe("paper-table1-E_F-2")
