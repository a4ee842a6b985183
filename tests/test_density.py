"""Charge densities: kinds, units, CHGCAR files good and bad, regridding."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp.outputs import Chgcar

from rhosight import ChargeDensity, RhosightError
from rhosight.density.sampling import sample
from rhosight.density.vasp import read_chgcar

SIDE = 4.0
SHAPE = (10, 12, 9)
VOLUME = SIDE**3
CRYSTAL = Structure(Lattice.cubic(SIDE), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
AUGMENTATION = {  # as VASP writes it: per atom, then one number per atom before the next block
    "1": "augmentation occupancies   1   3\n  0.1234567E+00 -0.1234567E-01  0.7654321E+00\n",
    "2": "augmentation occupancies   2   4\n"
    "  0.1234567E+00  0.1234567E+00 -0.1234567E+00  0.5000000E+00\n",
}
MOMENTS = "  0.200000E+01 -0.100000E+01\n"


@pytest.fixture(scope="module")
def blocks() -> dict[str, np.ndarray]:
    """What a CHGCAR holds: values times the cell volume."""
    rng = np.random.default_rng(0)
    return {"total": rng.random(SHAPE) * 3 + 1, "diff": rng.random(SHAPE) - 0.5}


def text_of(blocks: dict[str, np.ndarray], folder: Path) -> str:
    path = folder / "written-by-pymatgen"
    Chgcar(CRYSTAL, blocks).write_file(str(path))
    return path.read_text(encoding="utf-8")


@pytest.fixture
def plain(blocks, tmp_path) -> str:
    """A CHGCAR of one block."""
    return text_of({"total": blocks["total"]}, tmp_path)


@pytest.fixture
def spin_polarised(blocks, tmp_path) -> str:
    """A CHGCAR of two blocks."""
    return text_of(blocks, tmp_path)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "CHGCAR"


def grid_line(text: str) -> str:
    """The line that declares the grid."""
    return next(line for line in text.splitlines(True) if line.split() == list(map(str, SHAPE)))


def error_of(path: Path) -> str:
    """The message that reading a bad file gives: one line that names the file."""
    with pytest.raises(RhosightError) as caught:
        read_chgcar(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# kinds


def test_kinds_and_promolecule(blocks):
    total, difference = (blocks[name] / VOLUME for name in ("total", "diff"))
    density = ChargeDensity(CRYSTAL, {"total": total, "difference": difference}, name="salt")
    assert density.shape == SHAPE
    assert density.kinds == ("total", "difference", "promolecule")
    assert np.array_equal(density.grid("promolecule"), total - difference)
    assert density.integral("promolecule") == pytest.approx(
        density.integral("total") - density.integral("difference")
    )


def test_real_promolecule(dataset):
    """The bundled promolecule: positive but for the noise of a plane-wave cut-off, and smooth."""
    density = dataset["mp-22862"].density
    promolecule = density.grid("promolecule")
    assert np.allclose(promolecule, density.grid("total") - density.grid("difference"))
    assert promolecule.min() > 0
    assert density.integral("promolecule") == pytest.approx(density.integral("total"), rel=0.01)


@pytest.mark.parametrize(
    ("have", "want", "message"),
    [
        ("total", "difference", "salt: has total but not `difference`"),
        ("total", "promolecule", "`promolecule` needs both `total` and `difference`"),
        ("difference", "total", "salt: has difference but not `total`"),
        ("total", "spin", "salt: has total but not `spin`"),
    ],
)
def test_a_kind_that_is_missing(have, want, message):
    density = ChargeDensity(CRYSTAL, {have: np.ones((8, 8, 8))}, name="salt")
    with pytest.raises(RhosightError, match=message):
        density.grid(want)


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({}, "no density grid; give at least one"),
        ({"diff": np.ones((8, 8, 8))}, "unknown kind of density"),
        ({"total": np.ones((8, 8, 8)), "spin": np.ones((8, 8, 9))}, "the grids differ in shape"),
        ({"total": np.ones((8, 8))}, "three dimensions"),
        ({"total": np.full((8, 8, 8), np.inf)}, "512 of 512 values of `total` are NaN or infinite"),
        ({"total": np.ones((10, 60, 60))}, "contradicts the cell of 4.00×4.00×4.00 Å"),
    ],
)
def test_grids_that_cannot_be(grids, message):
    with pytest.raises(RhosightError, match=f"^NaCl: .*{message}"):
        ChargeDensity(CRYSTAL, grids)


# CHGCAR files that are good


def test_total_in_electrons_per_cubic_ångström(plain, blocks, path):
    path.write_text(plain, encoding="utf-8")
    density = read_chgcar(path)
    assert density.kinds == ("total",)
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)
    assert density.integral("total") == pytest.approx(blocks["total"].mean())
    assert density.structure.composition.reduced_formula == "NaCl"
    assert density.name == str(path)
    assert density.provenance == {"source": "CHGCAR", "format": "CHGCAR"}


@pytest.mark.parametrize("extras", ["neither", "augmentation", "moments", "both"])
def test_diff_block_is_spin(spin_polarised, blocks, path, extras):
    """The second block is the magnetisation density and never `difference`."""
    start = spin_polarised.rindex(grid_line(spin_polarised))
    first, second = spin_polarised[:start], spin_polarised[start:]
    augmentation = "".join(AUGMENTATION.values()) if extras in ("augmentation", "both") else ""
    moments = MOMENTS if extras in ("moments", "both") else ""
    path.write_text(first + augmentation + moments + second + augmentation, encoding="utf-8")
    density = read_chgcar(path)
    assert density.kinds == ("total", "spin")
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)
    assert np.allclose(density.grid("spin"), blocks["diff"] / VOLUME, rtol=0, atol=1e-11)
    with pytest.raises(RhosightError, match="not `difference`"):
        density.grid("difference")


def test_difference_file(plain, spin_polarised, path):
    path.write_text(plain, encoding="utf-8")
    assert read_chgcar(path, kind="difference").kinds == ("difference",)
    path.write_text(spin_polarised, encoding="utf-8")
    assert read_chgcar(path, kind="difference").kinds == ("difference",)
    with pytest.raises(RhosightError, match="can be `total` or `difference`, not `spin`"):
        read_chgcar(path, kind="spin")


def test_non_collinear_file_gives_its_total(spin_polarised, plain, blocks, path):
    start = plain.index(grid_line(plain))
    path.write_text(plain + 3 * plain[start:], encoding="utf-8")
    density = read_chgcar(path)
    assert density.kinds == ("total",)
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: ("α-Ångström 塩\n" + text.split("\n", 1)[1]).encode(),
        lambda text: ("Ångström\n" + text.split("\n", 1)[1]).encode("latin-1"),
        lambda text: ("\n" + text.split("\n", 1)[1]).encode(),
        lambda text: text.rstrip().encode(),
        lambda text: (text + "".join(AUGMENTATION.values())).encode(),
    ],
    ids=["Windows", "Unicode", "Latin-1", "no comment", "no last line end", "augmentation"],
)
def test_variations_that_work(plain, blocks, path, change):
    path.write_bytes(change(plain))
    density = read_chgcar(path)
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("ending", "compress"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_compressed(plain, blocks, tmp_path, ending, compress):
    path = tmp_path / f"CHGCAR.{ending}"
    path.write_bytes(compress.compress(plain.encode()))
    density = read_chgcar(path)
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)


def test_exponent_of_three_digits(plain, blocks, path):
    """Fortran drops the E: 0.12345678901-101 is next to nothing, and shifts no other value."""
    token = plain.splitlines()[20].split()[2]
    path.write_text(plain.replace(token, "0.12345678901-101"), encoding="utf-8")
    grid = read_chgcar(path).grid("total") * VOLUME
    changed = np.abs(grid - blocks["total"]) > 1e-9
    assert changed.sum() == 1
    assert np.abs(grid[changed]).max() < 1e-99


def test_exponents_of_double_precision(plain, blocks, path):
    """Fortran writes D in place of E; in the cell and the positions, too."""
    path.write_text(plain.replace("E+", "D+").replace("E-", "d-").replace("4.000000", "0.4D+01"))
    density = read_chgcar(path)
    assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_round_trip(dataset, tmp_path, ending):
    """A real spin-polarised density: `total` and `spin` survive to the file's eleven digits."""
    density = dataset["mp-102"].density
    assert "spin" in density.kinds
    path = tmp_path / f"CHGCAR{ending}"
    density.to_chgcar(path)
    again = read_chgcar(path)
    assert again.kinds == ("total", "spin")
    for kind in again.kinds:
        assert np.allclose(again.grid(kind), density.grid(kind), rtol=1e-6, atol=1e-9)
        assert again.integral(kind) == pytest.approx(density.integral(kind), abs=1e-5)
    assert np.allclose(again.structure.lattice.matrix, density.structure.lattice.matrix, atol=1e-6)
    density.to_chgcar(path, kind="difference")
    again = read_chgcar(path, kind="difference")
    assert again.kinds == ("difference",)
    assert np.allclose(again.grid("difference"), density.grid("difference"), rtol=1e-6, atol=1e-9)


