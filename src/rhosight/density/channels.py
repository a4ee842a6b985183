"""Pairs of files with the densities of the two spins.

ABACUS writes SPIN1_CHG.cube and SPIN2_CHG.cube (or chgs1.cube and chgs2.cube), OpenMX den0 and
den1, SIESTA and CONQUEST UP and DN, Octopus density-sp1 and -sp2, VASPKIT SPIN_UP and SPIN_DW.
Their sum is ``total``, their difference ``spin``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import RhosightError
from .charge_density import ChargeDensity, check_same_crystal, collect_notes
from .neighbours import compare_with_free_atoms, sample_free_atoms

# What the names of the first and of the second spin contain
_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("up", ("down", "dn", "dw", "do")),
    ("spinup", ("spindown", "spindn", "spindw")),
    ("alpha", ("beta",)),
    ("majority", ("minority",)),
    ("den0", ("den1",)),
    ("sp1", ("sp2",)),
    ("spin1", ("spin2",)),
    ("spin_1", ("spin_2",)),
    ("spin-1", ("spin-2",)),
    ("chgs1", ("chgs2",)),
)
# Sum of two total densities, between the atoms, over free atoms; of two spins, 1.0 to 1.5
_TWICE = 1.8, 3.4
# What distinguishes the name of a total density from that of one spin
_TOTAL = re.compile(r"(?<![a-z])(total|tot|sum|spin|tden|dt)(?![a-z])|^cube_\d+|[._-]")
# Both spins together, as in "rho_up + rho_down" and "SUM OF ALPHA AND BETA DENSITY"
_BOTH = re.compile(
    r"\b(up|alpha|majority)\b\)?\s*(\+|&|and)\s*([a-z]+[ _(]{0,2})?(down|dn|dw|beta|minority)\b",
    re.IGNORECASE,
)
# Psi4's names, which are no more than this
_WHOLE_NAMES = (("da", ("db",)),)
# After a word: no letter or digit, but the number of a step (ABACUS's chgs1g2.cube)
_END = r"(?=(?:g\d+)?(?![a-z0-9]))"

_COMMENT = re.compile(
    r"\bspin[ _-]*([12]|(channel|component|index)[ _:=]*[12])\b|"
    r"\bspin([ _-]*(channel|component))?[ _:=(-]*(up|down|dn|dw|alpha|beta)\b|"
    r"\b(up|down|alpha|beta|majority|minority)[ _-]*(spin|scf density|density|electrons?)\b|"
    r"\b(first|second|1st|2nd) spin\b|\b(rho|density|n) ?[(_-] ?(up|down|dn|dw)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Channel:
    """The density of one spin, by the name of its file.

    Attributes
    ----------
    is_first
        Whether it is that of the first spin (up).
    partners
        Possible names of the file of the other spin.
    """

    is_first: bool
    partners: tuple[str, ...]


def find_channel(name: str) -> Channel | None:
    """Return which spin the name of a file stands for, if it says so."""
    stem, dot, suffix = name.partition(".")
    for first, seconds in _WORDS:
        for word, others in ((first, seconds), *((second, (first,)) for second in seconds)):
            match = re.search(rf"(?<![a-z0-9]){word}{_END}", name, re.IGNORECASE)
            if match is None:
                continue
            partners = tuple(
                name[: match.start()] + _like(match[0], other) + name[match.end() :]
                for other in others
            )
            return Channel(word == first, partners)
    for first, seconds in _WHOLE_NAMES:
        if stem.lower() in (first, *seconds) and dot:
            is_first = stem.lower() == first
            other = seconds[0] if is_first else first
            return Channel(is_first, (f"{stem[0]}{other[1:]}{dot}{suffix}",))
    return None


def find_partner(name: str, names: Collection[str]) -> str | None:
    """Return which of these files is the other spin of one of them, if any."""
    channel = find_channel(name)
    if channel is None:
        return None
    return next((partner for partner in channel.partners if partner in names), None)


def find_total(name: str, names: Collection[str]) -> str | None:
    """Return the file of the total density beside that of one spin, if any."""
    channel = find_channel(name)
    if channel is None:
        return None
    others = {name, *channel.partners}
    words = {word for first, seconds in _WORDS + _WHOLE_NAMES for word in (first, *seconds)}
    spin = rf"(?<![a-z0-9])({'|'.join(sorted(words, key=len, reverse=True))}){_END}"
    rest = _TOTAL.sub("", re.sub(spin, "", name.lower()))
    return next((n for n in names if n not in others and _TOTAL.sub("", n.lower()) == rest), None)


def states_one_spin(comment: str) -> bool:
    """Return whether a comment says that a file holds the density of one spin.

    SIESTA labels the only grid of a file ``RHO:spin_1`` if there is no second spin.
    """
    if any(find_channel(word) for word in comment.split() if word.lower().endswith(".cube")):
        return True
    if _BOTH.search(comment.replace("_", " ")):
        return False
    return _COMMENT.search(comment.replace(":spin_1", "")) is not None


def join_channels(first: ChargeDensity, second: ChargeDensity) -> ChargeDensity:
    """Return ``total`` and ``spin`` of the densities of spin up and spin down.

    Raises
    ------
    RhosightError
        If the two differ in cell, atoms or grid, or each of them is a whole density.
    """
    if first.shape != second.shape:
        raise RhosightError(
            f"{second.name}: its grid {second.shape} differs from that of the other spin, "
            f"{first.name}, {first.shape}; give two files of one calculation"
        )
    check_same_crystal(first, second)
    up, down = (np.asarray(one.grid("total"), dtype=float) for one in (first, second))
    sources = " + ".join(str(one.provenance.get("source", one.name)) for one in (first, second))
    provenance = {**first.provenance, "source": sources, **collect_notes(first, second)}
    grids = {"total": up + down, "spin": up - down}
    between = compare_with_free_atoms(sample_free_atoms(first.structure, up + down))
    if between is not None and _TWICE[0] < between[1] < _TWICE[1]:
        raise RhosightError(
            f"{first.name}: one spin by its name, and {second.name} the other, but their sum is "
            f"{between[1]:.1f} times the density of free atoms between the atoms; if each is a "
            "total density, say kind='total' (--kind total)"
        )
    return ChargeDensity(first.structure, grids, first.name, provenance)


def make_missing_error(path: Path, channel: Channel | None) -> RhosightError:
    """Return the error about a file of one spin without that of the other."""
    missing = "in a file of its own"
    if channel:
        missing = f"{' or '.join(channel.partners)}, which is missing"
    return RhosightError(
        f"{path}: contains the density of one spin only; the other one is {missing}; put both into "
        "one folder, or write the total density; if it is the total after all, say kind='total' "
        "(--kind total)"
    )


def _like(example: str, word: str) -> str:
    """Return a word in the case of an example."""
    if example.isupper():
        return word.upper()
    return word.title() if example.istitle() else word
