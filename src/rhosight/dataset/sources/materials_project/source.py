"""MaterialsProject: what is asked for, what of it is usable, and reading one of its densities.

The API, which wants a key and counts requests, is asked by :meth:`MaterialsProject.ids` alone, for
a hundred materials at a time. Workers read densities from Amazon S3, which needs no key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ....density.charge_density import ChargeDensity
from ....errors import RhosightError
from ...schema import TARGETS
from ..source import Entry, Source
from . import documents
from .client import Client, Patience

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Chgcar

SUMMARY_THERMO_TYPE = "GGA_GGA+U_R2SCAN"
"""The convex hull from which the Materials Project fills its summaries."""

THERMO_TYPES = (SUMMARY_THERMO_TYPE, "GGA_GGA+U", "R2SCAN")

# Ids a request: with 100 its address stays below 3 kB
_IDS_PER_REQUEST = 100

_LICENCE, _GNOME_LICENCE = "CC BY 4.0", "CC BY-NC 4.0"

_KINDS = {
    "total": "CHGCAR of VASP: valence density with its PAW augmentation; the integral is the "
    "number of valence electrons",
    "spin": "second block of the CHGCAR (`diff`): spin-up minus spin-down",
}


@dataclass
class MaterialsProject(Source):
    """Materials of the Materials Project, by default the paper's: stable crystals with a
    face-centred cubic Bravais lattice, a charge density and the three targets.

    Needs ``pip install 'rhosight[mp]'``, and a key of the API in the environment variable
    ``MP_API_KEY`` or as ``PMG_MAPI_KEY`` in pymatgen's settings; it is never kept on this object.
    Decoding a density takes up to 90 bytes of memory for each of its values, for a moment.

    Parameters
    ----------
    stable
        Only what lies on the convex hull of ``thermo_type``.
    bravais
        Bravais lattice such as ``"cF"``, as served (crystal system and space-group symbol) and
        again of the cell that comes with the density; None takes all.
    require
        Labels without which a material is a problem.
    thermo_type
        Hull that stability and formation energy refer to: one of :data:`THERMO_TYPES`.
    elements, chemsys
        Narrow the query: elements that must all be present; chemical systems such as ``"Fe-O"``.
    material_ids
        These materials rather than a query; each that is not as asked for is a problem.
    limit
        Take the first so many, in the order of ids.
    calculations
        Calculation types whose densities are read; of several the one updated last.
    gnome
        Take GNoME's materials too, which are licensed CC BY-NC 4.0.
    texts
        Take the Robocrystallographer texts that the API serves as extent ``all``.
    symprec
        Tolerance of the check of the density's own cell, Å.
    endpoint
        Another server of the same API.
    retries, backoff, max_wait
        A request that fails in passing (429, 5xx, a dropped connection, a body cut short) is sent
        up to ``retries`` times again, after ``backoff`` × 1, 2, 4, ... seconds or what the server
        asks for (Retry-After), up to ``max_wait`` seconds.

    Raises
    ------
    RhosightError
        For a setting that does not exist; from :meth:`ids` also if mp-api or the key is missing,
        or the server refuses or does not answer.
    """

    name: ClassVar[str] = "materials_project"

    stable: bool = True
    bravais: str | None = "cF"
    require: tuple[str, ...] = tuple(TARGETS)
    thermo_type: str = SUMMARY_THERMO_TYPE
    elements: tuple[str, ...] = ()
    chemsys: tuple[str, ...] = ()
    material_ids: tuple[str, ...] = ()
    limit: int | None = None
    calculations: tuple[str, ...] = ("GGA Static", "GGA+U Static")
    gnome: bool = False
    texts: bool = True
    symprec: float = 0.1
    endpoint: str | None = None
    retries: int = 5
    backoff: float = 1.0
    max_wait: float = 120.0

    _found: dict[str, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _problems: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _version: str | None = field(default=None, init=False, repr=False)
    _client: Client | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bravais is not None and self.bravais not in documents.BRAVAIS:
            known = ", ".join(documents.BRAVAIS)
            raise RhosightError(f"bravais: {self.bravais!r} is none of {known}")
        if self.thermo_type not in THERMO_TYPES:
            known = ", ".join(THERMO_TYPES)
            raise RhosightError(f"thermo_type: {self.thermo_type!r} is none of {known}")
        if self.limit is not None and self.limit < 1:
            raise RhosightError(f"limit: {self.limit} is no number of materials; give 1 or more")
        if self.material_ids and (self.elements or self.chemsys):
            raise RhosightError("give material_ids or a query (elements, chemsys), not both")
        for material_id in self.material_ids:
            # mp-api reads any word as a number of base 26
            if not re.fullmatch(r"mp-([a-z]+|\d+)", material_id):
                raise RhosightError(
                    f"material_ids: {material_id!r} is no Materials Project id such as mp-149"
                )

    def __getstate__(self) -> dict[str, Any]:
        """All but the client, which knows the key."""
        return {**self.__dict__, "_client": None}

    def ids(self) -> list[str]:
        client = self._connected()
        client.require_key()
        self._version = client.api.db_version or None
        self._found, self._problems = {}, {}
        summaries = self._asked_for(client) if self.material_ids else self._query(client)
        for batch in _batches(sorted(summaries)):
            self._look_up(client, {material_id: summaries[material_id] for material_id in batch})
            if self.limit is not None and len(self._found) >= self.limit:
                break
        ids = sorted(self._found)[: self.limit]
        if len(ids) == self.limit:  # what lies behind the last one was not asked for
            self._problems = {i: why for i, why in self._problems.items() if i <= ids[-1]}
        self._found = {material_id: self._found[material_id] for material_id in ids}
        return ids

    def problems(self) -> dict[str, str]:
        return dict(sorted(self._problems.items()))

    def settings(self) -> dict[str, Any]:
        without = ("texts", "retries", "backoff", "max_wait")
        names = [f.name for f in fields(self) if f.init and f.name not in without]
        values = {name: getattr(self, name) for name in names}
        values["text_all"] = "as served by the API (robocrys)" if self.texts else None
        return json.loads(json.dumps(values))  # tuples as they come back from a file

    def about(self) -> dict[str, Any]:
        licence = _LICENCE + (f"; materials of GNoME {_GNOME_LICENCE}" if self.gnome else "")
        return {
            "name": "Materials Project",
            "description": "Structures, VASP charge densities, labels and descriptions of the "
            "Materials Project",
            "attribution": "Materials Project (Jain et al., APL Mater. 1, 011002 (2013), "
            "doi:10.1063/1.4812323), elastic data: de Jong et al., Sci. Data 2, 150009 (2015), "
            f"doi:10.1038/sdata.2015.9, {licence}",
            "licence": licence,
            "database_version": self._version or "unknown",
            "thermo_type": self.thermo_type,
        }

    def read(self, material_id: str) -> Entry:
        if material_id not in self._found:
            raise RhosightError(f"{material_id}: not among the ids() of this source")
        found = self._found[material_id]
        try:
            task, chgcar = self._first_density(found["tasks"])
            density = self._density(material_id, chgcar, task)
        except RhosightError as error:
            message = str(error).removeprefix(f"{material_id}: ")
            raise RhosightError(f"{material_id}: {message}") from error
        labels = {**found["labels"], **task["labels"], "dft_spin_polarised": "diff" in chgcar.data}
        return Entry(density, labels, found["texts"])

    def _connected(self) -> Client:
        """The client of this process; every worker makes its own."""
        if self._client is None:
            patience = Patience(self.retries, self.backoff, self.max_wait)
            self._client = Client(self.endpoint, patience)
        return self._client

    # What the API knows

    def _asked_for(self, client: Client) -> dict[str, dict[str, Any]]:
        """Id → summary of ``material_ids``."""
        asked = {documents.identifier(material_id) for material_id in self.material_ids}
        served: dict[str, dict[str, Any]] = {}
        for batch in _batches(sorted(asked)):
            found = client.ask(
                client.api.materials.summary.search,
                material_ids=batch,
                fields=documents.SUMMARY_FIELDS,
            )
            served |= documents.by_id(found)
        for material_id in asked - served.keys():
            self._problems[material_id] = (
                f"{material_id}: not in database version {self._version}; it may have been "
                "deprecated, look it up at materialsproject.org"
            )
        return served

    def _query(self, client: Client) -> dict[str, dict[str, Any]]:
        """Id → summary of all materials within the query's bounds."""
        criteria: dict[str, Any] = {"deprecated": False, "include_gnome": self.gnome}
        if self.stable and self.thermo_type == SUMMARY_THERMO_TYPE:
            criteria["is_stable"] = True
        if self.elements:
            criteria["elements"] = list(self.elements)
        if self.chemsys:
            criteria["chemsys"] = list(self.chemsys)
        served: dict[str, dict[str, Any]] = {}
        for system in documents.SYSTEMS[self.bravais[0]] if self.bravais else (None,):
            found = client.ask(
                client.api.materials.summary.search,
                crystal_system=system,
                fields=documents.SUMMARY_FIELDS,
                **criteria,
            )
            served |= documents.by_id(found)
        # the API cannot filter by centring
        return {i: summary for i, summary in served.items() if self._fits(summary)}

    def _fits(self, summary: Mapping[str, Any]) -> bool:
        return self.bravais in (None, documents.served_bravais(summary))

    def _look_up(self, client: Client, summaries: dict[str, dict[str, Any]]) -> None:
        """Sort a batch into what can be read, with all that the API knows of it, and problems."""
        if self.thermo_type != SUMMARY_THERMO_TYPE:
            self._replace_thermo(client, summaries)
        usable = {}
        for material_id, summary in summaries.items():
            outside = self._outside(summary)
            problem = outside or self._lacking(summary)
            if problem is None:
                usable[material_id] = summary
            elif self.material_ids or not outside:
                self._problems[material_id] = f"{material_id}: {problem}"
        tasks = self._tasks(client, list(usable))
        texts = self._texts(client, [i for i in usable if tasks[i]])
        for material_id, summary in usable.items():
            if not tasks[material_id]:
                self._problems[material_id] = (
                    f"{material_id}: no calculation of type {' or '.join(self.calculations)}; "
                    "leave it out, or name further `calculations`"
                )
                continue
            self._found[material_id] = {
                "labels": documents.labels(summary),
                "tasks": tasks[material_id],
                "texts": texts.get(material_id, {}),
                "licence": _GNOME_LICENCE if documents.of_gnome(summary) else _LICENCE,
            }

    def _replace_thermo(self, client: Client, summaries: dict[str, dict[str, Any]]) -> None:
        """Put stability and formation energy of ``thermo_type`` in place of the summaries'."""
        found = client.ask(
            client.api.materials.thermo.search,
            material_ids=list(summaries),
            fields=["material_id", "thermo_type", "is_stable", "formation_energy_per_atom"],
        )
        # not by the query: mp-api asks for r2SCAN where the documents may say R2SCAN
        mine = [d for d in found if d["thermo_type"].upper() == self.thermo_type.upper()]
        served = documents.by_id(mine)
        for material_id, summary in summaries.items():
            for name in ("is_stable", "formation_energy_per_atom"):
                summary[name] = served.get(material_id, {}).get(name)

    def _outside(self, summary: Mapping[str, Any]) -> str | None:
        """Why a material is not what was asked for."""
        if summary.get("deprecated"):
            return "deprecated by the Materials Project; look for its successor"
        if not self._fits(summary):
            lattice = documents.served_bravais(summary)
            return f"its Bravais lattice is {lattice}, not {self.bravais}; change `bravais`"
        if self.stable and not summary.get("is_stable"):
            return f"not on the convex hull of {self.thermo_type}; change `stable`"
        if documents.of_gnome(summary) and not self.gnome:
            return f"of GNoME, licensed {_GNOME_LICENCE}; ask for it with `gnome`"
        return None

    def _lacking(self, summary: Mapping[str, Any]) -> str | None:
        """What a material would need and has not."""
        if not documents.has_density(summary):
            return "the Materials Project has no charge density of it; leave it out"
        missing = sorted(set(self.require) - documents.labels(summary).keys())
        return f"no {', '.join(missing)}; change `require` to keep it" if missing else None

    def _tasks(self, client: Client, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Material id → calculations that may have its density, the one updated last first."""
        if not ids:
            return {}
        found = client.ask(
            client.api.materials.search,
            material_ids=ids,
            fields=["material_id", "calc_types", "deprecated_tasks"],
        )
        types = {
            material_id: {
                task_id: kind
                for task_id, kind in documents.calculation_types(material).items()
                if kind in self.calculations
            }
            for material_id, material in documents.by_id(found).items()
        }
        served: dict[str, dict[str, Any]] = {}
        for batch in _batches(sorted({task_id for of in types.values() for task_id in of})):
            found = client.ask(
                client.api.materials.tasks.search,
                task_ids=batch,
                fields=documents.TASK_FIELDS,
                chunk_size=_IDS_PER_REQUEST,  # this endpoint serves no more at once
            )
            served |= documents.by_id(found, "task_id")
        tasks = {
            material_id: [documents.task(i, kind, served.get(i, {})) for i, kind in of.items()]
            for material_id, of in types.items()
        }
        # two steps: sort() keeps the order of ids among those of the same date
        for of in tasks.values():
            of.sort(key=lambda task: task["last_updated"], reverse=True)
        return {material_id: tasks.get(material_id, []) for material_id in ids}

    def _texts(self, client: Client, ids: list[str]) -> dict[str, dict[str, str]]:
        """Material id → extent → text."""
        if not ids or not self.texts:
            return {}
        found = client.ask(
            client.api.materials.robocrys.search_docs,
            material_ids=ids,
            fields=["material_id", "description"],
        )
        served = documents.by_id(document for document in found if document.get("description"))
        return {material_id: {"all": d["description"]} for material_id, d in served.items()}

    # One density

    def _first_density(
        self, tasks: Sequence[Mapping[str, Any]]
    ) -> tuple[Mapping[str, Any], Chgcar]:
        """The first of these calculations whose density is in the bucket."""
        for task in tasks:
            chgcar = self._connected().density(task["task_id"])
            if chgcar is not None:
                return task, chgcar
        tried = ", ".join(task["task_id"] for task in tasks)
        raise RhosightError(
            f"the open-data bucket holds no charge density of calculation {tried}; leave it out, "
            "or name further `calculations`"
        )

    def _density(self, material_id: str, chgcar: Chgcar, task: Mapping[str, Any]) -> ChargeDensity:
        """Per Å³, checked against what was asked for."""
        found = self._found[material_id]
        structure, blocks = chgcar.structure, chgcar.data
        formula = structure.composition.reduced_formula
        if formula != found["labels"].get("formula", formula):
            raise RhosightError(
                f"the density of {task['task_id']} is of {formula}, not of "
                f"{found['labels']['formula']}; leave it out"
            )
        if self.bravais is not None:
            cell = SpacegroupAnalyzer(structure, symprec=self.symprec)
            lattice = documents.bravais(cell.get_crystal_system(), cell.get_space_group_symbol())
            if lattice != self.bravais:
                raise RhosightError(
                    f"the cell of {task['task_id']} has lattice {lattice}, not {self.bravais}, "
                    f"within {self.symprec} Å; leave it out or change `symprec`"
                )
        grids = {"total": blocks["total"] / structure.volume}
        # `diff` is the magnetisation, never `difference`; non-collinear files have three of them
        if "diff" in blocks and "diff_x" not in blocks:
            grids["spin"] = blocks["diff"] / structure.volume
        provenance = {
            "code": "VASP",
            **task["provenance"],
            "thermo_type": self.thermo_type,
            "database_version": self._version,
            "kinds": {kind: _KINDS[kind] for kind in grids},
            "source": "Materials Project, doi:10.1063/1.4812323, doi:10.1038/sdata.2015.9",
            "licence": found["licence"],
        }
        if "all" in found["texts"]:
            provenance["text_all"] = "as served by the Materials Project (Robocrystallographer)"
        return ChargeDensity(structure, grids, name=material_id, provenance=provenance)


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_PER_REQUEST):
        yield list(ids[start : start + _IDS_PER_REQUEST])