# CHGCAR files that are bad


def test_no_file(tmp_path):
    assert error_of(tmp_path / "nowhere") == "no such file"
    assert "is a folder; give the CHGCAR file in it" in error_of(tmp_path)


def last_value_cut(text: str, lost: int) -> str:
    return text.rstrip()[:-lost]


def header(shape: str) -> Callable[[str], str]:
    return lambda text: text.replace(grid_line(text), f"  {shape}\n", 1)


def value(token: str) -> Callable[[str], str]:
    return lambda text: text.replace(text.splitlines()[20].split()[2], token)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "truncated: the grid 10×12×9 needs 1080 values"),
        (lambda text: "".join(text.splitlines(True)[:-3]), "truncated: the grid 10×12×9 needs"),
        (lambda text: last_value_cut(text, 1), "truncated within its last number"),
        (lambda text: last_value_cut(text, 2), "truncated within its last number"),
        (lambda text: last_value_cut(text, 6), "truncated within its last number"),
        (lambda text: text[: text.index(grid_line(text))], "no density after the structure"),
        (lambda text: text[:90], "no density after the structure"),
        (lambda _: "", "no density after the structure"),
        (lambda _: "not a\ndensity\n" * 20, "no density after the structure"),
        (value("hello"), "line 21: 'hello' is not a number"),
        (value("*" * 17), "line 21: '*****************' is not a number"),
        (value("NaN"), "1 of 1080 values of `total` are NaN or infinite"),
        (value("-Infinity"), "1 of 1080 values of `total` are NaN or infinite"),
        (header("10 12 10"), "truncated: the grid 10×12×10 needs 1200 values, the block holds 108"),
        (header("10 12 8"), "the grid 10×12×8 declares 960 values, the block holds 1080"),
        (header("60 6 3"), "grid 60×6×3 contradicts the cell of 4.00×4.00×4.00 Å"),
        (header("10.0 12.0 9.0"), "should declare the grid as three integers"),
        (header("-10 -12 9"), "should declare the grid as three integers"),
        (header("99999999 99999999 99999999"), "truncated: the grid 99999999×99999999×99999999"),
        (lambda text: text.replace("Na   Cl", "1    1").replace("1    1   \n", ""), "not named"),
        (lambda text: text.replace("4.000000", "0.000000"), "the cell has no volume"),
        (lambda text: "".join(text.splitlines(True)[:8] + text.splitlines(True)[9:]), "not a"),
        (lambda text: text + "the end\n", "'the' is not a number"),
    ],
    ids=[
        "half a file",
        "lines lost",
        "cut in an exponent",
        "cut before an exponent's digits",
        "cut in a mantissa",
        "structure only",
        "half a structure",
        "empty",
        "other text",
        "word",
        "stars",
        "NaN",
        "infinity",
        "fewer values than declared",
        "more values than declared",
        "grid that contradicts the cell",
        "grid of floats",
        "negative grid",
        "huge grid",
        "no symbols",
        "no volume",
        "atom lost",
        "words at the end",
    ],
)
def test_bad_files(plain, path, change, message):
    path.write_text(change(plain), encoding="utf-8")
    assert message in error_of(path)


