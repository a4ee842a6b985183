"""Descriptors: the same however a crystal is stored, right where the answer is known, finite."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.analysis.molecule_structure_comparator import CovalentRadius
from pymatgen.core import Lattice, Structure

from rhosight import ChargeDensity
from rhosight.dataset import Dataset
from rhosight.density.free_atoms import list_elements, promolecule
from rhosight.errors import RhosightError
from rhosight.inputs.descriptors.blocks import compute_block_table
from rhosight.inputs.descriptors.frame import (
    BLOCKS,
    block_columns,
    density_descriptors,
    descriptor_frame,
    structure_descriptors,
)
from rhosight.models.blocks import BlockReader
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

HFC, SI, SPIN = "mp-21075", "mp-149", "mp-16495"


def doubled(density: ChargeDensity) -> ChargeDensity:
    """The cell twice along the first vector, turned, its atoms in another order."""
    grids = {kind: np.tile(grid, (2, 1, 1)) for kind, grid in density.grids.items()}
    structure = density.structure.copy()
    structure.make_supercell([2, 1, 1])
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
    lattice = Lattice(structure.lattice.matrix @ turn.T)
    order = np.arange(len(structure))[::-1]
    species = [structure[int(i)].specie for i in order]
    turned = Structure(lattice, species, structure.frac_coords[order])
    return ChargeDensity(turned, grids)


def shifted(density: ChargeDensity, steps: tuple[int, int, int]) -> ChargeDensity:
    """The origin elsewhere, by whole steps of the grid."""
    grids = {k: np.roll(g, steps, axis=(0, 1, 2)) for k, g in density.grids.items()}
    structure = density.structure.copy()
    vector = np.array(steps) / density.shape
    structure.translate_sites(range(len(structure)), vector, frac_coords=True)
    return ChargeDensity(structure, grids)


@pytest.fixture(scope="module")
def spread(few: Dataset):
    """Standard deviation of each descriptor over six materials."""
    frame = descriptor_frame(list(few.densities))
    assert np.isfinite(frame.to_numpy()).all()
    return frame.std()


@pytest.mark.parametrize("material", [HFC, SI, SPIN])
def test_the_stored_cell_does_not_matter(few: Dataset, spread, material: str) -> None:
    density = few[material].density
    plain = density_descriptors(density)
    for other in (doubled(density), shifted(density, (3, 5, 1))):
        again = density_descriptors(other)
        assert list(again) == list(plain)
        for name, value in plain.items():
            assert again[name] == pytest.approx(value, rel=1e-4, abs=2e-2 * spread[name] + 1e-9), (
                name
            )


def test_blocks_and_columns(few: Dataset) -> None:
    seen = []
    frame = descriptor_frame(
        list(few.densities)[:2], ["bonds", "fractions"], progress=lambda *a: seen.append(a)
    )
    assert list(block_columns(frame.columns)) == ["fractions", "bonds"]
    assert seen == [("descriptors", 1, 2), ("descriptors", 2, 2)]
    every = density_descriptors(few[SI].density)
    assert tuple(block_columns(every)) == BLOCKS
    without = structure_descriptors(few[SI].density.structure)
    assert without == {name: every[name] for name in without}


def test_silicon(few: Dataset) -> None:
    """Known: four bonds, with charge heaped up on them, and no net charges."""
    density = few[SI].density
    found = density_descriptors(density)
    assert found["fractions.Si"] == 1 and found["packing.coordination_mean"] == pytest.approx(4)
    bond = np.sqrt(3) / 4 * (4 * density.structure.volume) ** (1 / 3)
    assert found["bonds.length"] == pytest.approx(bond)
    assert found["bonds.difference"] > found["outside.difference_q90"] > 0
    assert found["charges.charge_rms"] == pytest.approx(0, abs=1e-6)
    assert found["charges.volume_mean"] == pytest.approx(density.structure.volume / 2, rel=2e-3)
    assert found["potentials.electrons_per_volume"] * density.structure.volume == pytest.approx(
        8, rel=0.15
    )


def test_electrons_go_to_the_anion(few: Dataset) -> None:
    found = density_descriptors(few[HFC].density, ["charges", "packing"])
    assert found["charges.charge_anion"] < -0.2 < 0.2 < found["charges.charge_cation"]
    assert found["charges.madelung"] < 0


def test_integrals_agree_with_the_grid(few: Dataset) -> None:
    density = few[HFC].density
    found = density_descriptors(density, ["energies"])
    square = np.mean(density.grid("difference").astype(float) ** 2) * density.structure.volume
    per_atom = found["energies.difference_square"]
    assert per_atom == pytest.approx(square / len(density.structure), rel=0.02)
    assert found["energies.hartree_difference"] > 0


def test_free_atoms_put_together_change_nothing(few: Dataset) -> None:
    """A density that is the superposition itself."""
    density = few[HFC].density
    total = promolecule(density.structure, density.shape)
    same = ChargeDensity(density.structure, {"total": total, "difference": 0 * total})
    found = density_descriptors(same, ["energies", "charges"])
    for name in ("thomas_fermi_change", "exchange_change", "hartree_difference", "difference_abs"):
        assert found[f"energies.{name}"] == pytest.approx(0, abs=1e-9)
    assert found["charges.charge_rms"] == pytest.approx(0, abs=1e-9)
    assert found["energies.thomas_fermi_overlap"] > 0


def test_pair_energy_has_the_right_derivative(few: Dataset) -> None:
    """Per atom, Σ r E′ / 2 is dE/dε under a uniform expansion by ε."""
    structure = few[HFC].density.structure
    step = 1e-3
    energies = []
    for scale in (1 - step, 1 + step):
        scaled = structure.copy()
        scaled.scale_lattice(structure.volume * scale**3)
        energies.append(structure_descriptors(scaled, ["overlap"]))
    here = structure_descriptors(structure, ["overlap"])
    for name in ("electrostatic", "overlap"):
        low, high = (e[f"overlap.{name}0_per_atom"] for e in energies)
        slope = (high - low) / (2 * step)
        assert slope == pytest.approx(here[f"overlap.{name}1_per_atom"], rel=1e-3)


def test_every_element_is_finite() -> None:
    for symbol in list_elements():
        crystal = Structure(Lattice.cubic(4.4).matrix, [symbol, "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
        assert np.isfinite(list(structure_descriptors(crystal).values())).all(), symbol


def with_other_cores(density: ChargeDensity) -> ChargeDensity:
    """`total` as a code with other pseudo-potentials might write it: another height within half a
    covalent radius of the nuclei, the same outside."""
    points = np.stack(np.meshgrid(*(np.arange(n) / n for n in density.shape), indexing="ij"), -1)
    lattice = density.structure.lattice
    total = density.grid("total").copy()
    for site in density.structure:
        away = lattice.get_all_distances(points.reshape(-1, 3), site.frac_coords).reshape(
            total.shape
        )
        scaled = away / (0.5 * CovalentRadius.radius[site.specie.symbol])
        total += 3 * total.max() * np.where(scaled < 1, np.cos(np.pi * scaled / 2) ** 4, 0)
    return ChargeDensity(density.structure, {"total": total})


@pytest.mark.parametrize("material", [HFC, SI])
def test_what_a_code_writes_near_the_nuclei_is_not_looked_at(few, spread, material: str) -> None:
    density = few[material].density
    other = with_other_cores(density)
    assert other.grid("total").max() > 1.5 * density.grid("total").max()
    found, plain = (density_descriptors(d, ["interstitial"]) for d in (other, density))
    for name, value in plain.items():
        assert abs(found[name] - value) < 0.2 * spread[name], name


def test_errors(few: Dataset) -> None:
    density = few[SI].density
    with pytest.raises(RhosightError, match="'bonds' needs a density"):
        structure_descriptors(density.structure, ["bonds"])
    with pytest.raises(RhosightError, match="'bond' is unknown"):
        density_descriptors(density, ["bond"])
    with pytest.raises(RhosightError, match="blocks are a list"):
        density_descriptors(density, "bonds")
    total = ChargeDensity(density.structure, {"total": density.grid("total")}, name="alone")
    with pytest.raises(RhosightError, match="alone: has total but not `difference`"):
        density_descriptors(total, ["charges"])
    heavy = Structure(Lattice.cubic(4), ["U"], [[0, 0, 0]])
    with pytest.raises(RhosightError, match="no free atom of U"):
        structure_descriptors(heavy)
    mixed = Structure(Lattice.cubic(4), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(RhosightError, match="partial occupancies"):
        structure_descriptors(mixed)


def test_several_processes_read_what_one_reads(dataset, monkeypatch):
    reader = BlockReader(DescriptorRecipe(kernels=[Kernel(together=("fractions", "packing"))]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = reader.table(dataset[:100])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    steps = []
    together = reader.table(dataset[:100], lambda *step: steps.append(step))
    pd.testing.assert_frame_equal(together, alone, check_exact=True)
    assert steps[0] == ("descriptors", 0, 100) and steps[-1] == ("descriptors", 100, 100)


def test_a_crystal_is_described_once_a_process(few: Dataset, monkeypatch) -> None:
    """For several models; another density, another cell and other blocks are computed."""
    computed: list[int] = []

    def spy(crystals, *arguments):
        computed.append(len(crystals))
        return descriptor_frame(crystals, *arguments)

    monkeypatch.setattr("rhosight.inputs.descriptors.blocks.descriptor_frame", spy)
    density = few[SI].density
    cell, grids = density.structure, {"total": density.grid("total") * 1.001}  # new to all tests
    one, other = ChargeDensity(cell, grids), ChargeDensity(cell, {"total": grids["total"] * 1.1})
    first = compute_block_table([one, other], ("interstitial", "packing"))
    wide = ChargeDensity(cell.copy().scale_lattice(1.001 * cell.volume), grids)
    again = compute_block_table([one, wide], ("interstitial",))
    assert computed == [2, 1]
    assert list(again) == [name for name in first if not name.startswith("packing")]
    pd.testing.assert_series_equal(again.iloc[0], first[list(again)].iloc[0], check_exact=True)
    for density, found in ((other, first.iloc[1]), (wide, again.iloc[1])):
        alone = density_descriptors(density, ["interstitial"])
        assert found[list(alone)].to_dict() == alone != density_descriptors(one, ["interstitial"])
    compute_block_table([one], ("interstitial", "sites"))
    assert computed == [2, 1, 1]
