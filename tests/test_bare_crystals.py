"""Datasets of crystals without densities: built, checked, learned from and predicted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from rhosight.cli import app
from rhosight.dataset import Dataset, clean, load_dataset, split, validate_file
from rhosight.dataset.sources.structures import Structures
from rhosight.density.bare_crystal import BareCrystal
from rhosight.errors import RhosightError
from rhosight.explain.explain import explain
from rhosight.models.blocks import keep_describable
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe, descriptor_recipe

SMALL = Kernel(alone=("fractions",), together=("magpie", "volume"))


@pytest.fixture(scope="module")
def elastic() -> Dataset:
    return load_dataset("mp-elastic")


@pytest.fixture(scope="module")
def some(elastic: Dataset) -> Dataset:
    """Return 40 crystals of several lattices with all five labels."""
    whole = np.flatnonzero(elastic.targets.notna().all(axis=1) & (elastic.table["nsites"] < 7))
    return keep_describable(elastic[whole[::30][:41]], descriptor_recipe("no-dft"))


@pytest.fixture(scope="module")
def model(some: Dataset) -> DescriptorModel:
    recipe = DescriptorRecipe(targets=("hardness",), kernels=(SMALL,), n_splits=2)
    table = some.table.assign(hardness=np.log(some.targets["bulk_modulus_vrh"]))[["hardness"]]
    crystals = some.crystals
    return DescriptorModel(recipe).fit(Dataset.from_densities(crystals, table))


def test_the_bundled_crystals_of_all_lattices(elastic: Dataset, dataset: Dataset):
    assert len(elastic) == 2838 and set(dataset.ids) < set(elastic.ids)
    assert dict(elastic.units) == {
        "formation_energy_per_atom": "eV/atom",
        "efermi": "eV",
        "bulk_modulus_vrh": "GPa",
        "band_gap": "eV",
        "shear_modulus_vrh": "GPa",
    }
    assert not elastic.kinds and not elastic.has_density.any()
    moduli = elastic.targets[["bulk_modulus_vrh", "shear_modulus_vrh"]]
    assert moduli.min().min() > 0 and moduli.max().max() < 600
    same = elastic.targets.loc[dataset.ids, "bulk_modulus_vrh"]
    ours = dataset.targets["bulk_modulus_vrh"]
    assert (same.isna() == ours.isna()).all()  # masked for the same reasons
    assert np.nanmax(np.abs(same - ours)) < 0.5
    assert "CC BY 4.0" in elastic.metadata["licence"]


def test_the_bundled_test_set_holds_that_of_the_cubic_crystals(elastic: Dataset, dataset: Dataset):
    train, test = (set(elastic[rows].ids) for rows in split(elastic))
    fcc_train, fcc_test = (set(dataset[rows].ids) for rows in split(dataset))
    assert fcc_train < train and fcc_test < test
    formulas = [set(elastic[sorted(ids)].table["formula"]) for ids in (train, test)]
    assert not formulas[0] & formulas[1] and 0.13 < len(test) / len(elastic) < 0.18
    assert len(split(elastic, 0.3, seed=1)[1]) / len(elastic) == pytest.approx(0.3, abs=0.01)


def test_a_material_without_density_says_so(some: Dataset):
    material = some[0]
    assert material.structure.composition.reduced_formula == material.formula
    for read in (lambda: material.density, lambda: some.densities[0]):
        with pytest.raises(RhosightError, match=f"{material.material_id}: there is no charge") as e:
            read()
        assert "no-dft" in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(RhosightError, match="there is no charge density"):
        DescriptorModel(descriptor_recipe("best", targets=("efermi",))).fit(some)


def test_materials_with_and_without_density_in_one_dataset(
    some: Dataset, few: Dataset, tmp_path: Path
):
    crystals = [*few.densities, *some.crystals[:3]]
    labels = pd.concat([few.targets, some.targets[:3]])
    Dataset.from_densities(crystals, labels).to_parquet(tmp_path / "mixed.parquet")
    mixed = load_dataset(tmp_path / "mixed.parquet")
    assert mixed.has_density.tolist() == [True] * 6 + [False] * 3
    assert np.array_equal(mixed[0].density.grid("total"), few[0].density.grid("total"))
    assert mixed.crystals[7].structure == some.structures[1]
    errors = validate_file(tmp_path / "mixed.parquet").query("severity == 'error'")
    assert errors.empty
    kept, report = clean(mixed, with_density=True, bravais=None, iqr=None)
    assert kept.ids == few.ids and report.removed == some.ids[:3]


def test_models_of_structures_learn_and_predict(model: DescriptorModel, some: Dataset):
    table = model.predict_intervals(some[:5])
    assert table.index.to_list() == some.ids[:5]
    one = model.predict({"mine": some.structures[2]})
    assert one.loc["mine", "hardness"] == pytest.approx(table["hardness"].iloc[2])
    assert model.predict([some[2]])["hardness"].iloc[0] == pytest.approx(one["hardness"].iloc[0])
    why = explain(model, some[2:3])[0]
    assert why.prediction["hardness"] == pytest.approx(table["hardness"].iloc[2])


@pytest.fixture(scope="module")
def folder(some: Dataset, tmp_path_factory) -> Path:
    """CIF, POSCAR and broken files, and a table of targets."""
    root = tmp_path_factory.mktemp("structures")
    files = root / "files"
    for name, form in zip(some.ids[:4], ("cif", "cif", "POSCAR", "json"), strict=True):
        (files / name).mkdir(parents=True) if form == "POSCAR" else files.mkdir(exist_ok=True)
        place = files / name / "POSCAR" if form == "POSCAR" else files / f"{name}.{form}"
        some[name].structure.to(filename=str(place), fmt=form.lower())
    (files / "broken.cif").write_text("data_broken\n_cell_length_a 4\n")
    rows = [{"id": f"{name}.cif", "hardness (GPa)": n} for n, name in enumerate(some.ids[:6])]
    pd.DataFrame(rows).to_csv(root / "targets.csv", index=False)
    return root


def test_files_and_their_targets_become_entries(folder: Path, some: Dataset):
    source = Structures(folder / "files", folder / "targets.csv")
    names = source.ids()
    assert names == sorted([*some.ids[:3], "broken"])  # JSON is no structure file by its name
    read = source.read(some.ids[2])
    assert isinstance(read.crystal, BareCrystal) and read.crystal.name == some.ids[2]
    assert len(read.crystal.structure) == len(some.structures[2])
    assert source.table_row(some.ids[1]) == {"hardness": 1}
    assert source.about()["units"] == {"hardness": "GPa"}
    assert "3 of its 6 rows have no structure here" in source.problems()["targets.csv"]
    with pytest.raises(RhosightError, match=r"broken\.cif"):
        source.read("broken")


def test_tables_of_structures(some: Dataset, tmp_path: Path):
    lines, rows = [], []
    for material in some[:3]:
        structure = material.structure
        parts = {
            "lattice": structure.lattice.matrix.tolist(),
            "species": [site.specie.symbol for site in structure],
            "frac_coords": structure.frac_coords.tolist(),
        }
        row = {"material_id": material.material_id, "hardness": material.targets["efermi"]}
        lines.append(json.dumps(row | parts))
        rows.append(row | {"structure": json.dumps(structure.as_dict())})
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    pd.DataFrame(rows).to_csv(tmp_path / "b.csv", index=False)
    pd.DataFrame(rows).rename(columns={"structure": "cif"}).assign(
        cif=[m.structure.to(fmt="cif") for m in some[:3]]
    ).to_parquet(tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.csv", "c.parquet"):
        source = Structures(tmp_path / name)
        assert source.ids() == sorted(some.ids[:3])
        for material in some[:3]:
            found = source.read(material.material_id).crystal.structure
            assert found.volume == pytest.approx(material.structure.volume, rel=1e-5)
            assert found.composition == material.structure.composition
            value = source.table_row(material.material_id)["hardness"]
            assert value == pytest.approx(material.targets["efermi"])
    (tmp_path / "d.csv").write_text("id,gap\na,1\n")
    with pytest.raises(RhosightError, match="no column structure or cif"):
        Structures(tmp_path / "d.csv").ids()


def test_the_command_builds_shows_and_validates(folder: Path, tmp_path: Path):
    run = CliRunner().invoke
    out = tmp_path / "mine.parquet"
    command = ["data", "build", "structures", str(folder / "files"), str(out), "--workers", "1"]
    built = run(app, [*command, "--targets", str(folder / "targets.csv")])
    assert built.exit_code == 0, built.output
    assert "3 materials (3 new)" in built.output and "hardness (GPa)" in built.output
    mine = load_dataset(out)
    assert mine.units == {"hardness": "GPa"} and not mine.kinds
    shown = run(app, ["data", "info", str(out)])
    assert shown.exit_code == 0 and "densities: none" in shown.output
    checked = run(app, ["data", "validate", str(out)])
    assert checked.exit_code == 0, checked.output
