"""Damaged copies of good files, of each format: for a test, and in full for the benchmark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase.io.cube import write_cube
from ase.io.xsf import write_xsf
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.outputs import Chgcar

from rhosight.dataset.dataset import Dataset
from rhosight.density.charge_density import ChargeDensity
from rhosight.density.electrons import BOHR

TEXTS = ("CHGCAR", "a.cube", "a.xsf", "a.cif", "symmetric.cif", "POSCAR", "a.json")
BINARY = ("a.h5", "a.parquet")
STRUCTURES = ("a.cif", "symmetric.cif", "POSCAR", "a.json")

_WORDS = re.compile(rb"[^\s]+")
_ODD = (b"nan", b"-1", b"0", b"1e300", b"99999999999", b"inf", b"x", b"1.2.3", b"\xff\xfe", b"'")
_HEAD = 1500  # bytes; half of the changes of a text fall into its head


def write_originals(dataset: Dataset, material_id: str, folder: Path) -> dict[str, Path]:
    """Write a bundled material in each format; return name → file."""
    material = dataset[material_id]
    total = np.asarray(material.density.grid("total"), dtype=float)
    density = ChargeDensity(material.structure, {"total": total}, "original")
    structure, volume = material.structure, material.structure.volume
    atoms = AseAtomsAdaptor.get_atoms(structure)
    density.to_chgcar(folder / "CHGCAR")
    with (folder / "a.cube").open("w") as file:
        write_cube(file, atoms, total * BOHR**3)
    with (folder / "a.xsf").open("w") as file:
        write_xsf(file, [atoms], total * BOHR**3)
    Chgcar(structure.copy(), {"total": total * volume}).to_hdf5(str(folder / "a.h5"))
    (folder / "a.cif").write_text(str(CifWriter(structure)))
    (folder / "symmetric.cif").write_text(str(CifWriter(structure, symprec=0.01)))
    structure.to(filename=str(folder / "POSCAR"))
    structure.to(filename=str(folder / "a.json"))
    dataset[[material_id]].to_parquet(folder / "a.parquet")
    return {name: folder / name for name in (*TEXTS, *BINARY)}


def mutate(content: bytes, is_text: bool, rng: np.random.Generator) -> bytes:
    """Return a damaged copy: bits, truncations, and in texts tokens, lines and counts."""
    kinds: list[Callable[[bytes, np.random.Generator], bytes]] = [flip_bits, truncate]
    if is_text:
        kinds += [replace_token, swap_tokens, change_count, change_digit, drop_line, repeat_line]
    else:
        kinds += [flip_bits, erase]
    return kinds[rng.integers(len(kinds))](content, rng)


def _place(content: bytes, rng: np.random.Generator) -> int:
    end = min(_HEAD, len(content)) if rng.random() < 0.5 else len(content)
    return int(rng.integers(end))


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        changed[_place(content, rng)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def erase(content: bytes, rng: np.random.Generator) -> bytes:
    at = _place(content, rng)
    return content[:at] + bytes(16) + content[at + 16 :]


def _token(content: bytes, rng: np.random.Generator) -> re.Match[bytes]:
    start = _place(content, rng)
    found = _WORDS.search(content, start) or _WORDS.search(content)
    assert found is not None, "the file has words"
    return found


def replace_token(content: bytes, rng: np.random.Generator) -> bytes:
    token = _token(content, rng)
    return content[: token.start()] + _ODD[rng.integers(len(_ODD))] + content[token.end() :]


def swap_tokens(content: bytes, rng: np.random.Generator) -> bytes:
    one, two = sorted((_token(content, rng).span(), _token(content, rng).span()))
    if one[1] > two[0]:
        return content
    parts = content[: one[0]], content[slice(*two)], content[one[1] : two[0]]
    return b"".join([*parts, content[slice(*one)], content[two[1] :]])


def change_count(content: bytes, rng: np.random.Generator) -> bytes:
    counts = list(re.finditer(rb"(?<![\d.\w-])\d+(?![\d.\w])", content[:_HEAD]))
    if not counts:
        return content
    count = counts[rng.integers(len(counts))]
    value = int(count[0])
    new = (value + 1, value - 1, value * 10, -value, value * 10**9)[rng.integers(5)]
    return content[: count.start()] + str(new).encode() + content[count.end() :]


def change_digit(content: bytes, rng: np.random.Generator) -> bytes:
    digits = [m.start() for m in re.finditer(rb"\d", content[: 2 * _HEAD])]
    at = digits[rng.integers(len(digits))]
    return content[:at] + str(rng.integers(10)).encode() + content[at + 1 :]


def drop_line(content: bytes, rng: np.random.Generator) -> bytes:
    start = content.rfind(b"\n", 0, _place(content, rng)) + 1
    end = content.find(b"\n", start)
    return content[:start] + (content[end + 1 :] if end >= 0 else b"")


def repeat_line(content: bytes, rng: np.random.Generator) -> bytes:
    start = content.rfind(b"\n", 0, _place(content, rng)) + 1
    end = content.find(b"\n", start) + 1 or len(content)
    return content[:end] + content[start:end] + content[end:]


def mutations(
    originals: dict[str, Path], count: int, seed: int
) -> Iterator[tuple[str, int, bytes]]:
    """Yield name of the original, number and content of damaged copies, formats in turn."""
    contents = {name: path.read_bytes() for name, path in originals.items()}
    names = list(contents)
    for number in range(count):
        name = names[number % len(names)]
        rng = np.random.default_rng([seed, number])
        yield name, number, mutate(contents[name], name in TEXTS, rng)


def describe(crystal: ChargeDensity | Structure) -> tuple[str, float, float | None]:
    """Return formula, volume per atom (Å³) and electrons per atom."""
    is_density = isinstance(crystal, ChargeDensity)
    structure = crystal.structure if is_density else crystal
    electrons = crystal.integral("total") / len(structure) if is_density else None
    return structure.composition.reduced_formula, structure.volume / len(structure), electrons


def is_changed(crystal: ChargeDensity | Structure, original: ChargeDensity | Structure) -> bool:
    """Return whether elements, or cell or electrons by more than 1 %, differ."""
    (formula, volume, electrons), (its, true_volume, true_electrons) = map(
        describe, (crystal, original)
    )
    if formula != its or abs(volume / true_volume - 1) > 0.01:
        return True
    return electrons is not None and abs(electrons / (true_electrons or 1) - 1) > 0.01
