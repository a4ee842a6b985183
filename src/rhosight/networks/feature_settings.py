"""Settings of the features that Gaussian processes read from encoders."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..inputs.image import Channel, ImageSettings
from ..inputs.text.extents import Extent
from .settings import FineTuning, Group, HeadStage
from .weights import DEFAULT_IMAGE, DEFAULT_TEXT

Statistic = Literal["mean", "max", "std"]

PLANES = ((1, 1, 1), (1, 0, 0), (1, 1, 0))
"""Planes of the conventional cell, one for each channel of an image of several planes."""


def three_planes(kind: Literal["total", "difference"], size: int = 160) -> ImageSettings:
    """Return the settings of an image whose channels are three planes of one density."""
    channels = tuple(Channel(kind=kind, window=8.0, hkl=hkl) for hkl in PLANES)
    return ImageSettings(size=size, channels=channels, interpolation="spline")


class ImageFeatures(Group):
    """The images that are read, and the layers of the encoder that read them.

    Attributes
    ----------
    backbone
        See :mod:`rhosight.networks.backbones`.
    images
        The images of each density. Their features are separate blocks.
    turns
        Number of turns and reflections of each image over which features are averaged: the
        orientation of a crystal is not physics.
    layers
        Number of layers whose outputs are read, spread evenly over the depth of the encoder.
    statistics
        Statistics of each layer's output over the positions of the image.
    """

    backbone: str = DEFAULT_IMAGE
    images: tuple[ImageSettings, ...] = Field(
        (three_planes("total"), three_planes("difference")), min_length=1
    )
    turns: int = Field(2, ge=1)
    layers: int = Field(5, ge=1)
    statistics: tuple[Statistic, ...] = Field(("mean", "std"), min_length=1)


class TextFeatures(Group):
    """The texts that are read, and the layers of the encoder that read them.

    Attributes
    ----------
    backbone
        See :mod:`rhosight.networks.backbones`.
    extents
        The descriptions of each crystal. Their features are separate blocks.
    max_tokens
        Tokens of a text that the encoder reads; None for as many as it can read.
    layers
        Number of layers whose outputs are read, spread evenly over the depth of the encoder.
    statistics
        Statistics of each layer's output over the tokens of the text.
    lesson
        Whether the bundled encoder has learned the elements' properties, see
        :mod:`rhosight.training.elements`. Other encoders are read as they are.
    """

    backbone: str = DEFAULT_TEXT
    extents: tuple[Extent, ...] = Field(("keywords", "all"), min_length=1)
    max_tokens: int | None = Field(None, ge=3)
    layers: int = Field(3, ge=1)
    statistics: tuple[Statistic, ...] = Field(("mean",), min_length=1)
    lesson: bool = True


class GentleStage(FineTuning):
    """The fine-tuning stage of a network, with defaults that change an encoder little."""

    epochs: int = Field(3, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    keep_start: bool = True
    tuned: Literal["all", "last", "lora"] = "last"
    tuned_blocks: int = Field(3, ge=1)
    batch_statistics: Literal["learned", "kept"] = "kept"


class EncoderTuning(Group):
    """Fine-tuning of encoders before Gaussian processes read them.

    The paper's two stages train the encoder of the first image, and that of the first text, with
    dense layers that are dropped afterwards. The stage is kept only where the Gaussian process that
    reads the encoder then predicts held-out materials of the training set better, see
    :mod:`rhosight.models.encoder_tuning`.

    Attributes
    ----------
    head
        The stage in which dense layers learn from the encoder as it is.
    stage
        The stage in which the encoder learns, too.
    image_rate, text_rate
        Peak learning rates of the encoders in this stage.
    views
        Number of fixed turns of an image, or wordings of a text, that dense layers learn from.
    judging
        Fraction of the training set on which the epoch is chosen and the stage is judged.
    margin
        Standard errors by which the squared error on these materials must fall for the stage to be
        kept. A large negative number keeps it in any case.
    """

    head: HeadStage = HeadStage(epochs=30)
    stage: GentleStage = GentleStage()
    image_rate: float = Field(1e-4, gt=0)
    text_rate: float = Field(1e-4, gt=0)
    views: int = Field(2, ge=1)
    judging: float = Field(0.2, gt=0, lt=0.5)
    margin: float = 1.0
