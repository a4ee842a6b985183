"""The command line as a user sees it: output, exit codes, one-line errors."""

from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rhosight import DescriptorModel, PropertyModel, Recipe, load_dataset, load_model, split
from rhosight.cli import main
from rhosight.dataset import Dataset
from rhosight.inputs.image import ImageSettings
from rhosight.models.image_text_encoder import ImageTextEncoder

pytestmark = pytest.mark.usefixtures("small_forests")

FAST = [
    "--extent", "formula", "--size", "48", "--epochs", "1", "1", "--element-steps", "0",
]  # fmt: skip


def in_a_process(*arguments: object) -> subprocess.CompletedProcess:
    """Run the real command in a process of its own: true, and slow to start."""
    command = [sys.executable, "-m", "rhosight", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@dataclass
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def rhosight(*arguments: object, code: int = 0) -> Done:
    """Run the command's own entry point in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["rhosight", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        main()
    done = Done(out.getvalue(), err.getvalue())
    assert (stop.value.code or 0) == code, done
    return done


def error_of(*arguments: object) -> str:
    """The one line of a failing command."""
    lines = rhosight(*arguments, code=2).stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.parquet"
    load_dataset("mp-fcc")[:40].to_parquet(path)
    return path


@pytest.fixture(scope="session")
def model(small, checkpoints, tmp_path_factory):
    """A network of tiny encoders: its predictions are printed here, not judged."""
    folder = tmp_path_factory.mktemp("models") / "model"
    rows, _ = split(load_dataset(small))
    size = ImageSettings().model_copy(update={"size": 48})
    recipe = Recipe(
        image={"backbone": checkpoints["image"], "settings": size},
        text={"backbone": checkpoints["text"], "extent": "keywords", "element_steps": 0},
        head={"epochs": 3},
        fine_tuning={"epochs": 1},
        stacked={"head_epochs": 1, "fine_tuning_epochs": 1},
    )
    PropertyModel(recipe).fit(load_dataset(small)[rows]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chgcars(small, tmp_path_factory):
    """CHGCAR files of the test split."""
    dataset = load_dataset(small)
    folder = tmp_path_factory.mktemp("chgcars")
    kind = ImageSettings().kinds[0]
    files = []
    for material in dataset[split(dataset)[1]]:
        files.append(folder / f"{material.material_id}.CHGCAR")
        material.density.to_chgcar(files[-1], kind)
    return kind, files


def test_help_shows_every_command_with_an_example():
    for command in (
        "demo",
        "crossval",
        "train",
        "pretrain",
        "predict",
        "image",
        "data info",
        "data pack",
    ):
        text = rhosight(*command.split(), "--help").stdout
        assert f"rhosight {command}" in " ".join(text.split()), command
        assert "Example:" in text, command
    said = rhosight("predict", "--help").stdout
    assert said.count("rhosight[chgnet]") == 2  # brackets are no style: the model, and --relax


def test_the_example_of_image_draws_a_difference(relaxed, tmp_path):
    """Of an ordinary CHGCAR, which holds none."""
    words = rhosight("image", "--help").stdout.split("Example: rhosight image CHGCAR")[1].split()
    options = words[: words.index("--out")]
    assert options == ["--show", "difference", "--free-atoms"]
    rhosight("image", relaxed / "Si" / "CHGCAR", *options, "--size", "8", "--out", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["Si-difference.png"]


def test_train_and_predict(small, tmp_path):
    out = rhosight("train", small, "--out", tmp_path / "m", "--modality", "image", *FAST).stdout
    assert "RMSE" in out and "GPa" in out
    frame = json.loads(rhosight("predict", tmp_path / "m", small, "--format", "json").stdout)
    assert frame["units"]["efermi"] == "eV" and len(frame["predictions"]) == 40
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"], "training left files behind"


def test_chgcar_files_and_the_dataset_give_the_same_values(model, small, chgcars):
    kind, files = chgcars
    out = rhosight("predict", model, *files, "--kind", kind, "--format", "json").stdout
    rows = pd.DataFrame(json.loads(out)["predictions"])
    rows.index = [name.rsplit("/", 1)[-1].removesuffix(".CHGCAR") for name in rows["material"]]
    dataset = load_dataset(small)
    expected = PropertyModel.from_pretrained(model).predict(dataset[list(rows.index)])
    np.testing.assert_allclose(rows[expected.columns], expected, rtol=1e-5, atol=1e-4)


def test_predict_writes_csv(model, small, tmp_path):
    rhosight("predict", model, small, "--format", "csv", "--out", tmp_path / "p.csv")
    frame = pd.read_csv(tmp_path / "p.csv", index_col=0)
    assert list(frame.columns)[-2:] == ["bulk_modulus_vrh (GPa)", "notes"] and len(frame) == 40
    assert frame["formula"].to_list() == load_dataset(small).table["formula"].to_list()


def test_predict_writes_what_the_suffix_says(silicon, tmp_path):
    out = tmp_path / "p.json"
    rhosight("predict", "no-dft", silicon, "--out", out)
    (row,) = json.loads(out.read_text(encoding="utf-8"))["predictions"]
    assert row["material"] == str(silicon)
    rhosight("predict", "no-dft", silicon, "--out", out, "--format", "csv")
    assert len(pd.read_csv(out)) == 1


@pytest.fixture
def silicon(tmp_path):
    """Silicon as a CIF."""
    path = tmp_path / "Si.cif"
    load_dataset("mp-fcc")["mp-149"].structure.to(filename=str(path))
    return path


@pytest.fixture
def relaxed(tmp_path):
    """A folder of calculations, as VASP names their files."""
    folder = tmp_path / "relaxed"
    for material in load_dataset("mp-fcc")[["mp-149", "mp-21075"]]:
        (folder / material.formula).mkdir(parents=True)
        material.density.to_chgcar(folder / material.formula / "CHGCAR")
    return folder


def test_the_files_beside_a_bad_one_are_predicted(relaxed, tmp_path, caplog):
    """The bad one comes last, with its reason; the values are those of the good ones alone."""
    good = sorted(relaxed.glob("*/CHGCAR"))
    bad = tmp_path / "bad" / "CHGCAR"
    bad.parent.mkdir()
    bad.write_text(good[0].read_text()[:2000])
    for file in good:  # as VASP writes them
        occupancies = (f"augmentation occupancies   {n}   1\n  0.1E+00\n" for n in (1, 2))
        file.write_text(file.read_text() + "".join(occupancies))
    command = ("predict", "best", good[0], bad, good[1], "--format", "csv")
    done = rhosight(*command, code=1)
    assert caplog.text.count("densities of VASP") == 1
    found = pd.read_csv(io.StringIO(done.stdout), index_col=0)
    assert list(found.index) == [str(file) for file in good]
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith(f"not predicted: {bad}: truncated")
    alone = rhosight("predict", "best", *good, "--format", "csv").stdout
    alone = pd.read_csv(io.StringIO(alone), index_col=0)
    np.testing.assert_allclose(found.select_dtypes(float), alone.select_dtypes(float))

    rhosight(*command, "--out", tmp_path / "p.csv", code=1)
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2
    assert "truncated" in error_of("predict", "best", bad, bad)


def test_structures_beside_a_bad_one_are_predicted(silicon, tmp_path):
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a nonsense\n")
    done = rhosight("predict", "no-dft", tmp_path / "bad.cif", silicon, "--format", "csv", code=1)
    assert str(silicon) in done.stdout and "bad.cif" not in done.stdout
    assert f"not predicted: {tmp_path / 'bad.cif'}: not a readable CIF file" in done.stderr


def test_image_writes_slices(chgcars, tmp_path):
    kind, files = chgcars
    rhosight("image", files[0], "--kind", kind, "--out", tmp_path, "--size", "64", "--raw")
    picture = Image.open(tmp_path / f"{files[0].stem}-{kind}.png")
    assert picture.size == (64, 64) and np.asarray(picture).std() > 5
    rhosight(
        "image", "mp-fcc", "--id", "mp-149", "--show", "difference", "--out", tmp_path,
        "--hkl", "1", "1", "0",
    )  # fmt: skip
    assert (tmp_path / "mp-149-difference.png").exists()


def test_each_picture_is_called_as_its_material(relaxed, tmp_path):
    """By the folder of VASP's files; two files never share a picture."""
    silicon = relaxed / "Si" / "CHGCAR"
    for name in ("CHG", "AECCAR2", "run.chgcar"):
        (relaxed / "Si" / name).write_bytes(silicon.read_bytes())
    out = tmp_path / "slices"

    def drawn(*files: object) -> set[str]:
        rhosight("image", *files, "--size", "8", "--out", out)
        names = {file.name.removesuffix("-total.png") for file in out.iterdir()}
        shutil.rmtree(out)
        return names

    assert drawn(*relaxed.glob("*/CHGCAR")) == {"Si", "HfC"}
    assert drawn(relaxed / "Si/CHG", relaxed / "HfC/CHGCAR") == {"Si", "HfC"}
    assert drawn(relaxed / "Si/AECCAR2", relaxed / "Si/run.chgcar") == {"Si", "run"}
    both = drawn(silicon, relaxed / "Si/AECCAR2")
    assert len(both) == 2 and all(name.endswith(("Si-CHGCAR", "Si-AECCAR2")) for name in both)
    assert "give each file once" in error_of("image", silicon, silicon, "--out", out)
    assert not out.exists()


def test_crossval_prints_a_table_and_goes_on(small, checkpoints, tmp_path, caplog):
    arguments = (
        "crossval", small, "--out", tmp_path / "run", "--only-folds", "1", "--modality", "image",
        "--image-backbone", checkpoints["image"], *FAST,
    )  # fmt: skip
    first = rhosight(*arguments)
    assert first.stdout.count("fine-tuning") == 3
    for word in ("density", "composition", "fine-tuning", "validation", "GPa"):
        assert word in first.stdout
    assert (tmp_path / "run" / "report.html").exists()
    with caplog.at_level(logging.INFO):
        rhosight(*arguments)
    assert "already finished" in caplog.text


def test_crossval_of_descriptors_alone(small, tmp_path):
    arguments = ("crossval", small, "--out", tmp_path / "run", "--only-folds", "1")
    options = ("--preset", "no-dft", "--target", "efermi", "--groups", "chemsys")
    first = rhosight(*arguments, *options).stdout
    assert "no-dft" in first and "fine-tuning" not in first and "targets:" not in first
    settings = json.loads((tmp_path / "run" / "settings.json").read_text(encoding="utf-8"))
    assert settings["groups"] == "chemsys"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<title>rhosight: no-dft on mp-fcc</title>" in page
    message = error_of(*arguments, "--preset", "best", "--epochs", "2", "1")
    assert "best trains no network and has no option --epochs" in message
    message = error_of("pretrain", small, "--out", tmp_path / "m", "--preset", "best")
    assert "best trains no network; use default" in message


@pytest.fixture(scope="session")
def hardness(small, tmp_path_factory):
    """A dataset without the paper's targets, as a CSV file of one's own gives it."""
    path = tmp_path_factory.mktemp("data") / "hardness.parquet"
    dataset = load_dataset(small)
    labels = dataset.table[["formula"]].assign(
        hardness=dataset.targets["bulk_modulus_vrh"] / 10,
        band_gap=dataset.targets["efermi"].abs(),
    )
    Dataset.from_densities(dataset.densities, labels).to_parquet(path)
    return path


def test_without_a_target_those_of_the_dataset_are_learned(hardness, tmp_path):
    out = rhosight("train", hardness, "--preset", "no-dft", "--out", tmp_path / "m").stdout
    assert "targets: hardness\n" in out
    assert load_model(tmp_path / "m").targets == ("hardness",)
    out = rhosight(
        "crossval", hardness, "--preset", "no-dft", "--only-folds", "1", "--out", tmp_path / "run"
    ).stdout
    assert "targets: hardness\n" in out and "hardness: R²" in out
    message = error_of("crossval", hardness, "--target", "efermi", "--out", tmp_path / "other")
    assert "no value of `efermi`; choose from hardness (--target, or targets=)" in message


def test_of_the_papers_targets_those_that_are_there_are_learned(hardness, small, tmp_path):
    labels = load_dataset(small).table[["efermi"]].assign(hardness=1.0)
    both = tmp_path / "both.parquet"
    Dataset.from_densities(load_dataset(small).densities, labels).to_parquet(both)
    rhosight("train", both, "--preset", "no-dft", "--out", tmp_path / "m")
    assert load_model(tmp_path / "m").targets == ("efermi",)


def test_a_label_is_learned_when_it_is_asked_for(hardness, tmp_path):
    command = ("train", hardness, "--preset", "no-dft", "--target", "band_gap")
    assert "band_gap" in rhosight(*command, "--out", tmp_path / "m").stdout
    assert load_model(tmp_path / "m").units == {"band_gap": "eV"}
    command = ("crossval", hardness, "--preset", "no-dft", "--target", "band_gap")
    out = rhosight(*command, "--only-folds", "1", "--out", tmp_path / "run").stdout
    assert "band_gap: R² / RMSE (eV)" in out


def test_a_sweep_learns_the_targets_of_the_dataset(hardness, tmp_path):
    kernels = {"few": [{"together": ["volume"]}], "many": [{"together": ["volume", "fractions"]}]}
    space = {"recipe": "no-dft", "parameters": {"kernels": {"choices": kernels}}}
    (tmp_path / "space.json").write_text(json.dumps(space))
    command = ("sweep", hardness, "--space", tmp_path / "space.json", "--trials", "1")
    out = rhosight(*command, "--folds", "2", "--out", tmp_path / "run").stdout
    assert "targets: hardness\n" in out
    recipe = json.loads((tmp_path / "run" / "best-recipe.json").read_text())
    assert recipe["targets"] == ["hardness"]


def test_pretrain_has_the_options_that_it_reads():
    said = rhosight("pretrain", "--help").stdout
    assert "--pretraining-epochs" in said and "no-dft" not in said
    for option in ("--epochs", "--target", "--modality", "--learning-rate"):
        assert option not in said
        assert option in rhosight("pretrain", "--out", "m", option, "1", code=2).stderr


def test_data_info_tells_what_is_masked():
    out = rhosight("data", "info", "mp-fcc", "--iqr", "difference").stdout
    for word in ("405 materials", "Voigt", "negative", "CC BY 4.0", "removed", "eV/atom"):
        assert word in out


def test_data_pack_makes_a_dataset_of_a_folder(folder, few, tmp_path):
    out = rhosight("data", "pack", folder, tmp_path / "few.parquet", "--no-texts").stdout
    assert "6 materials" in out and "1 label masked" in out
    assert load_dataset(tmp_path / "few.parquet").ids == few.ids
    message = error_of("data", "pack", tmp_path / "absent", tmp_path / "out.parquet")
    assert "absent" in message and not (tmp_path / "out.parquet").exists()


class TestBadInput:
    """Each gives one line that names the file and the cure, and exit code 2."""

    def test_in_a_process_of_its_own(self, model, tmp_path):
        done = in_a_process("predict", model, tmp_path / "absent")
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.strip().count("\n") == 0 and "absent: no such file" in done.stderr

    def test_missing_file(self, model, tmp_path):
        assert "absent: no such file" in error_of("predict", model, tmp_path / "absent")

    def test_truncated(self, model, chgcars, tmp_path):
        text = chgcars[1][0].read_text()
        (tmp_path / "CHGCAR").write_text(text[: len(text) // 2])
        assert "CHGCAR: truncated" in error_of("predict", model, tmp_path / "CHGCAR")

    def test_not_numeric(self, model, chgcars, tmp_path):
        lines = chgcars[1][0].read_text().splitlines()
        lines[40] = lines[40].replace("E", "X", 1)
        (tmp_path / "CHGCAR").write_text("\n".join(lines))
        assert "CHGCAR" in error_of("predict", model, tmp_path / "CHGCAR")

    def test_nan(self, model, chgcars, tmp_path):
        lines = chgcars[1][0].read_text().splitlines()
        lines[40] = " ".join(["NaN", *lines[40].split()[1:]])
        (tmp_path / "CHGCAR").write_text("\n".join(lines))
        assert "NaN" in error_of("predict", model, tmp_path / "CHGCAR")

    def test_grid_against_cell(self, model, tmp_path):
        dataset = load_dataset("mp-fcc")
        density = dataset["mp-149"].density
        density.to_chgcar(tmp_path / "CHGCAR")
        nx, ny, nz = density.shape
        text = (tmp_path / "CHGCAR").read_text()
        text = text.replace(f"   {nx}   {ny}   {nz}\n", f"   {nx * ny}   1   {nz}\n")
        (tmp_path / "CHGCAR").write_text(text)
        message = error_of("predict", model, tmp_path / "CHGCAR")
        assert "contradicts the cell" in message

    def test_unknown_backbone(self, small):
        message = error_of("crossval", small, "--image-backbone", "resnet999")
        assert "resnet999" in message and "tf_efficientnet_lite0" in message

    def test_unknown_target(self, small):
        assert "hardness" in error_of("crossval", small, "--target", "hardness")

    def test_dataset_without_the_target(self, tmp_path):
        dataset = load_dataset("mp-fcc")
        lacking = dataset[dataset.targets["bulk_modulus_vrh"].isna().to_numpy()]
        lacking.to_parquet(tmp_path / "lacking.parquet")
        message = error_of(
            "train", tmp_path / "lacking.parquet", "--out", tmp_path / "m",
            "--target", "bulk_modulus_vrh",
        )  # fmt: skip
        assert "bulk_modulus_vrh" in message and not (tmp_path / "m").exists()

    def test_a_preset_misspelled(self, small, tmp_path):
        for name, meant in (("nodft", "no-dft"), ("Best", "best"), ("paper-table2-t3", "-T3")):
            message = error_of("train", small, "--out", tmp_path / "m", "--preset", name)
            assert f"unknown preset '{name}'" in message and meant in message.split(";")[1]
        message = error_of("pretrain", small, "--out", tmp_path / "m", "--preset", "xyz")
        assert "clip-offline" in message and "no-dft" not in message

    def test_a_place_where_no_model_can_be_saved(self, small, tmp_path, monkeypatch):
        """Said before anything is learned."""
        for trained in (DescriptorModel, ImageTextEncoder):
            monkeypatch.setattr(trained, "fit", lambda *_, **__: pytest.fail("it was trained"))
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "mine.txt").touch()
        for command in ("train", "pretrain"):
            message = error_of(command, small, "--out", tmp_path / "notes")
            assert "not empty and not a model" in message
            assert "is a file" in error_of(command, small, "--out", tmp_path / "notes/mine.txt")
            message = error_of(command, small, "--out", tmp_path / "notes/mine.txt/m")
            assert "is not a writable folder" in message
        (tmp_path / "notes" / "mine.txt").unlink()
        (tmp_path / "notes" / "config.json").write_text('{"model_type": "bert"}')
        assert "not empty and not a model" in error_of("train", small, "--out", tmp_path / "notes")
        (tmp_path / "notes" / "config.json").write_text('{"rhosight_format": 1}')
        (tmp_path / "notes" / "predictions.csv").touch()
        message = error_of("train", small, "--out", tmp_path / "notes")
        assert "holds a model and predictions.csv, which would be lost" in message

    def test_too_few_materials_to_train_with(self, small, tmp_path):
        load_dataset(small)[:3].to_parquet(tmp_path / "three.parquet")
        command = ("train", tmp_path / "three.parquet", "--out", tmp_path / "m")
        message = error_of(*command, "--test-fraction", "0")
        assert "it takes 5 formulas" in message and "3 materials have 3" in message

    def test_folder_that_is_no_model(self, small, tmp_path):
        assert "not a rhosight model" in error_of("predict", tmp_path, small)

    def test_a_structure_for_a_model_of_densities(self, tmp_path):
        structure = load_dataset("mp-fcc")["mp-149"].structure
        file = tmp_path / "Si.vasp"
        structure.to(filename=str(file), fmt="poscar")
        assert f"`rhosight explain {file} --model no-dft`" in error_of("explain", file)
        assert f"`rhosight density {file}`" in error_of("image", file)

    def test_a_model_misspelled_or_forgotten(self, chgcars):
        file = chgcars[1][0]
        for arguments in (("predict", "bestt", file), ("explain", file, "--model", "bestt")):
            message = error_of(*arguments)
            assert "bestt: no such model; give best, no-dft" in message
        for arguments in ((file,), (file, file), ("mp-fcc",)):
            message = error_of("predict", *arguments)
            assert f"`rhosight predict best {arguments[0]}`" in message and "no-dft" in message
        assert "`rhosight predict no-dft a.cif`" in error_of("predict", "a.cif")
        assert "no files are given" in error_of("predict", "best")

    def test_a_folder_of_densities_is_no_dataset(self, relaxed, tmp_path):
        message = error_of("train", relaxed, "--out", tmp_path / "m")
        assert f"`rhosight data build directory {relaxed} mine.parquet`" in message
        (tmp_path / "empty").mkdir()
        message = error_of("predict", "best", tmp_path / "empty")
        assert "no density file below this folder; expected CHGCAR" in message

    def test_a_file_that_cannot_be_written(self, relaxed, tmp_path, monkeypatch):
        """Said before anything is computed."""
        predict = "predict_intervals"
        monkeypatch.setattr(DescriptorModel, predict, lambda *_, **__: pytest.fail("predicted"))
        command = ("predict", "best", relaxed / "Si" / "CHGCAR", "--out")
        message = error_of(*command, tmp_path / "no" / "x.csv")
        assert f"{tmp_path}/no is not a writable folder" in message
        assert "is a folder" in error_of(*command, tmp_path)

    def test_no_structure(self, tmp_path):
        for name in ("bad.txt", "bad.cif", "POSCAR"):
            (tmp_path / name).write_text("data_x\n_cell_length_a nonsense\n")
            message = error_of("predict", "no-dft", tmp_path / name)
            assert f"{name}: not a readable CIF file (it contains no atom sites)" in message
        assert "no such file" in error_of("predict", "no-dft", tmp_path / "absent.cif")

    def test_options_of_files_for_a_dataset(self, small):
        for option in (("--kind", "difference"), ("--difference", "{parent}/x")):
            message = error_of("predict", "best", small, *option)
            assert option[0] in message and "for density files" in message
        assert "choose a kind with --show" in error_of("image", "mp-fcc", "--kind", "difference")

    def test_a_pattern_that_names_no_file(self, relaxed):
        files = sorted(relaxed.glob("*/CHGCAR"))
        for command in (("predict", "best", *files), ("explain", *files)):
            message = error_of(*command, "--difference", "{foo}/x.cube")
            assert "use {parent}, {name} or {stem}" in message
        message = error_of("predict", "best", *files, "--difference", "x.cube")
        assert "the same file for every density" in message

    def test_an_address_of_no_machine(self):
        for host in ("300.1.1.1", "192.0.2.1"):  # the second is kept for documentation
            message = error_of("serve", "--host", host)
            assert f"{host}: not an address of this machine" in message and "--port" not in message

    def test_wrong_recipe_file(self, small, tmp_path):
        (tmp_path / "recipe.json").write_text('{"depth": 3}')
        message = error_of("crossval", small, "--recipe-file", tmp_path / "recipe.json")
        assert "depth" in message
