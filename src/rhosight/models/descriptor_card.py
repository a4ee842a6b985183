"""The text of a descriptor model's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .baselines.potential import SEEN
from .gaussian_process.recipe import DescriptorRecipe


def describe_recipe(recipe: DescriptorRecipe, about: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and Markdown text: kind of model, inputs, limits.

    Parameters
    ----------
    recipe
        Of the model.
    about
        Facts about its training.
    """
    reads = "charge density and structure" if recipe.uses_density else "structure"
    parts = []
    if recipe.blocks:
        parts.append(f"the blocks {', '.join(recipe.blocks)} of `rhosight.inputs.descriptors`")
    if recipe.uses_encoders:
        parts.append(
            f"features of its {recipe.label.replace('+', ' and ')} from several layers of "
            f"{' and '.join(recipe.weight_sources)}"
        )
    if recipe.uses_potential:
        parts.append("CHGNet's formation energy and bulk modulus")
    title = "Gaussian process" if recipe.uses_encoders else "Descriptor model"
    return title, (
        f"Reads the {reads} of a crystal: {', and '.join(parts)}. A committee of Gaussian "
        "processes predicts each target. "
        f"Intervals are conformal for {100 * recipe.level:g} %, calibrated on "
        f"{recipe.n_splits} folds of the training set, and valid for materials like it. "
        "`predict_intervals` flags materials with other elements or far from the training set. "
        "Predictions for structure types outside the training set are much less accurate.\n\n"
        f"{f'**{SEEN}.**' + 2 * chr(10) if recipe.uses_potential else ''}"
        f"{_describe_tuning(about)}{_describe_codes(recipe, about)}"
    )


def describe_combination(
    recipe: DescriptorRecipe, general: str, about: Mapping[str, Any], kept: Sequence[str]
) -> tuple[str, str]:
    """Return title and Markdown text of a special model beside a general one.

    Parameters
    ----------
    recipe
        Of the special model.
    general
        Name of the general model.
    about
        Facts about the training of the general model, and of the other under ``special``.
    kept
        Targets in which the special model takes part.
    """
    own = about["special"]
    text = describe_recipe(recipe, own)[1]
    targets = ", ".join(f"`{target}`" for target in kept) or "no target"
    return "Combined model", (
        f"Two models as one. The general one, `{general}`, has learned from {about['materials']} "
        f"structures of `{about['dataset']}`. The special one has learned from "
        f"{own['materials']} materials of `{own['dataset']}`. On folds of these it lowers the "
        f"error of {targets}. Of these, and where a crystal lies inside the domain of the special "
        "model, the prediction is the mean of both with weights 1 / variance; all else is "
        "predicted by the general model. Targets of which the test set has no label have the "
        f"scores of the general model on its own test set.\n\nThe special model: "
        f"{text[0].lower()}{text[1:]}"
    )


def _describe_tuning(about: Mapping[str, Any]) -> str:
    """Return which fine-tuned encoders are read, and why."""
    return "".join(
        f"{verdict[:1].upper()}{verdict[1:]}.\n\n" for verdict in about.get("fine_tuning", [])
    )


def _describe_codes(recipe: DescriptorRecipe, about: Mapping[str, Any]) -> str:
    """Explain how the model treats densities of other codes."""
    if not recipe.uses_density:
        return (
            "It reads no density, but volumes and distances: relax a structure as those of the "
            "training data were relaxed. Other geometries were not tested."
        )
    codes = f"Trained on densities of {', '.join(about['codes']) or 'no known code'}."
    if recipe.core_free:
        return f"{codes} It reads a density only between the atoms, where codes agree."
    return f"{codes} Other codes differ near the nuclei; prediction warns about them."
