"""Classify compounds by their most electronegative element."""

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
"""Classes in the order of the summary tables."""


def chemical_class(formula: str) -> str:
    """Return the class of a compound, one of :data:`CLASSES`.

    The class is that of the most electronegative (Pauling) element among groups 15 to 17, H, B, C,
    Si and Ge: ``chalcogenide`` for S, Se, Te and Po, ``pnictide`` for N to Bi, ``carbide or
    silicide`` for C, Si and Ge. A compound without such an element is an ``intermetallic``.
    """
    elements = list(Composition(formula).element_composition)
    if len(elements) == 1:
        return "element"
    anions = [element for element in elements if _class_of(element)]
    if not anions:
        return "intermetallic"
    return _class_of(max(anions, key=lambda element: (element.X, element.symbol)))


def _class_of(element: Element) -> str:
    """Return the class that an element gives to its compounds; empty for metals."""
    if element.symbol in ("H", "B", "O"):
        return {"H": "hydride", "B": "boride", "O": "oxide"}[element.symbol]
    if element.symbol in ("C", "Si", "Ge"):
        return "carbide or silicide"
    return {17: "halide", 16: "chalcogenide", 15: "pnictide"}.get(element.group, "")
