"""A descriptor recipe: all settings of a descriptor model. `best` and `no-dft`, by name.

>>> descriptor_recipe("no-dft", targets=("efermi",))
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ...dataset.schema import TARGETS
from ...errors import RhosightError
from ...inputs.descriptors.blocks import COMPOSITION_BLOCKS, needs_density
from ...inputs.descriptors.frame import STRUCTURE_BLOCKS, TOTAL_BLOCKS
from ...networks.settings import validate_settings
from .kernel import Kernel

ELEMENTS = ("fractions", "element_densities", "elements")

LEAN_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "magpie"),
    together=(*COMPOSITION_BLOCKS, "fractions", "sites", "elements"),
)
FULL_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "overlap", "packing"),
    together=(*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS),
)
LEAN, FULL = (
    Kernel(alone=kernel.alone, together=(*kernel.together, "interstitial"))
    for kernel in (LEAN_STRUCTURE, FULL_STRUCTURE)
)
"""Of the density they read what codes agree on. All other blocks together are no better on folds
of the bundled data (``benchmarks/choosing.py``), and worthless with another code's densities."""


class DescriptorRecipe(BaseModel):
    """All settings of a descriptor model; stored with it.

    Attributes
    ----------
    targets
        Columns of the dataset, each with Gaussian processes of its own.
    kernels
        One for each member of the committee. A lean one misses something, a full one has more
        hyper-parameters than a few hundred labels settle; their mean is better than either.
    level
        Share of new materials whose truth is meant to lie in the interval.
    n_splits
        Folds of the training part on whose residuals the intervals are calibrated.
    seed
        Of the folds and of the optimiser's restarts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    kernels: tuple[Kernel, ...] = Field((LEAN, FULL), min_length=1)
    level: float = Field(0.9, gt=0, lt=1)
    n_splits: int = Field(5, ge=2)
    seed: int = 0

    def flat(self) -> dict[str, Any]:
        """Return the form in which recipes are stored, as JSON values."""
        return self.model_dump(mode="json")

    @property
    def blocks(self) -> tuple[str, ...]:
        """All that the kernels look at, in a fixed order."""
        names = {n for kernel in self.kernels for n in (*kernel.alone, *kernel.together)}
        return tuple(sorted(names))

    @property
    def uses_density(self) -> bool:
        """Whether a structure is not enough."""
        return needs_density(self.blocks)

    @property
    def core_free(self) -> bool:
        """Whether it does not matter what a code writes near the nuclei."""
        return not needs_density(set(self.blocks) - set(TOTAL_BLOCKS))


DESCRIPTOR_RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "no-dft": {"kernels": (LEAN_STRUCTURE, FULL_STRUCTURE)},
}


def descriptor_recipe(name: str, **changes: Any) -> DescriptorRecipe:
    """Return a recipe of :data:`DESCRIPTOR_RECIPES` with some fields changed.

    ``best`` reads structure and density; ``no-dft`` the structure alone, so a CIF is enough.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    if name not in DESCRIPTOR_RECIPES:
        known = ", ".join(DESCRIPTOR_RECIPES)
        raise RhosightError(f"no recipe is called {name!r}; known are {known}")
    return validate_settings(DescriptorRecipe, DESCRIPTOR_RECIPES[name] | changes)
