"""Calculate charge densities from CIF files with GPAW.

GPAW (doi:10.1088/0953-8984/22/25/253202) runs in a subprocess, in any Python that has it, so that
its version and compiled parts need not fit this environment. Grids come back as .npz without
pickle, other results as JSON. The defaults are those of the bundled dataset;
``benchmarks/gpaw_reproduction.py`` recalculates it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ...density.charge_density import STORED_KINDS, ChargeDensity
from ...density.crystals import SYMPREC, find_symmetry, group_mixed_axes, standardise
from ...density.structures import read_structure
from ...errors import RhosightError
from .source import Entry, Source

INSTALL = "install it with `apt install gpaw gpaw-data`, or `pip install gpaw` and then "
INSTALL += "`gpaw install-data DIR`"

MAGNETIC = ("V", "Cr", "Mn", "Fe", "Co", "Ni")

KINDS = {
    "total": "PAW pseudo-density: smooth valence plus smooth core; its integral is not the number "
    "of electrons",
    "difference": "total minus superposed pseudo-densities of free atoms, the SCF's starting "
    "guess; its integral is not exactly zero",
    "spin": "up minus down pseudo-density; its integral is below the magnetic moment",
}

# In a worker that MPI or SLURM started, their variables would make GPAW join the worker's MPI.
_NOT_INHERITED = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "SLURM_")


class OutOfResources(RhosightError):
    """A calculation had too little time or memory; another attempt may succeed."""


@dataclass(frozen=True)
class GpawInstallation:
    """Locate a Python that has GPAW, with GPAW's version and folders of PAW data sets."""

    python: str
    version: str
    setups: tuple[str, ...]


