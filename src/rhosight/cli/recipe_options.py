"""Options of the commands that train networks, and the recipe that they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RhosightError
from ..inputs.text.extents import EXTENTS
from .common import choose_targets, console, shared_options

if TYPE_CHECKING:
    from ..dataset.dataset import Dataset


class Modality(StrEnum):
    """Inputs of a network."""

    image = "image"
    text = "text"
    both = "image+text"
    clip = "clip"


Extent = StrEnum("Extent", dict(zip(EXTENTS, EXTENTS, strict=True)))  # type: ignore[misc]
"""Extents of the text, as the enumeration that Typer needs."""


class Readout(StrEnum):
    """Models that read the features of encoders."""

    gp = "gp"
    dense = "dense"


class BatchStatistics(StrEnum):
    """Statistics of batch normalisation in fine-tuning."""

    learned = "learned"
    kept = "kept"


class Tuned(StrEnum):
    """Parts of the backbones that are fine-tuned."""

    all = "all"
    last = "last"
    lora = "lora"


class Precision(StrEnum):
    """Precision of the numbers in training."""

    auto = "auto"
    single = "32-true"
    bfloat16 = "bf16-mixed"
    float16 = "16-mixed"


RECIPE_OPTIONS: dict[str, tuple] = {
    "preset": (
        str | None,
        None,
        "best or no-dft (descriptors, for hundreds of crystals of some structure types), structure "
        "(for thousands of any lattice); best+potential, structure+potential (the same with "
        "CHGNet's formation energy and bulk modulus); image, text, "
        "image+text (encoders, read by Gaussian processes); default, quick, clip-offline "
        "(networks that are trained); paper-image, "
        "paper-text, paper-stacked, paper-clip; or a trial of a table or figure of the paper, such "
        "as paper-table2-T3.",
    ),
    "recipe_file": (
        Path | None,
        None,
        "JSON file with fields of the recipe, which override the preset.",
    ),
    "modality": (Modality | None, None, "Inputs of the model."),
    "readout": (
        Readout | None,
        None,
        "What reads the encoders: Gaussian processes (gp, the default for images and texts), or "
        "dense layers that are trained, in a second stage with the encoders (dense, the paper's).",
    ),
    "fine_tune": (
        bool | None,
        None,
        "Fine-tune encoders before Gaussian processes read them. The stage is kept only where it "
        "lowers the error on held-out training materials by more than its standard error.",
    ),
    "extent": (Extent | None, None, "Extent of the text that describes each material."),
    "descriptors": (
        list[str] | None,
        None,
        "Block of descriptors to add to the model, such as magpie, total or outside; repeat for "
        "several.",
    ),
    "target": (
        list[str] | None,
        None,
        "Column to predict; repeat for several. Default: the paper's targets, or all targets if "
        "the dataset has none of them.",
    ),
    "image_backbone": (str | None, None, "Name of a timm model, or a folder."),
    "text_backbone": (str | None, None, "Name of a Hugging Face encoder, or a folder."),
    "clip": (
        str | None,
        None,
        "Name of a CLIP model on Hugging Face, or a folder; for modality clip.",
    ),
    "size": (int | None, None, "Pixels along each side of the image."),
    "epochs": (
        tuple[int, int] | None,
        None,
        "Two numbers: epochs of the head stage and of the fine-tuning stage.",
    ),
    "element_steps": (
        int | None,
        None,
        "Batches of the stage in which the text backbone learns the elements; 0 for none.",
    ),
    "pretraining_epochs": (
        int | None,
        None,
        "Epochs of the contrastive pre-training of a dual encoder (modality clip); 0 for none.",
    ),
    "tuned": (Tuned | None, None, "Part of the backbones that is fine-tuned."),
    "learning_rate": (
        tuple[float, float] | None,
        None,
        "Two numbers: peak learning rates of readouts and fusion in the two stages.",
    ),
    "image_rate": (
        float | None,
        None,
        "Peak learning rate of the image backbone in the fine-tuning stage.",
    ),
    "text_rate": (
        float | None,
        None,
        "Peak learning rate of the text backbone in the fine-tuning stage.",
    ),
    "batch_statistics": (
        BatchStatistics | None,
        None,
        "Statistics of batch normalisation in the fine-tuning stage; kept is better for few "
        "epochs.",
    ),
    "tuned_blocks": (
        int | None,
        None,
        "Number of backbone blocks that are fine-tuned with --tuned last.",
    ),
    "lora_rank": (int | None, None, "Rank of the weight updates with --tuned lora."),
    "precision": (
        Precision | None,
        None,
        "Precision of the numbers in training; auto chooses what is fast on the hardware.",
    ),
    "compiled": (
        bool | None,
        None,
        "Fine-tune with torch.compile, which needs a C++ compiler.",
    ),
    "devices": (int | None, None, "Number of processes for fine-tuning, one per GPU."),
    "seed": (int | None, None, "Random seed of the training."),
}
"""Option → type, default and help text, for commands that train property models."""

PRETRAINING_OPTIONS: dict[str, tuple] = {
    "preset": (
        str | None,
        None,
        "default, quick, clip-offline, or a preset of the paper such as paper-clip: source of "
        "backbones, images and texts.",
    ),
    **{
        name: RECIPE_OPTIONS[name]
        for name in ("recipe_file", "extent", "image_backbone", "text_backbone")
    },
    "clip": (
        str | None,
        None,
        "Name of a CLIP model on Hugging Face, or a folder, instead of both backbones.",
    ),
    "size": RECIPE_OPTIONS["size"],
    "pretraining_epochs": (int | None, None, "Epochs of the contrastive pre-training.", 1),
    **{name: RECIPE_OPTIONS[name] for name in ("precision", "seed")},
}
"""Option → type, default and help text, for pre-training without labels."""


def add_recipe_options(
    fallback: str, options: dict[str, tuple] = RECIPE_OPTIONS
) -> Callable[[Callable], Callable]:
    """Return a decorator that adds the options of a recipe to a command.

    Parameters
    ----------
    fallback
        Preset of the command if no option asks for a network.
    options
        The options; without ``target`` among them, the command trains networks only.
    """
    make = partial(_make_recipe, fallback, "target" not in options)
    return shared_options("recipe", options, make, "Recipe")


def complete_targets(recipe: Any, dataset: Dataset) -> Any:
    """Return the recipe with the dataset's targets, unless the recipe names its own."""
    if "targets" in recipe.model_fields_set or not (targets := choose_targets(dataset)):
        return recipe
    console.print(f"targets: {', '.join(targets)}")
    return recipe.model_copy(update={"targets": targets})


