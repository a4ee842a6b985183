"""Objects of pymatgen and ASE as input, and what a density shows of itself."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from PIL import Image
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp.outputs import Chgcar, Locpot

import rhosight
from rhosight import ChargeDensity, RhosightError, density_image, describe, lattice_plane
from rhosight.density.crystals import as_structure
from rhosight.density.free_atoms import promolecule
from rhosight.inputs.image import Channel, ImageSettings

SALT = Structure(
    Lattice(5.64 * np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])),
    ["Na", "Cl"],
    [[0, 0, 0], [0.5, 0.5, 0.5]],
)
SHAPE = (18, 16, 18)


@pytest.fixture
def blocks() -> dict[str, np.ndarray]:
    """Electrons per cell, eight of them: free atoms and some noise."""
    rng = np.random.default_rng(0)
    total = promolecule(SALT, SHAPE) * (1 + 1e-3 * rng.random(SHAPE))
    return {"total": total * (8 / total.mean()), "diff": rng.random(SHAPE) - 0.5}


# from_pymatgen


@pytest.mark.parametrize("kind", ["total", "difference"])
@pytest.mark.parametrize("spin", [False, True])
def test_a_chgcar_equals_its_file(blocks, tmp_path, kind, spin):
    """Written, read by pymatgen and by us: equal grids, kinds and notes."""
    path = tmp_path / "CHGCAR"
    data = {name: blocks[name] for name in (["total", "diff"] if spin else ["total"])}
    Chgcar(SALT.copy(), data).write_file(str(path))
    ours = rhosight.read_density(path, kind=kind)
    theirs = rhosight.from_pymatgen(Chgcar.from_file(str(path)), kind=kind, name=str(path))
    assert theirs.kinds == ours.kinds
    for stored in ours.grids:
        np.testing.assert_allclose(theirs.grid(stored), ours.grid(stored), rtol=0, atol=1e-12)
    assert theirs.structure == ours.structure and theirs.name == ours.name
    assert theirs.provenance.get("notes") == ours.provenance.get("notes")
    assert theirs.provenance["source"] == "pymatgen"


def test_a_real_chgcar_equals_its_file(dataset, tmp_path):
    path = tmp_path / "CHGCAR"
    dataset["mp-102"].density.to_chgcar(path)
    ours = rhosight.read_density(path)
    theirs = rhosight.from_pymatgen(Chgcar.from_file(str(path)))
    assert theirs.kinds == ours.kinds == ("total", "spin") and theirs.name == "Co"
    for kind in ours.kinds:
        np.testing.assert_allclose(theirs.grid(kind), ours.grid(kind), rtol=0, atol=1e-12)


def test_augmentation_and_non_collinear_blocks(blocks, tmp_path):
    """As VASP writes them: occupancies after each block, four blocks."""
    plain = tmp_path / "plain"
    Chgcar(SALT.copy(), {"total": blocks["total"]}).write_file(str(plain))
    text = plain.read_text(encoding="utf-8")
    grid_line = next(line for line in text.splitlines(True) if line.split() == ["18", "16", "18"])
    occupancies = "".join(
        f"augmentation occupancies {atom:3d}   2\n  0.1234567E+00 -0.1234567E-01\n"
        for atom in (1, 2)
    )
    first, block = text[: text.index(grid_line)], text[text.index(grid_line) :] + occupancies
    path = tmp_path / "CHGCAR"
    path.write_text(first + 4 * block, encoding="utf-8")
    ours = rhosight.read_density(path)
    theirs = rhosight.from_pymatgen(Chgcar.from_file(str(path)))
    assert theirs.kinds == ours.kinds == ("total",)
    assert theirs.provenance["code"] == ours.provenance["code"] == "VASP"
    (note,) = theirs.provenance["notes"]
    assert [note] == ours.provenance["notes"] and note.startswith("non-collinear")
    np.testing.assert_allclose(theirs.grid("total"), ours.grid("total"), rtol=0, atol=1e-12)


def test_chgcars_that_cannot_be(blocks):
    with pytest.raises(RhosightError, match="type Structure is not a pymatgen Chgcar"):
        rhosight.from_pymatgen(SALT)
    with pytest.raises(RhosightError, match="type Locpot is not a pymatgen Chgcar"):
        rhosight.from_pymatgen(Locpot(SALT.copy(), {"total": blocks["total"]}))
    chgcar = Chgcar(SALT.copy(), {"total": blocks["total"]})
    with pytest.raises(RhosightError, match="NaCl: the first block can be"):
        rhosight.from_pymatgen(chgcar, kind="spin")
    densities = Chgcar(SALT.copy(), {"total": blocks["total"] / SALT.volume})
    with pytest.raises(RhosightError, match="with unit='e/angstrom3'"):
        rhosight.from_pymatgen(densities)
    notes = rhosight.from_pymatgen(chgcar, kind="difference").provenance["notes"]
    assert "is it a total density?" in notes[0]
    broken = Chgcar(SALT.copy(), {"total": np.where(blocks["total"] > 1e9, 0, np.nan)})
    with pytest.raises(RhosightError, match="NaN"):
        rhosight.from_pymatgen(broken)


def test_an_image_of_a_chgcar(blocks):
    chgcar = Chgcar(SALT.copy(), {"total": blocks["total"]})
    settings = ImageSettings(size=16, colour="grey", channels=(Channel(kind="total"),))
    expected = density_image(rhosight.from_pymatgen(chgcar), settings)
    assert np.array_equal(density_image(chgcar, settings), expected)
    with pytest.raises(RhosightError, match="not a pymatgen Chgcar"):
        density_image(SALT, settings)


# structures


def test_objects_that_are_crystals(blocks):
    density = ChargeDensity(SALT, {"total": blocks["total"]})
    assert as_structure(SALT) is SALT and as_structure(density) is SALT
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    converted = as_structure(atoms)
    assert converted.composition.reduced_formula == "NaCl"
    np.testing.assert_allclose(converted.lattice.matrix, SALT.lattice.matrix)
    np.testing.assert_allclose(converted.frac_coords % 1, SALT.frac_coords, atol=1e-12)
    for form in (atoms, density, Chgcar(SALT.copy(), blocks)):
        assert describe(form, "keywords") == describe(SALT, "keywords")
        assert lattice_plane(form).hkl == lattice_plane(SALT).hkl
        assert lattice_plane(form).spacing == pytest.approx(lattice_plane(SALT).spacing)


@pytest.mark.parametrize(
    ("crystal", "message"),
    [
        (Atoms("CO", positions=[[0, 0, 0], [0, 0, 1]]), "ASE Atoms CO: not periodic in all three"),
        (Atoms("Fe", cell=[3, 3, 3], pbc=[1, 1, 0]), "ASE Atoms Fe: not periodic in all three"),
        (Atoms("Fe", cell=[3, 3, 0], pbc=True), "ASE Atoms Fe: the cell has no volume"),
        (Atoms(cell=[3, 3, 3], pbc=True), "ASE Atoms: contains no atoms|cannot convert"),
        (Atoms("X", cell=[3, 3, 3], pbc=True), "ASE Atoms X: "),
        ("POSCAR", "type str is not a crystal; give a pymatgen Structure"),
        (None, "type NoneType is not a crystal"),
    ],
    ids=["molecule", "slab", "flat", "empty", "dummy", "path", "none"],
)
def test_objects_that_are_no_crystals(crystal, message):
    with pytest.raises(RhosightError, match=message):
        as_structure(crystal)


# repr


def picture(html: str) -> np.ndarray:
    """The inline image of a page, shape (height, width, 3)."""
    (data,) = re.findall(r"data:image/png;base64,([^']+)'", html)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_density_in_a_few_lines(dataset):
    text = repr(dataset["mp-102"].density)
    assert text.startswith("ChargeDensity 'mp-102'\n") and len(text.splitlines()) <= 8
    for fact in ("Co (1 atom", "12×12×12, spacing 0.207 Å", "spin", "Electrons 5.4", "GPAW"):
        assert fact in text


def test_a_density_in_a_notebook(dataset):
    density = dataset["mp-149"].density
    html = density._repr_html_()
    assert "Si (2 atoms" in html and "difference on plane (1 1 1)" in html
    assert picture(html).shape == (200, 200, 3) and picture(html).std() > 10


@pytest.mark.parametrize("kind", ["total", "difference", "spin"])
def test_a_notebook_draws_any_kind(blocks, kind):
    notes = {"notes": ["a note with <b>tags</b>"]}
    density = ChargeDensity(SALT, {kind: blocks["total"]}, provenance=notes)
    html = density._repr_html_()
    assert f"{kind} on plane" in html and picture(html).any()
    assert "a note with &lt;b&gt;tags" in html and "<b>tags" not in html


def test_a_density_that_cannot_be_sliced(blocks):
    """Two atoms at one position have no symmetry: the table alone."""
    coincident = Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0, 0, 0.0001]])
    density = ChargeDensity(coincident, {"total": blocks["total"]}, name="twice")
    html = density._repr_html_()
    assert "twice" in html and "<img" not in html