@dataclass(eq=False)
class Gpaw(Source):
    """Calculate the density of each CIF file with GPAW in plane waves.

    The k-points are Γ-centred. The calculation uses spglib's primitive standardised cell, without
    relaxation; the grids are those of this cell. The SCF is spin-polarised, with a ferromagnetic
    start, if the crystal contains one of ``magnetic_elements``. No Hubbard U.

    Parameters
    ----------
    cifs
        A folder of ``*.cif``, or CIF files; the ids are the files' stems. None where only
        :meth:`calculate` is wanted.
    labels
        Further columns, indexed by material id; NaN is left out. Results of the calculation take
        precedence over columns of the same name. A row without a CIF file is a problem.
    units
        Column → unit, for columns that the schema does not know.
    python
        The Python that has GPAW. By default the first of: this one, the one that the ``gpaw``
        command on the path uses, ``/usr/bin/python3``. A Python other than this one does not
        inherit PYTHONPATH and PYTHONHOME.
    cutoff, kpoint_density, smearing
        Plane-wave cut-off, eV; k-points per Å⁻¹; width of the Fermi-Dirac distribution, eV.
    functional
        GPAW's name of the functional.
    magnetic_elements, magnetic_moment
        Elements that start with a magnetic moment, and its size, μB.
    convergence
        GPAW's ``convergence``; empty for its defaults.
    max_iterations
        Number of SCF iterations after which it counts as not converged.
    timeout
        Seconds per material.
    symprec
        Tolerance of the standardised cell, Å.
    logs
        Folder for the logs of failed calculations; by default the system's temporary folder.

    Raises
    ------
    RhosightError
        From :meth:`ids` if GPAW or the CIF files are missing. From :meth:`read` for a CIF file
        without an ordered structure, an element without PAW data set, an SCF that does not converge
        or takes too long, and any other error of GPAW, with the end of its log.
    """

    name: ClassVar[str] = "gpaw"
    batch: ClassVar[int] = 1

    cifs: str | os.PathLike | Sequence[str | os.PathLike] | None = None
    labels: pd.DataFrame | None = None
    python: str | None = None
    cutoff: float = 400.0
    kpoint_density: float = 3.0
    smearing: float = 0.1
    functional: str = "PBE"
    magnetic_elements: tuple[str, ...] = MAGNETIC
    magnetic_moment: float = 2.0
    convergence: dict[str, float] = field(default_factory=dict)
    max_iterations: int = 333
    timeout: float = 7200.0
    symprec: float = SYMPREC
    logs: str | os.PathLike | None = None
    units: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("cutoff", "kpoint_density", "smearing", "max_iterations", "timeout"):
            if not getattr(self, name) > 0:
                raise RhosightError(f"gpaw: {name} is {getattr(self, name)}; it must be positive")
        if self.labels is not None and not self.labels.index.is_unique:
            duplicate = self.labels.index[self.labels.index.duplicated()][0]
            raise RhosightError(f"gpaw: {duplicate} is duplicated in the labels; keep one row")
        self._paths = {} if self.cifs is None else _find_cifs(self.cifs)
        if self.logs is not None:
            self.logs = Path(self.logs).resolve()

    def ids(self) -> list[str]:
        """List the stems of the CIF files."""
        find_gpaw(self.python)
        return sorted(self._paths)

    def settings(self) -> dict[str, Any]:
        """Return all settings of the calculation, and GPAW's version."""
        return {
            "source": self.name,
            "gpaw": find_gpaw(self.python).version,
            "symprec": self.symprec,
            **self.calculation(),
        }

    def problems(self) -> dict[str, str]:
        """Return the rows of the labels that have no CIF file."""
        rows = () if self.labels is None else self.labels.index
        absent = (row for row in rows if row not in self._paths)
        return {row: f"{row}: in the labels, but no CIF file has this name" for row in absent}

    def about(self) -> dict[str, Any]:
        """Return units, description and attribution."""
        version = find_gpaw(self.python).version
        return {
            "units": self.units,
            "description": f"Charge densities computed with GPAW {version}",
            "attribution": f"Charge densities: GPAW {version} (doi:10.1088/0953-8984/22/25/253202)",
        }

    def read(self, material_id: str) -> Entry:
        """Calculate the density of one material."""
        if material_id not in self._paths:
            raise RhosightError(f"{material_id}: none of the given CIF files has this name")
        path = self._paths[material_id]
        structure = standardise(read_structure(path), self.symprec, str(path))
        return self.calculate(structure, material_id)

    def calculate(
        self, structure: Structure, name: str, kpoints: Sequence[int] | None = None
    ) -> Entry:
        """Calculate the density of a crystal in the cell that is given.

        Parameters
        ----------
        structure
            Ordered crystal; ``standardise`` returns the cell that :meth:`read` uses.
        name
            For the density and for messages.
        kpoints
            Numbers of k-points along the axes, for energies of several volumes that are to be
            compared; by default those of ``kpoint_density``.
        """
        gpaw = find_gpaw(self.python)
        figures, grids = self._run(gpaw, structure, name, kpoints)
        provenance = self._provenance(gpaw, figures.pop("setups"))
        density = ChargeDensity(structure, grids, name=name, provenance=provenance)
        return Entry(density, labels=figures)

    def state(self, material_id: str) -> str:
        """Return the SHA-256 of the CIF file."""
        try:
            return hashlib.sha256(self._paths[material_id].read_bytes()).hexdigest()
        except OSError:
            return "absent"  # reading it reports why

    def table_row(self, material_id: str) -> dict[str, Any]:
        """Return its labels; None if missing."""
        if self.labels is None:
            return {}
        if material_id not in self.labels.index:
            return dict.fromkeys(map(str, self.labels))
        row = self.labels.loc[material_id]
        return {str(name): None if pd.isna(value) else value for name, value in row.items()}

    def calculation(self) -> dict[str, Any]:
        """Return the settings that the script receives and that affect its result."""
        return {
            "cutoff": self.cutoff,
            "kpoint_density": self.kpoint_density,
            "smearing": self.smearing,
            "functional": self.functional,
            "magnetic_elements": list(self.magnetic_elements),
            "magnetic_moment": self.magnetic_moment,
            "convergence": dict(self.convergence),
            "max_iterations": self.max_iterations,
        }

    def _provenance(self, gpaw: GpawInstallation, setups: dict[str, str]) -> dict[str, Any]:
        magnetic = ", ".join(self.magnetic_elements)
        return {
            "code": "GPAW",
            "version": gpaw.version,
            "setups": setups,
            "functional": f"{self.functional}, no Hubbard U",
            "basis": f"plane waves, {self.cutoff:g} eV cut-off",
            "kpoints": f"Γ-centred, density {self.kpoint_density:g} Å⁻¹, "
            "equal along axes that symmetry mixes",
            "smearing": f"Fermi-Dirac, {self.smearing:g} eV",
            "spin": f"ferromagnetic start, {self.magnetic_moment:g} μB on an atom of {magnetic}",
            "geometry": "of the CIF file, primitive standardised cell (spglib, symprec "
            f"{self.symprec:g} Å), not relaxed",
            "kinds": KINDS,
        }

    def _run(
        self,
        gpaw: GpawInstallation,
        structure: Structure,
        material_id: str,
        kpoints: Sequence[int] | None,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Run one calculation in a folder of its own; return its results and grids."""
        task = {
            "numbers": [site.specie.Z for site in structure],
            "cell": structure.lattice.matrix.tolist(),
            "positions": structure.frac_coords.tolist(),
            "coupled_axes": group_coupled_axes(structure),
            "settings": self.calculation(),
        }
        if kpoints is not None:
            task["kpoints"] = [int(count) for count in kpoints]
        with tempfile.TemporaryDirectory(prefix="rhosight-gpaw-") as name:
            folder = Path(name)
            (folder / "input.json").write_text(json.dumps(task), encoding="utf-8")
            code = _run_script(gpaw.python, folder, self.timeout)
            error: type[RhosightError] = OutOfResources
            if code is None:
                problem = f"took longer than {self.timeout:g} s; allow more (timeout)"
            elif not (folder / "result.json").exists():
                killed = " (killed, most likely for its memory use)" * (code == -signal.SIGKILL)
                problem = f"ended with code {code}{killed}"
                error = OutOfResources if killed else RhosightError
            else:
                result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
                if "error" not in result:
                    with np.load(folder / "densities.npz", allow_pickle=False) as grids:
                        return result, {k: grids[k] for k in STORED_KINDS if k in grids.files}
                problem = self._explain_failure(result, gpaw)
                error = OutOfResources if result["kind"] == "no resources" else RhosightError
            raise error(f"{material_id}: GPAW {problem}; {self._keep_log(folder, material_id)}")

    def _explain_failure(self, result: dict[str, str], gpaw: GpawInstallation) -> str:
        error = result["error"].splitlines()[0]
        if result["kind"] == "not converged":
            return (
                f"did not converge within {self.max_iterations} iterations; allow more "
                "(max_iterations) or a wider smearing"
            )
        if result["kind"] == "no setup":
            folders = ", ".join(gpaw.setups) or "any folder"
            return f"has no PAW data set in {folders} ({error}); remove the material"
        return f"failed ({result['kind']}: {error[:160]})"

    def _keep_log(self, folder: Path, material_id: str) -> str:
        """Move the log out of the temporary folder; return its place and last lines."""
        parts = [folder / "gpaw.log", folder / "output.log"]
        text = "".join(p.read_text(errors="replace") for p in parts if p.exists())
        if not text.strip():
            return "it left no log"
        if self.logs is not None:
            Path(self.logs).mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(
            prefix=f"rhosight-gpaw-{material_id}-", suffix=".log", dir=self.logs
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        last = [line.strip() for line in text.splitlines() if line.strip()][-3:]
        return f"log: {path}, ends: {' | '.join(last)[-300:]}"


def group_coupled_axes(structure: Structure) -> list[list[int]]:
    """Group the axes of the reciprocal cell that a rotation of the crystal mixes.

    A grid of k-points has the crystal's symmetry only with equal counts along mixed axes. The
    reciprocal vectors of a body-centred tetragonal primitive cell differ in length, and counts from
    their lengths alone would break its symmetry.
    """
    dataset = find_symmetry(structure, [site.specie.Z for site in structure])
    if dataset is None:
        return [[0], [1], [2]]
    return group_mixed_axes(dataset.rotations)


def find_gpaw(python: str | None = None) -> GpawInstallation:
    """Find the Python with GPAW: the given one, or the first (see :class:`Gpaw`).

    Raises
    ------
    RhosightError
        If there is none; the message explains how to install it.
    """
    if python is not None:
        # absolute, since it starts in another folder; links of virtual environments must stay links
        return _probe_or_raise(os.path.abspath(shutil.which(python) or python))
    tried = []
    for candidate in _list_pythons():
        try:
            return _probe_or_raise(candidate)
        except RhosightError:
            tried.append(candidate)
    raise RhosightError(f"no GPAW in {', '.join(tried)}; {INSTALL}, or name its Python (python=)")


@cache
def find_fingerprint(gpaw: GpawInstallation, symbol: str, functional: str) -> str | None:
    """Return the MD5 of an element's PAW data set; None if it is not found."""
    for folder in gpaw.setups:
        path = Path(folder) / f"{symbol}.{functional}.gz"
        if path.exists():
            content = gzip.decompress(path.read_bytes())
            return hashlib.md5(content, usedforsecurity=False).hexdigest()
    return None


def _list_pythons() -> list[str]:
    pythons = [sys.executable]
    command = shutil.which("gpaw")
    if command:
        with open(command, "rb") as file:
            first = file.readline(500).decode(errors="replace").strip()
        interpreter = shlex.split(first[2:]) if first.startswith("#!") else []
        if len(interpreter) == 1:
            pythons.append(interpreter[0])
    pythons.append("/usr/bin/python3")
    return [python for python in dict.fromkeys(pythons) if shutil.which(python)]


@cache
def _probe_or_raise(python: str) -> GpawInstallation:
    """Ask a Python for its GPAW; the answer is cached for the life of this process."""
    try:
        done = subprocess.run(
            [python, _script(), "--version"],
            env=_environment(python),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
            text=True,
        )
        answer = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        raise RhosightError(f"{python} does not run as a Python ({error}); {INSTALL}") from error
    if answer is None:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RhosightError(f"{python} has no usable GPAW ({last[:160]}); {INSTALL}")
    return GpawInstallation(python, answer["version"], tuple(answer["setups"]))


def _run_script(python: str, folder: Path, timeout: float) -> int | None:
    """Run the script on a folder; return its exit code, or None after the timeout."""
    with open(folder / "output.log", "wb") as output:
        process = subprocess.Popen(
            [python, _script(), str(folder)],
            cwd=folder,
            env=_environment(python),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # also if this process is interrupted, and with all processes that MPI started
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _script() -> str:
    return str(importlib.resources.files(__package__) / "gpaw_script.py")


def _environment(python: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    if python != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            kept.pop(name, None)
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    kept.pop("GPAW_NEW", None)  # selects a calculator that the script does not support
    return {**kept, **threads}


def _find_cifs(cifs: str | os.PathLike | Sequence[str | os.PathLike]) -> dict[str, Path]:
    """Return id → absolute path: workers may have another current folder."""
    if isinstance(cifs, (str, os.PathLike)):
        path = Path(cifs)
        files = sorted(path.glob("*.cif")) if path.is_dir() else [path]
        if not files:
            raise RhosightError(f"{path}: no *.cif files in this folder; give another one")
    else:
        files = [Path(cif) for cif in cifs]
        if not files:
            raise RhosightError("gpaw: no CIF files; give at least one")
    found: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise RhosightError(f"{file}: no such file; check the path")
        if file.stem in found:
            raise RhosightError(
                f"{file}: {found[file.stem]} has the same name and so the same id; rename one"
            )
        found[file.stem] = file.resolve()
    return found
