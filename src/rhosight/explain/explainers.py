"""Choose the explainer for a kind of model.

The explainer of networks loads Lightning and transformers, which takes seconds; explaining a
Gaussian process does without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..models.base import SavedModel
from ..models.combined import CombinedModel
from ..models.descriptor_model import DescriptorModel
from .pieces import Explainer

if TYPE_CHECKING:
    from ..models.property_model import PropertyModel


def make_explainer(model: SavedModel, background: Dataset | None = None) -> Explainer:
    """Return the explainer of a fitted model.

    Raises
    ------
    RhosightError
        If this kind of model has no explainer, or there is no background.
    """
    model.check_fitted()
    if isinstance(model, CombinedModel):
        from .combined_explainer import CombinedExplainer

        return CombinedExplainer(model, background)
    if isinstance(model, DescriptorModel):
        from .process_explainer import ProcessExplainer

        return ProcessExplainer(model, background)
    if model.kind == "network":
        from .network_explainer import NetworkExplainer

        return NetworkExplainer(cast("PropertyModel", model), background)
    raise RhosightError(
        "an ensemble cannot be explained as a whole; explain one of its `networks`, or load the "
        "folder member-1 inside its own folder with load_model"
    )
