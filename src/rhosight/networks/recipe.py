"""A recipe: all settings of a network and its training.

>>> network_recipe("paper-clip", targets=("efermi",))
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ..dataset.schema import TARGETS
from ..errors import RhosightError
from ..inputs.descriptors.blocks import ALL_BLOCKS
from .flat import flatten_fields, nest_fields
from .settings import (
    Augmentation,
    FineTuning,
    Group,
    Hardware,
    HeadStage,
    ImageBranch,
    Pretraining,
    Stacking,
    TextBranch,
    Training,
    merge_settings,
    validate_settings,
)

Modality = Literal["image", "text", "image+text", "clip"]
FINE_TUNING = "fine-tuning"
STAGES = ("head", FINE_TUNING)
"""Stages in which each model is trained, in order."""

PARTS = ("train", "validation", "test")
"""Sets of materials on which models are scored."""

MODALITIES: tuple[str, ...] = (
    "image",
    "text",
    "descriptors",
    "image+text",
    "image+descriptors",
    "text+descriptors",
    "image+text+descriptors",
    "clip",
)
"""Names of the models that a recipe trains, in the order in which tables show them."""


def suggest_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that a misspelled one may stand for, whatever its case."""
    known = {other.lower(): other for other in names}
    return [known[close] for close in difflib.get_close_matches(name.lower(), known, n=3)]


