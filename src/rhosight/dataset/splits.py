"""Split a dataset and make folds in which materials of one formula stay together.

The assignment depends on ids, formulas and the seed alone. It does not depend on the order of
rows, and hardly on the other materials. Positions are in the order of material ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pymatgen.core import Composition
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import RhosightError

if TYPE_CHECKING:
    from .dataset import Dataset

PARTS = ("train", "test")
"""Values of the column ``split`` of a dataset that declares its test set."""

Groups = Literal["formula", "chemsys", "prototype"]

_GROUPS: dict[Groups, str] = {
    "formula": "formulas",
    "chemsys": "chemical systems",
    "prototype": "structure types",
}


def group_labels(dataset: Dataset, groups: Groups = "formula") -> np.ndarray:
    """Return the group of each material, shape (materials,), strings.

    ``formula`` groups by reduced formula, ``chemsys`` by the set of elements, ``prototype`` by
    space group, anonymised formula and number of sites. Prototypes that share a formula are merged,
    since materials of one formula always stay together.
    """
    table = dataset.table
    compositions = [Composition(formula) for formula in table["formula"]]
    formulas = np.array([c.reduced_formula for c in compositions], dtype=str)
    if groups == "formula":
        return formulas
    if groups == "chemsys":
        return np.array([c.chemical_system for c in compositions], dtype=str)
    if groups == "prototype":
        rows = zip(table["spacegroup_number"], compositions, table["nsites"], strict=True)
        return _merge_groups(
            np.array([f"{group}-{c.anonymized_formula}-{n}" for group, c, n in rows], dtype=str),
            formulas,
        )
    raise RhosightError(f"unknown grouping {groups!r}; choose from formula, chemsys, prototype")


def split(
    dataset: Dataset, test_fraction: float = 0.15, seed: int = 0, groups: Groups = "formula"
) -> tuple[np.ndarray, np.ndarray]:
    """Split a dataset into a training set and a test set.

    A dataset may declare its test set: a column ``split`` that says ``train`` or ``test`` of every
    material. Seed 0 by formula then gives that test set, whatever the fraction.

    Parameters
    ----------
    dataset
        The materials to split.
    test_fraction
        Fraction of materials in the test set, as nearly as whole groups allow.
    seed
        Each seed gives another split.
    groups
        Materials to keep together, see :func:`group_labels`.

    Returns
    -------
    train, test
        Positions in ``dataset``.

    Raises
    ------
    RhosightError
        If the fraction is not between 0 and 1, or there are fewer than two groups.
    """
    if not 0 < test_fraction < 1:
        raise RhosightError(f"test_fraction is {test_fraction}; it must lie between 0 and 1")
    if seed == 0 and groups == "formula" and (declared := _find_declared(dataset)) is not None:
        first, second = (np.flatnonzero(declared == part) for part in PARTS)
        return _sort_by_id(dataset, first), _sort_by_id(dataset, second)
    parts = _shuffle_groups(dataset, np.arange(len(dataset)), groups, seed)
    if len(parts) < 2:
        raise RhosightError(
            f"cannot split off a test set: it takes two {_GROUPS[groups]}, and these "
            f"{len(dataset)} materials have {len(parts)}; give more materials"
        )
    total = len(dataset)
    wanted = min(max(1, round(test_fraction * total)), total - 1)
    test: list[np.ndarray] = []
    size = 0
    for part in parts:
        grown = size + len(part)
        if abs(grown - wanted) < abs(size - wanted) and grown < total:
            test.append(part)
            size = grown
    if not test:
        test = [min(parts, key=len)]
    chosen = np.concatenate(test)
    rest = np.setdiff1d(np.arange(total), chosen)
    return _sort_by_id(dataset, rest), _sort_by_id(dataset, chosen)


def _find_declared(dataset: Dataset) -> np.ndarray | None:
    """Return the declared part of each material; None if a dataset declares none."""
    if "split" not in dataset.table:
        return None
    declared = dataset.table["split"].to_numpy(dtype=object)
    return declared if set(declared) == set(PARTS) else None


def folds(
    dataset: Dataset,
    n_splits: int = 5,
    seed: int = 0,
    groups: Groups = "formula",
    indices: np.ndarray | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make cross-validation folds of nearly equal size that consist of whole groups.

    Parameters
    ----------
    dataset
        The materials to divide.
    n_splits
        Number of folds.
    seed
        Each seed gives other folds (repeats).
    groups
        Materials to keep together, see :func:`group_labels`.
    indices
        Divide only these positions, for example the training set of :func:`split`.

    Returns
    -------
    list of (train, validation)
        Positions in ``dataset``; each position is in one validation set.

    Raises
    ------
    RhosightError
        If there are fewer than two folds, or fewer groups than folds.
    """
    positions = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=int)
    parts = _shuffle_groups(dataset, positions, groups, seed)
    if n_splits < 2:
        raise RhosightError(f"cannot make {n_splits} fold(s); choose at least two")
    if n_splits > len(parts):
        raise RhosightError(
            f"cannot make {n_splits} folds: it takes {n_splits} {_GROUPS[groups]}, and these "
            f"{len(positions)} materials have {len(parts)}; give more materials, or make fewer "
            "folds"
        )
    members: list[list[int]] = [[] for _ in range(n_splits)]
    for part in sorted(parts, key=len, reverse=True):
        min(members, key=len).extend(part.tolist())
    return [
        (
            _sort_by_id(dataset, np.concatenate([m for m in members if m is not fold]).astype(int)),
            _sort_by_id(dataset, np.array(fold, dtype=int)),
        )
        for fold in members
    ]


def check_labels(
    dataset: Dataset, targets: Sequence[str], training_sets: Sequence[np.ndarray]
) -> None:
    """Check that each training set has labels to learn each target from.

    Raises
    ------
    RhosightError
        If one has fewer than two different labels; the message names the target.
    """
    labels = dataset.targets
    for target in targets:
        counts = [labels[target].iloc[rows].nunique() for rows in training_sets]
        if min(counts) < 2:
            name = dataset.metadata.get("name", "dataset")
            raise RhosightError(
                f"{name}: of {labels[target].count()} labels of `{target}`, the training set of "
                f"fold {int(np.argmin(counts)) + 1} of {len(counts)} has fewer than two that "
                "differ; leave the target out (--target), or make fewer folds"
            )


def _shuffle_groups(
    dataset: Dataset, positions: np.ndarray, groups: Groups, seed: int
) -> list[np.ndarray]:
    """Return the positions of each group; the seed and the group names give the order."""
    labels = group_labels(dataset, groups)[positions]
    names = sorted(set(labels.tolist()), key=lambda name: _draw(seed, name))
    return [positions[labels == name] for name in names]


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _sort_by_id(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    ids = np.array(dataset.ids, dtype=str)
    return positions[np.argsort(ids[positions], kind="stable")]


def _merge_groups(labels: np.ndarray, formulas: np.ndarray) -> np.ndarray:
    """Merge groups that share a formula; the name of a merged group lists them all."""
    names, label_codes = np.unique(labels, return_inverse=True)
    _, formula_codes = np.unique(formulas, return_inverse=True)
    edges = (np.ones(len(labels)), (label_codes, formula_codes + len(names)))
    size = len(names) + int(formula_codes.max(initial=-1)) + 1
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    component = component[: len(names)]
    joint = {c: "+".join(names[component == c]) for c in set(component.tolist())}
    return np.array([joint[component[code]] for code in label_codes], dtype=str)
