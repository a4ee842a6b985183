"""The networks, small to large: readout, image, text, image+text (paper section 2.2, Figure 5).

Each model is split where the two-stage protocol splits it: ``features`` is what is pre-trained (or
trained in an earlier stage), ``head`` is what is new. ``forward`` is one after the other.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .backbones import ImageBackbone, TextBackbone

PENULTIMATE = 256
"""Width of the features that the image and text models hand to the fusion (paper section 2.2)."""


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


class StackedModel(nn.Module):
    """Image and text model without their last layers, and two new layers over both (Figure 5)."""

    inputs = (*ImageModel.inputs, *TextModel.inputs)

    def __init__(self, image: ImageModel, text: TextModel, outputs: int, dropout: float):
        super().__init__()
        self.image = image
        self.text = text
        self.head = nn.Sequential(
            dense(2 * PENULTIMATE, PENULTIMATE, dropout), nn.Linear(PENULTIMATE, outputs)
        )

    def features(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        parts = [self.image.penultimate(image), self.text.penultimate(input_ids, attention_mask)]
        return torch.cat(parts, dim=1)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.features(image, input_ids, attention_mask))
