"""Explanations: they add up, do not depend on the cell, and name what does matter."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import io
import json
import re
from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from pymatgen.core import Lattice, Structure
from rich.console import Console
from threadpoolctl import threadpool_info
from typer.testing import CliRunner

import rhosight
from rhosight import (
    ChargeDensity,
    DescriptorModel,
    PropertyModel,
    Recipe,
    RhosightError,
    load_recipe,
)
from rhosight.cli import app
from rhosight.cli import explain as explaining
from rhosight.dataset import Dataset
from rhosight.density.plane import lattice_plane
from rhosight.explain import Explanation, Explanations
from rhosight.explain.chemistry import chemical_class
from rhosight.explain.deletion import deletion_areas, deletion_curves
from rhosight.explain.explain import explain
from rhosight.explain.explainers import make_explainer
from rhosight.explain.figures import draw_explanation, draw_maps, draw_summary
from rhosight.explain.files import save
from rhosight.explain.gradients import integrated_gradients
from rhosight.explain.networks import GRIDS
from rhosight.explain.processes import GROUPS, describe_missing_map, group_blocks
from rhosight.explain.shapley import shapley_values
from rhosight.explain.words import assign_tokens, count_words, find_words
from rhosight.inputs.descriptors.blocks import to_blocks
from rhosight.inputs.image import ImageSettings
from rhosight.inputs.text.rewording import reword
from rhosight.models.blocks import BlockReader
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

SALT, SILICON = "mp-22862", "mp-149"

SMALL = DescriptorRecipe(
    kernels=(
        Kernel(alone=("fractions",), together=("magpie", "prototype", "total", "overlap")),
        Kernel(together=("volume", "difference", "bonds")),
    ),
    n_splits=3,
)

TINY = Recipe(
    image={"settings": ImageSettings(size=48)},
    targets=("efermi", "bulk_modulus_vrh"),
    head={"epochs": 15},
    fine_tuning={"epochs": 2},
    stacked={"head_epochs": 10, "fine_tuning_epochs": 1},
    text={"element_steps": 0},
    augmentation={"views": 2},
)


@pytest.fixture(scope="module")
def parts(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Materials to learn from, and others; neither is of the test part of any model here."""
    return dataset[::8], dataset[3::40]


@pytest.fixture(scope="module")
def best(parts) -> DescriptorModel:
    return DescriptorModel(SMALL).fit(parts[0])


@pytest.fixture(scope="module")
def recipe(checkpoints: dict[str, str]) -> Recipe:
    """Return a recipe of the bundled image encoder and a tiny text encoder."""
    return TINY.replace(text={"backbone": checkpoints["text"]})


@pytest.fixture(scope="module")
def network(recipe, parts) -> PropertyModel:
    return PropertyModel(recipe).fit(parts[0])


