"""DensityModel: predict charge densities from structures; train, save and load it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from pymatgen.core import Structure
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..dataset.dataset import Dataset
from ..dataset.splits import Groups, folds, group_labels
from ..density.charge_density import ChargeDensity, check_grid_fits_cell
from ..density.crystals import StructureLike, as_structure, list_symbols
from ..density.free_atoms import list_elements, load_free_atoms
from ..density.predicted import mark_predicted
from ..errors import RhosightError, first_line
from ..inputs.descriptors.composition import prototype_label
from ..inputs.progress import Progress
from ..models.folder import (
    CARD,
    CONFIG,
    DENSITY_MODEL,
    FORMAT,
    WEIGHTS,
    bundled_folder,
    new_folder,
    read_config,
)
from ..models.provenance import describe_training_set, require_unseen
from .card import write_card
from .examples import Examples, collect_examples
from .network import DensityNetwork
from .prediction import MAX_POINTS, SPACING, DensityPrediction, predict_field
from .properties import element_properties
from .reliability import Reliability, compute_rarity, count_elements
from .scores import compute_errors, summarise
from .training import TrainingSettings, predict_mean, train_network

FOLDS = 5
"""Parts of the training set; each network lacks the crystals of one."""

NEW_TYPES = 5000
"""First seed of the networks that lack structure types; only their errors are used."""

MAX_SPACING = 0.6
"""Å; a coarser grid does not resolve an atom."""


class DensityModel:
    """A committee of networks that predicts the charge density of a structure.

    It learns the difference between a self-consistent density and superposed free atoms at points,
    from the atoms around each point (:mod:`rhosight.ecd.features`), and adds it to the free atoms.

    Parameters
    ----------
    settings
        Of the training.

    Attributes
    ----------
    scores
        Summaries of out-of-fold errors (``folds``), of those of single networks that had not seen
        the crystal's structure type (``new_types``), and of the errors of a test set (``test``).
    about
        Facts about the training: dataset, its hash, ids, licence, versions.
    errors
        Out-of-fold errors of the training crystals, as of ``scores.compute_errors``.
    reliability
        What is expected of a new crystal, from these errors; None before ``fit``.

    Examples
    --------
    >>> model = DensityModel.from_pretrained("density")
    >>> density = model.predict_density(structure, spacing=0.2)
    """

    kind: ClassVar[str] = "density"

    def __init__(self, settings: TrainingSettings | None = None) -> None:
        self.settings = settings or TrainingSettings()
        self.scores: dict[str, dict[str, float]] = {}
        self.about: dict[str, Any] = {}
        self.errors = pd.DataFrame()
        self._networks: list[DensityNetwork] = []
        self._properties = np.zeros((0, 0))
        self.reliability: Reliability | None = None

    def fit(
        self, dataset: Dataset, groups: Groups = "formula", progress: Progress | None = None
    ) -> Self:
        """Train networks on folds of a dataset, and calibrate their errors.

        Parameters
        ----------
        dataset
            Densities ``total`` of one code, pseudo-densities with smooth cores as GPAW writes them.
        groups
            Materials that stay together in a fold.
        progress
            Called with (label, step, steps).
        """
        self._properties = element_properties()
        examples = collect_examples(dataset.densities, self._properties, progress)
        parts = folds(dataset, FOLDS, groups=groups)
        self._networks = [
            train_network(examples, train, self.settings, 1000 * number + member, progress)
            for number, (train, _) in enumerate(parts)
            for member in range(self.settings.members)
        ]
        self._calibrate(dataset, examples, parts)
        self._calibrate_new_types(dataset, examples, progress)
        return self

    def calibrate_new_types(self, dataset: Dataset, progress: Progress | None = None) -> Self:
        """Calibrate the errors of new structure types again; ``fit`` does it, too.

        Networks that lack the crystals of some structure types are trained for that, and left.

        Parameters
        ----------
        dataset
            The training set.
        progress
            Called with (label, step, steps).
        """
        examples = collect_examples(dataset.densities, self._properties, progress)
        self._calibrate_new_types(dataset, examples, progress)
        return self

    def _calibrate(
        self,
        dataset: Dataset,
        examples: Examples,
        parts: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        """Compute the out-of-fold errors, and remember the training set."""
        structures = list(dataset.structures)
        members = self.settings.members
        networks = [
            self._networks[number * members : (number + 1) * members]
            for number in range(len(parts))
        ]
        errors = _compute_fold_errors(structures, examples, parts, networks)
        error, size, rarity = (errors[name].to_numpy() for name in ("error", "size", "rarity"))
        self.reliability = Reliability.fit(error, size, rarity, structures)
        errors.index = pd.Index([dataset.ids[int(number)] for number in errors.index])
        self.errors = errors
        self.scores = {"folds": summarise(errors)}
        self.about = describe_training_set(dataset)

    def _calibrate_new_types(
        self, dataset: Dataset, examples: Examples, progress: Progress | None
    ) -> None:
        """Compute the errors of crystals whose structure type a network had not seen."""
        if self.reliability is None:
            raise RhosightError("this model is not fitted; call fit, or load one")
        structures = list(dataset.structures)
        types = [prototype_label(structure) for structure in structures]
        groups = len(set(group_labels(dataset, "prototype")))
        if groups < 2:
            return
        parts = folds(dataset, min(FOLDS, groups), groups="prototype")
        networks = [
            [train_network(examples, train, self.settings, NEW_TYPES + number, progress)]
            for number, (train, _) in enumerate(parts)
        ]
        errors = _compute_fold_errors(structures, examples, parts, networks)
        error, size, rarity = (errors[name].to_numpy() for name in ("error", "size", "rarity"))
        self.reliability = self.reliability.calibrate_new_types(error, size, rarity, types)
        self.scores["new_types"] = summarise(errors)

    def predict(
        self,
        crystal: StructureLike,
        spacing: float = SPACING,
        grid: tuple[int, int, int] | None = None,
    ) -> DensityPrediction:
        """Predict the density of a crystal, its error, and where the model is unsure.

        Parameters
        ----------
        crystal
            An ordered structure of elements of the free-atom table, any cell.
        spacing
            Largest distance between grid points along the lattice vectors, Å. The grid has the
            symmetry of the crystal.
        grid
            Points along the lattice vectors, in place of ``spacing``.

        Raises
        ------
        RhosightError
            For an element that the table lacks, a disordered crystal, or an unsuitable grid.
        """
        if self.reliability is None:
            raise RhosightError("this model is not fitted; call fit, or load one")
        structure = as_structure(crystal).copy().remove_oxidation_states()
        where = structure.composition.reduced_formula
        _check_structure(structure, where)
        _check_grid(structure, spacing, grid, where)
        field = predict_field(self._networks, self._properties, structure, spacing, grid)
        error, bound = self.reliability.expect(structure, field.size)
        outside = self.reliability.list_reasons(structure)
        density = ChargeDensity(
            structure, {"total": field.total, "difference": field.difference}, name=where
        )
        density = mark_predicted(density, self._describe(), error, bound, outside)
        return DensityPrediction(density, field.spread, error, bound, outside)

    def predict_density(
        self,
        crystal: StructureLike,
        spacing: float = SPACING,
        grid: tuple[int, int, int] | None = None,
    ) -> ChargeDensity:
        """Return the density of :meth:`predict`: ``total`` and ``difference``, e/Å³.

        It is a GPAW-like pseudo-density, normalised to the predicted integral, positive, and as
        symmetric as the crystal. Its provenance names the model and the expected error.
        """
        return self.predict(crystal, spacing, grid).density

    def score(self, dataset: Dataset, progress: Progress | None = None) -> pd.DataFrame:
        """Compute the errors of densities that the model was not trained on.

        The summary goes to ``scores["test"]``.

        Raises
        ------
        RhosightError
            If a material belongs to the training set.
        """
        require_unseen(dataset, self.about.get("training_ids", ()))
        examples = collect_examples(dataset.densities, self._properties, progress)
        rows = np.arange(len(examples.crystal))
        errors = compute_errors(examples, rows, predict_mean(self._networks, examples, rows))
        errors.index = pd.Index(dataset.ids)
        self.scores["test"] = summarise(errors)
        return errors

    def _describe(self) -> str:
        return f"rhosight {self.about['versions'].get('rhosight', '')} ecd".replace("  ", " ")

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write weights (safetensors), config (JSON) and model card to a folder."""
        if self.reliability is None:
            raise RhosightError("the model is not fitted; call fit before save_pretrained")
        tensors = {"properties": torch.from_numpy(self._properties)}
        for number, network in enumerate(self._networks):
            weights = dict(network.named_parameters())
            for name, values in network.state_dict().items():
                stored = values.half() if name in weights else values
                tensors[f"{number}.{name}"] = stored.contiguous()
        config = {
            "rhosight_format": FORMAT,
            "kind": self.kind,
            "units": {"total": "e/Å³", "difference": "e/Å³"},
            "scores": self.scores,
            "about": self.about,
            "settings": asdict(self.settings),
            "elements": list_elements(),
            "reliability": self.reliability.to_dict(),
            "errors": json.loads(self.errors.round(6).to_json(orient="split")),
        }
        with new_folder(Path(folder)) as draft:
            save_file(tensors, draft / WEIGHTS)
            text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
            (draft / CONFIG).write_text(text, encoding="utf-8")
            (draft / CARD).write_text(write_card(self.scores, self.about), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike = DENSITY_MODEL) -> Self:
        """Load the bundled ``density``, or a folder of ``save_pretrained``.

        Raises
        ------
        RhosightError
            If the folder is not such a model.
        """
        source = bundled_folder(DENSITY_MODEL) if folder == DENSITY_MODEL else folder
        path, config = read_config(source)
        if config["kind"] != cls.kind:
            raise RhosightError(f"{folder}: a model of kind {config['kind']!r}, not {cls.kind!r}")
        try:
            return cls._read(path, config)
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            raise RhosightError(
                f"{folder}: not a readable density model ({first_line(error)}); train it again"
            ) from error

    @classmethod
    def _read(cls, path: Path, config: dict[str, Any]) -> Self:
        model = cls(TrainingSettings(**config["settings"]))
        if config["elements"] != list(list_elements()):
            raise ValueError("its table of free atoms has other elements")
        model.scores, model.about = config["scores"], config["about"]
        model.errors = pd.DataFrame(**config["errors"])
        model.reliability = Reliability.from_dict(config["reliability"])
        tensors = load_file(path / WEIGHTS)
        model._properties = tensors.pop("properties").numpy()
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, values in tensors.items():
            number, rest = name.split(".", 1)
            states.setdefault(int(number), {})[rest] = values.float()
        for _, state in sorted(states.items()):
            network = DensityNetwork(len(state["local_mean"]), len(state["site_mean"]))
            network.load_state_dict(state)
            model._networks.append(network.eval())
        return model


