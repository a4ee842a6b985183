"""The networks, small to large: readout, image, text, descriptors, stacked, CLIP (paper section
2.2).

Each model is split where the two-stage protocol splits it: ``features`` is what is pre-trained (or
trained in an earlier stage), ``head`` is what is new. ``forward`` is one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from ..inputs.scaling import BlockScaler
from .backbones import ClipBackbone, ImageBackbone, TextBackbone
from .recipe import Recipe

PENULTIMATE = 256
"""Width of the features that the image and text models hand to the fusion (paper section 2.2)."""


LIMIT = 5.0
"""Where standardised descriptors are cut off, in standard deviations of the training part."""


def dense(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    """A dense layer with ReLU, BatchNorm and dropout, in the paper's order."""
    return nn.Sequential(
        nn.Linear(width_in, width_out),
        nn.ReLU(),
        nn.BatchNorm1d(width_out),
        nn.Dropout(dropout),
    )


class Readout(nn.Module):
    """Four dense layers, from a backbone's width through 256 to the outputs.

    The two widths between are assumed (the paper gives none): they fall geometrically.
    """

    def __init__(self, width: int, outputs: int, dropout: float):
        super().__init__()
        ratio = (PENULTIMATE / width) ** (1 / 3)
        widths = [width, round(width * ratio), round(width * ratio**2), PENULTIMATE]
        self.hidden = nn.Sequential(*(dense(a, b, dropout) for a, b in pairwise(widths)))
        self.last = nn.Linear(PENULTIMATE, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.hidden(features))


class ImageModel(nn.Module):
    """Image backbone and readout. ``features(image)``: (n, 3, h, w) → (n, width)."""

    inputs = ("image",)

    def __init__(self, backbone: ImageBackbone, outputs: int, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.head = Readout(backbone.width, outputs, dropout)

    def features(self, image: Tensor) -> Tensor:
        return self.backbone(image)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))

    def penultimate(self, image: Tensor) -> Tensor:
        """The 256 features before the last layer."""
        return self.head.hidden(self.features(image))


