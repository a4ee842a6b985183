"""MaterialsProject: select and check materials, and read their densities.

Only :meth:`MaterialsProject.ids` sends requests to the API, which needs a key and counts requests;
it asks for a hundred materials at a time. Workers read densities from Amazon S3, which needs no
key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from ....density.charge_density import ChargeDensity
from ....density.crystals import MP_SYMPREC
from ....errors import RhosightError
from ...schema import TARGETS
from ..source import Entry, Source
from . import documents
from .client import Client, Patience

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Chgcar

SUMMARY_THERMO_TYPE = "GGA_GGA+U_R2SCAN"
"""The convex hull of the Materials Project's summaries."""

THERMO_TYPES = (SUMMARY_THERMO_TYPE, "GGA_GGA+U", "R2SCAN")

# Ids per request: with 100, its address stays below 3 kB
_IDS_PER_REQUEST = 100

_LICENCE, _GNOME_LICENCE = "CC BY 4.0", "CC BY-NC 4.0"

_KINDS = {
    "total": "CHGCAR of VASP: valence density with its PAW augmentation; the integral is the "
    "number of valence electrons",
    "spin": "second block of the CHGCAR (`diff`): spin-up minus spin-down",
}


@dataclass
class MaterialsProject(Source):
    """Read materials of the Materials Project, by default those of the paper.

    The paper uses stable crystals with a face-centred cubic Bravais lattice, a charge density and
    the three targets. This needs ``pip install 'rhosight[mp]'``, and a key of the API in the
    environment variable ``MP_API_KEY`` or as ``PMG_MAPI_KEY`` in pymatgen's settings; this object
    never stores it.
    Decoding a density briefly takes up to 90 bytes of memory per value.

    Parameters
    ----------
    stable
        Only materials on the convex hull of ``thermo_type``.
    bravais
        Bravais lattice such as ``"cF"``, checked as served (crystal system and space-group symbol)
        and again for the cell of the density; None accepts all.
    require
        Labels that a material must have; it is a problem otherwise.
    thermo_type
        Hull of stability and formation energy: one of :data:`THERMO_TYPES`.
    elements, chemsys
        Narrow the query: elements that must all be present; chemical systems such as ``"Fe-O"``.
    material_ids
        These materials instead of a query; each one that violates the other settings is a problem.
    limit
        Take only the first so many, in the order of ids.
    calculations
        Calculation types whose densities are read; the most recently updated one is used.
    gnome
        Include GNoME's materials, which are licensed CC BY-NC 4.0.
    texts
        Use the Robocrystallographer texts of the API as extent ``all``.
    symprec
        Tolerance for checking the cell of the density, Å.
    endpoint
        Another server with the same API.
    retries, backoff, max_wait
        A request with a temporary failure (429, 5xx, a dropped connection, a truncated body) is
        repeated up to ``retries`` times, after ``backoff`` × 1, 2, 4, ... seconds or the time that
        the server asks for (Retry-After), up to ``max_wait`` seconds.

    Raises
    ------
    RhosightError
        For an invalid setting; from :meth:`ids` also if mp-api or the key is missing, or the server
        refuses or does not answer.
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
    symprec: float = MP_SYMPREC
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
            raise RhosightError(f"bravais: {self.bravais!r} is unknown; choose from {known}")
        if self.thermo_type not in THERMO_TYPES:
            known = ", ".join(THERMO_TYPES)
            raise RhosightError(
                f"thermo_type: {self.thermo_type!r} is unknown; choose from {known}"
            )
        if self.limit is not None and self.limit < 1:
            raise RhosightError(f"limit: {self.limit} is not a number of materials; give 1 or more")
        if self.material_ids and (self.elements or self.chemsys):
            raise RhosightError("give either material_ids or a query (elements, chemsys), not both")
        for material_id in self.material_ids:
            # mp-api would read any word as a number of base 26
            if not re.fullmatch(r"mp-([a-z]+|\d+)", material_id):
                raise RhosightError(
                    f"material_ids: {material_id!r} is not a Materials Project id; give one such "
                    "as mp-149"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes but the client, which knows the key."""
        return {**self.__dict__, "_client": None}

    def ids(self) -> list[str]:
        """Query the API, and list the ids of usable materials."""
        client = self._connect()
        client.require_key()
        self._version = client.api.db_version or None
        self._found, self._problems = {}, {}
        summaries = self._fetch_given(client) if self.material_ids else self._query(client)
        for batch in _batches(sorted(summaries)):
            self._look_up(client, {material_id: summaries[material_id] for material_id in batch})
            if self.limit is not None and len(self._found) >= self.limit:
                break
        ids = sorted(self._found)[: self.limit]
        if len(ids) == self.limit:  # materials after the last one were not requested
            self._problems = {i: why for i, why in self._problems.items() if i <= ids[-1]}
        self._found = {material_id: self._found[material_id] for material_id in ids}
        return ids

    def problems(self) -> dict[str, str]:
        """Return material id → why it cannot be used."""
        return dict(sorted(self._problems.items()))

    def settings(self) -> dict[str, Any]:
        """Return all settings that affect the densities."""
        without = ("texts", "retries", "backoff", "max_wait")
        names = [f.name for f in fields(self) if f.init and f.name not in without]
        values = {name: getattr(self, name) for name in names}
        values["text_all"] = "as served by the API (robocrys)" if self.texts else None
        return json.loads(json.dumps(values))  # tuples become lists, as when read from a file

    def about(self) -> dict[str, Any]:
        """Return name, attribution, licence and version of the database."""
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
        """Read the density of one material from the open-data bucket."""
        if material_id not in self._found:
            raise RhosightError(f"{material_id}: not in the ids() of this source; call ids() first")
        entry = self._found[material_id]
        try:
            task, chgcar = self._read_first_density(entry["tasks"])
            density = self._convert(material_id, chgcar, task)
        except RhosightError as error:
            message = str(error).removeprefix(f"{material_id}: ")
            raise RhosightError(f"{material_id}: {message}") from error
        labels = {**entry["labels"], **task["labels"], "dft_spin_polarised": "diff" in chgcar.data}
        return Entry(density, labels, entry["texts"])

    def _connect(self) -> Client:
        """Return the client of this process; every worker creates its own."""
        if self._client is None:
            patience = Patience(self.retries, self.backoff, self.max_wait)
            self._client = Client(self.endpoint, patience)
        return self._client

    # requests to the API

    def _fetch_given(self, client: Client) -> dict[str, dict[str, Any]]:
        """Return id → summary of ``material_ids``."""
        asked = {documents.parse_id(material_id) for material_id in self.material_ids}
        served: dict[str, dict[str, Any]] = {}
        for batch in _batches(sorted(asked)):
            answer = client.ask(
                client.api.materials.summary.search,
                material_ids=batch,
                fields=documents.SUMMARY_FIELDS,
            )
            served |= documents.index_by_id(answer)
        for material_id in asked - served.keys():
            self._problems[material_id] = (
                f"{material_id}: not in database version {self._version}; it may be deprecated, "
                "look it up at materialsproject.org"
            )
        return served

    def _query(self, client: Client) -> dict[str, dict[str, Any]]:
        """Return id → summary of all materials that match the query."""
        criteria: dict[str, Any] = {"deprecated": False, "include_gnome": self.gnome}
        if self.stable and self.thermo_type == SUMMARY_THERMO_TYPE:
            criteria["is_stable"] = True
        if self.elements:
            criteria["elements"] = list(self.elements)
        if self.chemsys:
            criteria["chemsys"] = list(self.chemsys)
        served: dict[str, dict[str, Any]] = {}
        for system in documents.SYSTEMS[self.bravais[0]] if self.bravais else (None,):
            answer = client.ask(
                client.api.materials.summary.search,
                crystal_system=system,
                fields=documents.SUMMARY_FIELDS,
                **criteria,
            )
            served |= documents.index_by_id(answer)
        # the API cannot filter by centring
        return {i: summary for i, summary in served.items() if self._has_lattice(summary)}

    def _has_lattice(self, summary: Mapping[str, Any]) -> bool:
        return self.bravais in (None, documents.read_bravais(summary))

    def _look_up(self, client: Client, summaries: dict[str, dict[str, Any]]) -> None:
        """Sort a batch into usable materials, with all data of the API, and problems."""
        if self.thermo_type != SUMMARY_THERMO_TYPE:
            self._replace_thermo(client, summaries)
        usable = {}
        for material_id, summary in summaries.items():
            mismatch = self._find_mismatch(summary)
            problem = mismatch or self._find_gap(summary)
            if problem is None:
                usable[material_id] = summary
            elif self.material_ids or not mismatch:
                self._problems[material_id] = f"{material_id}: {problem}"
        tasks = self._fetch_tasks(client, list(usable))
        texts = self._fetch_texts(client, [i for i in usable if tasks[i]])
        for material_id, summary in usable.items():
            if not tasks[material_id]:
                self._problems[material_id] = (
                    f"{material_id}: no calculation of type {' or '.join(self.calculations)}; "
                    "remove it, or add types to `calculations`"
                )
                continue
            self._found[material_id] = {
                "labels": documents.read_labels(summary),
                "tasks": tasks[material_id],
                "texts": texts.get(material_id, {}),
                "licence": _GNOME_LICENCE if documents.is_gnome(summary) else _LICENCE,
            }

    def _replace_thermo(self, client: Client, summaries: dict[str, dict[str, Any]]) -> None:
        """Replace the summaries' stability and energy by those of ``thermo_type``."""
        answer = client.ask(
            client.api.materials.thermo.search,
            material_ids=list(summaries),
            fields=["material_id", "thermo_type", "is_stable", "formation_energy_per_atom"],
        )
        # select here: mp-api queries r2SCAN, while documents may contain R2SCAN
        mine = [d for d in answer if d["thermo_type"].upper() == self.thermo_type.upper()]
        served = documents.index_by_id(mine)
        for material_id, summary in summaries.items():
            for name in ("is_stable", "formation_energy_per_atom"):
                summary[name] = served.get(material_id, {}).get(name)

    def _find_mismatch(self, summary: Mapping[str, Any]) -> str | None:
        """Return why a material does not match the query, or None."""
        if summary.get("deprecated"):
            return "deprecated by the Materials Project; use its successor"
        if not self._has_lattice(summary):
            lattice = documents.read_bravais(summary)
            return f"its Bravais lattice is {lattice}, not {self.bravais}; change `bravais`"
        if self.stable and not summary.get("is_stable"):
            return f"not on the convex hull of {self.thermo_type}; change `stable`"
        if documents.is_gnome(summary) and not self.gnome:
            return f"from GNoME, licensed {_GNOME_LICENCE}; include it with `gnome`"
        return None

    def _find_gap(self, summary: Mapping[str, Any]) -> str | None:
        """Return which required data of a material is missing, or None."""
        if not documents.has_density(summary):
            return "the Materials Project has no charge density of it; remove it"
        missing = sorted(set(self.require) - documents.read_labels(summary).keys())
        return f"no {', '.join(missing)}; change `require` to keep it" if missing else None

    def _fetch_tasks(self, client: Client, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Return material id → calculations that may have its density, newest first."""
        if not ids:
            return {}
        answer = client.ask(
            client.api.materials.search,
            material_ids=ids,
            fields=["material_id", "calc_types", "deprecated_tasks"],
        )
        types = {
            material_id: {
                task_id: kind
                for task_id, kind in documents.read_calculation_types(material).items()
                if kind in self.calculations
            }
            for material_id, material in documents.index_by_id(answer).items()
        }
        served: dict[str, dict[str, Any]] = {}
        for batch in _batches(sorted({task_id for of in types.values() for task_id in of})):
            answer = client.ask(
                client.api.materials.tasks.search,
                task_ids=batch,
                fields=documents.TASK_FIELDS,
                chunk_size=_IDS_PER_REQUEST,  # the limit of this endpoint
            )
            served |= documents.index_by_id(answer, "task_id")
        tasks = {
            material_id: [
                documents.summarise_task(i, kind, served.get(i, {})) for i, kind in of.items()
            ]
            for material_id, of in types.items()
        }
        # a second, stable sort keeps the order of ids within one date
        for of in tasks.values():
            of.sort(key=lambda task: task["last_updated"], reverse=True)
        return {material_id: tasks.get(material_id, []) for material_id in ids}

    def _fetch_texts(self, client: Client, ids: list[str]) -> dict[str, dict[str, str]]:
        """Return material id → extent → text."""
        if not ids or not self.texts:
            return {}
        answer = client.ask(
            client.api.materials.robocrys.search_docs,
            material_ids=ids,
            fields=["material_id", "description"],
        )
        served = documents.index_by_id(
            document for document in answer if document.get("description")
        )
        return {material_id: {"all": d["description"]} for material_id, d in served.items()}

    # reading a density

    def _read_first_density(
        self, tasks: Sequence[Mapping[str, Any]]
    ) -> tuple[Mapping[str, Any], Chgcar]:
        """Read the first of these calculations with a density in the bucket."""
        for task in tasks:
            chgcar = self._connect().density(task["task_id"])
            if chgcar is not None:
                return task, chgcar
        tried = ", ".join(task["task_id"] for task in tasks)
        raise RhosightError(
            f"the open-data bucket has no charge density of calculation {tried}; remove the "
            "material, or add types to `calculations`"
        )

    def _convert(self, material_id: str, chgcar: Chgcar, task: Mapping[str, Any]) -> ChargeDensity:
        """Convert a density to e/Å³, and check formula and lattice."""
        entry = self._found[material_id]
        structure, blocks = chgcar.structure, chgcar.data
        assert isinstance(structure, Structure)
        formula = structure.composition.reduced_formula
        if formula != entry["labels"].get("formula", formula):
            raise RhosightError(
                f"the density of {task['task_id']} belongs to {formula}, not to "
                f"{entry['labels']['formula']}; remove the material"
            )
        if self.bravais is not None:
            cell = SpacegroupAnalyzer(structure, symprec=self.symprec)
            lattice = documents.parse_bravais(
                cell.get_crystal_system(), cell.get_space_group_symbol()
            )
            if lattice != self.bravais:
                raise RhosightError(
                    f"the cell of {task['task_id']} has lattice {lattice}, not {self.bravais}, "
                    f"within {self.symprec} Å; remove the material, or change `symprec`"
                )
        grids = {"total": blocks["total"] / structure.volume}
        # `diff` is the magnetisation, not `difference`; non-collinear files have three components
        if "diff" in blocks and "diff_x" not in blocks:
            grids["spin"] = blocks["diff"] / structure.volume
        provenance = {
            "code": "VASP",
            **task["provenance"],
            "thermo_type": self.thermo_type,
            "database_version": self._version,
            "kinds": {kind: _KINDS[kind] for kind in grids},
            "source": "Materials Project, doi:10.1063/1.4812323, doi:10.1038/sdata.2015.9",
            "licence": entry["licence"],
        }
        if "all" in entry["texts"]:
            provenance["text_all"] = "as served by the Materials Project (Robocrystallographer)"
        return ChargeDensity(structure, grids, name=material_id, provenance=provenance)


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_PER_REQUEST):
        yield list(ids[start : start + _IDS_PER_REQUEST])
