"""Structure-property relations from electron charge densities by transfer learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Heavy libraries load on first use: `import rhosight` alone stays light.
_PUBLIC = {
    "ChargeDensity": "density",
    "Dataset": "dataset",
    "load_dataset": "dataset",
    "lattice_plane": "plane",
    "ImageSettings": "image",
    "density_image": "image",
    "describe": "text",
    "PropertyModel": "property_model",
    "DescriptorModel": "descriptor_model",
    "Ensemble": "ensemble",
    "ImageTextEncoder": "pretraining",
    "load_model": "saved_model",
    "Recipe": "recipe",
    "DescriptorRecipe": "descriptor_recipe",
    "split": "dataset",
    "cross_validate": "evaluation",
    "RhosightError": "errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .dataset.dataset import Dataset as Dataset
    from .dataset.packing import load_dataset as load_dataset
    from .dataset.splits import split as split
    from .density.charge_density import ChargeDensity as ChargeDensity
    from .density.plane import lattice_plane as lattice_plane
    from .errors import RhosightError as RhosightError
    from .evaluation.cross_validation import cross_validate as cross_validate
    from .inputs.image import ImageSettings as ImageSettings
    from .inputs.image import density_image as density_image
    from .inputs.text.description import describe as describe
    from .models.base import load_model as load_model
    from .models.descriptor_model import DescriptorModel as DescriptorModel
    from .models.ensemble import Ensemble as Ensemble
    from .models.gaussian_process.recipe import DescriptorRecipe as DescriptorRecipe
    from .models.image_text_encoder import ImageTextEncoder as ImageTextEncoder
    from .models.property_model import PropertyModel as PropertyModel
    from .networks.recipe import Recipe as Recipe


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rhosight' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
