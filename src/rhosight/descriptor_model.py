"""DescriptorModel: the `best` recipe, and `no-dft`, which needs no charge density.

What is known of a crystal (composition, structure type, its charge density and what follows from it
by electrostatics and the theory of the electron gas) becomes blocks of numbers, and a Gaussian
process over these blocks predicts. No network is trained: a fit takes seconds, and a prediction
comes with an interval and a word on whether the material is like those of the training part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from pymatgen.core import Structure
from safetensors.numpy import load_file, save_file

from .baselines import composition_features, density_features
from .committee import Committee
from .dataset import Dataset, folds
from .density import ChargeDensity
from .descriptors import STRUCTURE_BLOCKS, block_columns, descriptor_frame
from .errors import RhosightError
from .free_atoms import difference_from_total
from .gaussian_process import GaussianProcess, Term
from .recipe import checked
from .saved_model import WEIGHTS, SavedModel, codes_of, warn_of_other_codes
from .schema import TARGETS
from .uncertainty import ConformalIntervals, TrainingDomain

if TYPE_CHECKING:
    from .explain import Explanation

Crystals = Sequence[ChargeDensity] | Sequence[Structure]
Materials = Dataset | Sequence[ChargeDensity] | Mapping[str, Structure]
"""A dataset, densities, or (for a model that needs none) name → structure."""

COMPOSITION_BLOCKS = ("magpie", "volume", "prototype")
"""Blocks that :func:`rhosight.baselines.composition_features` gives: Magpie's statistics, volume
per atom, and the structure type, one column for each that the training part has."""

STATISTICS_BLOCKS = ("total", "difference", "promolecule")
"""Blocks of :func:`rhosight.baselines.density_statistics`, one for each kind of density."""

SPARSE = ("fractions", "element_densities", "prototype")
"""Blocks whose features are mostly zero: standardised as they are."""


CHUNK = 8
"""Densities that are decoded at a time."""


class Kernel(BaseModel):
    """Of one Gaussian process: what each block adds alone, and what they say together.

    Attributes
    ----------
    alone
        Blocks with a term of their own (radial basis function): what the block adds, whatever the
        others say.
    together
        Blocks of one product (rational quadratic): materials are alike if they are so in all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    alone: tuple[str, ...] = ()
    together: tuple[str, ...] = Field(min_length=1)

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*(Term("rbf", (name,)) for name in self.alone), Term("rational", self.together))


ELEMENTS = ("fractions", "element_densities", "elements")

LEAN = Kernel(
    alone=(*ELEMENTS, "total", "magpie"),
    together=(*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS, "fractions", "sites", "elements"),
)
FULL = Kernel(
    alone=(*ELEMENTS, "overlap", "charges", "energies", "potentials", "radial", "packing"),
    together=(
        *(*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS, *STRUCTURE_BLOCKS),
        *("energies", "potentials", "outside", "radial", "charges", "bonds"),
    ),
)
LEAN_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "magpie"),
    together=(*COMPOSITION_BLOCKS, "fractions", "sites", "elements"),
)
FULL_STRUCTURE = Kernel(
    alone=(*ELEMENTS, "overlap", "packing"),
    together=(*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS),
)


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

    @classmethod
    def named(cls, name: str, **changes: Any) -> DescriptorRecipe:
        """``best`` reads structure and density; ``no-dft`` the structure alone: a CIF is enough.

        Raises
        ------
        RhosightError
            If there is no such recipe, or a field is wrong.
        """
        if name not in DESCRIPTOR_RECIPES:
            known = ", ".join(DESCRIPTOR_RECIPES)
            raise RhosightError(f"no recipe is called {name!r}; known are {known}")
        return checked(cls, DESCRIPTOR_RECIPES[name] | changes)

    @property
    def blocks(self) -> tuple[str, ...]:
        """All that the kernels look at, in a fixed order."""
        names = {n for kernel in self.kernels for n in (*kernel.alone, *kernel.together)}
        return tuple(sorted(names))

    @property
    def uses_density(self) -> bool:
        """Whether a structure is not enough."""
        return bool(set(self.blocks) - {*COMPOSITION_BLOCKS, *STRUCTURE_BLOCKS})


DESCRIPTOR_RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "no-dft": {"kernels": (LEAN_STRUCTURE, FULL_STRUCTURE)},
}


