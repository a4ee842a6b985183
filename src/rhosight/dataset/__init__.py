"""Datasets: materials with densities, labels and texts; cleaning, splits and folds.

>>> from rhosight.dataset import load_dataset, split
>>> dataset = load_dataset("mp-fcc")
>>> dataset["mp-1002124"].density.grid("difference").shape
(18, 18, 18)
>>> train, test = split(dataset, test_fraction=0.15, seed=0)
"""

from .building import BuildReport, build
from .cleaning import iqr_filter, mask_labels
from .core import Dataset, Material
from .packing import BUNDLED, PackReport, load_dataset, pack
from .splits import folds, group_labels, split

__all__ = [
    "BUNDLED",
    "BuildReport",
    "Dataset",
    "Material",
    "PackReport",
    "build",
    "folds",
    "group_labels",
    "iqr_filter",
    "load_dataset",
    "mask_labels",
    "pack",
    "split",
]
