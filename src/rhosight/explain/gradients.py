"""Integrated gradients (Sundararajan, Taly, Yan 2017, arXiv:1703.01365) through Captum.

From a baseline to the input along a straight line, the gradient is integrated: what each number of
the input adds to the prediction. By the fundamental theorem of calculus the sum is the difference
of the two predictions; how far the numerical sum misses it is checked, and steps are added until
it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 0.02
"""Of a target's spread: what attributions may miss of the difference of two predictions."""

FIRST_STEPS, MOST_STEPS = 16, 128
"""Points of the quadrature, doubled from the first to the last as long as the gap is too large."""

AT_ONCE = 16
"""Inputs that pass through a model together."""


def integrated_gradients(
    forward: Callable[..., Tensor],
    inputs: Tensor,
    baseline: Tensor,
    outputs: int,
    arguments: Sequence[Tensor] = (),
    layer: nn.Module | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attributions of one input to every output.

    Parameters
    ----------
    forward
        (inputs, *arguments) → (n, outputs), in units of the targets' spread.
    inputs, baseline
        One input and what it is compared with, shape (1, ...).
    outputs
        Number of outputs.
    arguments
        Further inputs, shape (1, ...), that stay as they are.
    layer
        Attribute to the output of this layer instead, for inputs that are no numbers.

    Returns
    -------
    attributions, shape (outputs, ...) as the input, or as the layer's output; start, shape
    (outputs,): the prediction for the baseline; gap, shape (outputs,): the change of the prediction
    less the sum of the attributions.
    """
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

    method = LayerIntegratedGradients(forward, layer) if layer else IntegratedGradients(forward)
    extra = tuple(arguments)
    with torch.no_grad():
        start, end = (forward(point, *extra)[0].cpu().numpy() for point in (baseline, inputs))
    found, gaps = [], []
    for number in range(outputs):
        steps = FIRST_STEPS
        while True:
            values = method.attribute(
                inputs,
                baseline,
                target=number,
                additional_forward_args=extra or None,
                n_steps=steps,
                internal_batch_size=AT_ONCE,
            )
            values = values[0].detach().cpu().numpy()
            gap = float(end[number] - start[number] - values.sum(dtype=float))
            if abs(gap) <= TOLERANCE or steps >= MOST_STEPS:
                break
            steps *= 2
        found.append(values)
        gaps.append(gap)
    return np.stack(found), start, np.array(gaps)
