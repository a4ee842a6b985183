"""A charge density in a few lines of text, and as HTML with a slice for notebooks."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np

from .colours import COLOUR_MAPS, compute_colour_limits
from .plane import lattice_plane
from .sampling import sample_window

if TYPE_CHECKING:
    from .charge_density import ChargeDensity

WINDOW = 8.0
"""Å; side of the slice."""

PIXELS = 200
"""Along each side of the slice."""

# Most informative first: a difference shows the bonds, a total mostly the cores
_DRAWN_KINDS = ("difference", "total", "spin")


def summarise(density: ChargeDensity) -> dict[str, str]:
    """Return the main facts about a density, label → text."""
    structure = density.structure
    atoms = len(structure)
    steps = [a / n for a, n in zip(structure.lattice.abc, density.shape, strict=True)]
    spacing = "–".join(dict.fromkeys(f"{step:.3f}" for step in (min(steps), max(steps))))
    facts = {
        "Formula": f"{structure.composition.reduced_formula} ({atoms} "
        f"{'atom' if atoms == 1 else 'atoms'}, {structure.volume:.2f} Å³)",
        "Grid": f"{'×'.join(map(str, density.shape))}, spacing {spacing} Å",
        "Kinds": ", ".join(density.kinds),
    }
    if "total" in density.grids:
        facts["Electrons"] = f"{density.integral('total'):.3f}"
    provenance = density.provenance
    if code := provenance.get("code"):
        facts["Code"] = str(code)
    if source := ", ".join(str(provenance[k]) for k in ("source", "format") if provenance.get(k)):
        facts["Source"] = source
    return facts


def render_text(density: ChargeDensity) -> str:
    """Return the text that Python shows for a density, one fact per line."""
    name = f" {density.name!r}" if density.name else ""
    lines = [f"  {label:<10}{value}" for label, value in summarise(density).items()]
    return "\n".join([f"ChargeDensity{name}", *lines])


def render_html(density: ChargeDensity) -> str:
    """Return HTML for notebooks: a table of facts and a slice of the density.

    The slice lies along the densest lattice plane. A density that cannot be sliced is shown
    without it.
    """
    facts = summarise(density)
    notes = density.provenance.get("notes", [])
    rows = [(label, html.escape(value)) for label, value in facts.items()]
    if notes:
        rows.append(("Notes", "<br>".join(html.escape(str(note)) for note in notes)))
    cell = "text-align: left; vertical-align: top; padding: 0.1em 1em 0.1em 0; max-width: 26em"
    table = "".join(
        f"<tr><th style='{cell}'>{label}</th><td style='{cell}'>{value}</td></tr>"
        for label, value in rows
    )
    try:
        picture = _render_slice(density)
    except Exception:  # a notebook shows what there is; errors belong to explicit calls
        picture = ""
    title = html.escape(f"ChargeDensity {density.name}".strip())
    return (
        "<div style='display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start'>"
        f"<table><caption style='text-align: left; font-weight: bold'>{title}</caption>"
        f"{table}</table>{picture}</div>"
    )


def _render_slice(density: ChargeDensity) -> str:
    """Return a figure element with the slice as an inline PNG."""
    kind = next(kind for kind in _DRAWN_KINDS if kind in density.grids)
    plane = lattice_plane(density.structure)
    values = sample_window(np.asarray(density.grids[kind]), plane, WINDOW, PIXELS)
    low, high = compute_colour_limits(values, kind)
    caption = (
        f"{kind} on plane ({' '.join(map(str, plane.hkl))}), {WINDOW:g} × {WINDOW:g} Å, "
        f"colours from {low:.2g} to {high:.2g} e/Å³".replace("-", "−")
    )
    image = base64.b64encode(_draw_png(values, kind, low, high)).decode("ascii")
    return (
        f"<figure style='margin: 0; width: {PIXELS}px'>"
        f"<img src='data:image/png;base64,{image}' width='{PIXELS}' height='{PIXELS}' "
        f"alt='{caption}'>"
        f"<figcaption style='font-size: small'>{caption}</figcaption></figure>"
    )


def _draw_png(values: np.ndarray, kind: str, low: float, high: float) -> bytes:
    from matplotlib.image import imsave  # takes a second to import

    file = io.BytesIO()
    imsave(file, values, vmin=low, vmax=high, cmap=COLOUR_MAPS[kind], format="png")
    return file.getvalue()
