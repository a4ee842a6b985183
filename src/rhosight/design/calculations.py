"""Calculations of GPAW that are kept, one file for each.

A calculation is one self-consistent field of one cell. Its file is written whole or not at all, so
``kill -9`` costs the calculation in progress. One that another version of GPAW or other PAW data
sets have made is computed again, and so is one that had too little time or memory. The settings are
those of ``data build gpaw``, so the densities are like those of the bundled dataset.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure
from safetensors.numpy import load_file, save

from ..dataset.sources.gpaw import (
    Gpaw,
    OutOfResources,
    find_fingerprint,
    find_gpaw,
)
from ..density.charge_density import ChargeDensity
from ..density.crystals import SYMPREC, standardise
from ..ecd.symmetry import idealise
from ..errors import RhosightError
from ..storage import read_json, replacing

Report = Callable[[str, float], None]
"""Called after each calculation with its name and seconds."""


@dataclass(frozen=True)
class Energy:
    """The result of one calculation.

    Attributes
    ----------
    energy
        Total energy of the cell, eV, extrapolated to zero smearing.
    kpoints
        Numbers of k-points.
    figures
        All numbers that ``data build gpaw`` stores.
    seconds
        Time that it took.
    """

    energy: float
    kpoints: tuple[int, ...]
    figures: dict[str, Any]
    seconds: float


@dataclass
class Calculations:
    """GPAW's energies and densities in a folder.

    Attributes
    ----------
    folder
        Where the files are.
    gpaw
        The settings.
    report
        Called after each calculation.
    failures
        File → calculation that had too little time or memory: tried once in a process.
    """

    folder: Path
    gpaw: Gpaw = field(default_factory=Gpaw)
    report: Report | None = None
    failures: dict[Path, RhosightError] = field(default_factory=dict)

    def energy(
        self, name: str, structure: Structure, kpoints: Sequence[int] | None = None
    ) -> Energy:
        """Return the energy of a cell, computed unless its file is there.

        Parameters
        ----------
        name
            Of the file, such as ``TiAl/eos-0.960``.
        structure
            The cell.
        kpoints
            See :meth:`rhosight.dataset.sources.gpaw.Gpaw.calculate`.

        Raises
        ------
        RhosightError
            If GPAW fails, now or when the file was written.
        """
        return _make_energy(self._calculate(name, structure, kpoints, density=False))

    def density(self, name: str, structure: Structure) -> tuple[Energy, ChargeDensity]:
        """Return energy and density of a cell, computed unless its files are there.

        See :meth:`energy`.
        """
        stored = self._calculate(name, structure, None, density=True)
        grids = load_file(self._path(name).with_suffix(".safetensors"))
        density = ChargeDensity(structure, grids, _label(name), stored["provenance"])
        return _make_energy(stored), density

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _calculate(
        self, name: str, structure: Structure, kpoints: Sequence[int] | None, density: bool
    ) -> dict[str, Any]:
        """Return the content of a calculation's file, computed unless it is there."""
        path = self._path(name)
        digest = _digest(self.gpaw.calculation(), structure, kpoints)
        stored = self._read(path) if path.exists() else None
        if stored is None or stored["input"] != digest or not self._is_current(stored):
            path.parent.mkdir(parents=True, exist_ok=True)
            started = time.monotonic()
            content = {"input": digest, **self._run(name, structure, kpoints, density)}
            content["seconds"] = round(time.monotonic() - started, 2)
            with replacing(path) as draft:
                draft.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
            if self.report:
                self.report(name, content["seconds"])
            stored = self._read(path)
        if "problem" in stored:
            raise RhosightError(f"{stored['problem']}; to compute it again, remove {path}")
        return stored

    def _is_current(self, stored: dict[str, Any]) -> bool:
        """Return False if another GPAW or PAW data set made a stored calculation."""
        try:
            gpaw = find_gpaw(self.gpaw.python)
        except RhosightError:  # nothing could be computed again
            return True
        made_by = stored.get("provenance", {})
        found = {
            symbol: find_fingerprint(gpaw, symbol, self.gpaw.functional)
            for symbol in made_by.get("setups", ())
        }
        return made_by.get("version", gpaw.version) == gpaw.version and all(
            made_by["setups"][symbol].endswith(own) for symbol, own in found.items() if own
        )

    def _run(
        self, name: str, structure: Structure, kpoints: Sequence[int] | None, density: bool
    ) -> dict[str, Any]:
        """Run GPAW; return figures and provenance, or the problem.

        Raises
        ------
        RhosightError
            If GPAW is missing or had too little time or memory: no problem of this crystal.
        """
        version = find_gpaw(self.gpaw.python).version
        path = self._path(name)
        if path in self.failures:
            raise self.failures[path]
        try:
            entry = self.gpaw.calculate(structure, _label(name), kpoints)
        except OutOfResources as error:
            self.failures[path] = error
            raise
        except RhosightError as error:
            return {"problem": str(error), "provenance": {"version": version}}
        if density:  # before the file that says that all is there
            grids = entry.density.grids
            arrays = {str(k): np.ascontiguousarray(grid, np.float32) for k, grid in grids.items()}
            with replacing(path.with_suffix(".safetensors")) as draft:
                draft.write_bytes(save(arrays))
        return {"figures": dict(entry.labels), "provenance": dict(entry.density.provenance)}

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = read_json(path)
            if "problem" not in content:
                float(content["figures"]["dft_energy"])
            str(content["input"])
        except (ValueError, KeyError, TypeError) as error:
            raise RhosightError(
                f"{path}: not a calculation ({error}); remove this file to compute it again"
            ) from error
        return content


def make_cell(structure: Structure, where: str) -> Structure:
    """Return the primitive standardised cell of a crystal, made exactly symmetric.

    GPAW finds symmetry only if it is exact: rounded positions of a hexagonal crystal make a
    calculation four times as long.

    Raises
    ------
    RhosightError
        If spglib finds no symmetry; the message starts with ``where``.
    """
    return idealise(standardise(structure, SYMPREC, where)).structure


def _make_energy(stored: dict[str, Any]) -> Energy:
    """Return the energy in the content of a calculation's file."""
    figures = stored["figures"]
    counts = tuple(int(count) for count in figures["dft_kpoints"].split("x"))
    return Energy(figures["dft_energy"], counts, figures, stored["seconds"])


def _label(name: str) -> str:
    """Return the name of a calculation for messages and logs."""
    return name.replace("/", "-")


def _digest(settings: dict[str, Any], structure: Structure, kpoints: Sequence[int] | None) -> str:
    """Return what tells one calculation from another."""
    content = [
        settings,
        np.round(structure.lattice.matrix, 6).tolist(),
        np.round(structure.frac_coords, 6).tolist(),
        [site.specie.Z for site in structure],
        None if kpoints is None else list(kpoints),
    ]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
