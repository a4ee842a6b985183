"""``rhosight data build directory`` on what folders hold: VASP's files, pairs of files, tables of
targets, hostile files; and on folders and tables that change after a build."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import LocalCluster
from pymatgen.core import Structure

from rhosight import RhosightError
from rhosight.dataset import Dataset, Material, build, load_dataset
from rhosight.dataset.sources.directory import Directory
from rhosight.dataset.sources.source import Entry
from rhosight.dataset.sources.tables import read_targets
from rhosight.density import ChargeDensity
from test_cli import error_of, rhosight

MOMENTS = "  0.200000000000E+01 -0.100000000000E+01\n"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a scheduler with a worker, in a thread: a process would take long to start."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def build_of(scheduler: str, tmp_path: Path) -> Callable[..., tuple[Dataset, dict[str, str], str]]:
    """Runs the command on a folder; gives the dataset, id → problem, and what was printed."""

    def run(folder: Path, *options: object) -> tuple[Dataset, dict[str, str], str]:
        out = tmp_path / "mine.parquet"
        said = rhosight(
            *("data", "build", "directory", folder, out, "--scheduler", scheduler),
            *("--texts", "none", *options),
        ).stdout
        notes = out.with_name("mine.parquet.problems.csv")
        table = pd.read_csv(notes) if notes.exists() else pd.DataFrame({"material_id": []})
        assert table["material_id"].is_unique
        problems = {row.material_id: f"{row.step}: {row.problem}" for row in table.itertuples()}
        return load_dataset(out), problems, said

    return run


@pytest.fixture(scope="module")
def silicon(dataset: Dataset) -> Material:
    return dataset["mp-149"]


@pytest.fixture(scope="module")
def magnet(dataset: Dataset) -> Material:
    """AlCrFe2, spin-polarised."""
    return dataset["mp-16495"]


def scaled(density: ChargeDensity, factor: float) -> ChargeDensity:
    return ChargeDensity(density.structure, {"total": factor * density.grid("total")})


def write(density: ChargeDensity, path: Path, kind: str = "total") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    density.to_chgcar(path, kind)
    return path


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.allclose(found, expected, rtol=1e-5, atol=1e-6)


# VASP's files


@pytest.fixture
def vasp(silicon: Material, tmp_path: Path) -> Path:
    """Silicon as VASP leaves it with LAECHG; the CHGCAR differs from the AECCARs."""
    folder = tmp_path / "runs" / "Si"
    write(scaled(silicon.density, 1.1), folder / "CHGCAR")
    write(scaled(silicon.density, 7), folder / "AECCAR0")
    write(silicon.density, folder / "AECCAR1", "promolecule")
    write(silicon.density, folder / "AECCAR2")
    return folder.parent


def test_difference_is_that_of_the_aeccars_and_never_of_the_chgcar(vasp, silicon, build_of):
    mine, problems, _ = build_of(vasp, "--difference", "aeccar")
    assert mine.ids == ["Si"] and problems == {}
    density = mine["Si"].density
    assert close(density.grid("difference"), silicon.density.grid("difference"))
    assert close(density.grid("total"), silicon.density.grid("total"))
    assert density.provenance["difference"] == "AECCAR2 − AECCAR1"
    assert density.provenance["file"] == "Si/AECCAR2"
    assert "all-electron" in density.provenance["density"]


def test_without_a_word_about_difference_the_chgcar_is_taken_alone(vasp, silicon, build_of):
    mine, _, _ = build_of(vasp)
    assert mine["Si"].density.kinds == ("total",)
    assert close(mine["Si"].density.grid("total"), 1.1 * silicon.density.grid("total"))


def test_a_folder_without_aeccars_is_a_problem_and_no_other_file_stands_in(vasp, build_of):
    for lacking in ("AECCAR1", "AECCAR2"):
        folder = vasp / f"no-{lacking}"
        folder.mkdir()
        for file in (vasp / "Si").iterdir():
            if file.name != lacking:
                (folder / file.name).write_bytes(file.read_bytes())
    mine, problems, said = build_of(vasp, "--difference", "aeccar")
    assert mine.ids == ["Si"] and set(problems) == {"no-AECCAR1", "no-AECCAR2"}
    for lacking in ("AECCAR1", "AECCAR2"):
        assert f"no {lacking} beside" in problems[f"no-{lacking}"]
        assert "LAECHG" in problems[f"no-{lacking}"]
    assert "1 material (1 new)" in said and "2 problems" in said


def blocks_of(material: Material, path: Path) -> tuple[str, list[str]]:
    """The header of a spin-polarised CHGCAR, and each block from its grid line on."""
    text = write(material.density, path).read_text(encoding="utf-8")
    line = "   {}   {}   {}\n".format(*material.density.shape)
    header, *blocks = text.split(line)
    return header, [line + block for block in blocks]


def test_spin_four_blocks_and_files_cut_between_blocks(magnet, silicon, tmp_path, build_of):
    runs = tmp_path / "runs"
    header, (total, spin) = blocks_of(magnet, runs / "collinear" / "CHGCAR")
    contents = {
        "noncollinear": [total, spin, spin, spin],
        "cut-behind-moments": [total, MOMENTS],
        "cut-behind-grid-line": [total, spin.partition("\n")[0] + "\n"],
        "cut-behind-three": [total, spin, spin],
    }
    for name, blocks in contents.items():
        (runs / name).mkdir()
        (runs / name / "CHGCAR").write_text(header + "".join(blocks), encoding="utf-8")
    write(silicon.density, runs / "zz-last" / "CHGCAR")
    mine, problems, _ = build_of(runs)
    assert mine.ids == ["collinear", "noncollinear", "zz-last"]
    assert mine["collinear"].density.kinds == ("total", "spin")
    assert close(mine["collinear"].density.grid("spin"), magnet.density.grid("spin"))
    assert mine["noncollinear"].density.kinds == ("total",)
    assert "non-collinear" in mine["noncollinear"].density.provenance["notes"][0]
    cut = [name for name in contents if name.startswith("cut")]
    assert sorted(problems) == sorted(cut)
    assert "where the next block should begin" in problems["cut-behind-moments"]
    assert "the block holds 0" in problems["cut-behind-grid-line"]
    assert "3 blocks" in problems["cut-behind-three"]


# pairs of files


@pytest.mark.parametrize(
    ("option", "kind", "pattern"),
    [
        ("--difference", "difference", "{parent}/{stem}_diff.vasp"),
        ("--reference", "promolecule", "{parent}/atoms/{name}"),
    ],
)
def test_difference_from_a_pair_of_files(option, kind, pattern, few, tmp_path, build_of):
    runs = tmp_path / "runs"
    (runs / "atoms").mkdir(parents=True)
    for material in few[:3]:
        path = write(material.density, runs / f"{material.material_id}.vasp")
        second = pattern.format(parent=runs, stem=path.stem, name=path.name)
        write(material.density, Path(second), kind)
    # a density whose companion is missing
    write(few[3].density, runs / "alone.vasp")
    mine, problems, _ = build_of(runs, option, pattern)
    assert mine.ids == sorted(material.material_id for material in few[:3])
    assert set(problems) == {"alone"}
    densities = {d.name: d for d in mine.densities}
    for material in few[:3]:
        found = densities[material.material_id]
        assert close(found.grid("difference"), material.density.grid("difference"))
        assert close(found.grid("total"), material.density.grid("total"))
    assert "alone" in problems and "no such file" in problems["alone"]


def test_a_pair_of_two_geometries_or_two_totals_is_refused(few, tmp_path, build_of):
    runs = tmp_path / "runs"
    good, moved, total = few[:3]
    for material in (good, moved, total):
        write(material.density, runs / f"{material.material_id}.vasp")
    write(good.density, runs / f"{good.material_id}_diff.vasp", "difference")
    away = moved.density.structure.copy()
    away.translate_sites(list(range(len(away))), [0.25, 0.25, 0.25])
    shifted, beside = replace(moved.density, structure=away), f"{moved.material_id}_diff.vasp"
    write(shifted, runs / beside, "total")
    write(total.density, runs / f"{total.material_id}_diff.vasp", "total")
    mine, problems, _ = build_of(runs, "--difference", "{parent}/{stem}_diff.vasp")
    assert mine.ids == [good.material_id]
    assert "is it a total density?" in problems[total.material_id]
    write(
        replace(moved.density, structure=away),
        runs / f"{moved.material_id}_diff.vasp",
        "difference",
    )
    _, problems, _ = build_of(runs, "--difference", "{parent}/{stem}_diff.vasp")
    assert "cell or atoms differ" in problems[moved.material_id]


def test_what_lies_in_a_folder_of_vasps_is_one_material(few, tmp_path, build_of):
    runs = tmp_path / "runs" / "first"
    write(few[0].density, runs / "CHGCAR")
    for name in ("CHGCAR_sum", "CHGCAR.bak", "CHGCAR_mag", "vaspout.h5", "POSCAR.vasp"):
        (runs / name).write_bytes((runs / "CHGCAR").read_bytes())
    scratch = tmp_path / "scratch"  # runs that are elsewhere, and a link back up
    write(few[1].density, scratch / "CHGCAR")
    (runs.parent / "second").symlink_to(scratch)
    (scratch / "up").symlink_to(runs.parent)
    mine, problems, _ = build_of(runs.parent)
    assert mine.ids == ["first", "second"] and problems == {}


def test_a_unit_is_not_that_of_a_chgcar(few, tmp_path, build_of):
    write(few[0].density, tmp_path / "runs" / "a" / "CHGCAR")
    mine, problems, _ = build_of(tmp_path / "runs", "--unit", "e/angstrom3")
    assert problems == {}
    assert mine.densities[0].integral("total") == pytest.approx(few[0].density.integral("total"))


def test_patterns_that_cannot_work_are_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    command = ("data", "build", "directory", tmp_path / "runs", tmp_path / "x.parquet")
    assert "use {parent}" in error_of(*command, "--difference", "{folder}/diff.cube")
    assert "same file for every density" in error_of(*command, "--reference", "atoms.cube")
    message = error_of(*command, "--difference", "{stem}.a", "--reference", "{stem}.b")
    assert "not both" in message


# tables of targets


def test_rows_mean_the_file_that_they_name(few, tmp_path):
    runs = tmp_path / "runs"
    for number, name in enumerate(("x/a.vasp", "y/a.vasp", "z/CHGCAR")):
        write(few[number].density, runs / name)
    rows = {"x/a.vasp": 1.0, "y/a": 2.0, str(runs / "z" / "CHGCAR"): 3.0, "y/a.vasp": 4.0, "a": 5.0}
    table = pd.DataFrame({"file": list(rows), "hardness (GPa)": list(rows.values())})
    table.to_csv(tmp_path / "t.csv", index=False)
    source = Directory(runs, targets=tmp_path / "t.csv")
    assert source.ids() == ["x/a", "y/a", "z"]
    found = {i: source.table_row(i).get("hardness") for i in source.ids()}
    assert found == {"x/a": 1.0, "y/a": 2.0, "z": 3.0}
    problems = source.problems()
    assert "y/a also refers to y/a; keep one" in problems["y/a.vasp"]
    assert "x/a and y/a have this name" in problems["a"]


def test_labels_of_another_crystal_are_refused(few, tmp_path, build_of):
    for material in few[:2]:
        write(material.density, tmp_path / "runs" / f"{material.material_id}.vasp")
    names = [few[0].density.structure.composition.formula, "C60"]
    table = pd.DataFrame({"id": few.ids[:2], "formula": names, "nsites": 60, "efermi": 1.0})
    table.to_csv(tmp_path / "t.csv", index=False)
    mine, problems, _ = build_of(tmp_path / "runs", "--targets", tmp_path / "t.csv")
    assert mine.ids == few.ids[:1] and "the formula is C60 in its labels" in problems[few.ids[1]]
    assert mine.table["nsites"].iloc[0] == len(few[0].density.structure)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,gap (eV),gap (meV)\na,1,2\n", "gap is the name of two columns"),
        ("id,structure\na,rocksalt\n", "the column name structure is reserved"),
        ("id;efermi\na;1,5\n", "write decimals with a point"),
    ],
)
def test_tables_that_say_two_things(text, message, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RhosightError, match=message):
        read_targets(tmp_path / "t.csv")


def test_units_and_ids_as_people_write_them(tmp_path, caplog):
    (tmp_path / "t.csv").write_text(" id ;dft_energy (eV per cell);hardness\n001;-3.5;1,5\n")
    table, units = read_targets(tmp_path / "t.csv")
    assert list(table.index) == ["001"] and units == {"dft_energy": "eV per cell"}
    assert table["dft_energy"].iloc[0] == -3.5
    assert "hardness is read as text, not as a target: its decimals have a comma" in caplog.text


@pytest.fixture
def runs(few: Dataset, tmp_path: Path) -> Path:
    """Densities in files of their own, and deeper in folders."""
    folder = tmp_path / "runs"
    for material in few[:3]:
        write(material.density, folder / f"{material.material_id}.vasp")
    for material in few[3:]:
        write(material.density, folder / "deep" / material.material_id / "CHGCAR")
    return folder


def write_semicolons(table: pd.DataFrame, path: Path) -> Path:
    table.to_csv(path.with_suffix(".csv"), sep=";", index=False)
    return path.with_suffix(".csv")


def write_excel(table: pd.DataFrame, path: Path) -> Path:
    pytest.importorskip("openpyxl")
    table.to_excel(path.with_suffix(".xlsx"), index=False)
    return path.with_suffix(".xlsx")


def write_parquet(table: pd.DataFrame, path: Path) -> Path:
    table.to_parquet(path.with_suffix(".parquet"), index=False)
    return path.with_suffix(".parquet")


@pytest.mark.parametrize("write_table", [write_semicolons, write_excel, write_parquet])
@pytest.mark.parametrize("by", ["--id-column", "file"])
def test_targets_with_units_from_any_table(write_table, by, few, runs, tmp_path, build_of):
    """Ids in a column that is named, or the names of the files."""
    names = [f"{i}.vasp" for i in few.ids[:3]] + few.ids[3:]
    table = pd.DataFrame({
        "calculation" if by == "--id-column" else "file": few.ids if by == "--id-column" else names,
        "efermi": few.targets["efermi"].to_numpy(),
        "hardness (GPa)": [10.5, np.nan, *range(4)],
        "remark": ["good", "-", None, "x", "y", "z"],
    })  # fmt: skip
    path = write_table(table, tmp_path / "targets")
    options = ["--id-column", "calculation"] if by == "--id-column" else []
    mine, problems, _ = build_of(runs, "--targets", path, *options)
    assert problems == {} and len(mine) == len(few)
    assert mine.units["hardness"] == "GPa" and mine.units["efermi"] == "eV"
    for number, material_id in enumerate(few.ids):
        mine_id = material_id if number < 3 else f"deep/{material_id}"
        expected = few[material_id].targets["efermi"]
        assert mine[mine_id].targets["efermi"] == pytest.approx(expected)
        hardness = mine[mine_id].targets["hardness"]
        assert hardness == pytest.approx([10.5, np.nan, 0, 1, 2, 3][number], nan_ok=True)
    assert mine.table.loc[few.ids[0], "remark"] == "good"


def test_a_table_that_cannot_be_right_is_one_line(runs, few, tmp_path):
    command = ("data", "build", "directory", runs, tmp_path / "x.parquet", "--targets")
    path = tmp_path / "targets.csv"

    def message(text: str) -> str:
        path.write_text(text, encoding="utf-8")
        return error_of(*command, path)

    first = few.ids[0]
    assert "name the column with the ids" in message(f"calculation,efermi\n{first},1\n")
    assert f"{first} is duplicated" in message(f"id,efermi\n{first},1\n{first},2\n")
    assert "is 'n.a.', not a number" in message(f"id,hardness (GPa)\n{first},n.a.\n")
    assert "efermi is in Ha" in message(f"id,efermi [Ha]\n{first},1\n")
    assert "none of its ids" in message("id,efermi\nabsent,1\n")
    assert "no-such.csv" in error_of(*command, tmp_path / "no-such.csv")
    path.with_suffix(".docx").write_text("x")
    assert "give a CSV, Parquet or Excel file" in error_of(*command, path.with_suffix(".docx"))
    path.with_suffix(".xlsx").write_bytes(b"no workbook")
    assert "not a readable table" in error_of(*command, path.with_suffix(".xlsx"))
    assert not (tmp_path / "x.parquet").exists()


def test_ids_are_text_in_whatever_column(few, tmp_path, build_of):
    for number, material in enumerate(few[:2], start=1):
        write(material.density, tmp_path / "runs" / f"00{number}" / "CHGCAR")
    path = tmp_path / "targets.csv"
    path.write_text("folder,hardness (GPa)\n001,10\n002,20\n", encoding="utf-8")
    mine, problems, said = build_of(tmp_path / "runs", "--targets", path, "--id-column", "folder")
    assert problems == {} and mine.targets["hardness"].to_list() == [10, 20]
    assert "targets: hardness (GPa)\n" in said


def test_numbers_that_are_taken_for_text_are_told_of(runs, few, tmp_path, build_of, caplog):
    path = tmp_path / "targets.csv"
    rows = (f"{i},{hard},{word}" for i, hard, word in zip(few.ids, "12n45n", "abc1de", strict=True))
    text = "\n".join(["id,hardness,remark", *rows]).replace(",n,", ",n.d.,")
    path.write_text(text, encoding="utf-8")
    mine, _, said = build_of(runs, "--targets", path)
    assert "targets: none\n" in said and "hardness" not in mine.targets
    (warning,) = [r.getMessage() for r in caplog.records if "read as text" in r.getMessage()]
    assert "hardness" in warning and f"'n.d.' of {few.ids[2]}" in warning


def test_rows_without_a_density_are_listed(runs, few, tmp_path, build_of):
    path = tmp_path / "targets.csv"
    path.write_text(f"id,efermi\n{few.ids[0]},1.5\nabsent,2\n", encoding="utf-8")
    mine, problems, _ = build_of(runs, "--targets", path)
    assert len(mine) == len(few)
    assert problems == {"absent": "source: absent: in targets.csv, but no density has this id"}


# hostile files


def header_of(grid: str, counts: str = "1 1", row: str = "0 4 0") -> str:
    head = f"NaCl\n1.0\n4 0 0\n{row}\n0 0 4\nNa Cl\n{counts}\nDirect\n0 0 0\n0.5 0.5 0.5\n\n"
    return head + grid + "\n"


def test_every_hostile_file_is_listed_and_the_good_ones_are_built(few, tmp_path, build_of):
    runs = tmp_path / "runs"
    good = write(few[0].density, runs / "a-good" / "CHGCAR").read_text(encoding="utf-8")
    values = "1.0 " * 36 + "\n"
    bomb = gzip.compress(header_of("4 3 3").encode()) + gzip.compress(b"1.0\n" * 2**18) * 2000
    bad = {
        "bomb.vasp.gz": (bomb, "declares 36 values"),
        "huge.vasp": (header_of("1000000 1000000 1000000") + values, "1000000×1000000×1000000"),
        "random.cube": (np.random.default_rng(3).bytes(10**7), "random.cube"),
        "random.vasp": (np.random.default_rng(4).bytes(10**7), "random.vasp"),
        "mid-number.vasp": (good[: len(good) // 2].rstrip() + "E", "mid-number.vasp"),
        "no-atoms.vasp": (header_of("4 3 3", counts="0 0") + values, "no atoms"),
        "singular.vasp": (header_of("4 3 3", row="4 0 0") + values, "the cell has no volume"),
        "empty.xsf": (b"", "empty.xsf"),
    }
    for name, (content, _) in bad.items():
        (runs / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    comment = good.split("\n", 1)[1]
    (runs / "unicode.vasp").write_text("Übergitter 結晶 \U0001f48e\n" + comment, encoding="utf-8")
    (runs / "latin.vasp").write_bytes("Größe\n".encode("latin-1") + comment.encode())
    (runs / "windows.vasp").write_bytes(good.replace("\n", "\r\n").encode())
    write(few[1].density, runs / "z-good" / "CHGCAR")
    mine, problems, said = build_of(runs)
    assert mine.ids == ["a-good", "latin", "unicode", "windows", "z-good"]
    for name in ("latin", "unicode", "windows"):
        found = mine[name].density.grid("total")
        np.testing.assert_array_equal(found, mine["a-good"].density.grid("total"))
    stems = {name: name.partition(".")[0] for name in bad}
    twice = [name for name, stem in stems.items() if list(stems.values()).count(stem) > 1]
    assert twice == ["random.cube", "random.vasp"]  # one id for two files is a problem itself
    assert set(problems) == {*stems.values(), "random.vasp"}
    for name, (_, message) in bad.items():
        about = problems.get(name) or problems[stems[name]]
        assert message in about and name in about, about
        assert "\n" not in about and len(about) < 500
    assert "5 materials (5 new)" in said and f"{len(problems)} problems" in said


# what changes after a build


@pytest.fixture
def table(few: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "targets.csv"
    frame = few.targets.reset_index().rename(columns={"material_id": "id"})
    frame["hardness (GPa)"] = range(len(few))
    frame.to_csv(path, index=False)
    return path


def test_a_density_that_changed_is_read_again_and_alone(runs, few, tmp_path, build_of):
    before, _, _ = build_of(runs)
    changed, others = few.ids[1], [few.ids[0], *(f"deep/{i}" for i in few.ids[3:])]
    path = write(scaled(few[1].density, 1.25), runs / f"{changed}.vasp")
    # the others cannot be read any more, which would show if they were
    kept = {}
    for file in runs.rglob("*"):
        if file.is_file() and file != path:
            kept[file] = file.read_bytes(), file.stat()
            file.write_bytes(b"x" * file.stat().st_size)
            os.utime(file, ns=(kept[file][1].st_atime_ns, kept[file][1].st_mtime_ns))
    mine, problems, said = build_of(runs)
    assert mine.ids == before.ids and problems == {}
    assert "6 materials (1 read again because its file has changed)" in said
    new = mine[changed].density.grid("total")
    np.testing.assert_allclose(new, 1.25 * before[changed].density.grid("total"), rtol=1e-4)
    for other in others:
        density = before[other].density.grid("total")
        np.testing.assert_array_equal(mine[other].density.grid("total"), density)

    _, _, said = build_of(runs)
    assert "6 materials (nothing new)" in said and "computing time" not in said

    # one that changed into something unreadable does not leave its old row behind
    path.write_text("nonsense")
    mine, problems, _ = build_of(runs)
    assert changed not in mine.ids and len(mine) == 5
    assert list(problems) == [changed]


def test_a_companion_that_changed_counts_as_well(vasp, silicon, build_of):
    build_of(vasp, "--difference", "aeccar")
    half = 0.5 * silicon.density.grid("promolecule")
    write(ChargeDensity(silicon.structure, {"total": half}), vasp / "Si" / "AECCAR1")
    mine, _, said = build_of(vasp, "--difference", "aeccar")
    assert "1 read again" in said
    expected = silicon.density.grid("total") - half
    assert close(mine["Si"].density.grid("difference"), expected)


def test_a_file_that_is_gone_is_said_once(runs, few, build_of):
    build_of(runs)
    (runs / f"{few.ids[0]}.vasp").unlink()
    mine, problems, _ = build_of(runs)
    assert few.ids[0] not in mine.ids and len(mine) == 5
    assert problems == {few.ids[0]: "source: no longer in the source; its row was removed"}
    _, problems, _ = build_of(runs)
    assert problems == {}


@pytest.mark.parametrize("image", [False, True], ids=["plain", "with an image"])
def test_a_changed_table_gives_new_labels_without_reading(
    image, runs, table, few, tmp_path, build_of
):
    """The result is, to the byte, what building anew gives."""
    options = ("--targets", table, "--texts", "formula")
    options += ("--image-size", "32", "--interpolation", "spline") if image else ()
    build_of(runs, *options)
    hidden = runs.rename(tmp_path / "elsewhere")
    # files of the same size and time that nothing can be read from
    for file in hidden.rglob("*"):
        place = runs / file.relative_to(hidden)
        if file.is_dir():
            place.mkdir(parents=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"x" * file.stat().st_size)
        os.utime(place, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    frame = pd.read_csv(table, dtype={"id": str}).rename(columns={"hardness (GPa)": "gap (eV)"})
    frame.loc[0, "efermi"] += 1
    frame.loc[1, "bulk_modulus_vrh"] = -5.0  # is masked
    frame.loc[2, "spacegroup_number"] = 1
    frame.drop(index=4).to_csv(table, index=False)
    mine, problems, said = build_of(runs, *options)
    assert "6 materials (6 with new labels because the table has changed)" in said
    assert problems == {}
    ids = [i if n < 3 else f"deep/{i}" for n, i in enumerate(few.ids)]
    assert mine[ids[0]].targets["efermi"] == pytest.approx(few[0].targets["efermi"] + 1)
    assert list(mine.masked["target"]).count("bulk_modulus_vrh") >= 1
    assert np.isnan(mine[ids[1]].targets["bulk_modulus_vrh"])
    assert mine.table.loc[ids[2], "spacegroup_number"] == 1
    assert np.isnan(mine[ids[4]].targets["efermi"])
    assert "hardness" not in mine.targets and mine.units["gap"] == "eV"
    assert mine[ids[0]].texts["formula"] == few[0].formula

    updated = (tmp_path / "mine.parquet").read_bytes()
    (tmp_path / "mine.parquet").unlink()
    for file in runs.rglob("*"):  # the same place and times, with their content
        if file.is_file():
            times = file.stat().st_atime_ns, file.stat().st_mtime_ns
            file.write_bytes((hidden / file.relative_to(runs)).read_bytes())
            os.utime(file, ns=times)
    build_of(runs, *options)
    assert (tmp_path / "mine.parquet").read_bytes() == updated


class Odd(Directory):
    """A directory whose first structure no library expects."""

    name = "odd"

    def read(self, material_id: str) -> Entry:
        entry = super().read(material_id)
        if material_id != self.ids()[0]:
            return entry
        density = entry.density
        structure = Nameless(density.structure.lattice, ["Si"], [[0, 0, 0]])
        return Entry(ChargeDensity(structure, density.grids, density.name))


class Nameless(Structure):
    """Its sites cannot be listed by element."""

    @property
    def is_ordered(self) -> bool:
        raise KeyError("no such\nsite")


def test_an_unexpected_failure_of_a_text_is_called_so(runs, scheduler, tmp_path):
    source = Odd(runs)
    report = build(source, tmp_path / "x.parquet", ("formula",), scheduler=scheduler)
    assert report.materials == 6  # the density is worth having without its text
    (row,) = report.problems.itertuples()
    assert (row.material_id, row.step) == (source.ids()[0], "text formula")
    assert row.problem == "KeyError: 'no such\\nsite'"
