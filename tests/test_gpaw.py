"""The gpaw source: real calculations where GPAW is installed, and what is said where it is not."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from rhosight.dataset import Dataset
from rhosight.dataset.sources.gpaw import Gpaw, find_gpaw
from rhosight.errors import RhosightError

try:
    find_gpaw()
    HAS_GPAW, WHY = True, ""
except RhosightError as error:
    HAS_GPAW, WHY = False, str(error)

needs_gpaw = pytest.mark.skipif(not HAS_GPAW, reason=WHY)

SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.44), ["Si"], [[0, 0, 0]])


@pytest.fixture
def cifs(dataset: Dataset, tmp_path: Path) -> Path:
    """Silicon (mp-149), rock salt (mp-22862) and cobalt (mp-102) of the bundled dataset."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name in ("mp-149", "mp-22862", "mp-102"):
        dataset[name].structure.to(filename=str(folder / f"{name}.cif"))
    return folder


def write(structure: Structure, path: Path) -> Path:
    structure.to(filename=str(path))
    return path


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(np.square(expected))))


def running(where: Path) -> list[int]:
    """Processes with this path in their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
            zombie = ") Z " in (entry / "stat").read_text()
        except OSError:  # gone meanwhile
            continue
        if str(where) in line and not zombie and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


@needs_gpaw
@pytest.mark.parametrize("name", ["mp-149", "mp-22862"])
def test_bundled_densities_are_reproduced(name: str, cifs: Path, dataset: Dataset):
    entry = Gpaw(cifs).read(name)
    expected, row = dataset[name].density, dataset.table.loc[name]
    assert entry.density.name == name
    assert entry.density.shape == expected.shape
    assert entry.density.kinds == ("total", "difference", "promolecule")
    for kind in ("total", "difference", "promolecule"):
        assert relative_rms(entry.density.grid(kind), expected.grid(kind)) < 1e-4
    assert entry.labels["dft_energy"] == pytest.approx(row["dft_energy"], abs=1e-4)
    assert entry.labels["dft_efermi"] == pytest.approx(row["dft_efermi"], abs=1e-3)
    assert entry.labels["dft_kpoints"] == row["dft_kpoints"]
    assert entry.labels["dft_cutoff"] == 400
    assert entry.labels["dft_spin_polarised"] is False
    about = entry.density.provenance
    assert about["code"] == "GPAW"
    assert "smooth core" in about["kinds"]["total"]
    assert set(about["setups"]) == set(expected.structure.symbol_set)


@needs_gpaw
@pytest.mark.slow
def test_bundled_spin_density_is_reproduced(cifs: Path, dataset: Dataset):
    entry = Gpaw(cifs).read("mp-102")
    expected, row = dataset["mp-102"].density, dataset.table.loc["mp-102"]
    for kind in ("total", "difference", "spin"):
        assert relative_rms(entry.density.grid(kind), expected.grid(kind)) < 1e-2
    assert entry.labels["dft_magnetization"] == pytest.approx(row["dft_magnetization"], abs=0.01)
    assert entry.labels["dft_spin_polarised"] is True


@needs_gpaw
def test_kpoints_have_the_symmetry_of_a_body_centred_cell(tmp_path: Path):
    cell = Structure(Lattice.tetragonal(3.0, 5.0), ["Al", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    lengths = cell.get_primitive_structure().lattice.reciprocal_lattice.abc
    assert max(lengths) > 1.02 * min(lengths)  # whose counts would be 3, 3, 4
    path = write(cell, tmp_path / "body-centred.cif")
    entry = Gpaw(path, cutoff=150, kpoint_density=1.2, smearing=0.5).read("body-centred")
    assert entry.labels["dft_kpoints"] == "4x4x4"


@needs_gpaw
def test_any_setting_of_a_crystal_is_standardised(tmp_path: Path):
    # two primitive cells in one, origin elsewhere; coarse settings, since only the cell matters
    odd = SILICON.get_primitive_structure() * (1, 1, 2)
    odd.translate_sites(range(len(odd)), [0.1, 0.2, 0.3])
    path = write(odd, tmp_path / "odd.cif")
    labels = pd.DataFrame({"efermi": [1.5], "note": [None]}, index=["odd"])
    source = Gpaw(path, labels=labels, cutoff=150, kpoint_density=1)
    entry = source.read("odd")
    cell = entry.density.structure
    assert len(cell) == 2
    np.testing.assert_allclose(cell.lattice.abc, 5.44 / np.sqrt(2), atol=1e-4)
    assert len(set(entry.density.shape)) == 1
    assert source.table_row("odd") == {"efermi": 1.5, "note": None}
    assert entry.labels["dft_cutoff"] == 150
    assert "150 eV" in entry.density.provenance["basis"]


@needs_gpaw
def test_settings_are_json_and_the_source_can_be_sent_to_a_worker(cifs: Path):
    source = Gpaw(cifs)
    assert source.ids() == ["mp-102", "mp-149", "mp-22862"]
    settings = source.settings()
    assert json.loads(json.dumps(settings)) == settings
    copy = pickle.loads(pickle.dumps(source))
    assert copy.ids() == source.ids()
    assert copy.settings() == settings
    assert Gpaw(cifs, cutoff=500).settings() != settings
    assert Gpaw(cifs, timeout=5).settings() == settings
    # a changed table is no other calculation, a changed file is
    labels = pd.DataFrame({"efermi": [1.5]}, index=["mp-149"])
    assert Gpaw(cifs, labels=labels).settings() == settings
    before = source.state("mp-149"), source.state("mp-102")
    write(SILICON, cifs / "mp-149.cif")
    assert source.state("mp-149") != before[0] and source.state("mp-102") == before[1]


@needs_gpaw
def test_no_convergence_names_the_material_and_keeps_the_log(cifs: Path, tmp_path: Path):
    source = Gpaw(cifs, max_iterations=1, logs=tmp_path / "logs")
    with pytest.raises(RhosightError, match=r"mp-149: .*did not converge within 1 iter") as caught:
        source.read("mp-149")
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in str(caught.value)
    assert "iter:   1" in log.read_text(encoding="utf-8")
    assert "\n" not in str(caught.value)


@needs_gpaw
def test_an_element_without_setup_is_named(tmp_path: Path):
    cerium = Structure(
        Lattice.cubic(5.16), ["Ce"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    path = write(cerium, tmp_path / "cerium.cif")
    with pytest.raises(RhosightError, match=r"cerium: GPAW has no PAW data set .*Ce\.PBE"):
        Gpaw(path, logs=tmp_path).read("cerium")


@needs_gpaw
def test_what_takes_too_long_is_ended(cifs: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(RhosightError, match=r"mp-102: GPAW took longer than 1 s"):
        Gpaw(cifs, timeout=1, logs=tmp_path / "logs").read("mp-102")
    assert running(tmp_path / "rhosight-gpaw-") == []
    assert list(tmp_path.glob("rhosight-gpaw-*")) == []


@needs_gpaw
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc")
@pytest.mark.parametrize("victim", ["worker", "GPAW"])
def test_killing_either_leaves_no_process(victim: str, cifs: Path, tmp_path: Path):
    code = """
        import sys
        from rhosight.errors import RhosightError
        from rhosight.dataset.sources.gpaw import Gpaw
        try:
            Gpaw(sys.argv[1]).read("mp-102")
        except RhosightError as error:
            print(error)
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(cifs)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    calculation = tmp_path / "rhosight-gpaw-"
    try:
        assert wait_for(lambda: running(calculation), 120)
        (pid,) = running(calculation)
        time.sleep(2)
        os.kill(worker.pid if victim == "worker" else pid, signal.SIGKILL)
        assert wait_for(lambda: not running(calculation), 30)
        said = worker.communicate(timeout=60)[0]
    finally:
        worker.kill()
    if victim == "GPAW":
        assert "mp-102: GPAW ended with code -9 (killed, most likely for its memory use)" in said


