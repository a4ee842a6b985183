"""Readers of density files: CHGCAR, cube, XSF, HDF5; what is hostile or cut; units."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp.outputs import Chgcar

from rhosight import ChargeDensity, RhosightError
from rhosight.density import (
    check_electron_count,
    compute_difference,
    estimate_electrons,
    read_chgcar,
    read_cube,
    read_density,
    read_xsf,
    recognise,
)

ase_cube = pytest.importorskip("ase.io.cube")
ase_xsf = pytest.importorskip("ase.io.xsf")

BOHR = 0.529177210903
SALT = Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SHAPE = (4, 3, 3)
AUGMENTATION = (
    "augmentation occupancies   1   3\n  0.1234567E+00 -0.1234567E-01  0.7654321E+00\n"
    "augmentation occupancies   2   6\n"
    "  0.1234567E+00  0.1234567E+00 -0.1234567E+00  0.5000000E+00  0.1000000E-02\n"
    "  0.1234567E+00\n"
)
MOMENTS = "  0.200000000000E+01 -0.100000000000E+01\n"
PATIENT = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def numbers(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) * 3 + 0.1


def blocks_of(path: Path, **blocks: np.ndarray) -> tuple[str, list[str]]:
    """What pymatgen writes: the header, and each block from its grid line on."""
    Chgcar(SALT.copy(), blocks).write_file(str(path))
    text = path.read_text(encoding="utf-8")
    line = "   {}   {}   {}\n".format(*next(iter(blocks.values())).shape)
    header, *values = text.split(line)
    return header, [line + block for block in values]


def general_grid(grid: np.ndarray) -> np.ndarray:
    """With the end points repeated, as XSF asks."""
    return np.pad(grid, [(0, 1)] * 3, mode="wrap")


def write_cube(path: Path, structure: Structure, grid: np.ndarray, **options) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        ase_cube.write_cube(file, AseAtomsAdaptor.get_atoms(structure), grid, **options)
    return path


def write_xsf(path: Path, structure: Structure, grid: np.ndarray, **options) -> Path:
    atoms = AseAtomsAdaptor.get_atoms(structure)
    with open(path, "w", encoding="utf-8") as file:
        ase_xsf.write_xsf(file, [atoms], grid, **options)
    return path


def error_of(path: Path, read=read_density) -> str:
    """One line that names the file."""
    with pytest.raises(RhosightError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def cuts(content: bytes) -> list[int]:
    """Lengths to cut a file to: at all line ends, all around the ends of its blocks, and every
    eleventh."""
    ends = [match.start() + i for match in re.finditer(rb"\n", content) for i in range(-3, 4)]
    marks = [match.start() for match in re.finditer(rb"[a-z]{4}|\n +4 +3 +3 *\n|END_", content)]
    near = [mark + i for mark in [*marks, len(content)] for i in range(-21, 21)]
    return sorted({n for n in [*ends, *near, *range(0, len(content), 11)] if 0 <= n < len(content)})


def same_crystal(one: Structure, other: Structure, tolerance: float = 1e-4) -> bool:
    shift = one.frac_coords - other.frac_coords
    return (
        one.species == other.species
        and np.allclose(one.lattice.matrix, other.lattice.matrix, atol=tolerance)
        and np.allclose(shift, np.round(shift), atol=tolerance)
    )


@st.composite
def crystals(draw) -> tuple[Structure, np.ndarray]:
    """Cells from cubic to triclinic, one to three atoms, small grids that fit them."""
    edges = [draw(st.floats(3, 5)) for _ in range(3)]
    angles = [draw(st.floats(65, 115)) for _ in range(3)]
    try:
        lattice = Lattice.from_parameters(*edges, *angles)
    except ValueError:
        lattice = Lattice.orthorhombic(*edges)
    species = draw(st.lists(st.sampled_from(["H", "Si", "Fe", "Au"]), min_size=1, max_size=3))
    species.sort()  # a CHGCAR groups them
    places = [[draw(st.integers(0, 99)) / 100 for _ in range(3)] for _ in species]
    shape = tuple(draw(st.integers(4, 7)) for _ in range(3))
    seed = draw(st.integers(0, 2**31))
    scale = 10.0 ** draw(st.integers(-3, 3))
    structure = Structure(lattice, species, places)
    assume(not len(structure.get_neighbor_list(1.4)[0]))  # overlapping atoms are refused
    return structure, numbers(shape, seed) * scale


# what is written is read


@PATIENT
@given(crystal=crystals(), spin=st.booleans())
def test_chgcar_is_what_pymatgen_reads(tmp_path, crystal, spin):
    structure, total = crystal
    blocks = {"total": total, "diff": total - total.mean()} if spin else {"total": total}
    path = tmp_path / "CHGCAR"
    Chgcar(structure.copy(), blocks).write_file(str(path))
    theirs = Chgcar.from_file(str(path))
    ours = read_chgcar(path)
    assert ours.kinds == (("total", "spin") if spin else ("total",))
    volume = theirs.structure.volume
    assert np.array_equal(ours.grid("total"), theirs.data["total"] * (1 / volume))
    if spin:
        assert np.array_equal(ours.grid("spin"), theirs.data["diff"] * (1 / volume))
    assert ours.structure == theirs.structure
    assert ours.grid("total").flags.c_contiguous


@PATIENT
@given(crystal=crystals())
def test_cube_is_what_ase_writes(tmp_path, crystal):
    structure, grid = crystal
    density = read_cube(write_cube(tmp_path / "rho.cube", structure, grid))
    assert np.allclose(density.grid("total"), grid / BOHR**3, rtol=2e-6)
    assert same_crystal(density.structure, structure)


@PATIENT
@given(crystal=crystals(), padded=st.booleans())
def test_xsf_is_what_ase_writes(tmp_path, crystal, padded):
    """General grids, whose ends are repeated, and ASE's own idea of the vectors without them."""
    structure, grid = crystal
    path = tmp_path / "rho.xsf"
    if padded:
        write_xsf(path, structure, general_grid(grid), span_vectors=structure.lattice.matrix)
    else:
        write_xsf(path, structure, grid)
    density = read_xsf(path, unit="e/angstrom3")
    assert density.shape == grid.shape
    assert np.allclose(density.grid("total"), grid, rtol=0, atol=1e-6)
    assert same_crystal(density.structure, structure)


