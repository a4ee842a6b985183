"""Fragments of the page. Everything that comes from a file is escaped by the templates."""

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
from .pool import Update

NAMES = {t: names.full[0].upper() + names.full[1:] for t, names in TARGET_NAMES.items()}
DIGITS = {"eV/atom": 3, "eV": 2, "GPa": 1}


def header() -> str:
    return _render("header")


def heading(text: str) -> str:
    return _render("heading", text=text)


def status(now: Update | str) -> str:
    """What happens; empty if nothing does."""
    if isinstance(now, Update):
        if now.place:
            ahead = now.place - 1
            now = now.label or ("next in line" if not ahead else f"waiting: {ahead} before you")
        else:
            now = now.label
    return _render("status", text=now)


def problem(error: RhosightError) -> str:
    return _render("problem", text=str(error))


def summary(result: dict[str, Any]) -> str:
    """Name, facts, the three properties, and what to know of them."""
    return _render(
        "summary", result=result, properties=_properties(result), csv=_csv(result), percent=_percent
    )


def nearest(result: dict[str, Any]) -> str:
    """The nearest training materials with their values."""
    others = [n for n in result["nearest"] if n["material"] != result["material"]][:5]
    units = {target: p["unit"] for target, p in result["properties"].items()}
    return _render("nearest", nearest=others, units=units, names=NAMES, digits=DIGITS)


def plane(found: dict[str, Any]) -> str:
    return _render("plane", hkl=found["hkl"], spacing=found["spacing"])


def downloads(key: str, hkl: list[int], offset: float, window: float) -> str:
    query = urlencode({"hkl": ",".join(map(str, hkl)), "offset": offset, "window": window})
    return _render("downloads", key=key, query=query)


def explanation(found: dict[str, Any]) -> str:
    """What each modality adds to each property, from the mean to the prediction."""
    targets = []
    for target, unit in found["units"].items():
        shares = {name: values[target] for name, values in found["modalities"].items()}
        longest = max(map(abs, shares.values())) or 1.0
        targets.append(
            {
                "name": NAMES.get(target, target),
                "unit": unit,
                "digits": DIGITS.get(unit, 3),
                "base": found["base"][target],
                "prediction": found["prediction"][target],
                "shares": [
                    {
                        "modality": name,
                        "about": found["players"][name],
                        "value": value,
                        "width": 50 * abs(value) / longest,
                    }
                    for name, value in shares.items()
                ],
            }
        )
    rows: list[tuple] = [("property", "unit", "term", "value")]
    for target, unit in found["units"].items():
        rows.append((target, unit, "mean", found["base"][target]))
        rows += [(target, unit, of, v[target]) for of, v in found["modalities"].items()]
        rows.append((target, unit, "prediction", found["prediction"][target]))
    return _render(
        "explanation",
        targets=targets,
        players=found["players"],
        csv=_table(rows),
        json=_base64(json.dumps(found, indent=1, ensure_ascii=False)),
    )


def _properties(result: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
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
        found.append({**p, "name": name, "digits": digits, "place": place, "known": known})
    return found


def _csv(result: dict[str, Any]) -> str:
    rows = [("material", "model", "property", "value", "low", "high", "unit", "outside")]
    for target, p in result["properties"].items():
        numbers = (p[n] for n in ("value", "low", "high", "unit"))
        rows.append((result["name"], result["model"], target, *numbers, result["outside"]))
    return _table(rows)


def _table(rows: Iterable[tuple]) -> str:
    """CSV for a link: a download without a file on the server."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return _base64(text.getvalue())


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _percent(level: float) -> str:
    return f"{100 * level:g} %"


def _fixed(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def _signed(value: float, digits: int) -> str:
    return f"{'+' if value > 0 else ''}{_fixed(value, digits)}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rhosight.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fixed"] = _fixed
    environment.filters["signed"] = _signed
    return environment


def _render(name: str, **values: Any) -> str:
    return _environment().get_template(f"{name}.html.j2").render(**values)
