"""Make Figure 5: the architecture, drawn from the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from ...evaluation.html import FIRST, INK, SECOND, SOFT, page_style
from ...networks.modules import Branch, Network, build_model
from ...networks.recipe import Recipe
from ..exhibit import Exhibit

TITLE = "The stacked model's architecture, drawn from the model itself"

_COLOURS = {"image": FIRST, "text": SECOND, "both": SOFT}


def make_exhibit(recipe: Recipe | None = None, pretrained: bool = False) -> Exhibit:
    """Draw the diagram, with its layers as the table; see :func:`draw`."""
    recipe = recipe or Recipe()
    network = build_model(recipe, pretrained)
    table = list_layers(network)
    total = sum(parameter.numel() for parameter in network.parameters())
    untrained = int(table.loc[~table["pretrained"], "parameters"].sum())
    note = f"{total:,} parameters, {untrained:,} of them in layers that start untrained."
    return Exhibit("figure5", TITLE, table, _draw(table, recipe), note)


def draw(recipe: Recipe | None = None, pretrained: bool = False) -> Figure:
    """Draw the network of a recipe (paper Figure 5).

    Parameters
    ----------
    recipe
        Recipe; the default recipe by default.
    pretrained
        Load weights; the picture does not depend on them.
    """
    recipe = recipe or Recipe()
    return _draw(list_layers(build_model(recipe, pretrained)), recipe)


def list_layers(network: Network) -> pd.DataFrame:
    """List the layers of a network in the order of the data flow.

    Returns
    -------
    DataFrame, one row per block: ``branch`` (image, text or both), ``block`` (its name in the
    network), ``what``, ``width_in``, ``width_out``, ``parameters``, ``pretrained``, and ``role``:
    ``backbone``, ``dense``, ``last`` (output of a branch, which the stacked model does not use),
    ``output``.
    """
    return pd.DataFrame(list(_walk_blocks(network)))


def _walk_blocks(network: Network) -> Iterator[dict]:
    if isinstance(network, Branch):
        yield from _branch(network.modality, network)
        return
    for branch, part in network.parts.items():
        if part.encoders:
            yield from _branch(branch, part, used=False)
    if encoder := network.dual_encoder:
        name = _name_backbone(encoder)
        for branch in ("image", "text"):
            weights = [weight for part in encoder.parts[branch] for weight in part.parameters()]
            yield _block(branch, "backbone", name, 0, encoder.width, weights, "backbone")
    head = network.head
    yield from _head("both", head if isinstance(head, nn.Sequential) else nn.Sequential(head))


def _branch(branch: str, model: Branch, used: bool = True) -> Iterator[dict]:
    """Yield backbone, readout and last layer; ``used``: is its output used."""
    backbone, width = model.backbone, model.backbone.width
    assert isinstance(width, int)
    weights = list(backbone.parameters())
    yield _block(branch, "backbone", _name_backbone(backbone), 0, width, weights, "backbone")
    for i, block in enumerate(model.head.hidden):
        assert isinstance(block, nn.Sequential)
        yield _dense(branch, f"head.hidden.{i}", block)
    last = model.head.last
    role = "output" if used else "last"
    sizes = last.in_features, last.out_features
    yield _block(branch, "head.last", "Linear", *sizes, list(last.parameters()), role)


def _head(branch: str, head: nn.Sequential) -> Iterator[dict]:
    for i, block in enumerate(head):
        if isinstance(block, nn.Linear):
            sizes = block.in_features, block.out_features
            weights = list(block.parameters())
            yield _block(branch, f"head.{i}", "Linear", *sizes, weights, "output")
        else:
            assert isinstance(block, nn.Sequential)
            yield _dense(branch, f"head.{i}", block)


def _dense(branch: str, name: str, block: nn.Sequential) -> dict:
    linear = block[0]
    assert isinstance(linear, nn.Linear)
    what = ", ".join(type(layer).__name__ for layer in block)
    sizes = linear.in_features, linear.out_features
    return _block(branch, name, what, *sizes, list(block.parameters()), "dense")


def _block(
    branch: str, block: str, what: str, width_in: int, width_out: int, parameters: list, role: str
) -> dict:
    return {
        "branch": branch,
        "block": block if branch == "both" else f"{branch}.{block}",
        "what": what,
        "width_in": width_in,
        "width_out": width_out,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "pretrained": role == "backbone",
        "role": role,
    }


def _name_backbone(backbone: nn.Module) -> str:
    """Return the name of a backbone; of a folder, the last part of its path."""
    name = getattr(backbone, "name", "") or type(backbone).__name__
    return str(name).rstrip("/").rsplit("/", 1)[-1]


_WIDE, _HIGH, _GAP = 2.6, 0.62, 0.34  # size of a box, and the gap between boxes


def _draw(table: pd.DataFrame, recipe: Recipe) -> Figure:
    """Draw the branches side by side, from the input below to the output above."""
    branches = [name for name in ("image", "text") if name in set(table["branch"])]
    fused = table[table["branch"] == "both"]
    used = table[table["role"] != "last"]
    # stacked boxes: the input and its branch, then concatenation and fusion
    tallest = max(int((used["branch"] == name).sum()) for name in branches) + 1
    tallest += len(fused) + 1 if len(fused) else 0
    columns = len(branches) + bool(len(fused))
    with page_style("figure5"):
        size = 3.1 * columns, (_HIGH + _GAP) * tallest * 0.95 + 0.5
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        tops = {}
        for i, branch in enumerate(branches):
            rows = table[table["branch"] == branch]
            x = i * 3.1
            entry = {
                "image": f"image\n3 × {recipe.image.settings.size} × {recipe.image.settings.size}",
                "text": f"text\n“{recipe.text.extent}”, tokens",
            }[branch]
            places = [_draw_box(axes, x, 0, entry, INK, dashed=False)]
            for j, row in enumerate(rows.itertuples(), start=1):
                y = j * (_HIGH + _GAP)
                dashed = bool(row.role == "last")
                places.append(_draw_box(axes, x, y, _label(row), _COLOURS[branch], dashed))
            for start, end in pairwise(places):
                _draw_arrow(axes, start, end)
            tops[branch] = (x, int((used["branch"] == branch).sum()) * (_HIGH + _GAP))
        if len(fused):
            x = len(branches) * 3.1
            level = max(y for _, y in tops.values())
            below = level + _HIGH + _GAP
            width = int(fused["width_in"].iloc[0])
            places = [_draw_box(axes, x, below, f"concatenation\n{width}", INK, dashed=False)]
            for j, row in enumerate(fused.itertuples(), start=1):
                y = below + j * (_HIGH + _GAP)
                places.append(_draw_box(axes, x, y, _label(row), _COLOURS["both"], dashed=False))
            for start, end in pairwise(places):
                _draw_arrow(axes, start, end)
            for i, (branch, top) in enumerate(tops.items()):
                _draw_connection(
                    axes, top, (x + 0.6 * (i - 0.5), below), 0.1 * (0.5 - i), _COLOURS[branch]
                )
        axes.set(xlim=(-1.45, (columns - 1) * 3.1 + 1.45))
        axes.set_ylim(-0.5, (tallest - 1) * (_HIGH + _GAP) + 0.5)
        axes.set_axis_off()
    return figure


def _label(row) -> str:
    count = f"{row.parameters / 1e6:.2f} M" if row.parameters >= 1e5 else f"{row.parameters:,}"
    if row.role == "backbone":
        return f"{row.what} (pre-trained)\n→ {row.width_out}; {count} parameters"
    apart = "; not used when stacked" if row.role == "last" else ""
    return f"{row.what}\n{row.width_in} → {row.width_out}; {count}{apart}"


def _draw_box(
    axes: Axes, x: float, y: float, text: str, colour: str, dashed: bool
) -> tuple[float, float]:
    axes.add_patch(
        FancyBboxPatch(
            (x - _WIDE / 2, y - _HIGH / 2),
            _WIDE,
            _HIGH,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor="none",
            edgecolor=colour,
            linewidth=1.4,
            linestyle="--" if dashed else "-",
        )
    )
    axes.text(x, y, text, ha="center", va="center", fontsize=7, linespacing=1.3)
    return x, y


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.8}
    tail, head = (start[0], start[1] + _HIGH / 2), (end[0], end[1] - _HIGH / 2)
    axes.annotate("", head, tail, arrowprops=look)


def _draw_connection(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], lift: float, colour: str
) -> None:
    """Draw the connection from the last used box of a branch to the concatenation."""
    side = start[0] + _WIDE / 2
    lane = start[1] + (_HIGH + _GAP) / 2 + lift
    xs = [side, side + 0.15, side + 0.15, end[0]]
    axes.plot(xs, [start[1], start[1], lane, lane], color=colour, linewidth=1.2)
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.2, "shrinkA": 0}
    axes.annotate("", (end[0], end[1] - _HIGH / 2), (end[0], lane), arrowprops=look)