def test_without_gpaw_the_cure_is_named(cifs: Path):
    source = Gpaw(cifs, python="/nonexistent/python")
    for attempt in (source.ids, lambda: source.read("mp-149")):
        with pytest.raises(
            RhosightError, match=r"/nonexistent/python .*apt install gpaw"
        ) as caught:
            attempt()
        assert "pip install gpaw" in str(caught.value)


def test_a_python_without_gpaw_is_told_apart(cifs: Path, tmp_path: Path):
    # an interpreter with an empty environment of its own: whatever is installed here, not there
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(RhosightError, match=r"bare/bin/python has no usable GPAW .*apt install"):
        Gpaw(cifs, python=str(tmp_path / "bare/bin/python")).ids()


def disordered(path: Path) -> Path:
    return write(Structure(Lattice.cubic(4), [{"Na": 0.5, "K": 0.5}], [[0, 0, 0]]), path)


def overlapping(path: Path) -> Path:
    crystal = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.05]])
    return write(crystal, path)


def garbage(path: Path) -> Path:
    path.write_bytes(b"data_x\n_cell_length_a \xff\xfe 1.2.3\n")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (disordered, ".* is not one element per site"),
        (overlapping, ".* Å apart, less than half the sum of their covalent radii"),
        (garbage, "not a readable CIF file"),
    ],
)
def test_a_bad_cif_is_named(make, message: str, tmp_path: Path):
    make(tmp_path / "bad.cif")
    with pytest.raises(RhosightError, match=rf"bad\.cif: {message}"):
        Gpaw(tmp_path).read("bad")


def test_files_that_cannot_be_a_source(tmp_path: Path):
    with pytest.raises(RhosightError, match=r"no \*\.cif files in this folder"):
        Gpaw(tmp_path)
    with pytest.raises(RhosightError, match=r"missing\.cif: no such file"):
        Gpaw(tmp_path / "missing.cif")
    with pytest.raises(RhosightError, match="no CIF files; give at least one"):
        Gpaw([])
    (tmp_path / "a").mkdir()
    twins = [write(SILICON, tmp_path / "x.cif"), write(SILICON, tmp_path / "a/x.cif")]
    with pytest.raises(RhosightError, match=r"x\.cif has the same name and so the same id"):
        Gpaw(twins)
    with pytest.raises(RhosightError, match="cutoff is -1; it must be positive"):
        Gpaw(twins[0], cutoff=-1)
    with pytest.raises(RhosightError, match="y: none of the given CIF files has this name"):
        Gpaw(twins[0]).read("y")
