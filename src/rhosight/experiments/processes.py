"""Gaussian processes beside the paper's networks in the experiments."""

from __future__ import annotations

from ..models.gaussian_process.recipe import (
    DESCRIPTOR_RECIPES,
    ENCODER_RECIPES,
    DescriptorRecipe,
    descriptor_recipe,
)

PROCESSES = {
    **{name: name for name in (*DESCRIPTOR_RECIPES, "best+potential")},
    **{f"gp-{name}": name for name in ENCODER_RECIPES},
}
"""Row of a table → recipe of its Gaussian processes. Those that read encoders have names of their
own, since networks of the same inputs stand in the same tables."""


def make_process_recipe(row: str, seed: int = 0) -> DescriptorRecipe:
    """Return the recipe of a row."""
    return descriptor_recipe(PROCESSES[row], seed=seed)
