"""Classes of compounds by what their most electronegative part is."""

from __future__ import annotations

from pymatgen.core import Composition, Element

CLASSES = (
    "element",
    "halide",
    "oxide",
    "chalcogenide",
    "pnictide",
    "carbide or silicide",
    "boride",
    "hydride",
    "intermetallic",
)
"""In the order of tables."""


def chemical_class(formula: str) -> str:
    """One of :data:`CLASSES`.

    The most electronegative (Pauling) element of the groups 15 to 17, or among H, B, C, Si and Ge,
    names the class: ``chalcogenide`` for S, Se, Te and Po, ``pnictide`` for N to Bi, ``carbide or
    silicide`` for C, Si and Ge. Without such an element a compound is an ``intermetallic``.
    """
    elements = list(Composition(formula).element_composition)
    if len(elements) == 1:
        return "element"
    anions = [element for element in elements if _class_of(element)]
    if not anions:
        return "intermetallic"
    return _class_of(max(anions, key=lambda element: (element.X, element.symbol)))


def _class_of(element: Element) -> str:
    if element.symbol in ("H", "B", "O"):
        return {"H": "hydride", "B": "boride", "O": "oxide"}[element.symbol]
    if element.symbol in ("C", "Si", "Ge"):
        return "carbide or silicide"
    return {17: "halide", 16: "chalcogenide", 15: "pnictide"}.get(element.group, "")
