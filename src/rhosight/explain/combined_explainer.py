"""Explain predictions of a combined model by both of its models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ..dataset.dataset import Dataset
from ..errors import RhosightError
from ..models.combined import CombinedModel
from .explanation import Explanation
from .pieces import Pieces
from .process_explainer import ProcessExplainer
from .processes import GROUPS
from .threads import one_thread

Shares = Mapping[str, float]
"""Target → weight of the first of two explanations."""


class CombinedExplainer:
    """Explain the predictions of a combined model.

    A prediction is the weighted mean of those of two models, and so is its explanation: the
    contributions of each model count with the weight that the model has for this material.

    Parameters
    ----------
    model
        The fitted model.
    background
        Materials that predictions are compared with; None for the training set of each model.
    """

    def __init__(self, model: CombinedModel, background: Dataset | None):
        self.model, self.targets = model, model.targets
        self.general = ProcessExplainer(model.general, background)
        self.special = ProcessExplainer(model.special, background)

    @one_thread()
    def __call__(self, part: Any, details: bool = True) -> Explanation:
        """Explain one material; without ``details``, only by whole modalities."""
        name, structure, table = self.model.read_one(part)
        general = self.general.explain(name, structure, table, details)
        (shares,), (reason,) = self.model.find_shares(table, [structure])
        if (shares == 1).all():
            return _note_unused(general, reason if self.model.uses_density else None)
        special = self.special.explain(name, structure, table, details)
        own = self.model.special.about
        learned = f"{own['materials']} materials of {own['dataset'] or 'a dataset'}"
        weights = dict(zip(special.targets, map(float, shares), strict=True))
        return _join(general, special, weights, learned)

    def pieces(self, part: Any, modality: str = "descriptors") -> Pieces:
        """Refuse: the two models replace descriptors by means of their own."""
        raise RhosightError(
            "descriptors of a combined model cannot be removed one by one; use its parts, "
            "`model.general` and `model.special`"
        )


def _note_unused(explanation: Explanation, reason: str | None) -> Explanation:
    """Add why the density was not used, if there is a reason."""
    if reason is None:
        return explanation
    note = f"predicted from the structure alone, without the density: {reason}"
    return replace(explanation, notes=(*explanation.notes, note))


def _join(first: Explanation, second: Explanation, shares: Shares, learned: str) -> Explanation:
    """Return the weighted mean of two explanations.

    ``learned`` describes what the second model has learned from.
    """
    some = ((target, 1 - share) for target, share in shares.items() if share < 1)
    words = (f"{target} {100 * weight:.0f} %" for target, weight in some)
    note = f"weight of the model that learned from {learned}: {', '.join(words)}"
    known = first.players.keys() | second.players.keys()
    return replace(
        first,
        prediction=_mix_values(first.prediction, second.prediction, shares),
        base=_mix_values(first.base, second.base, shares),
        background=f"{first.background}; {second.background}",
        modalities=_mix_tables(first.modalities, second.modalities, shares, list(GROUPS)),
        players={name: text for name, (_, text) in GROUPS.items() if name in known},
        descriptors=_mix_descriptors(first.descriptors, second.descriptors, shares),
        starts=_mix_nested(first.starts, second.starts, shares),
        gaps=_mix_nested(first.gaps, second.gaps, shares),
        notes=(*second.notes, note),
    )


def _mix_values(
    first: Mapping[str, float], second: Mapping[str, float], shares: Shares
) -> dict[str, float]:
    """Return target → weighted mean; the second may lack targets, whose weight is 0."""
    return {
        target: value + (1 - shares.get(target, 1.0)) * (second.get(target, value) - value)
        for target, value in first.items()
    }


def _mix_nested(
    first: Mapping[str, dict[str, float]], second: Mapping[str, dict[str, float]], shares: Shares
) -> dict[str, dict[str, float]]:
    return {name: _mix_values(values, second[name], shares) for name, values in first.items()}


def _mix_tables(
    first: pd.DataFrame, second: pd.DataFrame, shares: Shares, order: Sequence[str]
) -> pd.DataFrame:
    """Return weighted means of contributions; a row that one table lacks is 0 there."""
    names = [name for name in order if name in first.index or name in second.index]
    index = pd.Index(names, name=first.index.name)
    own, other = (table.reindex(index, fill_value=0.0) for table in (first, second))
    for target, share in shares.items():
        own[target] = share * own[target] + (1 - share) * other[target]
    return own


def _mix_descriptors(
    first: pd.DataFrame | None, second: pd.DataFrame | None, shares: Shares
) -> pd.DataFrame | None:
    if first is None or second is None:
        return None
    order = list(dict.fromkeys([*first.index, *second.index]))
    mixed = _mix_tables(first, second, shares, order)
    mixed["value"] = first["value"].combine_first(second["value"]).loc[order]
    return mixed