@pytest.fixture(scope="module", autouse=True)
def grids() -> Iterator[None]:
    """Two grids of squares: maps add up with any number, and look smoother with more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rhosight.explain.networks.GRIDS", 2)
        yield


@pytest.fixture(scope="module")
def salt(network, dataset, grids) -> Explanation:
    return explain(network, dataset[SALT].density)


def in_another_cell(density: ChargeDensity) -> ChargeDensity:
    """Twice along the first vector, another origin, turned, the atoms in another order."""
    steps = (2, 1, 3)
    grids = {
        kind: np.tile(np.roll(grid, steps, axis=(0, 1, 2)), (2, 1, 1))
        for kind, grid in density.grids.items()
    }
    structure = density.structure.copy()
    shift = np.array(steps) / density.shape
    structure.translate_sites(range(len(structure)), shift, frac_coords=True)
    structure.make_supercell([2, 1, 1])
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
    lattice = Lattice(structure.lattice.matrix @ turn.T)
    order = np.arange(len(structure))[::-1]
    species = [structure[int(i)].specie for i in order]
    turned = Structure(lattice, species, structure.frac_coords[order])
    return ChargeDensity(turned, grids, name=density.name)


def sums_to_prediction(why: Explanation, predicted: pd.Series, rtol: float) -> None:
    for target in why.targets:
        total = why.base[target] + why.modalities[target].sum()
        assert total == pytest.approx(why.prediction[target], rel=1e-9)
        assert total == pytest.approx(predicted[target], rel=rtol, abs=rtol)


def test_the_package_is_the_function():
    assert rhosight.explain.save is save and rhosight.explain.Explanation is Explanation
    own, function = (inspect.signature(call) for call in (rhosight.explain, explain))
    assert list(own.parameters) == list(function.parameters)
    defaults = [[p.default for p in call.parameters.values()] for call in (own, function)]
    assert defaults[0] == defaults[1]


# the parts


def test_shapley_values_of_a_known_game():
    """Two left gloves and a right one: a pair is worth 1 (Shapley: 1/6, 1/6, 4/6)."""

    def value(some):
        return np.array([min(len({"a", "b"} & set(some)), "right" in some), 5.0])

    base, shares = shapley_values(value, ["a", "b", "right"])
    assert base.tolist() == [0, 5]
    assert shares[:, 0] == pytest.approx([1 / 6, 1 / 6, 4 / 6])
    assert shares[:, 1] == pytest.approx([0, 0, 0])
    with pytest.raises(ValueError, match="too many"):
        shapley_values(value, list("abcdefghi"))


def test_integrated_gradients_of_a_polynomial():
    """Of x² and x³, whose integrals are known."""
    x, start = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    found, begin, gap = integrated_gradients(
        lambda v: torch.stack([(v**2).sum(1), (v**3).sum(1)], 1), x, start, 2
    )
    assert found[0] == pytest.approx([3.0, 0.75], abs=1e-5)
    assert found[1] == pytest.approx([7.0, -1.125], abs=1e-5)
    assert begin == pytest.approx([1.25, 1.125]) and np.abs(gap).max() < 1e-5


def test_words_of_a_description():
    bonds = "Li-Fe 2.49 Å (8 per Li, 4 per Fe); Fe-Si 2.40-2.51 Å (4 per Fe)"
    text = f"LiFe2Si has bond lengths {bonds}."
    counts = count_words(text)
    assert list(counts) == [
        *("Li", "Fe2", "Si", "has", "bond", "lengths", "Fe", "2.49 Å"),
        *("8 per Li", "4 per Fe", "2.40-2.51 Å"),
    ]
    assert counts["Fe"] == 2 and counts["4 per Fe"] == 2
    assert all(text[begin:end] == word for word, begin, end in find_words(text))
    robo = "InBi is Sphalerite structured (cubic F-43m) to form corner-sharing BiIn4."
    assert {"In", "Bi", "In4", "F-43m", "corner-sharing", "Sphalerite"} <= set(count_words(robo))


@pytest.mark.parametrize("extent", ["formula", "keywords", "all"])
def test_other_wordings_have_the_same_words(dataset, extent):
    for text in dataset.texts[extent].dropna().iloc[::20]:
        for number in (1, 2, 3):
            assert count_words(reword(text, number)) == count_words(text)


def test_tokens_belong_to_words():
    shares = assign_tokens("HfC is.", [(0, 0), (0, 1), (1, 3), (4, 6), (6, 7)], ["Hf", "C", "is"])
    assert shares.tolist() == [[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("NaCl", "halide"),
        ("MgO", "oxide"),
        ("ZnS", "chalcogenide"),
        ("InBi", "pnictide"),
        ("HfC", "carbide or silicide"),
        ("Al", "element"),
        ("AlCrFe2", "intermetallic"),
        ("SrF2", "halide"),
        ("LiPdAs", "pnictide"),
        ("PdH", "hydride"),
        ("BaO2H2", "oxide"),
    ],
)
def test_classes_of_compounds(formula, name):
    assert chemical_class(formula) == name


def test_each_block_of_the_recipes_is_in_one_group():
    for name in ("best", "no-dft"):
        blocks = load_recipe(name).blocks
        grouped = [block for own in group_blocks(blocks).values() for block in own]
        assert sorted(grouped) == sorted(blocks)
        assert len(group_blocks(blocks)) <= 6
    known = ["composition", "structure", "free atoms", "density"]
    assert list(group_blocks(load_recipe("best").blocks)) == known
    assert set(known) < set(GROUPS)


# descriptor models


def test_a_model_without_density_says_that_it_reads_none():
    for name, said in (("no-dft", "reads no density"), ("best", "descriptors of the density")):
        blocks = load_recipe(name).blocks
        assert said in describe_missing_map(
            blocks, details=True
        ) and "no map" in describe_missing_map(blocks, details=True)
        assert "see its descriptors" not in describe_missing_map(blocks, details=False)


def test_tables_of_descriptors_are_worked_on_by_one_thread(best, dataset, monkeypatch):
    """More of them wait for one another: ten times the processor time on a busy machine."""
    explains, before = make_explainer(best), torch.get_num_threads()
    read, found = best.read_one, []

    def spy(part):
        found.append((torch.get_num_threads(), *(p["num_threads"] for p in threadpool_info())))
        return read(part)

    monkeypatch.setattr(best, "read_one", spy)
    torch.set_num_threads(2)
    try:
        explains([dataset[SALT].density], details=False)
        assert set(found[0]) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [4, 6])
def test_the_summary_fits_a_terminal(monkeypatch, capsys, count):
    names = list(GROUPS)[:count]
    shares = pd.DataFrame(np.ones((count, 1)), pd.Index(names, name="modality"), ["efermi"])
    one = Explanation(
        "a", "SiC", ("efermi",), {"efermi": "eV"}, {"efermi": 1.0}, {"efermi": 1.0}, "", shares,
        dict.fromkeys(names, ""),
    )  # fmt: skip
    monkeypatch.setattr(explaining, "console", Console(width=80))
    explaining._print_summary(Explanations([one] * 405))
    out = capsys.readouterr().out
    assert "…" not in out and "carbide or silicide" in out
    assert all(word in out for name in names for word in name.split())


def test_modalities_of_a_descriptor_model(best, parts, dataset):
    """Against predictions of mixed materials, made the long way."""
    density = dataset[SALT].density
    why = explain(best, density)
    sums_to_prediction(why, best.predict([density]).iloc[0], 1e-6)
    assert why.modalities.index.to_list() == [
        *("composition", "structure", "free atoms", "density", "bonding"),
    ]
    assert "mean over" in why.background and str(len(parts[0])) in why.background
    means = best.predict(parts[0]).mean()
    for target in why.targets:
        assert why.base[target] == pytest.approx(means[target], rel=1e-6)

    others = parts[0][:3]
    few = explain(best, density, details=False, background=others)
    table = BlockReader(SMALL).table([density, *others.densities])
    blocks = to_blocks(table, best._fitted().prototypes)
    groups = group_blocks(SMALL.blocks)
    value = {}
    for some in product((False, True), repeat=len(groups)):
        present = {b for own, here in zip(groups.values(), some, strict=True) if here for b in own}
        mixed = {
            name: pd.concat([block.iloc[[0]]] * 3) if name in present else block.iloc[1:]
            for name, block in blocks.items()
        }
        value[some] = best.process.predict(mixed).mean(axis=0)
    orders = list(permutations(range(len(groups))))
    for number, name in enumerate(groups):
        gains = []
        for order in orders:
            before = tuple(i in order[: order.index(number)] for i in range(len(groups)))
            after = tuple(here or i == number for i, here in enumerate(before))
            gains.append(value[after] - value[before])
        assert np.mean(gains, axis=0) == pytest.approx(few.modalities.loc[name].to_numpy())
    assert few.descriptors is None


def test_descriptors_add_up(best, dataset):
    why = explain(best, dataset[SALT].density)
    assert why.words is None and not why.maps
    for target in why.targets:
        start = why.starts["descriptors"][target]
        total = why.descriptors[target].sum()
        assert start + total == pytest.approx(why.prediction[target], rel=1e-4)
        assert abs(why.gaps["descriptors"][target]) < 1e-4 * abs(total)
    assert why.descriptors.loc["fractions.Cl", "value"] == 0.5
    assert why.descriptors["value"]["volume.volume_per_atom"] == pytest.approx(
        dataset[SALT].structure.volume / 2
    )
    with pytest.raises(RhosightError, match="no slice of it, so there is no map"):
        draw_maps(why, "efermi")


@pytest.mark.parametrize("material", [SALT, SILICON])
def test_the_cell_does_not_matter_to_descriptors(best, dataset, material):
    density = dataset[material].density
    other = in_another_cell(density)
    one, two = (explain(best, d) for d in (density, other))
    size = one.modalities.abs().sum()
    assert ((one.modalities - two.modalities).abs() < 0.01 * size).all().all()
    for target in one.targets:
        assert np.corrcoef(one.descriptors[target], two.descriptors[target])[0, 1] > 0.999


# networks


def test_modalities_of_a_network(salt, network, dataset, parts):
    sums_to_prediction(salt, network.predict([dataset[SALT].density]).iloc[0], 1e-4)
    assert salt.modalities.index.to_list() == ["image", "text"]
    given = explain(network, dataset[[SALT]], details=False, background=parts[0][:5])[0]
    means = network.predict(parts[0][:5]).mean()
    for target in given.targets:
        assert given.base[target] == pytest.approx(means[target], rel=0.2, abs=0.2)
        assert given.prediction[target] == pytest.approx(salt.prediction[target], rel=1e-4)
    assert given.background == "mean over 5 given materials"


def test_maps_and_words_add_up(salt, network):
    add_up(salt, network)
    assert salt.words.loc["Cl", "count"] == 2 and "6 per Na" in salt.words.index


def test_all_that_a_network_may_read_adds_up(recipe, parts, dataset):
    """Descriptors behind the text, fewer tokens than it has, moved windows and parallel planes."""
    reads = {
        "descriptors": ("volume", "magpie"),
        "text": {"max_tokens": 12},
        "head": {"epochs": 3},
        "fine_tuning": {"epochs": 0},
    }
    shown = {
        "augmentation": {"enabled": True, "shift": 0.1, "parallel": (0.5,)},
        "stacked": {"head_epochs": 2, "fine_tuning_epochs": 0},
    }
    network = PropertyModel(recipe.replace(**reads, **shown)).fit(parts[0][::2])
    why = explain(network, dataset[SALT].density)
    assert why.modalities.index.to_list() == ["image", "text", "descriptors"]
    sums_to_prediction(why, network.predict([dataset[SALT].density]).iloc[0], 1e-4)
    add_up(why, network)


def add_up(salt: Explanation, network: PropertyModel) -> None:
    spread = dict(zip(salt.targets, network.scaler[1], strict=True))
    for target in salt.targets:
        total = sum(one.total(target) for one in salt.maps)
        for what, found, most in (("maps", total, 1e-4), ("words", salt.words[target].sum(), 0.05)):
            missed = salt.prediction[target] - salt.starts[what][target] - found
            assert missed == pytest.approx(salt.gaps[what][target], abs=1e-3 * spread[target])
            assert abs(missed) < most * spread[target]


def test_maps_lie_on_the_slices(salt, dataset):
    plane = lattice_plane(dataset[SALT].structure)
    windows = [one.channel.window for one in salt.maps]
    assert windows == [8.0, 8.0, 16.0]
    for one in salt.maps:
        side = one.density.shape[0]
        assert one.values["efermi"].shape == one.density.shape
        # wider than the window: turned views look at its surroundings
        assert one.half == pytest.approx(one.channel.window / 2 * side / 48)
        assert one.plane.hkl == plane.hkl
    middle = salt.maps[0].density.shape[0] // 2
    heavy = salt.maps[0].density[middle - 2 : middle + 2, middle - 2 : middle + 2]
    assert heavy.max() > np.median(salt.maps[0].density)  # chlorine is in the centre


def test_the_cell_does_not_matter_to_a_network(salt, network, dataset):
    other = explain(network, in_another_cell(dataset[SALT].density))
    pd.testing.assert_frame_equal(other.modalities, salt.modalities, rtol=1e-3, atol=1e-4)
    pd.testing.assert_frame_equal(other.words, salt.words, rtol=1e-2, atol=1e-3)
    for here, there in zip(salt.maps, other.maps, strict=True):
        for target in salt.targets:
            values = (one.values[target].ravel() for one in (here, there))
            assert np.corrcoef(*values)[0, 1] > 0.99


@pytest.mark.filterwarnings("error::UserWarning")
def test_files_and_figures(salt, tmp_path):
    written = {path.name for path in save(salt, tmp_path)}
    maps = {f"map-{target}.png" for target in salt.targets}
    tables = {"explanation.json", "modalities.csv", "words.csv"}
    assert written == maps | tables | {"explanation.png", "maps.npz"}
    held = json.loads((tmp_path / "explanation.json").read_text())
    assert held["class"] == "halide" and held["modalities"]["image"]["efermi"]
    assert np.load(tmp_path / "maps.npz")["efermi_2"].shape == salt.maps[2].density.shape
    assert np.asarray(Image.open(tmp_path / "map-efermi.png").convert("RGB")).std() > 10
    saved = pd.read_csv(tmp_path / "modalities.csv", index_col="modality")
    assert saved["efermi (eV)"].iloc[:-1].sum() == pytest.approx(saved["efermi (eV)"].iloc[-1])
    axes = draw_maps(salt, "efermi").axes
    assert axes[0].get_xlabel() == "x (Å)" and "(1 1 1)" in axes[0].get_title()
    assert {text.get_text() for text in axes[0].texts} == {"Cl"}
    assert {text.get_text() for text in axes[1].texts} == {"Na"}
    dotted = [line for line in axes[0].lines if line.get_linestyle() == ":"]
    bond = dataset_bond(salt.maps[0].structure)
    projected = [np.hypot(np.ptp(line.get_xdata()), np.ptp(line.get_ydata())) for line in dotted]
    # (111) is d/√3 from the next layer, d the bond length
    assert projected == pytest.approx([bond * np.sqrt(2 / 3)] * len(dotted), rel=1e-3)
    with pytest.raises(RhosightError, match="'gap' is not predicted by this model; choose"):
        draw_maps(salt, "gap")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("sign", [-1, 1])
def test_nothing_of_a_figure_is_cut_off(count, sign):
    """Texts lie in the picture, the bars' numbers within their axes."""
    targets = ("formation_energy_per_atom", "efermi", "bulk_modulus_vrh")[-count:]
    shares = pd.DataFrame(
        sign * np.array([[0.0777, 123.4, 1.0], [-0.05, 150.0, 2e-5], [0.08, 1.0, 2.0]])[:, -count:],
        pd.Index(["composition", "structure", "density"], name="modality"),
        list(targets),
    )
    details = shares.set_axis(["x" * 50, "magpie.y", "elements.z"]).assign(value=1.0)
    numbers = dict.fromkeys(targets, -0.7874)
    why = Explanation(
        "runs/a-folder-with-a-long-name/and-another-one/CHGCAR", "Cs2TiCl6", targets,
        dict.fromkeys(targets, "eV/atom"), numbers, numbers, "mean over 344 training materials",
        shares, dict.fromkeys(shares.index, ""), descriptors=details,
    )  # fmt: skip
    figure = draw_explanation(why)
    figure.savefig(io.BytesIO())
    whole = figure.bbox.get_points()
    titles = [text for part in (figure, *figure.subfigs) for text in part.texts]
    assert len(titles) == 1 + count
    inside = [text.get_window_extent().get_points() for text in titles]
    for axis in figure.findobj(Axes):
        frame = axis.get_window_extent().get_points()
        for text in axis.texts:
            box = text.get_window_extent().get_points()
            assert frame[0, 0] < box[0, 0] and box[1, 0] < frame[1, 0], text
        inside += [axis.title.get_window_extent().get_points()]
        inside += [label.get_window_extent().get_points() for label in axis.get_yticklabels()]
    for box in inside:
        assert (box[0] >= whole[0] - 1).all() and (box[1] <= whole[1] + 1).all()


