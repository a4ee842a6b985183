"""Density files that hold something else, or whose unit, cell or grid cannot be right: refused with
the cure, or noted; good files are neither. The cases of ../shared/cases stand for their classes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure
from scipy.ndimage import map_coordinates

from rhosight import ChargeDensity, RhosightError, read_density
from rhosight.app.checks import CERTAIN
from rhosight.app.limits import Limits
from rhosight.app.reading import read_upload
from rhosight.dataset import Dataset, Material, load_dataset
from rhosight.dataset.sources.directory import Directory
from rhosight.density import check_density, read_cube
from rhosight.density.channels import states_one_spin
from rhosight.density.labels import identify_comment, identify_label, identify_name
from rhosight.density.poscar import parse_poscar
from rhosight.density.structures import read_structure
from test_cli import error_of, rhosight

SHARED = Path(__file__).parents[2] / "shared"
CASES, VASP = SHARED / "cases", SHARED / "data" / "vasp"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
needs_vasp = pytest.mark.skipif(not VASP.is_dir(), reason="no ../shared/data/vasp")
BOHR = 0.529177210903


@pytest.fixture(scope="module")
def gaas(dataset: Dataset) -> Material:
    return next(material for material in dataset if material.formula == "GaAs")


@pytest.fixture(scope="module")
def aluminium(dataset: Dataset) -> Material:
    """One atom per cell: only the density shows the symmetry."""
    return next(material for material in dataset if material.formula == "Al")


def write_cube(
    path: Path,
    structure: Structure,
    grid: np.ndarray,
    steps: np.ndarray | None = None,
    comment: str = "density\nof a test",
    length: float = BOHR,
    extra: str = "",
) -> Path:
    """Write values as they are; ``steps`` in Å, lengths in ``length`` Å."""
    if steps is None:
        steps = structure.lattice.matrix / np.array(grid.shape)[:, None]
    lines = [comment, f"{len(structure)} 0.0 0.0 0.0{extra}"]
    rows = zip(grid.shape, steps / length, strict=True)
    lines += [f"{n} {x:.8f} {y:.8f} {z:.8f}" for n, (x, y, z) in rows]
    for site in structure:
        x, y, z = site.coords / length
        lines.append(f"{site.specie.Z} 0.0 {x:.8f} {y:.8f} {z:.8f}")
    with path.open("w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        np.savetxt(file, grid.reshape(-1, grid.shape[-1]), "%.6E")
    return path


def total_of(material: Material) -> np.ndarray:
    """In e/Å³."""
    return material.density.grid("total").astype(float)


def refusal(path: Path, **options) -> str:
    with pytest.raises(RhosightError) as caught:
        read_density(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


# the given cases


@needs_cases
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "03-notes-never-shown/lengths_in_angstrom.cube",
            "are the lengths in Å, but read in Bohr?",
        ),
        ("03-notes-never-shown/per_cubic_angstrom.cube", "--unit e/angstrom3"),
        ("03-notes-never-shown/potential.cube", "contains a potential"),
        ("07-cube-grid-is-not-the-cell/cp2k_stride2.cube", "every second point"),
        (
            "07-cube-grid-is-not-the-cell/missing_last.cube",
            "the last points of the period are miss",
        ),
        ("07-cube-grid-is-not-the-cell/step_T_over_Nminus1.cube", "the steps are T/(n−1)"),
        ("08-cube-lengths-in-angstrom/angstrom.cube", "are the lengths in Å, but read in Bohr?"),
        ("09-per-cubic-angstrom-heavy-element/au.cube", "--unit e/angstrom3"),
        ("10-unit-option-missing/mgo.cube", "--unit e/angstrom3"),
        ("11-orbital-cube/orbital.cube", "contains orbitals"),
        ("12-directory-takes-byproducts/abacus/pots1.cube", "contains a potential"),
        ("13-chg-of-a-relaxation/CHG", "contains several structures"),
        ("15-messages-that-mislead/CHGCAR_mag", "contains a spin density"),
        ("15-messages-that-mislead/molecule.xsf", "holds a molecule, not a crystal"),
    ],
)
def test_cases_that_are_refused(name, message):
    assert message in refusal(CASES / name)


@needs_cases
@pytest.mark.parametrize(
    ("name", "volume", "options"),
    [
        ("02-abacus-spin-channel/chgs1.cube", 47.53, {}),
        ("02-abacus-spin-channel/chgs2.cube", 47.53, {}),
        ("03-notes-never-shown/per_cubic_angstrom.cube", 47.53, {"unit": "e/angstrom3"}),
        ("07-cube-grid-is-not-the-cell/right.cube", 47.53, {}),
        ("10-unit-option-missing/mgo.cube", 18.53, {"unit": "e/angstrom3"}),
    ],
)
def test_cases_that_are_read(name, volume, options):
    density = read_density(CASES / name, **options)
    assert density.integral("total") == pytest.approx(8, abs=1e-3)
    assert density.structure.volume == pytest.approx(volume, abs=0.2)
    assert "notes" not in density.provenance


# quantities


@pytest.mark.parametrize(
    "name",
    [
        *("LOCPOT", "ELFCAR.gz", "PARCHG.0012.0001", "CHGCAR_mag", "CHGDIFF.vasp", "SPIN.vasp"),
        *("x-v_hartree-1_0.cube", "x-SPIN_DENSITY-1_0.cube", "x-WFN_00008_1-1_0.cube"),
        *("x-ELF_S1-1_0.cube", "pots1.cube", "pot_es.cube", "SPIN2_POT.cube", "taus1.cube"),
        *("ElecStaticPot.cube", "elf.cube", "BAND1_K1_SPIN1_CHG.cube", "si.VH.cube", "si.VT.cube"),
        *("si.DRHO.cube", "si.LDOS.cube", "si.TOCH.cube", "psi2.cube", "sio_VHXC.cube"),
        *("cube_001_spin_density.cube", "cube_002_eigenstate_00004_spin_1.cube"),
        *("cube_003_delta_density.cube", "cube_004_hartree_potential.cube"),
        *("x.sden.cube", "x.dden.cube", "x.v0.cube", "x.vhart.cube", "x.homo0_0.cube"),
        *("h2o.mo5a.cube", "h2o.spindens.cube", "Psi_a_1_1-A.cube", "VXC3D.xsf", "ELF3D.xsf"),
    ],
)
def test_names_of_other_fields(name):
    assert identify_name(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        *("CHGCAR", "CHG", "AECCAR2.gz", "mp-149.CHGCAR", "mp-1_CHG", "rho.vasp", "a.cube"),
        *("x-ELECTRON_DENSITY-1_0.cube", "SPIN1_CHG.cube", "si.RHO.cube", "x.tden.cube"),
        *("cube_001_total_density.cube", "Dt.cube", "sio_DEN.cube", "h2o.eldens.cube"),
        *("x-TOTAL_ELECTRON_DENSITY-1_0.cube", "total_charge_density.cube", "MgO_my.cube"),
        *("BaPo.cube", "Ni_spin_polarised.cube", "magnesium.cube", "spinel.cube", "WO3.cube"),
    ],
)
def test_names_of_densities(name):
    assert identify_name(name) is None


@pytest.mark.parametrize(
    ("comment", "found"),
    [
        ("-Quickstep-\n HARTREE POTENTIAL", "potential"),
        ("-Quickstep-\n SPIN DENSITY", "spin"),
        ("-Quickstep-\n WAVEFUNCTION 8 spin 1 i.e. HOMO - 0", "orbital"),
        ("-Quickstep-\n TOTAL DENSITY", "nuclei"),
        ("Benzene\n MO coefficients", "orbital"),
        ("Benzene\n Electrostatic potential from Total SCF Density", "potential"),
        ("Benzene\n Electron density from Total SCF Density", None),
        ("-Quickstep-\n ELECTRON DENSITY", None),
        ("-Quickstep-\n SUM OF ALPHA AND BETA DENSITY", None),
        ("-Quickstep-\n EFIELD X", "another field"),
        ("Generated by Wannier90 code http://www.wannier.org\nx", "orbital"),
        ("|psi|^2\nof silicon", "orbital"),
        ("ESP\nof silicon", "potential"),
        ("Fukui function\nof silicon", "difference"),
        ("Mo2 S4\ncharge density, 8 bands", None),
        ("Mo:1 S:2\ncharge density", None),
        ("ethene\n MO: 8", "orbital"),
        ("si.VH.cube\n si.VH.cube", "potential"),
        ("si.RHO.cube\n si.RHO.cube", None),
        ("full-potential LAPW\n norm-conserving pseudo-potential", None),
        ("electron localization function\n of silicon", "localisation"),
    ],
)
def test_comments(comment, found):
    content = identify_comment(comment)
    assert (content is None) if found is None else (found in content.name)


def test_a_name_that_is_the_formula_means_no_more(dataset, gaas, tmp_path):
    """UP.cube and VH.cube are compounds; any other crystal in VH.cube is a Hartree potential."""
    hydride = next(material for material in dataset if material.formula == "NiH")
    crystal = hydride.structure.copy().replace_species({"Ni": "V"})
    path = write_cube(tmp_path / "VH.cube", crystal, total_of(hydride) * BOHR**3)
    assert read_density(path).kinds == ("total",)
    path = write_cube(tmp_path / "x.VH.cube", gaas.structure, total_of(gaas) * BOHR**3)
    assert "contains a potential" in refusal(path)
    assert read_density(path, kind="total").kinds == ("total",)  # what is said is believed


def test_a_potential_or_a_magnetisation_without_a_name(gaas, tmp_path):
    """The integral and the sign tell, in every format."""
    grid = total_of(gaas)
    for number, field in enumerate((grid - grid.mean(), 0.02 * grid, grid - 2 * grid.mean())):
        path = write_cube(tmp_path / f"{number}.cube", gaas.structure, field * BOHR**3)
        assert "not a charge density" in refusal(path) or number == 1
        path = tmp_path / f"CHGCAR.{number}"
        ChargeDensity(gaas.structure, {"total": field}).to_chgcar(path)
        refusal(path)


def test_half_a_density_is_noted(gaas, tmp_path):
    path = write_cube(tmp_path / "a.cube", gaas.structure, 0.5 * total_of(gaas) * BOHR**3)
    (note,) = read_density(path).provenance["notes"]
    assert "is it the density of one spin" in note
    with pytest.raises(RhosightError, match="is it the density of one spin"):
        read_density(path, notes="strict")


@pytest.mark.parametrize(
    ("up", "down", "comment"),
    [
        ("chgs1.cube", "chgs2.cube", "from ABACUS\n2 (nspin)"),
        ("SPIN1_CHG.cube", "SPIN2_CHG.cube", "from ABACUS\n2 (nspin)"),
        ("si.den0.cube", "si.den1.cube", "a\nb"),
        ("si.RHO.UP.cube", "si.RHO.DN.cube", "a\nb"),
        ("density-sp1.cube", "density-sp2.cube", "a\nb"),
        ("Up.cube", "Down.cube", "a\nb"),
        ("rho.cube", None, "spin up density\nb"),
        ("rho2.cube", None, "charge density, spin channel 2\nb"),
        ("rho3.cube", None, "rho(dn)\nb"),
    ],
)
def test_two_spins_are_one_density(gaas, tmp_path, up, down, comment):
    grid = total_of(gaas) * BOHR**3
    write_cube(tmp_path / up, gaas.structure, 0.6 * grid, comment=comment)
    missing = refusal(tmp_path / up)
    assert "the density of one spin only" in missing and (down is None or down in missing)
    if down is None:
        return
    write_cube(tmp_path / down, gaas.structure, 0.4 * grid, comment=comment)
    for name in (up, down):
        density = read_density(tmp_path / name)
        assert density.kinds == ("total", "spin")
        assert np.allclose(density.grid("total"), total_of(gaas), rtol=1e-4)
        assert np.allclose(density.grid("spin"), 0.2 * total_of(gaas), rtol=1e-4)


def test_two_spins_in_two_blocks_are_noted(gaas, tmp_path):
    """A CHGCAR has the total first; a tool may write spin up and spin down."""
    grid = total_of(gaas)
    ChargeDensity(gaas.structure, {"total": 0.6 * grid}).to_chgcar(tmp_path / "CHGCAR")
    ChargeDensity(gaas.structure, {"total": 0.4 * grid}).to_chgcar(tmp_path / "CHG")
    up, down = (
        (tmp_path / name).read_text().rstrip("\n").split("\n") for name in ("CHGCAR", "CHG")
    )
    start = next(row for row in range(7, len(down)) if not down[row].strip()) + 1
    (tmp_path / "CHGCAR").write_text("\n".join([*up, *down[start:], ""]))
    (note,) = read_density(tmp_path / "CHGCAR").provenance["notes"]
    assert "the spin density is 67 % of the total" in note


def test_a_chgcar_whose_comment_is_another_compound_is_noted(gaas, tmp_path):
    ChargeDensity(gaas.structure, {"total": total_of(gaas)}).to_chgcar(tmp_path / "CHGCAR")
    lines = (tmp_path / "CHGCAR").read_text().split("\n")
    lines[5] = "In Sb"
    (tmp_path / "CHGCAR").write_text("\n".join(lines))
    (note,) = read_density(tmp_path / "CHGCAR").provenance["notes"]
    assert note == "the first line says Ga1 As1, the atoms are InSb: check the elements"


def test_two_totals_are_not_two_spins(gaas, tmp_path):
    """Two calculations of one crystal; and SIESTA's label of the only grid is no spin."""
    for name in ("ni_up.cube", "ni_down.cube"):
        write_cube(tmp_path / name, gaas.structure, total_of(gaas) * BOHR**3)
    assert "their sum is 2.6 times the density of free atoms" in refusal(tmp_path / "ni_up.cube")
    assert read_density(tmp_path / "ni_up.cube", kind="total").kinds == ("total",)
    assert not states_one_spin("RHO:spin_1") and states_one_spin("RHO:spin_2")
    for both in ("rho_up + rho_down", "SUM OF ALPHA AND BETA DENSITY", "n(up) and n(down)"):
        assert not states_one_spin(both)
    assert states_one_spin("rho_up - rho_down")
    assert identify_label("RHO:spin_1") is None
    assert identify_label("VH:spin_1") is identify_name("si.VH.cube")