@pytest.mark.parametrize("material_id", ["mp-22862", "mp-149", "mp-102"])
def test_real_densities_in_all_formats(dataset, tmp_path, material_id):
    """The same density from a CHGCAR, a cube, an XSF and an HDF5 file, by content alone."""
    density = dataset[material_id].density
    structure, grid = density.structure, density.grid("total").astype(float)
    atomic = grid * BOHR**3
    density.to_chgcar(tmp_path / "chgcar")
    Chgcar.from_file(str(tmp_path / "chgcar")).to_hdf5(str(tmp_path / "hdf5"))
    write_cube(tmp_path / "cube", structure, atomic)
    spans = structure.lattice.matrix
    # ASE keeps six decimals; more are needed in e/Bohr³
    write_xsf(tmp_path / "xsf", structure, general_grid(atomic) * 1e6, span_vectors=spans)
    formats = {"chgcar": "CHGCAR", "hdf5": "HDF5", "cube": "cube", "xsf": "XSF"}
    for name, format_ in formats.items():
        assert recognise(tmp_path / name) == format_
    for name in ("chgcar", "hdf5", "cube"):
        read = read_density(tmp_path / name)
        assert np.allclose(read.grid("total"), grid, rtol=1e-5, atol=1e-6)
        assert read.integral("total") == pytest.approx(density.integral("total"), rel=1e-5)
        assert same_crystal(read.structure, structure)
        assert read.provenance["source"] == name
        assert read.provenance["format"] == formats[name]
    read = read_xsf(tmp_path / "xsf")
    assert np.allclose(read.grid("total") / 1e6, grid, rtol=1e-5, atol=1e-6)
    if "spin" in density.kinds:
        for name in ("chgcar", "hdf5"):
            read = read_density(tmp_path / name)
            assert np.allclose(read.grid("spin"), density.grid("spin"), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["CHGCAR", "AECCAR2", "CHG", "mp-1.CHGCAR", "mp-1_CHG", "rho.vasp", "nameless"],
)
@pytest.mark.parametrize(
    ("ending", "compress"), [("", bytes), (".gz", gzip), (".bz2", bz2), (".xz", lzma)]
)
def test_names_and_compressions(tmp_path, name, ending, compress):
    header, (block,) = blocks_of(tmp_path / "source", total=numbers())
    content = (header + block).encode()
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(content if ending == "" else compress.compress(content))
    assert np.allclose(read_density(path).grid("total"), numbers() / 64)


def test_a_cut_file_is_named_after_its_format(tmp_path):
    """Where the content is too short to tell, the name says what to complain of."""
    for name in ("CHGCAR.gz", "CHG", "AECCAR0"):
        (tmp_path / name).write_bytes(b"NaCl\n1.0\n")
        assert "is it a CHGCAR, and written to the end" in error_of(tmp_path / name)
    (tmp_path / "a.cube").write_bytes(b"one\ntwo\n2 0 0 0\n")
    assert "line 3 should hold a number of points" in error_of(tmp_path / "a.cube")
    (tmp_path / "a.xsf").write_bytes(b"CRYSTAL\n")
    assert "no PRIMVEC and PRIMCOORD" in error_of(tmp_path / "a.xsf")
    (tmp_path / "a.dat").write_bytes(b"CRYSTAL\n")
    assert "not a density file of a known format" in error_of(tmp_path / "a.dat")


@pytest.mark.parametrize("name", ["LOCPOT", "ELFCAR.gz", "PARCHG", "mp-1.LOCPOT"])
def test_no_density(tmp_path, name):
    header, (block,) = blocks_of(tmp_path / "source", total=numbers())
    (tmp_path / name).write_text(header + block, encoding="utf-8")
    assert "not the charge density; give the CHGCAR" in error_of(tmp_path / name)


# CHGCAR: blocks


