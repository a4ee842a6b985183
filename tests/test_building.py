"""Building datasets: nothing lost, nothing twice, same bytes."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster

from rhosight.dataset import Dataset, build, load_dataset
from rhosight.dataset.sources.directory import Directory
from rhosight.dataset.sources.source import Entry
from rhosight.errors import RhosightError
from rhosight.inputs.image import ImageSettings, density_image
from rhosight.models.inputs import make_inputs
from rhosight.networks.recipe import Recipe

COUNT = 10


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with two workers: a cluster, as far as the build can tell."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def calculations(dataset: Dataset, tmp_path_factory) -> Path:
    """Folders with a CHGCAR each, and a table of targets beside them."""
    root = tmp_path_factory.mktemp("calculations")
    small = [m for m in dataset if m.density.shape[0] <= 20][:COUNT]
    for material in small:
        folder = root / "runs" / material.material_id
        folder.mkdir(parents=True)
        material.density.to_chgcar(folder / "CHGCAR")
    rows = [{"id": m.material_id, **m.targets, "hardness (GPa)": i} for i, m in enumerate(small)]
    pd.DataFrame(rows).to_csv(root / "targets.csv", index=False)
    return root


def source_of(root: Path) -> Directory:
    return Directory(root / "runs", root / "targets.csv")


@pytest.fixture(scope="module")
def built(calculations: Path, scheduler: str, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "mine.parquet"
    report = build(source_of(calculations), out, ["keywords"], scheduler=scheduler)
    assert (report.materials, report.added, len(report.problems)) == (COUNT, COUNT, 0)
    assert sorted(file.name for file in out.parent.iterdir()) == ["mine.parquet"]
    return out


def test_rows_are_what_the_files_hold(built: Path, dataset: Dataset) -> None:
    mine = load_dataset(built)
    assert mine.ids == sorted(mine.ids) and len(mine) == COUNT
    for material in mine:
        truth = dataset[material.material_id]
        found = material.density.grid("total")
        np.testing.assert_allclose(found, truth.density.grid("total"), rtol=1e-5, atol=1e-6)
        assert material.targets["efermi"] == pytest.approx(truth.targets["efermi"])
        assert material.texts["keywords"] == truth.texts["keywords"]
        assert material.density.provenance["file"] == f"{material.material_id}/CHGCAR"
    assert mine.units["hardness"] == "GPa"


def test_the_same_input_gives_the_same_bytes(
    built: Path, calculations: Path, tmp_path: Path
) -> None:
    """With other workers, in another order of finishing."""
    build(source_of(calculations), tmp_path / "mine.parquet", ["keywords"], workers=1)
    assert (tmp_path / "mine.parquet").read_bytes() == built.read_bytes()


def test_a_bad_file_is_named_and_the_others_are_kept(
    calculations: Path, scheduler: str, tmp_path: Path
) -> None:
    root = tmp_path / "calculations"
    shutil.copytree(calculations, root)
    bad = sorted((root / "runs").iterdir())[3]
    whole = (bad / "CHGCAR").read_bytes()
    (bad / "CHGCAR").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "mine.parquet"
    report = build(source_of(root), out, (), scheduler=scheduler)
    assert report.materials == COUNT - 1
    assert list(report.problems["material_id"]) == [bad.name]
    assert "truncated" in report.problems["problem"][0]
    assert bad.name in (tmp_path / "mine.parquet.problems.csv").read_text()

    # once it is mended, the same command reads what is missing and nothing else
    (bad / "CHGCAR").write_bytes(whole)
    report = build(source_of(root), out, (), scheduler=scheduler)
    assert (report.materials, report.added, len(report.problems)) == (COUNT, 1, 0)
    assert len(set(load_dataset(out).ids)) == COUNT
    assert not (tmp_path / "mine.parquet.problems.csv").exists()

    with pytest.raises(RhosightError, match="built with other settings"):
        build(source_of(root), out, ["formula"], scheduler=scheduler)


def test_a_killed_build_goes_on(built: Path, calculations: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.parquet"
    command = [
        *(sys.executable, "-m", "rhosight", "data", "build", "directory"),
        *(str(calculations / "runs"), str(out), "--targets", str(calculations / "targets.csv")),
        *("--texts", "keywords", "--workers", "1"),
    ]
    parts = tmp_path / "mine.parquet.build"
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(parts.glob("[!.]*.parquet")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    there = {file.name: file.stat().st_mtime_ns for file in parts.glob("[!.]*.parquet")}
    assert there and not out.exists()
    subprocess.run(command, check=True, capture_output=True)
    assert not parts.exists()
    assert out.read_bytes() == built.read_bytes()


class Deadly(Directory):
    """A directory with one material whose reading ends the worker, as running out of memory
    does."""

    name = "deadly"

    def read(self, material_id: str) -> Entry:
        if material_id == self.ids()[1]:
            self.kill()
        return super().read(material_id)

    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyBeside(Deadly):
    """One that also kills what the worker reads beside it, most often the same material."""

    name = "deadly-beside"

    @property
    def begun(self) -> Path:
        return self.folder.parent / "begun"

    def read(self, material_id: str) -> Entry:
        if material_id == self.ids()[2]:
            self.begun.touch()
            time.sleep(2)
        return super().read(material_id)

    def kill(self) -> None:
        latest = time.monotonic() + 2
        while not self.begun.exists() and time.monotonic() < latest:
            time.sleep(0.01)
        self.begun.unlink(missing_ok=True)
        super().kill()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Deadly, DeadlyBeside])
def test_a_material_that_kills_workers_costs_itself_alone(
    kind: type[Deadly], calculations: Path, tmp_path: Path
) -> None:
    source, out = kind(calculations / "runs"), tmp_path / "mine.parquet"
    if kind is Deadly:
        report = build(source, out, (), workers=2)
    else:
        with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=":0") as cluster:
            cluster.adapt(minimum=1, maximum=1)  # replaces a worker that dies while it starts
            report = build(source, out, (), scheduler=cluster.scheduler_address)
    assert report.materials == COUNT - 1
    assert list(report.problems["material_id"]) == [source.ids()[1]]
    assert "--memory" in report.problems["problem"][0]


class Mislabelled(Directory):
    """A directory with a material whose label is no number."""

    name = "mislabelled"

    def read(self, material_id: str) -> Entry:
        entry = super().read(material_id)
        return Entry(entry.density, {"efermi": "high" if material_id == self.ids()[2] else 1.5})


def test_a_label_that_does_not_fit_costs_its_material_alone(
    calculations: Path, scheduler: str, tmp_path: Path
) -> None:
    source = Mislabelled(calculations / "runs")
    report = build(source, tmp_path / "mine.parquet", (), scheduler=scheduler)
    assert report.materials == COUNT - 1
    (row,) = report.problems.itertuples()
    assert (row.material_id, row.step) == (source.ids()[2], "labels")
    assert "column `efermi` does not fit the schema" in row.problem


def test_a_cluster_whose_workers_come_later(
    calculations: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one whose jobs still wait in a queue."""
    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0") as cluster:
        later = threading.Timer(2, cluster.scale, [1])
        later.start()
        out = tmp_path / "mine.parquet"
        report = build(
            source_of(calculations), out, ["formula"], scheduler=cluster.scheduler_address
        )
        later.join()
    assert report.materials == COUNT and not len(report.problems)
    assert "has no workers yet; the build waits for them" in caplog.text


