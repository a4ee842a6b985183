"""Define shared fixtures: the bundled dataset and a small folder of materials."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from rhosight.dataset import Dataset, load_dataset


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Return all 405 bundled materials."""
    return load_dataset("mp-fcc")


@pytest.fixture(scope="session")
def few(dataset: Dataset) -> Dataset:
    """Return six bundled materials.

    One is spin-polarised (AlCrFe2, whose modulus is masked), one has a formula with two ids (HfC),
    and one has the space group of the diamond structure.
    """
    return dataset[["mp-1002124", "mp-21075", "mp-16495", "mp-1001833", "mp-1002206", "mp-149"]]


def write_folder(dataset: Dataset, folder: Path) -> Path:
    """Write materials as materials.csv, structures/*.cif, densities.h5 and provenance.json."""
    (folder / "structures").mkdir(parents=True)
    labels = dataset.table.copy()
    for row in dataset.masked.itertuples():
        labels.loc[row.material_id, row.target] = row.value
    labels["grid"] = ["x".join(map(str, density.shape)) for density in dataset.densities]
    labels.to_csv(folder / "materials.csv")
    with h5py.File(folder / "densities.h5", "w") as file:
        for material in dataset:
            material.structure.to(filename=str(folder / f"structures/{material.material_id}.cif"))
            for kind, grid in material.density.grids.items():
                file[f"{material.material_id}/{kind}"] = grid
    about = {"name": "few", "licence": "CC BY 4.0", "provenance": {"code": "GPAW"}}
    (folder / "provenance.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


@pytest.fixture
def folder(few: Dataset, tmp_path: Path) -> Path:
    """Return a folder with the six materials."""
    return write_folder(few, tmp_path / "few")


@pytest.fixture
def edit_labels(folder: Path) -> Callable[[Callable], Path]:
    """Return a function that edits the text of the folder's materials.csv."""

    def edit(change: Callable[[str], str]) -> Path:
        path = folder / "materials.csv"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        return folder

    return edit