def test_four_blocks(tmp_path):
    grids = {name: numbers(seed=i) for i, name in enumerate(["total", "diff_x", "diff_y"])}
    header, parts = blocks_of(tmp_path / "source", total=numbers(), diff=numbers(seed=1))
    path = tmp_path / "CHGCAR"
    blocks = [part + AUGMENTATION for part in (*parts, *parts)]
    path.write_text(header + "".join(blocks), encoding="utf-8")
    density = read_chgcar(path)
    assert density.kinds == ("total",)
    assert np.allclose(density.grid("total"), grids["total"] / 64)
    assert density.provenance["code"] == "VASP"
    assert "magnetisation are left out" in density.provenance["notes"][0]
    path.write_text(header + "".join(blocks[:3]), encoding="utf-8")
    assert "3 blocks: a density has one, two with spin, four" in error_of(path)


def test_every_cut_of_a_spin_polarised_chgcar(tmp_path):
    """Cut anywhere, a file is refused, or nothing is lost but its last line end. Two places
    leave no trace, those that the documentation names: behind the first block's values and behind
    its augmentation occupancies, where the file is that of a calculation without spin."""
    header, (first, second) = blocks_of(tmp_path / "source", total=numbers(), diff=numbers(seed=1))
    first, second = first + AUGMENTATION, second + AUGMENTATION
    content = (header + first + MOMENTS + second).encode()
    path = tmp_path / "CHGCAR"
    path.write_bytes(content)
    whole = read_chgcar(path)
    assert whole.kinds == ("total", "spin")
    accepted = set()
    for length in cuts(content):
        path.write_bytes(content[:length])
        try:
            density = read_chgcar(path)
        except RhosightError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert np.array_equal(density.grid("total"), whole.grid("total"))
            assert density.kinds == ("total",)
            accepted.add(content[length:].lstrip())
    assert accepted == {
        rest.encode().lstrip() for rest in (AUGMENTATION + MOMENTS + second, MOMENTS + second)
    }


def test_every_cut_of_a_chgcar_without_augmentation(tmp_path):
    """Likewise; without occupancies the place is the end of the first block's values, with or
    without its line end."""
    header, (first, second) = blocks_of(tmp_path / "source", total=numbers(), diff=numbers(seed=1))
    content = (header + first + second).encode()
    path = tmp_path / "CHGCAR"
    path.write_bytes(content)
    whole = read_chgcar(path)
    for length in cuts(content):
        path.write_bytes(content[:length])
        try:
            density = read_chgcar(path)
        except RhosightError:
            continue
        assert np.array_equal(density.grid("total"), whole.grid("total"))
        if "spin" in density.kinds:
            assert np.array_equal(density.grid("spin"), whole.grid("spin"))
            assert content[length:].isspace()
        else:
            assert not content[len(header + first.rstrip()) : length].strip()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.rindex("augmentation")], "occupancies of 1 of 2 atoms"),
        (lambda text: text[: text.rindex("0.5000000E+00")], "needs 6 values, the block holds 3"),
        (lambda text: text.replace("occupancies   2", "occupancies   3"), "in a cell of 2 atoms"),
        (lambda text: text + MOMENTS, "where the next block should begin"),
        (lambda text: text.replace("   2   6", "   2 999999999"), "write the file again"),
        (lambda text: text + "   4   3   4\n", "the header contradicts the data"),
        (lambda text: text + "   4   3   3\n", "needs 36 values, the block holds 0"),
        (lambda text: text.replace("0.7654321E+00", "0.7654321E+00 1.0"), "contradicts the data"),
    ],
    ids=[
        "entry lost",
        "entry cut",
        "atom that is not there",
        "moments but no block",
        "huge entry",
        "another grid",
        "no second block",
        "entry too long",
    ],
)
def test_between_blocks(tmp_path, change, message):
    header, (block,) = blocks_of(tmp_path / "source", total=numbers())
    path = tmp_path / "CHGCAR"
    path.write_text(change(header + block + AUGMENTATION), encoding="utf-8")
    assert message in error_of(path)


def test_augmentation_in_one_block_only(tmp_path):
    header, (first, second) = blocks_of(tmp_path / "source", total=numbers(), diff=numbers())
    path = tmp_path / "CHGCAR"
    path.write_text(header + first + AUGMENTATION + MOMENTS + second, encoding="utf-8")
    assert "block 2 lacks augmentation occupancies" in error_of(path)


@pytest.mark.parametrize("split", [" ", "\n"])
def test_a_number_that_was_split(tmp_path, split):
    """One value more in the first of two blocks is no line of magnetic moments."""
    header, (first, second) = blocks_of(tmp_path / "source", total=numbers(), diff=numbers())
    token = first.split()[10]
    path = tmp_path / "CHGCAR"
    damaged = first.replace(token, token[:5] + split + token[6:], 1)
    path.write_text(header + damaged + second, encoding="utf-8")
    assert "contradicts the data" in error_of(path)


def test_first_block_shorter_than_declared(tmp_path):
    """The second block's grid line ends the first, whatever follows."""
    header, (first, second) = blocks_of(tmp_path / "source", total=numbers(), diff=numbers())
    lines = first.splitlines(True)
    path = tmp_path / "CHGCAR"
    path.write_text(header + "".join(lines[:3] + lines[4:]) + second, encoding="utf-8")
    assert "the grid 4×3×3 needs 36 values, the block holds 31" in error_of(path)


