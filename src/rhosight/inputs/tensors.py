"""Images and tokens of many materials, as the tensors that networks read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from ..density.charge_density import ChargeDensity
from .image import ImageSettings, density_image, turn_margin
from .progress import Progress

# Fixed views turn by multiples of it: no two of them coincide, whatever the crystal's symmetry
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

# Fixed views shift the window by multiples of it, modulo 1: the same idea in two dimensions, with
# the plastic number (the root of x³ = x + 1) instead of the golden ratio
PLASTIC = (1 / 1.32471795724474602596, 1 / 1.32471795724474602596**2)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of the networks for n materials.

    Attributes
    ----------
    canvas
        Images with a margin, shape (n, 3, size + 2 pad, size + 2 pad), float16 or float32; None
        without images.
    size
        Pixels along each side of the image, the middle of the canvas.
    input_ids, attention_mask
        Tokens, shape (wordings, n, longest); None without text. The first wording is the original
        text, see :mod:`rhosight.inputs.text.rewording`.
    parallel
        Canvases of parallel planes, shape (planes, n, 3, …); None if there are none.
    shift
        Largest shift of the window along each axis by augmentation, pixels of the narrowest
        channel.
    steps
        Pixels by which each channel shifts for one of the narrowest, shape (3,); wider windows have
        wider pixels.
    descriptors
        Shape (n, columns), float32; None without descriptors.
    linear
        Marks descriptors without long tails, shape (columns,), bool.
    """

    canvas: Tensor | None = None
    size: int = 0
    input_ids: Tensor | None = None
    attention_mask: Tensor | None = None
    parallel: Tensor | None = None
    shift: float = 0.0
    steps: tuple[float, float, float] = (1.0, 1.0, 1.0)
    descriptors: Tensor | None = None
    linear: Tensor | None = None

    def __len__(self) -> int:
        if self.canvas is not None:
            return len(self.canvas)
        if self.input_ids is not None:
            return self.input_ids.shape[1]
        return 0 if self.descriptors is None else len(self.descriptors)

    def batch(
        self, names: Sequence[str], rows: Tensor, augment: bool = False, view: int = 0
    ) -> list[Tensor]:
        """Return the inputs called ``names`` for some rows, in that order.

        Parameters
        ----------
        names
            Of ``image``, ``input_ids`` (which includes the attention mask) and ``descriptors``.
        rows
            Indices of the materials.
        augment
            Turn each image by a random angle about its centre, reflect it at random, shift its
            window and choose a parallel plane at random (if there is a margin and there are
            planes), and choose a random wording of each text, all by torch's global generator.
            None of this changes the physics.
        view
            Without ``augment``: one of the fixed turns, shifts, planes and wordings; 0 is the
            original.
        """
        parts: dict[str, Tensor] = {}
        if "image" in names:
            parts["image"] = self._draw_views(rows, augment, view)
        if "input_ids" in names:
            assert self.input_ids is not None and self.attention_mask is not None
            wordings = len(self.input_ids)
            wording = torch.full_like(rows, view % wordings)
            if augment:
                wording = torch.randint(wordings, rows.shape)
            mask = self.attention_mask[wording, rows]
            longest = int(mask.sum(1).max())
            parts["input_ids"] = self.input_ids[wording, rows, :longest]
            parts["attention_mask"] = mask[:, :longest]
        if "descriptors" in names:
            assert self.descriptors is not None
            parts["descriptors"] = self.descriptors[rows]
        return [parts[name] for name in names]

    def _draw_views(self, rows: Tensor, augment: bool, view: int) -> Tensor:
        """Return images of shape (rows, 3, size, size)."""
        assert self.canvas is not None
        canvas = self.canvas[rows].float()
        if not augment and not view:
            return crop_middle(canvas, self.size)
        count, shift, plane = len(rows), None, None
        if augment:
            angle, mirror = 2 * math.pi * torch.rand(count), torch.rand(count) < 0.5
            if self.shift:
                shift = 2 * torch.rand(count, 2) - 1
            if self.parallel is not None:
                plane = torch.randint(1 + len(self.parallel), (count,))
        else:
            angle, mirror = fixed_turn(view, count)
            if self.shift:
                shift = 2 * (view * torch.tensor(PLASTIC) % 1).expand(count, 2) - 1
            if self.parallel is not None:
                plane = torch.full((count,), view % (1 + len(self.parallel)))
        if plane is not None and self.parallel is not None:
            other = plane > 0
            canvas[other] = self.parallel[plane[other] - 1, rows[other]].float()
        if shift is None:
            return turn(canvas, self.size, angle, mirror)
        # channels whose pixels are equally wide move together
        moved = [
            turn(canvas[:, [c]], self.size, angle, mirror, self.shift * step * shift)
            for c, step in enumerate(self.steps)
        ]
        return torch.cat(moved, dim=1)


def draw_images(
    densities: Sequence[ChargeDensity],
    settings: ImageSettings,
    margin: bool = False,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float16,
    shift: float = 0.0,
) -> Tensor:
    """Draw the images of many densities.

    Parameters
    ----------
    densities
        n densities.
    settings
        Settings of the images.
    margin
        Make the canvas wide enough to turn the image by any angle, and to shift it by the fraction
        ``shift`` of its side.
    progress
        Called with ("images", done, n).
    dtype
        ``float16`` halves the memory of a training set.
    shift
        See ``margin``.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, s, s).
    """
    pad = turn_margin(settings.size, shift) if margin else 0
    side = settings.size + 2 * pad
    canvas = torch.empty(len(densities), 3, side, side, dtype=dtype)

    def draw(row: int) -> None:
        canvas[row] = torch.from_numpy(density_image(densities[row], settings, pad))

    # the numerical work releases the interpreter lock; nested threads would only wait
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for done, _ in enumerate(pool.map(draw, range(len(densities))), start=1):
            if progress:
                progress("images", done, len(densities))
    return canvas


def crop_middle(canvas: Tensor, size: int) -> Tensor:
    """Return the image in the middle of its canvas."""
    pad = (canvas.shape[-1] - size) // 2
    return canvas[..., pad : pad + size, pad : pad + size]


def fixed_turn(view: int, count: int) -> tuple[Tensor, Tensor]:
    """Return angle (radians) and reflection of a fixed view for ``count`` images."""
    return torch.full((count,), view * GOLDEN_ANGLE), torch.full((count,), view % 2 == 1)


def turn(
    canvas: Tensor, size: int, angle: Tensor, mirror: Tensor, shift: Tensor | None = None
) -> Tensor:
    """Turn each image about its centre, reflect it, and crop it from its canvas.

    Parameters
    ----------
    canvas
        Shape (n, channels, side, side).
    size
        Pixels along each side of the result.
    angle
        Radians, shape (n,).
    mirror
        Whether to reflect each image, shape (n,), bool.
    shift
        Shift of the centre on the canvas to the right and down, pixels, shape (n, 2).

    Returns
    -------
    torch.Tensor
        Shape (n, channels, size, size).
    """
    count = len(canvas)
    sign = torch.where(mirror, -1.0, 1.0)
    scale = size / canvas.shape[-1]
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    zero = torch.zeros(count)
    x, y = (zero, zero) if shift is None else (shift * (2 / canvas.shape[-1])).unbind(1)
    rows = [
        torch.stack([cosine * sign, -sine, x], 1),
        torch.stack([sine * sign, cosine, y], 1),
    ]
    places = functional.affine_grid(
        torch.stack(rows, 1), [count, canvas.shape[1], size, size], align_corners=False
    )
    return functional.grid_sample(canvas, places, padding_mode="reflection", align_corners=False)
