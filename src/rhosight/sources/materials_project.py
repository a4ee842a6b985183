"""The Materials Project: labels and texts from its API, charge densities from its open-data bucket.

The API, which wants a key and counts requests, is asked by :meth:`MaterialsProject.ids` alone, for
a hundred materials at a time. Workers read densities from Amazon S3 anonymously and need no key.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import requests
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer
from urllib3.util import Retry

from .. import __version__
from ..density import ChargeDensity
from ..errors import RhosightError
from ..schema import TARGETS
from .source import Entry, Source

if TYPE_CHECKING:
    from mp_api.client import MPRester
    from pymatgen.io.vasp.outputs import Chgcar

SUMMARY_THERMO_TYPE = "GGA_GGA+U_R2SCAN"
"""The convex hull from which the Materials Project fills its summaries."""

THERMO_TYPES = (SUMMARY_THERMO_TYPE, "GGA_GGA+U", "R2SCAN")

# Letter of a Bravais symbol → crystal systems as the API names them
_SYSTEMS = {
    "a": ("Triclinic",),
    "m": ("Monoclinic",),
    "o": ("Orthorhombic",),
    "t": ("Tetragonal",),
    "h": ("Trigonal", "Hexagonal"),
    "c": ("Cubic",),
}
_BRAVAIS = "aP mP mC oP oC oI oF tP tI hP hR cP cI cF".split()

_SUMMARY_FIELDS = [
    "material_id", "formula_pretty", "symmetry", "is_stable", "deprecated", "has_props",
    "formation_energy_per_atom", "efermi", "band_gap", "bulk_modulus", "builder_meta",
]  # fmt: skip

# Ids a request: with 100 its address stays below 3 kB
_IDS_PER_REQUEST = 100

_LICENCE, _GNOME_LICENCE = "CC BY 4.0", "CC BY-NC 4.0"

_KINDS = {
    "total": "CHGCAR of VASP: valence density with its PAW augmentation; the integral is the "
    "number of valence electrons",
    "spin": "second block of the CHGCAR (`diff`): spin-up minus spin-down",
}


class _Missing(RhosightError):
    """The server answered 404."""


@dataclass
class MaterialsProject(Source):
    """Materials of the Materials Project, by default the paper's: stable crystals with a
    face-centred cubic Bravais lattice, a charge density and the three targets.

    Needs ``pip install 'rhosight[mp]'``, and a key of the API in the environment variable
    ``MP_API_KEY`` or as ``PMG_MAPI_KEY`` in pymatgen's settings; it is never kept on this object.
    Amazon S3 is read without credentials. Reading one density takes about 50 bytes of memory a
    value of the file's grids, for a short time.

    Parameters
    ----------
    stable
        Only what lies on the convex hull of ``thermo_type``.
    bravais
        Bravais lattice such as ``"cF"``, as served (space-group symbol and crystal system) and
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
    _rester: MPRester | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bravais is not None and self.bravais not in _BRAVAIS:
            raise RhosightError(f"bravais: {self.bravais!r} is none of {', '.join(_BRAVAIS)}")
        if self.thermo_type not in THERMO_TYPES:
            raise RhosightError(
                f"thermo_type: {self.thermo_type!r} is none of {', '.join(THERMO_TYPES)}"
            )
        if self.limit is not None and self.limit < 1:
            raise RhosightError(f"limit: {self.limit} is no number of materials; give 1 or more")
        if self.material_ids and (self.elements or self.chemsys):
            raise RhosightError("give material_ids or a query (elements, chemsys), not both")
        for material_id in self.material_ids:
            # mp-api would read other words as numbers of base 26
            if not re.fullmatch(r"mp-[a-z]+|mp-\d+", material_id):
                raise RhosightError(
                    f"material_ids: {material_id!r} is no Materials Project id such as mp-149"
                )

    def __getstate__(self) -> dict[str, Any]:
        """All but the client, which knows the key."""
        return {**self.__dict__, "_rester": None}

    def ids(self) -> list[str]:
        rester = self._connect(key_needed=True)
        self._version = rester.db_version or None
        self._found, self._problems = {}, {}
        documents = self._summaries(rester)
        wanted = sorted(documents)
        for batch in _batches(wanted):
            self._look_up(rester, {material_id: documents[material_id] for material_id in batch})
            if self.limit is not None and len(self._found) >= self.limit:
                break
        ids = sorted(self._found)[: self.limit]
        if self.limit is not None and len(ids) == self.limit:
            # those behind the last one were not asked for
            self._problems = {i: why for i, why in self._problems.items() if i <= ids[-1]}
        self._found = {material_id: self._found[material_id] for material_id in ids}
        return ids

    def problems(self) -> dict[str, str]:
        return dict(sorted(self._problems.items()))

    def settings(self) -> dict[str, Any]:
        passing = ("retries", "backoff", "max_wait", "texts")
        chosen = [f.name for f in fields(self) if f.init and f.name not in passing]
        values = {name: getattr(self, name) for name in chosen}
        text = "the API's own (robocrys endpoint)" if self.texts else None
        return json.loads(json.dumps({"source": self.name, **values, "text_all": text}))

    def about(self) -> dict[str, Any]:
        licence = _LICENCE + (f"; materials of GNoME {_GNOME_LICENCE}" if self.gnome else "")
        return {
            "name": "Materials Project",
            "description": "Structures, charge densities (VASP), labels and descriptions of the "
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
            raise RhosightError(f"{material_id}: not among the materials of this source's ids()")
        found = self._found[material_id]
        for task in found["tasks"]:
            chgcar = self._chgcar(material_id, task["task_id"])
            if chgcar is not None:
                break
        else:
            tried = ", ".join(task["task_id"] for task in found["tasks"])
            raise RhosightError(
                f"{material_id}: the open-data bucket holds no charge density of {tried}; "
                "leave it out, or name further `calculations`"
            )
        density = self._density(material_id, chgcar, task)
        spin = {"dft_spin_polarised": "spin" in density.grids}
        return Entry(density, {**found["labels"], **spin, **task["labels"]}, found["texts"])

    # -- what the API knows -----------------------------------------------------------------------

    def _summaries(self, rester: MPRester) -> dict[str, dict[str, Any]]:
        """Id → summary of all materials in question."""
        search = rester.materials.summary.search
        if self.material_ids:
            asked = {_identifier(material_id) for material_id in self.material_ids}
            documents = {}
            for batch in _batches(sorted(asked)):
                documents |= self._ask(search, material_ids=batch, fields=_SUMMARY_FIELDS)
            for material_id in asked - documents.keys():
                self._problems[material_id] = (
                    f"{material_id}: not in database version {self._version}; it may be "
                    "deprecated, look it up at materialsproject.org"
                )
            return {i: document for i, document in documents.items() if i in asked}
        criteria: dict[str, Any] = {"deprecated": False, "include_gnome": self.gnome}
        if self.stable and self.thermo_type == SUMMARY_THERMO_TYPE:
            criteria["is_stable"] = True
        for name in ("elements", "chemsys"):
            if getattr(self, name):
                criteria[name] = list(getattr(self, name))
        documents = {}
        for system in _SYSTEMS[self.bravais[0]] if self.bravais else (None,):
            documents |= self._ask(
                search, crystal_system=system, fields=_SUMMARY_FIELDS, **criteria
            )
        # the API cannot filter by centring
        return {i: document for i, document in documents.items() if self._fits(document)}

    def _fits(self, document: Mapping[str, Any]) -> bool:
        symmetry = document.get("symmetry") or {}
        system, symbol = str(symmetry.get("crystal_system")), str(symmetry.get("symbol"))
        return self.bravais in (None, _bravais(system, symbol))

    def _look_up(self, rester: MPRester, documents: dict[str, dict[str, Any]]) -> None:
        """Sort a batch into what can be read, with all the API knows of it, and problems."""
        if self.thermo_type != SUMMARY_THERMO_TYPE:
            thermo = self._ask(
                rester.materials.thermo.search,
                material_ids=list(documents),
                thermo_types=[self.thermo_type],
                fields=["material_id", "is_stable", "formation_energy_per_atom"],
            )
            of_summary = dict.fromkeys(("is_stable", "formation_energy_per_atom"))
            for material_id in documents:
                documents[material_id] |= of_summary | thermo.get(material_id, {})
        usable = {}
        for material_id, document in documents.items():
            outside = self._outside(document)
            lacking = None if outside else self._lacking(document)
            if outside is None and lacking is None:
                usable[material_id] = document
            elif lacking or self.material_ids:
                self._problems[material_id] = f"{material_id}: {outside or lacking}"
        if not usable:
            return
        tasks = self._tasks(rester, list(usable))
        texts = self._texts(rester, [i for i in usable if tasks[i]]) if self.texts else {}
        for material_id, document in usable.items():
            if not tasks[material_id]:
                self._problems[material_id] = (
                    f"{material_id}: no calculation of type {' or '.join(self.calculations)}; "
                    "leave it out, or name further `calculations`"
                )
                continue
            self._found[material_id] = {
                "labels": _labels(document),
                "tasks": tasks[material_id],
                "licence": _GNOME_LICENCE if _of_gnome(document) else _LICENCE,
                "texts": texts.get(material_id, {}),
            }

    def _outside(self, document: Mapping[str, Any]) -> str | None:
        """Why a material is not what was asked for."""
        if document.get("deprecated"):
            return "deprecated by the Materials Project"
        if not self._fits(document):
            symmetry = document.get("symmetry") or {}
            return f"space group {symmetry.get('symbol')}, no {self.bravais} lattice (`bravais`)"
        if self.stable and not document.get("is_stable"):
            return f"not on the convex hull of {self.thermo_type} (`stable`)"
        if _of_gnome(document) and not self.gnome:
            return f"of GNoME, licensed {_GNOME_LICENCE}; ask for it with `gnome`"
        return None

    def _lacking(self, document: Mapping[str, Any]) -> str | None:
        """What a material would need and has not."""
        # a list in older databases, property → bool in newer ones; silent where it is not served
        props = document.get("has_props")
        if isinstance(props, Mapping):
            props = [name for name, has in props.items() if has]
        if props is not None and "charge_density" not in props:
            return "no charge density in the Materials Project"
        labels = _labels(document)
        missing = [name for name in self.require if name not in labels]
        return f"no {', '.join(missing)}; leave it out of `require` to keep it" if missing else None

    def _tasks(self, rester: MPRester, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Material id → its calculations that may have a density, the one updated last first."""
        materials = self._ask(
            rester.materials.search,
            material_ids=ids,
            fields=["material_id", "calc_types", "deprecated_tasks"],
        )
        types: dict[str, dict[str, str]] = {}
        for material_id in ids:
            material = materials.get(material_id, {})
            bad = {_identifier(task_id) for task_id in material.get("deprecated_tasks") or ()}
            served = {
                _identifier(t): kind for t, kind in (material.get("calc_types") or {}).items()
            }
            types[material_id] = {
                task_id: kind
                for task_id, kind in served.items()
                if kind in self.calculations and task_id not in bad
            }
        tasks: dict[str, dict[str, Any]] = {}
        for batch in _batches(sorted({task_id for of in types.values() for task_id in of})):
            tasks |= self._ask(
                rester.materials.tasks.search,
                key="task_id",
                task_ids=batch,
                fields=["task_id", "last_updated", "run_type", "vasp_version", "output.energy"],
                chunk_size=_IDS_PER_REQUEST,
            )
        return {
            material_id: sorted(
                (
                    _task(i, kind, tasks.get(i, {}))
                    for i, kind in sorted(types[material_id].items())
                ),
                key=lambda task: task["last_updated"],
                reverse=True,
            )
            for material_id in ids
        }

    def _texts(self, rester: MPRester, ids: list[str]) -> dict[str, dict[str, str]]:
        if not ids:
            return {}
        served = self._ask(
            rester.materials.robocrys.search_docs,
            material_ids=ids,
            fields=["material_id", "description"],
        )
        return {i: {"all": d["description"]} for i, d in served.items() if d.get("description")}

    # -- the client -------------------------------------------------------------------------------

    def _connect(self, key_needed: bool = False) -> MPRester:
        """The client of this process; made again in every worker."""
        if self._rester is None:
            self._rester = self._make_rester()
        if key_needed and not self._rester.api_key:
            raise RhosightError(
                "no key of the Materials Project's API; get one at "
                "https://next-gen.materialsproject.org/api and put it into the environment "
                "variable MP_API_KEY"
            )
        return self._rester

    def _make_rester(self) -> MPRester:
        try:
            from mp_api.client import MPRester
            from mp_api.client.core.exceptions import MPRestError
        except ImportError as error:
            raise RhosightError(
                "the Materials Project needs mp-api: pip install 'rhosight[mp]'"
            ) from error
        for attempt in range(self.retries + 1):
            session = _Session(self.retries, self.backoff, self.max_wait)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that there is no key: workers need none
                    return MPRester(
                        endpoint=self.endpoint,
                        session=session,
                        use_document_model=False,
                        mute_progress_bars=True,
                    )
            except MPRestError as error:  # a key that cannot be one
                raise RhosightError(
                    f"Materials Project: {_first_line(error)} The key comes from {_key_origin()}"
                ) from None
            # what mp-api makes of a heartbeat that does not come: it asks without the session
            except (requests.RequestException, ValueError, KeyError) as error:
                problem = _first_line(error)
            if attempt < self.retries:
                time.sleep(min(self.backoff * 2**attempt, self.max_wait))
        where = self.endpoint or "https://api.materialsproject.org"
        raise RhosightError(f"{where}: no answer to heartbeat ({problem}); try again later")

    def _ask(
        self, search: Callable[..., list[dict]], key: str = "material_id", **criteria: Any
    ) -> dict[str, dict[str, Any]]:
        """Id → document."""
        try:
            documents = search(**criteria)
        except _Missing:
            if "material_ids" in criteria or "task_ids" in criteria:
                return {}
            raise
        except RhosightError:
            raise
        except Exception as error:  # mp-api's own, and what it trips over in an odd answer
            text = _first_line(error)
            # not `from error`: a server's answer may repeat what it was sent
            if self._rester is not None and self._rester.api_key:
                text = text.replace(self._rester.api_key, "<key>")
            raise RhosightError(f"Materials Project: {text}") from None
        return {_identifier(document[key]): document for document in documents}

    # -- the density ------------------------------------------------------------------------------

    def _chgcar(self, material_id: str, task_id: str) -> Chgcar | None:
        """The density of a calculation; None if the bucket has none."""
        rester = self._connect()
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
        from mp_api.client.core.exceptions import MPRestError
        from s3transfer.exceptions import RetriesExceededError

        for attempt in range(self.retries + 1):
            try:
                return rester.get_charge_density_from_task_id(task_id)
            except MPRestError as error:
                # mp-api says "No object found" whatever S3 answered; ask S3 itself
                bucket, name = re.search(r"s3://([^/\s]+)/(\S+)", str(error)).groups()
                problem = f"s3://{bucket}/{name} cannot be read"
                try:
                    rester.materials.tasks.s3_client.head_object(Bucket=bucket, Key=name)
                except ClientError as refusal:
                    status = refusal.response["ResponseMetadata"]["HTTPStatusCode"]
                    problem = f"s3://{bucket}/{name}: HTTP {status}"
                    if status == 404:
                        return None
                    if status < 500 and status != 429:
                        break
            except (Boto3Error, BotoCoreError, RetriesExceededError) as error:
                problem = _first_line(error)  # boto3 has tried again already
                break
            except Exception as error:  # gzip's, JSON's or pymatgen's own: a file cut short
                problem = f"density of {task_id} is cut short or damaged ({_first_line(error)})"
            if attempt < self.retries:
                time.sleep(min(self.backoff * 2**attempt, self.max_wait))
        raise RhosightError(f"{material_id}: {problem}; run again later, or leave it out")

    def _density(self, material_id: str, chgcar: Chgcar, task: Mapping[str, Any]) -> ChargeDensity:
        """Per Å³, checked against what was asked for."""
        found = self._found[material_id]
        structure, blocks = chgcar.structure, chgcar.data
        formula = structure.composition.reduced_formula
        if formula != found["labels"].get("formula", formula):
            raise RhosightError(
                f"{material_id}: the density of {task['task_id']} is of {formula}, not of "
                f"{found['labels']['formula']}; leave it out"
            )
        if self.bravais is not None:
            cell = SpacegroupAnalyzer(structure, symprec=self.symprec)
            lattice = _bravais(cell.get_crystal_system(), cell.get_space_group_symbol())
            if lattice != self.bravais:
                raise RhosightError(
                    f"{material_id}: the cell of {task['task_id']} has lattice {lattice}, not "
                    f"{self.bravais}, within {self.symprec} Å; leave it out or raise `symprec`"
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


class _Session(requests.Session):
    """Sends a request again while the server is only busy, and says clearly when it refuses.

    mp-api's own session tries three times within a second, not at all after a 500 or a body that
    was cut, and waits for as long as a server wishes.
    """

    def __init__(self, retries: int, backoff: float, max_wait: float) -> None:
        super().__init__()
        self.retries, self.backoff, self.max_wait = retries, backoff, max_wait
        self.headers["user-agent"] = f"rhosight/{__version__} (mp-api)"

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        address = urlsplit(request.url)
        where = f"{address.scheme}://{address.netloc}{address.path}"
        for attempt in range(self.retries + 1):
            wait = self.backoff * 2**attempt
            try:
                response = super().send(request, **kwargs)
            except requests.RequestException as error:
                problem = _first_line(error)
            else:
                status = response.status_code
                if status in (401, 403):
                    raise RhosightError(
                        f"{where}: access refused (HTTP {status}); the key comes from "
                        f"{_key_origin()}, compare it with the one at "
                        "https://next-gen.materialsproject.org/api"
                    )
                if status == 404:
                    raise _Missing(f"{where}: not found (HTTP 404); is the endpoint right?")
                problem = f"HTTP {status}"
                if status == 200 and not _is_json(response.content):
                    problem = "the answer is cut short"
                elif status != 429 and status < 500:
                    return response
                asked = _retry_after(response)
                if asked is not None and asked > self.max_wait:
                    raise RhosightError(
                        f"{where}: {problem}, come back in {asked:.0f} s; do so, or raise max_wait"
                    )
                wait = wait if asked is None else asked
            if attempt < self.retries:
                time.sleep(min(wait, self.max_wait))
        raise RhosightError(
            f"{where}: {problem}, {self.retries + 1} times in a row; run again later"
        )

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Keep the key from another host; requests knows of its own headers only."""
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(response.request.url, prepared_request.url):
            prepared_request.headers.pop("x-api-key", None)


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait."""
    value = response.headers.get("Retry-After")
    try:
        return None if value is None else float(Retry().parse_retry_after(value))
    except Exception:  # neither seconds nor a date: urllib3's own error
        return None


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


def _key_origin() -> str:
    if os.environ.get("MP_API_KEY"):
        return "the environment variable MP_API_KEY"
    return "PMG_MAPI_KEY (environment, or pymatgen's settings file)"


def _identifier(identifier: Any) -> str:
    """An id of the Materials Project, or of a calculation, in the form mp-149 (aaaaaaft)."""
    from emmet.core.mpid import AlphaID

    return AlphaID(str(identifier).split("-")[-1], prefix="mp").string


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _IDS_PER_REQUEST):
        yield list(ids[start : start + _IDS_PER_REQUEST])


def _bravais(crystal_system: str, symbol: str) -> str:
    """Bravais lattice, such as cF, from crystal system and space-group symbol."""
    letter = next(
        (letter for letter, names in _SYSTEMS.items() if crystal_system.capitalize() in names), "?"
    )
    return letter + symbol[:1].replace("A", "C").replace("B", "C")


def _labels(document: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the schema that a summary serves; missing ones are left out."""
    modulus = document.get("bulk_modulus") or {}
    numbers = {
        **{name: document.get(name) for name in ("formation_energy_per_atom", "efermi")},
        **{f"bulk_modulus_{mean}": modulus.get(mean) for mean in ("vrh", "voigt", "reuss")},
        "band_gap": document.get("band_gap"),
    }
    labels = {
        "formula": document.get("formula_pretty"),
        "spacegroup_number": (document.get("symmetry") or {}).get("number"),
        **{n: v for n, v in numbers.items() if v is not None and math.isfinite(v)},
    }
    return {name: value for name, value in labels.items() if value is not None}


def _of_gnome(document: Mapping[str, Any]) -> bool:
    return (document.get("builder_meta") or {}).get("license") == "BY-NC"


def _task(task_id: str, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a calculation."""
    energy = (document.get("output") or {}).get("energy")
    known = {
        "version": document.get("vasp_version"),
        "functional": document.get("run_type") or kind.rpartition(" ")[0],
        "calc_type": kind,
        "task_id": task_id,
    }
    return {
        "task_id": task_id,
        "last_updated": str(document.get("last_updated") or ""),
        "labels": {} if energy is None else {"dft_energy": energy},
        "provenance": {name: value for name, value in known.items() if value is not None},
    }


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
