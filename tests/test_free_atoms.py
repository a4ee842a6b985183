"""The table of free atoms and what is superposed from it, against the bundled GPAW densities."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from rhosight.dataset import Dataset
from rhosight.density import ChargeDensity
from rhosight.density.free_atoms import difference_from_total, list_elements, promolecule
from rhosight.errors import RhosightError

CUTOFF = 400.0
"""eV, of the bundled densities."""


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(np.square(expected))))


def only_total(density: ChargeDensity) -> ChargeDensity:
    grids = {"total": density.grid("total")}
    return ChargeDensity(density.structure, grids, "crystal", density.provenance)


@pytest.fixture(scope="module")
def sample(dataset: Dataset) -> list[ChargeDensity]:
    """Every thirtieth material; chromium apart, see ``test_chromium``."""
    return [d for d in dataset.densities[::30] if "Cr" not in d.structure.symbol_set]


@pytest.fixture
def silicon(dataset: Dataset) -> ChargeDensity:
    return dataset["mp-149"].density


def test_table_covers_the_bundled_elements(dataset: Dataset):
    found = set().union(*(d.structure.symbol_set for d in dataset.densities))
    assert found <= set(list_elements())
    assert len(list_elements()) == 69


def test_gpaws_starting_guess_is_reproduced(sample: list[ChargeDensity]):
    assert len(sample) > 10
    for density in sample:
        found = promolecule(density.structure, density.shape, cutoff=CUTOFF)
        expected = density.grid("promolecule").astype(float)
        assert relative_rms(found, expected) < 1e-4, density.name
        assert relative_rms(density.grid("total") - found, density.grid("difference")) < 2e-3


def test_difference_without_known_cutoff_is_near_gpaws(sample: list[ChargeDensity]):
    errors = [
        relative_rms(difference_from_total(only_total(d)).grid("difference"), d.grid("difference"))
        for d in sample
    ]
    assert max(errors) < 0.03
    assert np.median(errors) < 0.004


def test_chromium_keeps_its_nominal_configuration(dataset: Dataset):
    # GPAW's spin-polarised guess moves half an electron of chromium from 3d to 4s
    density = dataset["mp-16495"].density
    found = promolecule(density.structure, density.shape, cutoff=CUTOFF)
    error = relative_rms(found, density.grid("promolecule").astype(float))
    assert 0.005 < error < 0.04


def test_supercell_is_the_cell_repeated(silicon: ChargeDensity):
    cell = silicon.structure
    found = promolecule(cell * (2, 1, 3), (24, 12, 36))
    np.testing.assert_allclose(
        found, np.tile(promolecule(cell, (12, 12, 12)), (2, 1, 3)), atol=1e-6
    )


def test_shift_by_grid_steps_rolls_the_density(dataset: Dataset):
    cell = dataset["mp-22862"].density.structure
    shifted = Structure(
        cell.lattice, cell.species, cell.frac_coords + np.array([0.25, 0.5, -0.125])
    )
    found = promolecule(shifted, (16, 16, 16))
    expected = np.roll(promolecule(cell, (16, 16, 16)), (4, 8, -2), (0, 1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_fine_grid_agrees_with_the_coarse_at_its_points(silicon: ChargeDensity):
    coarse = promolecule(silicon.structure, (18, 18, 18), core=False)
    fine = promolecule(silicon.structure, (90, 90, 90), core=False)[::5, ::5, ::5]
    assert relative_rms(fine, coarse) < 1e-3


def test_lone_atom_is_spherical_and_ends_at_its_reach():
    box = Structure(Lattice.cubic(11), ["Na"], [[0.5, 0.5, 0.5]])
    density = promolecule(box, (55, 55, 55), core=False)
    axis = np.arange(55) / 5 - 5.5
    radii = np.sqrt(sum(a**2 for a in np.ix_(axis, axis, axis)))
    assert np.abs(density[radii > 4.24]).max() < 1e-5
    assert density[(radii > 3) & (radii < 4)].min() > 0
    ring = density[np.isclose(radii, np.sqrt(8.75))]
    assert len(ring) > 6
    assert np.ptp(ring) < 1e-5
    # of the eleven electrons, GPAW's sodium holds 2p⁶ 3s¹ as valence, most of 2p inside the sphere
    assert density.mean() * box.volume == pytest.approx(1.739, abs=0.001)


def test_cores_are_left_out_on_request(silicon: ChargeDensity):
    cell = silicon.structure
    full, valence = (promolecule(cell, (18, 18, 18), core=c) for c in (True, False))
    # two atoms, each with a smooth core of 0.181 electrons
    assert (full - valence).mean() * cell.volume == pytest.approx(2 * 0.1814, abs=1e-3)


def test_difference_from_total_says_where_it_came_from(dataset: Dataset):
    density = dataset["mp-102"].density
    given = ChargeDensity(
        density.structure,
        {"total": density.grid("total"), "spin": density.grid("spin")},
        "Co",
        density.provenance,
    )
    found = difference_from_total(given, cutoff=CUTOFF)
    assert found.name == "Co"
    assert relative_rms(found.grid("difference"), density.grid("difference")) < 2e-3
    np.testing.assert_array_equal(found.grid("spin"), density.grid("spin"))
    kinds = found.provenance["kinds"]
    assert "smooth core" in kinds["difference"]
    assert "rhosight" in kinds["difference"]
    assert kinds["spin"] == density.provenance["kinds"]["spin"]
    assert "difference" not in given.grids


def test_whole_electrons_have_no_smooth_cores(silicon: ChargeDensity):
    """Pseudo-densities with smooth cores hold fractions of electrons, VASP's valence does not."""
    smooth = only_total(silicon)
    whole = silicon.grid("total") * (8 / silicon.integral("total"))
    valence = ChargeDensity(silicon.structure, {"total": whole}, "CHGCAR")
    with_core, without = difference_from_total(smooth), difference_from_total(valence)
    assert "smooth core)" in with_core.provenance["kinds"]["difference"]
    assert "core)" not in without.provenance["kinds"]["difference"]


@pytest.mark.parametrize(
    ("species", "message"),
    [
        (["Ce"], "no free atom of Ce in the table"),
        ([{"Na": 0.5, "K": 0.5}], "more than one occupant"),
        ([{"Na": 0.9}], "more than one occupant, or a vacancy"),
    ],
)
def test_what_has_no_free_atom_is_an_error(species: list, message: str):
    crystal = Structure(Lattice.cubic(4), species, [[0, 0, 0]])
    density = ChargeDensity(crystal, {"total": np.ones((8, 8, 8))}, name="crystal.cif")
    with pytest.raises(RhosightError, match=rf"crystal\.cif: .*{message}"):
        difference_from_total(density)


def test_a_difference_is_never_replaced(silicon: ChargeDensity):
    with pytest.raises(RhosightError, match="has a `difference` already"):
        difference_from_total(silicon)


def test_without_total_there_is_no_difference(dataset: Dataset):
    density = dataset["mp-102"].density
    spin = ChargeDensity(density.structure, {"spin": density.grid("spin")}, "spin.cube")
    with pytest.raises(RhosightError, match=r"spin\.cube: .*not `total`"):
        difference_from_total(spin)


def test_a_grid_that_contradicts_the_cell_is_an_error(silicon: ChargeDensity):
    with pytest.raises(RhosightError, match="contradicts the cell"):
        promolecule(silicon.structure, (12, 12, 60))
