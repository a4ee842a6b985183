"""A CLIP made of any image encoder and any text encoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .backbones import ClipBackbone, Encoder, ImageBackbone, TextBackbone, TextEncoder


class DualEncoder(nn.Module):
    """An image and a text encoder projected linearly to one space: a CLIP of any two.

    It has the interface of :class:`rhosight.networks.backbones.ClipBackbone`. Temperature and
    projections begin as in CLIP (Radford et al. 2021, arXiv:2103.00020, section 2.5), without bias.

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
    def reader(self) -> TextEncoder:
        """The text encoder, which tokenises."""
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
    def encoders(self) -> list[Encoder]:
        """The two pre-trained encoders."""
        return [self.image, self.text]

    def image_embedding(self, image: Tensor) -> Tensor:
        """Return the embeddings (n, width) of images (n, 3, h, w) in [-1, 1]."""
        return self.image_projection(self.image(image))

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings (n, width) of tokens and their mask, (n, length) each."""
        return self.text_projection(self.text(input_ids, attention_mask))


AnyDualEncoder = ClipBackbone | DualEncoder
"""An encoder of images and texts with the same interface: a CLIP of the hub, or one of two."""
