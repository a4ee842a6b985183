"""Maps of the slice: how much each place adds to a prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pymatgen.core import Structure

from ..density.plane import LatticePlane
from ..inputs.image import Channel


@dataclass(frozen=True, eq=False)
class SliceMap:
    """Where on one slice of the density a network looked.

    Attributes
    ----------
    channel
        Which slice.
    density
        What lies there, e/Å³, shape (pixels, pixels); row 0 is the top, as in an image.
    values
        Target → attribution, in the target's unit per Å² (per Å⁻² of a Fourier transform), shape as
        ``density``.
    half
        Half the side of what is shown, Å (Å⁻¹ of a Fourier transform). It is wider than the
        channel's window if the model looks at turned images, whose corners lie outside.
    plane, structure
        Where the slice lies in the crystal.
    fourier
        Whether the network sees the Fourier transform of the slice.
    """

    channel: Channel
    density: np.ndarray
    values: dict[str, np.ndarray]
    half: float
    plane: LatticePlane
    structure: Structure
    fourier: bool = False

    def total(self, target: str) -> float:
        """What the slice adds to the prediction, in the target's unit."""
        values = self.values[target]
        return float(values.sum() * (2 * self.half / len(values)) ** 2)
