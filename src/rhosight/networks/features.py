"""Read features of images and texts from several layers of pre-trained encoders.

The output of an encoder's last layer is made for the task of its pre-training. Earlier layers hold
edges, shapes and textures, or words and their neighbours, and small data learn from them what the
last layer has dropped. Each layer's output is summarised by statistics over the positions of the
image or the text.

>>> reader = ImageReader(ImageFeatures(), ImageBackbone())
>>> reader.read(images, 160)  # layer → (materials, features)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import RhosightError
from ..inputs.tensors import crop_middle, fixed_turn, turn
from .backbones import ClipBackbone, ImageBackbone, TextBackbone, TextEncoder
from .feature_settings import ImageFeatures, TextFeatures
from .lesson import apply_lesson, lesson_hash

IMAGE_BATCH, TEXT_BATCH = 16, 16


def spread_layers(count: int, available: int) -> list[int]:
    """Return the indices of ``count`` layers, the last among them.

    They are spread evenly over the depth; all layers if there are not that many.
    """
    count = min(count, available)
    return [math.ceil((number + 1) * available / count) - 1 for number in range(count)]


class ImageReader:
    """Reads features of images from the layers of an image encoder.

    Parameters
    ----------
    settings
        Which encoder, layers and turns.
    encoder
        The image encoder, or a CLIP whose image tower is read.

    Attributes
    ----------
    weights
        SHA-256 of the encoder's weights.
    """

    def __init__(self, settings: ImageFeatures, encoder: ImageBackbone | ClipBackbone):
        self.settings = settings
        self.encoder = encoder.eval()
        self.weights = self.encoder.weights
        self._device = find_device()
        self.encoder.to(self._device)

    def read(self, canvas: Tensor, size: int) -> list[np.ndarray]:
        """Return the features of n images, one array (n, features) for each layer.

        Parameters
        ----------
        canvas
            Images with a margin for turns, shape (n, 3, s, s), values in [-1, 1].
        size
            Pixels along each side of the images in the middle of the canvas.
        """
        turns = self.settings.turns
        parts: list[list[Tensor]] = []
        for images in canvas.float().split(IMAGE_BATCH):
            seen = [
                [
                    summarise(layer, self.settings.statistics)
                    for layer in self._layers(turn_images(images, size, number))
                ]
                for number in range(turns)
            ]
            parts.append([torch.stack(turned).mean(0) for turned in zip(*seen, strict=True)])
        return [torch.cat(layer).cpu().numpy() for layer in zip(*parts, strict=True)]

    @torch.inference_mode()
    def _layers(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the layers, (n, channels, positions) each."""
        encoder, images = self.encoder, images.to(self._device)
        pixels = ((images + 1.0) / 2.0 - encoder.mean) / encoder.std
        if isinstance(encoder, ClipBackbone):
            output = encoder.model.vision_model(pixels, output_hidden_states=True)
            return select_hidden(output.hidden_states, self.settings.layers)
        model: Any = encoder.model
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        outputs = read_stages(model, pixels, self.settings.layers, encoder.name)
        return [output.flatten(2) for output in outputs]


class TextReader:
    """Reads features of texts from the layers of a text encoder.

    Parameters
    ----------
    settings
        Which encoder, layers and texts.
    encoder
        The text encoder, which takes the lesson here, or a CLIP whose text tower is read.

    Attributes
    ----------
    weights
        SHA-256 of the encoder's weights, and of the lesson that it has taken.
    """

    def __init__(self, settings: TextFeatures, encoder: TextEncoder):
        self.settings = settings
        self.encoder = encoder.eval()
        self.weights = encoder.weights
        if settings.lesson and isinstance(encoder, TextBackbone) and lesson_hash(encoder.name):
            apply_lesson(encoder)
            self.weights += f" and {lesson_hash(encoder.name)}"
        self._device = find_device()
        self.encoder.to(self._device)

    @torch.inference_mode()
    def read(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the features of n texts, one array (n, features) for each layer."""
        limit = min(self.settings.max_tokens or 10**9, self.encoder.max_tokens)
        ids, mask = self.encoder.tokenize(texts, limit)
        order = mask.sum(1).argsort()  # padding costs as much as text
        parts: list[list[Tensor]] = []
        for rows in order.split(TEXT_BATCH):
            longest = int(mask[rows].sum(1).max())
            tokens = ids[rows, :longest].to(self._device)
            shown = mask[rows, :longest].to(self._device)
            model = self.encoder.model
            model = model.text_model if isinstance(self.encoder, ClipBackbone) else model
            output = model(input_ids=tokens, attention_mask=shown, output_hidden_states=True)
            layers = select_hidden(output.hidden_states, self.settings.layers)
            parts.append([summarise(layer, self.settings.statistics, shown) for layer in layers])
        back = order.argsort()
        return [torch.cat(layer).cpu()[back].numpy() for layer in zip(*parts, strict=True)]


def find_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def turn_images(canvas: Tensor, size: int, number: int) -> Tensor:
    """Return one of the fixed turns; 0 is the original, every second is reflected."""
    if number == 0:
        return crop_middle(canvas, size)
    return turn(canvas, size, *fixed_turn(number, len(canvas)))


def summarise(layer: Tensor, statistics: Sequence[str], mask: Tensor | None = None) -> Tensor:
    """Return statistics over positions side by side, (n, statistics · channels).

    Parameters
    ----------
    layer
        Shape (n, channels, positions).
    statistics
        Of ``mean``, ``max`` and ``std``.
    mask
        Positions that count, shape (n, positions); all by default.
    """
    weight = torch.ones_like(layer[:, :1]) if mask is None else mask.unsqueeze(1).to(layer.dtype)
    mean = (layer * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
    results = {"mean": mean.squeeze(2)}
    if "max" in statistics:
        results["max"] = layer.masked_fill(weight == 0, -torch.inf).amax(2)
    if "std" in statistics:
        squares = (layer - mean) ** 2 * weight
        results["std"] = (squares.sum(2) / weight.sum(2).clamp(min=1)).sqrt()
    return torch.cat([results[name] for name in statistics], 1).float()


def select_hidden(states: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return the outputs of some layers, (n, channels, positions) each.

    The first of the ``states`` is the embedding, which is not a layer.
    """
    layers = states[1:]
    return [layers[index].transpose(1, 2) for index in spread_layers(count, len(layers))]


def read_stages(model: Any, pixels: Tensor, count: int, name: str) -> list[Tensor]:
    """Return the outputs of some stages, (n, channels, height, width) each."""
    stages = getattr(model, "feature_info", None)
    if not stages or not hasattr(model, "forward_intermediates"):
        raise RhosightError(
            f"{name}: timm names no stages of this encoder, so its layers cannot be read; choose "
            "another image backbone"
        )
    chosen = spread_layers(count, len(stages))
    return model.forward_intermediates(pixels, indices=chosen, intermediates_only=True)
