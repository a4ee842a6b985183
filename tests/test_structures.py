"""A crystal is read as its file means it; a file that contradicts itself is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.io import write as write_ase
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from rhosight import RhosightError, load_model, read_structure
from rhosight.density.structures import get_notes

SHARED = Path(__file__).parents[2] / "shared"
CASES = SHARED / "cases"
MP_ELASTIC = SHARED / "data/mp-elastic/structures.jsonl"

HEAD = """data_x
_cell_length_a {a}
_cell_length_b {b}
_cell_length_c {c}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma {gamma}
"""
LOOP = "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
P1 = "loop_\n_symmetry_equiv_pos_as_xyz\n 'x,y,z'\n"
CUBIC = HEAD.format(a=4.2, b=4.2, c=4.2, gamma=90)
ROCK_SALT = LOOP + "Mg1 0 0 0\nO1 0.5 0.5 0.5\n"
FM3M = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"

CONTRADICTIONS = {
    "formula": (
        CUBIC + FM3M + "_chemical_formula_sum 'Ca O'\n" + ROCK_SALT,
        r"_chemical_formula_sum is Ca1 O1, the sites are Mg4 O4",
    ),
    "a centroid": (CUBIC + P1 + ROCK_SALT + "Cg1 0.25 0.25 0.25\n", "site Cg1 is a dummy"),
    "a peak": (CUBIC + P1 + ROCK_SALT + "Q1 0.25 0.25 0.25\n", "site Q1 is a dummy"),
    "no element": (CUBIC + P1 + ROCK_SALT + "Me1 0.25 0.25 0.25\n", "site Me1 is 'Me1', not one"),
    "a molecule": (CUBIC + P1 + ROCK_SALT + "NH4 0.25 0.25 0.25\n", "site NH4 is 'NH4', not one"),
    "two elements": (
        CUBIC
        + P1
        + LOOP.replace("label\n", "label\n_atom_site_type_symbol\n")
        + "M1 Mg/Fe 0 0 0\n",
        "site M1 is 'Mg/Fe', not one element",
    ),
    "a negative occupancy": (
        CUBIC + P1 + LOOP.replace("label\n", "label\n_atom_site_occupancy\n") + "Mg1 -1 0 0 0\n",
        "site Mg1 has occupancy '-1'",
    ),
    "no occupancy": (
        CUBIC + P1 + LOOP.replace("label\n", "label\n_atom_site_occupancy\n") + "Mg1 . 0 0 0\n",
        r"site Mg1 has occupancy '\.'",
    ),
    "an unknown symbol": (
        CUBIC.replace("4.2", "5.431")
        + "_symmetry_space_group_name_H-M 'F d -3 m :2'\n"
        + LOOP
        + "Si1 0.125 0.125 0.125\n",
        "space group F d -3 m :2 has no known operations",
    ),
    "number against symbol": (
        CUBIC + FM3M.replace("F m", "P m") + ROCK_SALT,
        "has the number 225, but its symbol P m -3 m is that of number 221",
    ),
    "missing hydrogen": (
        CUBIC + P1 + "_chemical_formula_sum 'H2 Mg O'\n" + ROCK_SALT,
        r"_chemical_formula_sum is Mg1 H2 O1, the sites are Mg1 O1",
    ),
    "formula units": (
        CUBIC + P1 + "_chemical_formula_sum 'Mg O'\n_cell_formula_units_Z 4\n" + ROCK_SALT,
        r"4 formula units of Mg1 O1 are 8 atoms, but 2 are read",
    ),
    "volume": (CUBIC + FM3M + "_cell_volume 47.5\n" + ROCK_SALT, r"_cell_volume is 47\.5 Å³"),
    "two structures": (
        CUBIC + FM3M + ROCK_SALT + CUBIC.replace("_x", "_y") + ROCK_SALT,
        "contains 2 structures",
    ),
    "dropped site": (CUBIC + P1 + ROCK_SALT + "OH1 0.25 0.25 0.25\n", r"site OH1 is 'OH1'"),
    "dummy site": (CUBIC + P1 + ROCK_SALT + "X1 0.25 0.25 0.25\n", r"site X1 is a dummy"),
    "vacancy": (
        CUBIC + P1 + ROCK_SALT + "Va1 0.25 0.25 0.25\n",
        r"site Va1 is a dummy or a vacancy",
    ),
    "cell against symmetry": (
        HEAD.format(a=4.2, b=4.5, c=4.2, gamma=90) + FM3M + ROCK_SALT,
        r"symmetry operations do not fit the cell",
    ),
    "hexagonal axes for a rhombohedral cell": (
        HEAD.format(a=4.2, b=4.2, c=4.2, gamma=90)
        + "_symmetry_space_group_name_H-M 'R -3 m'\n"
        + LOOP
        + "Bi1 0.237 0.237 0.237\n",
        r"symmetry operations do not fit the cell",
    ),
    "origin that is not said": (
        CUBIC.replace("4.2", "5.431")
        + "_symmetry_space_group_name_H-M 'F d -3 m'\n"
        + LOOP
        + "Si1 0.125 0.125 0.125\n",
        r"space group Fd-3m \(227\) has several origins or axes",
    ),
    "no group": (
        CUBIC + P1 + " '-x,-y,z'\n '-x,y,-z'\n" + ROCK_SALT,
        r"symmetry operations are not a group",
    ),
    "huge cell": (CUBIC.replace("4.2", "900") + P1 + ROCK_SALT, "the cell has 7.29e"),
    "alternatives": (
        CUBIC
        + P1
        + LOOP.replace("label\n", "label\n_atom_site_disorder_group\n")
        + "Mg1 1 0 0 0\nCa1 2 0 0 0.1\n",
        "disorder groups 1 and 2",
    ),
    "partial occupancy": (
        CUBIC + P1 + LOOP.replace("label\n", "label\n_atom_site_occupancy\n") + "Mg1 0.5 0 0 0\n",
        "is not one element per site",
    ),
    "empty site": (
        CUBIC + P1 + LOOP.replace("label\n", "label\n_atom_site_occupancy\n") + "Mg1 0 0 0 0\n",
        "site Mg1 has occupancy 0",
    ),
    "implicit hydrogen": (
        CUBIC
        + P1
        + LOOP.replace("label\n", "label\n_atom_site_attached_hydrogens\n")
        + "Mg1 0 0 0 0\nO1 1 0.5 0.5 0.5\n",
        "1 hydrogen atoms at site O1 are not listed",
    ),
    "overlap": (
        CUBIC + P1 + ROCK_SALT + "Mg9 0.03 0 0\n",
        r"atoms \d \(Mg[19]\) and \d \(Mg[19]\) are 0\.13 Å apart",
    ),
    "an image too close": (
        HEAD.format(a=1.0, b=4.2, c=4.2, gamma=90) + P1 + LOOP + "Mg1 0 0 0\n",
        r"atom 1 \(Mg1\) and its image in the next cell are 1\.00 Å apart",
    ),
    "a huge cell": (HEAD.format(a=1e9, b=4, c=4, gamma=90) + P1 + ROCK_SALT, "edge of the cell"),
}


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_cif_that_contradicts_itself_is_refused(case, tmp_path):
    text, message = CONTRADICTIONS[case]
    with pytest.raises(RhosightError, match=rf"a\.cif: .*{message}") as caught:
        read_structure(write(tmp_path, "a.cif", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["MgM1", "AlT1o", "OA1", "LiA"])
def test_labels_of_sites_name_their_element(label, tmp_path):
    text = CUBIC + P1 + LOOP + f"{label} 0 0 0\nCa1 0.5 0.5 0.5\n"
    assert not get_notes(read_structure(write(tmp_path, "a.cif", text)))


@pytest.mark.parametrize("symbol", ["Mg++", "Mg(II)", "Mg2+,spin=5", "Mg_pv"])
def test_decorated_type_symbols_are_elements(symbol, tmp_path):
    text = CUBIC + P1 + TYPED + f"Mg1 {symbol} 0 0 0\nO1 O 0.5 0.5 0.5\n"
    assert read_structure(write(tmp_path, "a.cif", text)).composition.formula == "Mg1 O1"


SMALL = CUBIC.replace("4.2", "3.2")
TYPED = LOOP.replace("label\n", "label\n_atom_site_type_symbol\n")
NOTED = {
    "no symmetry": (SMALL + ROCK_SALT, "no symmetry is given"),
    "other number of operations": (
        SMALL + FM3M + P1 + ROCK_SALT,
        "1 symmetry operations are listed",
    ),
    "lengths in Bohr": (CUBIC.replace("4.2", "7.9") + FM3M + ROCK_SALT, "are the lengths in Bohr"),
    "lengths in pm": (CUBIC.replace("4.2", "421") + FM3M + ROCK_SALT, "no atom has a neighbour"),
    "compressed": (CUBIC.replace("4.2", "3.0") + FM3M + ROCK_SALT, "is the cell right"),
    "structural formula": (
        SMALL + P1 + "_chemical_formula_structural 'Ca O'\n" + ROCK_SALT,
        "_chemical_formula_structural is Ca O, the sites are MgO",
    ),
    "measured density": (
        CUBIC + FM3M + "_exptl_crystal_density_diffrn 5.0\n" + ROCK_SALT,
        r"is 5 g/cm³, the atoms in the cell have 3.61 g/cm³",
    ),
    "label of another element": (SMALL + P1 + TYPED + "Mg1 Ca2+ 0 0 0\n", "site Mg1 is Ca2+"),
    "space group by number": (
        HEAD.format(a=4.2, b=4.3, c=4.4, gamma=90)
        + "_symmetry_Int_Tables_number 62\n"
        + LOOP
        + "Mg1 0.1 0.25 0.1\n",
        "standard setting Pnma is assumed",
    ),
    "thirds of three digits": (
        HEAD.format(a=3.2, b=3.2, c=5.2, gamma=120)
        + "_symmetry_space_group_name_H-M 'P 63/m m c'\n"
        + LOOP
        + "Mg1 0.333 0.667 0.25\n",
        "read as thirds",
    ),
    "a symbol in another block": ("data_global\n" + FM3M + SMALL + ROCK_SALT, "no symmetry is"),
    "a label of no element": (SMALL + P1 + ROCK_SALT.replace("O1", "Uue1"), "it was read as U"),
    "a guessed element": (SMALL + P1 + LOOP + "MG1 0 0 0\nO1 0.5 0.5 0.5\n", "MG1 parsed as Mg"),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_is_doubtful_becomes_a_note(case, tmp_path):
    text, message = NOTED[case]
    notes = get_notes(read_structure(write(tmp_path, "a.cif", text)))
    assert len(notes) == 1 and message in notes[0]


def write_cif(structure: Structure) -> str:
    return str(CifWriter(structure))


def write_symmetric_cif(structure: Structure) -> str:
    return str(CifWriter(structure, symprec=0.1))


def write_cif_of_ase(structure: Structure) -> str:
    file = io.BytesIO()
    write_ase(file, AseAtomsAdaptor.get_atoms(structure), format="cif")
    return file.getvalue().decode()


def write_json(structure: Structure) -> str:
    return json.dumps(structure.as_dict())


def write_poscar(structure: Structure) -> str:
    return structure.to(fmt="poscar")


WRITERS: dict[str, Callable[[Structure], str]] = {
    "a.cif": write_cif,
    "symmetric.cif": write_symmetric_cif,
    "ase.cif": write_cif_of_ase,
    "a.json": write_json,
    "POSCAR": write_poscar,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.skipif(not MP_ELASTIC.exists(), reason="needs the data beside the repository")
def test_what_other_programs_write_is_read_without_a_word(name, tmp_path):
    lines = MP_ELASTIC.read_text().splitlines()[::280]
    assert len(lines) > 8
    for line in lines:
        row = json.loads(line)
        structure = Structure(row["lattice"], row["species"], row["frac_coords"])
        path = write(tmp_path, name, WRITERS[name](structure))
        found = read_structure(path)
        assert get_notes(found) == [], row["material_id"]
        assert found.composition.reduced_formula == structure.composition.reduced_formula
        per_atom = structure.volume / len(structure)
        assert found.volume / len(found) == pytest.approx(per_atom, rel=2e-3)


POSCAR = "{}\n1.0\n4 0 0\n0 4 0\n0 0 4\n{}\n{}\nDirect\n0 0 0\n.5 .5 .5\n"
BAD_POSCARS = {
    "no symbols": (POSCAR.format("MgO", "1 1", "").replace("\n\n", "\n"), "elements are not named"),
    "too few atoms": (POSCAR.format("x", "Cu", "1"), "2 positions for 1 atoms"),
    "too few numbers": (POSCAR.format("x", "Cu Au", "2"), "2 elements are named for 1 number"),
    "overlap": (POSCAR.format("x", "Cu", "2").replace(".5", ".1"), r"atoms 1 \(Cu\) and 2 \(Cu\)"),
    "another symbol": (
        POSCAR.format("x", "Cu Au", "1 1").replace(".5\n", ".5 Cu\n"),
        "atom 2 is Au by the symbols and numbers above, but Cu stands behind its position",
    ),
    "no element": (POSCAR.format("x", "Cu AU", "1 1"), "'AU' in line 6 is not an element"),
    "two steps": (
        POSCAR.format("x", "Cu Au", "1 1") + "Direct configuration=     2\n0 0 0\n.5 .5 .5\n",
        "contains several structures",
    ),
    "two structures": (2 * POSCAR.format("x", "Cu Au", "1 1"), "contains several structures"),
    "an empty line between two": (
        f"{POSCAR}\n{POSCAR}".format(*2 * ("x", "Cu Au", "1 1")),
        "contains several structures",
    ),
    "crushed": (POSCAR.format("x", "Cu Au", "1 1").replace("\n1.0", "\n.45"), "Correct the unit"),
}


@pytest.mark.parametrize("case", BAD_POSCARS)
def test_a_poscar_that_contradicts_itself_is_refused(case, tmp_path):
    text, message = BAD_POSCARS[case]
    with pytest.raises(RhosightError, match=rf"POSCAR: .*{message}"):
        read_structure(write(tmp_path, "POSCAR", text))


def test_a_comment_of_another_compound_is_noted(tmp_path):
    path = write(tmp_path, "POSCAR", POSCAR.format("MgO", "Cu Au", "1 1"))
    assert get_notes(read_structure(path)) == [
        "the first line says MgO, the atoms are CuAu: check the elements"
    ]
    path = write(tmp_path, "POSCAR", POSCAR.format("FCC", "Cu Au", "1 1"))
    assert get_notes(read_structure(path)) == []


def test_a_json_that_contradicts_itself_is_refused(tmp_path):
    good = Structure(Lattice.cubic(3.2), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]).as_dict()
    for part, value, message in (
        ({"lattice": good["lattice"] | {"a": 4.2}}, {}, r"lattice\.a is 4\.2, but 3\.2 by"),
        ({"lattice": good["lattice"] | {"pbc": [True, True, False]}}, {}, "not periodic"),
        ({}, {"xyz": [1, 1, 1]}, "xyz and abc of site 2 are two positions"),
    ):
        sites = [good["sites"][0], good["sites"][1] | value]
        path = write(tmp_path, "a.json", json.dumps(good | {"sites": sites} | part))
        with pytest.raises(RhosightError, match=rf"a\.json: .*{message}"):
            read_structure(path)
    charged = write(tmp_path, "a.json", json.dumps(good | {"charge": 2}))
    assert get_notes(read_structure(charged)) == ["the cell has a charge of 2, which models ignore"]


def test_text_of_two_bytes_a_letter_is_named(tmp_path):
    path = tmp_path / "POSCAR"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):  # only the first begins with a mark
        path.write_text(POSCAR.format("x", "Cu Au", "1 1"), encoding=encoding)
        with pytest.raises(RhosightError, match="is text in UTF-16"):
            read_structure(path)


def test_a_structure_in_one_long_line_is_read(tmp_path):
    places = np.stack(np.meshgrid(*3 * [np.arange(8) / 8]), -1).reshape(-1, 3)
    crystal = Structure(Lattice.cubic(24), ["Na"] * 512, places)
    path = write(tmp_path, "a.json", write_json(crystal))
    assert path.stat().st_size > 2**16 and len(read_structure(path)) == 512


def test_a_block_without_a_structure_comes_first(tmp_path):
    text = "data_global\n_journal_name 'x'\n" + CUBIC + FM3M + ROCK_SALT
    assert read_structure(write(tmp_path, "a.cif", text)).composition.formula == "Mg4 O4"


def test_a_potcar_beside_it_does_not_change_the_elements(tmp_path):
    path = write(tmp_path, "POSCAR", POSCAR.format("x", "Cu Au", "1 1"))
    write(tmp_path, "POTCAR", "  PAW_PBE Si 05Jan2001\n")
    assert read_structure(path).composition.reduced_formula == "CuAu"


def test_an_ion_between_molecules_is_not_far(tmp_path):
    """As in PH4I; the same with all lengths in Bohr is."""
    corners = 0.82 * np.array([[1, 1, -1], [1, -1, 1], [-1, 1, 1], [-1, -1, -1]])
    places = np.vstack([[0, 0, 0], [2.5, 2.5, 2.5], corners + 2.5])
    for factor, is_noted in ((1.0, False), (1 / 0.529, True)):
        crystal = Structure(
            Lattice.cubic(5 * factor), "IPHHHH", factor * places, coords_are_cartesian=True
        )
        path = write(tmp_path, "POSCAR", write_poscar(crystal))
        assert bool(get_notes(read_structure(path))) is is_noted


def test_structures_in_python_are_checked_too():
    crystal = Structure(Lattice.cubic(4), ["Mg", "Mg"], [[0, 0, 0], [0.03, 0, 0]])
    with pytest.raises(RhosightError, match=r"are 0\.12 Å apart"):
        load_model("no-dft").predict({"a": crystal})


GIVEN = {
    "05-vasp4-poscar/POSCAR_cu": "Cu",
    "05-vasp4-poscar/POSCAR_cu_vasp4": None,
    "05-vasp4-poscar/POSCAR_mgo_vasp4": None,
    "06-cif-contradicts-itself/brucite_full.cif": "Mg(HO)2",
    "06-cif-contradicts-itself/brucite_noH.cif": None,
    "06-cif-contradicts-itself/brucite_OHlabel.cif": None,
    "06-cif-contradicts-itself/mgo_no_symmetry.cif": None,
    "06-cif-contradicts-itself/si_fd3m_choice2_plain.cif": None,
    "14-atoms-closer-than-0.3-A/overlap_013A.cif": None,
    "15-messages-that-mislead/bom.cif": "MgO",
}
"""File → its formula, or None if it must be refused."""


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.skipif(not CASES.exists(), reason="needs the cases beside the repository")
def test_given_cases(name):
    if formula := GIVEN[name]:
        assert read_structure(CASES / name).composition.reduced_formula == formula
        return
    with pytest.raises(RhosightError, match=Path(name).name):
        read_structure(CASES / name)
