"""The recipe of a Gaussian process over blocks: all settings.

Blocks are descriptors (`best`, `no-dft`, `structure`), features of pre-trained encoders (`image`,
`text`, `image+text`), values of a general potential (`best+potential`, `structure+potential`), or
several of these.

>>> descriptor_recipe("no-dft", targets=("efermi",))
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ...dataset.schema import ALL_TARGETS, TARGETS
from ...errors import RhosightError
from ...inputs.descriptors.blocks import COMPOSITION_BLOCKS, needs_density
from ...inputs.descriptors.frame import TOTAL_BLOCKS
from ...networks.feature_settings import EncoderTuning, ImageFeatures, TextFeatures
from ...networks.recipe import Recipe
from ...networks.settings import merge_settings, validate_settings
from .kernel import Kernel
from .scales import Scale, TargetScales

ELEMENTS = ("fractions", "element_densities", "elements")

LEAN_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "magpie"),
    together=(*COMPOSITION_BLOCKS, "fractions", "sites", "elements"),
)
FULL_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "overlap", "packing"),
    together=(*COMPOSITION_BLOCKS, *ELEMENTS, "overlap", "packing", "sites"),
)
LEAN, FULL = (
    Kernel(alone=kernel.alone, together=(*kernel.together, "interstitial"))
    for kernel in (LEAN_STRUCTURE, FULL_STRUCTURE)
)
"""They read the density only between the atoms, where codes agree. All other blocks together are no
better on folds of the bundled data (``benchmarks/choosing.py``), and worthless with densities of
another code."""


POTENTIAL_BLOCKS = ("potential-energy", "potential-modulus")
"""CHGNet's formation energy and bulk modulus, see :mod:`rhosight.models.baselines.potential`."""

ENCODERS = ("image", "text")
"""Names that stand in a kernel for all blocks of an encoder: ``image-…``, ``text-…``."""


