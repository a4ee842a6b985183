"""Load saved models and named recipes of any kind."""

from __future__ import annotations

import os
from typing import Any

from ..networks.presets import network_recipe
from ..networks.recipe import Recipe
from .base import SavedModel
from .folder import BUNDLED_MODELS, bundled_folder, read_config
from .gaussian_process.recipe import DESCRIPTOR_RECIPES, DescriptorRecipe, descriptor_recipe


def load_model(name: str | os.PathLike) -> SavedModel:
    """Load any model.

    Parameters
    ----------
    name
        ``best`` or ``no-dft``, which come with the package (trained on 85 % of ``mp-fcc``, see
        their cards), a folder that ``save_pretrained`` wrote, or a Hugging Face hub id.

    Raises
    ------
    RhosightError
        If there is no such model, or its weights are not those that were packaged.
    """
    from .descriptor_model import DescriptorModel

    if name in BUNDLED_MODELS:
        return DescriptorModel.from_pretrained(bundled_folder(str(name)))
    kind = read_config(name)[1]["kind"]
    if kind == DescriptorModel.kind:
        return DescriptorModel.from_pretrained(name)
    from .ensemble import Ensemble
    from .property_model import PropertyModel

    return (Ensemble if kind == Ensemble.kind else PropertyModel).from_pretrained(name)


def load_recipe(name: str, **changes: Any) -> Recipe | DescriptorRecipe:
    """Return a named recipe, with some fields changed.

    Parameters
    ----------
    name
        ``best`` or ``no-dft`` for a Gaussian process, else one of
        :func:`rhosight.networks.presets.recipe_names` for a network.
    **changes
        Fields of :class:`rhosight.DescriptorRecipe` or :class:`rhosight.Recipe`. A dict changes
        some fields of a group and keeps the others, ``load_recipe("quick", head={"epochs": 5})``.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    if name in DESCRIPTOR_RECIPES:
        return descriptor_recipe(name, **changes)
    return network_recipe(name, **changes)
