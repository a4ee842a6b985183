"""The bundled dataset, files and folders, cleaning, splits: through the public interface."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymatgen.core import Lattice, Structure

from rhosight import ChargeDensity, RhosightError
from rhosight.dataset import (
    Dataset,
    folds,
    group_labels,
    iqr_filter,
    load_dataset,
    mask_labels,
    pack,
    split,
)
from rhosight.dataset.schema import COLUMNS, TARGETS

DOCS = Path(__file__).parents[1] / "docs"


# the bundled dataset


def test_bundled_counts_and_units(dataset):
    assert len(dataset) == 405
    assert dataset.units == TARGETS
    assert dataset.units["bulk_modulus_vrh"] == "GPa"
    counts = dataset.targets.count().to_dict()
    assert counts == {"formation_energy_per_atom": 405, "efermi": 405, "bulk_modulus_vrh": 377}
    assert sum("spin" in density.grids for density in dataset.densities) == 98


def test_repr_shows_targets_kinds_texts_and_licence(dataset, few):
    assert repr(dataset).splitlines() == [
        "Dataset 'mp-fcc': 405 materials",
        "  Targets  formation_energy_per_atom (405), efermi (405), bulk_modulus_vrh (377)",
        "  Kinds    total, difference, spin",
        "  Texts    formula, keywords, all",
        "  Licence  CC BY 4.0",
    ]
    one = Dataset.from_densities([few.densities[0]])
    assert repr(one).splitlines() == ["Dataset: 1 material", "  Kinds    total, difference"]
    assert "Dataset 'mp-fcc': 0 materials" in repr(dataset[:0])


def test_notebooks_show_ranges_and_the_first_rows(dataset, few):
    html = dataset._repr_html_()
    ranges, preview = pd.read_html(StringIO(html), index_col=0)
    assert ranges.loc["bulk_modulus_vrh", ["unit", "materials"]].to_list() == ["GPa", 377]
    assert ranges.loc["efermi", "highest"] == pytest.approx(dataset.targets["efermi"].max(), 1e-3)
    assert preview.index.to_list() == dataset.ids[:5]
    assert preview.columns.to_list() == ["formula", *dataset.targets]
    assert "400 more" in html and "CC BY 4.0" in html
    assert "more" not in few[:2]._repr_html_() and dataset[:0]._repr_html_()
    hostile = Dataset.from_densities([few.densities[0]], about={"name": "<script>"})
    assert "<script>" not in hostile._repr_html_()


def test_bundled_masks(dataset):
    """11 moduli are missing from the start, 7 are nonsense, 10 have Voigt and Reuss that differ."""
    masked = dataset.masked
    assert set(masked["target"]) == {"bulk_modulus_vrh"}
    nonsense = (masked["value"] < 0) | (masked["value"] > 600)
    assert nonsense.sum() == 7
    differ = masked["reason"].str.contains("differ")
    assert differ.sum() == 10
    assert not (nonsense & differ).any()
    voigt = dataset.table["bulk_modulus_voigt"]
    assert voigt.isna().sum() == 11
    assert dataset.targets.loc[masked["material_id"], "bulk_modulus_vrh"].isna().all()
    kept = dataset.table.dropna(subset="bulk_modulus_vrh")
    assert (kept["bulk_modulus_voigt"] - kept["bulk_modulus_reuss"]).abs().max() < 1e-9
    assert kept["bulk_modulus_vrh"].between(0, 600).all()


def test_bundled_attribution(dataset):
    assert dataset.metadata["licence"] == "CC BY 4.0"
    for doi in ("10.1063/1.4812323", "10.1038/sdata.2015.9", "10.1088/0953-8984/22/25/253202"):
        assert doi in dataset.metadata["attribution"]
    provenance = dataset[0].density.provenance
    assert provenance["code"] == "GPAW"
    assert provenance["functional"].startswith("PBE")


def test_bundled_materials_are_sound(dataset):
    for material, (_, row) in zip(dataset, dataset.table.iterrows(), strict=True):
        density = material.density
        assert density.name == row.name == material.material_id
        assert material.structure.composition.reduced_formula == row["formula"]
        assert len(material.structure) == row["nsites"]
        edge = (4 * material.structure.volume) ** (1 / 3)
        assert edge == pytest.approx(row["cubic_lattice_constant"], abs=1e-4)
        assert ("spin" in density.grids) == row["dft_spin_polarised"]
        for kind, integral in density.provenance["integrals"].items():
            assert density.grid(kind).dtype == np.float32
            assert density.integral(kind) == pytest.approx(integral, abs=1e-5)


def test_bundled_texts(dataset):
    assert list(dataset.texts.columns) == ["formula", "keywords", "all"]
    assert dataset.texts.notna().all(axis=None)
    assert (dataset.texts["formula"] == dataset.table["formula"]).all()
    assert "Hf" in dataset["mp-1002124"].texts["all"]
    longer = dataset.texts["all"].str.len() > dataset.texts["formula"].str.len()
    assert longer.all()


# list-like


def test_getitem(dataset):
    assert dataset["mp-1002124"].formula == dataset[dataset.ids.index("mp-1002124")].formula
    assert dataset[-1].material_id == dataset.ids[-1]
    assert dataset[2:5].ids == dataset.ids[2:5]
    assert dataset[["mp-149", "mp-1002124"]].ids == ["mp-149", "mp-1002124"]
    assert dataset[np.array([7, 3])].ids == [dataset.ids[7], dataset.ids[3]]
    small = dataset[dataset.table["nsites"] == 1]
    assert len(small) == (dataset.table["nsites"] == 1).sum()
    assert small[[1, 0]].densities[0].name == small.ids[1]
    assert len(dataset[[]]) == 0
    assert "mp-149" in dataset
    assert "mp-0" not in dataset
    assert [m.material_id for m in small] == small.ids
    assert [d.name for d in small.densities[1:3]] == small.ids[1:3]
    assert small.structures[0] == small[0].structure


def test_getitem_of_what_is_not_there(few):
    with pytest.raises(RhosightError, match="mp-0: no such material_id"):
        few["mp-0"]
    with pytest.raises(RhosightError, match="mp-0"):
        few[["mp-149", "mp-0"]]
    with pytest.raises(IndexError):
        few[6]
    with pytest.raises(IndexError):
        few[[0, 6]]
    with pytest.raises(IndexError, match="mask of length 2 for 6"):
        few[[True, False]]


def test_subset_keeps_masks_and_texts(few):
    part = few[["mp-16495"]]
    assert part.masked["material_id"].to_list() == ["mp-16495"]
    assert part.masked["value"].item() == pytest.approx(223.142)
    assert np.isnan(part[0].targets["bulk_modulus_vrh"])
    assert part.texts.loc["mp-16495", "formula"] == part[0].formula


def test_require_targets(dataset, few):
    with_modulus = dataset.require_targets("bulk_modulus_vrh")
    assert len(with_modulus) == 377
    both = ["efermi", "bulk_modulus_vrh"]
    assert len(dataset.require_targets(both)) == 377
    assert len(dataset.require_targets(both, how="any")) == 405
    with pytest.raises(RhosightError, match=r"unknown target `hardness`.*efermi"):
        dataset.require_targets(["efermi", "hardness"])
    with pytest.raises(RhosightError, match="no value of `bulk_modulus_vrh`"):
        few[["mp-16495"]].require_targets("bulk_modulus_vrh")


def test_a_label_is_a_target_when_it_is_asked_for(few, tmp_path):
    """`band_gap` is never one by itself; a text never is."""
    labels = few.table.assign(band_gap=[0.0, 1.5, None, 2, 0, 0.6], phase="stable")
    mine = Dataset.from_densities(few.densities, labels)
    assert "band_gap" not in mine.targets
    known = mine.require_targets("band_gap")
    assert known.targets["band_gap"].to_list() == [0.0, 1.5, 2.0, 0.0, 0.6]
    assert known.units["band_gap"] == "eV"
    assert "band_gap" not in mine.targets  # of the same memory, and as before
    with pytest.raises(RhosightError, match=r"`phase` is not a numeric column.*\(--target, or"):
        mine.require_targets("phase")
    known.to_parquet(tmp_path / "known.parquet")  # whose field declares a target, as mp-elastic's
    assert "band_gap" in load_dataset(tmp_path / "known.parquet").targets


def test_fingerprint_is_of_content(few):
    assert few.fingerprint() == few[::-1].fingerprint()
    assert few.fingerprint() != few[:5].fingerprint()
    assert len(few.fingerprint()) == 64


# Parquet


def test_parquet_round_trip(few, tmp_path):
    few.to_parquet(tmp_path / "few.parquet")
    again = load_dataset(tmp_path / "few.parquet")
    assert again.ids == few.ids
    assert again.fingerprint() == few.fingerprint()
    pd.testing.assert_frame_equal(again.table, few.table)
    pd.testing.assert_frame_equal(again.masked, few.masked)
    assert again.metadata == few.metadata
    for one, other in zip(few, again, strict=True):
        assert one.structure == other.structure
        assert one.density.provenance == other.density.provenance
    assert [path.name for path in tmp_path.iterdir()] == ["few.parquet"]


def test_parquet_same_content_same_bytes(few, tmp_path):
    few.to_parquet(tmp_path / "one.parquet")
    few.to_parquet(tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_parquet_fields_explain_themselves(few, tmp_path):
    few.to_parquet(tmp_path / "few.parquet")
    schema = pq.read_schema(tmp_path / "few.parquet")
    expected = [column.name for column in COLUMNS if column.name != "image"]  # none are drawn
    assert [field.name for field in schema] == expected
    assert schema.field("total").metadata[b"unit"].decode() == "e/Å³"
    assert json.loads(schema.metadata[b"units"])["efermi"] == "eV"


def test_parquet_to_nowhere(few, tmp_path):
    with pytest.raises(RhosightError, match="cannot be written"):
        few.to_parquet(tmp_path / "nowhere" / "few.parquet")


def _change(few: Dataset, path: Path, change) -> Path:
    few.to_parquet(path)
    pq.write_table(change(pq.read_table(path)), path)
    return path


def _with(table: pa.Table, name: str, values, type_=None) -> pa.Table:
    array = pa.array(values, type_)
    if name not in table.column_names:
        return table.append_column(name, array)
    return table.set_column(table.column_names.index(name), name, array)


BAD_TABLES = {
    "no column structure": lambda t: t.drop_columns("structure"),
    "no column grid": lambda t: t.drop_columns("grid"),
    "`efermi` has type string": lambda t: _with(t, "efermi", ["high"] * 6),
    "mp-149 is duplicated": lambda t: _with(t, "material_id", ["mp-149"] * 6),
    "without `formula`": lambda t: _with(t, "formula", [None] * 6, pa.string()),
    "not three positive integers": lambda t: _with(t, "grid", [[2, 2]] * 6),
    "`total` of mp-1002124 has 5832 values": lambda t: _with(t, "grid", [[2, 2, 2]] * 6),
    "`efermi` of mp-1002124 is infinite": lambda t: _with(t, "efermi", [np.inf] * 6),
    "schema version 99": lambda t: t.replace_schema_metadata({"schema_version": "99"}),
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_parquet_that_contradicts_the_schema(few, tmp_path, message):
    path = _change(few, tmp_path / "bad.parquet", BAD_TABLES[message])
    with pytest.raises(RhosightError, match=message) as caught:
        load_dataset(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_from_other_writers(few, tmp_path):
    """Large lists, double precision and own columns are fine."""

    def change(table: pa.Table) -> pa.Table:
        wide = pa.large_list(pa.float64())
        table = _with(table, "total", table["total"].to_pylist(), wide)
        table = _with(table, "hardness", [1, 2, None, 4, 5, 6])
        return _with(table, "colour", ["red"] * 6).replace_schema_metadata(None)

    other = load_dataset(_change(few, tmp_path / "other.parquet", change))
    assert np.array_equal(other.densities[0].grid("total"), few.densities[0].grid("total"))
    assert other.targets["hardness"].count() == 5
    assert other.units["hardness"] == ""
    assert "colour" in other.table
    assert "colour" not in other.targets


def test_parquet_with_unreadable_structure_or_nan(few, tmp_path):
    path = _change(few, tmp_path / "a.parquet", lambda t: _with(t, "structure", ["{}"] * 6))
    with pytest.raises(RhosightError, match="mp-1002124: its `structure`"):
        load_dataset(path)[0]

    def poison(table: pa.Table) -> pa.Table:
        grids = table["total"].to_pylist()
        grids[1][0] = float("nan")
        return _with(table, "total", grids)

    data = load_dataset(_change(few, tmp_path / "b.parquet", poison))
    assert data[0].density.grid("total").min() > 0
    with pytest.raises(RhosightError, match=r"mp-21075: 1 of .* NaN"):
        data[1]


def test_load_what_is_no_dataset(tmp_path):
    with pytest.raises(RhosightError, match=r"mp-bcc: no such file.*bundled dataset \(mp-fcc"):
        load_dataset("mp-bcc")
    text = tmp_path / "notes.parquet"
    text.write_text("not a table")
    with pytest.raises(RhosightError, match=r"notes.parquet: not a readable Parquet file"):
        load_dataset(text)
    text.unlink()
    with pytest.raises(RhosightError, match=r"no materials.csv; a folder of materials holds"):
        load_dataset(tmp_path)


def test_load_truncated_parquet(few, tmp_path):
    path = tmp_path / "few.parquet"
    few.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RhosightError, match="not a readable Parquet file"):
        load_dataset(path)


# folders


def test_an_interrupted_pack_keeps_its_texts(folder, tmp_path):
    out = tmp_path / "out.parquet"

    def stop(label, done, of):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(folder, out, progress=stop)
    notes = tmp_path / ".out.parquet.texts.jsonl"
    first = notes.read_text(encoding="utf-8").splitlines()
    assert len(first) == 2 and not out.exists()
    # a mark in the kept text shows that it is used again and not made again
    notes.write_text("\n".join(first).replace("crystallizes", "CRYSTALLIZES") + "\n{cut", "utf-8")
    pack(folder, out)
    texts = load_dataset(out).texts["all"]
    assert texts.str.contains("CRYSTALLIZES").sum() == 2 and texts.notna().all()
    assert not notes.exists()


def test_pack_round_trip(few, folder, tmp_path):
    seen = []
    report = pack(
        folder,
        tmp_path / "out.parquet",
        describe_texts=False,
        progress=lambda *step: seen.append(step),
    )
    assert (report.materials, len(report.problems)) == (6, 0)
    assert seen[-1] == ("materials", 6, 6)
    assert report.masked["material_id"].to_list() == ["mp-16495"]
    packed = load_dataset(tmp_path / "out.parquet")
    assert packed.metadata["name"] == "few"
    assert packed.ids == few.ids
    pd.testing.assert_frame_equal(packed.table, few.table)
    for one, other in zip(few, packed, strict=True):
        assert one.density.kinds == other.density.kinds
        for kind, grid in one.density.grids.items():
            assert np.array_equal(grid, other.density.grid(kind))
        lattices = one.structure.lattice.matrix, other.structure.lattice.matrix
        assert np.allclose(*lattices, rtol=0, atol=1e-7)
        coords = one.structure.frac_coords, other.structure.frac_coords
        assert np.allclose(*coords, rtol=0, atol=1e-8)
        assert other.density.provenance["code"] == "GPAW"


def test_pack_twice_same_bytes(folder, tmp_path):
    for name in ("one", "two"):
        pack(folder, tmp_path / f"{name}.parquet", describe_texts=False)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_pack_describes(few, folder, tmp_path, monkeypatch):
    """Each extent is asked for; one that fails is null and reported, the material stays."""

    def describe(structure, extent, name=""):
        if extent == "all" and name == "mp-149":
            raise RhosightError(f"{name}: no words for it")
        return f"{extent} of {structure.composition.reduced_formula}"

    monkeypatch.setattr("rhosight.dataset.packing.describe", describe)
    report = pack(folder, tmp_path / "out.parquet")
    assert report.materials == 6
    assert report.problems.to_dict("records") == [
        {"material_id": "mp-149", "step": "text all", "problem": "mp-149: no words for it"}
    ]
    texts = load_dataset(tmp_path / "out.parquet").texts
    assert texts.loc["mp-149", "all"] is None
    assert texts.loc["mp-149", "keywords"] == "keywords of Si"
    assert texts["all"].count() == 5


def test_bundled_text_is_what_describe_gives(few):
    from rhosight.inputs.text.description import describe

    material = few["mp-1002124"]
    for extent in ("formula", "keywords"):
        assert describe(material.structure, extent) == material.texts[extent]


def test_folder_without_packing(few, folder):
    loaded = load_dataset(folder)
    assert loaded.ids == few.ids
    assert loaded.targets.equals(few.targets)
    assert loaded.texts.isna().all(axis=None)


def test_folder_needs_only_ids(few, folder):
    """Formula, space group and number of sites come from the structure."""
    ids = "\n".join(["material_id", *few.ids])
    (folder / "materials.csv").write_text(ids + "\n")
    loaded = load_dataset(folder)
    columns = ["formula", "spacegroup_number", "nsites"]
    pd.testing.assert_frame_equal(loaded.table[columns], few.table[columns])
    assert loaded.targets.empty
    with pytest.raises(RhosightError, match="no value of `efermi`"):
        loaded.require_targets("efermi")


def test_folder_with_own_targets(folder, edit_labels):
    about = {"name": "mine", "units": {"hardness": "GPa"}}
    (folder / "provenance.json").write_text(json.dumps(about))
    edit_labels(lambda text: text.replace("band_gap", "hardness"))
    loaded = load_dataset(folder)
    assert loaded.units["hardness"] == "GPa"
    assert loaded.targets["hardness"].count() == 6


def _reshape(folder: Path, material_id: str, shape) -> None:
    with h5py.File(folder / "densities.h5", "a") as file:
        for kind in list(file[material_id]):
            del file[f"{material_id}/{kind}"]
            file[f"{material_id}/{kind}"] = np.zeros(shape, dtype=np.float32)


def _poison(folder: Path) -> None:
    with h5py.File(folder / "densities.h5", "a") as file:
        file["mp-149/total"][0, 0, 0] = np.nan


def _without_density(folder: Path) -> None:
    with h5py.File(folder / "densities.h5", "a") as file:
        del file["mp-149"]


def _text_for_density(folder: Path) -> None:
    _without_density(folder)
    with h5py.File(folder / "densities.h5", "a") as file:
        file["mp-149/total"] = "many electrons"


def _other_crystal(folder: Path) -> None:
    cif = (folder / "structures/mp-1002206.cif").read_text()
    (folder / "structures/mp-149.cif").write_text(cif)


BAD_MATERIALS = {
    r"no structures/mp-149.cif": lambda f: (f / "structures/mp-149.cif").unlink(),
    r"not a readable CIF file": lambda f: (f / "structures/mp-149.cif").write_text("data_\n"),
    r"formula is Si in materials.csv and SiC in its CIF": _other_crystal,
    r"no density in densities.h5": _without_density,
    r"is not an array of floats": _text_for_density,
    r"NaN or infinite": _poison,
    r"grid 40×4×4 contradicts the cell": lambda f: _reshape(f, "mp-149", (40, 4, 4)),
    r"three dimensions": lambda f: _reshape(f, "mp-149", (4, 4)),
    r"declares the grid .* holds 8x8x8": lambda f: _reshape(f, "mp-149", (8, 8, 8)),
}


@pytest.mark.parametrize("message", BAD_MATERIALS)
def test_bad_material_is_named_and_left_out(folder, tmp_path, message):
    BAD_MATERIALS[message](folder)
    with pytest.warns(UserWarning, match="1 material.s. left out .mp-149."):
        report = pack(folder, tmp_path / "out.parquet", describe_texts=False)
    assert report.materials == 5
    problem = report.problems.iloc[0]
    assert (problem["material_id"], problem["step"]) == ("mp-149", "material")
    assert problem["problem"].startswith("mp-149: ")
    assert pd.Series(problem["problem"]).str.contains(message).all()
    packed = load_dataset(tmp_path / "out.parquet")
    assert "mp-149" not in packed
    assert list(json.loads(packed.metadata["left_out"])) == ["mp-149"]


def test_materials_without_a_row_are_named(few, folder, edit_labels):
    def drop(text: str) -> str:
        return "".join(x for x in text.splitlines(keepends=True) if not x.startswith("mp-149,"))

    edit_labels(drop)
    with pytest.warns(UserWarning, match=r"mp-149: in densities.h5 but not in materials.csv"):
        assert len(load_dataset(folder)) == 5


BAD_LABELS = {
    "no column material_id": lambda text: text.replace("material_id", "id"),
    "material_id is empty in line": lambda text: text.replace("mp-149,", ","),
    "mp-149 is duplicated": lambda text: text.replace("mp-1002206,", "mp-149,"),
    "efermi of mp-1001833 is 'high'": lambda text: text.replace("3.64626493", "high"),
    "no valid material": lambda text: text.splitlines()[0] + "\n",
    "is infinite": lambda text: text.replace("3.64626493", "inf"),
}


@pytest.mark.parametrize("message", BAD_LABELS)
def test_bad_labels(edit_labels, message):
    folder = edit_labels(BAD_LABELS[message])
    with pytest.raises(RhosightError, match=message) as caught:
        load_dataset(folder)
    assert "\n" not in str(caught.value)


def test_bad_parts_of_a_folder(folder, tmp_path):
    (folder / "provenance.json").write_text("[")
    with pytest.raises(RhosightError, match=r"provenance.json: not a readable JSON"):
        load_dataset(folder)
    (folder / "densities.h5").write_text("no densities")
    (folder / "provenance.json").unlink()
    with pytest.raises(RhosightError, match=r"densities.h5: not a readable HDF5 file"):
        load_dataset(folder)
    (folder / "densities.h5").unlink()
    with pytest.raises(RhosightError, match=r"no densities.h5"):
        pack(folder, tmp_path / "out.parquet")
    with pytest.raises(RhosightError, match=r"folder .*nowhere does not exist"):
        pack(folder, tmp_path / "nowhere" / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


# built in memory


def _density(name: str, scale: float = 1.0) -> ChargeDensity:
    structure = Structure(Lattice.cubic(4.0), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    grid = scale * np.linspace(-1, 1, 4**3).reshape(4, 4, 4)
    return ChargeDensity(structure, {"difference": grid}, name=name, provenance={"code": "none"})


def test_from_densities():
    labels = pd.DataFrame(
        {"efermi": [1.0, 2.0], "bulk_modulus_vrh": [-3.0, 20.0]}, index=["b", "a"]
    )
    built = Dataset.from_densities(
        [_density("a"), _density("b")], labels, texts={"a": {"formula": "CsCl"}}
    )
    assert built.ids == ["a", "b"]
    assert built.table.loc["a", "spacegroup_number"] == 221
    assert built["a"].targets == {"efermi": 2.0, "bulk_modulus_vrh": 20.0}
    assert built.masked["material_id"].to_list() == ["b"]
    assert built["a"].texts == {"formula": "CsCl", "keywords": None, "all": None}
    assert built["a"].density.kinds == ("difference",)
    with pytest.raises(RhosightError, match="index them by material_id"):
        Dataset.from_densities([_density("c")], labels)
    with pytest.raises(RhosightError, match="has no name"):
        Dataset.from_densities([_density("")])
    with pytest.raises(RhosightError, match="no materials"):
        Dataset.from_densities([])
    with pytest.raises(RhosightError, match="a is duplicated"):
        Dataset.from_densities([_density("a"), _density("a")])


# cleaning


def test_mask_labels():
    labels = pd.DataFrame(
        {
            "bulk_modulus_vrh": [-1.0, 601.0, 100.0, 100.0, 100.0, np.nan, 0.5],
            "bulk_modulus_voigt": [-1.0, 601.0, 100.001, 100.001, 100.0, np.nan, np.nan],
            "bulk_modulus_reuss": [-1.0, 601.0, 100.0, 100.0, 100.0, np.nan, np.nan],
            "spacegroup_number": [225, 225, 225, 139, 225, 225, 225],
        },
        index=list("abcdefg"),
    )
    clean, masked = mask_labels(labels)
    assert masked["material_id"].to_list() == ["a", "b", "c"]
    assert masked["value"].to_list() == [-1.0, 601.0, 100.0]
    assert "negative" in masked["reason"][0]
    assert "600 GPa" in masked["reason"][1]
    assert "Voigt 100.001 and Reuss 100 GPa differ" in masked["reason"][2]
    assert clean["bulk_modulus_vrh"].isna().to_list() == [
        True,
        True,
        True,
        *[False] * 2,
        True,
        False,
    ]
    assert labels["bulk_modulus_vrh"].notna().sum() == 6
    _, lenient = mask_labels(labels, max_modulus=1000, tolerance=0.01)
    assert lenient["material_id"].to_list() == ["a"]


def test_iqr_on_known_numbers():
    data = Dataset.from_densities([_density(f"m{i}", 1 + 0.01 * i) for i in range(9)])
    wild = Dataset.from_densities([_density("wild", 5.0), _density("m0")])
    kept, report = iqr_filter(data)
    assert len(kept) == 9
    assert report.empty
    # quartiles of the maxima 1.00 ... 1.08 are 1.02 and 1.06
    assert report.attrs["bounds"]["maximum"] == pytest.approx((0.96, 1.12))
    assert report.attrs["bounds"]["minimum"] == pytest.approx((-1.12, -0.96))
    kept, report = iqr_filter(wild, reference=data)
    assert kept.ids == ["m0"]
    assert report["extreme"].to_list() == ["maximum", "minimum"]
    assert report["value"].to_list() == [5.0, -5.0]
    assert report["bound"].to_list() == pytest.approx([1.12, -1.12])
    assert "5 e/Å³ is above the bound 1.12" in report["reason"][0]
    assert len(iqr_filter(data, factor=0.1)[0]) < 9


def test_iqr_on_the_bundled_data(dataset):
    kept, report = iqr_filter(dataset, kind="difference")
    removed = set(report["material_id"])
    assert set(kept.ids) == set(dataset.ids) - removed
    assert len(kept) == 350
    for row in report.itertuples():
        grid = dataset[row.material_id].density.grid("difference")
        assert row.value == (grid.max() if row.extreme == "maximum" else grid.min())
        lower, upper = report.attrs["bounds"][row.extreme]
        assert row.bound == (lower if row.value < lower else upper)
        assert not lower <= row.value <= upper


def test_iqr_refuses(few):
    with pytest.raises(RhosightError, match="but not `spin`"):
        iqr_filter(few, kind="spin")
    with pytest.raises(RhosightError, match="positive"):
        iqr_filter(few, factor=0)
    with pytest.raises(RhosightError, match="reference is empty"):
        iqr_filter(few, reference=few[[]])


# splits


@pytest.mark.parametrize("groups", ["formula", "chemsys", "prototype"])
def test_split_keeps_groups_together(dataset, groups):
    train, test = split(dataset, groups=groups)
    assert sorted([*train, *test]) == list(range(405))
    labels = group_labels(dataset, groups)
    formulas = dataset.table["formula"].to_numpy()
    assert not set(labels[train]) & set(labels[test])
    assert not set(formulas[train]) & set(formulas[test])
    if groups != "prototype":  # its groups are large
        assert len(test) == 61


@pytest.mark.parametrize("groups", ["formula", "chemsys", "prototype"])
def test_folds_keep_groups_together(dataset, groups):
    parts = folds(dataset, groups=groups)
    assert len(parts) == 5
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(405))
    labels = group_labels(dataset, groups)
    formulas = dataset.table["formula"].to_numpy()
    for train, held_out in parts:
        assert len(train) + len(held_out) == 405
        assert not set(labels[train]) & set(labels[held_out])
        assert not set(formulas[train]) & set(formulas[held_out])
    sizes = [len(held_out) for _, held_out in parts]
    assert max(sizes) - min(sizes) <= (60 if groups == "prototype" else 1)


def test_formulas_under_two_ids_are_tested(dataset):
    assert dataset.table["formula"].duplicated().sum() == 3


def test_splits_ignore_the_order_of_rows(dataset):
    order = np.random.default_rng(0).permutation(len(dataset))
    shuffled = dataset[order]
    for groups in ("formula", "prototype"):
        pairs = [split(dataset, groups=groups), *folds(dataset, groups=groups)]
        again = [split(shuffled, groups=groups), *folds(shuffled, groups=groups)]
        for (train, test), (train2, test2) in zip(pairs, again, strict=True):
            assert dataset[train].ids == shuffled[train2].ids
            assert dataset[test].ids == shuffled[test2].ids


def test_seeds_differ_and_repeat(dataset):
    assert np.array_equal(split(dataset, seed=3)[1], split(dataset, seed=3)[1])
    assert not np.array_equal(split(dataset, seed=3)[1], split(dataset, seed=4)[1])
    assert set(folds(dataset, seed=1)[0][1]) != set(folds(dataset, seed=2)[0][1])


def test_folds_of_a_part(dataset):
    train, test = split(dataset)
    parts = folds(dataset, n_splits=4, indices=train)
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == sorted(train)
    for fit, held_out in parts:
        assert not set(fit) & set(test)
        assert set(fit) | set(held_out) == set(train)


def test_splits_refuse(few):
    with pytest.raises(RhosightError, match="test_fraction"):
        split(few, test_fraction=1.5)
    with pytest.raises(RhosightError, match="unknown grouping 'colour'"):
        split(few, groups="colour")
    with pytest.raises(RhosightError, match="it takes two formulas, and these 2 materials have 1"):
        split(few[["mp-1002124", "mp-21075"]])
    with pytest.raises(RhosightError, match=r"it takes 6 formulas.* these 6 materials have 5"):
        folds(few, n_splits=6)
    with pytest.raises(RhosightError, match="cannot make 1 fold"):
        folds(few, n_splits=1)
    for fraction in (0.01, 0.99):
        train, test = split(few, test_fraction=fraction)
        assert min(len(train), len(test)) in (1, 2)


# documentation


def test_every_column_is_documented():
    text = (DOCS / "dataset.md").read_text(encoding="utf-8")
    for column in COLUMNS:
        assert f"`{column.name}`" in text
        assert column.unit in text


def test_a_dataset_needs_neither_labels_nor_texts(few, tmp_path):
    bare = Dataset.from_densities(list(few.densities))
    texts = [name for name in bare._table.column_names if name.startswith("text_")]
    path = tmp_path / "bare.parquet"
    pq.write_table(bare._table.drop_columns(texts), path)
    loaded = load_dataset(path)
    assert loaded.targets.shape == (6, 0) and loaded.texts.shape == (6, 0)
    assert loaded.fingerprint() == loaded[::-1].fingerprint() != loaded[:5].fingerprint()
    assert loaded[0].texts == loaded[0].targets == {}
    assert sum(map(len, split(loaded))) == 6
    loaded.to_parquet(tmp_path / "again.parquet")
    assert load_dataset(tmp_path / "again.parquet").fingerprint() == loaded.fingerprint()
