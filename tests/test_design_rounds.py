"""Rounds of design: proposals computed by GPAW, from the calculations of the committed run."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Structure
from typer.testing import CliRunner

import rhosight
from rhosight.cli import app
from rhosight.dataset.sources.gpaw import Gpaw, find_fingerprint, find_gpaw
from rhosight.design.calculations import Calculations, make_cell
from rhosight.design.correction import Correction
from rhosight.design.equation_of_state import compute_equation_of_state
from rhosight.design.ledger import Ledger
from rhosight.design.loop import Rounds, run_rounds
from rhosight.design.verification import EARLIER, measure_widening
from rhosight.errors import RhosightError
from rhosight.models.equation_of_state import fit_equation_of_state

RUN = Path(__file__).parent.parent / "docs" / "results" / "design"
SETTINGS = json.loads((RUN / "settings.json").read_text(encoding="utf-8"))

KNOWN = pd.read_csv(RUN / "correction.csv")

NOWHERE = Gpaw(python="no-such-python")
"""Settings of GPAW without GPAW: whatever is not stored fails."""


def run(folder: Path, lines: list[str] | None = None, rounds: int | None = None) -> Rounds:
    """Run as the committed run was, with all its rounds or fewer."""
    names = ("elements", "candidates", "count", "seed", "models", "max_atoms", "geometry", "rigid")
    return run_rounds(
        SETTINGS["targets"],
        out=folder,
        rounds=rounds or len(list(RUN.glob("round-*"))),
        known=int(KNOWN["bulk_modulus_vrh_gpaw"].notna().sum()),
        gpaw=NOWHERE,
        log=(lines if lines is not None else []).append,
        **{name: SETTINGS[name] for name in names if name in SETTINGS},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the committed run and its calculations of elements and known crystals."""
    monkeypatch.setenv("RHOSIGHT_CACHE", str(tmp_path / "cache"))
    shutil.copytree(RUN / "cache", tmp_path / "cache")
    return Path(shutil.copytree(RUN, tmp_path / "run", ignore=shutil.ignore_patterns("cache")))


def test_a_finished_run_is_made_again_from_its_calculations(folder: Path):
    (folder / "verified.csv").unlink()
    (folder / "report.html").unlink()
    found = run(folder)
    expected = pd.read_csv(RUN / "verified.csv")
    written = pd.read_csv(folder / "verified.csv")
    pd.testing.assert_frame_equal(written, expected, rtol=1e-4)
    good = found.table[found.table["problem"].isna()]
    # corrected values are those of GPAW less what it differs on known crystals
    energies = good["formation_energy_per_atom_gpaw"] - good["formation_energy_per_atom_verified"]
    differences = [found.correction.difference(formula) for formula in good["formula"]]
    assert energies.to_numpy(float) == pytest.approx(differences)
    written = pd.read_csv(folder / "correction.csv")
    pd.testing.assert_frame_equal(written, KNOWN, rtol=1e-4)
    ratios = KNOWN["bulk_modulus_vrh_gpaw"] / KNOWN["bulk_modulus_vrh_mp"]
    assert found.correction.modulus == pytest.approx(ratios.median(), rel=1e-4)
    for target in ("formation_energy_per_atom", "bulk_modulus_vrh"):
        values = good[f"{target}_verified"]
        inside = values.between(good[f"{target}_low"], good[f"{target}_high"])
        assert inside.tolist() == good[f"{target}_inside_model"].tolist()
        assert (good[f"{target}_error"] > 0).all() and (good[f"{target}_inside"] | ~inside).all()
    # formulas are proposed once, and ledgers name what was verified
    assert found.table["formula"].is_unique
    first = Ledger(folder / "round-1" / "ledger").read_verified()
    assert first is not None
    assert [row["formula"] for row in first] == found.table.query("round == 1")["formula"].tolist()
    # the dataset has the densities, marked as those of GPAW
    dataset = rhosight.load_dataset(folder / "verified.parquet")
    assert dataset.ids == good["name"].tolist() and dataset.has_density.all()
    assert {provenance["code"] for provenance in dataset.provenances} == {"GPAW"}
    labels = dataset.targets["bulk_modulus_vrh"]
    assert labels.to_numpy() == pytest.approx(good["bulk_modulus_vrh_verified"].to_numpy(float))
    geometries = {provenance["geometry"] for provenance in dataset.provenances}
    assert len(geometries) == 1 and "equation of state" in geometries.pop()
    volumes = [s.volume / len(s) for s in dataset.structures]
    assert volumes == pytest.approx(good["volume_per_atom_gpaw"].to_numpy(float), rel=1e-5)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in KNOWN["material_id"])
    assert "http" not in page.replace("http://www.w3.org", "")


