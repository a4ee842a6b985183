"""Damaged files of all formats are refused with a line, noted, or read as the original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mutations import STRUCTURES, describe, is_changed, mutations, write_originals
from rhosight import RhosightError, load_dataset, read_density, read_structure
from rhosight.density.structures import get_notes

COUNT, SEED = 63, 0


def read(name: str, path: Path) -> Any:
    if name == "a.parquet":
        return load_dataset(path)[0].density
    return read_structure(path) if name in STRUCTURES else read_density(path)


@pytest.fixture(scope="module")
def originals(dataset, tmp_path_factory) -> dict[str, Path]:
    return write_originals(dataset, "mp-149", tmp_path_factory.mktemp("originals"))


def test_the_originals_are_one_crystal_without_notes(originals):
    crystals = {name: read(name, path) for name, path in originals.items()}
    for name, crystal in crystals.items():
        assert get_notes(crystal) == [], name
        formula, volume, electrons = describe(crystal)
        assert formula == "Si" and volume == pytest.approx(20.16, abs=0.01)
        assert electrons is None or electrons == pytest.approx(4.3457, abs=1e-3)


def test_damaged_files_are_refused_or_noted(originals, tmp_path):
    crystals = {name: read(name, path) for name, path in originals.items()}
    refused = 0
    for name, number, content in mutations(originals, COUNT, SEED):
        path = tmp_path / name
        path.write_bytes(content)
        try:
            crystal = read(name, path)
        except RhosightError as error:
            assert "\n" not in str(error), (number, name)
            refused += 1
            continue
        silent = is_changed(crystal, crystals[name]) and not get_notes(crystal)
        assert not silent, (number, name)
    assert COUNT / 4 < refused < COUNT
