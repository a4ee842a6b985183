"""Predict how large the cell of a structure type is with given elements.

The logarithm of the volume per atom is that of the sum of volumes of the elements, fitted to known
crystals, plus a kernel ridge regression on features of the occupied structure type
(:mod:`rhosight.design.geometry`). It has learned from the Materials Project's relaxed crystals, so
it gives the volume that PBE calculations of this kind would find.

``python -m rhosight.design.volume OUT.safetensors`` trains the model that comes with the package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Self

import numpy as np
from pymatgen.core import Structure
from safetensors.numpy import load_file, save_file

from ..density.crystals import list_symbols
from ..density.structure_json import parse_structure_json
from ..errors import RhosightError
from ..storage import bundled_file, replacing
from .geometry import Pairs, occupation_features, shares_of

FILE = "volumes.safetensors"

RIDGE_ELEMENTS = 1e-3
"""Penalty on volumes of elements, relative to the mean volume."""

LENGTH, RIDGE = 6.0, 1e-3
"""Of the kernel, in standard deviations of the features; chosen on folds by formula."""

ELEMENT_WEIGHT = 1.0
"""Weight of the shares of the elements among the features."""

MAX_ATOMS = 24
"""Largest cell of a training crystal."""

CHUNK = 1024


@dataclass(frozen=True)
class VolumeModel:
    """A fitted model of volumes.

    Attributes
    ----------
    elements
        Symbols of known elements.
    volumes
        Their volumes, Å³ per atom, shape (elements,).
    mean, scale
        Of the features, shape (features,).
    points
        Scaled features of the training crystals, shape (n, features + elements).
    weights
        Coefficients of the kernel, shape (n,).
    """

    elements: tuple[str, ...]
    volumes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    points: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, structures: Sequence[Structure]) -> Self:
        """Learn from relaxed crystals."""
        return cls.fit_features(*describe(structures))

    @classmethod
    def fit_features(
        cls, features: np.ndarray, shares: Sequence[Mapping[str, float]], volumes: np.ndarray
    ) -> Self:
        """Learn from features, shares of elements and volumes, see :func:`describe`."""
        from scipy.linalg import solve

        elements = tuple(sorted({symbol for one in shares for symbol in one}))
        fractions = _fractions(shares, elements)
        target = np.log(volumes)
        # linearised about the known volume: Σ x v / V ≈ 1
        design = fractions / volumes[:, None]
        penalty = (RIDGE_ELEMENTS / volumes.mean()) ** 2 * len(volumes)
        own = solve(
            design.T @ design + penalty * np.eye(len(elements)),
            design.sum(axis=0) + penalty * volumes.mean(),
            assume_a="pos",
        )
        residual = target - np.log(fractions @ own)
        mean, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        points = _points(features, fractions, mean, scale)
        kernel = _kernel(points, points)
        weights = solve(kernel + RIDGE * np.eye(len(kernel)), residual, assume_a="pos")
        return cls(elements, own, mean, scale, points.astype(np.float32), weights)

    def predict(self, pairs: Pairs, occupations: Sequence[Sequence[str]]) -> np.ndarray:
        """Return volumes per atom, Å³, of n occupations of one structure type; shape (n,).

        Raises
        ------
        RhosightError
            For an element that is in no training crystal.
        """
        features = occupation_features(pairs, occupations)
        return self.predict_features(features, shares_of(pairs, occupations))

    def predict_features(
        self, features: np.ndarray, shares: Sequence[Mapping[str, float]]
    ) -> np.ndarray:
        """Return volumes per atom from the results of :func:`describe`."""
        if unknown := {symbol for one in shares for symbol in one} - set(self.elements):
            raise RhosightError(f"the model of volumes does not know the element {min(unknown)}")
        fractions = _fractions(shares, self.elements)
        base = np.log(fractions @ self.volumes)
        points = _points(features, fractions, self.mean, self.scale)
        parts = [
            _kernel(points[start : start + CHUNK], self._known) @ self.weights
            for start in range(0, len(points), CHUNK)
        ]
        return np.exp(base + np.concatenate(parts))

    @cached_property
    def _known(self) -> np.ndarray:
        return self.points.astype(float)

    def save(self, path: str | os.PathLike) -> None:
        """Write the model as safetensors."""
        arrays = {
            name: np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            for name in ("volumes", "mean", "scale", "points", "weights")
        }
        with replacing(Path(path)) as draft:
            save_file(arrays, draft, metadata={"elements": " ".join(self.elements)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read the model that :meth:`save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            elements = tuple(file.metadata()["elements"].split())
        arrays = load_file(path)
        return cls(
            elements, **{k: v if k == "points" else v.astype(float) for k, v in arrays.items()}
        )


@cache
def load_volume_model() -> VolumeModel:
    """Return the model that comes with the package."""
    with bundled_file(FILE) as path:
        return VolumeModel.load(path)


def describe(
    structures: Sequence[Structure],
) -> tuple[np.ndarray, list[dict[str, float]], np.ndarray]:
    """Return features, shares of elements and volumes per atom (Å³) of crystals."""
    features, shares, volumes = [], [], []
    for structure in structures:
        symbols = list_symbols(structure)
        elements = list(dict.fromkeys(symbols))
        pairs = Pairs.of(structure, np.array([elements.index(symbol) for symbol in symbols]))
        features.append(occupation_features(pairs, [elements])[0])
        shares += shares_of(pairs, [elements])
        volumes.append(structure.volume / len(structure))
    return np.array(features), shares, np.array(volumes)


def _fractions(shares: Sequence[Mapping[str, float]], elements: Sequence[str]) -> np.ndarray:
    return np.array([[one.get(element, 0.0) for element in elements] for one in shares])


def _points(
    features: np.ndarray, fractions: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    scaled = np.clip((features - mean) / scale, -5, 5) / np.sqrt(features.shape[1])
    return np.hstack([scaled, ELEMENT_WEIGHT * fractions])


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    from scipy.spatial.distance import cdist

    # Matérn 3/2: volumes are smooth, but not analytic, functions of what the elements are
    distance = np.sqrt(3) * cdist(one, other) / LENGTH
    return (1 + distance) * np.exp(-distance)


def main(arguments: Sequence[str]) -> None:
    """Train the model that comes with the package on all bundled crystals."""
    from .prototypes import read_structure_texts

    (target,) = arguments
    texts = read_structure_texts()
    crystals = [parse_structure_json(texts[name], name) for name in sorted(texts)]
    model = VolumeModel.fit([crystal for crystal in crystals if len(crystal) <= MAX_ATOMS])
    model.save(target)
    print(f"volumes of {len(model.points)} crystals, {len(model.elements)} elements")


if __name__ == "__main__":
    main(sys.argv[1:])
