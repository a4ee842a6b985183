"""The flat form of a recipe, in which models, jobs and run folders store it.

Names of jobs are hashes of this form, so its fields do not change: see :meth:`Recipe.flat` and
:meth:`Recipe.from_flat` of :class:`rhosight.networks.recipe.Recipe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLAT_FIELDS: dict[str, tuple[str, ...]] = {
    "modality": ("modality",),
    "descriptors": ("descriptors",),
    "targets": ("targets",),
    "image_backbone": ("image.backbone",),
    "text_backbone": ("text.backbone",),
    "clip": ("clip",),
    "pretraining": ("pretraining",),
    "image": ("image.settings",),
    "extent": ("text.extent",),
    "max_tokens": ("text.max_tokens",),
    "element_steps": ("text.element_steps",),
    "epochs": ("head.epochs", "fine_tuning.epochs"),
    "stacked_epochs": ("stacked.head_epochs", "stacked.fine_tuning_epochs"),
    "batch_size": ("head.batch_size", "fine_tuning.batch_size"),
    "learning_rate": ("head.learning_rate", "fine_tuning.learning_rate"),
    "image_rate": ("image.rate",),
    "text_rate": ("text.rate",),
    "stacked_factor": ("stacked.rate_factor",),
    "schedule": ("training.schedule",),
    "patience": ("head.patience", "fine_tuning.patience"),
    "early_stopping": ("training.early_stopping",),
    "inner_fraction": ("training.inner_fraction",),
    "dropout": ("training.dropout",),
    "weight_decay": ("training.weight_decay",),
    "augment": ("augmentation.enabled",),
    "shift": ("augmentation.shift",),
    "parallel": ("augmentation.parallel",),
    "views": ("augmentation.views",),
    "keep_start": ("fine_tuning.keep_start",),
    "tuned": ("fine_tuning.tuned",),
    "tuned_blocks": ("fine_tuning.tuned_blocks",),
    "lora_rank": ("fine_tuning.lora_rank",),
    "batch_statistics": ("fine_tuning.batch_statistics",),
    "precision": ("hardware.precision",),
    "compiled": ("hardware.compiled",),
    "devices": ("hardware.devices",),
    "seed": ("seed",),
}
"""Flat name → path of the field; for a pair, of the head stage's and the fine-tuning stage's."""


def flatten_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat form of a dumped recipe; fields that it leaves out stay out."""
    flat = {}
    for name, paths in FLAT_FIELDS.items():
        values = [found for path in paths for found in _look_up(fields, path)]
        if len(values) == len(paths):
            flat[name] = values[0] if len(paths) == 1 else values
    # a field that came later: jobs without it keep their names
    if not flat.get("keep_start", True):
        del flat["keep_start"]
    return flat


def nest_fields(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe from all or some of its flat form.

    Unknown names stay as they are, for the recipe to refuse.

    Raises
    ------
    ValueError, TypeError
        If a pair has not two values.
    """
    fields: dict[str, Any] = {}
    for name, value in flat.items():
        paths = FLAT_FIELDS.get(name, (name,))
        values = (value,) if len(paths) == 1 else value
        for path, part in zip(paths, values, strict=True):
            *groups, last = path.split(".")
            place = fields
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = part
    return fields


def _look_up(fields: Mapping[str, Any], path: str) -> list[Any]:
    """Return the value at a path in a list, or an empty list if it is not there."""
    place: Any = fields
    for part in path.split("."):
        if part not in place:
            return []
        place = place[part]
    return [place]
