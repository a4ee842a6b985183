"""What an explanation holds, and how it is written to files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ..density.plane import LatticePlane
from ..errors import RhosightError
from ..inputs.image import Channel
from .chemistry import CLASSES, chemical_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class SliceMap:
    """Where on one slice of the density a network looked.

    Attributes
    ----------
    channel
        Which slice.
    density
        What lies there, e/Å³, shape (pixels, pixels); row 0 is the top, as in an image.
    values
        Target → attribution, in the target's unit per Å² (per Å⁻² of a Fourier transform), shape as
        ``density``.
    half
        Half the side of what is shown, Å (Å⁻¹ of a Fourier transform). It is wider than the
        channel's window if the model looks at turned images, whose corners lie outside.
    plane, structure
        Where the slice lies in the crystal.
    fourier
        Whether the network sees the Fourier transform of the slice.
    """

    channel: Channel
    density: np.ndarray
    values: dict[str, np.ndarray]
    half: float
    plane: LatticePlane
    structure: Structure
    fourier: bool = False

    def total(self, target: str) -> float:
        """What the slice adds to the prediction, in the target's unit."""
        values = self.values[target]
        return float(values.sum() * (2 * self.half / len(values)) ** 2)


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

    def figure(self) -> Figure:
        """What each modality adds to each target, and the words or descriptors that count most."""
        from .figures import draw_explanation

        return draw_explanation(self)

    def map_figure(self, target: str) -> Figure:
        """The slices and what the network saw in them for one target, with atoms and bonds, in Å.

        Raises
        ------
        RhosightError
            If the model reads no image, or does not predict this target.
        """
        from .figures import draw_maps

        if target not in self.targets:
            raise RhosightError(f"{target!r} is not predicted; known are {', '.join(self.targets)}")
        if not self.maps:
            reason = self.notes[0] if self.notes else "explain it with details=True"
            raise RhosightError(f"{self.name}: no map: {reason}")
        return draw_maps(self, target)

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

    def save(self, folder: str | Path) -> list[Path]:
        """Write JSON, CSV tables, figures (PNG) and maps (NumPy) into a folder; what was written.

        ``maps.npz`` holds ``{target}_{number}`` and ``density_{number}`` of each slice, as
        :class:`SliceMap` has them.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "explanation.json", folder / "modalities.csv"]
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        written[0].write_text(text + "\n", encoding="utf-8")
        with_units = {target: f"{target} ({self.units[target]})" for target in self.targets}
        self.table().rename(columns=with_units).to_csv(written[1], index_label="modality")
        for name, table in (("word", self.words), ("descriptor", self.descriptors)):
            if table is not None:
                written.append(folder / f"{name}s.csv")
                table.rename(columns=with_units).to_csv(written[-1], index_label=name)
        written.append(folder / "explanation.png")
        self.figure().savefig(written[-1], dpi=130)
        for target in self.targets if self.maps else ():
            written.append(folder / f"map-{target}.png")
            self.map_figure(target).savefig(written[-1], dpi=130)
        if self.maps:
            written.append(folder / "maps.npz")
            arrays = {f"density_{i}": one.density for i, one in enumerate(self.maps)}
            for i, one in enumerate(self.maps):
                arrays |= {f"{target}_{i}": values for target, values in one.values.items()}
            np.savez_compressed(written[-1], **arrays)
        return written


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

    def figure(self) -> Figure:
        """The parts of :meth:`summary`, by target and chemistry."""
        from .figures import draw_summary

        return draw_summary(self.summary())

    def save(self, folder: str | Path, each: bool = True) -> list[Path]:
        """Each material's files in a folder of its own, unless ``each`` is false and there are
        several; of several, ``explanations.csv``, ``summary.csv`` and ``summary.png`` beside
        them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        each = each or len(self) == 1
        written = []
        for name, one in zip(_folders([one.name for one in self]), self, strict=True):
            written += one.save(folder / name) if each else []
        if len(self) > 1:
            names = ("explanations.csv", "summary.csv", "summary.png")
            table, summary, figure = (folder / name for name in names)
            self.table().to_csv(table, index=False)
            self.summary().to_csv(summary)
            self.figure().savefig(figure, dpi=130)
            written += [table, summary, figure]
        return written


def _folders(names: Sequence[str]) -> list[str]:
    """A folder's name for each material: that of its file, or of the file's folder."""
    found: list[str] = []
    for name in names:
        path = Path(name)
        unnamed = path.name in ("CHGCAR", "CHG") and path.parent.name
        plain = path.parent.name if unnamed else path.name
        plain = re.sub(r"[^\w.+-]+", "-", plain).strip(".-") or "material"
        again = sum(other == plain or other.startswith(f"{plain}~") for other in found)
        found.append(f"{plain}~{again + 1}" if again else plain)
    return found


def _records(table: pd.DataFrame | None) -> dict[str, dict[str, float]] | None:
    return None if table is None else table.to_dict("index")
