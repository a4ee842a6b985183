"""Explain a model's predictions: ``rhosight.explain(model, materials)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

from pymatgen.core import Structure

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.provenance import codes_of, warn_of_other_codes
from .explainers import Explains, make_explainer
from .explanation import Explanation, Explanations


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
    """Explain predictions: what each modality adds, and each place, word or descriptor in it.

    Parameters
    ----------
    model
        A fitted model.
    materials
        As the model's ``predict`` takes them. A single density (or a single structure, for a model
        that needs no density) gives a single explanation.
    details
        Also look inside the modalities. Without it, only the share of each modality is computed,
        which is faster.
    background
        Materials that predictions are compared with. Default: the training set. A network does not
        keep its training set; it is found if it comes with the package.
    progress
        Called with ("explanations", done, all).

    Returns
    -------
    :class:`rhosight.explain.Explanation`, or :class:`rhosight.explain.Explanations` in the order
    given.

    Raises
    ------
    RhosightError
        If the model is not fitted, a material lacks what the model reads, or there is no
        background.
    """
    model.check_fitted()
    one = isinstance(materials, (ChargeDensity, Structure))
    if model.uses_density and isinstance(materials, (Structure, Mapping)):
        raise RhosightError("this model reads charge densities; use no-dft for structures alone")
    if isinstance(materials, Structure):
        materials = {materials.composition.reduced_formula: materials}
    elif one:
        materials = [materials]
    explainer = (
        _default_explainer(model) if background is None else make_explainer(model, background)
    )
    explanations: list[Explanation] = []
    codes: set[str] = set()
    for part in _one_by_one(materials):  # a lazy sequence reads each file at this moment
        explanations.append(explainer(part, details))
        codes |= codes_of(part)
        if progress:
            progress("explanations", len(explanations), len(materials))
    warn_of_other_codes(codes, model.about.get("codes", []), model.core_free)
    return explanations[0] if one else Explanations(explanations)


def _default_explainer(model: SavedModel) -> Explains:
    """Return the explainer with the training set as background, made once for each fit."""
    if model.explainer is None:
        model.explainer = make_explainer(model)
    return model.explainer


def _one_by_one(materials: Any) -> Iterator[Any]:
    """A dataset, a list, or name → structure, in parts of one material each."""
    if isinstance(materials, Mapping):
        yield from ({name: structure} for name, structure in materials.items())
    else:
        yield from (materials[number : number + 1] for number in range(len(materials)))
