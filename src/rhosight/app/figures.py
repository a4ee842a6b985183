"""Draw the figures of the web page as JSON for Plotly, which the page contains.

Backgrounds are transparent and the page sets the colour of texts and lines, so that the figures are
readable in light and in dark mode.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np

from ..density.charge_density import Kind
from ..density.colours import COLOUR_MAPS, SIGNED_KINDS, compute_colour_limits, is_noise
from .views import Block, Slices

_CONFIG = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d", "resetCameraLastSave3d"],
    "toImageButtonOptions": {"scale": 2},
}
_CLEAR = "rgba(0,0,0,0)"
INK = "#7d8590"
"""Colour of texts and lines, readable on white and near-black; the page's CSS refines it."""
_FONT = {"color": INK, "size": 12, "family": "inherit"}

POSITIVE, NEGATIVE = "#2f7fd1", "#d9622b"
"""Colours of the isosurfaces at plus and minus the level."""


def draw_slice(slices: Slices, kind: Kind) -> str:
    """Draw one kind of density on the plane, with the atoms on the plane."""
    values = slices.values[kind]
    low, high = compute_colour_limits(values, kind)
    heatmap = {
        "type": "heatmap",
        "x": _pack(slices.axis),
        "y": _pack(-slices.axis),
        "z": _pack(values),
        "zmin": low,
        "zmax": high,
        "colorscale": _make_colour_scale(COLOUR_MAPS[kind]),
        "colorbar": {
            "title": {"text": "e/Å³", "side": "top"},
            "tickformat": ".2~g",
            "thickness": 10,
            "outlinewidth": 0,
            "len": 0.9,
            "xpad": 4,
        },
        "hovertemplate": "x %{x:.2f} Å, y %{y:.2f} Å<br>%{z:.4f} e/Å³<extra></extra>",
    }
    rings = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [atom[0] for atom in slices.atoms],
        "y": [atom[1] for atom in slices.atoms],
        "text": [atom[2] for atom in slices.atoms],
        "textposition": "top right",
        "textfont": {"color": "#111", "size": 11, "shadow": "0 0 3px white, 0 0 3px white"},
        "marker": {"size": 9, "color": _CLEAR, "line": {"color": "#111", "width": 1.4}},
        "hoverinfo": "skip",
    }
    half = float(-slices.axis[0] + (slices.axis[1] - slices.axis[0]) / 2)
    axis = {
        "range": [-half, half],
        "zeroline": False,
        "showgrid": False,
        "ticks": "outside",
        "constrain": "domain",
        "nticks": 5,
    }
    return _make_figure(
        [heatmap, rings],
        {
            "xaxis": {**axis, "title": {"text": "x (Å)", "standoff": 4}},
            "yaxis": {**axis, "title": {"text": "y (Å)", "standoff": 2}, "scaleanchor": "x"},
            "height": 330,
            "margin": {"l": 44, "r": 8, "t": 34, "b": 40},  # the label is above
            "showlegend": False,
            "annotations": _note_noise(values, kind),
        },
        "slice",
        _describe_slice(slices, kind),
    )


def _note_noise(values: np.ndarray, kind: Kind) -> list[dict[str, Any]]:
    """Return the annotation of a spin density that is noise, in a list."""
    if not is_noise(values, kind):
        return []
    place = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper", "showarrow": False}
    return [{**place, "text": "no magnetisation", "font": {"color": "#111", "size": 14}}]


def draw_block(block: Block) -> tuple[str, dict[str, float]]:
    """Draw the atoms, the edges of the block, and an isosurface.

    The surface is the first trace, so that the page can change its level without the server.

    Returns
    -------
    The figure, and ``least``, ``most``, ``value`` and ``step`` of the level of the surface.
    """
    traces: list[dict[str, Any]] = []
    level = {"least": 0.0, "most": 1.0, "value": 0.5, "step": 0.1}
    if block.values is not None and block.kind:
        surface, level = _make_surface(block.edges, block.values, block.kind in SIGNED_KINDS)
        traces.append(surface)
    traces.append(_make_edges(block.edges))
    traces += [_make_atoms(block, element) for element in dict.fromkeys(block.elements)]
    hidden = {"visible": False, "showspikes": False}
    layout = {
        "scene": {
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "aspectmode": "data",
            "camera": {
                "eye": {"x": 1.55, "y": 1.0, "z": 0.75},
                "projection": {"type": "orthographic"},
            },
            "dragmode": "orbit",
        },
        "height": 420,
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "legend": {"orientation": "h", "y": 0.02, "x": 0.02, "itemsizing": "constant"},
    }
    return _make_figure(traces, layout, "structure", _describe_block(block)), level


def _make_atoms(block: Block, element: str) -> dict[str, Any]:
    """Return the trace of all atoms of one element."""
    rows = [i for i, symbol in enumerate(block.elements) if symbol == element]
    places = block.atoms[rows]
    return {
        "type": "scatter3d",
        "mode": "markers",
        "name": element,
        **{name: _pack(places[:, i]) for i, name in enumerate("xyz")},
        "marker": {
            "size": _compute_size(element, float(block.edges.max())),
            "color": _load_colours().get(element, "#909090"),
            "line": {"color": "#333", "width": 1},
            "opacity": 1,
        },
        "hovertemplate": f"{element}<br>%{{x:.2f}}, %{{y:.2f}}, %{{z:.2f}} Å<extra></extra>",
    }