def test_crystals_that_fail_do_not_stop_the_others(folder: Path):
    names = pd.read_csv(RUN / "verified.csv")["name"].tolist()
    failed, damaged, missing = (folder / "gpaw" / name / "eos-0.96.json" for name in names[:3])
    content = json.loads(failed.read_text())
    failed.write_text(json.dumps({"input": content["input"], "problem": "GPAW did not converge"}))
    damaged.write_text("{")
    missing.unlink()
    lines: list[str] = []
    table = run(folder, lines, rounds=1).table
    problems = table["problem"].tolist()
    assert "did not converge" in problems[0] and f"remove {failed}" in problems[0]
    assert f"{damaged}: not a calculation" in problems[1] and "remove this file" in problems[1]
    assert "no-such-python" in problems[2]  # only what is missing needs GPAW
    assert table["problem"].isna().tolist() == [False] * 3 + [True] * (len(table) - 3)
    assert table["bulk_modulus_vrh_verified"].notna().tolist() == table["problem"].isna().tolist()
    assert all(any(name in line for line in lines) for name in names[:3])


def make_stub(folder: Path, version: str, result: str = "") -> Gpaw:
    """Return settings of a GPAW that writes a result, or ends as one without memory does."""
    (folder / "setups").mkdir(parents=True)
    answer = json.dumps({"version": version, "setups": [str(folder / "setups")]})
    last = f"echo '{result}' > $2/result.json" if result else "kill -9 $$"
    script = folder / "python"
    script.write_text(
        f"#!/bin/sh\nif [ $2 = --version ]; then echo '{answer}'; exit; fi\n"
        f"echo start >> {folder}/starts\n{last}\n"
    )
    script.chmod(0o755)
    return Gpaw(python=str(script))


def test_another_gpaw_computes_again_and_only_problems_of_crystals_stay(
    folder: Path, tmp_path: Path
):
    chosen = json.loads((folder / "round-1" / "chosen.json").read_text())
    name, text = next(iter(chosen["structures"].items()))
    cell = make_cell(Structure.from_dict(json.loads(text)), name)
    path = folder / "gpaw" / name / "eos-1.00.json"
    stored = path.read_text()

    def compute(gpaw: Gpaw) -> float:
        return compute_equation_of_state(
            Calculations(folder / "gpaw", gpaw), name, cell
        ).bulk_modulus

    version = json.loads(stored)["provenance"]["version"]
    same = make_stub(tmp_path / "same", version)
    assert compute(same) == compute(NOWHERE)
    # another version, and another PAW data set
    other = make_stub(tmp_path / "other", "99")
    (tmp_path / "same" / "setups" / f"{cell[0].specie.symbol}.PBE.gz").write_bytes(
        gzip.compress(b"other")
    )
    for gpaw in (other, replace(same, smearing=0.1)):
        find_fingerprint.cache_clear()
        with pytest.raises(RhosightError, match=r"code -9 .*memory"):
            compute(gpaw)
        assert path.read_text() == stored  # no problem of this crystal
    calculations = Calculations(folder / "gpaw", other)
    for _ in range(2):  # a process tries once
        with pytest.raises(RhosightError, match="memory"):
            calculations.energy(f"{name}/eos-1.00", cell)
    assert len((tmp_path / "other" / "starts").read_text().split()) == 2
    diverging = make_stub(tmp_path / "bad", "99", '{"error": "no", "kind": "not converged"}')
    with pytest.raises(RhosightError, match="did not converge"):
        compute(diverging)
    with pytest.raises(RhosightError, match=r"did not converge.*remove"):
        compute(other)  # of the same version: it stays


def test_equations_of_state():
    volumes = np.array([0.92, 0.96, 1.0, 1.04, 1.08]) * 40
    # Birch-Murnaghan, third order: V0 = 39.2 Å³, B = 200 GPa, B' = 4.5
    x = (39.2 / volumes) ** (2 / 3)
    bulk = 200 / 160.21766
    energies = -10 + 9 * 39.2 * bulk / 16 * ((x - 1) ** 3 * 4.5 + (x - 1) ** 2 * (6 - 4 * x))
    curve = fit_equation_of_state(list(volumes), list(energies), 2, "X")
    assert curve.bulk_modulus == pytest.approx(200, rel=1e-3)
    assert curve.volume == pytest.approx(39.2, rel=1e-4)
    assert curve.energy == pytest.approx(-10, abs=1e-4)
    with pytest.raises(RhosightError, match=r"no minimum between 18\.40 and 21\.60"):
        fit_equation_of_state(list(volumes), list(energies - 2 * volumes), 2, "X")