def test_more_than_999_atoms(tmp_path):
    """VASP's field for an atom's number is three digits wide; four run into the words."""
    places = np.stack(np.meshgrid(*[np.arange(10) / 10] * 3, indexing="ij"), -1).reshape(-1, 3)
    crystal = Structure(Lattice.cubic(30), ["Fe"] * 1000, places)
    path = tmp_path / "CHGCAR"
    Chgcar(crystal, {"total": numbers()}).write_file(str(path))
    entries = [f"augmentation occupancies{i:4d}   1\n 0.1E+00\n" for i in range(1, 1001)]
    path.write_text(path.read_text() + "".join(entries))
    assert read_chgcar(path).grid("total").shape == SHAPE
    path.write_text(path.read_text().removesuffix(entries[-1]))
    assert "occupancies of 999 of 1000 atoms" in error_of(path)


# cube


def test_cube_in_ångström_and_with_an_origin(tmp_path):
    """Negative numbers of points: lengths in Å. An origin: the atoms move, the grid does not."""
    step = SALT.lattice.matrix / np.array(SHAPE)[:, None]
    grid = numbers()
    lines = ["rho", "", f"2 {step[0][0]} 0.0 0.0"]
    lines += [f"{-n} " + " ".join(map(str, row)) for n, row in zip(SHAPE, step, strict=True)]
    lines += ["11 11.0 0 0 0", "17 17.0 2.0 2.0 2.0", *map(str, grid.ravel())]
    path = tmp_path / "rho.cube"
    path.write_text("\n".join(lines) + "\n")
    density = read_cube(path, unit="e/angstrom3")
    assert np.allclose(density.structure.lattice.matrix, SALT.lattice.matrix)
    assert np.allclose(density.structure.frac_coords, [[0.75, 0, 0], [0.25, 0.5, 0.5]])
    assert np.array_equal(density.grid("total"), grid)


def test_cube_with_an_origin_is_the_same_crystal(dataset, tmp_path):
    """Rolled by two points and said so: values at atoms are the same."""
    density = dataset["mp-22862"].density
    grid, structure = density.grid("total").astype(float), density.structure
    origin = structure.lattice.matrix[0] * 2 / grid.shape[0]
    rolled = np.roll(grid, -2, axis=0)
    path = write_cube(tmp_path / "a.cube", structure, rolled, origin=origin)
    read = read_cube(path, unit="e/angstrom3")
    for before, after in zip(structure, read.structure, strict=True):
        places = [
            tuple(np.round(site.frac_coords * grid.shape).astype(int) % grid.shape)
            for site in (before, after)
        ]
        assert read.grid("total")[places[1]] == pytest.approx(grid[places[0]], rel=1e-5)


@pytest.mark.parametrize("orbitals", [1, 2])
def test_cube_of_orbitals(tmp_path, orbitals):
    path = write_cube(tmp_path / "a.cube", SALT, numbers())
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace("    2", "   -2", 1)
    lines.insert(8, f"{orbitals} " + " ".join(map(str, range(1, orbitals + 1))))
    path.write_text("\n".join(lines) + "\n")
    assert f"contains orbitals ({orbitals}; its number of atoms is negative)" in error_of(path)


def test_cube_of_castep(tmp_path):
    """castep2cube repeats the end points."""
    grid = numbers()
    cell = SALT.lattice.matrix * (np.array(SHAPE) + 1)[:, None] / np.array(SHAPE)[:, None]
    bigger = Structure(cell, SALT.species, SALT.cart_coords, coords_are_cartesian=True)
    path = write_cube(tmp_path / "a.cube", bigger, general_grid(grid))
    text = path.read_text().split("\n", 2)
    path.write_text("\n".join(["NaCl", "generated by castep2cube", text[2]]))
    density = read_cube(path, unit="e/angstrom3")
    assert density.shape == SHAPE and density.provenance["code"] == "CASTEP"
    assert np.allclose(density.grid("total"), grid, rtol=1e-5)
    assert same_crystal(density.structure, SALT)
    path.write_text(path.read_text().replace("castep2cube", "others"))
    assert "does the file repeat end points?" in read_cube(path).provenance["notes"][0]


