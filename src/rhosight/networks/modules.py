"""The networks, small to large (paper section 2.2).

Each network is split where the two-stage protocol splits it: ``features`` is what is pre-trained
(or trained in an earlier stage), ``head`` is what is new. ``forward`` is one after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from .backbones import ClipBackbone, Encoder, ImageBackbone, TextBackbone, TextEncoder
from .dual_encoder import AnyDualEncoder, DualEncoder
from .layers import PENULTIMATE, Readout, Standardised, dense
from .recipe import Recipe


class Network(nn.Module, ABC):
    """A network in two parts: trained ``features`` and a new ``head``.

    ``features`` is pre-trained, or was trained before.
    """

    head: nn.Module

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """The inputs that ``forward`` takes, in order."""

    @abstractmethod
    def features(self, *inputs: Tensor) -> Tensor:
        """Return what the head reads, shape (n, width)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return standardised predictions, shape (n, targets)."""
        return self.head(self.features(*inputs))

    @property
    def parts(self) -> Mapping[str, Branch]:
        """Modality → network that this one is stacked from; empty unless stacked."""
        return {}

    @property
    def encoders(self) -> list[Encoder]:
        """The pre-trained encoders, each with a ``name`` and the hash of its ``weights``."""
        return []

    @property
    def reader(self) -> TextEncoder | None:
        """The object that tokenises the network's texts; None if it reads no text."""
        return None

    @property
    def dual_encoder(self) -> AnyDualEncoder | None:
        """The encoder that contrastive pre-training trains; None if there is none."""
        return None

    @property
    @abstractmethod
    def modality_features(self) -> dict[str, Callable[..., Tensor]]:
        """Modality → function of its inputs; ``features`` joins the results side by side."""

    @property
    def heads(self) -> list[nn.Module]:
        """The readouts: its own, and those of the networks that it is stacked from."""
        return [self.head, *(part.head for part in self.parts.values())]

    def fit_descriptors(self, table: Tensor, linear: Tensor) -> None:
        """Fit the scaling of descriptors, if the network reads any.

        Parameters
        ----------
        table
            Descriptors of the training set, shape (materials, columns).
        linear
            Columns without long tails, shape (columns,), bool.
        """
        for part in self.parts.values():
            part.fit_descriptors(table, linear)

    def freeze_unused(self) -> None:
        """Exclude weights from training that no prediction depends on."""
        return

    @abstractmethod
    def tuning_rates(self, recipe: Recipe) -> list[tuple[nn.Module, float]]:
        """Return the modules that learn in fine-tuning, each with its peak learning rate."""


