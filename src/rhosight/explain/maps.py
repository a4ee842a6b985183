"""Maps of attributions on a slice of the density."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure

from ..density.plane import LatticePlane
from ..inputs.image import Channel


@dataclass(frozen=True, eq=False)
class SliceMap:
    """Attributions of a network's prediction to the places on one slice.

    Attributes
    ----------
    channel
        Settings of the slice.
    density
        Density on the slice, e/Å³, shape (pixels, pixels); row 0 is the top, as in an image.
    values
        Target → attribution, in the target's unit per Å² (per Å⁻² of a Fourier transform), same
        shape as ``density``.
    half
        Half the side of the map, Å (Å⁻¹ of a Fourier transform). It exceeds half the channel's
        window if the model reads rotated images, whose corners lie outside the window.
    plane, structure
        Plane of the slice and crystal structure.
    fourier
        True if the network reads the Fourier transform of the slice.
    """

    channel: Channel
    density: np.ndarray
    values: dict[str, np.ndarray]
    half: float
    plane: LatticePlane
    structure: Structure
    fourier: bool = False

    def total(self, target: str) -> float:
        """Return the slice's contribution to the prediction, in the target's unit."""
        values = self.values[target]
        return float(values.sum() * (2 * self.half / len(values)) ** 2)