@pytest.mark.parametrize(
    ("line", "content", "message"),
    [
        (2, "0 0 0 0", "contains no atoms"),
        (2, "3 0 0 0", "line 9 should hold an atom"),
        (2, "99999999999999 0 0 0", "not a whole number"),
        (2, "999999999 0 0 0", "line 9 should hold an atom"),
        (2, "2 0 0 0 4", "4 values at each point"),
        (2, "2.5 0 0 0", "begins with 2.5, not a whole number"),
        (3, "-4 1.9 0 0", "must all be positive (lengths in Bohr) or all negative (in Å)"),
        (3, "0 1.9 0 0", "must all be positive"),
        (3, "4 0 0 0", "the cell has no volume"),
        (3, "4 nan 0 0", "line 4 should hold a number of points"),
        (3, "1000000 1.9 0 0", "truncated: the grid 1000000×3×3 needs 9000000 values"),
        (3, "5 1.9 0 0", "truncated: the grid 5×3×3 needs 45 values, the block holds 36"),
        (3, "3 1.9 0 0", "the grid declares 27 values"),
        (6, "0 0 0 0 0", "no element has the atomic number 0"),
        (6, "NaCl 0 0 0 0", "line 7 should hold an atom"),
        (12, "what", "line 13: 'what' is not a number"),
    ],
)
def test_bad_cubes(tmp_path, line, content, message):
    path = write_cube(tmp_path / "a.cube", SALT, numbers())
    lines = path.read_text().splitlines()
    lines[line] = content
    path.write_text("\n".join(lines) + "\n")
    assert message in error_of(path, read_cube)


# XSF


def xsf_lines(path: Path) -> list[str]:
    spans = SALT.lattice.matrix
    write_xsf(path, SALT, general_grid(numbers()), span_vectors=spans)
    return path.read_text().splitlines()


def test_xsf_as_pwscf_writes_it(tmp_path):
    """Lower-case labels, comments, symbols for numbers, DATAGRID_3D without BEGIN_."""
    path = tmp_path / "rho.xsf"
    text = "\n".join(xsf_lines(path))
    text = text.replace(" BEGIN_DATAGRID_3Dgrid#1", "DATAGRID_3D_UNKNOWN")
    text = text.replace(" data\n", "3D_PWSCF\n").replace(" 11 ", " Na1 ").replace(" 17 ", " cl ")
    path.write_text("# by hand\n\n" + text + "\n")
    density = read_xsf(path, unit="e/angstrom3")
    assert np.allclose(density.grid("total"), numbers(), atol=1e-6)
    assert density.structure.species == SALT.species
    assert density.provenance["comment"] == "3D_PWSCF UNKNOWN"


def test_xsf_shorter_by_one_step(tmp_path):
    """Each point once, as the format has it: the vectors end at the last point."""
    spans = SALT.lattice.matrix * ((np.array(SHAPE) - 1) / SHAPE)[:, None]
    path = write_xsf(tmp_path / "a.xsf", SALT, numbers(), span_vectors=spans)
    assert np.allclose(read_xsf(path, unit="e/angstrom3").grid("total"), numbers(), atol=1e-6)


def test_xsf_that_misunderstands(tmp_path):
    """Vectors of the whole cell over points that are there once: told from the values."""
    spans = SALT.lattice.matrix
    path = write_xsf(tmp_path / "a.xsf", SALT, numbers(), span_vectors=spans)
    density = read_xsf(path, unit="e/angstrom3")
    assert np.allclose(density.grid("total"), numbers(), atol=1e-6)
    assert "end points are not repeated" in density.provenance["notes"][0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CRYSTAL", "SLAB", "holds a slab, not a crystal"),
        ("CRYSTAL", "ANIMSTEPS 3", "holds several structures"),
        ("PRIMVEC", "CONVVEC", "no PRIMVEC and PRIMCOORD"),
        (" 2 1\n", " 0 1\n", "0 atoms; a crystal has one or more"),
        (" 2 1\n", " 99999999 1\n", "should hold an atom and its position"),
        (" 2 1\n", " 1e300 1\n", "a crystal has one or more"),
        (" 17 ", " Xx ", "'Xx' is not an element"),
        (" 4.00000000000000 0", " 0.00000000000000 0", "the cell has no volume"),
        ("BEGIN_BLOCK_DATAGRID_3D", "BEGIN_BLOCK_DATAGRID_2D", "no grid after the structure"),
        ("BEGIN_DATAGRID_3D", "BEGIN_DATAGRID_2D", "no DATAGRID_3D"),
        ("  5 4 4\n", "  1000000 1000000 1000000\n", "truncated: the grid 1000000×1000000×1000000"),
        ("  5 4 4\n", "  5 4 5\n", "needs 100 values, the block holds 80"),
        ("  5 4 4\n", "  5 4 3\n", "should end the grid of 60 values"),
        ("  5 4 4\n", "  5 4 x\n", "numbers of points of the grid"),
        ("  4.000000 0.", "  8.000000 0.", "the grid spans 2 of lattice vector 1"),
        ("  4.000000 0.", "  4.000000 1.", "and another direction"),
        (" END_DATAGRID_3D", " 1.0\n END_DATAGRID_3D", "should end the grid of 80 values"),
    ],
)
def test_bad_xsf(tmp_path, old, new, message):
    path = tmp_path / "a.xsf"
    text = "\n".join(xsf_lines(path)) + "\n"
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert message in error_of(path, read_xsf)


def test_xsf_with_one_end_point_changed(tmp_path):
    """An end that does not repeat its beginning is damage, not another kind of grid."""
    grid = general_grid(numbers())
    grid[-1, 1, 1] += 0.5
    path = write_xsf(tmp_path / "a.xsf", SALT, grid, span_vectors=SALT.lattice.matrix)
    assert "damaged or not periodic" in error_of(path)


