"""Figures of a dataset: what they say about it, and that they can be drawn."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rhosight import RhosightError
from rhosight.dataset import Dataset
from rhosight.dataset.figures import (
    element_heatmap,
    grid_sizes,
    missing_labels,
    targets_violin,
    total_and_difference,
)
from rhosight.density.plane import lattice_plane


def _texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def _drawn(figure, path) -> np.ndarray:
    """The figure as pixels; nothing may warn on the way."""
    figure.savefig(path, dpi=60)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.filterwarnings("error::UserWarning")
def test_violins_say_unit_number_and_median(dataset, tmp_path):
    figure = targets_violin(dataset)
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels[0] == "formation energy (eV/atom)"
    assert labels[1] == "Fermi energy (eV)"
    assert labels[2].startswith("bulk modulus") and labels[2].endswith("(GPa)")
    assert labels[3] == "number of elements"
    assert [axis.get_title() for axis in figure.axes] == [
        "n = 405",
        "n = 405",
        "n = 377",
        "n = 405",
    ]
    for axis, (_, values) in zip(figure.axes[:3], dataset.targets.items(), strict=True):
        (mark,) = axis.lines
        assert mark.get_ydata()[0] == pytest.approx(values.median())
        low, high = axis.get_ylim()
        assert low <= values.min() and values.max() <= high
    assert _drawn(figure, tmp_path / "violin.png").std() > 10
    assert figure.canvas.manager is None  # no window


@pytest.mark.filterwarnings("error::UserWarning")
def test_violins_of_few_values_and_many_targets(few, tmp_path):
    own = {f"own{i}": [float(i)] * 6 if i % 2 else [1.0, *[np.nan] * 5] for i in range(5)}
    labels = pd.DataFrame({**own, "empty": [np.nan] * 6}, index=few.ids)
    data = Dataset.from_densities(few.densities, labels.astype(float))
    figure = targets_violin(data)
    assert [axis.get_ylabel() for axis in figure.axes] == [*labels, "number of elements"]
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["n = 1", "n = 6", "n = 1", "n = 6", "n = 1", "n = 0", "n = 6"]
    assert "no value" in _texts(figure.axes[5])
    _drawn(figure, tmp_path / "few.png")


@pytest.mark.filterwarnings("error::UserWarning")
def test_heat_map_counts_materials_with_each_element(dataset, tmp_path):
    figure = element_heatmap(dataset)
    table, bar = figure.axes
    words = _texts(table)
    assert sum(bool(re.fullmatch("[A-Z][a-z]?", word)) for word in words) == 118
    with_aluminium = sum("Al" in structure.symbol_set for structure in dataset.structures)
    assert words[words.index("Al") + 1] == str(with_aluminium)
    assert not words[words.index("Tc") + 1].isdigit()
    assert bar.get_ylabel() == "materials with the element"
    assert table.get_title() == "62 elements in 405 materials"
    # one square for each element, none upon another
    corners = [tuple(patch.get_xy()[0]) for patch in table.patches]
    assert len(set(corners)) == 118
    assert _drawn(figure, tmp_path / "elements.png").std() > 10


@pytest.mark.filterwarnings("error::UserWarning")
def test_grid_sizes_add_up(dataset, few, tmp_path):
    bars, histogram = grid_sizes(dataset).axes
    widths = dict(
        zip(
            (tick.get_text() for tick in bars.get_yticklabels()),
            (patch.get_width() for patch in bars.patches),
            strict=True,
        )
    )
    assert widths["20×20×20"] == 117
    assert sum(widths.values()) == 405
    assert sum(patch.get_height() for patch in histogram.patches) == 405
    assert "Å" in histogram.get_xlabel()
    _drawn(grid_sizes(few[:1]), tmp_path / "one.png")


@pytest.mark.filterwarnings("error::UserWarning")
def test_missing_labels_add_up(dataset, tmp_path):
    figure = missing_labels(dataset)
    (axis,) = figure.axes
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names[-1] == "density: spin" and "text: all" in names
    widths = np.array([patch.get_width() for patch in axis.patches]).reshape(3, len(names))
    assert (widths.sum(axis=0) == 405).all()
    assert widths[:, 2].tolist() == [377, 17, 11]
    assert widths[:, -1].tolist() == [98, 0, 307]
    assert "17 masked, 11 missing" in _texts(axis)
    _drawn(figure, tmp_path / "missing.png")


@pytest.mark.filterwarnings("error::UserWarning")
def test_slices_with_atoms_and_scales(dataset, tmp_path):
    """Silicon: no atoms of the other sublattice on (111), nearest neighbours a/√2 apart."""
    figure = total_and_difference(dataset, "mp-149", window=8.0, size=80)
    total, difference, *bars = figure.axes
    assert (total.get_title(), difference.get_title()) == ("total", "difference")
    assert [bar.get_ylabel() for bar in bars] == ["e/Å³", "e/Å³"]
    assert total.get_xlabel() == "x (Å)" and total.get_ylabel() == "y (Å)"
    assert "Si (mp-149), plane (1 1 1)" in figure.get_suptitle()
    (picture,) = difference.images
    assert picture.get_extent() == [-4, 4, -4, 4]
    assert picture.norm.vmin == -picture.norm.vmax
    rings = {(line.get_xdata()[0], line.get_ydata()[0]) for line in total.lines}
    places = np.array([(float(u), float(v)) for u, v in rings])
    assert (np.abs(places) <= 4).all()
    lengths = np.linalg.norm(places, axis=1)
    apart = lattice_plane(dataset["mp-149"].structure).lattice_scale / np.sqrt(2)
    assert np.sort(lengths)[0] == pytest.approx(0, abs=1e-6)
    assert np.sort(lengths)[1:7] == pytest.approx(apart, abs=1e-3)
    assert set(_texts(total)) == {"Si"}
    assert _drawn(figure, tmp_path / "slices.png").std() > 10


def test_slices_through_another_plane_and_between_atoms(dataset):
    figure = total_and_difference(
        dataset, "mp-149", hkl=(1, 1, 0), offset=0.5, size=32, kinds=["promolecule"]
    )
    axis = figure.axes[0]
    assert axis.get_title() == "promolecule"
    assert "(1 1 0), 0.5 d above it" in figure.get_suptitle()
    assert not axis.lines


def test_figures_refuse(dataset, few):
    with pytest.raises(RhosightError, match="but not `spin`"):
        total_and_difference(dataset, "mp-149", kinds=["spin"])
    with pytest.raises(RhosightError, match="mp-0: no such material_id"):
        total_and_difference(dataset, "mp-0")
    with pytest.raises(RhosightError, match="positive window"):
        total_and_difference(dataset, "mp-149", window=0)
    for draw in (targets_violin, element_heatmap, grid_sizes, missing_labels):
        with pytest.raises(RhosightError, match="the dataset is empty"):
            draw(few[[]])