class Recipe(Group):
    """All settings of a network and its training; stored with every model and report.

    The settings are grouped by purpose. A group may be given as a dict with some of its fields;
    the others keep their defaults, ``Recipe(head={"epochs": 20}, fine_tuning={"epochs": 4})``.

    The paper's recipes (:func:`rhosight.networks.presets.recipe_names`) take from it: the
    backbones, the readout of four dense layers, its two stages, standardised targets, one slice of
    the difference, z-scored; of CLIP the batch size, learning rate, patience and patches of Tables
    2 and 3. Where it gives no value, the default is ours. So these are assumed:

    - optimiser (AdamW), its rates, weight decay and schedule, and the loss (Huber);
    - epochs, and the batch size of all but CLIP;
    - dropout, and the widths of the two inner layers of the readout;
    - the image's window, orientation and offset
      (:meth:`rhosight.inputs.image.ImageSettings.paper`), and grey images for the stacked model;
    - early stopping on the validation fold;
    - readouts that drop nothing and keep their statistics in fine-tuning, and a stacked model that
      may keep the weights with which its fine-tuning began;
    - for CLIP, a linear layer that reads both projected embeddings before they are normalised, and
      fine-tuning of all weights at once, at one constant rate, for at most 200 epochs;
    - a seed and a split of its own for each of the three runs of Table 1.

    Attributes
    ----------
    modality
        ``"image"``, ``"text"``, ``"image+text"`` (trains the other two first) or ``"clip"`` (one
        linear layer on a dual encoder).
    descriptors
        Blocks of numbers (:data:`rhosight.inputs.descriptors.blocks.ALL_BLOCKS`: composition,
        statistics of the density, descriptors of its shape) that join the image and text networks:
        a network of their own, and the stacked model of all. Not with ``"clip"``.
    targets
        Columns of the dataset, predicted together by one network; missing labels are masked.
    clip
        Hub id or folder of a CLIP model. None: a dual encoder of ``image.backbone`` and
        ``text.backbone``, which only ``pretraining`` brings together.
    pretraining
        See :class:`rhosight.networks.settings.Pretraining`.
    image, text
        What is read and by which backbone, see :class:`rhosight.networks.settings.ImageBranch` and
        :class:`rhosight.networks.settings.TextBranch`.
    augmentation
        See :class:`rhosight.networks.settings.Augmentation`.
    head, fine_tuning
        The two stages, see :class:`rhosight.networks.settings.HeadStage` and
        :class:`rhosight.networks.settings.FineTuning`.
    stacked
        See :class:`rhosight.networks.settings.Stacking`.
    training
        See :class:`rhosight.networks.settings.Training`.
    hardware
        See :class:`rhosight.networks.settings.Hardware`.
    seed
        Fixes initial weights, order, dropout, augmentation and the inner split.
    """

    trains_network: ClassVar[bool] = True

    modality: Modality = "image+text"
    descriptors: tuple[str, ...] = ()
    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    clip: str | None = None
    pretraining: Pretraining = Pretraining()
    image: ImageBranch = ImageBranch()
    text: TextBranch = TextBranch()
    augmentation: Augmentation = Augmentation()
    head: HeadStage = HeadStage()
    fine_tuning: FineTuning = FineTuning()
    stacked: Stacking = Stacking()
    training: Training = Training()
    hardware: Hardware = Hardware()
    seed: int = 0

    @field_validator("descriptors")
    @classmethod
    def _check_blocks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in ALL_BLOCKS]:
            raise ValueError(f"no block is called {unknown[0]!r}; known: {', '.join(ALL_BLOCKS)}")
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        augmentation, image = self.augmentation, self.image.settings
        if self.descriptors and self.modality == "clip":
            raise ValueError("descriptors join image and text networks, not clip; leave one out")
        if (augmentation.shift or augmentation.parallel) and not augmentation.enabled:
            raise ValueError(
                "augmentation.shift and augmentation.parallel need augmentation.enabled; set it, "
                "or leave them out"
            )
        if augmentation.shift and image.fourier:
            raise ValueError(
                "a Fourier image cannot be shifted; leave out augmentation.shift or "
                "image.settings.fourier"
            )
        if augmentation.shift and len({channel.unit for channel in image.channels}) > 1:
            raise ValueError("augmentation.shift needs channels whose windows have one unit")
        return self

    def replace(self, **changes: Any) -> Self:
        """Return the recipe with some fields changed.

        Parameters
        ----------
        **changes
            Fields. A dict changes some fields of a group and keeps the others,
            ``replace(head={"epochs": 5})``; a settings object replaces the group.

        Raises
        ------
        RhosightError
            If a field is unknown or its value is wrong.
        """
        fields = merge_settings(self.model_dump(exclude_unset=True), changes)
        return validate_settings(type(self), fields)

    def flat(self, exclude_none: bool = False) -> dict[str, Any]:
        """Return the form in which recipes are stored and jobs are named, as JSON values.

        It has one level and names of its own, see :data:`rhosight.networks.flat.FLAT_FIELDS`.
        """
        return flatten_fields(self.model_dump(mode="json", exclude_none=exclude_none))

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Return the recipe of a flat form; fields that it leaves out have their defaults.

        Raises
        ------
        ValueError, TypeError
            If a field is unknown or its value is wrong.
        """
        return cls(**nest_fields(flat))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The models that are trained, in order; the last is that of the whole recipe."""
        parts = (*self.modality.split("+"), *(("descriptors",) if self.descriptors else ()))
        return parts if len(parts) == 1 else (*parts, "+".join(parts))

    @property
    def label(self) -> str:
        """The name of the whole recipe's model in tables and folders."""
        return self.modalities[-1]

    @property
    def watches_validation(self) -> bool:
        """True if early stopping uses the validation fold, so its scores are optimistic."""
        return self.training.early_stopping == "validation"

    @property
    def weight_sources(self) -> tuple[str, ...]:
        """Names or folders that weights are loaded from."""
        names = (self.image.backbone, self.text.backbone, self.clip, self.pretraining.weights)
        return tuple(name for name in names if name)

    @property
    def pretrained_folder(self) -> str | None:
        """The folder of the pre-trained dual encoder that training begins with, if any."""
        return self.pretraining.weights if self.modality == "clip" else None

    @property
    def uses_image(self) -> bool:
        """True if a network reads images."""
        return self.modality != "text"

    @property
    def uses_text(self) -> bool:
        """True if a network reads texts."""
        return self.modality != "image"

    @property
    def views(self) -> int:
        """The number of fixed views over which predictions are averaged."""
        return self.augmentation.views if self.augmentation.enabled else 1

    @property
    def pretrains(self) -> bool:
        """True if training begins with contrastive pre-training on its own materials."""
        settings = self.pretraining
        return self.modality == "clip" and settings.weights is None and settings.epochs > 0

    def epochs(self, stacked: bool = False) -> tuple[int, int]:
        """Return the epochs of the two stages, of the stacked model or of any other."""
        if stacked:
            return self.stacked.head_epochs, self.stacked.fine_tuning_epochs
        return self.head.epochs, self.fine_tuning.epochs

    def require_training(self) -> None:
        """Raise RhosightError if the last model would stay as it began."""
        stacked = len(self.modalities) > 1
        if not any(self.epochs(stacked)):
            names = (
                "stacked.head_epochs and stacked.fine_tuning_epochs"
                if stacked
                else "head.epochs and fine_tuning.epochs"
            )
            raise RhosightError(f"recipe: {names} are 0: nothing would be trained; raise one")
