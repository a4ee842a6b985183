"""Is what is said to matter what matters? Take it away and see.

The pieces of an input (patches of the slices, words, descriptors) are taken away one after the
other, those with the largest attributions first, and the prediction moves. If attributions mean
something, it moves sooner than when pieces go in a random order (the deletion curve of Petsiuk,
Das, Saenko 2018, arXiv:1806.07421). What is missing is replaced by what attributions start from:
the mean image, masks, mean descriptors.

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
"""Of the pieces, that are taken away; more points where curves are steep."""


def deletion_curves(
    model: SavedModel,
    materials: Dataset,
    modality: str,
    orders: int = 5,
    seed: int = 0,
    background: Dataset | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """How far predictions move as pieces of the input are taken away.

    Parameters
    ----------
    model
        Fitted, on other materials.
    materials
        To look at.
    modality
        ``image`` or ``text`` of a network that reads it; ``descriptors`` of a descriptor model.
    orders
        Random orders for each material.
    seed
        Of these.
    background
        See :func:`rhosight.explain`.
    progress
        Called with ("deletion", done, all).

    Returns
    -------
    DataFrame, one row a material, target, order and share: material_id, target, order
    (``attribution``, ``random 1`` …), deleted (share of the pieces), change (of the prediction, in
    standard deviations of the target, no sign).
    """
    explainer = make_explainer(model, background)
    rng = np.random.default_rng(seed)
    rows = []
    for number, name in enumerate(materials.ids):
        pieces = explainer.pieces(materials[number : number + 1], modality)
        count = pieces.attributions.shape[1]
        taken = np.rint(SHARES * count).astype(int)
        drawn = [rng.permutation(count) for _ in range(orders)]
        chosen = np.argsort(-np.abs(pieces.attributions), axis=1, kind="stable")
        ranks = np.argsort([*chosen, *drawn], axis=1)
        gone = ranks[:, None, :] < taken[:, None]
        predicted = pieces.predict(gone.reshape(-1, count)).reshape(len(ranks), len(taken), -1)
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
    """Areas under deletion curves, as :func:`deletion_curves` returns them.

    Returns
    -------
    DataFrame indexed by target: ``attribution`` and ``random``, mean areas over the materials, in
    standard deviations of the target; ``between``, their difference, and ``error``, its standard
    error; ``ahead``, the share of materials where the attributions' area is larger than the mean of
    the random ones; ``materials``, how many.
    """
    groups = curves.groupby(["target", "material_id", "order"], sort=False)
    area = groups.apply(
        lambda curve: trapezoid(curve["change"], curve["deleted"]), include_groups=False
    ).unstack("order")
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
