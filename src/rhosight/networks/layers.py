"""The layers that the networks add to pre-trained encoders."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..inputs.scaling import BlockScaler

PENULTIMATE = 256
"""Width of the features that the image and text models pass to the fusion (paper section 2.2)."""

LIMIT = 5.0
"""Largest standardised descriptor, in standard deviations of the training set."""


def dense(width_in: int, width_out: int, dropout: float) -> nn.Sequential:
    """Return a dense layer with ReLU, BatchNorm and dropout, in the paper's order."""
    return nn.Sequential(
        nn.Linear(width_in, width_out),
        nn.ReLU(),
        nn.BatchNorm1d(width_out),
        nn.Dropout(dropout),
    )


class Readout(nn.Module):
    """Four dense layers, from a backbone's width through 256 to the outputs.

    The two inner widths are assumed (the paper gives none): they decrease geometrically.
    """

    def __init__(self, width: int, outputs: int, dropout: float):
        super().__init__()
        ratio = (PENULTIMATE / width) ** (1 / 3)
        widths = [width, round(width * ratio), round(width * ratio**2), PENULTIMATE]
        self.hidden = nn.Sequential(*(dense(a, b, dropout) for a, b in pairwise(widths)))
        self.last = nn.Linear(PENULTIMATE, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return the outputs (n, outputs) of features (n, width)."""
        return self.last(self.hidden(features))


class Standardised(nn.Module):
    """Numbers scaled as by :class:`rhosight.inputs.scaling.BlockScaler`, untrained.

    A column that is constant in the training set becomes 0.

    Buffers, all of shape (columns,): ``centre`` and ``width`` of the arcsinh that shortens long
    tails (width 0: none), ``mean`` and ``std`` of its result (std 0: constant).
    """

    centre: Tensor
    width: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, columns: int):
        super().__init__()
        for name in ("centre", "width", "mean", "std"):
            self.register_buffer(name, torch.zeros(columns))

    def fit(self, table: Tensor, linear: Tensor) -> None:
        """Learn the scaling of a training set, shape (materials, columns).

        ``linear`` (columns,) marks the columns without long tails.
        """
        scaler = BlockScaler.fit(table.double().numpy(), linear.numpy())
        for name in ("centre", "width", "mean", "std"):
            getattr(self, name).copy_(torch.from_numpy(getattr(scaler, name)))

    def forward(self, table: Tensor) -> Tensor:
        """Return the scaled table, limited to ±5."""
        shift, drawn = table - self.centre, self.width > 0
        values = torch.where(drawn, torch.asinh(shift / self.width.where(drawn, 1.0)), table)
        values = (values - self.mean) / self.std.where(self.std > 0, 1.0)
        # a material unlike all others must not be a thousand standard deviations away
        return values.clamp(-LIMIT, LIMIT) * (self.std > 0)
