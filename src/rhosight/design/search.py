"""Search for crystals that have wanted properties.

>>> import rhosight
>>> found = rhosight.design(
...     {"bulk_modulus_vrh": (200, 250), "formation_energy_per_atom": (None, -0.5)},
...     elements=["Ti", "Al", "Ni", "Co", "Ru"],
...     out="stiff",
... )
>>> found.proposals[["formula", "prototype", "probability"]]
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Structure

from ..density.crystals import as_structure
from ..density.structures import read_structure
from ..errors import RhosightError
from ..inputs.progress import Progress
from ..models.base import SavedModel
from ..models.loading import load_model
from ..storage import lock_folder, open_run
from .elements import choose_elements
from .ledger import Ledger
from .prototypes import Library, Prototype, find_prototypes, load_library
from .result import Design
from .screening import Screening
from .selection import PLAUSIBLE, choose_diverse, keep_lowest
from .space import Candidate, Space
from .volume import load_volume_model
from .wishes import Wish, read_wishes

BATCH = 64
"""Candidates that are predicted at once."""

CANDIDATES = 2000
"""Default number of candidates."""

MISSES = 5
"""Nearest misses that are shown where nothing is plausible."""


def design(
    targets: Mapping[str, tuple[float | None, float | None]] | Sequence[str],
    *,
    elements: Sequence[str] = (),
    exclude: Sequence[str] = (),
    like: str | os.PathLike | Structure | None = None,
    count: int = 20,
    candidates: int = CANDIDATES,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    models: Sequence[str] = ("no-dft",),
    max_atoms: int = 16,
    include_known: bool = False,
    geometry: str = "volume",
    densities: bool = True,
    progress: Progress | None = None,
) -> Design:
    """Search for crystals whose properties lie in wanted ranges.

    Structure types of known crystals are occupied by elements like those that they have. The models
    predict each candidate with its uncertainty, and candidates are ranked by the probability that
    all wishes hold.

    Parameters
    ----------
    targets
        Target → (low, high) in the unit of the target, None for no bound; or texts such as
        ``bulk_modulus_vrh=200..250``. ``energy_above_hull`` (eV/atom) follows from the predicted
        formation energy.
    elements, exclude
        The only elements that may occur (default: all that the models know), and elements that may
        not.
    like
        A crystal, or its file: only its structure type is occupied.
    count
        Largest number of proposals.
    candidates
        Number of crystals to try.
    seed
        Of the order of the candidates. The same settings give the same proposals.
    out
        Folder for the ledger; the same call continues an interrupted one. None: keep it in memory.
    models
        Names or folders of models of structures. Each property is predicted by the first that
        knows it.
    max_atoms
        Largest primitive cell.
    include_known
        Also propose crystals of the bundled datasets.
    geometry
        ``volume``: shapes of known crystals with volumes of a model. ``chgnet``: these volumes
        corrected by energies of CHGNet, which needs ``rhosight[chgnet]``.
    densities
        Predict the densities of the proposals for slices.
    progress
        Called with (label, done, all).

    Returns
    -------
    Design
        Proposals, nearest misses, all rows of the ledger, and structures.

    Raises
    ------
    RhosightError
        For a wrong setting, or a folder that holds another search.
    """
    wishes = read_wishes(targets)
    _check_numbers(count, candidates, max_atoms)
    loaded = {name: load_model(name) for name in models}
    library = load_library()
    like_structure = _read_like(like)
    prototypes: Sequence[Prototype] = ()
    if like_structure is not None:
        library, prototypes = _find_type(library, like_structure)
    allowed = choose_elements(known_elements(loaded), elements, exclude)
    space = Space(library, allowed, prototypes, max_atoms, not include_known, seed)
    screening = Screening(loaded, wishes, space, load_volume_model(), _choose_relaxation(geometry))
    settings = {
        "task": "design",
        "targets": [str(wish) for wish in wishes],
        "elements": allowed,
        "like": None if like_structure is None else like_structure.composition.reduced_formula,
        "candidates": candidates,
        "seed": seed,
        "models": {name: _identify(model) for name, model in loaded.items()},
        "max_atoms": max_atoms,
        "include_known": include_known,
        "geometry": geometry,
    }
    with lock_folder(Path(out)) if out else nullcontext():
        folder = open_run(out, settings)
        ledger = Ledger(folder / "ledger" if folder else None)
        chosen = space.first(candidates)
        rows = _screen(chosen, screening, ledger, progress)
        result = _rank(rows, chosen, screening, wishes, count, settings)
        result.describe(densities, progress)
        if folder:
            result.save(folder)
    return result


def _check_numbers(count: int, candidates: int, max_atoms: int) -> None:
    for name, value in (("count", count), ("candidates", candidates), ("max_atoms", max_atoms)):
        if not isinstance(value, int) or value < 1:
            raise RhosightError(f"{name}: must be a whole number of at least 1, not {value!r}")


def known_elements(models: Mapping[str, SavedModel]) -> set[str]:
    """Return the elements that the models and the model of volumes have learned from."""
    known = set(load_volume_model().elements)
    for model in models.values():
        own: Any = getattr(model, "known_elements", None)
        if own:
            known &= set(own)
    return known


def _read_like(like: str | os.PathLike | Structure | None) -> Structure | None:
    if like is None:
        return None
    return read_structure(like) if isinstance(like, str | os.PathLike) else as_structure(like)


def _find_type(library: Library, structure: Structure) -> tuple[Library, list[Prototype]]:
    """Return the structure type of a crystal, and a library that has it."""
    own = find_prototypes({"the given structure": structure})
    if not own.prototypes:
        formula = structure.composition.reduced_formula
        raise RhosightError(
            f"{formula}: cannot serve as a structure type; give an ordered crystal of at most five "
            "elements and 40 atoms in the primitive cell"
        )
    (mine,) = own.prototypes
    same = [p for p in library.prototypes if p.label == mine.label and p.counts == mine.counts]
    joined = [p for p in same if _is_same(library, p, own, mine)]
    return (library, joined[:1]) if joined else (own, [mine])


def _is_same(library: Library, one: Prototype, other_library: Library, other: Prototype) -> bool:
    """Return whether a crystal's type is one of the library."""
    first = library.template(one, 0)
    second = other_library.template(other, 0)
    return len(find_prototypes({"a": first, "b": second}).prototypes) == 1


