"""Render HTML reports: self-contained pages, inline figures, formatted numbers.

Templates extend ``page.html.j2``. A page makes no requests. Figures take their colours from the
page, so they suit its light and its dark style.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..dataset.schema import KNOWN
from ..errors import RhosightError
from ..storage import replacing
from ..version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOI, ARXIV = r"doi:([\w./()-]*\w)", r"arXiv:([\d.]*\d)"
NBSP = "\N{NO-BREAK SPACE}"

# colours in matplotlib (Okabe and Ito's palette) → CSS colours, which differ by style
COLOURS = {
    "#1b1f24": "currentColor",
    "#767676": "var(--soft)",
    "#0072b2": "var(--first)",
    "#d55e00": "var(--second)",
}
INK, SOFT, FIRST, SECOND = COLOURS


def write_page(
    path: str | os.PathLike, template: str, package: str = "rhosight.evaluation", **values: Any
) -> Path:
    """Render a template to one HTML file and write it atomically.

    Parameters
    ----------
    path
        File to write.
    template, package
        Name of the template and the package whose folder ``templates`` contains it.
    **values
        Variables of the template.

    Raises
    ------
    RhosightError
        If the file cannot be written.
    """
    path = Path(path)
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("rhosight.evaluation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    html = environment.get_template(template).render(version=__version__, **values)
    try:
        with replacing(path) as draft:
            draft.write_text(html, encoding="utf-8")
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else f"{path.parent} is not a writable folder"
        raise RhosightError(f"{path}: cannot be written: {reason}; choose another path") from error
    return path


@contextmanager
def page_style(name: str = "") -> Iterator[None]:
    """Set the style of figures for :func:`inline_svg`; ``name`` fixes the SVG ids."""
    import matplotlib

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": ["DejaVu Sans"],
    }
    style |= {"font.size": 8, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    style |= {"axes.edgecolor": SOFT, "text.color": INK, "axes.labelcolor": INK}
    style |= {"xtick.color": SOFT, "ytick.color": SOFT, "text.parse_math": False}
    style |= {"xtick.labelcolor": INK, "ytick.labelcolor": INK}
    with matplotlib.rc_context(style):
        yield


def inline_svg(figure: Figure, label: str) -> Markup:
    """Return a figure as inline SVG that takes its colours and font from the page.

    Screen readers read the ``label``. It must be unique on the page.
    """
    buffer = io.StringIO()
    omitted = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with page_style(label):
        figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata=omitted)
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    name = re.sub(r"\W+", "-", label)  # makes ids unique on the page
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, value in COLOURS.items():
        text = text.replace(colour, value)
    drawing = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', text, re.DOTALL)
    assert drawing, "matplotlib writes one svg element with a viewBox"
    box, rest = drawing.groups()
    return Markup(f'<svg {box} role="img" aria-label="{escape(label)}">{rest}')


def describe_target(target: str) -> str:
    """Return a target's name in words, such as "bulk modulus"."""
    return KNOWN[target].description.split(",")[0] if target in KNOWN else target


def format_number(value: float, digits: int, spread: float = np.nan) -> str:
    """Return a number with fixed decimals and, if given, "± spread".

    NaN is written "–", negative numbers with a true minus sign, and minus zero as zero.
    """
    if np.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
    return text if np.isnan(spread) else f"{text}{NBSP}±{NBSP}{spread:.{digits}f}"


def format_formula(text: str) -> Markup:
    """Return a chemical formula with its numbers as subscripts."""
    return Markup(re.sub(r"\d+(\.\d+)?", r"<sub>\g<0></sub>", str(escape(text))))


def link_references(text: str) -> Markup:
    """Return plain text as HTML in which DOIs and arXiv numbers are links."""
    html = str(escape(text))
    for pattern, site in ((DOI, "https://doi.org/"), (ARXIV, "https://arxiv.org/abs/")):
        html = re.sub(pattern, rf'<a href="{site}\1">\g<0></a>', html)
    return Markup(html)


def format_significant(value: float, digits: int = 3, spread: float = np.nan) -> str:
    """Return a magnitude, such as an error, with ``digits`` significant digits.

    ``digits`` is also the largest number of decimals.
    """
    if not np.isfinite(value):
        return "–"
    decimals = digits - 1 - int(np.floor(np.log10(abs(value)))) if value else digits
    return format_number(value, int(np.clip(decimals, 0, digits)), spread)


def format_percent(share: float) -> str:
    """Return a relative change in whole percent with its sign."""
    text = f"{100 * share:+.0f}"
    return f"{'0' if float(text) == 0 else text.replace('-', '−')}{NBSP}%"


def format_setting(value: Any) -> str:
    """Return a setting as text; a pair of numbers belongs to the two training stages."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, dict) and "window" in value:
        return describe_channel(value)
    if isinstance(value, dict):
        return "; ".join(
            f"{key.replace('_', ' ')}: {format_setting(v)}" for key, v in value.items()
        )
    if not isinstance(value, list | tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    parts = [format_setting(part) for part in value]
    if len(value) == 2 and all(isinstance(part, int | float) for part in value):
        return f"{parts[0]} (head), {parts[1]} (fine-tuning)"
    return "; ".join(parts)


def describe_channel(channel: dict[str, Any]) -> str:
    """Return, for example, "difference, window 8 Å, densest plane, offset 0 d"."""
    unit = "Å" if channel["unit"] == "angstrom" else "lattice scales"
    plane = f"plane ({' '.join(map(str, channel['hkl']))})" if channel["hkl"] else "densest plane"
    window, offset = f"window {channel['window']:g} {unit}", f"offset {channel['offset']:g}{NBSP}d"
    return f"{channel['kind']}, {window}, {plane}, {offset}"


FILTERS = {
    "formula": format_formula,
    "links": link_references,
    "number": format_number,
    "percent": format_percent,
    "setting": format_setting,
    "significant": format_significant,
    "words": describe_target,
}
"""Filters of the templates."""