def test_large_sets_are_folders_of_files(
    built: Path, calculations: Path, scheduler: str, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    build(source_of(calculations), out, ["keywords"], scheduler=scheduler)
    assert [file.name for file in out.iterdir()] == ["part-00000.parquet"]
    assert load_dataset(out).fingerprint() == load_dataset(built).fingerprint()


def test_stored_images_are_those_that_are_drawn(
    calculations: Path, scheduler: str, tmp_path: Path
) -> None:
    settings = ImageSettings(size=48, interpolation="spline")
    out = tmp_path / "mine.parquet"
    build(source_of(calculations), out, (), settings, margin=True, scheduler=scheduler)
    mine = load_dataset(out)
    for density, stored in zip(mine.densities, mine.images(settings), strict=True):
        np.testing.assert_allclose(stored, density_image(density, settings), atol=1e-3)
    assert mine.images(ImageSettings(size=48)) is None
    recipe = Recipe(modality="image", image={"settings": settings})
    drawn = make_inputs(list(mine.densities), recipe).canvas
    np.testing.assert_allclose(make_inputs(mine, recipe).canvas, drawn, atol=2e-3)


def test_no_scheduler_is_one_clear_line(
    calculations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the package `build` and the function of that name share an attribute
    workers = importlib.import_module("rhosight.dataset.build.workers")
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    with pytest.raises(RhosightError, match="no Dask scheduler answers"):
        build(source_of(calculations), tmp_path / "x.parquet", scheduler="tcp://127.0.0.1:9")
