"""VASP's densities: `best` predicts them from any grid, and their notes reach the user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure
from typer.testing import CliRunner

from rhosight import ChargeDensity, RhosightError, load_model, read_density
from rhosight.cli import app
from rhosight.dataset import Dataset

VASP = Path(__file__).parents[2] / "shared" / "data" / "vasp"

real_files = pytest.mark.skipif(not VASP.is_dir(), reason="needs VASP's densities in ../shared")

TARGETS = ["formation_energy_per_atom", "efermi", "bulk_modulus_vrh"]

PREDICTED = {"Al": (-0.01, 7.34, 78.8), "Si": (0.03, 5.55, 84.2), "Ni": (-0.01, 7.55, 177.4)}
"""Formation energy (eV/atom), Fermi energy (eV) and bulk modulus (GPa)."""

LABELS = {"Al": (0.0, 7.06, 76.9), "Si": (0.0, 5.63, 88.9), "Ni": (0.0, 8.06, 173.8)}
"""Values of the Materials Project."""

DIGITS = (0.01, 0.01, 0.1)


@pytest.fixture(scope="module")
def best():
    return load_model("best")


def largest_change(table: pd.DataFrame) -> float:
    """Return how far predictions are from those of the first row, in widths of its interval."""
    first = table.iloc[0]
    return max(
        float((table[t] - first[t]).abs().max() / (first[f"{t}_high"] - first[f"{t}_low"]))
        for t in TARGETS
    )


def with_peaks(density: ChargeDensity, points: int) -> ChargeDensity:
    """Add peaks of 300 e/Å³ within 0.3 Å of the nuclei, on a coarse or fine grid.

    The smooth density has the waves of a grid of 16 points, which both grids hold.
    """
    waves = np.fft.fftn(density.grid("total"))[np.ix_(*[[*range(8), *range(-7, 0)]] * 3)]
    spectrum = np.zeros((points,) * 3, dtype=complex)
    spectrum[np.ix_(*[[*range(8), *range(-7, 0)]] * 3)] = waves
    grid = np.fft.ifftn(spectrum).real * points**3 / density.grid("total").size
    structure = density.structure
    places = np.stack(np.meshgrid(*[np.arange(points) / points] * 3, indexing="ij"), -1)
    for centre in structure.frac_coords:
        away = places - centre
        away -= np.round(away)
        squares = ((away @ structure.lattice.matrix) ** 2).sum(-1)
        grid += 300 * np.clip(1 - squares / 0.3**2, 0, None) ** 3
    return ChargeDensity(structure, {"total": grid}, f"{points} points")


def test_peaks_that_a_grid_cannot_hold_do_not_matter(best, dataset: Dataset) -> None:
    density = dataset["mp-867840"].density  # BeFeRh2: its interval was exceeded by splines of n
    table = best.predict_intervals([with_peaks(density, points) for points in (48, 20, 16)])
    assert largest_change(table) < 0.1


def test_a_grid_that_is_too_coarse_is_noted(few: Dataset, tmp_path: Path) -> None:
    density = few["mp-149"].density
    grid = np.asarray(density.grid("total"))
    step = max(density.structure.lattice.abc) / 0.35
    thin = next(k for k in range(2, 9) if grid.shape[0] % k == 0 and grid.shape[0] / k < step)
    coarse = ChargeDensity(density.structure, {"total": grid[::thin, ::thin, ::thin]})
    for name, one, noted in (("fine", density, False), ("coarse", coarse, True)):
        one.to_chgcar(tmp_path / f"{name}.CHGCAR")
        notes = read_density(tmp_path / f"{name}.CHGCAR").provenance.get("notes", [])
        assert (
            any("uncertain; write the density on a grid with steps below" in n for n in notes)
            is noted
        )


def test_atoms_that_are_not_where_the_density_is_are_noted(
    dataset: Dataset, tmp_path: Path
) -> None:
    """InBi in the setting of the other hand, SiO2 about another origin."""
    for material_id, move in (("mp-1001833", lambda x: -x), ("mp-8352", lambda x: x + 0.25)):
        density = dataset[material_id].density
        crystal = density.structure
        moved = Structure(crystal.lattice, crystal.species, move(crystal.frac_coords))
        for structure, count in ((crystal, 0), (moved, 1)):
            one = ChargeDensity(structure, {"total": density.grid("total")})
            one.to_chgcar(tmp_path / "CHGCAR")
            notes = read_density(tmp_path / "CHGCAR").provenance.get("notes", [])
            assert sum("not that of these atoms at these positions" in n for n in notes) == count


@real_files
def test_real_densities_are_predicted(best) -> None:
    densities = [read_density(VASP / f"{name}.CHGCAR.gz") for name in PREDICTED]
    assert not any(density.provenance.get("notes") for density in densities)
    table = best.predict_intervals(densities)
    for row, (name, expected) in zip(table.to_dict("records"), PREDICTED.items(), strict=True):
        assert row["outside"] is None
        for target, value, digit in zip(TARGETS, expected, DIGITS, strict=True):
            assert row[target] == pytest.approx(value, abs=digit)
        assert row["bulk_modulus_vrh_low"] < LABELS[name][2] < row["bulk_modulus_vrh_high"]


@real_files
def test_real_densities_are_predicted_on_the_command_line() -> None:
    files = [str(VASP / f"{name}.CHGCAR.gz") for name in PREDICTED]
    done = CliRunner().invoke(app, ["predict", "best", *files, "--format", "json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["predictions"]
    assert [row["formula"] for row in rows] == list(PREDICTED)
    for row, expected in zip(rows, PREDICTED.values(), strict=True):
        for target, value, digit in zip(TARGETS, expected, DIGITS, strict=True):
            assert row[target] == pytest.approx(value, abs=digit)
        assert not row["notes"]


@real_files
def test_a_part_of_the_points_of_real_densities_predicts_the_same(best) -> None:
    """All-electron silicon has peaks of 13,000 e/Å³: predictions moved by five intervals."""
    core, valence, smooth = (
        read_density(VASP / f"{name}.gz") for name in ("AECCAR0", "AECCAR2", "Si.CHGCAR")
    )
    every = np.asarray(core.grid("total")) + valence.grid("total")
    for grid in (every, np.asarray(smooth.grid("total"))):
        parts = [
            ChargeDensity(smooth.structure, {"total": grid[::k, ::k, ::k]}, f"1/{k}")
            for k in (1, 2, 3)
        ]
        assert largest_change(best.predict_intervals(parts)) < 0.02


@real_files
@pytest.mark.parametrize("name", ["BeFeRh2_mp-867840", "InBi_mp-1001833"])
def test_points_that_are_not_those_of_the_cell_are_noted(name: str) -> None:
    """Their 32 points are every second of 63, at i/31.5 of the cell, and of another setting."""
    file = VASP / "coarse" / f"{name}.CHGCAR.gz"
    other, note = read_density(file).provenance["notes"]
    assert "not that of these atoms at these positions" in other
    assert "every second point of a number that 2 does not divide" in note
    done = CliRunner().invoke(app, ["predict", "best", str(file), "--format", "json"])
    assert done.exit_code == 0 and note in json.loads(done.stdout)["predictions"][0]["notes"]
    with pytest.raises(RhosightError, match="notes are errors"):
        read_density(file, notes="strict")


@real_files
def test_a_grid_of_32_points_is_fine_enough(best, dataset: Dataset) -> None:
    """Where the atoms are those of the density, an interval of `best` holds the label."""
    for name, material_id in (("BeFeRh2", "mp-867840"), ("InBi", "mp-1001833")):
        grid = read_density(VASP / "coarse" / f"{name}_{material_id}.CHGCAR.gz").grid("total")
        structure: Structure = dataset[material_id].density.structure
        table = best.predict_intervals(
            [
                ChargeDensity(structure, {"total": grid[::k, ::k, ::k]}, f"{name} 1/{k}")
                for k in (1, 2)
            ]
        )
        assert largest_change(table) < 0.1
        label = dataset.table.loc[material_id, "bulk_modulus_vrh"]
        assert (
            table["bulk_modulus_vrh_low"].iloc[0] < label < table["bulk_modulus_vrh_high"].iloc[0]
        )