def test_grid_of_another_cell(path):
    """10×60×60 in a cube: the data are all there, but of another crystal."""
    grid = np.ones((10, 60, 60))
    Chgcar(CRYSTAL, {"total": grid}).write_file(str(path))
    message = error_of(path)
    assert message.startswith("grid 10×60×60 contradicts the cell")
    assert "check that structure and density belong together" in message


@pytest.mark.parametrize("lost", [1, 4, 40, 4000])
def test_second_block_cut(spin_polarised, path, lost):
    """A file that ends within `spin` is not read as one without it."""
    path.write_text(spin_polarised.rstrip()[:-lost], encoding="utf-8")
    message = error_of(path)
    assert "truncated" in message or "Expected 1080 values" in message


def test_second_block_of_another_grid(spin_polarised, path):
    start = spin_polarised.rindex(grid_line(spin_polarised))
    second = spin_polarised[start:].replace(grid_line(spin_polarised), "  10 12 8\n")
    path.write_text(spin_polarised[:start] + second, encoding="utf-8")
    assert "the header contradicts the data" in error_of(path)


def test_random_bytes(path):
    """Whatever the bytes: one line, never a traceback."""
    rng = np.random.default_rng(7)
    for length in (1, 100, 5000):
        path.write_bytes(rng.integers(0, 256, length, dtype=np.uint8).tobytes())
        error_of(path)


