"""Predict candidates in batches, and the probability that each fulfils all wishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure
from scipy.stats import norm

from ..density.charge_density import ChargeDensity
from ..errors import RhosightError, first_line
from ..models.base import SavedModel
from ..models.descriptor_model import DescriptorModel
from .geometry import Pairs, occupation_features, shares_of
from .hull import find_hull
from .space import Candidate, Space
from .volume import VolumeModel
from .wishes import (
    FORMATION_ENERGY,
    HULL,
    Wish,
    error_correlation,
    joint_probability,
    standardise,
)

FAR = 40.0
"""Largest result of :meth:`Screening.measure_misses`."""

SPACING = 0.25
"""Largest distance between the points of predicted densities, Å."""

Relax = Callable[[Structure], Structure]


@dataclass
class Screening:
    """Predicts candidates, and the probability that their wishes hold.

    Attributes
    ----------
    models
        Each property is predicted by the first model that knows it.
    wishes
        Ranges of properties.
    space
        Builds the crystals.
    volumes
        Predicts their volumes.
    relax
        Corrects the geometry of each crystal; None to keep it.
    with_densities
        Predict densities for models that read them.
    widening
        Target → factor of the widths of its intervals.
    """

    models: dict[str, SavedModel]
    wishes: Sequence[Wish]
    space: Space
    volumes: VolumeModel
    relax: Relax | None = None
    with_densities: bool = False
    widening: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sources = (
            choose_sources(self.models, self.wishes, self.with_densities) if self.models else {}
        )
        self._pairs: dict[tuple[str, int], Pairs] = {}
        self._correlation: np.ndarray | None = None
        self._relaxed: dict[str, Structure] = {}

    @property
    def targets(self) -> list[str]:
        """Return all properties that the models predict."""
        return list(self.sources)

    @property
    def ranges(self) -> list[str]:
        """Return the predicted properties that the wishes are about."""
        return list(dict.fromkeys(_get_source(wish) for wish in self.wishes))

    @property
    def units(self) -> dict[str, str]:
        """Return target → unit."""
        units = {target: self.models[name].units[target] for target, name in self.sources.items()}
        return units | {HULL: "eV/atom"}

    def structure(self, candidate: Candidate) -> Structure:
        """Return the crystal of a candidate, with predicted volume."""
        (volume,) = self._predict_volumes([candidate])
        return self._build(candidate, float(volume))

    def _build(self, candidate: Candidate, volume: float) -> Structure:
        """Return the crystal of a candidate with a volume per atom, Å³."""
        if np.isnan(volume):
            unknown = min(set(candidate.elements) - set(self.volumes.elements))
            raise RhosightError(f"the model of volumes does not know the element {unknown}")
        if self.relax is None:
            return self.space.build(candidate, volume)
        if candidate.name not in self._relaxed:
            self._relaxed[candidate.name] = self.relax(self.space.build(candidate, volume))
        return self._relaxed[candidate.name]

    def _predict_volumes(self, candidates: Sequence[Candidate]) -> np.ndarray:
        """Return volumes per atom, Å³; NaN for an element that the model does not know."""
        known = set(self.volumes.elements)
        rows = [row for row, one in enumerate(candidates) if known.issuperset(one.elements)]
        volumes = np.full(len(candidates), np.nan)
        features, shares = [], []
        for one in (candidates[row] for row in rows):
            pairs = self._list_pairs(one)
            features.append(occupation_features(pairs, [one.elements])[0])
            shares += shares_of(pairs, [one.elements])
        if rows:
            volumes[rows] = self.volumes.predict_features(np.array(features), shares)
        return volumes

    def _list_pairs(self, candidate: Candidate) -> Pairs:
        """Return the pairs of atoms of the known crystal whose shape a candidate takes."""
        key = candidate.prototype.examples[candidate.template].material_id, candidate.template
        if key not in self._pairs:
            library, number = self.space.library, candidate.template
            cell = library.template(candidate.prototype, number)
            self._pairs[key] = Pairs.of(cell, library.roles(candidate.prototype, number))
        return self._pairs[key]

    def evaluate(self, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
        """Return a row for each candidate, for the ledger."""
        structures: dict[str, Structure] = {}
        problems: dict[str, str] = {}
        for candidate, volume in zip(candidates, self._predict_volumes(candidates), strict=True):
            try:
                structures[candidate.name] = self._build(candidate, float(volume))
            except RhosightError as error:
                problems[candidate.name] = str(error)
        predictions = self._predict(structures, problems)
        rows = []
        probability = dict(zip(predictions.index, self._probability(predictions), strict=True))
        for candidate in candidates:
            name = candidate.name
            row: dict[str, Any] = {
                "name": name,
                "formula": candidate.formula,
                "prototype": candidate.prototype.name,
                "label": candidate.prototype.label,
                "elements": " ".join(candidate.elements),
                "known": candidate.prototype.find_known(candidate.elements),
                "like": candidate.prototype.examples[candidate.example].material_id,
            }
            if name in problems:
                row |= {"problem": problems[name], "probability": 0.0}
            else:
                structure = structures[name]
                row |= {
                    "volume_per_atom": round(structure.volume / len(structure), 4),
                    "probability": float(probability[name]),
                    **{str(k): v for k, v in predictions.loc[name].to_dict().items()},
                }
            rows.append(row)
        return rows

    def _predict(self, structures: dict[str, Structure], problems: dict[str, str]) -> pd.DataFrame:
        """Return predictions with intervals; candidates that fail go to ``problems``."""
        parts = []
        for name in dict.fromkeys(self.sources.values()):
            model: Any = self.models[name]
            own = [target for target, source in self.sources.items() if source == name]
            if model.uses_density:
                densities = _predict_densities(structures, problems)
                table = _predict_all(model, densities, problems)
            else:
                table = _predict_all(model, structures, problems)
            columns = [f"{target}{end}" for target in own for end in ("", "_low", "_high")]
            reason = table["outside"].rename(f"outside {name}")
            parts.append(table[columns].join(reason))
        table = pd.concat(parts, axis=1).loc[[n for n in structures if n not in problems]]
        for target, factor in self.widening.items():
            for end in (f"{target}_low", f"{target}_high"):
                if end in table:
                    table[end] = table[target] + factor * (table[end] - table[target])
        reasons = table.filter(regex="^outside ")
        table = table.drop(columns=reasons.columns)
        table["outside"] = [
            "; ".join(dict.fromkeys(r for r in row if isinstance(r, str))) or None
            for row in reasons.to_numpy()
        ]
        return table

    def _probability(self, predictions: pd.DataFrame) -> np.ndarray:
        """Return the probability that all wishes hold, shape (candidates,)."""
        if not len(predictions):
            return np.zeros(0)
        targets, lower, upper = self._standardise(predictions)
        return joint_probability(lower, upper, self._correlate(targets))

    def measure_misses(self, rows: pd.DataFrame) -> np.ndarray:
        """Return −log10 of the probability of each range, shape (rows, ranges).

        Unlike the probability that all wishes hold it tells a near miss from a far one. It is
        :data:`FAR` for a candidate without prediction.
        """
        table = rows.set_index("name", drop=False)
        good = table["volume_per_atom"].notna() if "volume_per_atom" in table else None
        misses = np.full((len(table), len(self.ranges)), FAR)
        if good is not None and good.any():
            _, lower, upper = self._standardise(table[good])
            # of the two tails, the difference in the thinner one is not lost to rounding
            above = lower > 0
            inside = np.where(
                above, norm.sf(lower) - norm.sf(upper), norm.cdf(upper) - norm.cdf(lower)
            )
            misses[good.to_numpy()] = -np.log10(np.maximum(inside, 10**-FAR))
        return misses

    def _standardise(self, predictions: pd.DataFrame) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return targets and the ends of their ranges, (candidates, targets) each."""
        ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for wish in self.wishes:
            low, high = (np.full(len(predictions), end) for end in (wish.low, wish.high))
            source = _get_source(wish)
            if wish.target == HULL:
                hull = np.array([find_hull(_formula(name)).energy for name in predictions.index])
                low, high = low + hull, high + hull
            # two wishes about one prediction are one range
            before = ranges.get(source, (low, high))
            ranges[source] = np.maximum(before[0], low), np.minimum(before[1], high)
        lower, upper = [], []
        for target, (low, high) in ranges.items():
            recipe = getattr(self.models[self.sources[target]], "recipe", None)
            level = getattr(recipe, "level", 0.9)
            lower.append(standardise(low, predictions, target, level))
            upper.append(standardise(high, predictions, target, level))
        return list(ranges), np.stack(lower, axis=1), np.stack(upper, axis=1)

    def _correlate(self, targets: list[str]) -> np.ndarray:
        """Return the correlation of the errors of several targets."""
        if self._correlation is None:
            self._correlation = np.eye(len(targets))
            for name in dict.fromkeys(self.sources[target] for target in targets):
                own = [i for i, target in enumerate(targets) if self.sources[target] == name]
                if len(own) > 1:
                    part = correlation_of(self.models[name], [targets[i] for i in own])
                    self._correlation[np.ix_(own, own)] = part
        return self._correlation


