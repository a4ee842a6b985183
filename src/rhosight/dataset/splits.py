"""Splits and folds in which materials of one formula stay together.

Which material falls where depends on ids, formulas and the seed alone: not on the order of rows,
and hardly on which other materials are there. Positions come in the order of material ids.
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

Groups = Literal["formula", "chemsys", "prototype"]

_GROUPS: dict[Groups, str] = {
    "formula": "formulas",
    "chemsys": "chemical systems",
    "prototype": "structure types",
}


def group_labels(dataset: Dataset, groups: Groups = "formula") -> np.ndarray:
    """The group of each material, shape (materials,), strings.

    ``formula``: the reduced formula. ``chemsys``: the set of elements. ``prototype``: space group,
    anonymised formula and number of sites; prototypes that share a formula count as one, since a
    formula always stays in one part.
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
        return _joined(
            np.array([f"{group}-{c.anonymized_formula}-{n}" for group, c, n in rows], dtype=str),
            formulas,
        )
    raise RhosightError(f"unknown grouping {groups!r}; known are formula, chemsys, prototype")


def split(
    dataset: Dataset, test_fraction: float = 0.15, seed: int = 0, groups: Groups = "formula"
) -> tuple[np.ndarray, np.ndarray]:
    """Split off a test part.

    Parameters
    ----------
    dataset
        What to split.
    test_fraction
        Of the materials; met as nearly as whole groups allow.
    seed
        Another seed gives another split.
    groups
        What stays together, see :func:`group_labels`.

    Returns
    -------
    train, test
        Positions in ``dataset``.
    """
    if not 0 < test_fraction < 1:
        raise RhosightError(f"test_fraction lies between 0 and 1, not {test_fraction}")
    parts = _shuffled_groups(dataset, np.arange(len(dataset)), groups, seed)
    if len(parts) < 2:
        raise RhosightError(
            f"cannot split off a test part: two {_GROUPS[groups]} are needed, and these "
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
    return _by_id(dataset, rest), _by_id(dataset, chosen)


def folds(
    dataset: Dataset,
    n_splits: int = 5,
    seed: int = 0,
    groups: Groups = "formula",
    indices: np.ndarray | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation folds of nearly equal size, whole groups each.

    Parameters
    ----------
    dataset
        What to divide.
    n_splits
        Number of folds.
    seed
        Another seed gives other folds (repeats).
    groups
        What stays together, see :func:`group_labels`.
    indices
        Divide only these positions, for example the training part of :func:`split`.

    Returns
    -------
    list of (train, validation)
        Positions in ``dataset``; each position is in one validation part.
    """
    positions = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=int)
    parts = _shuffled_groups(dataset, positions, groups, seed)
    if n_splits < 2:
        raise RhosightError(f"cannot make {n_splits} fold(s); two are the fewest")
    if n_splits > len(parts):
        raise RhosightError(
            f"cannot make {n_splits} folds: {n_splits} {_GROUPS[groups]} are needed, one for each "
            f"at least, and these {len(positions)} materials have {len(parts)}; give more "
            "materials, or make fewer folds"
        )
    members: list[list[int]] = [[] for _ in range(n_splits)]
    for part in sorted(parts, key=len, reverse=True):
        min(members, key=len).extend(part.tolist())
    return [
        (
            _by_id(dataset, np.concatenate([m for m in members if m is not fold]).astype(int)),
            _by_id(dataset, np.array(fold, dtype=int)),
        )
        for fold in members
    ]


def check_labels(
    dataset: Dataset, targets: Sequence[str], training_parts: Sequence[np.ndarray]
) -> None:
    """That each training part has labels to learn each target from.

    Raises
    ------
    RhosightError
        If one has fewer than two different ones; the message names the target.
    """
    labels = dataset.targets
    for target in targets:
        have = [labels[target].iloc[rows].nunique() for rows in training_parts]
        if min(have) < 2:
            name = dataset.metadata.get("name", "dataset")
            raise RhosightError(
                f"{name}: of {labels[target].count()} labels of `{target}` the training part of "
                f"fold {int(np.argmin(have)) + 1} of {len(have)} has fewer than two that differ; "
                "leave the target out (--target), or have fewer folds"
            )


def _shuffled_groups(
    dataset: Dataset, positions: np.ndarray, groups: Groups, seed: int
) -> list[np.ndarray]:
    """The positions of each group; the groups in an order drawn from seed and their names."""
    labels = group_labels(dataset, groups)[positions]
    names = sorted(set(labels.tolist()), key=lambda name: _draw(seed, name))
    return [positions[labels == name] for name in names]


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _by_id(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    ids = np.array(dataset.ids, dtype=str)
    return positions[np.argsort(ids[positions], kind="stable")]


def _joined(labels: np.ndarray, formulas: np.ndarray) -> np.ndarray:
    """Labels after joining those that share a formula; the joint name lists them all."""
    names, label_codes = np.unique(labels, return_inverse=True)
    _, formula_codes = np.unique(formulas, return_inverse=True)
    edges = (np.ones(len(labels)), (label_codes, formula_codes + len(names)))
    size = len(names) + int(formula_codes.max(initial=-1)) + 1
    _, component = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    component = component[: len(names)]
    joint = {c: "+".join(names[component == c]) for c in set(component.tolist())}
    return np.array([joint[component[code]] for code in label_codes], dtype=str)