class DescriptorModel(SavedModel):
    """Gaussian processes over descriptors, with calibrated intervals and a training domain.

    Parameters
    ----------
    recipe
        All settings; ``best`` if not given.

    Attributes
    ----------
    units, scores, about
        See :class:`rhosight.saved_model.SavedModel`.
    out_of_fold
        Predictions of the training part by models that had not seen the material (after ``fit``):
        columns material_id, target, true, predicted, std, in the target's unit.

    Examples
    --------
    >>> train, test = rhosight.split(dataset)
    >>> model = rhosight.DescriptorModel().fit(dataset[train])
    >>> model.predict_intervals(dataset[test])
    """

    kind: ClassVar[str] = "descriptors"

    def __init__(self, recipe: DescriptorRecipe | None = None):
        super().__init__()
        self.recipe = recipe or DescriptorRecipe()
        self.out_of_fold = pd.DataFrame()
        self._process: Committee | None = None
        self._prototypes: list[str] = []
        self._intervals: ConformalIntervals | None = None
        self._domain: TrainingDomain | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return self.recipe.targets

    @property
    def uses_density(self) -> bool:
        return self.recipe.uses_density

    @property
    def fitted(self) -> bool:
        return self._process is not None

    def fit(
        self, dataset: Dataset, progress: Callable[[str, int, int], None] | None = None
    ) -> Self:
        """Learn from all materials that have at least one of the recipe's targets.

        Parameters
        ----------
        dataset
            The training part: nothing else is looked at.
        progress
            Called with (label, step, steps).

        Raises
        ------
        RhosightError
            If a target is unknown or has no values, or a material lacks what the recipe reads.
        """
        dataset = dataset.require_targets(self.targets, how="any")
        table = descriptor_table(dataset.densities, self.recipe, progress)
        labels = dataset.targets[list(self.targets)].to_numpy(dtype=float)
        self._prototypes = sorted(set(table["prototype"]))
        blocks = to_blocks(table, self._prototypes)
        predicted, std = self._cross_predict(dataset, blocks, labels, progress)
        self._process = committee_of(self.recipe).fit(blocks, labels)
        self._intervals = ConformalIntervals.fit(labels, predicted, std, self.recipe.level)
        self._domain = TrainingDomain.fit(
            _joined(blocks), [_elements(structure) for structure in dataset.structures], std
        )
        self.out_of_fold = pd.DataFrame(
            {
                "material_id": np.repeat(dataset.ids, len(self.targets)),
                "target": np.tile(self.targets, len(dataset)),
                "true": labels.ravel(),
                "predicted": predicted.ravel(),
                "std": std.ravel(),
            }
        ).dropna(ignore_index=True)
        codes = sorted(codes_of(dataset)) if self.recipe.uses_density else []
        self._remember(dataset, codes=codes)
        return self

    def predict(
        self, materials: Materials, progress: Callable[[str, int, int], None] | None = None
    ) -> pd.DataFrame:
        """Predict the targets of materials, in :attr:`units`.

        Parameters
        ----------
        materials
            A dataset (labels are not looked at), charge densities, or name → structure for a
            recipe without density.
        progress
            Called with (label, done, all).

        Returns
        -------
        DataFrame (materials, targets), indexed by material id or file name.

        Raises
        ------
        RhosightError
            If the model is not fitted, or a material lacks a density.
        """
        return self.predict_intervals(materials, progress)[list(self.targets)]

    def predict_intervals(
        self, materials: Materials, progress: Callable[[str, int, int], None] | None = None
    ) -> pd.DataFrame:
        """Predictions with their intervals, and why a material may be beyond the model.

        Parameters
        ----------
        materials, progress
            As :meth:`predict` takes them.

        Returns
        -------
        DataFrame indexed as that of :meth:`predict`. For each target ``{target}``, and the ends
        ``{target}_low`` and ``{target}_high`` of an interval that is meant to hold the truth for
        the recipe's ``level`` of the materials that are like the training part (conformal,
        :mod:`rhosight.uncertainty`); ``outside``: why a material is not, or None.
        """
        self._check_fitted()
        crystals = _crystals(materials)
        if not len(crystals):
            ends = ("", "_low", "_high")
            names = [f"{target}{end}" for target in self.targets for end in ends]
            return pd.DataFrame(columns=[*names, "outside"], index=pd.Index([], name="material_id"))
        parts, names, elements, codes = [], [], [], set()
        for part, descriptors in _chunks(crystals, self.recipe, progress):
            parts.append(descriptors)
            names += [getattr(crystal, "name", "") for crystal in part]
            elements += [_elements(_structure(crystal)) for crystal in part]
            codes |= codes_of(part)
        warn_of_other_codes(codes, self.about.get("codes", []))
        table = pd.concat(parts, ignore_index=True)
        blocks = to_blocks(table, self._prototypes)
        values, std = self._process.predict(blocks, return_std=True)
        low, high = self._intervals(values, std)
        columns = {}
        for number, target in enumerate(self.targets):
            columns[target] = values[:, number]
            columns[f"{target}_low"], columns[f"{target}_high"] = low[:, number], high[:, number]
        columns["outside"] = self._domain.reasons(_joined(blocks), elements, std, self.targets)
        names = list(materials) if isinstance(materials, Mapping) else names
        return pd.DataFrame(columns, index=pd.Index(names, name="material_id"))

    def _cross_predict(
        self,
        dataset: Dataset,
        blocks: dict[str, pd.DataFrame],
        labels: np.ndarray,
        progress: Callable[[str, int, int], None] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation for each material by a process that has not seen it."""
        mean, std = np.full(labels.shape, np.nan), np.full(labels.shape, np.nan)
        parts = folds(dataset, self.recipe.n_splits, self.recipe.seed)
        for number, (train, rest) in enumerate(parts, start=1):
            process = committee_of(self.recipe).fit(_rows(blocks, train), labels[train])
            mean[rest], std[rest] = process.predict(_rows(blocks, rest), return_std=True)
            if progress:
                progress("folds for the intervals", number, len(parts))
        return mean, std

    def _explainer(self, background: Dataset | None) -> Callable[[Any, bool], Explanation]:
        from .explain.assembly import Predicted, explain_by_process
        from .explain.processes import ProcessExplainer

        others, what = None, "training"
        if background is not None:
            table = descriptor_table(_crystals(background), self.recipe)
            others, what = to_blocks(table, self._prototypes), "given"
        explainer = ProcessExplainer(self._process, others)
        sentence = f"mean over {len(explainer)} {what} materials"
        scales = self._process.label_scales()
        predicted = Predicted(self.units, *scales, sentence)

        def explain(part: Materials, details: bool) -> Explanation:
            (crystal,) = _crystals(part)
            (name,) = _names(part)
            blocks = to_blocks(descriptor_table([crystal], self.recipe), self._prototypes)
            structure = _structure(crystal)
            return explain_by_process(explainer, blocks, structure, name, predicted, details)

        return explain

    def _write(self, folder: Path) -> dict[str, Any]:
        arrays = {f"process/{k}": v for k, v in self._process.arrays().items()}
        arrays |= {f"domain/{k}": v for k, v in self._domain.arrays().items()}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / WEIGHTS)
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "prototypes": self._prototypes,
            "process": self._process.to_dict(),
            "intervals": self._intervals.to_dict(),
            "domain": self._domain.to_dict(),
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        arrays = load_file(folder / WEIGHTS)

        def part(name: str) -> dict[str, np.ndarray]:
            prefix = f"{name}/"
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        model = cls(DescriptorRecipe(**config["recipe"]))
        model._prototypes = config["prototypes"]
        model._process = Committee.from_state(config["process"], part("process"))
        model._intervals = ConformalIntervals.from_dict(config["intervals"])
        model._domain = TrainingDomain.from_state(config["domain"], part("domain"))
        return model

    def _describe(self) -> tuple[str, str]:
        reads = "charge density and structure" if self.recipe.uses_density else "structure"
        return "Descriptor model", (
            f"Reads the {reads} of a crystal: the blocks {', '.join(self.recipe.blocks)} of "
            "`rhosight.descriptors` and `rhosight.baselines`, with a committee of Gaussian "
            "processes for each target. Intervals are "
            f"conformal, for {100 * self.recipe.level:g} % of the materials that are like the "
            f"training part, calibrated on {self.recipe.n_splits} folds of it. Of materials with "
            "other elements, or far from the training part, `predict_intervals` says so.\n\n"
            "Densities of another code differ near the nuclei, and prediction warns of them: "
            f"trained on {', '.join(self.about['codes']) or 'no density'}."
        )


def committee_of(recipe: DescriptorRecipe) -> Committee:
    """The unfitted Gaussian processes of a recipe."""
    return Committee(
        [GaussianProcess(k.terms, linear=SPARSE, seed=recipe.seed) for k in recipe.kernels]
    )


def descriptor_table(
    crystals: Crystals,
    recipe: DescriptorRecipe,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """All numbers that a recipe reads of n crystals.

    Parameters
    ----------
    crystals
        Densities, or structures if the recipe reads no density. A density that has only `total`
        gets its `difference` from :mod:`rhosight.free_atoms`.
    recipe
        Says which blocks.
    progress
        Called with ("descriptors", done, n).

    Returns
    -------
    DataFrame of n rows; columns ``block.name``, and ``prototype``, a label.

    Raises
    ------
    RhosightError
        For a crystal without what the recipe reads, with partial occupancies, or with an element
        that has no free atom.
    """
    parts = [descriptors for _, descriptors in _chunks(crystals, recipe, progress)]
    return pd.concat(parts, ignore_index=True)


def _chunks(
    crystals: Crystals, recipe: DescriptorRecipe, progress: Callable[[str, int, int], None] | None
) -> Iterator[tuple[Crystals, pd.DataFrame]]:
    """A few crystals at a time, each read once and then forgotten, with what describes them."""
    for start in range(0, len(crystals), CHUNK):
        part = crystals[start : start + CHUNK]
        yield part, _descriptors(part, recipe)
        if progress:
            progress("descriptors", start + len(part), len(crystals))


def _descriptors(crystals: Crystals, recipe: DescriptorRecipe) -> pd.DataFrame:
    if recipe.uses_density:
        crystals = [_with_difference(c) for c in crystals]
    composition = composition_features([_structure(c) for c in crystals])
    parts = [
        composition[["prototype"]],
        composition.filter(regex="^MagpieData ").add_prefix("magpie."),
        composition[["volume_per_atom"]].add_prefix("volume."),
    ]
    for kind in STATISTICS_BLOCKS:
        if kind in recipe.blocks:
            statistics = density_features(crystals, (kind,)).drop(columns="volume_per_atom")
            parts.append(statistics.add_prefix(f"{kind}."))
    others = [n for n in recipe.blocks if n not in (*COMPOSITION_BLOCKS, *STATISTICS_BLOCKS)]
    parts.append(descriptor_frame(crystals, others))
    return pd.concat(parts, axis=1)


def to_blocks(table: pd.DataFrame, prototypes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Block → its columns; structure types that the training part lacks are none of the known."""
    columns = block_columns(name for name in table if name != "prototype")
    blocks = {name: table[names] for name, names in columns.items()}
    labels = pd.Categorical(table["prototype"], categories=prototypes)
    blocks["prototype"] = pd.get_dummies(labels, dtype=float)
    return blocks


def _with_difference(crystal: Any) -> ChargeDensity:
    if not isinstance(crystal, ChargeDensity):
        raise RhosightError(
            f"{crystal.composition.reduced_formula}: this model reads charge densities; use the "
            "model no-dft for a structure alone"
        )
    return crystal if "difference" in crystal.grids else difference_from_total(crystal)


def _crystals(materials: Materials) -> Crystals:
    """The crystals; those of a sequence that reads them on demand are not read here."""
    if isinstance(materials, Dataset):
        return materials.densities
    if isinstance(materials, ChargeDensity):
        return [materials]
    if isinstance(materials, Mapping):
        return list(materials.values())
    return materials if isinstance(materials, Sequence) else list(materials)


def _names(materials: Materials) -> list[str]:
    """What the table calls them."""
    if isinstance(materials, Dataset):
        return materials.ids
    if isinstance(materials, Mapping):
        return list(materials)
    return [density.name for density in _crystals(materials)]


def _structure(crystal: ChargeDensity | Structure) -> Structure:
    return crystal.structure if isinstance(crystal, ChargeDensity) else crystal


def _elements(structure: Structure) -> set[str]:
    return {str(element) for element in structure.composition.element_composition}


def _rows(blocks: dict[str, pd.DataFrame], rows: np.ndarray) -> dict[str, pd.DataFrame]:
    return {name: block.iloc[rows] for name, block in blocks.items()}


def _joined(blocks: dict[str, pd.DataFrame]) -> np.ndarray:
    """What decides about the training domain: all but the mostly empty blocks of the elements,
    which are asked for by name."""
    return np.hstack(
        [block.to_numpy(float) for name, block in blocks.items() if name not in SPARSE]
    )