def test_notebooks_show_tables_and_a_figure(salt, network, dataset):
    text = repr(salt)
    assert text.startswith("Explanation of NaCl (mp-22862)\n") and "base: mean over" in text
    assert f"{salt.prediction['efermi']:.4g}" in text and "bulk_modulus_vrh (GPa)" in text
    page = salt._repr_html_()
    assert f"Fermi energy {salt.prediction['efermi']:.4g} eV" in page
    word = salt.largest("efermi", 1)
    assert abs(word.iloc[0]) == salt.words["efermi"].abs().max()
    assert f"{word.index[0]} {word.iloc[0]:+.3g}" in page
    assert "<th>image</th>" in page and picture(page).size[0] <= 900
    few = explain(network, dataset[[SALT, SILICON]], details=False)
    assert "2 materials" in repr(few) and "image" in repr(few) and "%" in repr(few)
    assert "<th>mp-149</th>" in few._repr_html_() and picture(few._repr_html_()).size[0] <= 900
    assert "<p>Words" not in few[0]._repr_html_() and few[0].largest("efermi", 5).empty
    assert repr(few[:0]) == "Explanations of 0 materials" and "0 materials" in few[:0]._repr_html_()
    odd = dataclasses.replace(salt, name="<b>&", maps=())
    assert "<b>&" not in odd._repr_html_() and "&lt;b&gt;&amp;" in odd._repr_html_()


