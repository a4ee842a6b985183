"""Explain a model's predictions: ``rhosight.explain(model, materials)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, overload

from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.materials import as_crystals, as_densities, is_one_crystal
from ..models.provenance import find_codes, warn_of_other_codes
from .explainers import make_explainer
from .explanation import Explanation, Explanations
from .pieces import Explainer


@overload
def explain(
    model: SavedModel,
    materials: ChargeDensity | Structure,
    details: bool = True,
    background: Dataset | None = None,
    progress: Progress | None = None,
) -> Explanation: ...
@overload
def explain(
    model: SavedModel,
    materials: Any,
    details: bool = True,
    background: Dataset | None = None,
    progress: Progress | None = None,
) -> Explanations: ...
def explain(
    model: SavedModel,
    materials: Any,
    details: bool = True,
    background: Dataset | None = None,
    progress: Progress | None = None,
) -> Explanation | Explanations:
    """Explain predictions by the contributions of modalities and of their parts.

    Parameters
    ----------
    model
        A fitted model.
    materials
        Materials in any form that the model's ``predict`` accepts. A single density or its file
        (or a single structure, for a model that needs no density) gives a single explanation.
    details
        Also attribute predictions to the parts of modalities: places on the slices, words,
        descriptors. Without details only the modalities are computed, which is faster.
    background
        Materials that predictions are compared with; the training set by default. A network does
        not store its training set; by default it is taken from the bundled dataset of that name.
    progress
        Called with ("explanations", done, all).

    Returns
    -------
    :class:`rhosight.explain.Explanation`, or :class:`rhosight.explain.Explanations` in the order of
    the materials.

    Raises
    ------
    RhosightError
        If the model is not fitted, a material lacks data that the model reads, or there is no
        background.
    """
    model.check_fitted()
    is_one = is_one_crystal(materials)
    materials = as_densities(materials) if model.uses_density else as_crystals(materials)
    explainer = _choose_explainer(model, background)
    explanations: list[Explanation] = []
    codes: set[str] = set()
    for part in _split_materials(materials):  # a lazy sequence reads one file at a time
        explanation = explainer(part, details)
        if notes := _list_predicted(part):
            explanation = replace(explanation, notes=(*explanation.notes, *notes))
        explanations.append(explanation)
        codes |= find_codes(part)
        if progress:
            progress("explanations", len(explanations), len(materials))
    warn_of_other_codes(codes, model.about.get("codes", []), model.core_free)
    is_single = is_one and len(materials) == 1 and not isinstance(materials, Dataset)
    return explanations[0] if is_single else Explanations(explanations)


def _choose_explainer(model: SavedModel, background: Dataset | None) -> Explainer:
    """Return the explainer for a background, created once for each fit and background."""
    if model.explainer is None or model.explainer[0] is not background:
        model.explainer = background, make_explainer(model, background)
    return model.explainer[1]


def _list_predicted(part: Any) -> list[str]:
    """Return a note for each density that a model predicted."""
    abouts = (
        part.provenances
        if isinstance(part, Dataset)
        else (getattr(one, "provenance", {}) for one in part)
    )
    return [str(about["predicted"]) for about in abouts if "predicted" in about]


def _split_materials(materials: Any) -> Iterator[Any]:
    """Yield parts of one material each from a dataset, a list, or name → structure."""
    if isinstance(materials, Mapping):
        yield from ({name: structure} for name, structure in materials.items())
    else:
        yield from (materials[number : number + 1] for number in range(len(materials)))
