"""Define the variants of networks and of `best` that `ablations.py` compares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rhosight.inputs.descriptors.blocks import COMPOSITION_BLOCKS, STATISTICS_BLOCKS
from rhosight.inputs.image import Channel
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe
from rhosight.networks.recipe import Recipe

BUDGET: dict[str, Any] = {
    "image": {"settings": {"size": 64}, "rate": 1e-4},
    "head": {"epochs": 20, "learning_rate": 1e-3},
    "fine_tuning": {"epochs": 3, "batch_statistics": "kept", "learning_rate": 1e-4},
    "stacked": {"head_epochs": 15, "fine_tuning_epochs": 1},
    "augmentation": {"views": 3},
    "text": {"element_steps": 200},
}
"""Differences of the recipe of every network from the default recipe."""

SHAPE_BLOCKS = ("outside", "potentials", "radial", "charges", "bonds")
SIZES = (50, 100, 200)
"""Numbers of training materials of the learning curves; the last point uses all of a fold."""

COMPOSITION = "composition-average"
"""Baseline of the learning curves."""

REFERENCE, ALL = "as it is", "all blocks"
"""Reference rows of the comparisons."""

TARGETS = {
    "formation_energy_per_atom": "formation energy",
    "efermi": "Fermi energy",
    "bulk_modulus_vrh": "bulk modulus",
}


@dataclass(frozen=True)
class Variant:
    """One changed setting: fields of the recipe and of its image."""

    group: str
    name: str
    recipe: dict[str, Any] = field(default_factory=dict)
    image: dict[str, Any] = field(default_factory=dict)

    def made(self) -> Recipe:
        """Return the recipe of this variant."""
        recipe = Recipe().replace(modality="image").replace(**BUDGET).replace(**self.recipe)
        return recipe.replace(image={"settings": self.image})


def channels(*settings: dict[str, Any]) -> dict[str, Any]:
    """Return image settings; channels default to `total` on a window of 8 Å."""
    made = [Channel(**{"kind": "total", "window": 8.0, **own}).model_dump() for own in settings]
    return {"channels": made, "colour": "channels" if len(made) == 3 else "grey"}


def of_kind(kind: str) -> dict[str, Any]:
    """Return the default channels for another kind of density."""
    return channels({"kind": kind}, {"kind": kind, "offset": 0.5}, {"kind": kind, "window": 16.0})


VARIANTS: tuple[Variant, ...] = (
    Variant("", REFERENCE),
    Variant("modalities", "image+text", {"modality": "image+text"}),
    Variant(
        "modalities",
        "composition",
        {"modality": "image+text", "descriptors": COMPOSITION_BLOCKS},
    ),
    Variant(
        "modalities",
        "statistics of the densities",
        {"modality": "image+text", "descriptors": STATISTICS_BLOCKS},
    ),
    Variant(
        "modalities",
        "composition and statistics",
        {"modality": "image+text", "descriptors": (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS)},
    ),
    Variant("kinds of density", "difference", image=of_kind("difference")),
    Variant("kinds of density", "promolecule", image=of_kind("promolecule")),
    Variant(
        "kinds of density",
        "total and difference",
        image=channels({}, {"kind": "difference"}, {"window": 16.0}),
    ),
    Variant("cores", "masked, 0.9 covalent radii", image={"core": "mask"}),
    Variant("cores", "masked, 0.6 covalent radii", image={"core": "mask", "core_radius": 0.6}),
    Variant("augmentation", "none", {"augmentation": {"enabled": False}}),
    Variant("augmentation", "turns, and shifts by up to ¼", {"augmentation": {"shift": 0.25}}),
    Variant(
        "augmentation",
        "turns, and planes at ¼, ½ and ¾",
        {"augmentation": {"parallel": (0.25, 0.5, 0.75)}},
    ),
    Variant("planes and windows", "one plane, 8 Å (grey)", image=channels({})),
    Variant(
        "planes and windows",
        "one plane, 4, 8 and 16 Å",
        image=channels({"window": 4.0}, {}, {"window": 16.0}),
    ),
    Variant(
        "planes and windows",
        "parallel planes at 0, ¼ and ½, 8 Å",
        image=channels({}, {"offset": 0.25}, {"offset": 0.5}),
    ),
    Variant(
        "planes and windows",
        "densest plane, (100) and (110), 8 Å",
        image=channels({}, {"hkl": (1, 0, 0)}, {"hkl": (1, 1, 0)}),
    ),
    Variant(
        "planes and windows",
        "windows of 1, 1 and 2 lattice scales",
        image=channels(
            {"window": 1.0, "unit": "lattice"},
            {"window": 1.0, "unit": "lattice", "offset": 0.5},
            {"window": 2.0, "unit": "lattice"},
        ),
    ),
    Variant("normalisation", "paper", image={"normalisation": "paper"}),
    Variant("normalisation", "zero", image={"normalisation": "zero"}),
    Variant("views", "1", {"augmentation": {"views": 1}}),
    Variant("views", "6", {"augmentation": {"views": 6}}),
    Variant("modalities", "shape of the density", {"descriptors": SHAPE_BLOCKS}),
    Variant("extent of the text", "formula", {"modality": "text", "text": {"extent": "formula"}}),
    Variant("extent of the text", "all", {"modality": "text", "text": {"extent": "all"}}),
)


def kernels_without(block: str) -> tuple[Kernel, ...]:
    """Return the kernels of `best` without one block."""
    made = []
    for kernel in DescriptorRecipe().kernels:
        alone, together = (
            tuple(b for b in names if b != block) for names in (kernel.alone, kernel.together)
        )
        made.append(Kernel(alone=alone, together=together))
    return tuple(made)


def block_rows() -> list[tuple[str, str, tuple[Kernel, ...]]]:
    """Return (group, name, kernels) of `best`, without each block and with each alone."""
    blocks = DescriptorRecipe().blocks
    rows = [("", ALL, DescriptorRecipe().kernels)]
    rows += [("alone", block, (Kernel(together=(block,)),)) for block in blocks]
    rows += [("without", block, kernels_without(block)) for block in blocks]
    return rows
