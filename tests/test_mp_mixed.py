"""The bundled dataset of densities of crystals that are not face-centred cubic."""

from __future__ import annotations

import numpy as np
import pytest

from rhosight.dataset import Dataset, bravais_lattice, load_dataset, split
from rhosight.dataset.validation import validate_file
from rhosight.density.crystals import find_symmetry
from rhosight.storage import bundled_file


@pytest.fixture(scope="module")
def mixed() -> Dataset:
    return load_dataset("mp-mixed")


def test_lattices_are_diverse_and_none_is_face_centred_cubic(mixed: Dataset):
    lattices = {bravais_lattice(structure) for structure in mixed.structures}
    assert "cF" not in lattices
    assert len(lattices) == 12
    assert mixed.table["spacegroup_number"].nunique() > 30
    assert mixed.has_density.all()


def test_labels_and_test_set_are_those_of_mp_elastic(mixed: Dataset):
    elastic = load_dataset("mp-elastic")
    same = elastic.table.loc[mixed.ids]
    assert list(mixed.targets) == list(elastic.targets) and mixed.units == elastic.units
    np.testing.assert_array_equal(mixed.targets, same[list(mixed.targets)])
    test = [mixed.ids[i] for i in split(mixed)[1]]
    assert sorted(test) == sorted(same.index[same["split"] == "test"])


def test_the_file_is_valid():
    with bundled_file("mp-mixed.parquet") as path:
        found = validate_file(path)
    assert found.query("severity == 'error'").empty


def test_densities_have_the_symmetry_of_their_crystals(mixed: Dataset):
    """GPAW does not impose an operation that takes its grid points between others."""
    for density in mixed.densities[::4]:
        size = np.array(density.shape)
        grid = density.grid("total")
        amplitudes = np.abs(np.fft.fftn(grid)) / grid.sum()
        half = (size - 1) // 2
        axes = [np.arange(-n, n + 1) for n in half]
        indices = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        cell = density.structure
        for rotation in find_symmetry(cell, [site.specie.Z for site in cell]).rotations:
            moved = indices @ rotation
            held = (np.abs(moved) <= half).all(axis=1)
            pair = (amplitudes[tuple((rows[held] % size).T)] for rows in (indices, moved))
            assert np.abs(np.subtract(*pair)).max() < 1e-3, density.name


def test_a_difference_integrates_to_nearly_nothing(mixed: Dataset):
    for density in mixed.densities:
        volume = density.structure.volume
        total, difference = (density.grid(kind).mean() * volume for kind in ("total", "difference"))
        assert abs(difference) < 0.1 * total, density.name
