"""The first steps of a user who has calculations: folders, files and objects to predictions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pymatgen.io.vasp import Chgcar

from rhosight import ChargeDensity, Dataset, RhosightError, explain, load_dataset, load_model
from rhosight.cli.common import console
from rhosight.cli.image import parse_indices
from rhosight.cli.predictions import print_known
from rhosight.dataset.known import find_known_material
from rhosight.density.drawing import draw_slices
from rhosight.models.base import SavedModel
from test_cli import error_of, rhosight


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("mp-fcc")[["mp-149", "mp-1002124"]]


@pytest.fixture(scope="module")
def calculations(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two calculations with other outputs of VASP, and the start of a relaxation."""
    folder = tmp_path_factory.mktemp("calculations")
    for material in dataset:
        own = folder / material.formula
        own.mkdir()
        material.density.to_chgcar(own / "CHGCAR")
        for name in ("OUTCAR", "LOCPOT", "v_hartree.cube"):
            (own / name).write_text("something else\n")
    silicon = dataset["mp-149"].structure
    silicon.to(filename=str(folder / "Si" / "CONTCAR"), fmt="poscar")
    silicon.copy().scale_lattice(50).to(filename=str(folder / "Si" / "POSCAR"), fmt="poscar")
    return folder


@pytest.fixture(scope="module")
def best() -> SavedModel:
    return load_model("best")


@pytest.fixture(scope="module")
def no_dft() -> SavedModel:
    return load_model("no-dft")


def test_densities_in_every_form(best: SavedModel, dataset: Dataset, calculations: Path):
    file = calculations / "Si" / "CHGCAR"
    silicon, carbide = best.predict(dataset).to_numpy()
    forms = [str(file), file, Chgcar.from_file(str(file)), dataset["mp-149"], {"a": str(file)}]
    for given in forms:
        assert best.predict(given).iloc[0].tolist() == pytest.approx(silicon, rel=1e-3)
    mixed = best.predict([file, dataset["mp-1002124"].density])
    assert mixed.index.to_list() == [str(file), "mp-1002124"]
    folder = best.predict(str(calculations))
    assert folder.index.to_list() == [f"{calculations}/HfC/CHGCAR", f"{calculations}/Si/CHGCAR"]
    assert folder.iloc[0].tolist() == pytest.approx(carbide, rel=1e-3)


def test_structures_in_every_form(no_dft: SavedModel, dataset: Dataset, calculations: Path):
    silicon = dataset["mp-149"].structure
    expected = no_dft.predict({"Si": silicon}).iloc[0].to_dict()
    for given in (silicon, silicon.to_ase_atoms(), str(calculations / "Si" / "CONTCAR")):
        assert no_dft.predict_structure(given) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    listed = no_dft.predict_structure([silicon, dataset["mp-1002124"].structure])
    assert len(listed) == 2 and listed[0] == pytest.approx(expected, rel=1e-6)
    folder = no_dft.predict(calculations)
    assert [Path(name).name for name in folder.index] == ["CHGCAR", "CONTCAR"]
    explanation = explain(no_dft, str(calculations / "Si" / "CONTCAR"), details=False)
    assert explanation.formula == "Si"
    assert len(explanation.plot().subfigs) == 5  # one for each target
    drawn = dataset["mp-149"].density.plot("difference", hkl=(1, 1, 0), window=5)
    assert drawn.axes[0].get_xlim() == (-2.5, 2.5) and "plane (1 1 0)" in drawn.get_suptitle()


