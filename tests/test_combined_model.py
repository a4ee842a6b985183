"""Two models as one: `best` and `no-dft` beside the general model of all lattices."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

import rhosight
from rhosight import (
    ChargeDensity,
    DescriptorModel,
    RhosightError,
    load_dataset,
    load_model,
    split,
)
from rhosight.dataset import Dataset
from rhosight.dataset.schema import ALL_TARGETS
from rhosight.density.bare_crystal import BareCrystal
from rhosight.density.free_atoms import promolecule
from rhosight.models import combined
from rhosight.models.combined import CombinedModel
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

SMALL = DescriptorRecipe(kernels=(Kernel(together=("magpie", "prototype", "overlap")),), n_splits=3)
"""Few descriptors."""


def test_the_structure_alone_speaks_where_the_density_says_nothing():
    """Magnesium is hexagonal; all densities that `best` learned from are of cubic crystals."""
    metal = Structure(
        Lattice.hexagonal(3.19, 5.18), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    )
    rock = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.26), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    crystals = {"Mg": metal, "MgO": rock}
    best, alone, special = load_model("best"), load_model("structure"), load_model("best").special
    densities = {
        name: ChargeDensity(one, {"total": promolecule(one, (24, 24, 24))}, name)
        for name, one in crystals.items()
    }
    found, general = best.predict_intervals(densities), alone.predict_intervals(crystals)
    assert found["unused_density"]["Mg"].startswith("structure type 194 ")
    assert found["unused_density"]["MgO"] is None and found["outside"].isna().all()
    pd.testing.assert_frame_equal(
        found.loc[["Mg"], general.columns], general.loc[["Mg"]], check_exact=False
    )
    for target in best.kept:  # of rock salt both have a share
        between = sorted((general[target]["MgO"], special.predict(densities)[target]["MgO"]))
        assert between[0] < found[target]["MgO"] < between[1]
    by_structure = load_model("no-dft").predict_intervals(crystals)
    assert "unused_density" not in by_structure and by_structure["outside"].isna().all()
    assert list(best.targets) == list(ALL_TARGETS)
    explained = rhosight.explain(best, densities, details=False)
    for one in explained:
        for target, value in one.prediction.items():
            assert value == pytest.approx(found[target][one.name], abs=1e-6)
    assert "without the density: structure type 194" in explained[0].notes[-1]
    assert "density" not in explained[0].modalities.index
    assert "weight of the model that learned from 344 materials of mp-fcc" in explained[1].notes[-1]


def test_a_model_beside_a_general_one(dataset, tmp_path, monkeypatch):
    some, elastic = dataset[::7], load_dataset("mp-elastic")
    parts = [some[rows] for rows in split(some, 0.25)]
    kernel = Kernel(together=("magpie", "volume"))
    recipe = DescriptorRecipe(targets=ALL_TARGETS, kernels=(kernel,), n_splits=2)
    polymorphs = elastic[elastic.table["formula"].isin(parts[0].table["formula"][:20]).to_numpy()]
    general = DescriptorModel(recipe).fit(polymorphs)
    monkeypatch.setattr(combined, "load_general", {"structure": general}.__getitem__)
    both = CombinedModel(SMALL).fit(parts[0])
    both.score(parts[1])
    both.save_pretrained(tmp_path / "model")
    again = load_model(tmp_path / "model")
    before, after = (m.predict_intervals(parts[1]) for m in (both, again))
    pd.testing.assert_frame_equal(before, after, check_exact=False, rtol=1e-9)
    assert both.kept  # the general model knows 20 formulas
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["general"]["sha256"] = "0" * 64
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RhosightError, match="beside another version of the model structure"):
        load_model(tmp_path / "model")
    with pytest.raises(RhosightError, match="structure does not predict it"):
        CombinedModel(DescriptorRecipe(targets=("hardness",)))
    with pytest.raises(RhosightError, match="in the training set"):
        both.score(parts[0])
    assert both.kept == again.kept and set(parts[0].ids) <= set(both.about["training_ids"])
    with pytest.raises(RhosightError, match="only 0 of"):  # it knows them all, by other names
        CombinedModel(SMALL).fit(rename(polymorphs))
    with pytest.raises(RhosightError, match="has learned the formulas of"):
        both.score(rename(polymorphs))


@pytest.mark.slow
def test_a_model_that_reads_chgnet_stands_beside_one_that_does(dataset, tmp_path):
    pytest.importorskip("chgnet")
    some = dataset[::8]
    kernel = Kernel(together=("magpie", "overlap", "potential-modulus"))
    recipe = DescriptorRecipe(targets=("bulk_modulus_vrh",), kernels=(kernel,), n_splits=2)
    model = CombinedModel(recipe).fit(some)
    assert model.general_name == "structure+potential"
    model.save_pretrained(tmp_path / "model")
    assert "general one, `structure+potential`," in (tmp_path / "model" / "README.md").read_text()
    again = load_model(tmp_path / "model")
    assert again.general_name == model.general_name and again.caveat == model.caveat != ""
    few = some[:4]
    found, general = again.predict_intervals(few), load_model("structure+potential").predict(few)
    pd.testing.assert_frame_equal(
        found["formation_energy_per_atom"].to_frame(),
        general["formation_energy_per_atom"].to_frame(),
    )
    assert model.kept  # of the modulus both have a share
    assert (found["bulk_modulus_vrh"] != general["bulk_modulus_vrh"]).all()


def rename(dataset: Dataset) -> Dataset:
    """Return the same crystals and labels with ids of their own."""
    names = [f"own-{number}" for number in range(len(dataset))]
    crystals = map(BareCrystal, dataset.structures, names)
    columns = ["formula", "spacegroup_number", *dataset.targets.columns]
    return Dataset.from_densities(crystals, dataset.table[columns].set_axis(names))


def test_weights_are_inverse_variances():
    first, second = ((np.array([[mean]]), np.array([[half]])) for mean, half in ((0, 1), (10, 2)))
    (mean,), (half,) = combined.mix(first, second)
    assert mean == pytest.approx(0.2 * 10) and half == pytest.approx(0.8 * 1 + 0.2 * 2)
