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

# fixed views turn by multiples of it: no two of them coincide, whatever the crystal's symmetry
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

# and move the window by multiples of it, modulo 1: the same idea in two dimensions, with the
# plastic number (the root of x³ = x + 1) in the golden ratio's place
PLASTIC = (1 / 1.32471795724474602596, 1 / 1.32471795724474602596**2)


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
        stands, see :mod:`rhosight.inputs.text.rewording`.
    parallel
        Canvases of parallel planes, shape (planes, n, 3, …); None if there are none.
    shift
        How far augmentation moves the window along each axis, pixels of the narrowest channel.
    steps
        Pixels by which each channel moves for one of the narrowest, shape (3,); wider windows have
        wider pixels.
    descriptors
        Numbers, shape (n, columns), float32; None without.
    linear
        Which of them have no long tails, shape (columns,), bool.
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
        return len(self.descriptors) if self.input_ids is None else self.input_ids.shape[1]

    def batch(
        self, names: Sequence[str], rows: Tensor, augment: bool = False, view: int = 0
    ) -> list[Tensor]:
        """The inputs called ``names`` of these rows, in that order.

        With ``augment`` each image is turned by a random angle about its centre and reflected or
        not, its window moved and its plane replaced by a parallel one, as far as there is room and
        there are planes, and each text is in a random wording, all from torch's global generator.
        Otherwise ``view`` chooses one of the fixed turns, shifts, planes and wordings: 0 is the
        material as it stands. None of this changes the physics.
        """
        parts: dict[str, Tensor] = {}
        if "image" in names:
            parts["image"] = self._images(rows, augment, view)
        if "input_ids" in names:
            wordings = len(self.input_ids)
            wording = torch.full_like(rows, view % wordings)
            if augment:
                wording = torch.randint(wordings, rows.shape)
            mask = self.attention_mask[wording, rows]
            longest = int(mask.sum(1).max())
            parts["input_ids"] = self.input_ids[wording, rows, :longest]
            parts["attention_mask"] = mask[:, :longest]
        if "descriptors" in names:
            parts["descriptors"] = self.descriptors[rows]
        return [parts[name] for name in names]

    def _images(self, rows: Tensor, augment: bool, view: int) -> Tensor:
        """Shape (rows, 3, size, size)."""
        canvas = self.canvas[rows].float()
        if not augment and not view:
            return middle(canvas, self.size)
        count, shift, plane = len(rows), None, None
        if augment:
            angle, mirror = 2 * math.pi * torch.rand(count), torch.rand(count) < 0.5
            if self.shift:
                shift = 2 * torch.rand(count, 2) - 1
            if self.parallel is not None:
                plane = torch.randint(1 + len(self.parallel), (count,))
        else:
            angle = torch.full((count,), view * GOLDEN_ANGLE)
            mirror = torch.full((count,), view % 2 == 1)
            if self.shift:
                shift = 2 * (view * torch.tensor(PLASTIC) % 1).expand(count, 2) - 1
            if self.parallel is not None:
                plane = torch.full((count,), view % (1 + len(self.parallel)))
        if plane is not None:
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
    """Images of many densities, shape (n, 3, s, s).

    With ``margin`` the canvas is wide enough to turn the image by any angle, and to move it by the
    fraction ``shift`` of its side. ``progress`` is called with (label, done, all). ``float16``
    halves the memory of a training set.
    """
    pad = turn_margin(settings.size, shift) if margin else 0
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


def turn(
    canvas: Tensor, size: int, angle: Tensor, mirror: Tensor, shift: Tensor | None = None
) -> Tensor:
    """Each image turned about its centre by an angle (n,), radians, and reflected where ``mirror``
    (n,) is true; shape (n, 3, size, size). ``shift`` (n, 2) moves that centre on the canvas, to
    the right and down, pixels.
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