def test_a_folder_on_the_command_line(calculations: Path, monkeypatch: pytest.MonkeyPatch):
    """Paths are whole, all lines of the table fit, and known crystals say so."""
    monkeypatch.setattr(console, "_width", 80)
    done = rhosight("predict", "no-dft", calculations)
    assert f"passed over: {calculations}/Si/POSCAR: the start of the CONTCAR" in done.stderr
    lines = done.stdout.splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if " is mp-" in line)]
    assert all(len(line) <= 80 or "/" in line for line in table)
    assert any(line.rstrip().endswith(f"{calculations}/Si/CONTCAR") for line in table)
    assert {"formation_", "energy_per_atom", "modulus_vrh", "outside"} < set(done.stdout.split())
    rows = [line for line in lines if line.startswith("HfC ")]  # of two tables
    assert all("no" in row.split() for row in rows) and "".join(rows).count("±") == 5
    assert f"{calculations}/HfC/CHGCAR: HfC is mp-1002124, in the training set" in lines
    assert "  calculated: formation_energy_per_atom -0.2975 eV/atom, efermi 3.712 eV," in lines
    assert "reference structure is 0 by definition" in done.stdout
    done = rhosight("predict", "best", calculations)
    assert "v_hartree.cube: a potential, by its name" in done.stderr
    assert len([line for line in done.stdout.splitlines() if "±" in line]) == 4


def test_known_materials(dataset: Dataset):
    silicon = dataset["mp-149"].structure
    known = find_known_material(silicon * (2, 1, 1), ["efermi"])
    assert known and known.material_id == "mp-149"
    assert known.values == {"efermi": pytest.approx(dataset.targets.loc["mp-149", "efermi"])}
    compressed = silicon.copy().scale_lattice(0.9 * silicon.volume)
    assert find_known_material(compressed, ["efermi"]) is None


def test_a_chgcar_with_another_scale_factor_is_outside(best: SavedModel, dataset: Dataset):
    """The density of the file fits its cell; only the calculated volume of Si does not."""
    density = dataset["mp-149"].density
    silicon, total = density.structure, np.asarray(density.grid("total"))
    larger = silicon.copy().scale_lattice(1.331 * silicon.volume)
    stretched = ChargeDensity(larger, {"total": total / 1.331}, "stretched")
    table = best.predict_intervals([density, stretched])
    assert table["outside"].iloc[0] is None
    reason = "33 % larger than the calculated volume of mp-149"
    assert reason in table["outside"].iloc[1]


def test_a_volume_that_differs_a_little_is_told(dataset: Dataset, capsys: pytest.CaptureFixture):
    silicon = dataset["mp-149"].structure
    larger = silicon.copy().scale_lattice(1.03 * silicon.volume)
    print_known(load_model("no-dft"), {"a": silicon, "b": larger})
    said = capsys.readouterr().out
    assert "a: Si is mp-149, in the training set\n" in said
    assert "b: Si is mp-149, in the training set, with 3.0 % more volume\n" in said


def test_compressed_crystals_are_outside(no_dft: SavedModel, dataset: Dataset):
    """HfC, whose formation energy would be predicted without a word, and with wider intervals."""
    carbide = dataset["mp-1002124"].structure
    cells = {f"{k}": carbide.copy().scale_lattice(k * carbide.volume) for k in (0.8, 1.0, 1.2)}
    table = no_dft.predict_intervals(cells)
    assert table.loc["1.0", "outside"] is None
    expected = "20 % {} than the calculated volume of mp-1002124"
    assert expected.format("smaller") in table.loc["0.8", "outside"]
    assert expected.format("larger") in table.loc["1.2", "outside"]
    widths = table["formation_energy_per_atom_high"] - table["formation_energy_per_atom_low"]
    assert widths["0.8"] > widths["1.0"]


def test_other_arguments_are_one_line(
    best: SavedModel, no_dft: SavedModel, dataset: Dataset, tmp_path: Path
):
    for model in (best, no_dft):
        for given in (5, None, [1], {"a": pd.DataFrame()}, "absent", tmp_path):
            with pytest.raises(RhosightError) as caught:
                model.predict(given)
            assert "\n" not in str(caught.value)
    with pytest.raises(RhosightError, match="use the model no-dft"):
        best.predict(dataset["mp-149"].structure)
    assert "no density file below this folder" in error_of("predict", "best", tmp_path)


