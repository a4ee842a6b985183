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
    from .dataset import Dataset as Dataset
    from .dataset import load_dataset as load_dataset
    from .dataset import split as split
    from .density import ChargeDensity as ChargeDensity
    from .descriptor_model import DescriptorModel as DescriptorModel
    from .descriptor_recipe import DescriptorRecipe as DescriptorRecipe
    from .ensemble import Ensemble as Ensemble
    from .errors import RhosightError as RhosightError
    from .evaluation import cross_validate as cross_validate
    from .image import ImageSettings as ImageSettings
    from .image import density_image as density_image
    from .plane import lattice_plane as lattice_plane
    from .pretraining import ImageTextEncoder as ImageTextEncoder
    from .property_model import PropertyModel as PropertyModel
    from .recipe import Recipe as Recipe
    from .saved_model import load_model as load_model
    from .text import describe as describe


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rhosight' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
