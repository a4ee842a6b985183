"""Load saved models and named recipes of any kind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from ..errors import RhosightError, name_missing_extra
from ..networks.presets import network_recipe
from ..networks.recipe import Recipe
from .base import SavedModel
from .folder import BUNDLED_MODELS, DENSITY_MODEL, bundled_folder, read_config
from .gaussian_process.recipe import (
    ANY_CRYSTAL_RECIPES,
    DESCRIPTOR_RECIPES,
    ENCODER_RECIPES,
    POTENTIAL_RECIPES,
    DescriptorRecipe,
    descriptor_recipe,
    process_recipe,
)

AnyRecipe = Recipe | DescriptorRecipe

Readout = Literal["gp", "dense"]
"""What reads the encoders' features: Gaussian processes, or dense layers that are trained."""


@dataclass(frozen=True)
class ModelClass:
    """A kind of model; its module is imported when the kind is used.

    Attributes
    ----------
    module, name
        Module in this package, and class in it.
    recipe
        Recipe of the model; None if it is made of other models.
    """

    module: str
    name: str
    recipe: type[AnyRecipe] | None = None

    def load(self) -> type[SavedModel]:
        """Import the class."""
        with name_missing_extra():
            return getattr(import_module(f".{self.module}", __package__), self.name)


MODELS = {
    "descriptors": ModelClass("descriptor_model", "DescriptorModel", DescriptorRecipe),
    "combined": ModelClass("combined", "CombinedModel"),
    "network": ModelClass("property_model", "PropertyModel", Recipe),
    "ensemble": ModelClass("ensemble", "Ensemble"),
}
"""Kind in ``config.json`` → class. A new model is one module and one entry here."""


def model_for(recipe: AnyRecipe, members: int = 1) -> SavedModel:
    """Return an unfitted model of a recipe.

    Parameters
    ----------
    recipe
        The settings.
    members
        With more than one, an ensemble of networks on so many folds.

    Raises
    ------
    RhosightError
        For an ensemble of a recipe that trains no network.
    """
    if members > 1:
        if not recipe.trains_network:
            raise RhosightError("an ensemble is made of networks; give another recipe, or 1 member")
        ensemble: Any = MODELS["ensemble"].load()
        return ensemble(recipe, members)
    made: Any = next(entry for entry in MODELS.values() if entry.recipe is type(recipe)).load()
    return made(recipe)


def combine(recipe: AnyRecipe) -> SavedModel:
    """Return an unfitted model of a recipe beside a bundled model of all lattices.

    Raises
    ------
    RhosightError
        If the recipe is not one of descriptors, or has targets that the bundled model does not
        predict.
    """
    if not isinstance(recipe, DescriptorRecipe):
        raise RhosightError(
            "models of descriptors, such as best and no-dft, can be combined with structure; this "
            "recipe trains networks"
        )
    combined: Any = MODELS["combined"].load()
    return combined(recipe)


def load_model(name: str | os.PathLike) -> SavedModel:
    """Load a saved model of any kind.

    Parameters
    ----------
    name
        ``best``, ``no-dft``, ``structure``, the part of both that knows all lattices, or
        ``structure+potential``, which also reads CHGNet. These come with the package (trained on
        85 % of ``mp-elastic`` and ``mp-fcc``, see their model cards). Else a folder that
        ``save_pretrained`` wrote, or a Hugging Face hub id.

    Raises
    ------
    RhosightError
        If there is no such model, or its weights are not those that were packaged.
    """
    if name in BUNDLED_MODELS:
        name = bundled_folder(str(name))
    kind = DENSITY_MODEL if name == DENSITY_MODEL else read_config(name)[1]["kind"]
    if kind == DENSITY_MODEL:
        raise RhosightError(
            f"{name}: predicts charge densities, not properties; use `rhosight density`, or "
            "rhosight.DensityModel.from_pretrained"
        )
    if kind not in MODELS:
        raise RhosightError(
            f"{name}: a model of the unknown kind {kind!r}; known are {', '.join(MODELS)}; load it "
            "with the version of rhosight that saved it"
        )
    return MODELS[kind].load().from_pretrained(name)


def load_recipe(name: str, readout: Readout | None = None, **changes: Any) -> AnyRecipe:
    """Return a named recipe, with some fields changed.

    Parameters
    ----------
    name
        ``best``, ``no-dft``, ``structure``, ``best+potential``, ``structure+potential``, ``image``,
        ``text`` or ``image+text`` for a Gaussian process, else one of
        :func:`rhosight.networks.presets.recipe_names` for a network.
    readout
        ``"gp"``: read the encoders of a network's recipe by Gaussian processes instead of the dense
        layers, ``load_recipe("paper-stacked", readout="gp")``.
    **changes
        Fields of :class:`rhosight.DescriptorRecipe` or :class:`rhosight.Recipe`. A dict changes
        some fields of a group and keeps the others, ``load_recipe("quick", head={"epochs": 5})``.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    processes = DESCRIPTOR_RECIPES | POTENTIAL_RECIPES | ANY_CRYSTAL_RECIPES | ENCODER_RECIPES
    if name in processes:
        if readout == "dense":
            raise RhosightError(
                f"{name} is read by Gaussian processes; for dense layers take the recipe default"
            )
        return descriptor_recipe(name, **changes)
    network = network_recipe(name, **changes)
    return process_recipe(network) if readout == "gp" else network
