"""The recipe of a descriptor model: all settings. `best` and `no-dft` have names.

>>> descriptor_recipe("no-dft", targets=("efermi",))
"""

from __future__ import annotations

from typing import Any, ClassVar

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
"""They read the density only between the atoms, where codes agree. All other blocks together are no
better on folds of the bundled data (``benchmarks/choosing.py``), and worthless with densities of
another code."""


class DescriptorRecipe(BaseModel):
    """All settings of a descriptor model; stored with it.

    Attributes
    ----------
    targets
        Columns of the dataset, each with its own Gaussian processes.
    kernels
        One for each member of the committee. A lean kernel misses something, a full one has more
        hyperparameters than a few hundred labels determine; their mean is better than either.
    level
        Share of new materials whose true value should lie in the interval.
    n_splits
        Number of folds of the training set for the calibration of the intervals.
    seed
        For the folds and the optimiser's restarts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trains_network: ClassVar[bool] = False
    # what a recipe of networks may answer otherwise
    label: ClassVar[str] = "descriptors"
    uses_text: ClassVar[bool] = False
    watches_validation: ClassVar[bool] = False
    weight_sources: ClassVar[tuple[str, ...]] = ()
    pretrained_folder: ClassVar[None] = None

    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    kernels: tuple[Kernel, ...] = Field((LEAN, FULL), min_length=1)
    level: float = Field(0.9, gt=0, lt=1)
    n_splits: int = Field(5, ge=2)
    seed: int = 0

    def flat(self) -> dict[str, Any]:
        """Return the form in which recipes are stored, as JSON values."""
        return self.model_dump(mode="json")

    def require_training(self) -> None:
        """Accept every recipe: a Gaussian process is always trained."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the names of all blocks that the kernels read, sorted."""
        names = {n for kernel in self.kernels for n in (*kernel.alone, *kernel.together)}
        return tuple(sorted(names))

    @property
    def uses_density(self) -> bool:
        """Tell whether the recipe needs charge densities, not only structures."""
        return needs_density(self.blocks)

    @property
    def core_free(self) -> bool:
        """True if the recipe ignores the density near the nuclei, where codes disagree."""
        return not needs_density(set(self.blocks) - set(TOTAL_BLOCKS))


DESCRIPTOR_RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "no-dft": {"kernels": (LEAN_STRUCTURE, FULL_STRUCTURE)},
}


def descriptor_recipe(name: str, **changes: Any) -> DescriptorRecipe:
    """Return a recipe of :data:`DESCRIPTOR_RECIPES` with some fields changed.

    ``best`` reads structure and density. ``no-dft`` reads the structure only, so a CIF is enough.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    if name not in DESCRIPTOR_RECIPES:
        known = ", ".join(DESCRIPTOR_RECIPES)
        raise RhosightError(f"no recipe is called {name!r}; known are {known}")
    return validate_settings(DescriptorRecipe, DESCRIPTOR_RECIPES[name] | changes)