def _compute_fold_errors(
    structures: Sequence[Structure],
    examples: Examples,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    networks: Sequence[Sequence[DensityNetwork]],
) -> pd.DataFrame:
    """Return errors and rarities of all crystals, by networks trained without them."""
    tables = []
    for (train, validation), committee in zip(parts, networks, strict=True):
        rows = examples.points_of(validation)
        table = compute_errors(examples, rows, predict_mean(committee, examples, rows))
        counts = count_elements([structures[i] for i in train])
        table["rarity"] = [compute_rarity(structures[i], counts) for i in table.index]
        tables.append(table)
    return pd.concat(tables).sort_index()


@cache
def load_density_model() -> DensityModel:
    """Return the bundled model; it is read once."""
    return DensityModel.from_pretrained(DENSITY_MODEL)


def _check_structure(structure: Any, where: str) -> None:
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    missing = sorted(set(list_symbols(structure)) - set(load_free_atoms().atoms))
    if missing:
        raise RhosightError(
            f"{where}: no free atom of {', '.join(missing)} in rhosight's table, so its density "
            "cannot be predicted; calculate it"
        )


def _check_grid(
    structure: Any, spacing: float, grid: tuple[int, int, int] | None, where: str
) -> None:
    if grid is None and not 0.02 <= spacing <= MAX_SPACING:
        raise RhosightError(f"a spacing of {spacing} Å; choose 0.02 to {MAX_SPACING} Å")
    if grid is not None:
        check_grid_fits_cell(grid, structure, where)
    points = np.prod(np.ceil(np.array(structure.lattice.abc) / spacing) if grid is None else grid)
    if points > MAX_POINTS:
        raise RhosightError(
            f"{where}: {int(points)} grid points; at most {MAX_POINTS} are possible: choose a "
            "coarser grid or a smaller cell"
        )
