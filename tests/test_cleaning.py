"""Cleaning, selection and validation: through the public interface, on the bundled crystals."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from rhosight import ChargeDensity, RhosightError
from rhosight.dataset import (
    BRAVAIS,
    Dataset,
    bravais_filter,
    bravais_lattice,
    clean,
    core_artefacts,
    duplicate_filter,
    load_dataset,
    split,
    validate_file,
)

# Bravais lattices

GENERIC = {
    "cF": (225, Lattice.cubic(4.1)),
    "cI": (229, Lattice.cubic(4.1)),
    "cP": (221, Lattice.cubic(4.1)),
    "hP": (191, Lattice.hexagonal(3.1, 4.7)),
    "hR": (166, Lattice.hexagonal(3.1, 9.7)),
    "tP": (123, Lattice.tetragonal(3.1, 4.7)),
    "tI": (139, Lattice.tetragonal(3.1, 5.9)),
    "oP": (47, Lattice.orthorhombic(3.1, 4.2, 5.9)),
    "oS": (65, Lattice.orthorhombic(3.1, 4.2, 5.9)),
    "oI": (71, Lattice.orthorhombic(3.1, 4.2, 5.9)),
    "oF": (69, Lattice.orthorhombic(3.1, 4.2, 5.9)),
    "mP": (10, Lattice.monoclinic(3.1, 4.2, 5.9, 101)),
    "mS": (12, Lattice.monoclinic(5.1, 4.2, 6.3, 101)),
    "aP": (2, Lattice.from_parameters(3.1, 4.2, 5.9, 81, 95, 102)),
}


@pytest.mark.parametrize("name", BRAVAIS)
def test_every_bravais_lattice(name):
    """One atom on each point of the lattice, in the conventional and in the primitive cell."""
    number, lattice = GENERIC[name]
    structure = Structure.from_spacegroup(number, lattice, ["Cu"], [[0, 0, 0]])
    assert bravais_lattice(structure) == name
    assert bravais_lattice(structure.get_primitive_structure()) == name


def test_base_centred_on_another_face():
    structure = Structure.from_spacegroup(
        38, Lattice.orthorhombic(3.1, 4.2, 5.9), ["Cu", "S"], [[0, 0, 0], [0.5, 0, 0.3]]
    )
    assert bravais_lattice(structure) == "oS"


def test_bravais_filter_and_its_tolerance(dataset):
    """In is listed as cubic, but c/a of its F-centred cell is 0.959."""
    some = dataset[["mp-149", "mp-85", "mp-1002124", "mp-22913"]]
    kept, removed = bravais_filter(some, "cF", symprec=0.1)
    assert kept.ids == ["mp-149", "mp-1002124"]
    assert removed["material_id"].to_list() == ["mp-85", "mp-22913"]
    assert removed["value"].to_list() == ["tI", "tI"]
    assert "not cF, within 0.1 Å" in removed["reason"][0]
    lenient, removed = bravais_filter(some, "cF", symprec=0.3)
    assert lenient.ids == some.ids and removed.empty
    both, removed = bravais_filter(some, ["cF", "tI"])
    assert both.ids == some.ids and removed.empty


def test_bravais_filter_needs_known_lattices(few):
    with pytest.raises(RhosightError, match=r"unknown Bravais lattice fcc; choose from cF"):
        bravais_filter(few, "fcc")
    with pytest.raises(RhosightError, match="symprec"):
        bravais_filter(few, symprec=0)


def test_atoms_on_one_place_are_no_crystal():
    on_one_place = Structure(Lattice.cubic(3.0), ["Cu", "Cu"], [[0, 0, 0], [0, 0, 1e-4]])
    crystal = ChargeDensity(on_one_place, {"total": np.ones((6, 6, 6))}, "clash")
    with pytest.raises(RhosightError, match=r"clash: atoms 1 \(Cu\) and 2 \(Cu\) are 0.00 Å apart"):
        labels = pd.DataFrame({"spacegroup_number": [221]}, index=["clash"])
        bravais_filter(Dataset.from_densities([crystal], labels))


# duplicates


def _renamed(density: ChargeDensity, name: str, structure: Structure | None = None):
    return ChargeDensity(structure or density.structure, density.grids, name)


def test_polymorphs_under_one_formula_are_no_duplicates(dataset):
    """Three formulas of mp-fcc stand twice: as rock salt and as zincblende."""
    formulas = dataset.table["formula"]
    twice = dataset[formulas.duplicated(keep=False).to_numpy()]
    assert len(twice) == 6
    groups = twice.table.groupby("formula")["spacegroup_number"].apply(set)
    assert (groups == {216, 225}).all()
    kept, removed = duplicate_filter(dataset)
    assert kept.ids == dataset.ids and removed.empty


def test_one_crystal_in_other_cells_is_found(dataset):
    original = dataset["mp-149"].density
    moved = original.structure.copy()
    moved.translate_sites(range(len(moved)), [0.1, 0.2, 0.3])
    strained = original.structure.copy()
    strained.scale_lattice(1.25 * original.structure.volume)
    turned = Structure(
        original.structure.lattice.matrix[:, [1, 2, 0]],
        original.structure.species,
        original.structure.frac_coords,
    )
    cells = {"mp-10": moved, "mp-2": original.structure, "mp-30": strained, "mp-4": turned}
    crystals = [_renamed(original, name, cell) for name, cell in cells.items()]
    data = Dataset.from_densities(crystals)
    kept, removed = duplicate_filter(data)
    assert kept.ids == ["mp-2", "mp-30"]
    assert removed["material_id"].to_list() == ["mp-10", "mp-4"]
    assert set(removed["kept_id"]) == {"mp-2"}
    assert removed["value"].max() < 1e-3 and set(removed["bound"]) == {0.1}
    assert removed["reason"][0] == "the same crystal as mp-2: Si, space group 227"
    again, _ = duplicate_filter(data[::-1])
    assert set(again.ids) == set(kept.ids)
    loose, _ = duplicate_filter(data, length_tolerance=0.2, site_tolerance=0.5)
    assert loose.ids == ["mp-2"]


def test_of_duplicates_the_one_with_most_targets_stays(dataset):
    original = dataset["mp-149"].density
    labels = pd.DataFrame({"efermi": [np.nan, 5.0]}, index=["mp-1", "mp-2"])
    data = Dataset.from_densities([_renamed(original, "mp-1"), _renamed(original, "mp-2")], labels)
    kept, removed = duplicate_filter(data)
    assert kept.ids == ["mp-2"]
    assert removed["kept_id"].to_list() == ["mp-2"]


# artefacts


def test_untouched_densities_raise_few_alarms(dataset):
    """Of all 405, none by `total`, two by `difference`: at nuclei of Nb in Rb2NbCl6 and of Sr."""
    ids = sorted({*dataset.ids[::4], "mp-571513", "mp-76"})
    alarms = []
    for density in dataset[ids].densities:
        for kind in density.grids:
            found = core_artefacts(density, kind)
            assert found.negative == 0
            alarms += [(density.name, kind)] * bool(found)
    assert alarms == [("mp-571513", "difference"), ("mp-76", "difference")]


def _with_points(density: ChargeDensity, kind: str, points: dict) -> ChargeDensity:
    grid = np.array(density.grid(kind), dtype=float)
    for point, value in points.items():
        grid[point] = value
    return ChargeDensity(density.structure, {kind: grid}, density.name)


@pytest.mark.parametrize("material_id", ["mp-149", "mp-1002124", "mp-16495"])
def test_a_planted_point_is_found(dataset, material_id):
    density = dataset[material_id].density
    grid = density.grid("total")
    nucleus = np.rint(density.structure.frac_coords[0] * grid.shape).astype(int)
    near = tuple(int(n) for n in (nucleus + np.array([1, 0, 0])) % grid.shape)
    spoiled = _with_points(density, "total", {near: grid[near] + 0.7 * grid.max()})
    found = core_artefacts(spoiled)
    worst = found.outliers.iloc[0]
    assert (worst["i"], worst["j"], worst["k"]) == near
    assert worst["score"] > 6 and worst["near"]
    assert worst["element"] == density.structure[0].species_string
    assert worst["distance"] == pytest.approx(_distance(density, near), abs=1e-6)
    assert worst["value"] == pytest.approx(grid[near] + 0.7 * grid.max())
    assert abs(worst["expected"] - grid[near]) < 0.5 * grid.max()
    assert not core_artefacts(spoiled, threshold=1e6)
    assert not core_artefacts(spoiled, radius=1e-3).outliers["near"].any()


def _distance(density: ChargeDensity, point) -> float:
    place = np.array(point) / density.shape
    lattice = density.structure.lattice
    return float(lattice.get_all_distances(place, density.structure.frac_coords).min())


def test_most_planted_points_are_found(dataset):
    """Off by half the largest value, within two steps of a nucleus."""
    rng = np.random.default_rng(0)
    found = []
    for density in (dataset.densities[i] for i in range(0, len(dataset), 20)):
        grid = density.grid("total")
        nucleus = np.rint(density.structure.frac_coords[0] * grid.shape).astype(int)
        point = tuple(int(n) for n in (nucleus + rng.integers(-2, 3, 3)) % grid.shape)
        change = rng.choice([-0.5, 0.5]) * grid.max()
        outliers = core_artefacts(
            _with_points(density, "total", {point: grid[point] + change})
        ).outliers
        found.append(point in set(outliers[["i", "j", "k"]].itertuples(index=False, name=None)))
    assert len(found) == 21
    assert np.mean(found) > 0.9


def test_negative_total_is_counted(dataset):
    density = dataset["mp-149"].density
    nucleus = tuple(
        int(n) for n in np.rint(density.structure.frac_coords[0] * density.shape) % density.shape
    )
    far = tuple((np.array(nucleus) - np.array(density.shape) // 2) % density.shape)
    spoiled = _with_points(density, "total", {nucleus: -0.3, far: -0.1})
    found = core_artefacts(spoiled)
    assert (found.negative, found.lowest) == (2, pytest.approx(-0.3))
    assert found.negative_near == sum(_distance(density, p) <= 1.0 for p in (nucleus, far)) == 1
    assert found.negative_share == 2 / np.prod(density.shape)
    volume = density.structure.volume / np.prod(density.shape)
    assert found.negative_charge == pytest.approx(-0.4 * volume)
    assert core_artefacts(spoiled, negative_tolerance=0.2).negative == 1
    difference = dataset["mp-149"].density.grid("difference")
    assert difference.min() < -0.01
    assert core_artefacts(density, "difference").negative == 0


def test_artefacts_in_a_constant_and_in_a_tiny_grid():
    cell = Structure(Lattice.cubic(3.0), ["Cu"], [[0, 0, 0]])
    flat = ChargeDensity(cell, {"total": np.full((8, 8, 8), 0.3)}, "flat")
    assert not core_artefacts(flat)
    assert len(core_artefacts(_with_points(flat, "total", {(4, 4, 4): 0.4})).outliers) == 1
    tiny = ChargeDensity(cell, {"total": np.arange(64.0).reshape(4, 4, 4)}, "tiny")
    assert core_artefacts(tiny).outliers.empty
    with pytest.raises(RhosightError, match="positive"):
        core_artefacts(flat, threshold=0)


# all steps together


def _spoiled(dataset: Dataset) -> Dataset:
    """Six materials: Si twice, a negative core, a tetragonal cell, and In with a wild density."""
    ids = ["mp-149", "mp-85", "mp-1002124", "mp-21075"]
    crystals = [_renamed(dataset[i].density, i) for i in ids]
    grids = {kind: np.array(grid) for kind, grid in crystals[2].grids.items()}
    grids["total"][0, 0, 0] = -0.5
    crystals[2] = ChargeDensity(crystals[2].structure, grids, "mp-1002124")
    crystals.append(_renamed(dataset["mp-149"].density, "mp-9999"))
    grids = {kind: 30 * grid for kind, grid in dataset["mp-1001833"].density.grids.items()}
    crystals.append(ChargeDensity(dataset["mp-1001833"].structure, grids, "mp-1001833"))
    labels = pd.DataFrame({"bulk_modulus_vrh": [90.0, -5.0]}, index=["mp-149", "mp-1002124"])
    return Dataset.from_densities(crystals, labels)


def test_clean_reports_every_step(dataset, tmp_path):
    data = _spoiled(dataset)
    kept, report = clean(data, reference=dataset)
    table, counts = report.table, report.counts
    assert list(table.columns) == ["material_id", "step", "action", "value", "bound", "reason"]
    assert counts.index.to_list() == ["labels", "bravais", "duplicates", "artefacts", "iqr"]
    # what goes in, less what goes out, is what stays
    assert (counts["before"] - counts["removed"] == counts["after"]).all()
    assert (counts["before"].iloc[1:].to_numpy() == counts["after"].iloc[:-1].to_numpy()).all()
    assert counts["before"].iloc[0] == len(data) and counts["after"].iloc[-1] == len(kept)
    assert sorted([*kept.ids, *report.removed]) == sorted(data.ids)
    why = (table["material_id"] + " " + table["step"] + ": " + table["reason"]).to_list()
    for start, end in (
        ("mp-1002124 labels", "cannot be negative"),
        ("mp-85 bravais", "lattice tI, not cF, within 0.1 Å"),
        ("mp-9999 duplicates", "the same crystal as mp-149: Si, space group 227"),
        ("mp-1001833 iqr", "above the bound 0.1917"),
    ):
        assert any(reason.startswith(start) and reason.endswith(end) for reason in why)
    assert any("mp-1002124 artefacts: total is negative at 1 of 5832" in reason for reason in why)
    assert kept.ids == ["mp-149", "mp-1002124"]
    assert (table.loc[table["step"] == "artefacts", "action"] == "noted").all()
    masked = table[table["action"] == "masked"].iloc[0]
    assert (masked["material_id"], masked["value"], masked["bound"]) == ("mp-1002124", -5.0, 0.0)
    text = str(report)
    assert all(material_id in text for material_id in report.removed)
    assert "before" in text and "e/Å³" in text
    report.to_csv(tmp_path / "report.csv")
    again = pd.read_csv(tmp_path / "report.csv")
    assert again["reason"].to_list() == table["reason"].to_list()
    json.dumps(report.settings)
    with pytest.raises(RhosightError, match="cannot be written"):
        report.to_csv(tmp_path / "nowhere" / "report.csv")


def test_clean_leaves_out_what_is_not_asked_for(few):
    kept, report = clean(
        few, labels=False, bravais=None, duplicates=False, artefacts=False, iqr=None
    )
    assert kept.ids == few.ids
    assert report.table.empty and report.removed == []
    assert "no cleaning step" in str(report)


def test_clean_does_not_look_at_the_test_part(dataset):
    some = dataset[::6]
    train, test = split(some, test_fraction=0.3)
    steps = {"bravais": None, "duplicates": False, "artefacts": False}
    _, on_train = clean(some[train], **steps)
    _, on_test = clean(some[test], reference=some[train], **steps)
    assert on_train.bounds == on_test.bounds
    assert clean(some[test], **steps)[1].bounds != on_train.bounds
    assert on_test.settings["reference"] == f"{len(train)} given materials"


def test_labels_of_a_table_made_elsewhere_are_masked(few, tmp_path):
    """Nothing was masked when it was written: 223 GPa, though Voigt and Reuss differ."""
    few.to_parquet(tmp_path / "few.parquet")
    table = pq.read_table(tmp_path / "few.parquet").drop_columns("masked")
    moduli = [223.142 if i == "mp-16495" else 9999.0 if i == "mp-149" else 100.0 for i in few.ids]
    place = table.column_names.index("bulk_modulus_vrh")
    pq.write_table(
        table.set_column(place, "bulk_modulus_vrh", pa.array(moduli)), tmp_path / "raw.parquet"
    )
    raw = load_dataset(tmp_path / "raw.parquet")[::-1]
    assert raw.targets["bulk_modulus_vrh"].notna().all() and raw.masked.empty
    kept, report = clean(raw, bravais=None, iqr=None, artefacts=False)
    assert kept.ids == raw.ids
    assert set(kept.masked["material_id"]) == {"mp-16495", "mp-149"}
    assert kept.targets["bulk_modulus_vrh"].isna().sum() == 2
    assert np.isnan(kept["mp-149"].targets["bulk_modulus_vrh"])
    assert kept["mp-1002124"].targets["bulk_modulus_vrh"] == 100.0
    assert raw.targets["bulk_modulus_vrh"].notna().all()
    bounds = report.table.set_index("material_id")["bound"]
    assert bounds.to_dict() == {"mp-149": 600.0, "mp-16495": 0.0005}
    # once masked, the same again, and it survives a file
    kept.to_parquet(tmp_path / "clean.parquet")
    again, second = clean(load_dataset(tmp_path / "clean.parquet"), bravais=None, iqr=None)
    assert second.counts.loc["labels", "masked"] == 2
    assert again.fingerprint() == kept.fingerprint()


# validation


def test_a_sound_file_has_no_problems(few, tmp_path):
    few.to_parquet(tmp_path / "few.parquet")
    problems = validate_file(tmp_path / "few.parquet")
    assert problems.empty
    assert list(problems.columns) == ["severity", "material_id", "column", "problem", "cure"]


def _set(name, values, type_=None):
    def change(table: pa.Table) -> pa.Table:
        array = pa.array(values(table) if callable(values) else values, type_)
        if name not in table.column_names:
            return table.append_column(name, array)
        return table.set_column(table.column_names.index(name), name, array)

    return change


def _first(name, change):
    """Change the value of the first row."""

    def values(table: pa.Table) -> list:
        column = table[name].to_pylist()
        return [change(column[0]), *column[1:]]

    return lambda table: _set(name, values, table.schema.field(name).type)(table)


def _unit(table: pa.Table) -> pa.Table:
    field = table.schema.field("formation_energy_per_atom").with_metadata({"unit": "kJ/mol"})
    return table.cast(table.schema.set(table.column_names.index(field.name), field))


def _structure(text: str) -> str:
    structure = json.loads(text)
    structure["lattice"]["matrix"] = np.diag([4.0, 4.0, 40.0]).tolist()
    return json.dumps(structure)


# change → (severity, material, column, part of the message); mp-1002124 is the first row
FIRST = "mp-1002124"
BROKEN = {
    "column missing": (lambda t: t.drop_columns("formula"), "error", "", "formula", "no column"),
    "no density": (
        lambda t: t.drop_columns(["total", "difference", "spin"]), "error", FIRST, "",
        "has a grid but no density",
    ),
    "type": (
        _set("efermi", ["high"] * 6), "error", "", "efermi",
        "type string, the schema requires double",
    ),
    "required empty": (
        _first("nsites", lambda _: None), "error", FIRST, "nsites", "is empty",
    ),
    "id twice": (
        _first("material_id", lambda _: "mp-149"), "error", "mp-149", "material_id",
        "is duplicated",
    ),
    "id empty": (
        _first("material_id", lambda _: ""), "error", "row 0", "material_id", "empty text",
    ),
    "grid length": (
        _first("grid", lambda _: [2, 2, 2]), "error", FIRST, "total", "needs 8",
    ),
    "grid with a hole": (
        _first("grid", lambda _: [18, None, 18]), "error", FIRST, "grid", "three positive",
    ),
    "grid beyond all bounds": (
        _first("grid", lambda _: [2**31 - 1] * 3), "error", FIRST, "total", "needs 99035",
    ),
    "grid of two": (_first("grid", lambda _: [2, 2]), "error", FIRST, "grid", "three positive"),
    "infinite": (_first("efermi", lambda _: np.inf), "error", FIRST, "efermi", "infinite"),
    "structure": (
        _first("structure", lambda _: "{}"), "error", FIRST, "structure", "not a pymatgen",
    ),
    "cell": (_first("structure", _structure), "error", FIRST, "grid", "contradicts the cell"),
    "formula": (_first("formula", lambda _: "NaCl"), "error", FIRST, "formula", "is HfC"),
    "formula order": (_first("formula", lambda _: "CHf"), None, None, None, None),
    "nsites": (_first("nsites", lambda _: 7), "error", FIRST, "nsites", "structure has 2"),
    "space group": (
        _first("spacegroup_number", lambda _: 231), "error", FIRST, "spacegroup_number", "230",
    ),
    "nan": (
        _first("total", lambda g: [float("nan"), *g[1:]]), "error", FIRST, "total", "1 of 5832",
    ),
    "times volume": (
        _first("total", lambda g: [32.0 * x for x in g]), "error", FIRST, "total", "atoms have 78",
    ),
    "other grid": (
        _first("difference", lambda g: [x + 0.01 for x in g]), "error", FIRST, "difference",
        "provenance says",
    ),
    "units missing": (
        lambda t: t.replace_schema_metadata(None).cast(
            pa.schema([f.remove_metadata() for f in t.schema])
        ),
        "warning", "", "efermi", "declares no unit",
    ),
    "unit wrong": (_unit, "error", "", "formation_energy_per_atom", "declared in kJ/mol"),
    "own unit": (_set("hardness", [1.0] * 6), "warning", "", "hardness", "no unit"),
    "modulus": (
        _first("bulk_modulus_vrh", lambda _: -3.0), "warning", FIRST, "bulk_modulus_vrh",
        "negative",
    ),
    "energy": (
        _first("formation_energy_per_atom", lambda _: -300.0), "warning", FIRST,
        "formation_energy_per_atom", "outside",
    ),
    "text": (_first("text_all", lambda _: None), "warning", FIRST, "text_all", "no text `all`"),
    "texts": (
        lambda t: t.drop_columns("text_all"), "warning", "", "text_all", "no texts `all`",
    ),
    "provenance": (
        _first("provenance", lambda _: "GPAW"), "error", FIRST, "provenance", "not a JSON object",
    ),
    "no provenance": (
        lambda t: t.drop_columns("provenance"), "warning", "", "provenance", "have no provenance",
    ),
    "masked": (_first("masked", lambda _: "["), "error", FIRST, "masked", "not a JSON object"),
    "no label": (
        _set("efermi", [None] * 6, pa.float64()), "warning", "", "efermi", "no value of",
    ),
    "no row": (lambda t: t.slice(0, 0), "error", "", "", "holds no material"),
    "no grids": (
        lambda t: _first("total", lambda _: None)(
            _first("difference", lambda _: None)(_first("spin", lambda _: None)(t))
        ),
        "error", FIRST, "", "has a grid but no density",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_validation_names_what_is_wrong(few, tmp_path, name):
    change, severity, material_id, column, message = BROKEN[name]
    few.to_parquet(tmp_path / "few.parquet")
    path = tmp_path / "bad.parquet"
    pq.write_table(change(pq.read_table(tmp_path / "few.parquet")), path)
    problems = validate_file(path)
    if severity is None:
        assert problems.empty
        return
    about = problems[problems["problem"].str.contains(message, regex=False)]
    rows = about[(about["material_id"] == material_id) & (about["column"] == column)]
    assert rows["severity"].to_list() == [severity]
    assert rows["cure"].item()
    # whatever keeps a file from being loaded is an error here, and the first of them is raised
    errors = problems[problems["severity"] == "error"]
    try:
        list(load_dataset(path).structures)
    except RhosightError as error:
        assert not errors.empty
        assert "\n" not in str(error)


def test_validation_finds_all_at_once_and_loading_the_first(few, tmp_path):
    few.to_parquet(tmp_path / "few.parquet")
    table = pq.read_table(tmp_path / "few.parquet")
    for name in ("infinite", "id twice", "grid of two", "structure", "type"):
        table = BROKEN[name][0](table) if name != "type" else table
    table = table.drop_columns("formula")
    path = tmp_path / "bad.parquet"
    pq.write_table(table, path)
    problems = validate_file(path)
    found = set(problems.loc[problems["severity"] == "error", "column"])
    assert {"formula", "material_id", "grid", "efermi", "structure"} <= found
    with pytest.raises(RhosightError, match=r"no column formula; .*3 more.*data validate"):
        load_dataset(path)


def test_validation_finds_one_crystal_under_two_ids(few, tmp_path):
    twin = _renamed(few["mp-149"].density, "twin")
    Dataset.from_densities([*few.densities, twin]).to_parquet(tmp_path / "twins.parquet")
    problems = validate_file(tmp_path / "twins.parquet")
    pair = problems[problems["column"] == "material_id"]
    assert pair["material_id"].to_list() == ["twin"]
    assert pair["severity"].to_list() == ["warning"]
    assert "the same crystal as mp-149" in pair["problem"].item()


def test_validation_of_a_folder_of_files(dataset, tmp_path):
    """Rows are numbered and ids compared across files, and across parts of one file."""
    folder = tmp_path / "shards"
    folder.mkdir()
    dataset[:40].to_parquet(folder / "a.parquet")
    dataset[39:42].to_parquet(folder / "b.parquet")
    problems = validate_file(folder)
    repeated = problems[problems["column"] == "material_id"]
    assert dataset.ids[39] in repeated["material_id"].to_list()
    assert "is duplicated" in repeated["problem"].iloc[0]
    for name in ("a", "b"):
        path = folder / f"{name}.parquet"
        table = pq.read_table(path)
        ids = table["material_id"].to_pylist()
        pq.write_table(_set("material_id", [*ids[:-1], ""])(table), path)
    empty = validate_file(folder)
    assert {"row 39", "row 42"} <= set(empty["material_id"])


def test_validation_of_what_is_no_dataset(tmp_path):
    with pytest.raises(RhosightError, match="no such Parquet file"):
        validate_file(tmp_path / "nothing.parquet")
    with pytest.raises(RhosightError, match="no such Parquet file"):
        validate_file(tmp_path)
    path = tmp_path / "text.parquet"
    path.write_text("not a table")
    with pytest.raises(RhosightError, match="not a readable Parquet file"):
        validate_file(path)
