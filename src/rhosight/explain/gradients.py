"""Compute integrated gradients with Captum.

Sundararajan, Taly, Yan 2017, arXiv:1703.01365.

The gradient of the prediction is integrated along the straight line from a baseline to the input.
This attributes to each number of the input a contribution to the prediction. By the fundamental
theorem of calculus, the contributions sum to the difference of the two predictions. The numerical
sum is compared with this difference, and steps are added until the gap is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = 0.02
"""Largest accepted gap between the summed attributions and the difference of two predictions, in
units of the target's standard deviation."""

FIRST_STEPS, MOST_STEPS = 16, 128
"""Points of the quadrature; their number is doubled while the gap is too large."""

AT_ONCE = 16
"""Number of inputs in one forward pass."""


def integrated_gradients(
    forward: Callable[..., Tensor],
    inputs: Tensor,
    baseline: Tensor,
    outputs: int,
    arguments: Sequence[Tensor] = (),
    layer: nn.Module | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the attributions of every output to one input.

    Parameters
    ----------
    forward
        (inputs, *arguments) → (n, outputs), in units of the targets' standard deviations.
    inputs, baseline
        One input and its baseline, shape (1, ...).
    outputs
        Number of outputs.
    arguments
        Further inputs, shape (1, ...), that stay constant.
    layer
        Attribute to the output of this layer instead, for inputs that are not numerical.

    Returns
    -------
    attributions, shape (outputs, ...) like the input or the layer's output; start, shape
    (outputs,): the prediction for the baseline; gap, shape (outputs,): the change of the prediction
    minus the sum of the attributions.
    """
    from captum.attr import IntegratedGradients, LayerIntegratedGradients

    method = LayerIntegratedGradients(forward, layer) if layer else IntegratedGradients(forward)
    extra = tuple(arguments)
    with torch.no_grad():
        start, end = (forward(point, *extra)[0].cpu().numpy() for point in (baseline, inputs))
    attributions, gaps = [], []
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
        attributions.append(values)
        gaps.append(gap)
    return np.stack(attributions), start, np.array(gaps)