def test_damaged_bytes(plain, path):
    """A good file with forty places overwritten is read, or refused in one line."""
    rng = np.random.default_rng(8)
    refused = 0
    for _ in range(40):
        content = bytearray(plain.encode())
        for place in rng.integers(0, len(content), 40):
            content[place] = rng.integers(32, 127)
        path.write_bytes(content)
        try:
            read_chgcar(path)
        except RhosightError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_bad_compression(plain, tmp_path, ending, damage):
    compress = {"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress
    content = compress(plain.encode())
    content = {
        "cut": content[: len(content) // 2],
        "changed": content[:200] + b"abcdefgh" * 4 + content[232:],
    }[damage]
    path = tmp_path / f"CHGCAR.{ending}"
    path.write_bytes(content)
    assert "cannot be read" in error_of(path)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".txt", ""])
def test_a_name_that_says_nothing_of_the_compression(plain, blocks, tmp_path, ending):
    """The first bytes decide: browsers unpack a file and leave its name."""
    for content in (plain.encode(), gzip.compress(plain.encode())):
        path = tmp_path / f"CHGCAR{ending}"
        path.write_bytes(content)
        density = read_chgcar(path)
        assert np.allclose(density.grid("total"), blocks["total"] / VOLUME, rtol=0, atol=1e-11)


# regridding


@pytest.mark.parametrize("material_id", ["mp-22862", "mp-149"], ids=["NaCl", "Si"])
def test_regrid(dataset, material_id):
    """Py-Rho's 60³ agrees with exact Fourier interpolation to 3 % of the range at worst and to
    0.2 % on average (it is linear on a doubled grid); the integral stays."""
    pytest.importorskip("pyrho")
    density = dataset[material_id].density
    regridded = density.regrid()
    assert regridded.shape == (60, 60, 60)
    assert regridded.kinds == density.kinds
    assert regridded.structure == density.structure
    places = np.random.default_rng(0).integers(0, 60, size=(2000, 3))
    for kind in density.grids:
        exact = sample(density.grid(kind), places / 60, "fourier", density.structure.lattice.matrix)
        error = np.abs(regridded.grid(kind)[tuple(places.T)] - exact) / np.ptp(exact)
        assert error.max() < 0.03
        assert error.mean() < 0.002
        assert regridded.integral(kind) == pytest.approx(density.integral(kind), rel=1e-3)


def test_regrid_to_the_same_grid(dataset):
    density = dataset["mp-149"].density
    pytest.importorskip("pyrho")
    same = density.regrid(density.shape)
    assert np.allclose(same.grid("total"), density.grid("total"), atol=1e-6)
