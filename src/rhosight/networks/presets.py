"""Recipes by name: ours, and the paper's."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from ..errors import RhosightError
from ..inputs.image import ImageSettings
from .recipe import Pretraining, Recipe, near

# Sections 2.1, 2.2 and 3; what is given there and what is assumed, the description of Recipe lists.
_PAPER: dict[str, Any] = {
    "image_backbone": "inception_v3",
    "text_backbone": "roberta-base",
    "image": ImageSettings.paper(),
    "element_steps": 0,
    "early_stopping": "validation",
    "augment": False,
    "views": 1,
    "text_rate": 2e-5,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick": {"epochs": (40, 6), "stacked_epochs": (30, 2), "views": 3},
    "clip-offline": {"modality": "clip", "learning_rate": (3e-3, 1e-3)},
    "paper-image": _PAPER | {"modality": "image"},
    "paper-text": _PAPER | {"modality": "text"},
    "paper-stacked": _PAPER | {"modality": "image+text"},
}
# trial → batch size, learning rate, patience, side of ViT-B's patches (Tables 2 and 3 alike)
_TRIALS = {
    "T1": (16, 1.5e-4, 17, 32),
    "T2": (32, 1.5e-4, 50, 32),
    "T3": (16, 1.0e-4, 50, 32),
    "T4": (32, 1.5e-4, 50, 16),
    "T5": (16, 1.0e-4, 50, 16),
}
_CHOSEN = "T3"  # Figures 6 and 7: "the selected hyperparameters set"
_SYMBOLS = {
    "E_F": "formation_energy_per_atom",
    "E_fermi": "efermi",
    "K_VRH": "bulk_modulus_vrh",
}


def recipe_names() -> list[str]:
    """Names for :func:`network_recipe`: our recipes, the paper's, and the paper's trials.

    ``default``, ``quick``
        Ours; ``quick`` is the demo's, with fewer epochs: minutes on two cores.
    ``clip-offline``
        A CLIP without a hub: the bundled encoders, pre-trained contrastively on the images and
        texts of the training part, then one linear layer.
    ``paper-image``, ``paper-text``, ``paper-stacked``
        InceptionV3 at 299 pixels; RoBERTa-base; both, and the stacked model (section 2.2).
    ``paper-clip``
        CLIP ViT-B/32 with the paper's choice of hyperparameters (T#3 of Table 2).
    ``paper-figure2-E_F-formula`` and so on
        The stacked model for a target (``E_F``, ``E_fermi``, ``K_VRH``) and an extent of the text
        (``formula``, ``keywords``, ``all``). Its stages give the rows of Figures 2 and 9.
    ``paper-table1-E_F-1`` and so on
        Runs #1 to #3 of CLIP for a target. What differs between them the paper does not say;
        assumed: the seed.
    ``paper-table2-T1`` to ``-T5``, ``paper-table3-T1`` to ``-T5``
        Trials of CLIP's hyperparameters for the formation energy, on images in viridis and on
        their Fourier transforms in grey. Both tables' 15 % test part is the default of
        :func:`rhosight.cross_validate`, and so are their five folds.

    The named models of the paper predict all targets together unless ``targets`` names one; the
    paper trains one network for each, and so do the recipes of its figures and tables.
    """
    return list(_recipes())


def _paper_clip(trial: str, colour: Literal["viridis", "grey"] = "viridis", fourier: bool = False):
    """CLIP with a trial's hyperparameters; `all` text (Table 1).

    Assumed: the linear layer reads both projected embeddings, before CLIP normalises them; all is
    fine-tuned at once, at one constant rate, as Tables 2 and 3 list one rate and one patience for
    "the finetuning"; at most 200 epochs.
    """
    batch, rate, patience, patch = _TRIALS[trial]
    return {
        "modality": "clip",
        "clip": f"openai/clip-vit-base-patch{patch}",
        "pretraining": Pretraining(epochs=0),
        "image": ImageSettings.paper(colour, fourier, size=224),
        "extent": "all",
        "element_steps": 0,
        "epochs": (0, 200),
        "batch_size": (batch, batch),
        "learning_rate": (rate, rate),
        "image_rate": rate,
        "text_rate": rate,
        "schedule": "constant",
        "patience": (patience, patience),
        "early_stopping": "validation",
        "augment": False,
        "views": 1,
    }


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    """Name → the fields in which the recipe differs from the default."""
    found = dict(_PRESETS)
    found["paper-clip"] = _paper_clip(_CHOSEN)
    for symbol, target in _SYMBOLS.items():
        for extent in ("formula", "keywords", "all"):
            fields = found["paper-stacked"] | {"targets": (target,), "extent": extent}
            found[f"paper-figure2-{symbol}-{extent}"] = fields
    for symbol, target in _SYMBOLS.items():
        for run in (1, 2, 3):
            fields = found["paper-clip"] | {"targets": (target,), "seed": run - 1}
            found[f"paper-table1-{symbol}-{run}"] = fields
    energy = {"targets": (_SYMBOLS["E_F"],)}
    for trial in _TRIALS:
        found[f"paper-table2-{trial}"] = _paper_clip(trial) | energy
    for trial in _TRIALS:
        found[f"paper-table3-{trial}"] = _paper_clip(trial, "grey", fourier=True) | energy
    return found


def network_recipe(name: str, **changes: Any) -> Recipe:
    """Return one of :func:`recipe_names` with some fields changed.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    recipes = _recipes()
    if name not in recipes:
        close = near(name, recipes) or list(_PRESETS)
        raise RhosightError(f"no recipe is called {name!r}; near it are {', '.join(close)}")
    return Recipe.checked(recipes[name] | changes)