class TextModel(nn.Module):
    """Text backbone and readout. ``features(ids, mask)``: (n, length) twice → (n, width)."""

    inputs = ("input_ids", "attention_mask")

    def __init__(self, backbone: TextBackbone, outputs: int, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.head = Readout(backbone.width, outputs, dropout)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.backbone(input_ids, attention_mask)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.features(input_ids, attention_mask))

    def penultimate(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The 256 features before the last layer."""
        return self.head.hidden(self.features(input_ids, attention_mask))


class Standardised(nn.Module):
    """Numbers → numbers of one scale, as :class:`rhosight.inputs.scaling.BlockScaler` does it; a column
    that is constant in the training part becomes 0. Nothing in it is trained.

    Buffers, all of shape (columns,): ``centre`` and ``width`` of the arcsinh that draws in long
    tails (width 0: none), ``mean`` and ``std`` of what comes after it (std 0: constant).
    """

    def __init__(self, columns: int):
        super().__init__()
        for name in ("centre", "width", "mean", "std"):
            self.register_buffer(name, torch.zeros(columns))

    def fit(self, table: Tensor, linear: Tensor) -> None:
        """Learn from the training part, shape (materials, columns); ``linear`` (columns,) marks
        those that have no long tails.
        """
        learned = BlockScaler.fit(table.double().numpy(), linear.numpy())
        for name in ("centre", "width", "mean", "std"):
            getattr(self, name).copy_(torch.from_numpy(getattr(learned, name)))

    def forward(self, table: Tensor) -> Tensor:
        shift, drawn = table - self.centre, self.width > 0
        values = torch.where(drawn, torch.asinh(shift / self.width.where(drawn, 1.0)), table)
        values = (values - self.mean) / self.std.where(self.std > 0, 1.0)
        # a material unlike all others must not be a thousand standard deviations away
        return values.clamp(-LIMIT, LIMIT) * (self.std > 0)


class DescriptorNetwork(nn.Module):
    """Descriptors of a crystal, standardised, and a readout of the same form as the others'.

    ``features(descriptors)``: (n, columns) twice. There is no pre-trained part, so that the head
    is all that learns.
    """

    inputs = ("descriptors",)

    def __init__(self, columns: int, outputs: int, dropout: float):
        super().__init__()
        self.backbone = Standardised(columns)
        self.head = Readout(columns, outputs, dropout)

    def features(self, descriptors: Tensor) -> Tensor:
        return self.backbone(descriptors)

    def forward(self, descriptors: Tensor) -> Tensor:
        return self.head(self.features(descriptors))

    def penultimate(self, descriptors: Tensor) -> Tensor:
        """The 256 features before the last layer."""
        return self.head.hidden(self.features(descriptors))


class StackedModel(nn.Module):
    """Models of one modality each without their last layers, and two new layers over their
    features (Figure 5: image and text).
    """

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
    def parts(self) -> dict[str, nn.Module]:
        """Modality → the model that reads it, in the order of :attr:`inputs`."""
        found = {"image": self.image, "text": self.text, "descriptors": self.descriptors}
        return {name: part for name, part in found.items() if part is not None}

    @property
    def inputs(self) -> tuple[str, ...]:
        """What ``forward`` takes, in order."""
        return tuple(name for part in self.parts.values() for name in part.inputs)

    def features(self, *inputs: Tensor) -> Tensor:
        """Penultimate features of all parts, shape (n, 256 · parts)."""
        given = dict(zip(self.inputs, inputs, strict=True))
        found = [p.penultimate(*(given[name] for name in p.inputs)) for p in self.parts.values()]
        return torch.cat(found, dim=1)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.head(self.features(*inputs))


class DualEncoder(nn.Module):
    """An image and a text encoder with linear projections to one space: a CLIP of any two.

    The same interface as :class:`rhosight.networks.backbones.ClipBackbone`. Temperature and projections
    begin as in CLIP (Radford et al. 2021, arXiv:2103.00020, section 2.5), without bias.

    Attributes
    ----------
    width
        Length of an embedding.
    logit_scale
        Logarithm of the inverse temperature.
    """

    def __init__(self, image: ImageBackbone, text: TextBackbone, width: int):
        super().__init__()
        self.image, self.text, self.width = image, text, width
        self.image_projection = nn.Linear(image.width, width, bias=False)
        self.text_projection = nn.Linear(text.width, width, bias=False)
        for layer in (self.image_projection, self.text_projection):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def reader(self) -> TextBackbone:
        """What tokenises."""
        return self.text

    @property
    def parts(self) -> dict[str, list[nn.Module]]:
        """Its layers, by what they read; the projections belong to neither encoder."""
        return {
            "image": [self.image],
            "text": [self.text],
            "new": [self.image_projection, self.text_projection],
        }

    @property
    def encoders(self) -> list[nn.Module]:
        """The pre-trained models that it is made of."""
        return [self.image, self.text]

    def image_embedding(self, image: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] → (n, width)."""
        return self.image_projection(self.image(image))

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(n, length) twice → (n, width)."""
        return self.text_projection(self.text(input_ids, attention_mask))


class ClipModel(nn.Module):
    """A single linear layer on the embeddings of image and text (paper section 2.2, last lines).

    Both embeddings, side by side, before they are normalised: assumed.
    """

    inputs = (*ImageModel.inputs, *TextModel.inputs)

    def __init__(self, backbone: ClipBackbone | DualEncoder, outputs: int):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2 * backbone.width, outputs)

    def features(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        parts = [
            self.backbone.image_embedding(image),
            self.backbone.text_embedding(input_ids, attention_mask),
        ]
        return torch.cat(parts, dim=1)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.features(image, input_ids, attention_mask))


def modality_features(network: nn.Module) -> dict[str, Callable[..., Tensor]]:
    """What ``features`` puts side by side: modality → function of its own inputs."""
    if isinstance(network, StackedModel):
        return {name: part.penultimate for name, part in network.parts.items()}
    if isinstance(network, ClipModel):
        encoder = network.backbone
        return {"image": encoder.image_embedding, "text": encoder.text_embedding}
    names = {ImageModel: "image", TextModel: "text", DescriptorNetwork: "descriptors"}
    return {names[type(network)]: network.features}


def encoders(network: nn.Module) -> list[nn.Module]:
    """The pre-trained encoders of a model, each with a ``name`` and the hash of its weights."""
    if isinstance(network, ClipModel):
        return network.backbone.encoders
    parts = network.parts.values() if isinstance(network, StackedModel) else [network]
    return [part.backbone for part in parts if not isinstance(part, DescriptorNetwork)]


def build_encoder(
    recipe: Recipe, pretrained: bool = True, saved: Path | None = None
) -> ClipBackbone | DualEncoder:
    """The dual encoder of a recipe whose modality is ``"clip"``."""
    if recipe.clip:
        return ClipBackbone(_where(saved, "text_backbone", recipe.clip), pretrained)
    image, text = _image_backbone(recipe, pretrained, saved), _text(recipe, pretrained, saved)
    return DualEncoder(image, text, recipe.pretraining.width)


def build_model(
    recipe: Recipe, pretrained: bool = True, saved: Path | None = None, columns: int = 0
) -> nn.Module:
    """The network of a recipe.

    ``saved`` is the folder of a saved model: tokenizer and configurations come from there instead
    of from where the backbones once came from. ``columns``: how many numbers its descriptors are.
    """
    outputs, dropout = len(recipe.targets), recipe.training.dropout
    if recipe.modality == "clip":
        return ClipModel(build_encoder(recipe, pretrained, saved), outputs)
    image = text = descriptors = None
    if recipe.uses_image:
        image = ImageModel(_image_backbone(recipe, pretrained, saved), outputs, dropout)
    if recipe.uses_text:
        text = TextModel(_text(recipe, pretrained, saved), outputs, dropout)
    if recipe.descriptors:
        descriptors = DescriptorNetwork(columns, outputs, dropout)
    if len(recipe.modalities) > 1:
        return StackedModel(image, text, outputs, dropout, descriptors)
    return image or text


def _image_backbone(recipe: Recipe, pretrained: bool, saved: Path | None) -> ImageBackbone:
    return ImageBackbone(_where(saved, "image_backbone", recipe.image.backbone), pretrained)


def _text(recipe: Recipe, pretrained: bool, saved: Path | None) -> TextBackbone:
    return TextBackbone(_where(saved, "text_backbone", recipe.text.backbone), pretrained)


def _where(saved: Path | None, folder: str, name: str) -> str:
    return str(saved / folder) if saved and (saved / folder).is_dir() else name


def reader(network: nn.Module) -> TextBackbone | ClipBackbone | None:
    """What tokenises the texts of a model; None if it reads none."""
    if isinstance(network, ClipModel):
        return network.backbone.reader
    if isinstance(network, StackedModel):
        network = network.text
    return network.backbone if isinstance(network, TextModel) else None
