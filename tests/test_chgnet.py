"""CHGNet's embedding: what it says of real crystals, and that it never counts as the baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure

from rhosight import RhosightError, load_model
from rhosight.dataset import Dataset
from rhosight.models.baselines.baselines import (
    ALL_BASELINES,
    PRETRAINED,
    compute_baseline_features,
    find_strongest,
    make_baseline,
)
from rhosight.models.baselines.chgnet import WIDTH, compute_embeddings
from rhosight.models.relaxation import relax_structure
from rhosight.networks.weights import packaged_file
from test_cli import error_of, rhosight

pytest.importorskip("chgnet")


@pytest.fixture(scope="module")
def features(few: Dataset) -> pd.DataFrame:
    return compute_embeddings(list(few.structures))


def test_the_energy_read_from_the_embedding_is_chgnets_own(few, features):
    """The last layers of CHGNet, applied to each atom's features, give an energy per atom; for a
    crystal whose atoms are all alike, the mean over atoms gives the same."""
    import torch
    from chgnet.model import CHGNet

    model = CHGNet.load(use_device="cpu", verbose=False)
    row = few.ids.index("mp-149")  # silicon
    readout = model.mlp(torch.tensor(features.iloc[[row]].to_numpy(), dtype=torch.float32))
    relative = model.composition_model([model.graph_converter(few.structures[row])])
    own = model.predict_structure(few.structures[row], task="e")["e"]
    assert readout.item() + relative.item() == pytest.approx(float(own), abs=1e-3)


def test_the_cell_and_the_order_of_sites_do_not_matter(few, features):
    for row, structure in enumerate(list(few.structures)[:3]):
        turned = Structure.from_sites(list(structure * (2, 1, 1))[::-1])
        found = compute_embeddings([turned])
        np.testing.assert_allclose(found.iloc[0], features.iloc[row], atol=2e-5)


def test_one_row_a_structure_whatever_the_batch(few, features):
    assert list(features) == [f"chgnet_{i}" for i in range(WIDTH)]
    structures = list(few.structures)
    steps = []
    many = compute_embeddings(
        structures * 4, lambda label, done, count: steps.append((done, count))
    )
    pd.testing.assert_frame_equal(many.iloc[6:12].reset_index(drop=True), features)
    assert steps == [(16, 24), (24, 24)]
    assert len(features.round(3).drop_duplicates()) == len(few)
    assert compute_embeddings([]).shape == (0, WIDTH)


def test_nothing_is_printed(few, capfd, recwarn):
    new = few.structures[0].copy()
    new.apply_strain(0.01)
    compute_embeddings([new])
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_a_crystal_that_it_cannot_read_is_named():
    lonely = Structure(Lattice.cubic(30), ["Ar"], [[0, 0, 0]])
    with pytest.raises(RhosightError, match="Ar: CHGNet cannot read it"):
        compute_embeddings([lonely])
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [[0, 0, 0]])
    with pytest.raises(RhosightError, match=r"Cu0.5Au0.5: has partial occupancies"):
        compute_embeddings([alloy])


def test_the_weights_are_the_pinned_ones():
    assert packaged_file("chgnet").name.startswith("chgnet_0.3.0")


def test_as_a_baseline_it_learns_and_is_no_candidate_for_the_strongest(dataset):
    rows = np.random.default_rng(0).permutation(len(dataset))[:120]
    densities = dataset[rows].densities
    features = compute_baseline_features("chgnet+composition", densities)
    assert features.shape[1] == WIDTH + 135
    y = dataset.targets["formation_energy_per_atom"].to_numpy()[rows]
    for name in ("chgnet+composition", "chgnet-kernel"):
        shown = features if "+" in name else features.iloc[:, :WIDTH]
        model = make_baseline(name, 0).fit(shown[:90], y[:90])
        assert model.score(shown[90:], y[90:]) > 0.7
    assert not set(PRETRAINED) & set(ALL_BASELINES)
    scores = pd.DataFrame(
        [("chgnet", "efermi", 0.1), ("composition", "efermi", 0.5)],
        columns=["model", "target", "rmse"],
    )
    assert find_strongest(scores) == {"efermi": "composition"}


def test_crystals_are_relaxed_before_a_prediction(dataset, tmp_path, monkeypatch):
    """Compressed or stretched, HfC gets its volume back, and with it one prediction."""
    carbide = dataset["mp-1002124"].structure
    expected = load_model("no-dft").predict_structure(carbide)
    relaxed = []
    for factor in (0.8, 1.2):
        strained = carbide.copy().scale_lattice(factor * carbide.volume)
        relaxed.append(relax_structure(strained))
        assert relaxed[-1].volume == pytest.approx(carbide.volume, rel=0.03)
        assert relaxed[-1].species == strained.species
    side = (4 * carbide.volume) ** (1 / 3)
    uneven = Structure.from_spacegroup(
        "I4/mmm",
        Lattice.tetragonal(side / 2**0.5, 1.04 * side),
        ["Hf", "C"],
        [[0] * 3, [0, 0, 0.5]],
    )
    kept = relax_structure(uneven, keep_symmetry=True).lattice
    assert kept.angles == pytest.approx((90, 90, 90), abs=1e-6)
    assert kept.a == pytest.approx(kept.b, rel=1e-9)  # the start's symmetry
    assert kept.c / kept.a == pytest.approx(2**0.5, rel=0.01)  # and the minimum's shape
    values = load_model("no-dft").predict_structure(relaxed)
    assert values[0] == pytest.approx(values[1], abs=0.01, rel=0.01)
    # CHGNet's cell is not quite that of DFT: 0.08 eV/atom, as much as the error of the model
    assert values[0] == pytest.approx(expected, rel=0.1, abs=0.1)
    monkeypatch.chdir(tmp_path)
    strained.to(filename="HfC.cif")
    done = rhosight("predict", "no-dft", "HfC.cif", "--relax")
    assert "note: HfC.cif: relaxed with CHGNet, which changed the volume by -18" in done.stderr
    assert "outside the training domain" not in done.stdout
    assert "--relax: is for files of structures" in error_of(
        "predict", "best", "HfC.cif", "--relax"
    )