def test_one_spin_component_is_the_total(gaas, tmp_path):
    grid = total_of(gaas) * BOHR**3
    path = write_cube(tmp_path / "chgs1.cube", gaas.structure, grid, comment="ABACUS\n1 (nspin)")
    assert read_density(path).kinds == ("total",)
    path = write_cube(tmp_path / "chgs3.cube", gaas.structure, grid, comment="ABACUS\n4 (nspin)")
    write_cube(tmp_path / "chgs2.cube", gaas.structure, grid, comment="ABACUS\n4 (nspin)")
    assert "a spin density" in refusal(tmp_path / "chgs2.cube")


def test_a_second_data_set(gaas, tmp_path):
    grid = total_of(gaas) * BOHR**3
    path = write_cube(tmp_path / "a.cube", gaas.structure, grid, extra=" 2")
    assert "2 values at each point; write a file of the density alone" in refusal(path)
    one = write_cube(tmp_path / "b.cube", gaas.structure, grid).read_text()
    (tmp_path / "c.cube").write_text(one + one)
    assert "a second data set" in refusal(tmp_path / "c.cube")


# units, lengths and grids


def distort(material: Material, defect: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps (Å) and values (e/Å³) as a program with this defect writes them."""
    grid, cell = total_of(material), material.structure.lattice.matrix
    n = np.array(grid.shape)[:, None]
    if defect == "ends":
        return cell / n, np.pad(grid, [(0, 1)] * 3, mode="wrap")
    if defect == "one end":
        return cell / n, np.pad(grid, [(0, 0), (0, 0), (0, 1)], mode="wrap")
    if defect == "missing":
        return cell / n, grid[:-1, :-1, :-1]
    if defect == "steps":
        return cell / (n - 1), grid
    stride, points = 2, 2 * (n.ravel() // 2) * 2 + 1
    places = np.meshgrid(*(np.arange(m) * k / m for m, k in zip(points, grid.shape, strict=True)))
    fine = map_coordinates(grid, np.stack(places).swapaxes(1, 2), order=3, mode="grid-wrap")
    return stride * cell / points[:, None], fine[::stride, ::stride, ::stride]


@pytest.mark.parametrize(
    ("defect", "what"),
    [
        ("ends", "the last points repeat the first"),
        ("one end", "the last points repeat the first"),
        ("missing", "the last points of the period are missing"),
        ("steps", "the steps are T/(n−1)"),
        ("stride", "it "),  # a coarse grid does not tell how it was thinned
    ],
)
def test_a_grid_that_is_not_the_cell(gaas, aluminium, tmp_path, defect, what):
    """Of two atoms, and of one, where only the density tells (and nothing tells of steps)."""
    steps, grid = distort(gaas, defect)
    path = write_cube(tmp_path / "a.cube", gaas.structure, grid * BOHR**3, steps)
    assert f"the grid does not fit the cell: {what}" in refusal(path)
    with pytest.raises(RhosightError, match="does not fit the cell"):
        read_structure(path)  # the cell is wrong without the density, too
    if defect != "steps":
        steps, grid = distort(aluminium, defect)
        path = write_cube(tmp_path / "b.cube", aluminium.structure, grid * BOHR**3, steps)
        with pytest.raises(RhosightError, match=what):
            read_density(path, notes="strict")  # a coarse grid leaves doubts


def test_whole_electrons_tell_of_steps(aluminium, tmp_path):
    grid = total_of(aluminium)
    grid *= 3 / (grid.mean() * aluminium.structure.volume)
    steps = aluminium.structure.lattice.matrix / (np.array(grid.shape) - 1)[:, None]
    path = write_cube(tmp_path / "a.cube", aluminium.structure, grid * BOHR**3, steps)
    (note,) = read_density(path).provenance["notes"]
    assert "3.000 if its steps are T/(n−1)" in note
    comment = "Cubefile created from PWScf calculation\n"
    path = write_cube(
        tmp_path / "b.cube", aluminium.structure, 1.04 * grid * BOHR**3, None, comment
    )
    assert "Quantum ESPRESSO has a whole number" in read_density(path).provenance["notes"][0]


@pytest.mark.parametrize("formula", ["Ag", "NiH"])
def test_whole_numbers_by_chance_are_not_noted(dataset, tmp_path, formula):
    """Ag has 6.245 electrons, and 5.000 in a cell of steps T/(n−1), but its valence are 1 or 11."""
    material = next(material for material in dataset if material.formula == formula)
    path = write_cube(tmp_path / "a.cube", material.structure, total_of(material) * BOHR**3)
    assert "notes" not in read_density(path).provenance
    path = write_cube(tmp_path / "b.cube", material.structure, total_of(material))
    assert "set unit='e/angstrom3'" in refusal(path)


def test_a_value_that_sticks_out_is_noted(gaas, tmp_path):
    """Between the atoms a density has no peaks; a value near a nucleus is not known better."""
    for value, message in ((5.0, "sticks out"), (-1.0, "sticks out"), (1e5, "a value is damaged")):
        grid = total_of(gaas) * BOHR**3
        empty = np.unravel_index(np.argmin(grid), grid.shape)
        grid[empty] = value
        path = write_cube(tmp_path / "a.cube", gaas.structure, grid)
        with pytest.raises(RhosightError, match=message):
            read_density(path, notes="strict")


@pytest.mark.parametrize(
    ("row", "content", "message"),
    [
        (3, "20 1e-300 0 0", "an edge of the cell is"),
        (6, "31 0 1e8 0 0", "an atom is far outside the cell"),
        (6, "31 0 1e300 0 0", "an atom is far outside the cell"),
    ],
)
def test_absurd_lengths_are_refused(gaas, tmp_path, row, content, message):
    path = write_cube(tmp_path / "a.cube", gaas.structure, total_of(gaas) * BOHR**3)
    lines = path.read_text().split("\n")
    lines[row] = content
    path.write_text("\n".join(lines))
    assert message in refusal(path)


def test_a_spin_density_of_too_many_electrons_is_noted(gaas, tmp_path):
    grid = total_of(gaas) * BOHR**3
    grid[3, 3, 3] = 1e5
    path = write_cube(tmp_path / "a.cube", gaas.structure, grid)
    (note,) = read_density(path, kind="spin").provenance["notes"]
    assert "4021 electrons, but the atoms have 65" in note


def test_a_wrong_lattice_vector_is_noted(gaas, tmp_path):
    """The density keeps the symmetry of the true cell."""
    matrix = gaas.structure.lattice.matrix * [[1.12], [1], [1]]
    crystal = Structure(matrix, gaas.structure.species, gaas.structure.frac_coords)
    density = ChargeDensity(crystal, {"total": total_of(gaas)})
    density.to_chgcar(tmp_path / "CHGCAR")
    (note,) = read_density(tmp_path / "CHGCAR").provenance["notes"]
    assert "the lattice vectors are irregular: is one of them wrong?" in note


def test_twice_a_density_is_noted(gaas, tmp_path):
    path = write_cube(tmp_path / "a.cube", gaas.structure, 2 * total_of(gaas) * BOHR**3)
    (note,) = read_density(path).provenance["notes"]
    assert "is it the sum of two densities" in note


@pytest.mark.parametrize("formula", ["Al", "MgO", "TlCl", "CsAlO2"])
def test_units_of_lengths_and_values(dataset, tmp_path, formula):
    material = next(material for material in dataset if material.formula == formula)
    structure, grid = material.structure, total_of(material)
    path = write_cube(tmp_path / "right.cube", structure, grid * BOHR**3)
    assert "notes" not in read_density(path).provenance
    path = write_cube(tmp_path / "values.cube", structure, grid)
    assert "--unit e/angstrom3" in refusal(path)
    for values in (grid, grid * BOHR**3):
        path = write_cube(tmp_path / "lengths.cube", structure, values, length=1.0)
        assert "correct the" in (message := refusal(path)) or "read in Bohr" in message
    larger = Structure(structure.lattice.matrix / BOHR, structure.species, structure.frac_coords)
    path = tmp_path / "CHGCAR"
    ChargeDensity(larger, {"total": grid * BOHR**3}).to_chgcar(path)
    with pytest.raises(RhosightError, match="are the lengths in Bohr, but read in Å"):
        read_density(path, notes="strict")


def test_a_comment_about_lengths(gaas, tmp_path):
    grid = total_of(gaas) * BOHR**3
    comment = "a cube file\nAtomic coordinates in Angstroms"
    path = write_cube(tmp_path / "a.cube", gaas.structure, grid, comment=comment)
    assert "its comment says that the lengths are in Å" in read_density(path).provenance["notes"][0]
    path = write_cube(tmp_path / "b.cube", gaas.structure, grid, comment="values in e/Angstrom^3\n")
    assert "notes" not in read_density(path).provenance


def test_good_densities_are_neither_refused_nor_noted(dataset):
    for material in dataset[::20]:
        grids = {"total": material.density.grid("total")}
        for about in ({"format": "cube"}, {"format": "CHGCAR"}):
            density = ChargeDensity(material.structure, grids, material.material_id, about)
            assert check_density(density, "e/angstrom3") == []


@needs_vasp
@pytest.mark.parametrize("name", ["Al.CHGCAR.gz", "Si.CHGCAR.gz", "Ni.CHGCAR.gz", "AECCAR2.gz"])
def test_densities_of_vasp_are_neither(name):
    assert "notes" not in read_density(VASP / name).provenance


@needs_vasp
@pytest.mark.parametrize("name", ["BeFeRh2_mp-867840", "InBi_mp-1001833"])
def test_every_second_of_63_points_is_noted(name):
    """These densities were resampled so that their points are 1/31.5 of the cell apart."""
    notes = "; ".join(read_density(VASP / "coarse" / f"{name}.CHGCAR.gz").provenance["notes"])
    assert "does not have the symmetry of the crystal" in notes and "every second point" in notes


# forms of numbers and structures


def test_fortran_exponents_in_a_cube(gaas, tmp_path):
    path = write_cube(tmp_path / "a.cube", gaas.structure, total_of(gaas) * BOHR**3)
    expected = read_cube(path).grid("total")
    path.write_text(path.read_text().replace("E-", "D-").replace("E+", "d+"))
    assert np.array_equal(read_cube(path).grid("total"), expected)


@needs_cases
def test_three_scale_factors():
    """VASP 6 applies them to the x, y and z components of vectors and Cartesian positions."""
    text = (CASES / "15-messages-that-mislead" / "POSCAR_3scale").read_text()
    assert parse_poscar(text, "x").volume == pytest.approx(2 * 2.106**3)
    scaled = parse_poscar(text.replace("1.0 1.0 1.0", "1.0 1.1 1.2"), "x")
    assert scaled.lattice.matrix[0] == pytest.approx([0, 1.1 * 2.106, 1.2 * 2.106])
    cartesian = text.replace("1.0 1.0 1.0", "2 1 1").replace("Direct", "Cartesian")
    cartesian = cartesian.replace(".5 .5 .5", "2.106 2.106 2.106")
    assert parse_poscar(cartesian, "x")[1].coords == pytest.approx([4.212, 2.106, 2.106])


# the doors


@pytest.fixture
def noted(gaas, tmp_path) -> Path:
    """Half a density: read, with a note."""
    path = tmp_path / "half.cube"
    return write_cube(path, gaas.structure, 0.5 * total_of(gaas) * BOHR**3)


def test_predict_prints_and_writes_notes(noted, gaas, tmp_path):
    good = write_cube(tmp_path / "good.cube", gaas.structure, total_of(gaas) * BOHR**3)
    done = rhosight("predict", "best", good, noted, "--format", "csv")
    table = pd.read_csv(io.StringIO(done.stdout), index_col=0, keep_default_na=False)
    assert table["formula"].to_list() == ["GaAs", "GaAs"]
    assert table.loc[str(good), "notes"] == "" and "one spin" in table.loc[str(noted), "notes"]
    assert f"note: {noted}: between the atoms" in done.stderr
    rows = json.loads(rhosight("predict", "best", noted, "--format", "json").stdout)["predictions"]
    assert rows[0]["formula"] == "GaAs" and "one spin" in rows[0]["notes"]
    assert "one spin" in error_of("predict", "best", noted, "--notes", "strict")
    assert "GaAs" in rhosight("predict", "best", noted).stdout


def test_image_and_explain_print_notes(noted, tmp_path):
    for command in ("image", "explain"):
        options = ("--size", "8") if command == "image" else ("--no-details",)
        out = ("--out", tmp_path / command)
        assert "note: " in rhosight(command, noted, *options, *out).stderr
        assert "one spin" in error_of(command, noted, *options, *out, "--notes", "strict")


def test_units_and_kinds_at_every_command(gaas, tmp_path):
    path = write_cube(tmp_path / "a.cube", gaas.structure, total_of(gaas))
    unit = ("--unit", "e/angstrom3")
    assert "--unit e/angstrom3" in error_of("predict", "best", path)
    rhosight("predict", "best", path, *unit)
    rhosight("image", path, *unit, "--size", "8", "--out", tmp_path / "i")
    rhosight("explain", path, *unit, "--no-details", "--out", tmp_path / "e")
    rhosight("predict", "no-dft", path)  # needs no density, and so no unit
    spin = write_cube(tmp_path / "x.sden.cube", gaas.structure, 0.01 * total_of(gaas) * BOHR**3)
    assert "--kind spin" in error_of("image", spin, "--out", tmp_path / "s")
    rhosight("image", spin, "--kind", "spin", "--size", "8", "--out", tmp_path / "s")


def test_the_web_page_refuses_other_fields(gaas, noted, tmp_path):
    """And keeps the notes, which its worker shows."""
    path = write_cube(tmp_path / "si.VH.cube", gaas.structure, total_of(gaas) * BOHR**3)
    with pytest.raises(RhosightError, match="contains a potential"):
        read_upload(path, "total", Limits())
    assert "one spin" in read_upload(noted, "total", Limits()).provenance["notes"][0]


def test_units_and_kinds_on_the_web_page(gaas, tmp_path):
    """The cure that a refusal names is one of the page's controls."""
    path = write_cube(tmp_path / "si.VH.cube", gaas.structure, total_of(gaas))
    with pytest.raises(RhosightError, match=r"say that it contains `certainly total`$"):
        read_upload(path, "total", Limits(), "e/angstrom3")
    with pytest.raises(RhosightError) as caught:
        read_upload(path, CERTAIN, Limits())
    assert "set unit='e/angstrom3' if" in str(caught.value) and "--" not in str(caught.value)
    density = read_upload(path, CERTAIN, Limits(), "e/angstrom3")
    assert np.allclose(density.grid("total"), total_of(gaas), rtol=1e-4)
    assert read_upload(path, "spin", Limits(), "e/angstrom3").kinds == ("spin",)


BY_PRODUCTS = {
    "cp2k": """x-ELECTRON_DENSITY-1_0 x-v_hartree-1_0 x-SPIN_DENSITY-1_0 x-TOTAL_DENSITY-1_0
        x-efield_x-1_0 x-local_stress-1_0 x-WFN_00004_1-1_0 x-ELF_S1-1_0 x-ext_pot-1_0
        x-DIELECTRIC_CONSTANT-1_0 x-dirichlet_cstr_charge-1_0 x-POLARISATION_CHARGE_DENSITY-1_0""",
    "abacus": "chgs1 chgs2 chgs1_ini pots1 pots2 pot_es taus1 elf elftot pchgi1s1k1 wfi1s1k1re",
    "abacus of old": """SPIN1_CHG SPIN2_CHG SPIN1_CHG_INI SPIN1_POT SPIN2_TAU ElecStaticPot ELF
        ELF_SPIN1 BAND1_GAMMA_SPIN1_CHG BAND1_k_1_s_1_ENV""",
    "abacus in steps": "chgs1g2 chgs2g2 pots1g2 elfs2g2 taus1g2",
    "siesta": """si.RHO si.RHO.UP si.RHO.DOWN si.RHO.UPminusDOWN si.DRHO si.VH si.VT si.VNA si.TOCH
        si.IOCH si.RHOXC si.LDOS si.BADER si.ELF si.WF5.UP si.K1.WF.3.UP.REAL""",
    "qe": """si.rho si.pot si.elf psi2 v_h vltot si_mag si.ildos si_rdg si_K001_B004 si.ldos012
        tmp.pp_K001_B001_X si_dori si.entropy""",
    "abinit": """sio_DEN sio_POT sio_VHA sio_VXC sio_VCLMB sio_ELF sio_ELF_UP sio_KDEN sio_PAWDEN
        sio_DEN1 sio_DEN12 sio_POT3 sio_VHA2 sio_VPSP1 sio_VXC7 sio_ATMDEN_CORE sio_ATMDEN_VAL
        sio_ATMDEN_FULL sio_N_TILDE sio_N_ONE sio_NT_ONE sio_POSITRON sio_GDEN1 sio_LDEN sio_STM
        sio_WFK sio_KSS sio_PAWAVES sio_QP_PAWDEN""",
    "aims": """cube_001_total_density cube_002_spin_density cube_003_density_spin_up
        cube_004_delta_v cube_005_eigenstate_00001_spin_1_k_point_0001 cube_006_hartree_potential
        cube_007_delta_density cube_008_ion_dens cube_009_dielec_func cube_010_stm_01""",
    "openmx": """si.tden si.den0 si.den1 si.sden si.dden si.pden0 si.v0 si.vhart si.vxc1 si.vna
        si.homo0_0_r si.NHO0_1 si.NBO-b0_1 si.mlwf1_1_r""",
}
"""Code → the density, and what the code writes beside it."""


@pytest.mark.parametrize("code", BY_PRODUCTS)
def test_by_products_are_no_materials(code, tmp_path):
    density, *others = BY_PRODUCTS[code].split()
    for name in (density, *others):
        (tmp_path / f"{name}.cube").touch()
    source = Directory(tmp_path)
    assert source.ids() == [density]
    assert sorted(source.passed_over) == sorted(f"{name}.cube" for name in others)


@needs_cases
def test_a_folder_of_abacus(tmp_path):
    source = Directory(CASES / "12-directory-takes-byproducts" / "abacus")
    (material_id,) = source.ids()
    density = source.read(material_id).crystal
    assert density.kinds == ("total", "spin")
    assert density.integral("total") == pytest.approx(8, abs=1e-3)
    assert "a potential" in source.passed_over["pots1.cube"]


@pytest.fixture
def aeccars(tmp_path) -> Path:
    """Silicon as VASP writes it, in a folder of its own."""
    if not VASP.is_dir():
        pytest.skip("no ../shared/data/vasp")
    folder = tmp_path / "runs" / "Si"
    folder.mkdir(parents=True)
    for name in ("AECCAR0.gz", "AECCAR1.gz", "AECCAR2.gz"):
        (folder / name).write_bytes((VASP / name).read_bytes())
    return folder.parent


def test_the_difference_of_vasp_itself(aeccars, tmp_path):
    """AECCAR2 − AECCAR1 from the command line: no electrons, and charge in the bonds."""
    out = tmp_path / "si.parquet"
    said = rhosight(
        *("data", "build", "directory", aeccars, out, "--difference", "aeccar"),
        *("--texts", "none", "--workers", "1"),
    )
    assert "1 material (1 new)" in said.stdout and "note" not in said.stderr
    density = load_dataset(out)[0].density
    assert density.kinds == ("total", "difference", "promolecule")
    assert abs(density.integral("difference")) < 0.02
    assert density.integral("total") == pytest.approx(8.013, abs=1e-3)
    n = density.shape[0]
    first, second = (site.frac_coords for site in density.structure)
    image = density.structure[0].distance_and_image(density.structure[1])[1]
    bond = tuple(np.round((first + second + image) / 2 * n).astype(int) % n)
    assert density.grid("difference")[bond] == pytest.approx(0.19, abs=0.03)  # e/Å³
