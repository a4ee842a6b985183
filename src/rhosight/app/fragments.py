"""Render the fragments of the page.

The templates escape everything that comes from a file.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..dataset.schema import TARGET_NAMES
from ..errors import RhosightError
from ..version import __version__
from .pool import Update

NAMES = {t: names.full[0].upper() + names.full[1:] for t, names in TARGET_NAMES.items()}
NAMES |= {"shear_modulus_vrh": "Shear modulus, VRH", "band_gap": "Band gap"}
DIGITS = {"eV/atom": 3, "eV": 2, "GPa": 1}


def render_header() -> str:
    """Render the title of the page."""
    return _render("header", version=__version__)


def render_heading(text: str) -> str:
    """Render the heading of a section."""
    return _render("heading", text=text)


def render_label(text: str) -> str:
    """Render the label of a group of fields."""
    return _render("label", text=text)


def render_status(now: Update | str) -> str:
    """Render the state of a job; an empty text if nothing runs."""
    text = now
    if isinstance(now, Update):
        text = now.label or (_describe_place(now.place) if now.place else "")
    return _render("status", text=text)


def _describe_place(place: int) -> str:
    ahead = place - 1
    if not ahead:
        return "waiting: you are next"
    return f"waiting: {ahead} {'job' if ahead == 1 else 'jobs'} ahead of you"


def render_problem(error: RhosightError) -> str:
    """Render an error message."""
    return _render("problem", text=str(error))


def render_summary(result: dict[str, Any]) -> str:
    """Render the name, facts, properties and notes of a material."""
    return _render(
        "summary",
        result=result,
        properties=_list_properties(result),
        csv=_make_csv(result),
        percent=_format_percent,
    )


def render_several(results: list[dict[str, Any]], problems: list[RhosightError]) -> str:
    """Render the predictions for several files, and why others cannot be read."""
    if len(results) + len(problems) < 2:
        return ""
    rows = [(result, _list_properties(result)) for result in results]
    return _render(
        "several",
        results=results,
        rows=rows,
        columns=rows[0][1],
        problems=[str(problem) for problem in problems],
        csv=_make_csv(*results),
    )


def render_nearest(result: dict[str, Any]) -> str:
    """Render the nearest training materials with their values."""
    others = [n for n in result["nearest"] if n["material"] != result["material"]][:5]
    units = {target: p["unit"] for target, p in result["properties"].items()}
    return _render("nearest", nearest=others, units=units, names=NAMES, digits=DIGITS)


def render_plane(result: dict[str, Any]) -> str:
    """Render the indices and spacing of the plane of a slice."""
    return _render("plane", hkl=result["hkl"], spacing=result["spacing"])


def render_downloads(key: str, hkl: list[int], offset: float, window: float) -> str:
    """Render the links to a slice as CSV and PNG."""
    query = urlencode({"hkl": ",".join(map(str, hkl)), "offset": offset, "window": window})
    return _render("downloads", key=key, query=query)


def render_explanation(result: dict[str, Any]) -> str:
    """Render the contribution of each modality to each property."""
    targets = []
    for target, unit in result["units"].items():
        shares = {name: values[target] for name, values in result["modalities"].items()}
        longest = max(map(abs, shares.values())) or 1.0
        targets.append(
            {
                "name": NAMES.get(target, target),
                "unit": unit,
                "digits": DIGITS.get(unit, 3),
                "base": result["base"][target],
                "prediction": result["prediction"][target],
                "shares": [
                    {
                        "modality": name,
                        "about": result["players"][name],
                        "value": value,
                        "width": 50 * abs(value) / longest,
                    }
                    for name, value in shares.items()
                ],
            }
        )
    rows: list[tuple] = [("property", "unit", "term", "value")]
    for target, unit in result["units"].items():
        rows.append((target, unit, "mean", result["base"][target]))
        rows += [(target, unit, of, v[target]) for of, v in result["modalities"].items()]
        rows.append((target, unit, "prediction", result["prediction"][target]))
    return _render(
        "explanation",
        formula=result["formula"],
        targets=targets,
        players=result["players"],
        csv=_encode_csv(rows),
        json=_encode(json.dumps(result, indent=1, ensure_ascii=False)),
    )


def render_proposals(result: dict[str, Any]) -> str:
    """Render the proposals of a search, or its nearest misses."""
    wanted = [wish.partition("=")[0] for wish in result["wishes"]]
    cards = []
    for proposal in result["proposals"]:
        targets = sorted(proposal["properties"], key=lambda name: name not in wanted)
        quantities = [
            {
                **proposal["properties"][target],
                "name": NAMES.get(target, target),
                "unit": result["units"][target],
                "digits": DIGITS.get(result["units"][target], 3),
            }
            for target in targets
        ]
        cards.append({**proposal, "quantities": quantities, "cif": _encode(proposal["cif"])})
    return _render("proposals", result=result, cards=cards, csv=_encode(result["csv"]))


def _list_properties(result: dict[str, Any]) -> list[dict[str, Any]]:
    properties = []
    for target, p in result["properties"].items():
        low, high = min(p["least"], p["low"]), max(p["most"], p["high"])
        known = (result["known"] or {}).get(target)
        place = {
            name: 100 * (value - low) / (high - low)
            for name, value in (("low", p["low"]), ("value", p["value"]), ("high", p["high"]))
        }
        if known is not None:
            place["known"] = min(100, max(0, 100 * (known - low) / (high - low)))
        name, digits = NAMES.get(target, target), DIGITS.get(p["unit"], 3)
        properties.append({**p, "name": name, "digits": digits, "place": place, "known": known})
    return properties


def _make_csv(*results: dict[str, Any]) -> str:
    rows = [("material", "model", "property", "value", "low", "high", "unit", "outside")]
    for result in results:
        for target, p in result["properties"].items():
            numbers = (p[n] for n in ("value", "low", "high", "unit"))
            rows.append((result["name"], result["model"], target, *numbers, result["outside"]))
    return _encode_csv(rows)


def _encode_csv(rows: Iterable[tuple]) -> str:
    """Return a CSV for a data link, a download without a file on the server."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return _encode(text.getvalue())


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _format_percent(level: float) -> str:
    return f"{100 * level:g} %"


def _format_fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _format_signed(value: float, digits: int) -> str:
    return f"{'+' if value > 0 else ''}{_format_fixed(value, digits)}"


@cache
def _load_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rhosight.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = _format_fixed
    environment.filters["signed"] = _format_signed
    return environment


def _render(name: str, **values: Any) -> str:
    return _load_environment().get_template(f"{name}.html.j2").render(**values)
