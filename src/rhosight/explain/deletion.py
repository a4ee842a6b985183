"""Test attributions by removing pieces of the input.

The pieces of an input (patches of the slices, words, descriptors) are removed one after another,
those with the largest attributions first. If the attributions are meaningful, the prediction
changes sooner than for a random order (the deletion curve of Petsiuk, Das, Saenko 2018,
arXiv:1806.07421). Removed pieces are replaced by the starting point of the attributions: the mean
image, masks, or mean descriptors.

>>> curves = deletion_curves(model, dataset[validation], "text")
>>> deletion_areas(curves)
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from ..dataset.dataset import Dataset
from ..inputs.progress import Progress
from ..models.base import SavedModel
from .explainers import make_explainer

SHARES = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
"""Fractions of the pieces that are removed; the points are denser where the curves are steep."""


def deletion_curves(
    model: SavedModel,
    materials: Dataset,
    modality: str,
    orders: int = 5,
    seed: int = 0,
    background: Dataset | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the change of predictions while pieces of the input are removed.

    Parameters
    ----------
    model
        A model fitted on other materials.
    materials
        Materials to test.
    modality
        ``image`` or ``text`` for a network that reads it; ``descriptors`` for a descriptor model.
    orders
        Number of random orders for each material.
    seed
        Seed of the random orders.
    background
        See :func:`rhosight.explain`.
    progress
        Called with ("deletion", done, all).

    Returns
    -------
    DataFrame with one row for each material, target, order and fraction: material_id, target, order
    (``attribution``, ``random 1`` …), deleted (fraction of the pieces), change (absolute change of
    the prediction, in standard deviations of the target).
    """
    explainer = make_explainer(model, background)
    rng = np.random.default_rng(seed)
    rows = []
    for number, name in enumerate(materials.ids):
        pieces = explainer.pieces(materials[number : number + 1], modality)
        count = pieces.attributions.shape[1]
        removed = np.rint(SHARES * count).astype(int)
        drawn = [rng.permutation(count) for _ in range(orders)]
        chosen = np.argsort(-np.abs(pieces.attributions), axis=1, kind="stable")
        ranks = np.argsort([*chosen, *drawn], axis=1)
        missing = ranks[:, None, :] < removed[:, None]
        predicted = pieces.predict(missing.reshape(-1, count))
        predicted = predicted.reshape(len(ranks), len(removed), -1)
        change = np.abs(predicted - predicted[:, :1])
        for column, target in enumerate(explainer.targets):
            lines = {"attribution": change[column, :, column]}
            for draw in range(orders):
                lines[f"random {draw + 1}"] = change[len(chosen) + draw, :, column]
            for order, line in lines.items():
                rows += [(name, target, order, *pair) for pair in zip(SHARES, line, strict=True)]
        if progress:
            progress("deletion", number + 1, len(materials))
    return pd.DataFrame(rows, columns=["material_id", "target", "order", "deleted", "change"])


def deletion_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the areas under the deletion curves of :func:`deletion_curves`.

    Returns
    -------
    DataFrame indexed by target: ``attribution`` and ``random``, mean areas over the materials, in
    standard deviations of the target; ``between``, their difference, and ``error``, its standard
    error; ``ahead``, the fraction of materials for which the attributions' area is larger than the
    mean area of the random orders; ``materials``, their number.
    """
    groups = curves.groupby(["target", "material_id", "order"], sort=False)
    areas = {key: trapezoid(curve["change"], curve["deleted"]) for key, curve in groups}
    index = pd.MultiIndex.from_tuples(areas, names=["target", "material_id", "order"])
    area = pd.Series(list(areas.values()), index).unstack("order")
    ours = area["attribution"]
    chance = area.drop(columns="attribution").mean(axis=1)
    between = (ours - chance).groupby("target", sort=False)
    return pd.DataFrame(
        {
            "attribution": ours.groupby("target", sort=False).mean(),
            "random": chance.groupby("target", sort=False).mean(),
            "between": between.mean(),
            "error": between.sem(),
            "ahead": between.apply(lambda values: (values > 0).mean()),
            "materials": between.size(),
        }
    )
