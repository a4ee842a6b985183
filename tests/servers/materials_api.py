"""Provide the parts of the Materials Project API that a dataset needs.

The replies follow mp-api 0.46 and emmet's API: ``data`` and ``meta.total_doc``, pages by ``_skip``
and ``_limit``, projection by ``_fields``, and the gateway's 401 without ``detail``.
"""

from __future__ import annotations

from typing import Any

from pymatgen.symmetry.groups import sg_symbol_from_int_number

from rhosight.dataset import Dataset, Material

from .faulty import FaultyServer, Reply, Request, as_json

KEY = "0123456789abcdefghijklmnopqrstuv"
VERSION = "2025.09.25"

MAX_LIMIT = {"tasks": 100}

# Query parameter → function that compares a document with its value
_FILTERS = {
    "material_ids": lambda doc, value: doc["material_id"] in value.split(","),
    "task_ids": lambda doc, value: doc["task_id"] in value.split(","),
    "crystal_system": lambda doc, value: doc["symmetry"]["crystal_system"] == value,
    "is_stable": lambda doc, value: doc["is_stable"] == (value == "True"),
    "deprecated": lambda doc, value: doc["deprecated"] == (value == "True"),
    "elements": lambda doc, value: set(value.split(",")) <= set(doc["elements"]),
    "chemsys": lambda doc, value: "-".join(sorted(doc["elements"])) in value.split(","),
    "batch_id_not_eq": lambda doc, value: doc["builder_meta"]["batch_id"] != value,
}


class MaterialsAPI(FaultyServer):
    """Serve the documents of :attr:`collections`, a map from collection to documents."""

    def __init__(self, materials: Dataset) -> None:
        super().__init__()
        self.collections: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("summary", "core", "tasks", "thermo", "robocrys")
        }
        for material in materials:
            labels = materials.table.loc[material.material_id].to_dict()
            self.add(material, {k: None if v != v else v for k, v in labels.items()})

    def add(self, material: Material, labels: dict[str, Any]) -> None:
        """Add all documents of a material; its density belongs to :func:`task_id`."""
        material_id, task = material.material_id, task_id(material.material_id)
        self.collections["summary"].append(summary(material_id, material, labels))
        old = task_id(material_id, 1)
        self.collections["core"].append({
            "material_id": material_id,
            "deprecated": False,
            "deprecated_tasks": [],
            "calc_types": {
                material_id: "GGA Structure Optimization", old: "GGA Static", task: "GGA Static",
            },
        })  # fmt: skip
        for name, date in ((old, "2015-03-01T10:00:00"), (task, "2021-02-07T10:12:33.250000")):
            self.collections["tasks"].append({
                "task_id": name,
                "last_updated": date,
                "run_type": "GGA",
                "vasp_version": "5.4.4.18Apr17-6-g9f103f2a35",
                "output": {"energy": -10.5, "forces": [[0.0, 0.0, 0.0]]},
            })  # fmt: skip
        for hull in ("GGA_GGA+U_R2SCAN", "GGA_GGA+U", "R2SCAN"):
            self.collections["thermo"].append({
                "material_id": material_id,
                "thermo_type": hull,
                "is_stable": True,
                "formation_energy_per_atom": labels["formation_energy_per_atom"],
            })  # fmt: skip
        self.collections["robocrys"].append({
            "material_id": material_id,
            "description": f"{labels['formula']} is as Robocrystallographer describes it.",
            "robocrys_version": "0.2.7",
        })  # fmt: skip

    def document(self, collection: str, material_id: str) -> dict[str, Any]:
        """Return one document, which the caller may change in place."""
        return next(d for d in self.collections[collection] if d["material_id"] == material_id)

    def answer(self, request: Request) -> Reply:
        if request.path == "/heartbeat":
            return as_json({
                "status": "OK",
                "time": "2025-10-01T00:00:00",
                "db_version": VERSION,
                "version": "0.86.3",
                "access_controlled_batch_ids": ["gnome_r2scan_statics"],
            })  # fmt: skip
        if request.headers.get("x-api-key") != KEY:
            return as_json({"message": "Invalid authentication credentials"}, 401)
        base, _, collection = request.path.strip("/").partition("/")
        if base != "materials" or collection not in self.collections:
            return as_json({"detail": "Not Found"}, 404)
        limit, skip = (int(request.query.get(name, 0)) for name in ("_limit", "_skip"))
        if limit > MAX_LIMIT.get(collection, 1000):
            detail = "Requested more data per query than allowed by this endpoint."
            return as_json({"detail": detail}, 400)
        found = [
            document
            for document in self.collections[collection]
            if all(
                _FILTERS[name](document, value)
                for name, value in request.query.items()
                if name in _FILTERS
            )
        ]
        names = request.query.get("_fields", "material_id").split(",")
        page = [_project(document, names) for document in found[skip : skip + limit]]
        meta = {"api_version": "0.86.3", "time_stamp": "2025-10-01T00:00:00", "facet": None}
        return as_json({"data": page, "errors": None, "meta": meta | {"total_doc": len(found)}})


def task_id(material_id: str, number: int = 2) -> str:
    """Return the id of a material's static calculation.

    The second calculation is the one updated last. Ids stay below 3347529, where the Materials
    Project starts to count in letters.
    """
    return f"mp-{int(material_id.removeprefix('mp-')) % 1_010_000 + 1_010_000 * number}"


def summary(material_id: str, material: Material, labels: dict[str, Any]) -> dict[str, Any]:
    """Return the document of the summary endpoint."""
    number = int(labels["spacegroup_number"])
    moduli = {mean: labels[f"bulk_modulus_{mean}"] for mean in ("voigt", "reuss", "vrh")}
    return {
        "material_id": material_id,
        "formula_pretty": labels["formula"],
        "elements": [element.symbol for element in material.structure.composition.elements],
        "symmetry": {
            "crystal_system": "Cubic", "symbol": sg_symbol_from_int_number(number),
            "number": number, "point_group": "m-3m", "symprec": 0.1, "version": "2.5.0",
        },
        "is_stable": True,
        "deprecated": False,
        "has_props": {"materials": True, "thermo": True, "charge_density": True, "dos": False},
        "formation_energy_per_atom": labels["formation_energy_per_atom"],
        "efermi": labels["efermi"],
        "band_gap": labels["band_gap"],
        "bulk_modulus": None if moduli["vrh"] is None else moduli,
        "builder_meta": {"license": "BY-C", "batch_id": None},
    }  # fmt: skip


def _project(document: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the named fields, including one level of ``a.b``."""
    projected: dict[str, Any] = {}
    for name in names:
        outer, _, inner = name.partition(".")
        if inner and outer in document:
            projected[outer] = {inner: document[outer].get(inner)}
        elif outer in document:
            projected[outer] = document[outer]
    return projected
