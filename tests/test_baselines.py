"""Baselines: features that can be worked out by hand, and models that learn what they should."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition, Lattice, Structure
from pymatgen.core.operations import SymmOp
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict

from rhosight.dataset import Dataset
from rhosight.density import ChargeDensity
from rhosight.errors import RhosightError
from rhosight.inputs.descriptors.composition import composition_features, prototype_label
from rhosight.inputs.descriptors.statistics import PERCENTS, density_features, density_statistics
from rhosight.models.baselines.baselines import (
    ALL_BASELINES,
    BASELINES,
    compute_baseline_features,
    compute_features_of_baselines,
    find_strongest,
    make_baseline,
)

CENTRE, QUARTER, HALF = [0, 0, 0], [0.25] * 3, [0.5] * 3


def crystal(group: str, a: float, species: list[str], sites: list) -> Structure:
    return Structure.from_spacegroup(group, Lattice.cubic(a), species, sites)


def substituted(structure: Structure, a: float, **elements: str) -> Structure:
    """The same structure type with other elements and another lattice constant, Å."""
    other = structure.copy()
    other.replace_species(elements)
    other.scale_lattice(a**3)
    return other


ROCKSALT = crystal("Fm-3m", 5.64, ["Na", "Cl"], [CENTRE, HALF])
FLUORITE = crystal("Fm-3m", 5.46, ["Ca", "F"], [CENTRE, QUARTER])
ZINCBLENDE = crystal("F-43m", 5.65, ["Ga", "As"], [CENTRE, QUARTER])
HALF_HEUSLER = crystal("F-43m", 5.9, ["Sn", "Ti", "Ni"], [CENTRE, HALF, QUARTER])
PEROVSKITE = crystal("Pm-3m", 3.9, ["Sr", "Ti", "O"], [CENTRE, HALF, [0.5, 0.5, 0]])
SPINEL = crystal("Fd-3m", 8.08, ["Mg", "Al", "O"], [[0.125] * 3, HALF, [0.2624] * 3])
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm", Lattice.tetragonal(4.59, 2.96), ["Ti", "O"], [CENTRE, [0.305, 0.305, 0]]
)
CRYSTALS = {
    "rocksalt": ROCKSALT,
    "fluorite": FLUORITE,
    "zincblende": ZINCBLENDE,
    "half-Heusler": HALF_HEUSLER,
    "perovskite": PEROVSKITE,
    "spinel": SPINEL,
    "rutile": RUTILE,
}


def wave(shape: tuple[int, int, int], mean: float, amplitude: float) -> np.ndarray:
    """mean + amplitude · cos(2πx): mean and moments of any such grid are known exactly."""
    x = np.arange(shape[0]) / shape[0]
    return np.broadcast_to((mean + amplitude * np.cos(2 * np.pi * x))[:, None, None], shape)


def material(
    structure: Structure = ROCKSALT, mean: float = 0.3, amplitude: float = 0.1, name: str = "NaCl"
) -> ChargeDensity:
    """`total` is a wave; the promolecule is constant at its mean."""
    total, difference = wave((8, 8, 8), mean, amplitude), wave((8, 8, 8), 0.0, amplitude)
    return ChargeDensity(structure, {"total": total, "difference": difference}, name=name)


# composition


def test_composition_features_are_matminers_and_three_more():
    from matminer.featurizers.composition import ElementProperty

    features = composition_features(list(CRYSTALS.values()))
    magpie = ElementProperty.from_preset("magpie", impute_nan=True)
    expected = [magpie.featurize(s.composition) for s in CRYSTALS.values()]
    assert list(features.columns[:-3]) == magpie.feature_labels()
    np.testing.assert_allclose(features.iloc[:, :-3].to_numpy(float), expected, rtol=1e-12)
    assert list(features.columns[-3:]) == ["volume_per_atom", "nsites", "prototype"]
    assert list(features.index) == list(range(len(CRYSTALS)))
    assert not features.isna().any(axis=None)


def test_composition_features_by_hand():
    row = composition_features([ROCKSALT]).iloc[0]
    assert row["MagpieData mean Number"] == 14  # Na 11, Cl 17
    assert row["MagpieData range Number"] == 6
    assert row["MagpieData mean Electronegativity"] == pytest.approx((0.93 + 3.16) / 2)
    assert row["volume_per_atom"] == pytest.approx(5.64**3 / 8)
    assert row["nsites"] == 2
    row = composition_features([FLUORITE]).iloc[0]
    assert row["MagpieData mean Number"] == pytest.approx((20 + 2 * 9) / 3)


@pytest.mark.parametrize("name", CRYSTALS)
def test_composition_features_do_not_depend_on_the_cell(name):
    structure = CRYSTALS[name]
    rng = np.random.default_rng(0)
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.13, 0.57, 0.31])
    moved.apply_operation(SymmOp.from_axis_angle_and_translation([1, 2, 3], 40))
    skewed = structure.get_primitive_structure()
    skewed.make_supercell([[1, 1, 0], [0, 1, 1], [0, 0, 1]])
    same = [
        structure,
        structure.get_primitive_structure(),
        Structure.from_sites([structure[i] for i in rng.permutation(len(structure))]),
        structure * (2, 1, 1),
        moved,
        skewed,
        structure.copy().add_oxidation_state_by_guess() or structure,
    ]
    features = composition_features(same)
    exact = features.drop(columns="volume_per_atom")
    pd.testing.assert_frame_equal(exact, pd.concat([exact.head(1)] * len(same), ignore_index=True))
    np.testing.assert_allclose(features.volume_per_atom, features.volume_per_atom[0], rtol=1e-9)
    assert features.nsites[0] == len(structure.get_primitive_structure())


def test_prototype_does_not_depend_on_the_origin():
    """Zincblende on any two neighbouring Wyckoff positions of F-43m is zincblende."""
    labels = set()
    for shift in ([0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.1, 0.2, 0.3]):
        structure = ZINCBLENDE.copy()
        structure.translate_sites(range(len(structure)), shift)
        labels |= {
            prototype_label(structure),
            prototype_label(Structure.from_sites(structure[::-1])),
        }
    assert labels == {"216 A(-43m) B(-43m)"}


def test_prototype_says_structure_type_not_elements():
    assert prototype_label(ROCKSALT) == "225 A(m-3m) B(m-3m)"
    assert prototype_label(FLUORITE) == "225 A(m-3m) B2(-43m)"
    antifluorite = substituted(FLUORITE, 4.62, Ca="O", F="Li")
    assert prototype_label(antifluorite) == prototype_label(FLUORITE)
    assert prototype_label(PEROVSKITE) == "221 A(m-3m) B(m-3m) C3(4/mm.m)"
    assert len({prototype_label(s) for s in CRYSTALS.values()}) == len(CRYSTALS)


def test_prototype_of_an_almost_cubic_lattice_is_cubic():
    """As in the Materials Project: here are four indium atoms with c/a = 1.05."""
    lattice = Lattice.tetragonal(4.60, 4.85)
    indium = Structure(lattice, ["In"] * 4, [CENTRE, [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    assert prototype_label(indium) == "225 A(m-3m)"


def test_structures_without_a_prototype_say_so():
    alloy = Structure(Lattice.cubic(3.6), [{"Cu": 0.5, "Au": 0.5}], [CENTRE])
    with pytest.raises(RhosightError, match=r"Cu0.5Au0.5: partial occupancies; give an ordered"):
        composition_features([ROCKSALT, alloy])
    twice = Structure(Lattice.cubic(3.6), ["Cu", "Cu"], [CENTRE, [0.001, 0, 0]])
    with pytest.raises(RhosightError, match=r"Cu: spglib finds no symmetry within 0.1 Å"):
        composition_features([twice])


# densities


def test_statistics_of_a_cosine():
    stats = density_statistics(wave((64, 2, 3), 2.0, 0.5), "total")
    assert stats["total_mean"] == pytest.approx(2.0)
    assert stats["total_std"] == pytest.approx(0.5 / np.sqrt(2))
    assert stats["total_skew"] == pytest.approx(0.0, abs=1e-12)
    assert stats["total_kurtosis"] == pytest.approx(-1.5)  # of the arcsine distribution
    assert stats["total_mean_abs"] == pytest.approx(2.0)
    assert (stats["total_q0"], stats["total_q100"]) == (pytest.approx(1.5), pytest.approx(2.5))
    for percent in (10, 25, 50, 75, 90):  # quantile function of the arcsine distribution
        exact = 2 - 0.5 * np.cos(np.pi * percent / 100)
        assert stats[f"total_q{percent}"] == pytest.approx(exact, abs=0.03)
    assert list(stats)[: len(PERCENTS)] == [f"total_q{p}" for p in PERCENTS]


def test_statistics_of_counted_points():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0)).reshape(4, 5, 5)
    stats = density_statistics(values, "x")
    assert [stats[f"x_q{p}"] for p in PERCENTS] == [1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100]
    assert stats["x_mean"] == pytest.approx(50.5)
    assert stats["x_std"] == pytest.approx(np.sqrt((100**2 - 1) / 12))
    assert stats["x_kurtosis"] == pytest.approx(-6 / 5 * (100**2 + 1) / (100**2 - 1))


def test_statistics_of_a_spike_and_of_signs():
    share = 1 / 64
    spike = np.zeros((4, 4, 4))
    spike[1, 2, 3] = 7.0
    stats = density_statistics(spike, "x")  # Bernoulli: all moments known
    assert stats["x_skew"] == pytest.approx((1 - 2 * share) / np.sqrt(share * (1 - share)))
    variance = share * (1 - share)
    assert stats["x_kurtosis"] == pytest.approx((1 - 6 * variance) / variance)
    stats = density_statistics(np.array([-3.0, 3.0]), "x")
    assert (stats["x_mean"], stats["x_mean_abs"]) == (0.0, 3.0)


def test_constant_density_has_no_shape():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats = density_statistics(np.full((5, 5, 5), 0.1), "x")
    assert (stats["x_skew"], stats["x_kurtosis"]) == (0.0, 0.0)
    assert all(stats[f"x_q{p}"] == 0.1 for p in PERCENTS)
    assert all(value == 0 for value in density_statistics(np.zeros((2, 2, 2)), "x").values())


@pytest.mark.parametrize("shape", [(3, 5, 7), (6, 6, 6), (20, 10, 5)])
def test_statistics_of_a_supercell_are_the_same(shape):
    grid = np.random.default_rng(1).gamma(0.5, size=shape)
    once = density_statistics(grid, "total")
    again = density_statistics(np.tile(grid, (2, 3, 1))[::-1, 2:].copy(), "total")
    assert again != once  # not a supercell: two planes are missing
    again = density_statistics(np.roll(np.tile(grid, (2, 3, 1)), 4, axis=1), "total")
    assert again == pytest.approx(once, rel=1e-9)
    assert all(again[f"total_q{p}"] == once[f"total_q{p}"] for p in PERCENTS)


def test_statistics_refuse_what_is_not_a_density():
    with pytest.raises(RhosightError, match=r"`total`: .*NaN"):
        density_statistics(np.array([1.0, np.nan]), "total")
    with pytest.raises(RhosightError, match=r"`total`: .*empty"):
        density_statistics(np.empty((0, 2, 2)), "total")


def test_density_features_hold_each_kind_and_the_volume():
    densities = [material(mean=0.3), material(FLUORITE, mean=0.7, name="CaF2")]
    features = density_features(densities, ("promolecule", "difference"))
    statistics = len(density_statistics(np.zeros(1), ""))
    assert features.shape == (2, 1 + 2 * statistics)
    assert features.columns[0] == "volume_per_atom"
    np.testing.assert_allclose(features.volume_per_atom, [5.64**3 / 8, 5.46**3 / 12])
    np.testing.assert_allclose(features.promolecule_mean, [0.3, 0.7])
    np.testing.assert_allclose(features.promolecule_q50, [0.3, 0.7])
    np.testing.assert_allclose(features.difference_q100, [0.1, 0.1])
    pd.testing.assert_frame_equal(
        density_features(densities, "total"), density_features(densities, ("total",))
    )


def test_density_features_name_the_material_that_lacks_a_kind():
    poor = ChargeDensity(ROCKSALT, {"total": wave((8, 8, 8), 0.3, 0.1)}, name="mp-22862")
    with pytest.raises(RhosightError, match=r"mp-22862: has total but not `difference`"):
        density_features([material(), poor], ("total", "difference"))
    with pytest.raises(RhosightError, match=r"mp-22862: .*not `promolecule`"):
        compute_baseline_features("promolecule", [material(), poor])


# the baselines


def test_every_baseline_has_features_and_a_model():
    assert BASELINES == ("mean", "composition", "promolecule", "density")
    densities = [material(), material(FLUORITE, name="CaF2"), material(SPINEL, 0.5, name="spinel")]
    assert set(BASELINES) < set(ALL_BASELINES)
    frames = compute_features_of_baselines(ALL_BASELINES, densities)
    assert tuple(frames) == ALL_BASELINES
    for name, features in frames.items():
        assert list(features.index) == [0, 1, 2]
        model = make_baseline(name, seed=0).fit(features, np.array([1.0, 2.0, 6.0]))
        assert model.predict(features.iloc[[2, 0]]).shape == (2,)
    columns = {name: list(features.columns) for name, features in frames.items()}
    assert columns["mean"] == []
    assert "prototype" in columns["composition"]
    assert {c.split("_")[0] for c in columns["promolecule"]} == {"volume", "promolecule"}
    assert {c.split("_")[0] for c in columns["density"]} == {"volume", "total", "difference"}
    for part in ("promolecule", "density"):
        others = [c for c in columns["composition"] if c != "volume_per_atom"]
        both = columns[part] + others  # the volume once
        assert columns[f"{part}+composition"] == both
        pd.testing.assert_frame_equal(
            frames[f"{part}+composition"],
            compute_baseline_features(f"{part}+composition", densities),
        )
        for form in ("kernel", "average"):
            assert frames[f"{part}-{form}"] is frames[part]


def test_an_average_is_the_mean_of_trees_and_kernel_machine():
    means = np.random.default_rng(2).uniform(0.2, 1.0, 24)
    features = compute_baseline_features("density", [material(mean=mean) for mean in means])
    y, train, test = np.sin(5 * means), slice(0, 18), slice(18, None)
    predicted = {
        name: make_baseline(name, seed=1).fit(features[train], y[train]).predict(features[test])
        for name in ("density", "density-kernel", "density-average")
    }
    half = (predicted["density"] + predicted["density-kernel"]) / 2
    np.testing.assert_allclose(predicted["density-average"], half, rtol=1e-12)
    assert not np.allclose(predicted["density"], predicted["density-kernel"])


def test_the_kernel_machine_follows_a_smooth_law_and_knows_where_it_ends():
    """The volume alone says the label, exponentially; beyond the training part it is a guess."""
    sides = np.linspace(4.5, 6.5, 25)
    densities = [material(substituted(ROCKSALT, a, Na="Na")) for a in (*sides, 9.0)]
    features = compute_baseline_features("promolecule", densities)
    y = np.exp(-features.volume_per_atom.to_numpy() / 10)
    held = [5, 12, 19, 25]
    train = np.setdiff1d(np.arange(26), held)
    model = make_baseline("promolecule-kernel", seed=0).fit(features.iloc[train], y[train])
    predicted, std = model.predict(features.iloc[held], return_std=True)
    np.testing.assert_allclose(predicted[:3], y[held[:3]], rtol=0.02)
    assert std[3] > 5 * std[:3].max()


def test_the_kernel_machine_learns_its_scale_from_the_training_part():
    """Other units of a feature and of the label change nothing; nor does an extreme newcomer."""
    means = np.random.default_rng(3).uniform(0.2, 1.0, 30)
    features = compute_baseline_features("promolecule", [material(mean=mean) for mean in means])
    y, train, test = means**2, slice(0, 20), slice(20, None)

    def predict(frame: pd.DataFrame, labels: np.ndarray) -> np.ndarray:
        model = make_baseline("promolecule-kernel", 0).fit(frame[train], labels[train])
        return model.predict(frame[test])

    first = predict(features, y)
    np.testing.assert_allclose(predict(1000 * features, y), first, rtol=1e-3)
    np.testing.assert_allclose(predict(features, 50 * y + 7), 50 * first + 7, rtol=1e-3)
    extreme = features.copy()
    extreme.iloc[-1] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        changed = predict(extreme, y)
    np.testing.assert_allclose(changed[:-1], first[:-1])
    assert np.isfinite(changed[-1])


def test_strongest_is_the_lowest_mean_error_among_baselines():
    scores = pd.DataFrame(
        [
            ("density", "efermi", 1.0),
            ("density", "efermi", 3.0),
            ("composition-kernel", "efermi", 1.8),
            ("composition-kernel", "efermi", 1.9),
            ("density", "gap", 0.1),
            ("composition-kernel", "gap", 0.2),
            ("best", "gap", 0.01),
        ],
        columns=["model", "target", "rmse"],
    )
    assert find_strongest(scores) == {"efermi": "composition-kernel", "gap": "density"}
    assert find_strongest(scores, ["density", "mean"]) == {"efermi": "density", "gap": "density"}
    with pytest.raises(RhosightError, match="the scores contain no baseline"):
        find_strongest(scores[scores.model == "best"])


def test_kernel_machine_on_real_materials(dataset: Dataset):
    """Composition explains most of the formation energy, to a kernel machine as to trees."""
    rows = np.random.default_rng(0).permutation(len(dataset))[:120]
    names = ("composition-kernel", "composition")
    features = compute_features_of_baselines(names, dataset[rows].densities)
    y = dataset.targets["formation_energy_per_atom"].to_numpy()[rows]
    train, test = slice(0, 90), slice(90, None)
    for name in names:
        model = make_baseline(name, seed=0).fit(features[name][train], y[train])
        assert model.score(features[name][test], y[test]) > 0.7


def test_density_baseline_uses_the_kinds_that_all_have():
    total, difference = wave((8, 8, 8), 0.3, 0.1), wave((8, 8, 8), 0, 0.1)
    only_total = ChargeDensity(ROCKSALT, {"total": total}, name="a")
    only_difference = ChargeDensity(ROCKSALT, {"difference": difference}, name="b")
    features = compute_baseline_features("density", [material(), only_total])
    assert not [name for name in features if name.startswith("difference")]
    features = compute_baseline_features("density", [only_difference, material()])
    assert not [name for name in features if name.startswith("total")]
    with pytest.raises(RhosightError, match=r"a: has total but not `difference`"):
        compute_baseline_features("density", [only_total, only_difference])


def test_mean_predicts_the_mean_of_the_training_part():
    features = compute_baseline_features("mean", [material()] * 4)
    y = np.array([1.0, 2.0, 3.0, 10.0])
    model = make_baseline("mean", seed=0).fit(features.iloc[:3], y[:3])
    np.testing.assert_allclose(model.predict(features.iloc[3:]), [2.0])
    assert cross_val_predict(make_baseline("mean", 0), features, y, cv=2).shape == (4,)


def test_density_baseline_learns_what_the_density_says():
    """The label is the promolecule's mean: from NaCl's formula alone nobody could tell."""
    means = np.random.default_rng(0).uniform(0.2, 1.0, 40)
    densities = [material(mean=mean) for mean in means]
    y = 100 * means
    train, test = slice(0, 30), slice(30, None)
    errors = {}
    for name in BASELINES:
        features = compute_baseline_features(name, densities)
        model = make_baseline(name, seed=0).fit(features[train], y[train])
        errors[name] = np.abs(model.predict(features[test]) - y[test]).mean()
    assert max(errors["promolecule"], errors["density"]) < 0.25 * errors["mean"]
    assert errors["composition"] == pytest.approx(errors["mean"])


def test_composition_baseline_meets_an_unseen_prototype():
    halides = [
        substituted(ROCKSALT, 4 + 0.2 * i, Na=metal, Cl=halogen)
        for i, (metal, halogen) in enumerate(
            (metal, halogen) for metal in ("Li", "Na", "K") for halogen in ("F", "Cl", "Br")
        )
    ]
    features = composition_features([*halides, FLUORITE])
    assert features.prototype.nunique() == 2
    y = np.linspace(-4, -2, len(halides))
    model = make_baseline("composition", seed=0)
    model.fit(features.iloc[:-1], y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = model.predict(features)
    np.testing.assert_allclose(predicted[:-1], y)  # trees grown to the end know their training part
    assert y.min() <= predicted[-1] <= y.max()
    names = model[:-1].get_feature_names_out()
    assert [n for n in names if n.startswith("prototype")] == ["prototype_225 A(m-3m) B(m-3m)"]


def test_seed_fixes_the_trees():
    means = np.random.default_rng(1).uniform(0.2, 1.0, 30)
    features = compute_baseline_features("density", [material(mean=mean) for mean in means])
    y = means**2
    train, test = slice(0, 20), slice(20, None)

    def predict(seed: int) -> np.ndarray:
        model = clone(make_baseline("density", seed))
        return model.fit(features[train], y[train]).predict(features[test])

    np.testing.assert_array_equal(predict(3), predict(3))
    assert not np.array_equal(predict(3), predict(4))


def test_unknown_baseline_names_the_known():
    for call in (
        lambda: compute_baseline_features("magpie", []),
        lambda: make_baseline("magpie", 0),
    ):
        with pytest.raises(RhosightError, match=r"'magpie'; known are mean, composition"):
            call()


def test_no_warning_reaches_the_user(recwarn):
    exotic = material(substituted(ROCKSALT, 5.0, Na="Pu", Cl="Kr"))
    for name, features in compute_features_of_baselines(
        ALL_BASELINES, [exotic, material()]
    ).items():
        if not name.endswith("-average"):  # fits the two others
            make_baseline(name, 0).fit(features, np.array([0.0, 1.0])).predict(features)
    assert not recwarn.list


def test_features_do_not_change_what_they_are_given():
    structure = ROCKSALT.copy()
    before = structure.as_dict()
    composition_features([structure])
    assert structure.as_dict() == before
    assert structure.composition == Composition("Na4Cl4")