def _identify(model: SavedModel) -> str:
    """Return what tells one model from another."""
    about = model.about
    return str(about.get("dataset_sha256") or about.get("dataset") or "")


def _choose_relaxation(geometry: str) -> Any:
    if geometry == "volume":
        return None
    if geometry == "chgnet":
        from .relaxation import relax_volume, require_chgnet

        require_chgnet()
        return relax_volume
    raise RhosightError(f"geometry {geometry!r} is unknown; choose volume or chgnet")


def _screen(
    candidates: Sequence[Candidate],
    screening: Screening,
    ledger: Ledger,
    progress: Progress | None,
) -> pd.DataFrame:
    """Predict all candidates that the ledger does not have yet."""
    rows: list[dict[str, Any]] = []
    for number in range(math.ceil(len(candidates) / BATCH)):
        batch = candidates[number * BATCH : (number + 1) * BATCH]
        names = [candidate.name for candidate in batch]
        done = ledger.read(number, names)
        if done is None:
            ledger.write(number, screening.evaluate(batch))
            done = ledger.read(number, names)
        rows += done or []
        if progress:
            progress("candidates", len(rows), len(candidates))
    return pd.DataFrame(rows)


def _rank(
    rows: pd.DataFrame,
    candidates: Sequence[Candidate],
    screening: Screening,
    wishes: Sequence[Wish],
    count: int,
    settings: dict[str, Any],
) -> Design:
    """Choose the proposals, or the nearest misses."""
    if len(rows) and "volume_per_atom" in rows:
        good = keep_lowest(rows[rows["volume_per_atom"].notna()])
    else:
        good = pd.DataFrame({"probability": pd.Series(dtype=float)})
    plausible = good[good["probability"] >= PLAUSIBLE]
    chosen = choose_diverse(plausible, count) if len(plausible) else plausible
    misses = good.nlargest(MISSES, "probability") if not len(plausible) else good.iloc[:0]
    by_name = {candidate.name: candidate for candidate in candidates}
    shown = [*chosen.get("name", []), *misses.get("name", [])]
    return Design(
        wishes=tuple(wishes),
        proposals=chosen,
        misses=misses.reset_index(drop=True),
        tried=rows,
        structures={name: screening.structure(by_name[name]) for name in shown},
        units=screening.units,
        targets=tuple(screening.targets),
        counts=vars(screening.space.counts),
        settings=settings,
        models=screening.models,
    )
