"""Extents of the text that describes a crystal; this module imports nothing heavy."""

from __future__ import annotations

from typing import Literal, get_args

Extent = Literal["formula", "keywords", "all"]

EXTENTS: tuple[Extent, ...] = get_args(Extent)
"""Extents of a text, from short to long, in the paper's order."""
