"""Parts of documentation pages that benchmarks write, between two marks each."""

from __future__ import annotations

import re
from pathlib import Path


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- {name}: begin -->\n.*?<!-- {name}: end -->\n", re.DOTALL)


def find_part(text: str, name: str) -> str:
    """Return a part with its marks; empty if a page does not have it."""
    found = _pattern(name).search(text)
    return found.group() if found else ""


def write_part(page: Path, name: str, content: str) -> None:
    """Replace a part of a page, or append it."""
    text = page.read_text(encoding="utf-8")
    part = f"<!-- {name}: begin -->\n{content.strip()}\n<!-- {name}: end -->\n"
    old = find_part(text, name)
    new = text.replace(old, part) if old else f"{text.rstrip()}\n\n{part}"
    page.write_text(new, encoding="utf-8")
