"""Datasets of materials with densities, labels and texts; cleaning, splits, folds.

>>> from rhosight.dataset import load_dataset, split
>>> dataset = load_dataset("mp-fcc")
>>> dataset["mp-1002124"].density.grid("difference").shape
(18, 18, 18)
>>> train, test = split(dataset, test_fraction=0.15, seed=0)
"""

from .artefacts import CoreArtefacts, core_artefacts
from .build.building import BuildReport, build
from .cleaning import CleaningReport, clean
from .dataset import Dataset, Material
from .labels import mask_labels
from .packing import BUNDLED, PackReport, load_dataset, pack
from .selection import BRAVAIS, bravais_filter, bravais_lattice, duplicate_filter, iqr_filter
from .splits import check_labels, folds, group_labels, split
from .validation import validate_file

__all__ = [
    "BRAVAIS",
    "BUNDLED",
    "BuildReport",
    "CleaningReport",
    "CoreArtefacts",
    "Dataset",
    "Material",
    "PackReport",
    "bravais_filter",
    "bravais_lattice",
    "build",
    "check_labels",
    "clean",
    "core_artefacts",
    "duplicate_filter",
    "folds",
    "group_labels",
    "iqr_filter",
    "load_dataset",
    "mask_labels",
    "pack",
    "split",
    "validate_file",
]
