"""CHGNet's formation energies and bulk moduli: near the labels, and marked as seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from rhosight import DescriptorModel, RhosightError, load_recipe
from rhosight.dataset import Dataset
from rhosight.evaluation.folds import fit_baseline
from rhosight.models.base import CARD
from rhosight.models.baselines import chgnet
from rhosight.models.baselines.baselines import POTENTIAL
from rhosight.models.baselines.potential import (
    REFERENCES,
    SEEN,
    compute_potential,
    compute_potential_blocks,
)
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import POTENTIAL_BLOCKS, DescriptorRecipe
from rhosight.networks.weights import packaged_hash
from rhosight.storage import bundled_file
from test_cli import rhosight

pytest.importorskip("chgnet")

ENERGY, MODULUS = "formation_energy_per_atom", "bulk_modulus_vrh"


def test_energies_and_moduli_are_near_the_labels(few: Dataset) -> None:
    found = compute_potential(list(few.structures))
    labels = few.targets[[ENERGY, MODULUS]].reset_index(drop=True)
    assert ((found[ENERGY] - labels[ENERGY]).abs() < 0.15).all()
    assert ((found[MODULUS] / labels[MODULUS] - 1).dropna().abs() < 0.35).all()


def test_a_larger_cell_and_a_strained_one_have_the_same_numbers(few: Dataset) -> None:
    """The minimum is that of the curve, so a volume that is off by 5 % does not matter."""
    structure = few["mp-149"].structure
    strained = structure.copy().scale_lattice(1.05 * structure.volume)
    found = compute_potential([structure, structure * (2, 1, 1), strained]).to_numpy()
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=0.05, atol=2e-3)


def test_a_crystal_without_a_minimum_has_no_modulus_and_says_so(few: Dataset) -> None:
    squeezed = few["mp-149"].structure.copy()
    squeezed.scale_lattice(0.5 * squeezed.volume)
    assert compute_potential([squeezed])[MODULUS].isna().all()
    blocks = compute_potential_blocks([squeezed, few["mp-149"].structure])
    assert blocks[f"{POTENTIAL_BLOCKS[1]}.has_none"].tolist() == [1, 0]
    assert np.isfinite(blocks.to_numpy()).all()


def test_an_element_without_a_reference_is_named() -> None:
    lanthanum = Structure(Lattice.cubic(3.77), ["La"], [[0, 0, 0]])
    assert compute_potential([lanthanum])[ENERGY].isna().all()
    with pytest.raises(RhosightError, match="La: no energy of CHGNet for the element La; use"):
        compute_potential_blocks([lanthanum])


def test_the_references_are_those_of_the_packaged_weights() -> None:
    with bundled_file(REFERENCES) as path:
        about = json.loads(path.read_text(encoding="utf-8"))
    assert about["weights_sha256"] == packaged_hash("chgnet")
    assert {"crystal mp-23", "crystal mp-149"} & {e["from"] for e in about["elements"].values()}


def test_its_own_row_has_two_targets_and_a_guess_where_it_has_no_value(few: Dataset) -> None:
    features = compute_potential(list(few.structures))
    features.loc[1, MODULUS] = np.nan
    labels = few.targets[["efermi", ENERGY, MODULUS]].reset_index(drop=True)
    rows = np.arange(len(few))
    found = fit_baseline(POTENTIAL, features, labels, rows, 0)(rows)
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1], features[ENERGY])
    assert found[1, 2] == labels[MODULUS].mean() and found[0, 2] == features[MODULUS][0]


def test_a_model_that_reads_it_is_better_and_carries_the_note(
    dataset: Dataset, tmp_path, monkeypatch
) -> None:
    """`best+potential`'s blocks, beside composition instead of all others to save time."""
    names = ("best+potential", "structure+potential")
    kernels = [kernel for name in names for kernel in load_recipe(name).kernels]
    assert all(set(POTENTIAL_BLOCKS) < set(kernel.alone) for kernel in kernels)
    part = dataset[np.random.default_rng(3).permutation(len(dataset))[:40]]
    errors = []
    for alone in ((), POTENTIAL_BLOCKS):
        kernels = (Kernel(alone=alone, together=("magpie", "volume")),)
        model = DescriptorModel(DescriptorRecipe(targets=(ENERGY,), kernels=kernels)).fit(part)
        left_out = model.out_of_fold
        errors.append(np.sqrt(np.mean((left_out["predicted"] - left_out["true"]) ** 2)))
        model.save_pretrained(tmp_path / "model")
        assert (SEEN in (tmp_path / "model" / CARD).read_text(encoding="utf-8")) == bool(alone)
    assert errors[1] < 0.5 * errors[0]
    part.structures[0].to(filename=str(tmp_path / "a.cif"))
    done = rhosight("predict", str(tmp_path / "model"), str(tmp_path / "a.cif"))
    assert SEEN in done.stderr
    monkeypatch.setattr(chgnet, "find_chgnet_version", lambda: None)
    with pytest.raises(RhosightError, match=r"pip install 'rhosight\[chgnet\]'"):
        model.predict([part.structures[0]])
