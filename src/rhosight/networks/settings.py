"""The groups of settings that a recipe is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import RhosightError
from ..inputs.image import ImageSettings
from ..inputs.text.extents import Extent
from .weights import DEFAULT_IMAGE, DEFAULT_TEXT

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]

AnySettings = TypeVar("AnySettings", bound=BaseModel)


def validate_settings(kind: type[AnySettings], fields: Mapping[str, Any]) -> AnySettings:
    """Return settings of a kind; RhosightError names the first wrong field."""
    try:
        return kind(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))  # empty if fields contradict each other
        message = ": ".join(filter(None, ("recipe", where, problem["msg"])))
        raise RhosightError(message) from error


def merge_settings(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with changes merged into their groups.

    A dict is merged into a group field by field; any other value, a settings object included,
    replaces what is there.
    """
    merged = dict(fields)
    for name, change in changes.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(change, Mapping):
            merged[name] = merge_settings(old, change)
        else:
            merged[name] = change
    return merged


class Group(BaseModel):
    """Settings of one purpose: immutable, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageBranch(Group):
    """The image that a network reads, and its encoder.

    Attributes
    ----------
    backbone
        See :mod:`rhosight.networks.backbones`.
    settings
        See :class:`rhosight.inputs.image.ImageSettings`.
    rate
        Peak learning rate of the backbone in the fine-tuning stage.
    """

    backbone: str = DEFAULT_IMAGE
    settings: ImageSettings = ImageSettings()
    rate: float = Field(5e-4, ge=0)


class TextBranch(Group):
    """The text that a network reads, and its encoder.

    Attributes
    ----------
    backbone
        See :mod:`rhosight.networks.backbones`.
    extent
        How much text: ``"formula"``, ``"keywords"`` or ``"all"``.
    max_tokens
        Tokens of a text that the encoder reads; None for as many as it can read.
    element_steps
        Batches of made-up descriptions from which the text backbone first learns the elements'
        properties, see :mod:`rhosight.training.elements`; 0 skips this, as in the paper. The
        bundled backbone is not taught again: with any number above 0 it gets the lesson that comes
        with the package (:mod:`rhosight.networks.lesson`).
    rate
        Peak learning rate of the backbone in the fine-tuning stage.
    """

    backbone: str = DEFAULT_TEXT
    extent: Extent = "keywords"
    max_tokens: int | None = Field(None, ge=3)
    element_steps: int = Field(300, ge=0)
    rate: float = Field(2e-4, ge=0)


class Augmentation(Group):
    """Random changes of images and texts in training that leave the physics unchanged.

    Attributes
    ----------
    enabled
        Turn and reflect the images and reword the texts at random in training.
    shift
        Also move the window within its plane, along each axis by up to this fraction of the side
        of the narrowest channel. All channels move by the same length, so their windows must have
        one unit. A normalisation that depends on the image is computed from the unmoved window.
    parallel
        Also show parallel planes at these distances from those of the channels, in interplanar
        spacings. Each plane adds a canvas of its own to the memory that images take.
    views
        Number of fixed turns (shifts, planes) of each image and of wordings of each text. The head
        stage learns from all of them, and a prediction is their mean. One view is used if
        augmentation is not enabled.
    """

    enabled: bool = True
    shift: float = Field(0.0, ge=0, le=0.5)
    parallel: tuple[float, ...] = ()
    views: int = Field(6, ge=1)


class HeadStage(Group):
    """The first stage: readout and fusion learn from the features of frozen backbones.

    Attributes
    ----------
    epochs
        0 skips the stage.
    batch_size
        Materials in a batch.
    learning_rate
        Peak learning rate.
    patience
        Epochs without improvement after which the stage stops.
    """

    epochs: int = Field(60, ge=0)
    batch_size: int = Field(32, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    patience: int = Field(20, ge=0)


class FineTuning(Group):
    """The second stage: the backbones learn together with readout and fusion.

    Attributes
    ----------
    epochs
        0 skips the stage.
    batch_size
        Materials in a batch.
    learning_rate
        Peak learning rate of readout and fusion; the backbones have their own, ``image.rate`` and
        ``text.rate``.
    patience
        Epochs without improvement after which the stage stops.
    keep_start
        Also consider the weights with which the stage begins when selecting the best epoch, so that
        fine-tuning is kept only where the watched materials prefer it. The stacked model always
        does.
    tuned
        Which part of the backbones learns: ``"all"``, ``"last"`` (only the last ``tuned_blocks``:
        stages of an image backbone as timm groups them, layers of a transformer) or ``"lora"``
        (only updates of rank ``lora_rank``), see :mod:`rhosight.networks.adapters`.
    tuned_blocks, lora_rank
        Used with ``tuned`` ``"last"`` and ``"lora"``.
    batch_statistics
        Statistics of the image backbone's batch normalisation. ``"learned"`` from the batches,
        which differ from those of the pre-training: the readout has to be learned again, and is
        better after a dozen epochs or more. ``"kept"``: fine-tuning continues where the head stage
        ended, which is better after few epochs; use learning rates of 1e-4 with it.
    """

    epochs: int = Field(16, ge=0)
    batch_size: int = Field(16, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    patience: int = Field(12, ge=0)
    keep_start: bool = False
    tuned: Literal["all", "last", "lora"] = "all"
    tuned_blocks: int = Field(2, ge=1)
    lora_rank: int = Field(8, ge=1)
    batch_statistics: Literal["learned", "kept"] = "learned"


class Stacking(Group):
    """Training of the stacked model, whose parts are already fine-tuned.

    Its other settings are those of the two stages.

    Attributes
    ----------
    head_epochs, fine_tuning_epochs
        Epochs of its two stages; 0 skips a stage.
    rate_factor
        Scales all learning rates of its fine-tuning stage.
    """

    head_epochs: int = Field(40, ge=0)
    fine_tuning_epochs: int = Field(3, ge=0)
    rate_factor: float = Field(0.1, gt=0)


class Training(Group):
    """Settings that both stages of training share.

    Attributes
    ----------
    schedule
        ``"one-cycle"`` (Smith and Topin, arXiv:1708.07120) or ``"constant"``.
    early_stopping
        ``"inner"``: watch an inner split of the training set. ``"validation"``: watch the
        validation fold, as the paper seems to; its validation scores are then optimistic.
    inner_fraction
        Fraction of the training set in the inner split.
    dropout
        Fraction of the values that each dense layer of readout and fusion drops in training
        (assumed).
    weight_decay
        Weight decay of AdamW (assumed).
    """

    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    early_stopping: Literal["inner", "validation"] = "inner"
    inner_fraction: float = Field(0.12, gt=0, lt=0.5)
    dropout: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)


class Hardware(Group):
    """Use of the processors; only the last digits of a result depend on it.

    Attributes
    ----------
    precision
        Of training, as Lightning names it. ``"auto"``: bfloat16 where a GPU has it, float16 on
        other GPUs, float32 on CPUs, which are rarely faster otherwise.
    compiled
        Fine-tune through ``torch.compile``, which needs a C++ compiler; the last digits change.
    devices
        Processes for fine-tuning, each on a GPU if there are GPUs and else on the CPU. They share
        every batch. The order of summation changes, and so do the last digits.
    """

    precision: Precision = "auto"
    compiled: bool = False
    devices: int = Field(1, ge=1)


class Pretraining(Group):
    """Pre-training of a dual encoder to match images and texts.

    Used if the modality is ``"clip"``. No labels are used. Within a cross-validation each fold
    pre-trains on its own training set only.

    Attributes
    ----------
    epochs
        0 skips pre-training.
    batch_size
        Number of pairs that are told apart at a time.
    width
        Dimension of the space that images and texts share; a CLIP of the hub has its own.
    learning_rate
        Peak rate of the projections and the temperature.
    image_rate, text_rate
        Peak rates of the encoders.
    patience
        Epochs without improvement after which pre-training stops.
    weights
        Folder that ``rhosight pretrain`` wrote with the recipe's own backbones: start from it
        instead. A model that started from it cannot be scored on materials it has seen.
    """

    epochs: int = Field(20, ge=0)
    batch_size: int = Field(64, ge=2)
    width: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    image_rate: float = Field(3e-4, gt=0)
    text_rate: float = Field(1e-4, gt=0)
    patience: int = Field(10, ge=1)
    weights: str | None = None
