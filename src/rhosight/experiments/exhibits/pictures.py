"""Choose the crystals and images of the paper's pictures (Figures 1 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...density.charge_density import ChargeDensity
from ...errors import RhosightError
from ...inputs.image import DERIVED, ImageSettings

if TYPE_CHECKING:
    from ...dataset.dataset import Dataset

PREFERRED: tuple[str, ...] = ("mp-1265", "mp-2534", "mp-1002124")
"""MgO, GaAs and HfC of the bundled dataset: ionic, covalent, metallic."""


def choose_materials(dataset: Dataset, count: int) -> list[str]:
    """Return the ids of :data:`PREFERRED`, or of evenly spaced materials."""
    preferred = [name for name in PREFERRED if name in dataset][:count]
    if len(preferred) == count:
        return preferred
    if len(dataset) < count:
        raise RhosightError(f"the figure needs {count} materials; the dataset has {len(dataset)}")
    return [dataset.ids[i * (len(dataset) - 1) // max(1, count - 1)] for i in range(count)]


def choose_image_settings(density: ChargeDensity, **options: Any) -> ImageSettings:
    """Return the settings of the paper's image.

    If a density has only ``total``, the difference is taken to the bundled free atoms.
    """
    settings = ImageSettings.paper(**options)
    if DERIVED & {channel.kind for channel in settings.channels} - set(density.kinds):
        return settings.model_copy(update={"reference": "free-atoms"})
    return settings