def _get_source(wish: Wish) -> str:
    """Return the predicted property that a wish is about."""
    return FORMATION_ENERGY if wish.target == HULL else wish.target


def _formula(name: str) -> str:
    """Return the formula in the name of a candidate."""
    return name.partition("-")[0]


def choose_sources(
    models: dict[str, SavedModel], wishes: Sequence[Wish], with_densities: bool = False
) -> dict[str, str]:
    """Return target → name of the first model that predicts it.

    Parameters
    ----------
    models, wishes
        Of the search.
    with_densities
        Whether models may read densities.

    Raises
    ------
    RhosightError
        If no model predicts a wanted property, or a model cannot read structures.
    """
    sources: dict[str, str] = {}
    for name, model in models.items():
        if model.uses_density and not with_densities:
            raise RhosightError(
                f"model {name}: reads charge densities, which candidates do not have; give "
                "no-dft or another model of structures"
            )
        if not hasattr(model, "predict_intervals"):
            raise RhosightError(f"model {name}: gives no intervals; give another model")
        for target in model.targets:
            sources.setdefault(target, name)
    for wish in wishes:
        if _get_source(wish) not in sources:
            known = ", ".join([*sources, HULL] if FORMATION_ENERGY in sources else sources)
            raise RhosightError(
                f"target {wish.target}: no model of this search predicts it; known are {known}"
            )
    return sources


