"""Images and tokens of many materials, as the tensors that networks read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .density import ChargeDensity
from .image import ImageSettings, density_image


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the networks see of n materials.

    Attributes
    ----------
    canvas
        Images with a margin, shape (n, 3, size + 2 pad, size + 2 pad), float16; None without
        images.
    size
        Pixels of the image proper, the canvas' middle.
    input_ids, attention_mask
        Tokens, shape (n, longest); None without text.
    """

    canvas: Tensor | None = None
    size: int = 0
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.input_ids if self.canvas is None else self.canvas)

    def batch(self, names: Sequence[str], rows: Tensor, augment: bool = False) -> list[Tensor]:
        """The inputs called ``names`` of these rows, in that order.

        With ``augment`` each image is turned by a random angle about its centre and reflected or
        not, from torch's global generator. Both leave the physics unchanged.
        """
        parts: dict[str, Tensor] = {}
        if "image" in names:
            canvas = self.canvas[rows].float()
            parts["image"] = turn(canvas, self.size) if augment else middle(canvas, self.size)
        if "input_ids" in names:
            mask = self.attention_mask[rows]
            longest = int(mask.sum(1).max())
            parts["input_ids"] = self.input_ids[rows, :longest]
            parts["attention_mask"] = mask[:, :longest]
        return [parts[name] for name in names]


def draw_images(
    densities: Sequence[ChargeDensity],
    settings: ImageSettings,
    margin: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Tensor:
    """Images of many densities, shape (n, 3, s, s), float16.

    With ``margin`` the canvas is wide enough to turn the image by any angle. ``progress`` is
    called with (label, done, all).
    """
    pad = math.ceil(settings.size * (math.sqrt(2) - 1) / 2) if margin else 0
    side = settings.size + 2 * pad
    canvas = torch.empty(len(densities), 3, side, side, dtype=torch.float16)

    def draw(row: int) -> None:
        canvas[row] = torch.from_numpy(density_image(densities[row], settings, pad))

    # interpolation runs outside the interpreter lock
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for done, _ in enumerate(pool.map(draw, range(len(densities))), start=1):
            if progress:
                progress("images", done, len(densities))
    return canvas


def middle(canvas: Tensor, size: int) -> Tensor:
    """The image proper, cut from the middle of its canvas."""
    pad = (canvas.shape[-1] - size) // 2
    return canvas[..., pad : pad + size, pad : pad + size]


def turn(canvas: Tensor, size: int) -> Tensor:
    """The image, turned by a random angle and reflected with probability one half."""
    count = len(canvas)
    angle = 2 * math.pi * torch.rand(count)
    mirror = torch.where(torch.rand(count) < 0.5, 1.0, -1.0)
    scale = size / canvas.shape[-1]
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    zero = torch.zeros(count)
    rows = [
        torch.stack([cosine * mirror, -sine, zero], 1),
        torch.stack([sine * mirror, cosine, zero], 1),
    ]
    places = functional.affine_grid(
        torch.stack(rows, 1), [count, canvas.shape[1], size, size], align_corners=False
    )
    return functional.grid_sample(canvas, places, padding_mode="reflection", align_corners=False)