def _make_surface(
    edges: np.ndarray, values: np.ndarray, is_signed: bool
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the trace of the isosurface and the range of its level."""
    ticks = [np.linspace(0, edge, n) for edge, n in zip(edges, values.shape, strict=True)]
    places = np.meshgrid(*ticks, indexing="ij")
    size = np.abs(values) if is_signed else values
    most = float(np.quantile(size, 0.995)) or 1e-3
    value = float(np.quantile(size, 0.93 if is_signed else 0.85))
    # about two hundred round steps: 1, 2 or 5 times a power of ten
    step = most / 200
    power = 10.0 ** np.floor(np.log10(step))
    step = float(power * min(m for m in (1, 2, 5, 10) if m * power >= step))
    most = step * np.floor(most / step)
    value = step * round(min(max(value, step), most) / step)
    level = {"least": step, "most": most, "value": value, "step": step}
    trace = {
        "type": "isosurface",
        **{name: _pack(place.ravel()) for name, place in zip("xyz", places, strict=True)},
        "value": _pack(values.ravel()),
        "isomin": -value if is_signed else value,
        "isomax": value,
        "surface": {"count": 2 if is_signed else 1},
        "caps": {axis: {"show": False} for axis in "xyz"},
        "colorscale": [[0, NEGATIVE if is_signed else POSITIVE], [1, POSITIVE]],
        "cmin": -1e-9 if is_signed else 0,
        "cmax": 1e-9 if is_signed else 1,
        "opacity": 0.45,
        "showscale": False,
        "hoverinfo": "skip",
        "lighting": {"ambient": 0.6, "diffuse": 0.6, "specular": 0.2},
    }
    return trace, {n: round(float(v), 9) for n, v in level.items()}


def _make_edges(edges: np.ndarray) -> dict[str, Any]:
    """Return the trace of the twelve edges of the block, one line with gaps."""
    corners = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    line: list[tuple[float, ...] | None] = []
    for start in corners:
        for axis in range(3):
            if start[axis] == 0:
                end = tuple(1 if i == axis else c for i, c in enumerate(start))
                line += [tuple(start * edges), tuple(end * edges), None]
    return {
        "type": "scatter3d",
        "mode": "lines",
        **{name: [p and float(p[i]) for p in line] for i, name in enumerate("xyz")},
        "line": {"color": INK, "width": 2},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _describe_slice(slices: Slices, kind: Kind) -> str:
    values, side = slices.values[kind], len(slices.axis) * (slices.axis[1] - slices.axis[0])
    atoms = Counter(element for _, _, element in slices.atoms)
    listed = ", ".join(f"{n} {element}" for element, n in atoms.items()) or "none"
    return (
        f"Map of the {kind} density on the plane ({' '.join(map(str, slices.plane.hkl))}), offset "
        f"{slices.offset:g} spacings, {side:.3g} Å wide: {values.min():.3g} to "
        f"{values.max():.3g} e/Å³. Atoms on the plane: {listed}."
    )


def _describe_block(block: Block) -> str:
    atoms = ", ".join(f"{n} {element}" for element, n in Counter(block.elements).items())
    surface = f", and an isosurface of the {block.kind} density" if block.kind else ""
    size = " × ".join(f"{edge:.3g}" for edge in block.edges)
    return f"Structure in a block of {size} Å: {atoms}{surface}."


def _make_figure(
    traces: list[dict[str, Any]], layout: dict[str, Any], name: str, alternative: str
) -> str:
    """Return a figure with a description, the ``alternative``, for screen readers."""
    common = {
        "paper_bgcolor": _CLEAR,
        "plot_bgcolor": _CLEAR,
        "font": _FONT,
        "meta": {"alternative": alternative},
    }
    config = {**_CONFIG, "toImageButtonOptions": {"scale": 2, "filename": f"rhosight-{name}"}}
    figure = {"data": traces, "layout": {**common, **layout}, "config": config}
    return json.dumps(figure, allow_nan=False)


def _pack(values: np.ndarray) -> dict[str, Any]:
    """Return an array in Plotly's binary format."""
    values = np.ascontiguousarray(values, dtype="<f4")
    packed = {"dtype": "f4", "bdata": base64.b64encode(values.tobytes()).decode()}
    return packed if values.ndim == 1 else {**packed, "shape": ", ".join(map(str, values.shape))}


@cache
def _make_colour_scale(name: str) -> list[list[Any]]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [[i / 32, to_hex(colormaps[name](i / 32))] for i in range(33)]


def _compute_size(element: str, longest: float) -> float:
    """Return the size of an atom in pixels.

    It is about half the atomic radius in a view as wide as the longest edge of the block, Å.
    """
    from pymatgen.core import Element

    radius = Element(element).atomic_radius or 1.5
    return float(np.clip(60 * float(radius) / longest, 5, 26))


@cache
def _load_colours() -> dict[str, str]:
    """Load Jmol's colours of the elements from pymatgen."""
    from importlib.resources import files

    from monty.serialization import loadfn

    schemes = loadfn(str(files("pymatgen.vis") / "ElementColorSchemes.yaml"))
    return {e: f"rgb({r},{g},{b})" for e, (r, g, b) in schemes["Jmol"].items()}
