"""Models for crystals of any lattice: their blocks, scales, and processes over thousands."""

from __future__ import annotations

import numpy as np
import pytest

from rhosight.dataset import Dataset, load_dataset
from rhosight.errors import RhosightError
from rhosight.inputs.descriptors.frame import structure_descriptors
from rhosight.models.descriptor_model import DescriptorModel
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.process import GaussianProcess
from rhosight.models.gaussian_process.recipe import DescriptorRecipe, descriptor_recipe
from rhosight.models.gaussian_process.scales import TargetScales

BLOCKS = ("lattice", "environments")


@pytest.fixture(scope="module")
def elastic() -> Dataset:
    return load_dataset("mp-elastic")


@pytest.mark.parametrize("name", ["mp-10228", "mp-1808", "mp-149"])
def test_blocks_do_not_depend_on_the_cell(elastic: Dataset, name: str):
    structure = elastic[name].structure
    known = structure_descriptors(structure, BLOCKS)
    assert all(np.isfinite(list(known.values())))
    other = structure.copy()
    other.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    other.translate_sites(range(len(other)), [0.1, 0.2, 0.3])
    found = structure_descriptors(other, BLOCKS)
    assert found == {key: pytest.approx(value, abs=1e-3) for key, value in known.items()}


def test_lattices_and_layers_are_recognised(elastic: Dataset):
    layered = structure_descriptors(elastic["mp-10228"].structure, BLOCKS)  # NbSe2
    silicon = structure_descriptors(elastic["mp-149"].structure, BLOCKS)
    assert layered["environments.dimension1.2"] == 2 and layered["environments.tensor1"] < 0.32
    assert silicon["environments.dimension1.2"] == 3
    assert silicon["environments.tensor1"] == pytest.approx(1 / 3, abs=1e-3)
    assert silicon["lattice.cubic"] == silicon["lattice.centring_F"] == 1
    assert silicon["lattice.inversion"] == 1 and silicon["lattice.order"] == pytest.approx(
        np.log(48)
    )
    assert layered["lattice.cubic"] == 0


def test_moduli_are_learned_as_logarithms_and_metals_as_zero(elastic: Dataset):
    targets = ("bulk_modulus_vrh", "band_gap")
    recipe = DescriptorRecipe(
        targets=targets,
        kernels=(Kernel(together=("magpie", "volume")),),
        scales={"bulk_modulus_vrh": "log10", "band_gap": "nonnegative"},
        n_splits=2,
    )
    whole = np.flatnonzero(elastic.targets.notna().all(axis=1) & (elastic.table["nsites"] < 5))
    some = elastic[whole[::16][:40]]
    model = DescriptorModel(recipe).fit(some)
    table = model.predict_intervals(some[:8])
    for target in targets:
        low, middle, high = (table[f"{target}{end}"] for end in ("_low", "", "_high"))
        assert (low >= 0).all() and (low <= middle).all() and (middle <= high).all()
    ratios = table["bulk_modulus_vrh_high"] / table["bulk_modulus_vrh"]
    below = table["bulk_modulus_vrh"] / table["bulk_modulus_vrh_low"]
    assert ratios.to_numpy() == pytest.approx(below.to_numpy())  # symmetric in the logarithm
    true = model.out_of_fold.query("target == 'bulk_modulus_vrh'").set_index("material_id")
    assert true.loc[some.ids[0], "true"] == some[0].targets["bulk_modulus_vrh"]
    assert model.units["bulk_modulus_vrh"] == "GPa"
    with pytest.raises(RhosightError, match="learned as a logarithm"):
        TargetScales(("a",), {"a": "log10"}).learn(np.array([[1.0], [-2.0]]))


def test_elements_without_free_atom_are_left_out_only_where_one_is_needed(
    elastic: Dataset, caplog: pytest.LogCaptureFixture
):
    formulas = elastic.table["formula"]
    technetium = np.flatnonzero(formulas.str.contains("Tc"))[:3]
    some = elastic[np.union1d(technetium, np.arange(30))]
    for block, count in (("volume", len(some)), ("elements", len(some) - 3)):
        recipe = DescriptorRecipe(
            targets=("efermi",), kernels=(Kernel(together=("magpie", block)),), n_splits=2
        )
        model = DescriptorModel(recipe).fit(some)
        assert len(model.out_of_fold) == count
    assert "3 of 33 materials are left out" in caplog.text and "lacks Tc" in caplog.text


def test_square_roots_are_transformed_back_and_end_at_zero():
    scales = TargetScales(("a", "b"), {"a": "sqrt"})
    labels = np.array([[4.0, -4.0], [np.nan, 9.0]])
    learned = scales.learn(labels)
    np.testing.assert_allclose(learned, [[2.0, -4.0], [np.nan, 9.0]])
    np.testing.assert_allclose(scales.restore(learned), labels)
    np.testing.assert_allclose(scales.restore(np.array([[-1.0, -1.0]])), [[0.0, -1.0]])
    with pytest.raises(RhosightError, match="learned as a square root, but -2 is"):
        scales.learn(np.array([[-2.0, 1.0]]))


def test_a_process_over_more_than_a_thousand_materials():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1250, 2))
    y = np.sin(2 * x[:, 0]) + x[:, 1] ** 2 / 3 + 0.1 * rng.normal(size=len(x))
    blocks = {"a": x[:, :1], "b": x[:, 1:]}
    learn, ask = (
        {k: v[rows] for k, v in blocks.items()} for rows in (slice(1050), slice(1050, None))
    )
    terms = Kernel(alone=("a",), together=("a", "b")).terms
    model = GaussianProcess(terms, robust=None, max_iterations=6).fit(learn, y[:1050])
    mean, std = model.predict(ask, return_std=True)
    error = y[1050:] - mean
    assert np.sqrt(np.mean(error**2)) < 0.15
    assert 0.8 < np.mean(np.abs(error) < 1.645 * std) < 0.98
    arrays = model.arrays()
    assert max(array.size for array in arrays.values()) <= 2 * 1050  # no matrix of all pairs
    loaded = GaussianProcess.from_state(model.to_dict(), arrays)
    again = loaded.predict(ask, return_std=True)
    np.testing.assert_allclose(again[0], mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(again[1], std, rtol=1e-6)
    alone, _ = model.leave_out()
    assert np.sqrt(np.mean((alone - y[:1050]) ** 2)) < 0.15
    np.testing.assert_allclose(loaded.leave_out()[0], alone, rtol=1e-5, atol=1e-6)


def test_recipes_of_old_models_are_what_they_were():
    flat = descriptor_recipe("no-dft").flat()
    assert "scales" not in flat
    together = flat["kernels"][1]["together"]
    assert together[-3:] == ["overlap", "packing", "sites"] and "lattice" not in together
