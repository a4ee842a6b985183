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

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from pymatgen.core import Structure

from ..density.crystals import as_structure
from ..density.structure_json import parse_structure_json
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

MISSES = 5
"""Nearest misses that are shown where nothing is plausible."""


@dataclass(frozen=True)
class Search:
    """All settings of a search.

    Attributes
    ----------
    wishes
        Ranges of properties.
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
    workers
        Processes that predict candidates; does not change the result.
    """

    wishes: tuple[Wish, ...]
    elements: Sequence[str] = ()
    exclude: Sequence[str] = ()
    like: str | os.PathLike | Structure | None = None
    count: int = 20
    candidates: int = 2000
    seed: int = 0
    models: Sequence[str] = ("structure",)
    max_atoms: int = 16
    include_known: bool = False
    geometry: str = "volume"
    densities: bool = True
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("count", "candidates", "max_atoms", "workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise RhosightError(f"{name}: must be a whole number of at least 1, not {value!r}")

    def run(self, out: str | os.PathLike | None, progress: Progress | None) -> Design:
        """Search, see :func:`design`."""
        like = _read_like(self.like)
        setup = Setup(
            tuple(self.models),
            tuple(map(str, self.wishes)),
            self.geometry,
            None if like is None else json.dumps(like.as_dict()),
        )
        _keep_screening.cache_clear()  # models may have been trained again
        screening = _keep_screening(setup)
        elements = choose_elements(known_elements(screening.models), self.elements, self.exclude)
        space = screening.space = replace(
            screening.space,
            elements=elements,
            max_atoms=self.max_atoms,
            skip_known=not self.include_known,
            seed=self.seed,
        )
        settings = self._describe(screening, like)
        with lock_folder(Path(out)) if out else nullcontext():
            folder = open_run(out, settings)
            ledger = Ledger(folder / "ledger" if folder else None)
            chosen = space.first(self.candidates)
            rows = _screen(chosen, setup, ledger, self.workers, progress)
            result = _rank(rows, chosen, screening, self.wishes, self.count, settings)
            result.describe(self.densities, progress)
            if folder:
                result.save(folder)
        return result

    def _describe(self, screening: Screening, like: Structure | None) -> dict[str, Any]:
        """Return the settings that determine the ledger."""
        return {
            "task": "design",
            "targets": [str(wish) for wish in self.wishes],
            "elements": list(screening.space.elements),
            "like": None if like is None else like.composition.reduced_formula,
            "candidates": self.candidates,
            "seed": self.seed,
            "models": {name: _identify(model) for name, model in screening.models.items()},
            "max_atoms": self.max_atoms,
            "include_known": self.include_known,
            "geometry": self.geometry,
        }


def design(
    targets: Mapping[str, tuple[float | None, float | None]] | Sequence[str],
    *,
    out: str | os.PathLike | None = None,
    progress: Progress | None = None,
    **settings: Any,
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
    out
        Folder for the ledger, CIFs, table and report; the same call continues an interrupted one.
        None: keep all in memory.
    progress
        Called with (label, done, all).
    **settings
        Of :class:`Search`: ``elements``, ``exclude``, ``like``, ``count``, ``candidates``,
        ``seed``, ``models``, ``max_atoms``, ``include_known``, ``geometry``, ``densities``,
        ``workers``.

    Returns
    -------
    Design
        Proposals, nearest misses, all rows of the ledger, and structures.

    Raises
    ------
    RhosightError
        For a wrong setting, or a folder that holds another search.
    """
    known = {one.name for one in fields(Search)} - {"wishes"}
    if unknown := sorted(set(settings) - known):
        raise RhosightError(
            f"design: no setting is called {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return Search(tuple(read_wishes(targets)), **settings).run(out, progress)


@dataclass(frozen=True)
class Setup:
    """Inputs of a process that predicts candidates.

    Attributes
    ----------
    models, wishes, geometry
        Names of models, texts of wishes, and :attr:`Search.geometry`.
    like
        A crystal as JSON, whose structure type is occupied.
    """

    models: tuple[str, ...]
    wishes: tuple[str, ...]
    geometry: str
    like: str | None


def make_screening(setup: Setup) -> Screening:
    """Load models and structure types."""
    library = load_library()
    prototypes: Sequence[Prototype] = ()
    if setup.like is not None:
        structure = parse_structure_json(setup.like, "the crystal of `like`")
        library, prototypes = _find_type(library, structure)
    return Screening(
        {name: load_model(name) for name in setup.models},
        read_wishes(setup.wishes),
        Space(library, (), prototypes),
        load_volume_model(),
        _choose_relaxation(setup.geometry),
    )


_keep_screening = lru_cache(maxsize=1)(make_screening)
"""Each process loads its models once."""


def evaluate(setup: Setup, candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the rows of a batch of candidates for the ledger."""
    return _keep_screening(setup).evaluate(candidates)


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
        from ..models.baselines.chgnet import require_chgnet
        from .relaxation import relax_volume

        require_chgnet("geometry chgnet")
        return relax_volume
    raise RhosightError(f"geometry {geometry!r} is unknown; choose volume or chgnet")


def _screen(
    candidates: Sequence[Candidate],
    setup: Setup,
    ledger: Ledger,
    workers: int,
    progress: Progress | None,
) -> pd.DataFrame:
    """Predict all candidates that the ledger does not have yet."""
    batches = [candidates[at : at + BATCH] for at in range(0, len(candidates), BATCH)]
    names = [[candidate.name for candidate in batch] for batch in batches]
    rows = [ledger.read(number, own) for number, own in enumerate(names)]
    missing = [number for number, done in enumerate(rows) if done is None]
    done = len(candidates) - sum(len(batches[number]) for number in missing)
    for number, new in zip(missing, _evaluate_all(setup, batches, missing, workers), strict=True):
        ledger.write(number, new)
        rows[number] = ledger.read(number, names[number])
        done += len(new)
        if progress:
            progress("candidates", done, len(candidates))
    return pd.DataFrame([row for batch in rows for row in batch or ()])


def _evaluate_all(
    setup: Setup, batches: Sequence[Sequence[Candidate]], numbers: Sequence[int], workers: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of batches in their order, computed in several processes."""
    if workers == 1 or len(numbers) < 2:
        yield from (evaluate(setup, batches[number]) for number in numbers)
        return
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=workers, return_as="generator", pre_dispatch=2 * workers, batch_size=1)
    yield from pool(delayed(evaluate)(setup, batches[number]) for number in numbers)


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
