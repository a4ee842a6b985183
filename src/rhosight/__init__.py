"""Predict material properties from electron charge densities by transfer learning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import name_missing_extra
from .version import __version__ as __version__

# Heavy libraries load on first use: `import rhosight` alone stays light.
_PUBLIC = {
    "RhosightError": "errors",
    "ChargeDensity": "density.charge_density",
    "read_density": "density.files",
    "read_structure": "density.structures",
    "from_pymatgen": "density.vasp",
    "lattice_plane": "density.plane",
    "ImageSettings": "inputs.image",
    "density_image": "inputs.image",
    "describe": "inputs.text.description",
    "Dataset": "dataset.dataset",
    "load_dataset": "dataset.packing",
    "split": "dataset.splits",
    "Recipe": "networks.recipe",
    "DescriptorRecipe": "models.gaussian_process.recipe",
    "PropertyModel": "models.property_model",
    "DescriptorModel": "models.descriptor_model",
    "Ensemble": "models.ensemble",
    "ImageTextEncoder": "models.image_text_encoder",
    "DensityModel": "ecd.model",
    "load_model": "models.loading",
    "load_recipe": "models.loading",
    "explain": "explain",
    "design": "design",
    "cross_validate": "evaluation.cross_validation",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .dataset.dataset import Dataset as Dataset
    from .dataset.packing import load_dataset as load_dataset
    from .dataset.splits import split as split
    from .density.charge_density import ChargeDensity as ChargeDensity
    from .density.files import read_density as read_density
    from .density.plane import lattice_plane as lattice_plane
    from .density.structures import read_structure as read_structure
    from .density.vasp import from_pymatgen as from_pymatgen
    from .design.search import design as design
    from .ecd.model import DensityModel as DensityModel
    from .errors import RhosightError as RhosightError
    from .evaluation.cross_validation import cross_validate as cross_validate
    from .explain.explain import explain as explain
    from .inputs.image import ImageSettings as ImageSettings
    from .inputs.image import density_image as density_image
    from .inputs.text.description import describe as describe
    from .models.descriptor_model import DescriptorModel as DescriptorModel
    from .models.ensemble import Ensemble as Ensemble
    from .models.gaussian_process.recipe import DescriptorRecipe as DescriptorRecipe
    from .models.image_text_encoder import ImageTextEncoder as ImageTextEncoder
    from .models.loading import load_model as load_model
    from .models.loading import load_recipe as load_recipe
    from .models.property_model import PropertyModel as PropertyModel
    from .networks.recipe import Recipe as Recipe


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'rhosight' has no attribute {name!r}")
    with name_missing_extra():
        module = import_module(f".{_PUBLIC[name]}", __name__)
    # these packages are callable; the functions would hide `explain.save` and the others
    return module if name in ("explain", "design") else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
