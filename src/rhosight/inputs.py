"""Images and tokens of many materials, as the tensors that networks read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from .density import ChargeDensity
from .image import ImageSettings, density_image, turn_margin

# fixed views turn by multiples of it: no two of them coincide, whatever the crystal's symmetry
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the networks see of n materials.

    Attributes
    ----------
    canvas
        Images with a margin, shape (n, 3, size + 2 pad, size + 2 pad), float16 or float32; None
        without images.
    size
        Pixels of the image proper, the canvas' middle.
    input_ids, attention_mask
        Tokens, shape (wordings, n, longest); None without text. The first wording is the text as it
        stands, see :mod:`rhosight.rewording`.
    """

    canvas: Tensor | None = None
    size: int = 0
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None

    def __len__(self) -> int:
        return self.input_ids.shape[1] if self.canvas is None else len(self.canvas)

    def batch(
        self, names: Sequence[str], rows: Tensor, augment: bool = False, view: int = 0
    ) -> list[Tensor]:
        """The inputs called ``names`` of these rows, in that order.

        With ``augment`` each image is turned by a random angle about its centre and reflected or
        not, and each text is in a random wording, from torch's global generator. Otherwise
        ``view`` chooses one of the fixed turns and wordings: 0 is the material as it stands. None
        of this changes the physics.
        """
        parts: dict[str, Tensor] = {}
        if "image" in names:
            canvas = self.canvas[rows].float()
            if augment:
                angle, mirror = 2 * math.pi * torch.rand(len(rows)), torch.rand(len(rows)) < 0.5
                parts["image"] = turn(canvas, self.size, angle, mirror)
            elif view:
                angle = torch.full((len(rows),), view * GOLDEN_ANGLE)
                mirror = torch.full((len(rows),), view % 2 == 1)
                parts["image"] = turn(canvas, self.size, angle, mirror)
            else:
                parts["image"] = middle(canvas, self.size)
        if "input_ids" in names:
            wordings = len(self.input_ids)
            wording = torch.full_like(rows, view % wordings)
            if augment:
                wording = torch.randint(wordings, rows.shape)
            mask = self.attention_mask[wording, rows]
            longest = int(mask.sum(1).max())
            parts["input_ids"] = self.input_ids[wording, rows, :longest]
            parts["attention_mask"] = mask[:, :longest]
        return [parts[name] for name in names]


def draw_images(
    densities: Sequence[ChargeDensity],
    settings: ImageSettings,
    margin: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    dtype: torch.dtype = torch.float16,
) -> Tensor:
    """Images of many densities, shape (n, 3, s, s).

    With ``margin`` the canvas is wide enough to turn the image by any angle. ``progress`` is
    called with (label, done, all). ``float16`` halves the memory of a training set.
    """
    pad = turn_margin(settings.size) if margin else 0
    side = settings.size + 2 * pad
    canvas = torch.empty(len(densities), 3, side, side, dtype=dtype)

    def draw(row: int) -> None:
        canvas[row] = torch.from_numpy(density_image(densities[row], settings, pad))

    # the numerical work runs outside the interpreter lock; threads within threads would only wait
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for done, _ in enumerate(pool.map(draw, range(len(densities))), start=1):
            if progress:
                progress("images", done, len(densities))
    return canvas


def middle(canvas: Tensor, size: int) -> Tensor:
    """The image proper, cut from the middle of its canvas."""
    pad = (canvas.shape[-1] - size) // 2
    return canvas[..., pad : pad + size, pad : pad + size]


def turn(canvas: Tensor, size: int, angle: Tensor, mirror: Tensor) -> Tensor:
    """Each image turned about its centre by an angle (n,), radians, and reflected where ``mirror``
    (n,) is true; shape (n, 3, size, size)."""
    count = len(canvas)
    sign = torch.where(mirror, -1.0, 1.0)
    scale = size / canvas.shape[-1]
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    zero = torch.zeros(count)
    rows = [
        torch.stack([cosine * sign, -sine, zero], 1),
        torch.stack([sine * sign, cosine, zero], 1),
    ]
    places = functional.affine_grid(
        torch.stack(rows, 1), [count, canvas.shape[1], size, size], align_corners=False
    )
    return functional.grid_sample(canvas, places, padding_mode="reflection", align_corners=False)