class DescriptorRecipe(BaseModel):
    """All settings of a Gaussian process over blocks; stored with it.

    Attributes
    ----------
    targets
        Columns of the dataset, each with its own Gaussian processes.
    image, text
        Features of images and of texts that are blocks, too; kernels name them ``"image"`` and
        ``"text"``. None if no kernel does.
    clip
        Hub id or folder of a CLIP whose two towers are read instead of the encoders of ``image``
        and ``text``.
    fine_tuning
        Fine-tuning of the encoders, which is kept only where it helps; None for none.
    scales
        Target → the scale in which it is learned, see :mod:`.scales`; others as they are.
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
    watches_validation: ClassVar[bool] = False
    pretrained_folder: ClassVar[None] = None

    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    image: ImageFeatures | None = None
    text: TextFeatures | None = None
    clip: str | None = None
    fine_tuning: EncoderTuning | None = None
    scales: dict[str, Scale] | None = None
    kernels: tuple[Kernel, ...] = Field((LEAN, FULL), min_length=1)
    level: float = Field(0.9, gt=0, lt=1)
    n_splits: int = Field(5, ge=2)
    seed: int = 0

    @model_validator(mode="after")
    def _check_encoders(self) -> Self:
        for name in ENCODERS:
            if (name in self._names) != (getattr(self, name) is not None):
                raise ValueError(f"kernels read {name!r} if, and only if, {name} is given")
        if self.clip and not (self.image or self.text):
            raise ValueError("clip needs image or text, whose features it computes")
        if self.fine_tuning and (self.clip or not self.uses_encoders):
            raise ValueError("fine_tuning needs an encoder of images or texts, and no clip")
        return self

    def flat(self) -> dict[str, Any]:
        """Return the form in which recipes are stored, as JSON values.

        Jobs are named after it: encoders that are not used are not part of it.
        """
        flat = self.model_dump(mode="json")
        return {k: v for k, v in flat.items() if v is not None}

    def list_parts(self) -> list[DescriptorRecipe]:
        """Return the recipes of each encoder, of the encoders together, then this one."""
        names = [name for name in ENCODERS if getattr(self, name)]
        sets: list[tuple[str, ...]] = [(name,) for name in names]
        if len(names) > 1:
            sets.append(tuple(names))
        parts = [
            self.model_copy(
                update={
                    **{name: getattr(self, name) if name in own else None for name in ENCODERS},
                    "kernels": (Kernel(together=own),),
                }
            )
            for own in sets
        ]
        return [part for part in parts if part.label != self.label] + [self]

    def require_training(self) -> None:
        """Accept every recipe: a Gaussian process is always trained."""

    @property
    def _names(self) -> set[str]:
        return {n for kernel in self.kernels for n in (*kernel.alone, *kernel.together)}

    @property
    def blocks(self) -> tuple[str, ...]:
        """Return the names of all descriptor blocks that the kernels read, sorted."""
        return tuple(sorted(self._names - {*ENCODERS, *POTENTIAL_BLOCKS}))

    @property
    def uses_potential(self) -> bool:
        """True if numbers of CHGNet are read, which needs ``rhosight[chgnet]``."""
        return not self._names.isdisjoint(POTENTIAL_BLOCKS)

    @property
    def target_scales(self) -> TargetScales:
        """Return the transformation of the labels for learning."""
        return TargetScales(self.targets, self.scales or {})

    @property
    def label(self) -> str:
        """The name of the model in tables and folders."""
        parts = [name for name in ENCODERS if getattr(self, name)]
        return "+".join(parts + ["descriptors"] * bool(self.blocks))

    @property
    def uses_image(self) -> bool:
        """True if an encoder reads images."""
        return self.image is not None

    @property
    def uses_text(self) -> bool:
        """True if an encoder reads texts."""
        return self.text is not None

    @property
    def uses_encoders(self) -> bool:
        """True if pre-trained encoders are read, which needs PyTorch."""
        return self.uses_image or self.uses_text

    @property
    def weight_sources(self) -> tuple[str, ...]:
        """Names or folders that weights are loaded from."""
        own = [part.backbone for part in (self.image, self.text) if part]
        return (self.clip,) if self.clip else tuple(own)

    @property
    def uses_density(self) -> bool:
        """Tell whether the recipe needs charge densities, not only structures."""
        return self.uses_image or needs_density(self.blocks)

    @property
    def core_free(self) -> bool:
        """True if the recipe ignores the density near the nuclei, where codes disagree."""
        return not self.uses_image and not needs_density(set(self.blocks) - set(TOTAL_BLOCKS))


DESCRIPTOR_RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "no-dft": {"kernels": (LEAN_STRUCTURE, FULL_STRUCTURE)},
}
"""Recipes that read descriptors only; no PyTorch is needed."""

ALL_LATTICES = Kernel(
    alone=(*ELEMENTS, "overlap", "packing", "environments"),
    together=(*FULL_STRUCTURE.together, "lattice", "environments"),
)
"""For crystals of any symmetry: the lattice and the surroundings of the atoms count, too."""

ANY_CRYSTAL_RECIPES: dict[str, dict[str, Any]] = {
    "structure": {
        "targets": ALL_TARGETS,
        "scales": {
            "bulk_modulus_vrh": "sqrt",
            "shear_modulus_vrh": "log10",
            "band_gap": "nonnegative",
        },
        "kernels": (ALL_LATTICES,),
    },
}
"""Recipes for `mp-elastic`: thousands of crystals of all lattices, five targets."""

POTENTIAL_RECIPES: dict[str, dict[str, Any]] = {
    "best+potential": {"kernels": tuple(kernel.add(POTENTIAL_BLOCKS) for kernel in (LEAN, FULL))},
    "structure+potential": {
        **ANY_CRYSTAL_RECIPES["structure"],
        "kernels": (ALL_LATTICES.add(POTENTIAL_BLOCKS),),
    },
}
"""Recipes that also read CHGNet, which has seen the Materials Project's energies; the second one is
for `mp-elastic`."""

ENCODER_RECIPES: dict[str, dict[str, Any]] = {
    name: {
        **({"image": ImageFeatures()} if "image" in name else {}),
        **({"text": TextFeatures()} if "text" in name else {}),
        "kernels": (Kernel(together=tuple(name.split("+"))),),
        "scales": {"bulk_modulus_vrh": "sqrt"},
    }
    for name in ("image", "text", "image+text")
}
"""Recipes that read images and texts by pre-trained encoders, as the paper does. The square root of
the bulk modulus is learned better (``benchmarks/encoder_choice.py``)."""


def descriptor_recipe(name: str, **changes: Any) -> DescriptorRecipe:
    """Return a named recipe of a Gaussian process with some fields changed.

    ``best`` reads structure and density. ``no-dft`` reads the structure only, so a CIF is enough.
    ``structure`` is for thousands of crystals of any lattice.
    ``best+potential`` and ``structure+potential`` also read CHGNet's formation energy and bulk
    modulus.
    ``image``, ``text`` and ``image+text`` read pre-trained encoders; ``text`` needs no density. A
    dict changes some fields of ``image`` or ``text``: ``image={"backbone": "inception_v3"}``.

    Raises
    ------
    RhosightError
        If there is no such recipe, or a field is wrong.
    """
    recipes = DESCRIPTOR_RECIPES | POTENTIAL_RECIPES | ANY_CRYSTAL_RECIPES | ENCODER_RECIPES
    if name not in recipes:
        known = ", ".join(recipes)
        raise RhosightError(f"no recipe is called {name!r}; known are {known}")
    fields = DescriptorRecipe(**recipes[name]).model_dump(exclude_unset=True)
    return validate_settings(DescriptorRecipe, merge_settings(fields, changes))


def process_recipe(network: Recipe, **changes: Any) -> DescriptorRecipe:
    """Return the recipe that reads a network's encoders by Gaussian processes.

    Parameters
    ----------
    network
        Its targets, image, text, encoders, descriptors and seed are used; those of training are
        not.
    **changes
        Fields of the result.
    """
    image = text = None
    if network.uses_image:
        own = network.image
        image = ImageFeatures(backbone=own.backbone, images=(own.settings,))
    if network.uses_text:
        described = network.text
        text = TextFeatures(
            backbone=described.backbone,
            extents=(described.extent,),
            max_tokens=described.max_tokens,
            lesson=described.element_steps > 0,
        )
    names = [name for name, part in (("image", image), ("text", text)) if part]
    fields: dict[str, Any] = {
        "targets": network.targets,
        "seed": network.seed,
        "image": image,
        "text": text,
        "clip": network.clip if network.modality == "clip" else None,
        "kernels": (Kernel(together=(*names, *network.descriptors)),),
    }
    return validate_settings(DescriptorRecipe, fields | changes)