def test_differences_of_known_crystals_are_shares_of_their_elements():
    formulas = ["AlPt", "Al3Pt", "AlPt3", "AlCu", "CuPt", "Cu3Pt", "AlTi"]
    # platinum's share is 0.2 eV/atom, copper's -0.05
    differences = [0.1, 0.05, 0.15, -0.025, 0.075, 0.0125, np.nan]
    table = pd.DataFrame(
        {
            "formula": formulas,
            "formation_energy_per_atom_mp": -0.5,
            "formation_energy_per_atom_gpaw": [-0.5 + one for one in differences],
            "bulk_modulus_vrh_mp": [100.0, 200.0, 100.0, 50.0, 80.0, 90.0, 100.0],
            "bulk_modulus_vrh_gpaw": [110.0, 210.0, 120.0, np.nan, np.nan, np.nan, np.nan],
            "problem": [*[None] * 6, "not converged"],
        }
    )
    correction = Correction(table)
    assert correction.elements == ("Al", "Cu", "Pt")
    assert correction.difference("Al2Cu2Pt4") == pytest.approx(0.0875, abs=0.01)
    # an element without a known crystal has no share of its own
    assert correction.difference("Nb3Pt") < correction.difference("NbPt3")
    assert np.abs(correction.left_out).max() < 0.03
    # what the correction misses grows with the share of such an element
    errors = [correction.estimate_errors(text, 100.0)[0] for text in ("AlPt", "NbPt3", "Nb3Pt")]
    assert 0.03 < errors[0] < errors[1] < 0.075 < errors[2]
    assert correction.list_unknown("AlNbPt") == ["Nb"]
    # the ratios are 1.1, 1.05 and 1.2
    spread = np.std([1.1, 1.05, 1.2], ddof=1) * np.sqrt(1 + 1.25**2 / 3) / 1.1
    assert correction.estimate_errors("AlPt", 100.0)[1] == pytest.approx(100 * spread)
    energy, modulus = correction.correct("PtAl", -0.4, 110.0)
    assert energy == pytest.approx(-0.5, abs=0.01) and modulus == pytest.approx(100.0)


def test_intervals_stay_wide_after_they_were_widened():
    """Errors three times as large as expected, in two rounds; the second search knew the first."""
    target = "formation_energy_per_atom"
    columns = {"": 0.0, "_low": -0.1, "_high": 0.1, "_verified": 0.3, "_error": 0.0}
    row = {f"{target}{end}": value for end, value in columns.items()}
    table = pd.DataFrame([row | {"problem": None, f"{target}_inside": False}] * 10)
    begin = measure_widening([])
    assert begin["bulk_modulus_vrh"] == 1.0
    first = measure_widening([table])[target]
    ends = [f"{target}_low", f"{target}_high"]
    wider = table.assign(**{f"{target}_widening": first})
    wider[ends] *= first
    second = measure_widening([table, wider])[target]
    assert 1 < begin[target] < first < second


def test_a_run_begins_with_the_errors_of_the_committed_one():
    table = pd.read_csv(RUN / "verified.csv")
    for target, earlier in EARLIER.items():
        # only round 3 was searched with wider intervals: 1.503 and 1.0 times as wide
        factor = 1.503 if target == "formation_energy_per_atom" else 1.0
        table[f"{target}_widening"] = np.where(table["round"] == 3, factor, 1.0)
        # thirty errors count beside ten as large: the mean is that of the thirty
        assert measure_widening([table])[target] == pytest.approx(max(1, earlier**0.5), abs=0.01)
        own = measure_widening([table.loc[table.index.repeat(100)]])[target]
        assert own == pytest.approx(max(1, earlier**0.5), abs=0.01)


def test_the_second_committed_run_keeps_its_promises():
    """Twenty proposals, of which 80 % should be inside, and the median near the hull."""
    table = pd.read_csv(RUN.with_name("design-2") / "verified.csv")
    assert len(table) == 20 and table["problem"].isna().all()
    for target in EARLIER:
        off = table[f"{target}_verified"] - table[target]
        ends = table[f"{target}_high"], table[f"{target}_low"]
        half = (np.where(off > 0, *ends) - table[target]).abs()
        inside = off.abs() <= np.hypot(half, 1.645 * table[f"{target}_error"])
        assert inside.tolist() == table[f"{target}_inside"].tolist() and inside.sum() == 19
        assert table[f"{target}_inside_model"].sum() >= 16  # neither factor nor correction
    assert table["energy_above_hull_verified"].median() < 0.085


def test_rounds_need_a_verification():
    result = CliRunner().invoke(
        app, ["design", "--target", "band_gap=1..2", "--out", "x", "--rounds", "2"]
    )
    assert result.exit_code != 0
    assert "--verify gpaw" in str(result.exception)


@pytest.mark.slow
def test_aluminium_has_an_equation_of_state(tmp_path: Path):
    try:
        find_gpaw()
    except RhosightError as error:
        pytest.skip(str(error))
    cell = Structure(2.11 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), ["Al"], [[0, 0, 0]])
    done: list[str] = []
    calculations = Calculations(tmp_path, Gpaw(cutoff=250), lambda name, seconds: done.append(name))
    curve = compute_equation_of_state(calculations, "Al", cell)
    # the volume is that of the dataset, though the first one was too large by 14 %
    assert curve.volume == pytest.approx(16.5, rel=0.03)
    assert curve.bulk_modulus == pytest.approx(78, rel=0.1)
    assert len(done) == 7
    compute_equation_of_state(calculations, "Al", cell)
    assert len(done) == 7  # nothing is computed again
