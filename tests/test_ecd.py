"""Charge densities predicted from structures: errors, invariances, files, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.operations import SymmOp
from safetensors.numpy import load_file
from typer.testing import CliRunner

import rhosight
from rhosight.cli import app
from rhosight.dataset import Dataset
from rhosight.dataset.splits import split
from rhosight.density.crystals import list_symbols
from rhosight.density.free_atoms import list_elements, promolecule
from rhosight.density.predicted import get_error, is_predicted, mark_predicted, write_density
from rhosight.ecd.symmetry import choose_shape, find_operations
from rhosight.ecd.training import TrainingSettings

DOUBLED = np.diag([2, 1, 1])
SHIFT = np.array([0.25, 0.5, 0.2])


@pytest.fixture(scope="module")
def model() -> rhosight.DensityModel:
    return rhosight.DensityModel.from_pretrained("density")


@pytest.fixture(scope="module")
def silicon(dataset: Dataset) -> Structure:
    return dataset["mp-149"].density.structure


@pytest.fixture(scope="module")
def prediction(model: rhosight.DensityModel, silicon: Structure):
    return model.predict(silicon, grid=(20, 20, 20))


def test_test_crystals_are_predicted_better_than_by_free_atoms(
    model: rhosight.DensityModel, dataset: Dataset
):
    test = dataset[split(dataset)[1]]
    assert not set(test.ids) & set(model.about["training_ids"])
    assert len(model.about["training_ids"]) + len(test) == len(dataset)
    errors = []
    for density in list(test.densities)[::12]:
        truth = density.grid("total").astype(float)
        predicted = model.predict_density(density.structure, grid=density.shape).grid("total")
        free = promolecule(density.structure, density.shape, cutoff=400)
        share, before = (np.abs(truth - other).sum() / truth.sum() for other in (predicted, free))
        assert share < before
        errors.append(share)
    assert len(errors) > 4 and np.mean(errors) < 0.025


def test_the_recorded_errors_are_those_of_crystals_not_seen(model: rhosight.DensityModel):
    errors = model.errors
    assert (errors["error"] < errors["promolecule"]).mean() >= 0.99
    assert errors["error"].mean() < 0.015
    assert model.scores["folds"]["mean"] == pytest.approx(100 * errors["error"].mean(), abs=1e-3)


BENT = Structure(  # cubic within the tolerance of the search for symmetry, not beyond
    Lattice.from_parameters(3.9, 3.9002, 3.905, 90, 90.02, 90),
    ["Sr", "Ti", "O", "O", "O"],
    [[0, 0, 0], [0.5, 0.5001, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
)
SKEW = Structure(  # no symmetry
    Lattice.from_parameters(3.1, 3.4, 3.8, 81, 97, 104),
    ["Li", "F"],
    [[0.1, 0.2, 0.3], [0.6, 0.7, 0.9]],
)


@pytest.mark.parametrize("crystal", [None, BENT, SKEW], ids=["silicon", "bent", "skew"])
def test_any_cell_of_a_crystal_has_the_same_density(
    model: rhosight.DensityModel, silicon: Structure, prediction, crystal: Structure | None
):
    small = crystal or silicon
    density = (
        prediction.density if crystal is None else model.predict_density(crystal, grid=(20,) * 3)
    )
    big = small.copy()
    big.make_supercell(DOUBLED)
    big.apply_operation(SymmOp.from_axis_angle_and_translation([1, 2, 3], 33))
    big.translate_sites(range(len(big)), SHIFT)
    other = model.predict_density(big, grid=(40, 20, 20))
    steps = np.stack(np.meshgrid(*map(np.arange, other.shape), indexing="ij"), -1).reshape(-1, 3)
    places = (steps / other.shape - SHIFT) @ DOUBLED * 20
    index = tuple((np.round(places).astype(int) % 20).T)
    assert np.abs(places - np.round(places)).max() < 1e-9
    for kind in ("total", "difference"):
        ours = density.grid(kind)[index]
        theirs = other.grid(kind).ravel()
        assert np.abs(ours - theirs).max() < 1e-6
    electrons = density.integral("total") / len(small)
    assert other.integral("total") / len(big) == pytest.approx(electrons, abs=1e-7)


def test_the_density_is_positive_and_as_symmetric_as_the_crystal(
    model: rhosight.DensityModel, prediction, silicon: Structure
):
    total = prediction.density.grid("total")
    assert total.min() > 0
    symmetry = find_operations(silicon)
    assert len(symmetry.rotations) == 48
    steps = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
        image = np.round(steps @ rotation.T + 20 * translation).astype(int) % 20
        assert np.abs(total[tuple(image.T)] - total.ravel()).max() < 1e-6
    assert prediction.spread.shape == total.shape and prediction.spread.min() >= 0
    share = prediction.error_map.sum() / total.sum()
    assert share == pytest.approx(prediction.error)
    # no atom is at a centre of inversion, where grids have most of the operations
    corundum = Structure.from_spacegroup(
        "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]
    ).get_primitive_structure()
    values = model.predict_density(corundum, grid=(24, 24, 24)).grid("total")
    symmetry = find_operations(corundum)
    assert len(symmetry.rotations) == 12
    steps = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
        image = np.round(steps @ rotation.T + 24 * translation).astype(int) % 24
        assert np.abs(values[tuple(image.T)] - values.ravel()).max() < 1e-6
    # free atoms end before the middle of this cell
    lonely = Structure(Lattice.cubic(9.5), ["Cs"], [[0, 0, 0]])
    assert model.predict_density(lonely, spacing=0.5).grid("total").min() > 0


def test_the_integral_does_not_depend_on_the_grid(
    model: rhosight.DensityModel, silicon: Structure, prediction
):
    coarse = model.predict_density(silicon, spacing=0.4)
    assert coarse.shape != prediction.density.shape
    expected = prediction.density.integral("total")
    assert coarse.integral("total") == pytest.approx(expected, abs=1e-6)
    stated = prediction.density.provenance["integrals"]["total"]
    assert stated == pytest.approx(expected, abs=1e-6)


def test_a_cell_that_is_nearly_symmetric_is_treated_as_symmetric():
    bent = Structure(
        Lattice.from_parameters(3.0, 3.0004, 3.0, 90, 90.01, 90),
        ["Cs", "Cl"],
        [[0, 0, 0], [0.5, 0.5004, 0.5]],
    )
    symmetry = find_operations(bent)
    assert len(symmetry.rotations) == 48
    matrix = symmetry.structure.lattice.matrix
    for rotation in symmetry.rotations:
        metric = matrix @ matrix.T
        assert np.abs(rotation.T @ metric @ rotation - metric).max() < 1e-9
    assert np.abs(matrix - bent.lattice.matrix).max() < 2e-3
    assert len(set(choose_shape(symmetry, 0.2))) == 1


def test_files_say_that_the_density_is_predicted(prediction, tmp_path: Path):
    assert is_predicted(prediction.density)
    for name in ("Si.CHGCAR", "Si.cube", "Si.h5"):
        write_density(prediction.density, tmp_path / name)
        read = rhosight.read_density(tmp_path / name)
        assert is_predicted(read)
        assert any("predicted density, not SCF" in note for note in read.provenance["notes"])
        error = prediction.error, prediction.error_bound
        assert get_error(read.provenance) == pytest.approx(error, rel=0.06)  # two digits
        assert np.abs(read.grid("total") - prediction.density.grid("total")).max() < 1e-5
    marked = mark_predicted(prediction.density, "a model", 0.5, 1.0, [])
    write_density(marked, tmp_path / "unsure.cube")
    assert get_error(rhosight.read_density(tmp_path / "unsure.cube").provenance) == (0.5, 1.0)
    write_density(prediction.density, tmp_path / "difference.cube", "difference")
    read = rhosight.read_density(tmp_path / "difference.cube", kind="difference")
    ours = prediction.density.grid("difference")
    assert np.abs(read.grid("difference") - ours).max() < 1e-6
    with pytest.raises(rhosight.RhosightError, match="does not tell a format"):
        write_density(prediction.density, tmp_path / "Si.txt")


def test_new_elements_and_structure_types_are_outside(
    model: rhosight.DensityModel, silicon: Structure, prediction
):
    assert prediction.outside == ()
    assert 0 < prediction.error < prediction.error_bound < 0.2
    simple = Structure(Lattice.cubic(2.9), ["Ne"], [[0, 0, 0]])
    result = model.predict(simple, spacing=0.5)
    assert any("element Ne" in reason for reason in result.outside)
    assert any("structure type" in reason for reason in result.outside)
    assert "outside the training domain" in result.density.comment
    known, new = (
        Structure.from_spacegroup(group, Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
        for group in ("Fm-3m", "Pm-3m")
    )
    expected, bound = model.reliability.expect(known, 0.05)
    wider = model.reliability.expect(new, 0.05)
    assert wider == pytest.approx([expected * factor for factor in model.reliability.new_type])
    assert wider[0] > 1.2 * expected and wider[1] > 1.2 * bound
    uranium = Structure(Lattice.cubic(3.4), ["U"], [[0, 0, 0]])
    with pytest.raises(rhosight.RhosightError, match="no free atom of U"):
        model.predict_density(uranium)
    with pytest.raises(rhosight.RhosightError, match="spacing"):
        model.predict_density(silicon, spacing=5.0)


def test_a_model_is_trained_saved_and_loaded(dataset: Dataset, tmp_path: Path, silicon: Structure):
    train = dataset[["mp-149", "mp-1002206", "mp-1002124", "mp-1001833", "mp-21075", "mp-16495"]]
    small = rhosight.DensityModel(TrainingSettings(steps=3, batch=64, members=1)).fit(train)
    assert len(small.errors) == len(train)
    small.save_pretrained(tmp_path / "model")
    vectors = load_file(tmp_path / "model" / "model.safetensors")["0.element"]
    symbols = {symbol for one in train.structures for symbol in list_symbols(one)}
    learned = {list_elements()[row] for row in np.flatnonzero(np.abs(vectors).any(axis=1))}
    assert (
        learned and learned < symbols
    )  # the first fold lacks elements of the crystal it leaves out
    loaded = rhosight.DensityModel.from_pretrained(tmp_path / "model")
    ours, theirs = (
        one.predict_density(silicon, spacing=0.5).grid("total") for one in (small, loaded)
    )
    assert np.array_equal(ours, theirs)
    cube = Structure(Lattice.cubic(3), ["Po"], [[0, 0, 0]])  # too few types to say anything
    assert loaded.reliability.expect(cube, 0.1)[1] == 1
    assert loaded.scores["new_types"]["crystals"] == len(train)
    with pytest.raises(rhosight.RhosightError, match="predicts charge densities"):
        rhosight.load_model(tmp_path / "model")
    with pytest.raises(rhosight.RhosightError, match="in the training set"):
        loaded.score(train)


def test_the_command_writes_a_density(silicon: Structure, tmp_path: Path):
    cif = tmp_path / "Si.cif"
    silicon.to(filename=str(cif))
    bad = tmp_path / "bad.cif"
    bad.write_text("data_x\n")
    run = CliRunner().invoke(app, ["density", str(cif), str(bad), "--spacing", "0.4"])
    assert run.exit_code == 1
    one, errors = ["density", str(cif), "--spacing", "0.4", "--force"], tmp_path / "errors.cube"
    run_map = CliRunner().invoke(app, [*one, "--error-map", str(errors)])
    assert run_map.exit_code == 0 and "error expected at each point" in run_map.output
    with pytest.raises(rhosight.RhosightError, match="contains a map of errors"):
        rhosight.read_density(errors)
    assert errors.read_text().startswith("error map (expected |error|), not a density")
    with pytest.raises(rhosight.RhosightError, match="one file for 2 crystals"):
        arguments = [*one, str(bad), "--error-map", str(errors)]
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "not SCF" in run.output and "bad.cif" in run.output
    read = rhosight.read_density(tmp_path / "Si.CHGCAR")
    assert is_predicted(read) and read.integral("total") > 7
    with pytest.raises(rhosight.RhosightError, match="exists already"):
        CliRunner().invoke(app, ["density", str(cif)], catch_exceptions=False)


def test_best_predicts_a_structure_by_way_of_its_density(
    silicon: Structure, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    silicon.to(filename=str(tmp_path / "Si.cif"))
    run = CliRunner().invoke(app, ["predict", "best", str(tmp_path), "--format", "json"])
    assert run.exit_code == 0
    (row,) = json.loads(run.stdout)["predictions"]
    assert "predicted density, not SCF" in row["notes"] and row["density_source"] == "predicted"
    assert 0 < row["density_error"] < row["density_error_bound"] < 0.05
    assert "no clear gain over no-dft" in caplog.text
    assert abs(row["formation_energy_per_atom"]) < 0.3 and row["bulk_modulus_vrh"] > 50
