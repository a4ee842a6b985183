"""Formation energy and bulk modulus from energies of CHGNet, without learning.

The energy of a crystal is that at the minimum of its equation of state, which is fitted to energies
at volumes around the given one; its shape and positions stay. The formation energy is relative to
CHGNet's own energies of the elements (``data/chgnet_references.json``, made by
``benchmarks/make_chgnet_references.py``). CHGNet has learned from energies of the Materials
Project, so scores on the Materials Project's crystals are not those of new ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ...density.crystals import list_symbols
from ...errors import RhosightError
from ...inputs.progress import Progress
from ...networks.feature_cache import FeatureCache
from ...networks.weights import packaged_hash
from ...storage import bundled_file
from ..equation_of_state import fit_equation_of_state
from ..gaussian_process.recipe import POTENTIAL_BLOCKS
from .chgnet import predict_energies, require_chgnet

ENERGY, MODULUS = POTENTIAL_BLOCKS

REFERENCES = "chgnet_references.json"

SEEN = (
    "Models that read CHGNet's energies may predict new materials less well, and their intervals "
    "may be too narrow: CHGNet was trained on energies of the Materials Project, and scored "
    "materials are likely among them"
)
"""What tables, cards and predictions say of a model that reads a potential."""

FACTORS = np.linspace(0.88, 1.12, 7)
"""Volumes of the energies, relative to the given one. CHGNet's energies are not smooth enough for
fewer per cent: on the training set of `mp-fcc`, moduli from ±6 % are off by 22 GPa, these by 19."""

WIDER = np.array([0.76, 0.8, 0.84, 1.16, 1.2, 1.24])
"""Further volumes if the lowest energy is at an end."""


def compute_potential(
    structures: Sequence[Structure], progress: Progress | None = None
) -> pd.DataFrame:
    """Return CHGNet's formation energies and bulk moduli of n crystals.

    Parameters
    ----------
    structures
        Ordered crystals.
    progress
        Called with ("CHGNet", done, n).

    Returns
    -------
    DataFrame (n, 2): ``formation_energy_per_atom``, eV/atom, NaN for elements without a reference;
    ``bulk_modulus_vrh``, GPa, NaN where the energies have no minimum near the volume.

    Raises
    ------
    RhosightError
        If CHGNet is not installed or cannot read a crystal.
    """
    references, rows = load_references(), []
    for structure, curve in zip(
        structures, compute_energy_curves(structures, progress), strict=True
    ):
        energy, modulus = find_minimum(structure, *curve)
        symbols = list_symbols(structure)
        elements = np.mean([references.get(symbol, np.nan) for symbol in symbols])
        rows.append((energy - elements, modulus))
    columns = ["formation_energy_per_atom", "bulk_modulus_vrh"]
    return pd.DataFrame(rows, columns=columns, dtype=float)


def compute_potential_blocks(structures: Sequence[Structure]) -> pd.DataFrame:
    """Return :func:`compute_potential` as two blocks, :data:`POTENTIAL_BLOCKS`.

    Where there is no modulus, it is 0 and its second column is 1.

    Raises
    ------
    RhosightError
        As :func:`compute_energy_curves`, and for an element without a reference.
    """
    references = load_references()
    for structure in structures:  # before the energies are computed
        if missing := sorted(set(list_symbols(structure)) - set(references)):
            raise RhosightError(
                f"{structure.composition.reduced_formula}: no energy of CHGNet for the element "
                f"{', '.join(missing)}; use a model that reads no potential, such as no-dft"
            )
    table = compute_potential(structures)
    modulus = table["bulk_modulus_vrh"]
    return pd.DataFrame(
        {
            f"{ENERGY}.formation_energy": table["formation_energy_per_atom"],
            f"{MODULUS}.bulk_modulus": modulus.fillna(0.0),
            f"{MODULUS}.has_none": modulus.isna().astype(float),
        }
    )


def compute_energy_curves(
    structures: Sequence[Structure], progress: Progress | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Compute CHGNet's energies of crystals at several volumes.

    Parameters
    ----------
    structures
        Ordered crystals.
    progress
        Called with ("CHGNet", done, n).

    Returns
    -------
    For each crystal its volumes relative to the given one, sorted, and energies, eV/atom. They are
    kept on disk.

    Raises
    ------
    RhosightError
        If CHGNet is not installed or cannot read a crystal.
    """
    require_chgnet("the equation of state of a general potential")
    store, weights = FeatureCache(), packaged_hash("chgnet")
    curves = []
    for number, structure in enumerate(structures, start=1):
        key = FeatureCache.key(
            ["energy curve", FACTORS.tolist(), WIDER.tolist(), weights],
            np.asarray(structure.lattice.matrix),
            np.asarray(structure.frac_coords),
            list_symbols(structure),
        )
        known = store.get(key)
        if known is None:
            known = list(_compute_curve(structure))
            store.put(key, known)
        curves.append((known[0], known[1]))
        if progress:
            progress("CHGNet", number, len(structures))
    store.tidy()
    return curves


def _compute_curve(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    energies = _compute_energies(structure, FACTORS)
    if 0 < int(np.argmin(energies)) < len(energies) - 1:
        return FACTORS, energies
    factors = np.concatenate([FACTORS, WIDER])
    energies = np.concatenate([energies, _compute_energies(structure, WIDER)])
    order = np.argsort(factors)
    return factors[order], energies[order]


def _compute_energies(structure: Structure, factors: np.ndarray) -> np.ndarray:
    cells = []
    for factor in factors:
        cell = structure.copy()
        cell.scale_lattice(float(factor * structure.volume))
        cells.append(cell)
    return np.array([float(result["e"]) for result in predict_energies(cells)])


def find_minimum(
    structure: Structure, factors: np.ndarray, energies: np.ndarray
) -> tuple[float, float]:
    """Return energy (eV/atom) and bulk modulus (GPa) at a curve's minimum.

    Where there is no minimum, the energy is the lowest and the modulus NaN.
    """
    lowest = int(np.argmin(energies))
    near = slice(max(lowest - 3, 0), lowest + 4)  # Birch-Murnaghan holds near the minimum
    atoms, volume = len(structure), structure.volume
    try:
        curve = fit_equation_of_state(
            factors[near] * volume,
            energies[near] * atoms,
            atoms,
            structure.composition.reduced_formula,
            "CHGNet",
        )
    except RhosightError:
        return float(energies[lowest]), float("nan")
    return curve.energy / atoms, curve.bulk_modulus


@cache
def load_references() -> Mapping[str, float]:
    """Return CHGNet's energies of the elements, eV/atom."""
    with bundled_file(REFERENCES) as path:
        elements = json.loads(path.read_text(encoding="utf-8"))["elements"]
    return {symbol: one["energy"] for symbol, one in elements.items()}
