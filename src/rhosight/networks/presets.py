"""Named recipes: ours and the paper's."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from ..dataset.schema import TARGET_NAMES
from ..errors import RhosightError
from ..inputs.image import ImageSettings
from ..inputs.text.extents import EXTENTS
from .recipe import Recipe, suggest_names
from .settings import merge_settings, validate_settings

# Sections 2.1, 2.2 and 3; the description of Recipe lists what is given there and what is assumed.
_PAPER: dict[str, Any] = {
    "image": {"backbone": "inception_v3", "settings": ImageSettings.paper()},
    "text": {"backbone": "roberta-base", "element_steps": 0, "rate": 2e-5},
    "training": {"early_stopping": "validation"},
    "augmentation": {"enabled": False, "views": 1},
}
_PRESETS: dict[str, dict[str, Any]] = {
    "default": {"fine_tuning": {"keep_start": True}},
    "quick": {
        "head": {"epochs": 40},
        "fine_tuning": {"epochs": 6, "keep_start": True},
        "stacked": {"head_epochs": 30, "fine_tuning_epochs": 2},
        "augmentation": {"views": 3},
    },
    "clip-offline": {"modality": "clip", "head": {"learning_rate": 3e-3}},
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
_SYMBOLS = {names.symbol: target for target, names in TARGET_NAMES.items()}


def recipe_names() -> list[str]:
    """Return the names for :func:`network_recipe`.

    ``default``, ``quick``
        Ours; ``quick`` has fewer epochs: minutes on two cores.
    ``clip-offline``
        A CLIP without a hub: the bundled encoders, pre-trained contrastively on the images and
        texts of the training set, then one linear layer.
    ``paper-image``, ``paper-text``, ``paper-stacked``
        InceptionV3 at 299 pixels; RoBERTa-base; both, and the stacked model (section 2.2).
    ``paper-clip``
        CLIP ViT-B/32 with the paper's choice of hyperparameters (T#3 of Table 2).
    ``paper-figure2-E_F-formula`` and so on
        The stacked model for a target (``E_F``, ``E_fermi``, ``K_VRH``) and an extent of the text
        (``formula``, ``keywords``, ``all``). Its stages give the rows of Figures 2 and 9.
    ``paper-table1-E_F-1`` and so on
        Runs #1 to #3 of CLIP for a target. The paper does not say how they differ; assumed: in the
        seed.
    ``paper-table2-T1`` to ``-T5``, ``paper-table3-T1`` to ``-T5``
        Trials of CLIP's hyperparameters for the formation energy, on images in viridis and on
        their Fourier transforms in grey. The test set of 15 % and the five folds of both tables are
        the defaults of :func:`rhosight.cross_validate`.

    The named models of the paper predict all targets together unless ``targets`` names one. The
    paper trains one network per target, and so do the recipes of its figures and tables.
    """
    return list(_recipes())


def _paper_clip(
    trial: str, colour: Literal["viridis", "grey"] = "viridis", fourier: bool = False
) -> dict[str, Any]:
    """Return CLIP's fields with a trial's hyperparameters and `all` text (Table 1).

    Assumed: the linear layer reads both projected embeddings before CLIP normalises them; all
    weights are fine-tuned at once, at one constant rate, because Tables 2 and 3 list one rate and
    one patience for "the finetuning"; at most 200 epochs.
    """
    batch, rate, patience, patch = _TRIALS[trial]
    stage = {"batch_size": batch, "learning_rate": rate, "patience": patience}
    return {
        "modality": "clip",
        "clip": f"openai/clip-vit-base-patch{patch}",
        "pretraining": {"epochs": 0},
        "image": {"settings": ImageSettings.paper(colour, fourier, size=224), "rate": rate},
        "text": {"extent": "all", "element_steps": 0, "rate": rate},
        "head": {"epochs": 0, **stage},
        "fine_tuning": {"epochs": 200, **stage},
        "training": {"schedule": "constant", "early_stopping": "validation"},
        "augmentation": {"enabled": False, "views": 1},
    }


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    """Return the fields in which each named recipe differs from the default."""
    recipes = dict(_PRESETS)
    recipes["paper-clip"] = _paper_clip(_CHOSEN)
    for symbol, target in _SYMBOLS.items():
        for extent in EXTENTS:
            changes = {"targets": (target,), "text": {"extent": extent}}
            fields = merge_settings(recipes["paper-stacked"], changes)
            recipes[f"paper-figure2-{symbol}-{extent}"] = fields
    for symbol, target in _SYMBOLS.items():
        for run in (1, 2, 3):
            fields = recipes["paper-clip"] | {"targets": (target,), "seed": run - 1}
            recipes[f"paper-table1-{symbol}-{run}"] = fields
    energy = {"targets": (_SYMBOLS["E_F"],)}
    for trial in _TRIALS:
        recipes[f"paper-table2-{trial}"] = _paper_clip(trial) | energy
    for trial in _TRIALS:
        recipes[f"paper-table3-{trial}"] = _paper_clip(trial, "grey", fourier=True) | energy
    return recipes


def network_recipe(name: str, **changes: Any) -> Recipe:
    """Return one of :func:`recipe_names` with some fields changed.

    Parameters
    ----------
    name
        Name of the recipe.
    **changes
        Fields, as :meth:`rhosight.networks.recipe.Recipe.replace` takes them.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    recipes = _recipes()
    if name not in recipes:
        close = suggest_names(name, recipes) or list(_PRESETS)
        raise RhosightError(f"no recipe is called {name!r}; try {', '.join(close)}")
    fields = validate_settings(Recipe, recipes[name]).model_dump(exclude_unset=True)
    return validate_settings(Recipe, merge_settings(fields, changes))