class Branch(Network):
    """A network of one modality: a backbone and a readout.

    Attributes
    ----------
    modality
        ``"image"``, ``"text"`` or ``"descriptors"``.
    """

    modality: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    backbone: nn.Module
    head: Readout

    def __init__(self, backbone: nn.Module, width: int, outputs: int, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.head = Readout(width, outputs, dropout)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that ``forward`` takes, in order."""
        return self.names

    def features(self, *inputs: Tensor) -> Tensor:
        """Return the features of the backbone, shape (n, width)."""
        return self.backbone(*inputs)

    def penultimate(self, *inputs: Tensor) -> Tensor:
        """Return the features before the last layer, shape (n, 256)."""
        return self.head.hidden(self.features(*inputs))

    @property
    def modality_features(self) -> dict[str, Callable[..., Tensor]]:
        """Modality → ``features``."""
        return {self.modality: self.features}

    def backbone_rate(self, recipe: Recipe) -> float | None:
        """Return the peak learning rate of the backbone; None if nothing of it learns."""
        return None

    def tuning_rates(self, recipe: Recipe) -> list[tuple[nn.Module, float]]:
        """Return backbone and head, each with its peak learning rate."""
        rate = self.backbone_rate(recipe)
        backbone = [] if rate is None else [(self.backbone, rate)]
        return [*backbone, (self.head, recipe.fine_tuning.learning_rate)]


class ImageModel(Branch):
    """Image backbone and readout. ``features(image)``: (n, 3, h, w) → (n, width)."""

    modality = "image"
    names = ("image",)
    backbone: ImageBackbone

    def __init__(self, backbone: ImageBackbone, outputs: int, dropout: float):
        super().__init__(backbone, backbone.width, outputs, dropout)

    @property
    def encoders(self) -> list[Encoder]:
        """The image backbone."""
        return [self.backbone]

    def backbone_rate(self, recipe: Recipe) -> float:
        """Return the peak learning rate of the image backbone."""
        return recipe.image.rate


class TextModel(Branch):
    """Text backbone, readout. ``features(ids, mask)``: (n, length) twice → (n, width)."""

    modality = "text"
    names = ("input_ids", "attention_mask")
    backbone: TextBackbone

    def __init__(self, backbone: TextBackbone, outputs: int, dropout: float):
        super().__init__(backbone, backbone.width, outputs, dropout)

    @property
    def encoders(self) -> list[Encoder]:
        """The text backbone."""
        return [self.backbone]

    @property
    def reader(self) -> TextEncoder:
        """The text backbone, which tokenises."""
        return self.backbone

    def backbone_rate(self, recipe: Recipe) -> float:
        """Return the peak learning rate of the text backbone."""
        return recipe.text.rate


class DescriptorNetwork(Branch):
    """Standardised descriptors of a crystal, and a readout like that of the others.

    ``features(descriptors)``: (n, columns) twice. It has no pre-trained part, so only the head
    learns.
    """

    modality = "descriptors"
    names = ("descriptors",)
    backbone: Standardised

    def __init__(self, columns: int, outputs: int, dropout: float):
        super().__init__(Standardised(columns), columns, outputs, dropout)

    def fit_descriptors(self, table: Tensor, linear: Tensor) -> None:
        """Fit the scaling of the descriptors."""
        self.backbone.fit(table, linear)


class StackedModel(Network):
    """Single-modality networks without their last layers, and two new layers on top.

    The paper's Figure 5 has image and text.
    """

    head: nn.Sequential

    def __init__(
        self,
        image: ImageModel | None,
        text: TextModel | None,
        outputs: int,
        dropout: float,
        descriptors: DescriptorNetwork | None = None,
    ):
        super().__init__()
        self.image, self.text, self.descriptors = image, text, descriptors
        self.head = nn.Sequential(
            dense(len(self.parts) * PENULTIMATE, PENULTIMATE, dropout),
            nn.Linear(PENULTIMATE, outputs),
        )

    @property
    def parts(self) -> dict[str, Branch]:
        """Modality → network that reads it, in the order of :attr:`inputs`."""
        parts = (self.image, self.text, self.descriptors)
        return {part.modality: part for part in parts if part is not None}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that ``forward`` takes, in order."""
        return tuple(name for part in self.parts.values() for name in part.inputs)

    def features(self, *inputs: Tensor) -> Tensor:
        """Return the penultimate features of all parts, shape (n, 256 · parts)."""
        given = dict(zip(self.inputs, inputs, strict=True))
        features = [
            part.penultimate(*(given[name] for name in part.inputs)) for part in self.parts.values()
        ]
        return torch.cat(features, dim=1)

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders of all parts."""
        return [encoder for part in self.parts.values() for encoder in part.encoders]

    @property
    def reader(self) -> TextEncoder | None:
        """The text backbone, which tokenises; None if there is none."""
        return None if self.text is None else self.text.reader

    @property
    def modality_features(self) -> dict[str, Callable[..., Tensor]]:
        """Modality → penultimate features of its part."""
        return {name: part.penultimate for name, part in self.parts.items()}

    def tuning_rates(self, recipe: Recipe) -> list[tuple[nn.Module, float]]:
        """Return the modules that learn, all more slowly than with a single modality."""
        slow = recipe.stacked.rate_factor
        rate = recipe.fine_tuning.learning_rate * slow
        rates = ((part.backbone, part.backbone_rate(recipe)) for part in self.parts.values())
        modules: list[tuple[nn.Module, float]] = [
            (backbone, own * slow) for backbone, own in rates if own is not None
        ]
        modules += [(part.head.hidden, rate) for part in self.parts.values()]
        return [*modules, (self.head, rate)]


class ClipModel(Network):
    """One linear layer on the image and text embeddings (paper, end of section 2.2).

    It reads both embeddings side by side, before they are normalised: assumed.
    """

    names: ClassVar[tuple[str, ...]] = (*ImageModel.names, *TextModel.names)

    def __init__(self, backbone: AnyDualEncoder, outputs: int):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2 * backbone.width, outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that ``forward`` takes, in order."""
        return self.names

    def features(self, *inputs: Tensor) -> Tensor:
        """Return both embeddings side by side, shape (n, 2 · width)."""
        image, input_ids, attention_mask = inputs
        parts = [
            self.backbone.image_embedding(image),
            self.backbone.text_embedding(input_ids, attention_mask),
        ]
        return torch.cat(parts, dim=1)

    @property
    def encoders(self) -> list[Encoder]:
        """The pre-trained encoders of the dual encoder."""
        return self.backbone.encoders

    @property
    def dual_encoder(self) -> AnyDualEncoder:
        """The dual encoder."""
        return self.backbone

    @property
    def reader(self) -> TextEncoder:
        """The encoder that tokenises."""
        return self.backbone.reader

    @property
    def modality_features(self) -> dict[str, Callable[..., Tensor]]:
        """Modality → its embedding."""
        encoder = self.backbone
        return {"image": encoder.image_embedding, "text": encoder.text_embedding}

    def freeze_unused(self) -> None:
        """Exclude the temperature from training; only the contrastive loss depends on it."""
        self.backbone.logit_scale.requires_grad_(False)

    def tuning_rates(self, recipe: Recipe) -> list[tuple[nn.Module, float]]:
        """Return the layers of the dual encoder and the head, each with its learning rate."""
        rate = recipe.fine_tuning.learning_rate
        rates = {"image": recipe.image.rate, "text": recipe.text.rate, "new": rate}
        modules = [
            (part, rates[name]) for name, parts in self.backbone.parts.items() for part in parts
        ]
        return [*modules, (self.head, rate)]


def build_encoder(
    recipe: Recipe, pretrained: bool = True, saved: Path | None = None
) -> AnyDualEncoder:
    """Return the dual encoder of a recipe whose modality is ``"clip"``."""
    if recipe.clip:
        return ClipBackbone(_locate(saved, "text_backbone", recipe.clip), pretrained)
    image = _build_image(recipe, pretrained, saved)
    text = _build_text(recipe, pretrained, saved)
    return DualEncoder(image, text, recipe.pretraining.width)


def build_model(
    recipe: Recipe, pretrained: bool = True, saved: Path | None = None, columns: int = 0
) -> Network:
    """Return the network of a recipe.

    Parameters
    ----------
    recipe
        Its settings.
    pretrained
        Load the weights of the backbones.
    saved
        Folder of a saved model, whose tokenizer and configurations are used instead of those of
        the original backbones.
    columns
        Number of descriptors.
    """
    outputs, dropout = len(recipe.targets), recipe.training.dropout
    if recipe.modality == "clip":
        return ClipModel(build_encoder(recipe, pretrained, saved), outputs)
    image = text = descriptors = None
    if recipe.uses_image:
        image = ImageModel(_build_image(recipe, pretrained, saved), outputs, dropout)
    if recipe.uses_text:
        text = TextModel(_build_text(recipe, pretrained, saved), outputs, dropout)
    if recipe.descriptors:
        descriptors = DescriptorNetwork(columns, outputs, dropout)
    if len(recipe.modalities) > 1:
        return StackedModel(image, text, outputs, dropout, descriptors)
    network = image or text
    assert network is not None  # a recipe reads images or texts
    return network


def _build_image(recipe: Recipe, pretrained: bool, saved: Path | None) -> ImageBackbone:
    return ImageBackbone(_locate(saved, "image_backbone", recipe.image.backbone), pretrained)


def _build_text(recipe: Recipe, pretrained: bool, saved: Path | None) -> TextBackbone:
    return TextBackbone(_locate(saved, "text_backbone", recipe.text.backbone), pretrained)


def _locate(saved: Path | None, folder: str, name: str) -> str:
    """Return the folder of a backbone in a saved model, or the backbone's own name."""
    return str(saved / folder) if saved and (saved / folder).is_dir() else name