READING_OPTIONS = {
    *("modality", "readout", "extent", "descriptors", "image_backbone", "text_backbone", "clip"),
    *("size", "seed", "fine_tune"),
}
"""Options that mean something whatever reads the encoders; all others are for training."""


def _make_recipe(
    fallback: str,
    networks_only: bool,
    preset: str | None,
    recipe_file: Path | None,
    target: list[str] | None = None,
    **options: Any,
) -> Any:
    """Return the recipe of a command, with ``targets`` only if an option names them."""
    from ..models.gaussian_process.recipe import (
        ANY_CRYSTAL_RECIPES,
        DESCRIPTOR_RECIPES,
        ENCODER_RECIPES,
        POTENTIAL_RECIPES,
        descriptor_recipe,
    )

    given = {name: value for name, value in options.items() if value not in (None, [])}
    targets = {"targets": tuple(target)} if target else {}
    fields = _read_fields(recipe_file) if recipe_file else {}
    if "kernels" in fields:  # a sweep writes such a file
        preset, recipe_file = preset or "best", None
    for_training = sorted(set(given) - READING_OPTIONS) + ["recipe-file"] * bool(recipe_file)
    preset = preset or _choose_preset(fallback, networks_only, given, for_training)
    _check_preset(preset, networks_only)
    if preset in DESCRIPTOR_RECIPES | POTENTIAL_RECIPES | ANY_CRYSTAL_RECIPES:
        _refuse_options(preset, [*(name for name in given if name != "seed"), *for_training])
        return descriptor_recipe(preset, **(fields | targets | given))
    is_dense = given.get("readout") == "dense" or given.get("modality") == "clip"
    if preset in ENCODER_RECIPES:
        if not is_dense:
            _refuse_options(preset, for_training)
            return _make_encoder_recipe(preset, given | targets)
        given, preset = {"modality": preset, **given}, "default"
    return _make_network_recipe(preset, fields, given | targets)


