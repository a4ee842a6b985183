"""Colour maps of the kinds of density and the values that their colours span."""

from __future__ import annotations

import numpy as np

COLOUR_MAPS = {
    "total": "viridis",
    "promolecule": "viridis",
    "difference": "RdBu_r",
    "spin": "PuOr_r",
}
"""Kind of density → matplotlib's colour map."""

SIGNED_KINDS = ("difference", "spin")
"""Kinds of density that change sign."""


NOISE = 1e-4
"""e/Å³; a spin density that is smaller everywhere is the noise of a calculation."""


def is_noise(values: np.ndarray, kind: str) -> bool:
    """Return whether a spin density is that of a crystal without magnetisation."""
    return kind == "spin" and float(np.abs(values).max()) < NOISE


def compute_colour_limits(values: np.ndarray, kind: str) -> tuple[float, float]:
    """Return the ends of the colour scale of a slice, in the slice's unit.

    They enclose the middle 98 % of the values and are symmetric about zero for kinds that change
    sign. Noise is left without colour.
    """
    if is_noise(values, kind):
        return -100 * NOISE, 100 * NOISE
    low, high = np.quantile(values, [0.01, 0.99])
    if kind in SIGNED_KINDS:
        high = max(abs(low), abs(high))
        low = -high
    return float(low), float(high if high > low else low + 1e-6)