def test_core_electrons_are_not_the_density(best: SavedModel, calculations: Path, tmp_path: Path):
    for name, content in (("AECCAR0", "core density"), ("AECCAR1", "superposed atoms")):
        (tmp_path / name).write_bytes((calculations / "Si" / "CHGCAR").read_bytes())
        with pytest.raises(RhosightError, match=f"holds the .*{content}, not the density"):
            best.predict(tmp_path / name)
        assert "give the CHGCAR" in error_of("predict", "best", tmp_path / name)


def test_figures_and_pixels(calculations: Path, tmp_path: Path):
    file = calculations / "Si" / "CHGCAR"
    options = ("--show", "difference", "--free-atoms", "--hkl", "110", "--size", "32")
    rhosight("image", file, *options, "--format", "svg", "--out", tmp_path)
    figure = (tmp_path / "Si-difference.svg").read_text(encoding="utf-8")
    assert "<svg" in figure
    rhosight("image", file, "--raw", "--hkl", "1", "-1", "0", "--size", "32", "--out", tmp_path)
    assert Image.open(tmp_path / "Si-total.png").size == (32, 32)
    rhosight("image", file, "--size", "32", "--offset", "0.25", "--out", tmp_path)
    assert Image.open(tmp_path / "Si-total.png").size[0] > 1000
    assert "not three Miller indices" in error_of("image", file, "--hkl", "11", "--out", tmp_path)
    assert "add --raw" in error_of("image", file, "--fourier", "--out", tmp_path)


@pytest.mark.parametrize(
    ("text", "indices"),
    [("1,1,0", (1, 1, 0)), ("110", (1, 1, 0)), ("1 -1 0", (1, -1, 0)), ("-1-10", (-1, -1, 0))],
)
def test_miller_indices(text: str, indices: tuple[int, int, int]):
    assert parse_indices(text) == indices


def test_noise_of_a_spin_density_has_no_colour(dataset: Dataset):
    silicon = dataset["mp-149"].density
    noise = 1e-9 * np.random.default_rng(0).normal(size=silicon.shape)
    density = replace(silicon, grids={"total": silicon.grid("total"), "spin": noise})
    figure = draw_slices(density, kinds=("spin",), size=16)
    (image,) = figure.axes[0].images
    assert figure.axes[0].get_title() == "spin: no magnetisation"
    assert image.norm.vmax > 1e5 * np.abs(noise).max()
    magnet = replace(density, grids={"spin": 1e9 * noise})
    assert draw_slices(magnet, kinds=("spin",), size=16).axes[0].get_title() == "spin"


def test_training_does_not_replace_a_model_in_silence(tmp_path: Path):
    """A small set: its scores have a baseline and a caution, its files their usual mode."""
    data, out = tmp_path / "small.parquet", tmp_path / "model"
    load_dataset("mp-fcc")[:40].to_parquet(data)
    command = ("train", data, "--preset", "no-dft", "--target", "efermi", "--out", out)
    done = rhosight(*command)
    assert "baseline R²" in done.stdout and "depend on chance" in done.stdout
    other = tmp_path / "file"
    other.touch()
    assert (out / "model.safetensors").stat().st_mode == other.stat().st_mode
    assert "holds a model already; choose another folder" in error_of(*command)


def test_interrupted_commands_say_how_to_continue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rhosight.dataset.packing.load_dataset", interrupt)
    out = tmp_path / "a run"
    done = rhosight("crossval", "mp-fcc", "--out", out, code=130)
    (line,) = done.stderr.strip().splitlines()
    assert line.endswith(f"to continue: rhosight crossval mp-fcc --out '{out}'")


@pytest.mark.slow
def test_twenty_five_steps_of_a_new_user():
    """Each in a process of its own, and on the page in Chromium."""
    benchmark = Path(__file__).parents[1] / "benchmarks" / "first_steps.py"
    command = [sys.executable, benchmark, "--no-bounds"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


def test_entries_for_a_bibliography():
    text = rhosight("cite").stdout
    assert text.count("@article{") == 3 and "2401.09301" in text
    assert text.count("{") == text.count("}")
