"""What an explanation holds, and how it is written to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from ..errors import RhosightError
from .chemistry import CLASSES, chemical_class
from .maps import SliceMap

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a model predicts what it does of one material.

    Attributes
    ----------
    name, formula
        Of the material.
    targets, units
        What is predicted; all numbers are in these units.
    prediction
        Target → value, as ``model.predict`` gives it.
    base
        Target → mean prediction over the background.
    background
        What the background is, one sentence.
    modalities
        Shapley values: one row a modality, one column a target. ``base`` and the sum of a column
        are ``prediction``.
    players
        Modality → what it holds.
    maps
        One for each slice that the network reads; none for models without images.
    words
        One row a word of the description, columns ``count`` and the targets; None without text.
    descriptors
        One row a descriptor, columns ``value`` (in the descriptor's unit) and the targets; None for
        networks.
    starts
        ``maps``, ``words``, ``descriptors`` → target → the prediction that their attributions
        start from: with the mean image, a text of masks, or mean descriptors.
    gaps
        The same → what the attributions miss of ``prediction`` - ``starts``.
    notes
        What to know when reading it.
    """

    name: str
    formula: str
    targets: tuple[str, ...]
    units: dict[str, str]
    prediction: dict[str, float]
    base: dict[str, float]
    background: str
    modalities: pd.DataFrame
    players: dict[str, str]
    maps: tuple[SliceMap, ...] = ()
    words: pd.DataFrame | None = None
    descriptors: pd.DataFrame | None = None
    starts: dict[str, dict[str, float]] = field(default_factory=dict)
    gaps: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def chemical_class(self) -> str:
        """See :func:`rhosight.explain.chemistry.chemical_class`."""
        return chemical_class(self.formula)

    def table(self) -> pd.DataFrame:
        """Base, modalities and prediction, one below the other, in the targets' units."""
        base, prediction = (
            pd.DataFrame([values], index=[name], columns=list(self.targets))
            for name, values in (("base", self.base), ("prediction", self.prediction))
        )
        return pd.concat([base, self.modalities, prediction]).rename_axis("modality")

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, for JSON."""
        return {
            "material": self.name,
            "formula": self.formula,
            "class": self.chemical_class,
            "units": self.units,
            "prediction": self.prediction,
            "base": self.base,
            "background": self.background,
            "modalities": _records(self.modalities),
            "players": self.players,
            "slices": [
                {
                    "kind": one.channel.kind,
                    "hkl": list(one.plane.hkl),
                    "offset": one.channel.offset,
                    "side": 2 * one.half,
                    "adds": {target: one.total(target) for target in self.targets},
                }
                for one in self.maps
            ],
            "words": _records(self.words),
            "descriptors": _records(self.descriptors),
            "starts": self.starts,
            "gaps": self.gaps,
            "notes": list(self.notes),
        }


class Explanations(Sequence[Explanation]):
    """Explanations of several materials by one model, and what they have in common."""

    def __init__(self, explanations: Sequence[Explanation]) -> None:
        self._all = tuple(explanations)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, key: int) -> Explanation: ...
    @overload
    def __getitem__(self, key: slice) -> Explanations: ...
    def __getitem__(self, key):
        return Explanations(self._all[key]) if isinstance(key, slice) else self._all[key]

    def table(self) -> pd.DataFrame:
        """One row a material, target and modality.

        Columns: material_id, formula, class (of compounds), target, modality, share (Shapley
        value), base, prediction and unit.
        """
        rows = [
            {
                "material_id": one.name,
                "formula": one.formula,
                "class": one.chemical_class,
                "target": target,
                "modality": modality,
                "share": float(share),
                "base": one.base[target],
                "prediction": one.prediction[target],
                "unit": one.units[target],
            }
            for one in self
            for target in one.targets
            for modality, share in one.modalities[target].items()
        ]
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """Which modality carries which target, for which chemistries.

        Returns
        -------
        DataFrame indexed by (target, class, modality), ``all`` being the class of all materials:
        ``mean``, the mean Shapley value, in the target's unit: whether the modality raises or
        lowers the prediction; ``size``, the mean of its absolute value; ``part``, that divided by
        its sum over the modalities; ``materials``, how many. Classes in the order of
        :data:`rhosight.explain.chemistry.CLASSES`.

        Raises
        ------
        RhosightError
            If there is nothing to summarise.
        """
        if not len(self):
            raise RhosightError("no explanation to summarise; explain a material first")
        table = self.table()
        every = pd.concat([table.assign(**{"class": "all"}), table])
        every["class"] = pd.Categorical(every["class"], ["all", *CLASSES], ordered=True)
        for column in ("target", "modality"):
            every[column] = pd.Categorical(every[column], table[column].unique(), ordered=True)
        groups = every.groupby(["target", "class", "modality"], observed=True)["share"]
        size = groups.apply(lambda shares: shares.abs().mean())
        found = pd.DataFrame({"mean": groups.mean(), "size": size})
        total = found["size"].groupby(["target", "class"], observed=True).transform("sum")
        found["part"] = found["size"] / total
        found["materials"] = groups.size()
        return found


def _records(table: pd.DataFrame | None) -> dict[str, dict[str, float]] | None:
    return None if table is None else table.to_dict("index")
