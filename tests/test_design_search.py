"""Structure types of a user's own, the evolutionary search, and workers of a cluster."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from pymatgen.core import Lattice, Structure

import rhosight
from rhosight.design.own_types import BUNDLED_TYPES, join_types, read_folders
from rhosight.design.prototypes import load_library
from rhosight.design.screening import Screening
from rhosight.errors import RhosightError

WISH = {"bulk_modulus_vrh": (150, 300)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rock salt, a crystal of a type that no bundled one has, and a file that is no crystal."""
    path = tmp_path_factory.mktemp("mine")
    cells = {
        "salt.cif": ("Fm-3m", Lattice.cubic(4.24), ["Ti", "N"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
        "odd.cif": (
            "P4/mmm",
            Lattice.tetragonal(3.1, 8.9),
            ["Ti", "Ni", "N"],
            [[0, 0, 0], [0.5, 0.5, 0.23], [0, 0, 0.41]],
        ),
    }
    for name, cell in cells.items():
        Structure.from_spacegroup(*cell).to(str(path / name))
    (path / "bad.cif").write_text("nothing\n")
    return path


def test_structure_types_of_a_folder(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        crystals = read_folders([BUNDLED_TYPES, folder])
    assert sorted(crystals) == ["odd.cif", "salt.cif"] and "bad.cif" in caplog.text
    library = load_library()
    joined, types = join_types(library, crystals, with_bundled=False)
    assert [one.examples[0].material_id == "odd.cif" for one in types].count(True) == 1
    (salt,) = (one for one in types if one.name == "rock salt")
    assert salt in library.prototypes  # with all crystals that are known of it
    assert len(join_types(library, crystals, with_bundled=True)[1]) == len(library.prototypes) + 1
    (odd,) = (one for one in types if one is not salt)
    assert sorted(odd.counts) == [1, 2, 2] and len(joined.template(odd, 0)) == 5
    with pytest.raises(RhosightError, match="no such folder"):
        read_folders([folder / "missing"])
    with pytest.raises(RhosightError, match="no crystal can be read"):
        read_folders([folder / "bad.cif"])


def test_a_search_of_own_structure_types(folder: Path):
    settings = {"elements": ["Ti", "V", "Ni", "Co", "N", "C"], "densities": False, "count": 2}
    found = rhosight.design(
        {"formation_energy_per_atom": (-9, 9)},
        prototypes=[folder / "odd.cif"],
        candidates=4,
        **settings,
    )
    assert found.is_plausible and len(found.tried) == 4
    assert set(found.tried["like"]) == {"odd.cif"}
    structure = found.structures[found.proposals["name"].iloc[0]]
    assert structure.get_space_group_info()[0] == "P4/mmm"
    assert structure.lattice.c / structure.lattice.a == pytest.approx(8.9 / 3.1, rel=1e-3)
    with pytest.raises(RhosightError, match="like and prototypes"):
        rhosight.design(WISH, prototypes=[folder], like=folder / "odd.cif")


def test_an_evolutionary_search_continues_from_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("pymoo", reason="needs rhosight[design]")
    monkeypatch.setattr("rhosight.design.evolution.POPULATION", 8)
    settings = {
        "elements": ["Ti", "Al", "Ni", "Ru", "N", "C"],
        "candidates": 24,
        "count": 2,
        "max_atoms": 3,
        "search": "nsga2",
        "densities": False,
        "out": tmp_path,
    }
    found = rhosight.design(WISH, **settings)
    assert len(found.tried) == 24 and found.tried["name"].is_unique
    assert set(" ".join(found.tried["elements"]).split()) <= set(settings["elements"])
    chances = found.tried["probability"].to_numpy()
    assert chances[-8:].mean() > chances[:8].mean()
    (tmp_path / "ledger/batch-00002.json").unlink()  # as if killed in the third generation
    calls = []
    evaluate = Screening.evaluate

    def count(self: Screening, candidates: list) -> list:
        calls.append(len(candidates))
        return evaluate(self, candidates)

    monkeypatch.setattr(Screening, "evaluate", count)
    again = rhosight.design(WISH, **settings)
    assert calls == [8]
    pd.testing.assert_frame_equal(again.tried, found.tried)
    with pytest.raises(RhosightError, match="choose list or nsga2"):
        rhosight.design(WISH, search="magic")
    monkeypatch.setattr("rhosight.design.evolution.find_spec", lambda _: None)
    with pytest.raises(RhosightError, match=r"pip install 'rhosight\[design\]'"):
        rhosight.design(WISH, search="nsga2")


@pytest.mark.slow
def test_a_killed_worker_ends_the_search_with_a_cure(tmp_path: Path):
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "rhosight", "design", "--target", "bulk_modulus_vrh=150..300"),
        *("--max-atoms", "2", "--candidates", "640", "--no-densities", "--workers", "2"),
        *("--out", str(out)),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as search:
        while not list(out.glob("ledger/*.json")):
            assert search.poll() is None
            time.sleep(0.05)
        workers = [
            child
            for child in psutil.Process(search.pid).children(recursive=True)
            if "popen_loky_posix" in " ".join(child.cmdline())
        ]
        workers[0].kill()
        said = search.stderr.read()
    assert search.returncode == 2 and "give fewer --workers" in said and "Traceback" not in said
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("ledger/*.json")}
    subprocess.run(command, check=True, capture_output=True)
    assert (
        written.items()
        <= {path.name: path.stat().st_mtime_ns for path in out.glob("ledger/*.json")}.items()
    )
    assert (out / "report.html").exists()


def test_workers_of_a_cluster_predict_the_same():
    distributed = pytest.importorskip("distributed")
    settings = {
        "elements": ["Ti", "V", "N", "C"],
        "candidates": 5,
        "max_atoms": 2,
        "densities": False,
    }
    alone = rhosight.design(WISH, **settings)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        shared = rhosight.design(WISH, scheduler=cluster.scheduler_address, **settings)
    values = [one.tried["bulk_modulus_vrh"].to_numpy() for one in (alone, shared)]
    assert np.allclose(*values) and alone.tried["name"].tolist() == shared.tried["name"].tolist()
