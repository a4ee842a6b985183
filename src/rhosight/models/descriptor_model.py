"""DescriptorModel: the `best` recipe, and `no-dft`, which needs no charge density.

What is known of a crystal (composition, structure type, its charge density and what follows from it
by electrostatics and the theory of the electron gas) becomes blocks of numbers, and a Gaussian
process over these blocks predicts. No network is trained: a fit takes a minute or two, and a
prediction comes with an interval and a word on whether the material is like those of the training
part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from pymatgen.core import Structure
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from ..dataset.dataset import Dataset
from ..dataset.splits import check_labels, folds
from ..density.charge_density import ChargeDensity
from ..inputs.descriptors.blocks import (
    SPARSE,
    Crystals,
    block_table,
    described,
    structure_of,
    to_blocks,
)
from ..inputs.progress import Progress
from .base import SavedModel
from .folder import WEIGHTS
from .gaussian_process.committee import Committee
from .gaussian_process.process import GaussianProcess
from .gaussian_process.recipe import DescriptorRecipe
from .provenance import codes_of, warn_of_other_codes
from .uncertainty import ConformalIntervals, TrainingDomain

Materials = Dataset | Sequence[ChargeDensity] | Mapping[str, Structure]
"""A dataset, densities, or (for a model that needs none) name → structure."""


class DescriptorModel(SavedModel):
    """Gaussian processes over descriptors, with calibrated intervals and a training domain.

    Parameters
    ----------
    recipe
        All settings; ``best`` if not given.

    Attributes
    ----------
    units, scores, about
        See :class:`rhosight.models.base.SavedModel`.
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
        self.process: Committee | None = None
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
    def core_free(self) -> bool:
        return self.recipe.core_free

    @property
    def fitted(self) -> bool:
        return self.process is not None

    def fit(self, dataset: Dataset, progress: Progress | None = None) -> Self:
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
        parts = folds(dataset, self.recipe.n_splits, self.recipe.seed)
        check_labels(dataset, self.targets, [rows for rows, _ in parts])
        table = descriptor_table(dataset.densities, self.recipe, progress)
        labels = dataset.targets[list(self.targets)].to_numpy(dtype=float)
        self._prototypes = sorted(set(table["prototype"]))
        blocks = to_blocks(table, self._prototypes)
        predicted, std = self._cross_predict(parts, blocks, labels, progress)
        self.process = committee_of(self.recipe).fit(blocks, labels)
        # The models of the folds knew a fifth less and were less sure: their quantile of
        # |error| / std is too small for the std of a model that knows all.
        less_sure = np.nanmedian(std / self.process.leave_one_out()[1], axis=0)
        intervals = ConformalIntervals.fit(labels, predicted, std, self.recipe.level)
        self._intervals = intervals.widened(np.maximum(less_sure, 1))
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

    def predict(self, materials: Materials, progress: Progress | None = None) -> pd.DataFrame:
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

    @threadpool_limits.wrap(limits=1)  # for small tables, threads wait longer than they work
    def predict_intervals(
        self,
        materials: Materials,
        progress: Progress | None = None,
        nearest: int = 0,
    ) -> pd.DataFrame:
        """Predictions with their intervals, and why a material may be beyond the model.

        Parameters
        ----------
        materials, progress
            As :meth:`predict` takes them.
        nearest
            How many of the nearest training materials to name.

        Returns
        -------
        DataFrame indexed as that of :meth:`predict`. For each target ``{target}``, and the ends
        ``{target}_low`` and ``{target}_high`` of an interval that is meant to hold the truth for
        the recipe's ``level`` of the materials that are like the training part (conformal,
        :mod:`rhosight.models.uncertainty`); ``outside``: why a material is not, or None. With ``nearest``
        also ``nearest``: pairs of a training material's id and its distance in the descriptors,
        1 being one standard deviation in each.
        """
        self.check_fitted()
        crystals = crystals_of(materials)
        if not len(crystals):
            ends = ("", "_low", "_high")
            names = [f"{target}{end}" for target in self.targets for end in ends]
            return pd.DataFrame(columns=[*names, "outside"], index=pd.Index([], name="material_id"))
        parts, names, elements, codes = [], [], [], set()
        for part, descriptors in described(crystals, self.recipe.blocks, progress):
            parts.append(descriptors)
            names += [getattr(crystal, "name", "") for crystal in part]
            elements += [_elements(structure_of(crystal)) for crystal in part]
            codes |= codes_of(part)
        warn_of_other_codes(codes, self.about.get("codes", []), self.core_free)
        table = pd.concat(parts, ignore_index=True)
        blocks = to_blocks(table, self._prototypes)
        values, std = self.process.predict(blocks, return_std=True)
        low, high = self._intervals(values, std)
        columns = {}
        for number, target in enumerate(self.targets):
            columns[target] = values[:, number]
            columns[f"{target}_low"], columns[f"{target}_high"] = low[:, number], high[:, number]
        reasons = self._domain.reasons(_joined(blocks), elements, std, self.targets)
        columns["outside"] = [
            reason if label in self._prototypes else _of_new_type(label, reason)
            for label, reason in zip(table["prototype"], reasons, strict=True)
        ]
        if nearest:
            rows, distances = self._domain.nearest(_joined(blocks), nearest)
            ids = np.array(self.about["training_ids"])[rows]
            columns["nearest"] = [
                list(zip(i.tolist(), d.tolist(), strict=True))
                for i, d in zip(ids, distances, strict=True)
            ]
        names = list(materials) if isinstance(materials, Mapping) else names
        return pd.DataFrame(columns, index=pd.Index(names, name="material_id"))

    def _cross_predict(
        self,
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
        blocks: dict[str, pd.DataFrame],
        labels: np.ndarray,
        progress: Progress | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation for each material by a process that has not seen it."""
        mean, std = np.full(labels.shape, np.nan), np.full(labels.shape, np.nan)
        for number, (train, rest) in enumerate(parts, start=1):
            process = committee_of(self.recipe).fit(_rows(blocks, train), labels[train])
            mean[rest], std[rest] = process.predict(_rows(blocks, rest), return_std=True)
            if progress:
                progress("folds for the intervals", number, len(parts))
        return mean, std

    def read_one(self, part: Materials) -> tuple[str, Structure, dict[str, pd.DataFrame]]:
        """Name, structure and blocks of a single material."""
        (crystal,) = crystals_of(part)
        name = next(iter(part)) if isinstance(part, Mapping) else crystal.name
        return name, structure_of(crystal), self.blocks_of([crystal])

    def blocks_of(self, crystals: Crystals) -> dict[str, pd.DataFrame]:
        return to_blocks(descriptor_table(crystals, self.recipe), self._prototypes)

    def _write(self, folder: Path) -> dict[str, Any]:
        arrays = {f"process/{k}": v for k, v in self.process.arrays().items()}
        arrays |= {f"domain/{k}": v for k, v in self._domain.arrays().items()}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / WEIGHTS)
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "prototypes": self._prototypes,
            "process": self.process.to_dict(),
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
        model.process = Committee.from_state(config["process"], part("process"))
        model._intervals = ConformalIntervals.from_dict(config["intervals"])
        model._domain = TrainingDomain.from_state(config["domain"], part("domain"))
        return model

    def _describe(self) -> tuple[str, str]:
        reads = "charge density and structure" if self.recipe.uses_density else "structure"
        return "Descriptor model", (
            f"Reads the {reads} of a crystal: the blocks {', '.join(self.recipe.blocks)} of "
            "`rhosight.inputs.descriptors.frame` and `rhosight.models.baselines.baselines`, with a committee of Gaussian "
            "processes for each target. Intervals are "
            f"conformal, for {100 * self.recipe.level:g} % of the materials that are like the "
            f"training part, calibrated on {self.recipe.n_splits} folds of it. Of materials with "
            "other elements, or far from the training part, `predict_intervals` says so. Of "
            f"structure types that the training part lacks it knows little.\n\n{self._codes()}"
        )

    def _codes(self) -> str:
        """For the model card: what another code's densities are to this model."""
        if not self.recipe.uses_density:
            return (
                "It reads no density. It reads volumes and distances, though: relax a structure as "
                "those of the training data were; other geometries were not tried."
            )
        codes = f"Trained on densities of {', '.join(self.about['codes']) or 'no known code'}."
        if self.recipe.core_free:
            return f"{codes} Of a density it reads what lies between the atoms, where codes agree."
        return f"{codes} Those of another code differ near the nuclei: prediction warns of them."


def committee_of(recipe: DescriptorRecipe) -> Committee:
    """The unfitted Gaussian processes of a recipe."""
    return Committee(
        [GaussianProcess(k.terms, linear=SPARSE, seed=recipe.seed) for k in recipe.kernels]
    )


def descriptor_table(
    crystals: Crystals,
    recipe: DescriptorRecipe,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """All numbers that a recipe reads of n crystals, see :func:`rhosight.inputs.descriptors.blocks.block_table`."""
    return block_table(crystals, recipe.blocks, progress)


def crystals_of(materials: Materials) -> Crystals:
    """The crystals; those of a sequence that reads them on demand are not read here."""
    if isinstance(materials, Dataset):
        return materials.densities
    if isinstance(materials, ChargeDensity):
        return [materials]
    if isinstance(materials, Mapping):
        return list(materials.values())
    return materials if isinstance(materials, Sequence) else list(materials)


def _of_new_type(label: str, reason: str | None) -> str:
    """The structure type comes first: models know little beyond those that they have seen."""
    said = f"structure type {label} (space group and sites) is that of no training material"
    return f"{said}; {reason}" if reason else said


def _elements(structure: Structure) -> set[str]:
    return {str(element) for element in structure.composition.element_composition}


def _rows(blocks: dict[str, pd.DataFrame], rows: np.ndarray) -> dict[str, pd.DataFrame]:
    return {name: block.iloc[rows] for name, block in blocks.items()}


def _joined(blocks: dict[str, pd.DataFrame]) -> np.ndarray:
    """What decides about the training domain: all but the mostly empty blocks of the elements,
    which are asked for by name.
    """
    return np.hstack(
        [block.to_numpy(float) for name, block in blocks.items() if name not in SPARSE]
    )