def picture(page: str) -> Image.Image:
    (data,) = re.findall("data:image/png;base64,([^']*)", page)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def dataset_bond(structure: Structure) -> float:
    return structure.lattice.get_all_distances(
        structure[0].frac_coords, structure[1].frac_coords
    ).min()


def test_a_background_is_needed(network, dataset):
    stranger = PropertyModel(TINY)
    stranger.network, stranger.scaler, stranger.units = (
        network.network,
        network.scaler,
        network.units,
    )
    stranger.about = {"dataset": "mine", "training_ids": ["a", "b"]}
    with pytest.raises(RhosightError, match=r"mine\) are not bundled with rhosight; choose"):
        explain(stranger, dataset[SALT].density)
    with pytest.raises(RhosightError, match="the background is empty"):
        explain(stranger, dataset[SALT].density, background=dataset[[]])
    with pytest.raises(RhosightError, match="not fitted"):
        explain(PropertyModel(TINY), dataset[SALT].density)


# many materials


def test_summary_by_chemistry(best, dataset):
    found = explain(best, dataset[[SALT, SILICON, "mp-21075", "mp-1002206"]], details=False)
    summary = found.summary()
    assert summary.index.unique("class")[0] == "all"
    parts = summary["part"].groupby(["target", "class"], observed=True).sum()
    assert parts.to_numpy() == pytest.approx(1)
    assert (summary.loc[("efermi", "all"), "materials"] == 4).all()
    assert summary.loc[("efermi", "halide", "density"), "mean"] == pytest.approx(
        found[0].modalities.loc["density", "efermi"]
    )
    axes = draw_summary(found.summary()).axes
    assert axes[0].get_yticklabels()[0].get_text() == "all (4)"
    assert isinstance(found[:2], Explanations) and len(found[:2].table()) == 2 * 3 * 5
    with pytest.raises(RhosightError, match="there are no explanations to summarise"):
        found[:0].summary()


