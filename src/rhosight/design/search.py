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

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
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
from ..models.folder import BUNDLED_MODELS
from ..models.provenance import hash_weights
from ..storage import lock_folder, open_run
from .elements import choose_elements
from .evolution import evolve, require_pymoo
from .front import FRONT, choose_fast, make_second, score_front
from .ledger import Ledger
from .own_types import BUNDLED_TYPES, read_folders
from .processes import Predictor, Setup, known_elements, load_models, load_screening
from .result import Design
from .screening import Screening
from .selection import PLAUSIBLE, choose_diverse, keep_lowest
from .space import Candidate, Counts
from .wishes import Wish, read_wishes

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
    prototypes
        Where structure types come from: ``bundled``, and folders of CIF or POSCAR files.
    count
        Largest number of proposals.
    candidates
        Number of crystals to try.
    seed
        Seed of the order of the candidates. The same settings give the same proposals.
    models
        Names or folders of models. Each property is predicted by the first that knows it. Those
        that read densities predict only the most probable candidates, four for each proposal, from
        predicted densities; the others choose these.
    max_atoms
        Largest primitive cell.
    rigid
        Occupy only structure types of which symmetry fixes shape and positions: the volume is all
        that can relax.
    include_known
        Also propose crystals of the bundled datasets.
    skip
        Formulas that are not proposed, such as those that are verified already.
    widening
        Target → factor of the widths of its intervals.
    geometry
        ``volume``: shapes of known crystals with volumes of a model. ``chgnet``: the most probable
        candidates, four for each proposal, are relaxed with CHGNet and predicted again, which
        needs ``rhosight[chgnet]``.
    densities
        Predict the densities of the proposals for slices.
    search
        ``list``: the first of all occupations by similar elements. ``nsga2``: an evolutionary
        algorithm over structure types, elements and shapes (:mod:`.evolution`), which needs
        ``rhosight[design]``.
    workers
        Processes that predict candidates; does not change the result.
    scheduler
        Address of a Dask scheduler whose workers predict candidates instead.
    """

    wishes: tuple[Wish, ...]
    elements: Sequence[str] = ()
    exclude: Sequence[str] = ()
    like: str | os.PathLike | Structure | None = None
    prototypes: Sequence[str | os.PathLike] = (BUNDLED_TYPES,)
    count: int = 20
    candidates: int = 2000
    seed: int = 0
    models: Sequence[str] = ("no-dft",)
    max_atoms: int = 16
    rigid: bool = False
    include_known: bool = False
    skip: Sequence[str] = ()
    widening: Mapping[str, float] = field(default_factory=dict)
    geometry: str = "volume"
    densities: bool = True
    search: str = "list"
    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        for name in ("count", "candidates", "max_atoms", "workers"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise RhosightError(f"{name}: must be a whole number of at least 1, not {value!r}")
        if self.search not in ("list", "nsga2"):
            raise RhosightError(f"search {self.search!r} is unknown; choose list or nsga2")
        if self.search == "nsga2":
            require_pymoo()

    def run(self, out: str | os.PathLike | None, progress: Progress | None) -> Design:
        """Search, see :func:`design`."""
        models = load_models([(name, _locate(name)) for name in self.models])
        fast = choose_fast(models, self.wishes)
        setup = Setup(
            tuple((name, _locate(name)) for name in fast),
            tuple(map(str, self.wishes)),
            self.read_crystals(),
            self.like is None and BUNDLED_TYPES in self.prototypes,
            tuple(hash_weights(fast).items()),
            tuple(sorted(self.widening.items())),
        )
        screening = load_screening(setup)
        second = None
        if self.geometry != "volume" or any(model.uses_density for model in models.values()):
            second = make_second(screening, models, self.geometry)
        models |= screening.models
        elements = choose_elements(known_elements(models), self.elements, self.exclude)
        space = screening.space = replace(
            screening.space,
            elements=elements,
            max_atoms=self.max_atoms,
            rigid=self.rigid,
            skip_known=not self.include_known,
            seed=self.seed,
            counts=Counts(),
        )
        settings = self._describe(models, elements, setup)
        with lock_folder(Path(out)) if out else nullcontext():
            folder = open_run(out, settings)
            ledger = Ledger(folder / "ledger" if folder else None)
            predictor = Predictor(
                setup, ledger, self.workers, self.scheduler, self.candidates, progress
            )
            with predictor.connect():
                if self.search == "nsga2":
                    chosen = evolve(screening, predictor, self.candidates)
                else:
                    chosen = space.first(self.candidates)
                    predictor.predict(chosen)
            rows = predictor.table()
            good = _list_allowed(rows, self.skip)
            if second is not None and len(good):
                second = replace(second, space=space)
                front = good.sort_values(["probability", "name"], ascending=[False, True])
                front = front.head(FRONT * self.count)
                place = folder / "front" if folder else None
                good = keep_lowest(score_front(second, front, chosen, place, progress))
            result = _rank(good, rows, chosen, second or screening, self, settings)
            result.describe(self.densities, progress)
            if folder:
                result.save(folder)
        return result

    def read_crystals(self) -> tuple[tuple[str, str], ...]:
        """Return name and JSON of the crystals whose structure types are occupied."""
        return _collect_crystals(self.like, self.prototypes)

    def describe_space(self, crystals: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Return the settings of the space that differ from the defaults.

        Parameters
        ----------
        crystals
            See :meth:`read_crystals`; their content counts, not their place.
        """
        given: dict[str, Any] = {}
        hashes = [hashlib.sha256(text.encode()).hexdigest()[:16] for _, text in crystals]
        if self.like is not None:
            structure = parse_structure_json(crystals[0][1], "like")
            given["like"] = f"{structure.composition.reduced_formula} {hashes[0]}"
        elif crystals:
            bundled = [BUNDLED_TYPES] * (BUNDLED_TYPES in self.prototypes)
            given["prototypes"] = [*bundled, *sorted(hashes)]
        if self.search != "list":
            given["search"] = self.search
        if self.rigid:
            given["rigid"] = True
        if self.widening:
            given["widening"] = dict(self.widening)
        return given

    def _describe(
        self, models: Mapping[str, SavedModel], elements: Sequence[str], setup: Setup
    ) -> dict[str, Any]:
        """Return the settings that determine the ledger."""
        return {
            "task": "design",
            "targets": [str(wish) for wish in self.wishes],
            "elements": list(elements),
            "like": None,
            **self.describe_space(setup.crystals),
            "candidates": self.candidates,
            "seed": self.seed,
            "models": {name: _identify(model) for name, model in models.items()},
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
        Of :class:`Search`: ``elements``, ``exclude``, ``like``, ``prototypes``, ``count``,
        ``candidates``, ``seed``, ``models``, ``max_atoms``, ``rigid``, ``include_known``,
        ``skip``, ``widening``, ``geometry``, ``densities``, ``search``, ``workers``, ``scheduler``.

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


def _collect_crystals(
    like: str | os.PathLike | Structure | None, prototypes: Sequence[str | os.PathLike]
) -> tuple[tuple[str, str], ...]:
    """Return name and JSON of the crystals whose structure types are occupied."""
    if like is None:
        crystals = read_folders(prototypes)
    elif tuple(prototypes) != (BUNDLED_TYPES,):
        raise RhosightError("like and prototypes are both given; give one of them")
    else:
        one = read_structure(like) if isinstance(like, str | os.PathLike) else as_structure(like)
        crystals = {"the crystal of `like`": one}
    return tuple((name, json.dumps(crystal.as_dict())) for name, crystal in crystals.items())


def _locate(model: str) -> str:
    """Return the absolute path of a model that is a folder, or its name."""
    folder = Path(model).expanduser()
    return os.path.abspath(folder) if model not in BUNDLED_MODELS and folder.is_dir() else model


def _identify(model: SavedModel) -> str:
    """Return what tells one model from another."""
    abouts = [model.about, model.about.get("special", {})]
    found = [about.get("dataset_sha256") or about.get("dataset") for about in abouts]
    return " ".join(str(one) for one in found if one)


def _list_allowed(rows: pd.DataFrame, skip: Collection[str]) -> pd.DataFrame:
    """Return the predicted rows that may be proposed, one of each composition."""
    if len(rows) and "volume_per_atom" in rows:
        return keep_lowest(rows[rows["volume_per_atom"].notna() & ~rows["formula"].isin(skip)])
    return pd.DataFrame({"probability": pd.Series(dtype=float)})


def _rank(
    good: pd.DataFrame,
    rows: pd.DataFrame,
    candidates: Sequence[Candidate],
    screening: Screening,
    search: Search,
    settings: dict[str, Any],
) -> Design:
    """Choose the proposals among good rows, or the nearest misses."""
    plausible = good[good["probability"] >= PLAUSIBLE]
    chosen = choose_diverse(plausible, search.count) if len(plausible) else plausible
    misses = good.nlargest(MISSES, "probability") if not len(plausible) else good.iloc[:0]
    by_name = {candidate.name: candidate for candidate in candidates}
    shown = [*chosen.get("name", []), *misses.get("name", [])]
    return Design(
        wishes=tuple(search.wishes),
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