def correlation_of(model: SavedModel, targets: Sequence[str]) -> np.ndarray:
    """Return the correlation of a model's leave-one-out errors.

    The errors are those of the targets as they were learned. Errors of models other than Gaussian
    processes are taken as independent.
    """
    if not isinstance(model, DescriptorModel):
        return np.eye(len(targets))
    columns = [list(model.targets).index(target) for target in targets]
    errors = [model.process.leave_one_out_errors(column) for column in columns]
    if len({len(one) for one in errors}) > 1:
        return np.eye(len(targets))
    return error_correlation(pd.DataFrame(np.stack(errors, axis=1)))


def _predict_densities(
    structures: dict[str, Structure], problems: dict[str, str]
) -> dict[str, ChargeDensity]:
    """Return predicted densities; crystals that fail go to ``problems``."""
    from ..ecd.model import load_density_model  # needs PyTorch

    network, densities = load_density_model(), {}
    for name, structure in structures.items():
        try:
            density = network.predict_density(structure, SPACING)
            # without its code, models do not warn of each
            densities[name] = replace(density, provenance={})
        except RhosightError as error:
            problems[name] = first_line(error)
    return densities


def _predict_all(
    model: Any, materials: Mapping[str, Structure | ChargeDensity], problems: dict[str, str]
) -> pd.DataFrame:
    """Predict all materials at once, or one by one if one of them is bad."""
    good = {name: one for name, one in materials.items() if name not in problems}
    try:
        return model.predict_intervals(good)
    except RhosightError:
        tables = []
        for name, structure in good.items():
            try:
                tables.append(model.predict_intervals({name: structure}))
            except RhosightError as error:
                problems[name] = first_line(error)
        return pd.concat(tables) if tables else model.predict_intervals({})
