"""Datasets of materials with densities, labels and texts; cleaning, splits, folds.

>>> from rhosight.dataset import load_dataset, split
>>> dataset = load_dataset("mp-fcc")
>>> dataset["mp-1002124"].density.grid("difference").shape
(18, 18, 18)
>>> train, test = split(dataset, test_fraction=0.15, seed=0)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artefacts import CoreArtefacts as CoreArtefacts
    from .artefacts import core_artefacts as core_artefacts
    from .build.building import BuildReport as BuildReport
    from .build.building import build as build
    from .cleaning import CleaningReport as CleaningReport
    from .cleaning import clean as clean
    from .dataset import Dataset as Dataset
    from .dataset import Material as Material
    from .labels import mask_labels as mask_labels
    from .packing import BUNDLED as BUNDLED
    from .packing import PackReport as PackReport
    from .packing import load_dataset as load_dataset
    from .packing import pack as pack
    from .selection import BRAVAIS as BRAVAIS
    from .selection import bravais_filter as bravais_filter
    from .selection import bravais_lattice as bravais_lattice
    from .selection import duplicate_filter as duplicate_filter
    from .selection import iqr_filter as iqr_filter
    from .splits import check_labels as check_labels
    from .splits import folds as folds
    from .splits import group_labels as group_labels
    from .splits import split as split
    from .validation import validate_file as validate_file

# A prediction needs the reading of datasets, but neither their building nor their cleaning.
_PUBLIC = {
    "BRAVAIS": "selection",
    "BUNDLED": "packing",
    "BuildReport": "build.building",
    "CleaningReport": "cleaning",
    "CoreArtefacts": "artefacts",
    "Dataset": "dataset",
    "Material": "dataset",
    "PackReport": "packing",
    "bravais_filter": "selection",
    "bravais_lattice": "selection",
    "build": "build.building",
    "check_labels": "splits",
    "clean": "cleaning",
    "core_artefacts": "artefacts",
    "duplicate_filter": "selection",
    "folds": "splits",
    "group_labels": "splits",
    "iqr_filter": "selection",
    "load_dataset": "packing",
    "mask_labels": "labels",
    "pack": "packing",
    "split": "splits",
    "validate_file": "validation",
}

__all__ = list(_PUBLIC)

# The name of this subpackage is that of its function. Python binds the subpackage once, when it is
# imported first: here, so that it hides the function no more.
import_module(".build", __name__)
del globals()["build"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