# hostile files


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    """One good file of each text format."""
    folder = tmp_path_factory.mktemp("samples")
    header, (first, second) = blocks_of(folder / "source", total=numbers(), diff=numbers(seed=1))
    xsf_lines(folder / "rho.xsf")
    write_cube(folder / "rho.cube", SALT, numbers())
    content = header + first + AUGMENTATION + MOMENTS + second + AUGMENTATION
    files = {"CHGCAR": content.encode()}
    files |= {name: (folder / name).read_bytes() for name in ("rho.xsf", "rho.cube")}
    return files


NAMES = st.sampled_from(["CHGCAR", "rho.xsf", "rho.cube"])


@settings(PATIENT, max_examples=200)
@given(name=NAMES, place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_one_byte_replaced(samples, tmp_path, name, place, byte):
    """A density, or one line: never another exception."""
    content = bytearray(samples[name])
    content[int(place * len(content))] = byte
    path = tmp_path / name
    path.write_bytes(content)
    try:
        density = read_density(path)
    except RhosightError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert density.shape == SHAPE and np.isfinite(density.grid("total")).all()


@settings(PATIENT, max_examples=100)
@given(name=NAMES, data=st.data())
def test_lines_lost_and_swapped(samples, tmp_path, name, data):
    lines = samples[name].splitlines(True)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["lose", "repeat", "move", "empty"]))
        if change == "lose":
            del lines[place]
        elif change == "repeat":
            lines.insert(place, lines[place])
        elif change == "move":
            lines.insert(data.draw(st.integers(0, len(lines) - 1)), lines.pop(place))
        else:
            lines[place] = b"\n"
    path = tmp_path / name
    path.write_bytes(b"".join(lines))
    try:
        read_density(path)
    except RhosightError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