@pytest.mark.parametrize("modality", ["image", pytest.param("text", marks=pytest.mark.slow)])
def test_what_a_network_is_said_to_look_at_matters(network, parts, modality, monkeypatch):
    monkeypatch.setattr("rhosight.explain.networks.GRIDS", GRIDS)
    curves = deletion_curves(network, parts[1][:3], modality, orders=3)
    areas = deletion_areas(curves)
    assert (areas["between"] > 0).all(), areas
    ends = curves[curves["deleted"] == 1].groupby(["material_id", "target"])["change"]
    assert (ends.max() - ends.min() < 1e-4).all()  # nothing is left, whatever the order


def test_what_descriptors_are_said_to_add_matters(best, parts):
    areas = deletion_areas(deletion_curves(best, parts[1], "descriptors", orders=3))
    assert (areas["between"] > 2 * areas["error"]).all(), areas
    assert (areas["materials"] == len(parts[1])).all()


def test_from_the_command_line(network, dataset, tmp_path):
    dataset[SILICON].density.to_chgcar(tmp_path / "CHGCAR")
    network.save_pretrained(tmp_path / "network")
    run = CliRunner().invoke
    done = run(app, ["explain", str(tmp_path / "CHGCAR"), "--out", str(tmp_path / "why")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "composition" in said and "no map" in said
    (folder,) = (tmp_path / "why").iterdir()
    assert {p.name for p in folder.iterdir()} >= {"explanation.json", "descriptors.csv"}
    few = ["--model", str(tmp_path / "network"), "--id", SALT, "--id", SILICON, "--no-details"]
    done = run(app, ["explain", "mp-fcc", *few, "--out", str(tmp_path / "two")])
    assert done.exit_code == 0, done.output
    assert {p.name for p in (tmp_path / "two").iterdir()} == {
        *("explanations.csv", "summary.csv", "summary.png"),
    }
    # the modalities are told and kept without details too
    few = ["--no-details", "--out", str(tmp_path / "one")]
    done = run(app, ["explain", str(tmp_path / "CHGCAR"), *few])
    assert done.exit_code == 0, done.output
    assert "composition" in done.stdout and "3 files" in done.stdout
    assert {p.name for p in (tmp_path / "one").rglob("*.*")} == {
        *("explanation.json", "explanation.png", "modalities.csv"),
    }
    done = run(app, ["explain", str(tmp_path / "CHGCAR"), "--id", SALT])
    assert isinstance(done.exception, RhosightError)