def _choose_preset(
    fallback: str, networks_only: bool, given: dict[str, Any], for_training: list[str]
) -> str:
    """Return the preset that the options ask for."""
    dense = networks_only or given.get("readout") == "dense" or given.get("modality") == "clip"
    if for_training or (dense and given):
        return "default"
    if set(given) - {"seed"}:
        return str(given.get("modality", "image+text"))
    return fallback


def _make_encoder_recipe(preset: str, given: dict[str, Any]) -> Any:
    """Return the recipe of Gaussian processes that read encoders."""
    from ..models.gaussian_process.recipe import descriptor_recipe

    changes: dict[str, Any] = {
        name: given[name] for name in ("targets", "seed", "clip") if name in given
    }
    name = str(given.get("modality", preset))
    recipe = descriptor_recipe(name)
    if given.get("fine_tune"):
        changes["fine_tuning"] = {}
    image: dict[str, Any] = {}
    text: dict[str, Any] = {}
    if "image_backbone" in given:
        image["backbone"] = given["image_backbone"]
    if "size" in given and recipe.image:
        sizes = [own.model_copy(update={"size": given["size"]}) for own in recipe.image.images]
        image["images"] = [own.model_dump() for own in sizes]
    if "text_backbone" in given:
        text["backbone"] = given["text_backbone"]
    if "extent" in given:
        text["extents"] = (str(given["extent"]),)
    for part, own in (("image", image), ("text", text)):
        if own and getattr(recipe, part) is None:
            raise RhosightError(f"{name} reads no {part}; omit the options of the {part}")
        changes |= {part: own} if own else {}
    if "descriptors" in given:
        kernel = recipe.kernels[0]
        together = (*kernel.together, *given["descriptors"])
        changes["kernels"] = ({"together": together},)
    return descriptor_recipe(name, **changes)


def _make_network_recipe(preset: str, fields: dict[str, Any], given: dict[str, Any]) -> Any:
    """Return the recipe of a network, or of Gaussian processes that read its encoders."""
    from ..models.gaussian_process.recipe import process_recipe
    from ..networks.flat import nest_fields
    from ..networks.presets import network_recipe
    from ..networks.settings import merge_settings

    readout, fine_tune = given.pop("readout", None), given.pop("fine_tune", None)
    if fine_tune is not None and readout != "gp":
        raise RhosightError(
            "--fine-tune is for encoders that Gaussian processes read; networks with dense layers "
            "are fine-tuned anyway. Omit it, or add --readout gp"
        )
    size, epochs = given.pop("size", None), given.pop("pretraining_epochs", None)
    if size:
        given["image"] = {"size": size}
    if epochs is not None:
        given["pretraining"] = {"epochs": epochs}
    network = network_recipe(preset).replace(**merge_settings(fields, nest_fields(given)))
    if readout != "gp":
        return network
    return process_recipe(network, **({"fine_tuning": {}} if fine_tune else {}))


def _refuse_options(preset: str, options: list[str]) -> None:
    """Raise if a preset that trains no network got options for training."""
    if options:
        raise RhosightError(
            f"{preset} trains no network and has no option --{options[0].replace('_', '-')}; omit "
            "one of them"
        )


def _check_preset(preset: str, networks_only: bool) -> None:
    """Check that a preset exists and suits a command that may need a network."""
    from ..models.gaussian_process.recipe import (
        ANY_CRYSTAL_RECIPES,
        DESCRIPTOR_RECIPES,
        ENCODER_RECIPES,
        POTENTIAL_RECIPES,
    )
    from ..networks.presets import recipe_names
    from ..networks.recipe import suggest_names

    processes = [
        *DESCRIPTOR_RECIPES,
        *POTENTIAL_RECIPES,
        *ANY_CRYSTAL_RECIPES,
        *ENCODER_RECIPES,
    ]
    names = [*recipe_names(), *([] if networks_only else processes)]
    if preset not in (*names, *processes):
        general = [name for name in names if not name.startswith("paper-")]
        close = suggest_names(preset, names) or general
        raise RhosightError(f"unknown preset {preset!r}; similar presets are {', '.join(close)}")
    if networks_only and preset in processes:
        raise RhosightError(f"{preset} trains no network; use default, quick or clip-offline")


def _read_fields(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise RhosightError(f"{file}: not a readable JSON recipe ({error})") from error
