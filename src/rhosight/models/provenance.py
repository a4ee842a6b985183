"""Record where a model's training data and weights come from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..networks.recipe import Recipe
from ..version import __version__

logger = logging.getLogger(__name__)


def codes_of(materials: Dataset | Sequence[Any] | Mapping[str, Any]) -> set[str]:
    """Codes that densities come from, as far as their provenance tells."""
    if isinstance(materials, Dataset):
        found: Sequence[Any] = materials.provenances
    else:
        found = [d.provenance for d in materials if isinstance(d, ChargeDensity)]
    return {str(about["code"]) for about in found if about.get("code")}


def other_codes(found: set[str], trained: Sequence[str], core_free: bool = False) -> str:
    """What to say of densities from codes that a model was not trained on; empty if nothing.

    Parameters
    ----------
    found
        Codes of the densities.
    trained
        Codes of the training part; empty for a model that reads no density.
    core_free
        Whether the model reads only what codes agree on.
    """
    others = ", ".join(sorted(found - set(trained)))
    if not trained or not others:
        return ""
    why = (
        "it reads what codes agree on, between the atoms, but was tried on few of such densities; "
        "the model no-dft reads none and tells how far to trust it"
        if core_free
        else "near the nuclei they are not the same quantity, and predictions may be far off; use "
        "best, which does not look there, or no-dft, which reads no density"
    )
    return f"densities of {others}, but the model learned from those of {', '.join(trained)}: {why}"


def warn_of_other_codes(found: set[str], trained: Sequence[str], core_free: bool = False) -> None:
    """Log what :func:`other_codes` says."""
    if said := other_codes(found, sorted(trained), core_free):
        logger.warning("%s", said)


def versions() -> dict[str, str]:
    """Versions of what decides about the numbers."""
    packages = (
        "torch",
        "timm",
        "transformers",
        "lightning",
        "peft",
        "pymatgen",
        "robocrys",
        "matminer",
        "spglib",
        "numpy",
        "scipy",
        "scikit-learn",
    )
    return {"rhosight": __version__} | {name: version(name) for name in packages}


def local_weights(recipe: Recipe) -> dict[str, str]:
    """Folder that a recipe takes weights from → SHA-256 of what is in it now: it may be written
    anew before an interrupted run goes on.
    """
    names = (recipe.image.backbone, recipe.text.backbone, recipe.clip, recipe.pretraining.weights)
    found = {}
    for name in filter(None, names):
        digest = hashlib.sha256()
        for path in sorted(Path(name).expanduser().rglob("*")):
            if path.is_file():
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
        if Path(name).expanduser().is_dir():
            found[name] = digest.hexdigest()
    return found
