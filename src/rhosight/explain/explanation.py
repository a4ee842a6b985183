"""Results of explaining predictions for one or several materials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from ..errors import RhosightError
from .chemistry import CLASSES, chemical_class
from .maps import SliceMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Explanation:
    """Explanation of a model's predictions for one material.

    Attributes
    ----------
    name, formula
        Name and reduced formula of the material.
    targets, units
        Predicted properties; all numbers are in their units.
    prediction
        Target → value, equal to that of ``model.predict``.
    base
        Target → mean prediction over the background.
    background
        One sentence that describes the background.
    modalities
        Shapley values: one row for each modality, one column for each target. ``base`` and the sum
        of a column give ``prediction``.
    players
        Modality → description of its contents.
    maps
        One map for each slice that the network reads; empty for models without images.
    words
        One row for each word of the description, columns ``count`` and the targets; None without
        text.
    descriptors
        One row for each descriptor, columns ``value`` (in the descriptor's unit) and the targets;
        None for networks.
    starts
        ``maps``, ``words``, ``descriptors`` → target → the prediction at which their attributions
        start: for the mean image, a text of masks, or mean descriptors.
    gaps
        Same keys → the difference between ``prediction`` - ``starts`` and the sum of the
        attributions.
    notes
        Remarks for the reader.
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

    def __repr__(self) -> str:
        from .notebook import render_text

        return render_text(self)

    def _repr_html_(self) -> str:
        from .notebook import render_html

        return render_html(self)

    def plot(self, target: str | None = None) -> Figure:
        """Draw the contributions, or the maps of one target as a matplotlib Figure.

        Parameters
        ----------
        target
            Draw the slices that a network reads with their contributions to this target; by
            default the contributions of modalities, words or descriptors to all targets.

        Raises
        ------
        RhosightError
            If the model reads no image, or does not predict this target.
        """
        from .figures import draw_explanation, draw_maps

        return draw_maps(self, target) if target else draw_explanation(self)

    @property
    def chemical_class(self) -> str:
        """Class of the compound, see :func:`rhosight.explain.chemistry.chemical_class`."""
        return chemical_class(self.formula)

    def table(self) -> pd.DataFrame:
        """Return base, modalities and prediction as rows, in the targets' units."""
        base, prediction = (
            pd.DataFrame([values], index=[name], columns=list(self.targets))
            for name, values in (("base", self.base), ("prediction", self.prediction))
        )
        return pd.concat([base, self.modalities, prediction]).rename_axis("modality")

    def largest(self, target: str, count: int) -> pd.Series:
        """Return the words or descriptors with the largest contributions to a target.

        They are sorted by absolute contribution, in the target's unit. The result is empty without
        details.
        """
        details = self.words if self.words is not None else self.descriptors
        if details is None:
            return pd.Series(dtype=float)
        names = details[target].abs().sort_values(ascending=False).index[:count]
        return details.loc[names, target]

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation without the pixels of its maps, for JSON."""
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
    """Explanations of several materials by one model, with summaries."""

    def __init__(self, explanations: Sequence[Explanation]) -> None:
        self._all = tuple(explanations)

    def __repr__(self) -> str:
        from .notebook import render_several_as_text

        return render_several_as_text(self)

    def _repr_html_(self) -> str:
        from .notebook import render_several_as_html

        return render_several_as_html(self)

    def __len__(self) -> int:
        return len(self._all)

    @overload
    def __getitem__(self, key: int) -> Explanation: ...
    @overload
    def __getitem__(self, key: slice) -> Explanations: ...
    def __getitem__(self, key):
        return Explanations(self._all[key]) if isinstance(key, slice) else self._all[key]

    def table(self) -> pd.DataFrame:
        """Return a table with one row for each material, target and modality.

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
        """Return the mean contribution of each modality by target and class of compounds.

        Returns
        -------
        DataFrame indexed by (target, class, modality); the class ``all`` contains all materials.
        ``mean``, the mean Shapley value, in the target's unit; ``size``, the mean absolute Shapley
        value; ``part``, ``size`` divided by its sum over the modalities; ``materials``, the number
        of materials. Classes are in the order of :data:`rhosight.explain.chemistry.CLASSES`.

        Raises
        ------
        RhosightError
            If there is nothing to summarise.
        """
        if not len(self):
            raise RhosightError("there are no explanations to summarise; explain a material first")
        table = self.table()
        every = pd.concat([table.assign(**{"class": "all"}), table])
        every["class"] = pd.Categorical(every["class"], ["all", *CLASSES], ordered=True)
        for column in ("target", "modality"):
            every[column] = pd.Categorical(every[column], table[column].unique(), ordered=True)
        groups = every.groupby(["target", "class", "modality"], observed=True)["share"]
        size = groups.apply(lambda shares: shares.abs().mean())
        summary = pd.DataFrame({"mean": groups.mean(), "size": size})
        total = summary["size"].groupby(["target", "class"], observed=True).transform("sum")
        summary["part"] = summary["size"] / total
        summary["materials"] = groups.size()
        return summary


def _records(table: pd.DataFrame | None) -> dict[str, dict[str, float]] | None:
    """Return row → column → value, for JSON."""
    if table is None:
        return None
    rows = table.to_dict("index")
    return {str(name): {str(k): v for k, v in row.items()} for name, row in rows.items()}
