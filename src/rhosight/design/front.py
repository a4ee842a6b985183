"""Score the most probable candidates again, by what is too slow for all of them.

These are crystals relaxed with CHGNet, and models that read charge densities, which are predicted
for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pymatgen.core import Structure

from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.folder import GENERAL_MODEL
from .ledger import Ledger
from .screening import Screening, choose_sources
from .space import Candidate

if TYPE_CHECKING:
    from .wishes import Wish

FRONT = 4
"""Candidates that are scored again for each proposal."""

MAX_CHANGE = 0.25
"""Largest change of the volume that is believed."""


def choose_fast(models: dict[str, SavedModel], wishes: Sequence[Wish]) -> list[str]:
    """Return the names of the models that score all candidates.

    These read no density. The general model joins them if they do not predict all that is wished.
    """
    fast = {name: model for name, model in models.items() if not model.uses_density}
    try:
        choose_sources(fast, wishes)
    except RhosightError:
        if len(fast) == len(models):
            raise
        return list(dict.fromkeys([*fast, GENERAL_MODEL]))
    return list(fast)


def make_second(screening: Screening, models: dict[str, SavedModel], geometry: str) -> Screening:
    """Return what scores the front: all models, relaxed geometry.

    Parameters
    ----------
    screening
        What scores all candidates; its models complete the others.
    models
        The user's, in their order.
    geometry
        See :attr:`rhosight.design.search.Search.geometry`.

    Raises
    ------
    RhosightError
        If the geometry is unknown, or needs a package that is missing.
    """
    if geometry not in ("volume", "chgnet"):
        raise RhosightError(f"geometry {geometry!r} is unknown; choose volume or chgnet")
    if geometry == "chgnet":
        from ..models.baselines.chgnet import require_chgnet

        require_chgnet("geometry chgnet")
    return replace(
        screening,
        models=models | screening.models,
        relax=relax if geometry == "chgnet" else None,
        with_densities=True,
    )


def relax(structure: Structure) -> Structure:
    """Return a crystal at a minimum of CHGNet's energy, with the same symmetry.

    One whose volume changes by more than :data:`MAX_CHANGE`, or that finds no minimum, stays.
    """
    from ..models.relaxation import relax_structure

    try:
        relaxed = relax_structure(structure, keep_symmetry=True)
    except RhosightError:
        return structure
    return structure if abs(relaxed.volume / structure.volume - 1) > MAX_CHANGE else relaxed


def score_front(
    second: Screening,
    front: pd.DataFrame,
    candidates: Sequence[Candidate],
    folder: Path | None,
    progress: Progress | None,
) -> pd.DataFrame:
    """Return the rows of the most probable candidates, scored again.

    A candidate that cannot be scored again keeps its row, with the reason in the column ``front``.

    Parameters
    ----------
    second
        See :func:`make_second`.
    front
        Rows of the most probable candidates, the first first.
    candidates
        All candidates.
    folder
        Ledger of what was scored, one file for each; None to keep it in memory.
    progress
        Called with ("front", done, all).
    """
    ledger = Ledger(folder)
    by_name = {candidate.name: candidate for candidate in candidates}
    rows: list[Any] = front.to_dict("records")
    for number, row in enumerate(rows):
        found = ledger.read(number, [row["name"]])
        if found is None:
            ledger.write(number, second.evaluate([by_name[row["name"]]]))
            found = ledger.read(number, [row["name"]])
        assert found is not None
        (new,) = found
        problem = new.get("problem")
        rows[number] = row | ({"front": problem} if problem else new | {"front": None})
        if progress:
            progress("front", number + 1, len(rows))
    return pd.DataFrame(rows)
