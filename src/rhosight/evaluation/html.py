"""What the HTML reports share: one self-contained file, its figures inline, its numbers in words.

Templates extend ``page.html.j2``. A page makes no requests; its figures take their
colours from it, so that they suit day and night.
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

# matplotlib's colours (Okabe and Ito's) → the page's, which differ by day and night
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
    """Render a template to one HTML file, written atomically.

    Parameters
    ----------
    path
        File to write.
    template, package
        Name of the template, and the package whose folder ``templates`` holds it.
    **values
        Variables of the template.

    Raises
    ------
    RhosightError
        If the file cannot be written.
    """
    path = Path(path)
    strict = {"autoescape": True, "undefined": StrictUndefined}
    tidy = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("rhosight.evaluation")]),
        **strict,
        **tidy,
    )
    environment.filters |= {
        "number": format_number,
        "formula": format_formula,
        "links": link_references,
    }
    environment.filters |= {
        "words": describe_target,
        "setting": format_setting,
        "significant": format_significant,
        "percent": format_percent,
    }
    html = environment.get_template(template).render(version=__version__, **values)
    try:
        with replacing(path) as draft:
            draft.write_text(html, encoding="utf-8")
    except OSError as error:
        reason = "is a folder" if path.is_dir() else f"no writable folder {path.parent}"
        raise RhosightError(f"{path}: cannot be written ({reason}); choose another") from error
    return path


@contextmanager
def page_style(name: str = "") -> Iterator[None]:
    """Within it, figures are drawn as :func:`inline_svg` wants them; ``name`` fixes SVG's ids."""
    import matplotlib

    style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": ["DejaVu Sans"]}
    style |= {"font.size": 8, "axes.titlesize": 9, "legend.fontsize": 8, "legend.frameon": False}
    style |= {"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6}
    style |= {"axes.edgecolor": SOFT, "text.color": INK, "axes.labelcolor": INK}
    style |= {"xtick.color": SOFT, "ytick.color": SOFT, "text.parse_math": False}
    style |= {"xtick.labelcolor": INK, "ytick.labelcolor": INK}
    with matplotlib.rc_context(style):
        yield


def inline_svg(figure: Figure, label: str) -> Markup:
    """A figure as an inline SVG that takes its colours and its font from the page.

    ``label`` is what a screen reader says, and no two figures of a page may have the same.
    """
    buffer = io.StringIO()
    unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with page_style(label):
        figure.savefig(buffer, format="svg", transparent=True, dpi=150, metadata=unsaid)
    text = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL)
    name = re.sub(r"\W+", "-", label)  # ids of several figures must not meet in one page
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, value in COLOURS.items():
        text = text.replace(colour, value)
    box, rest = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)', text, re.DOTALL).groups()
    return Markup(f'<svg {box} role="img" aria-label="{escape(label)}">{rest}')


def describe_target(target: str) -> str:
    """A target in words, such as "bulk modulus"."""
    return KNOWN[target].description.split(",")[0] if target in KNOWN else target


def format_number(value: float, digits: int, spread: float = np.nan) -> str:
    """Fixed decimals, a true minus sign, no minus zero, "–" for NaN, ± spread if there is one."""
    if np.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
    return text if np.isnan(spread) else f"{text}{NBSP}±{NBSP}{spread:.{digits}f}"


def format_formula(text: str) -> Markup:
    return Markup(re.sub(r"\d+(\.\d+)?", r"<sub>\g<0></sub>", str(escape(text))))


def link_references(text: str) -> Markup:
    """Plain text with its DOIs and arXiv numbers as links."""
    html = str(escape(text))
    for pattern, site in ((DOI, "https://doi.org/"), (ARXIV, "https://arxiv.org/abs/")):
        html = re.sub(pattern, rf'<a href="{site}\1">\g<0></a>', html)
    return Markup(html)


def format_significant(value: float, digits: int = 3, spread: float = np.nan) -> str:
    """A size, such as an error, to so many digits, and to as many decimals at most."""
    if not np.isfinite(value):
        return "–"
    decimals = digits - 1 - int(np.floor(np.log10(abs(value)))) if value else digits
    return format_number(value, int(np.clip(decimals, 0, digits)), spread)


def format_percent(share: float) -> str:
    """A change in whole %, with its sign; a true minus, no minus zero."""
    text = f"{100 * share:+.0f}"
    return f"{'0' if float(text) == 0 else text.replace('-', '−')}{NBSP}%"


def format_setting(value: Any) -> str:
    """A setting as one would write it: two numbers are those of the two stages."""
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
    """Such as "difference, window 8 Å, densest plane, offset 0 d"."""
    unit = "Å" if channel["unit"] == "angstrom" else "lattice scales"
    plane = f"plane ({' '.join(map(str, channel['hkl']))})" if channel["hkl"] else "densest plane"
    window, offset = f"window {channel['window']:g} {unit}", f"offset {channel['offset']:g}{NBSP}d"
    return f"{channel['kind']}, {window}, {plane}, {offset}"