@settings(PATIENT, max_examples=100)
@given(
    name=st.sampled_from(["CHGCAR", "CHG.gz", "a.xsf", "a.cube", "a.h5", "nothing"]),
    content=st.binary(max_size=400) | st.text(max_size=400).map(lambda t: t.encode("utf-16")),
)
@example(name="CHGCAR", content=b"")
@example(name="a.xsf", content=b"\x1f\x8b")
@example(name="a.h5", content=b"\x89HDF\r\n\x1a\n")
@example(name="CHGCAR", content=b"\n" * 400)
@example(name="a.cube", content=b"1 1 1 1\n" * 40)
def test_any_bytes(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    error_of(path)


@pytest.mark.parametrize("name", ["a.cube", "a.xsf"])
def test_every_cut_of_the_other_formats(samples, tmp_path, name):
    """A cube is whole without its last line end, an XSF once its grid has ended."""
    content = samples[name.replace("a.", "rho.")]
    path = tmp_path / name
    path.write_bytes(content)
    read = {"a.cube": read_cube, "a.xsf": read_xsf}[name]
    whole = read(path).grid("total")
    end = len(content.rstrip()) if name == "a.cube" else content.index(b"END_DATAGRID_3D") + 12
    for length in cuts(content):
        path.write_bytes(content[:length])
        try:
            density = read(path)
        except RhosightError:
            continue
        assert length >= end
        assert np.array_equal(density.grid("total"), whole)


def guarded(path: Path, megabytes: float, seconds: float) -> str:
    """The error of a file, within bounds of memory and time."""
    tracemalloc.start()
    started = time.perf_counter()
    message = error_of(path)
    elapsed = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak < megabytes and elapsed < seconds
    return message


@pytest.mark.parametrize("name", ["CHGCAR", "CHGCAR.gz", "a.cube", "a.xsf", "a.h5", "a"])
def test_ten_megabytes_of_random_bytes(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(3).bytes(10**7))
    guarded(path, megabytes=20, seconds=5)


def header_of(grid: str) -> str:
    head = "NaCl\n1.0\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n\n"
    return head + grid + "\n"


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz"])
def test_a_grid_beyond_all_memory(tmp_path, ending):
    """Refused before any memory is taken for it."""
    content = (header_of("1000000 1000000 1000000") + " 1.0 2.0 3.0 4.0 5.0\n" * 1000).encode()
    compress = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    path = tmp_path / f"CHGCAR{ending}"
    path.write_bytes(compress[ending](content))
    message = guarded(path, megabytes=80, seconds=2)
    assert "the grid 1000000×1000000×1000000 needs 1000000000000000000 values" in message


def test_many_atoms_declared(tmp_path):
    path = tmp_path / "CHGCAR"
    path.write_text(header_of("4 3 3").replace("1 1\n", "1 99999999999\n") + "1.0 " * 36 + "\n")
    assert "declares 100000000000 atoms" in guarded(path, megabytes=10, seconds=2)


@pytest.mark.parametrize("counts", ["0 0", "-1 1", "0"])
def test_no_atoms(tmp_path, counts):
    path = tmp_path / "CHGCAR"
    path.write_text(header_of("4 3 3").replace("1 1\n", f"{counts}\n") + "1.0 " * 36 + "\n")
    assert "no atoms, or a negative number" in error_of(path)


def test_atoms_of_no_element(tmp_path):
    path = tmp_path / "CHGCAR"
    path.write_text(header_of("4 3 3").replace("Na Cl", "Na X") + "1.0 " * 36 + "\n")
    assert "is not one element per site" in error_of(path)


@pytest.mark.parametrize("row", ["0 0 0", "4 0 0", "4 1e-9 0", "nan 0 0", "inf 0 0"])
def test_singular_cell(tmp_path, row):
    path = tmp_path / "CHGCAR"
    path.write_text(header_of("4 3 3").replace("0 4 0", row) + "1.0 " * 36 + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "the cell has no volume" in error_of(path)


@pytest.mark.parametrize(
    "filler", [b" ", b"\n", b"1.0\n", b"x"], ids=["blanks", "lines", "numbers", "one line"]
)
@pytest.mark.parametrize("after", ["comment", "grid", "values"])
def test_gzip_bomb(tmp_path, after, filler):
    """2 MB that are 2 GB: reading stops soon after what the header can account for."""
    start = {
        "comment": b"NaCl\n",
        "grid": header_of("60 60 60").encode(),
        "values": header_of("4 3 3").encode() + b"1.0 " * 36 + b"\n",
    }[after]
    path = tmp_path / "CHGCAR.gz"
    piece = gzip.compress(filler * (2**20 // len(filler)))
    path.write_bytes(gzip.compress(start) + piece * 2000)
    assert path.stat().st_size < 2e7
    guarded(path, megabytes=100, seconds=30)


def test_limit_on_text(tmp_path):
    path = tmp_path / "CHGCAR"
    path.write_text(header_of("40 40 40") + "1.0 " * 64000 + "\n")
    assert read_density(path).shape == (40, 40, 40)
    with pytest.raises(RhosightError, match=r"more than a file of .* can hold; if that is"):
        read_density(path, max_bytes=100_000)


# units and the number of electrons


def test_expected_electrons():
    low, high = estimate_electrons(SALT)
    assert low == 0.5 * (1 + 7) and high == pytest.approx(1.02 * (11 + 17))


@pytest.mark.parametrize("format_", ["cube", "xsf"])
def test_a_wrong_unit_is_found(dataset, tmp_path, format_):
    """Silicon, e/Å³ in a file whose format says e/Bohr³, and the other way round."""
    density = dataset["mp-149"].density
    structure, grid = density.structure, density.grid("total").astype(float)
    if format_ == "cube":
        path = write_cube(tmp_path / "a.cube", structure, grid)
    else:
        spans = structure.lattice.matrix
        path = write_xsf(tmp_path / "a.xsf", structure, general_grid(grid), span_vectors=spans)
    message = error_of(path)
    assert "with unit='e/angstrom3' (a factor of 0.1482)" in message
    read = read_density(path, unit="e/angstrom3")
    assert np.allclose(read.grid("total"), grid, atol=1e-5)
    assert "notes" not in read.provenance
    # what is given is believed, and the oddity noted
    believed = read_density(path, unit="e/bohr3")
    assert "electrons in the cell, read in e/bohr3" in believed.provenance["notes"][0]
    # the number of electrons is known: pseudo-density or not, it is told what it should be
    electrons = density.integral("total")
    assert read_density(path, unit="e/angstrom3", expected=electrons).kinds == ("total",)
    with pytest.raises(RhosightError, match="expected are"):
        read_density(path, expected=electrons)


def test_a_chgcar_that_was_not_multiplied_by_the_volume(dataset, tmp_path):
    density = dataset["mp-149"].density
    grid = density.grid("total").astype(float)
    path = tmp_path / "CHGCAR"
    Chgcar(density.structure.copy(), {"total": grid}).write_file(str(path))
    assert "with unit='e/angstrom3'" in error_of(path)
    assert np.allclose(read_density(path, unit="e/angstrom3").grid("total"), grid, atol=1e-5)


def test_whole_numbers_tell_a_unit_that_bounds_cannot(dataset):
    """Gold: 11 electrons, or 74 if read in another unit, and both are possible."""
    gold = Structure(Lattice.cubic(2.5), ["Au"], [[0, 0, 0]])
    grid = np.full((8, 8, 8), 11 / gold.volume)
    right = ChargeDensity(gold, {"total": grid}, name="right")
    wrong = ChargeDensity(gold, {"total": grid / BOHR**3}, name="wrong")
    assert check_electron_count(right, "e/angstrom3") == []
    (note,) = check_electron_count(wrong, "e/bohr3")
    assert "a whole number in e/angstrom3 (11.000): check the unit" in note


def test_bundled_densities_pass(dataset):
    """No real density is refused for its own unit, pseudo-density or not; and none whose unit is
    taken for electrons per cell, or the other way round, passes."""
    volumes = [density.structure.volume for density in dataset.densities]
    noted = 0
    for density, volume in zip(dataset.densities, volumes, strict=True):
        noted += bool(check_electron_count(density, "e/angstrom3"))
        shrunk = {"total": density.grid("total") / volume}
        try:
            noted += bool(check_electron_count(ChargeDensity(density.structure, shrunk), "e"))
        except RhosightError:
            continue
        assert density.structure.composition.reduced_formula == "NiH"  # out of all bounds
    assert noted <= 4


def test_a_total_called_difference(dataset, tmp_path):
    density = dataset["mp-149"].density
    density.to_chgcar(tmp_path / "CHGCAR")
    notes = read_density(tmp_path / "CHGCAR", kind="difference").provenance["notes"]
    assert "is it a total density?" in notes[0]
    density.to_chgcar(tmp_path / "CHGCAR", kind="difference")
    assert "notes" not in read_density(tmp_path / "CHGCAR", kind="difference").provenance


def test_kinds_and_units_that_are_unknown(tmp_path):
    path = write_cube(tmp_path / "a.cube", SALT, numbers())
    assert read_density(path, kind="spin").kinds == ("spin",)
    with pytest.raises(RhosightError, match="no kind `promolecule`; choose one of total"):
        read_density(path, kind="promolecule")
    with pytest.raises(RhosightError, match="no unit 'e/nm3'; choose one of e, e/angstrom3"):
        read_density(path, unit="e/nm3")


def test_the_code_as_far_as_the_file_tells(tmp_path):
    path = write_cube(tmp_path / "a.cube", SALT, numbers(), comment=" Cubefile created from PWScf")
    provenance = read_cube(path).provenance
    assert provenance["code"] == "Quantum ESPRESSO" and provenance["unit"] == "e/bohr3"
    path = write_cube(tmp_path / "b.cube", SALT, numbers(), comment="by hand")
    assert "code" not in read_cube(path).provenance


# difference of two files


@pytest.fixture
def aeccars(dataset, tmp_path) -> dict[str, Path]:
    """A real density and its promolecule under VASP's names."""
    density = dataset["mp-22862"].density
    kinds = {"AECCAR2": "total", "AECCAR1": "promolecule", "AECCAR0": "total", "CHGCAR": "total"}
    for name, kind in kinds.items():
        density.to_chgcar(tmp_path / name, kind=kind)
    return {name: tmp_path / name for name in kinds}


def test_difference_of_aeccars(dataset, aeccars):
    density = dataset["mp-22862"].density
    result = compute_difference(*(read_density(aeccars[n]) for n in ("AECCAR2", "AECCAR1")), "salt")
    assert result.kinds == ("difference",) and result.name == "salt"
    assert np.allclose(result.grid("difference"), density.grid("difference"), atol=1e-6)
    assert result.provenance["source"] == "AECCAR2 − AECCAR1"
    assert result.provenance["density"].startswith("all-electron valence density minus")
    assert read_density(aeccars["AECCAR0"]).provenance["density"] == "all-electron core density"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("CHGCAR", "AECCAR1"),
        ("AECCAR2", "CHGCAR"),
        ("AECCAR1", "AECCAR2"),
        ("AECCAR2", "AECCAR0"),
        ("AECCAR2", "AECCAR2"),
    ],
)
def test_descriptions_are_not_mixed(aeccars, first, second):
    pair = [read_density(aeccars[name]) for name in (first, second)]
    with pytest.raises(RhosightError, match="is AECCAR2 minus AECCAR1, not"):
        compute_difference(*pair)


def test_all_electron_and_pseudo_are_not_merged(aeccars):
    """A promolecule of CHGCAR minus a difference of AECCARs would be none."""
    pair = [read_density(aeccars[name]) for name in ("AECCAR2", "AECCAR1")]
    difference = compute_difference(*pair)
    assert pair[0].merge(difference).kinds == ("total", "difference", "promolecule")
    with pytest.raises(RhosightError, match="only one is all-electron"):
        read_density(aeccars["CHGCAR"]).merge(difference)


def test_difference_of_other_crystals(dataset):
    scf = dataset["mp-22862"].density
    grids = {"total": scf.grid("promolecule")}
    same = ChargeDensity(scf.structure, grids, name="atoms")
    assert np.allclose(compute_difference(scf, same).grid("difference"), scf.grid("difference"))
    moved = scf.structure.copy()
    moved.translate_sites([0], [0.01, 0, 0])
    larger = scf.structure.copy().apply_strain(0.01)
    for structure in (moved, larger, scf.structure.copy().replace_species({"Na": "K"})):
        with pytest.raises(RhosightError, match=r"^atoms: not the crystal of mp-22862"):
            compute_difference(scf, ChargeDensity(structure, grids, name="atoms"))
    with pytest.raises(RhosightError, match="its grid is not that of mp-22862"):
        fewer = {"total": scf.grid("total")[::2, ::2, ::2]}
        compute_difference(scf, ChargeDensity(scf.structure, fewer, name="atoms"))


# HDF5


def test_hdf5_that_is_another(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["other"] = [1.0]
    assert "not an HDF5 file of pymatgen's VolumetricData" in error_of(path)
    Chgcar(SALT.copy(), {"total": numbers()}).to_hdf5(str(path))
    with h5py.File(path, "r+") as file:
        del file["vdata/total"]
        file.create_dataset("vdata/total", (10**6, 10**6, 10**6), dtype="f8", chunks=True)
    assert "a density has three dimensions and at most 4 GiB" in guarded(path, 20, 2)
