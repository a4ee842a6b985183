"""DescriptorModel: Gaussian processes over blocks, such as `best`, `image+text`.

Composition, structure type, charge density, and the quantities that electrostatics and the theory
of the electron gas derive from it become blocks of numbers, and so do the features that pre-trained
encoders read from images and texts. Gaussian processes over these blocks predict. No network is
trained: a fit takes a minute or two. A prediction has an interval, and flags materials outside the
training domain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from pymatgen.core import Structure
from safetensors.numpy import load_file, save_file
from threadpoolctl import threadpool_limits

from ..dataset.dataset import Dataset
from ..dataset.packing import BUNDLED
from ..dataset.splits import check_labels, folds, group_labels
from ..dataset.volumes import check_volume
from ..density.bare_crystal import Crystal
from ..density.charge_density import ChargeDensity
from ..density.crystals import as_structure
from ..errors import RhosightError, first_line
from ..inputs.descriptors.blocks import ALL_BLOCKS, COMPOSITION_BLOCKS, to_blocks
from ..inputs.progress import Progress
from .base import SavedModel
from .baselines.potential import SEEN
from .blocks import BlockReader, keep_describable
from .descriptor_card import describe_recipe
from .descriptor_state import DescriptorState, Estimate, join_blocks
from .folder import WEIGHTS
from .gaussian_process.committee import Committee
from .gaussian_process.fitting import make_committee, predict_left_out, select_types
from .gaussian_process.recipe import DescriptorRecipe
from .gaussian_process.scales import TargetScales
from .materials import Materials, as_crystals, as_densities, list_crystals, list_densities
from .provenance import find_codes, warn_of_other_codes
from .uncertainty import ConformalIntervals, TrainingDomain

if TYPE_CHECKING:
    from .encoder_tuning import ModelTuning


class DescriptorModel(SavedModel):
    """Gaussian processes over descriptors and features, with calibrated intervals.

    The model also flags materials outside its training domain.

    Parameters
    ----------
    recipe
        All settings; ``best`` if not given.

    Attributes
    ----------
    units, scores, about
        See :class:`rhosight.models.base.SavedModel`.
    out_of_fold
        Predictions of each material of the training set by models that were trained without it
        (after ``fit``): columns material_id, target, true, predicted, std, in the target's unit.

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
        self.reader = BlockReader(self.recipe)
        self._verdicts: dict[str, list[str]] = {}
        self._state: DescriptorState | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the predicted targets, in order."""
        return self.recipe.targets

    @property
    def scales(self) -> TargetScales:
        """Return the scales in which targets are learned."""
        return self.recipe.target_scales

    @property
    def uses_density(self) -> bool:
        """Tell whether the model needs charge densities, not only structures."""
        return self.recipe.uses_density

    @property
    def core_free(self) -> bool:
        """True if the model ignores the density near the nuclei, where codes disagree."""
        return self.recipe.core_free

    @property
    def caveat(self) -> str:
        """Return that a potential was trained on the Materials Project, if one is read."""
        return SEEN if self.recipe.uses_potential else ""

    @property
    def is_fitted(self) -> bool:
        """Tell whether the model can predict."""
        return self._state is not None

    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from all materials that have at least one of the recipe's targets.

        Parameters
        ----------
        dataset
            The training set.
        run_dir
            Ignored: training takes minutes, and is not resumed.
        progress
            Called with (label, step, steps).

        Raises
        ------
        RhosightError
            If a target is unknown or has no values, or a material lacks an input of the recipe.
        """
        dataset = keep_describable(dataset.require_targets(self.targets, how="any"), self.recipe)
        parts = folds(dataset, self.recipe.n_splits, self.recipe.seed)
        check_labels(dataset, self.targets, [rows for rows, _ in parts])
        reader = BlockReader(self.recipe) if self.recipe.fine_tuning else self.reader
        table = reader.table(dataset, progress)
        tuning = self._tune_encoders(dataset, table, progress)
        table = tuning.table if tuning else table
        self._state = self._learn(dataset, table, parts, tuning, progress)
        codes = sorted(find_codes(dataset)) if self.recipe.uses_density else []
        self._remember(dataset, codes=codes, **self._verdicts)
        return self

    def _learn(
        self,
        dataset: Dataset,
        table: pd.DataFrame,
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
        tuning: ModelTuning | None,
        progress: Progress | None,
    ) -> DescriptorState:
        """Fit processes, intervals and limits to features; set :attr:`out_of_fold`."""
        given = dataset.targets[list(self.targets)].to_numpy(dtype=float)
        labels = self.scales.learn(given)
        prototypes, recurring = select_types(table["prototype"])
        blocks = to_blocks(table, prototypes)
        process = make_committee(self.recipe, blocks).fit(blocks, labels)
        predicted, std, less_sure = predict_left_out(
            self.recipe,
            process,
            blocks,
            labels,
            parts,
            group_labels(dataset),
            progress,
            tuning.tune_fold if tuning else None,
        )
        domain = TrainingDomain.fit(
            join_blocks(blocks), [elements_of(s) for s in dataset.structures], std
        )
        intervals = ConformalIntervals.fit(labels, predicted, std, self.recipe.level)
        intervals = intervals.widen(less_sure)
        types = np.unique(table["prototype"].to_numpy(str), return_inverse=True)[1]
        far = tuning.leave_out(labels, types) if tuning else process.leave_out(types)
        self._remember_out_of_fold(dataset, given, predicted, std)
        return DescriptorState(
            prototypes=prototypes,
            recurring=recurring,
            process=process,
            intervals=intervals.calibrate_outside(labels, *far),
            domain=domain,
        )

    def _remember_out_of_fold(
        self, dataset: Dataset, given: np.ndarray, predicted: np.ndarray, std: np.ndarray
    ) -> None:
        """Set :attr:`out_of_fold`; labels, predictions and deviations are (n, targets)."""
        self.out_of_fold = pd.DataFrame(
            {
                "material_id": np.repeat(dataset.ids, len(self.targets)),
                "target": np.tile(self.targets, len(dataset)),
                "true": given.ravel(),
                "predicted": self.scales.restore(predicted).ravel(),
                "std": self.scales.restore_std(predicted, std).ravel(),
            }
        ).dropna(ignore_index=True)

    def _tune_encoders(
        self, dataset: Dataset, table: pd.DataFrame, progress: Progress | None
    ) -> ModelTuning | None:
        """Fine-tune the encoders and read those that are kept; None if none is."""
        self._verdicts = {}
        if self.recipe.fine_tuning is None:
            return None
        from .encoder_tuning import ModelTuning  # loads PyTorch

        tuning = ModelTuning(self.recipe, dataset, table, progress)
        self._verdicts = {"fine_tuning": tuning.verdicts}
        self.reader = tuning.make_reader() if tuning.is_kept else BlockReader(self.recipe)
        return tuning if tuning.is_kept else None

    def score(self, dataset: Dataset) -> dict[str, dict[str, float]]:
        """Score as :meth:`SavedModel.score`, without elements that it cannot read."""
        return super().score(keep_describable(dataset, self.recipe))

    def predict(self, materials: Materials, progress: Progress | None = None) -> pd.DataFrame:
        """Predict the targets of materials, in :attr:`units`.

        Parameters
        ----------
        materials
            A dataset (labels are ignored), one charge density or several (``ChargeDensity``,
            pymatgen ``Chgcar``, or the path of a file), a folder of density files, or name →
            density. A recipe without density also takes one structure or several (pymatgen
            ``Structure``, ASE ``Atoms``, or the path of a file), or name → structure.
        progress
            Called with (label, done, all).

        Returns
        -------
        DataFrame (materials, targets), indexed by material id or file name.

        Raises
        ------
        RhosightError
            If the model is not fitted, or a material is of another type or lacks a density.
        """
        return self.predict_intervals(materials, progress)[list(self.targets)]

    @threadpool_limits.wrap(limits=1)  # for small tables, threads wait longer than they work
    def predict_intervals(
        self,
        materials: Materials,
        progress: Progress | None = None,
        nearest: int = 0,
    ) -> pd.DataFrame:
        """Predict with intervals, and flag materials outside the training domain.

        Parameters
        ----------
        materials, progress
            As :meth:`predict` takes them.
        nearest
            Number of nearest training materials to name.

        Returns
        -------
        DataFrame indexed as that of :meth:`predict`. For each target ``{target}``, and the ends
        ``{target}_low`` and ``{target}_high`` of an interval that should contain the true value for
        a share ``level`` of the materials that are like the training set (conformal,
        :mod:`rhosight.models.uncertainty`). Outside of its domain the interval is wider, by what
        leaving out whole structure types has shown. ``outside``: the reason why a material is
        outside the training domain, or None. With ``nearest`` also ``nearest``: pairs of a training
        material's id and its distance in the descriptors; 1 is one standard deviation in each.
        """
        self.check_fitted()
        crystals = self._read_materials(materials)
        if not len(crystals):
            ends = ("", "_low", "_high")
            names = [f"{target}{end}" for target in self.targets for end in ends]
            return pd.DataFrame(columns=[*names, "outside"], index=pd.Index([], name="material_id"))
        parts, names, elements, strains = [], [], [], []
        codes: set[str] = set()
        sequence = list(crystals.values()) if isinstance(crystals, dict) else crystals
        for part, descriptors in self.reader.iterate(sequence, progress):
            parts.append(descriptors)
            own = part.ids if isinstance(part, Dataset) else None
            names += own or [getattr(crystal, "name", "") for crystal in part]
            elements += [elements_of(as_structure(crystal)) for crystal in part]
            strains += self._check_volumes(part)
            codes |= find_codes(part)
        warn_of_other_codes(codes, self.about.get("codes", []), self.core_free)
        table = pd.concat(parts, ignore_index=True)
        columns = self._columns(table, elements, strains)
        if nearest:
            columns["nearest"] = self._find_nearest(table, nearest)
        names = list(crystals) if isinstance(crystals, dict) else names
        return self._check_predictions(
            pd.DataFrame(columns, index=pd.Index(names, name="material_id"))
        )

    def _check_volumes(self, part: Any) -> list[str | None]:
        """Return why volumes are unusual, for a model that learned from relaxed crystals."""
        if self.about.get("dataset") not in BUNDLED:
            return [None] * len(part)
        return [check_volume(as_structure(crystal)) for crystal in part]

    def _columns(
        self, table: pd.DataFrame, elements: list[set[str]], strains: list[str | None]
    ) -> dict[str, Any]:
        """Return the columns that :meth:`predict_intervals` documents, without neighbours."""
        return self._tabulate(self.estimate(table, elements, strains))

    def estimate(
        self, table: pd.DataFrame, elements: list[set[str]], strains: list[str | None]
    ) -> Estimate:
        """Predict n materials in the scales in which targets are learned.

        Parameters
        ----------
        table
            Descriptors, as :class:`rhosight.models.blocks.BlockReader` returns them.
        elements
            Of each material.
        strains
            Why its volume is unusual, or None.

        Raises
        ------
        RhosightError
            If the model's folder is damaged.
        """
        fitted, blocks = self._fitted(), self.to_blocks(table)
        try:
            mean, std = fitted.process.predict_with_std(blocks)
        except np.linalg.LinAlgError as error:
            raise RhosightError(
                f"the model cannot predict ({first_line(error)}): its folder is damaged; train or "
                "download it again"
            ) from error
        far = fitted.domain.reasons(join_blocks(blocks), elements, std, self.targets)
        reasons = tuple(
            "; ".join(filter(None, (strain, fitted.describe_type(label), reason))) or None
            for strain, label, reason in zip(strains, table["prototype"], far, strict=True)
        )
        return Estimate(mean, std, reasons)

    def _tabulate(self, estimate: Estimate) -> dict[str, Any]:
        """Return predictions, the ends of intervals, and why materials are outside."""
        values, reasons = estimate.mean, estimate.outside
        is_outside = [reason is not None for reason in reasons]
        low, high = self._fitted().intervals(values, estimate.std, is_outside)
        values, low, high = (self.scales.restore(part) for part in (values, low, high))
        columns: dict[str, Any] = {}
        for number, target in enumerate(self.targets):
            columns[target] = values[:, number]
            columns[f"{target}_low"], columns[f"{target}_high"] = low[:, number], high[:, number]
        return columns | {"outside": list(reasons)}

    def _find_nearest(self, table: pd.DataFrame, count: int) -> list[list[tuple[str, float]]]:
        """Return id and distance of the nearest training materials of each material."""
        fitted = self._fitted()
        features = join_blocks(self.to_blocks(table))
        rows, distances = fitted.domain.nearest(features, count)
        ids = np.array(self.about["training_ids"])[rows]
        return [
            list(zip(i.tolist(), d.tolist(), strict=True))
            for i, d in zip(ids, distances, strict=True)
        ]

    def _read_materials(
        self, materials: Materials
    ) -> Dataset | Sequence[Crystal] | Sequence[ChargeDensity] | dict[str, Structure]:
        """Return what the recipe reads; a sequence that reads files on demand stays one."""
        return as_densities(materials) if self.uses_density else as_crystals(materials)

    def read_one(self, part: Materials) -> tuple[str, Structure, pd.DataFrame]:
        """Return name, structure and descriptors of a single material."""
        crystals = self._read_materials(part)
        if isinstance(crystals, dict):
            ((name, structure),) = crystals.items()
            return name, structure, self.reader.table([structure])
        read = list_densities if self.uses_density else list_crystals
        (crystal,) = read(crystals)
        return crystal.name, crystal.structure, self.reader.table(crystals)

    def to_blocks(self, table: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the blocks that the model reads; the table may have others."""
        unread = set(ALL_BLOCKS) - {*COMPOSITION_BLOCKS, *self.recipe.blocks}
        blocks = to_blocks(table, self._fitted().prototypes)
        return {name: block for name, block in blocks.items() if name not in unread}

    def in_units(self, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return means and half the widths of intervals, (n, targets), in units."""
        low, high = map(self.scales.restore, self._fitted().intervals(mean, std))
        return self.scales.restore(mean), (high - low) / 2

    def _fitted(self) -> DescriptorState:
        self.check_fitted()
        assert self._state is not None
        return self._state

    @property
    def known_elements(self) -> tuple[str, ...]:
        """Return the elements of the training set, sorted."""
        return self._fitted().domain.elements

    @property
    def process(self) -> Committee:
        """Return the fitted Gaussian processes."""
        return self._fitted().process

    def _write(self, folder: Path) -> dict[str, Any]:
        fitted = self._fitted()
        save_file(fitted.arrays(), folder / WEIGHTS)
        encoders = self.reader.encoders
        if encoders:
            encoders.save(folder)
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "encoders": encoders.weights if encoders else {},
            **fitted.to_dict(),
        }

    @classmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        model = cls(DescriptorRecipe(**config["recipe"]))
        model.reader = BlockReader(model.recipe, folder, config.get("encoders", {}))
        model._state = DescriptorState.from_state(config, load_file(folder / WEIGHTS))
        return model

    def _describe(self) -> tuple[str, str]:
        return describe_recipe(self.recipe, self.about)


def elements_of(structure: Structure) -> set[str]:
    """Return the symbols of a crystal's elements."""
    return {str(element) for element in structure.composition.element_composition}
