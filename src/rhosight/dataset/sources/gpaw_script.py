"""Run one GPAW calculation, in any Python that has GPAW.

    python gpaw_script.py --version             print its version and folders of PAW data sets
    python gpaw_script.py FOLDER                calculate FOLDER/input.json

:mod:`rhosight.dataset.sources.gpaw` starts this script. It imports nothing of rhosight and works
with Python 3.8. ``input.json`` holds ``numbers``, ``cell`` (Å), ``positions`` (fractional),
``coupled_axes`` (groups of axes with equal numbers of k-points), ``settings`` and, to prescribe
them, the numbers of ``kpoints``; ``result.json`` receives energies, or an error and its kind;
``densities.npz`` receives the grids, e/Å³, float64.
GPAW's own log is ``gpaw.log``.
"""

import inspect
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np


def main(folder: Path) -> int:
    """Calculate the task in a folder, and write its results or its error."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    task = json.loads((folder / "input.json").read_text(encoding="utf-8"))
    try:
        result, grids = calculate(task, str(folder / "gpaw.log"))
        np.savez(folder / "densities.npz", **grids)
    except Exception as error:  # any error of GPAW is a problem of this material
        result = {"error": str(error).strip() or type(error).__name__, "kind": _kind(error)}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def calculate(task, log):
    """Converge the SCF; return its results and its grids."""
    from ase import Atoms
    from ase.units import Bohr
    from gpaw import GPAW, PW, FermiDirac

    settings = task["settings"]
    atoms = Atoms(
        numbers=task["numbers"], cell=task["cell"], scaled_positions=task["positions"], pbc=True
    )
    polarised = bool(set(atoms.get_chemical_symbols()) & set(settings["magnetic_elements"]))
    if polarised:
        atoms.set_initial_magnetic_moments(
            [
                settings["magnetic_moment"] if s in settings["magnetic_elements"] else 0.0
                for s in atoms.get_chemical_symbols()
            ]
        )
    counts = task.get("kpoints") or count_kpoints(
        atoms, settings["kpoint_density"], task["coupled_axes"]
    )
    # later versions have a second calculator, without access to the initial density
    old = {"legacy_gpaw": True} if "legacy_gpaw" in inspect.signature(GPAW).parameters else {}
    calculator = GPAW(
        mode=PW(settings["cutoff"]),
        xc=settings["functional"],
        kpts={"size": counts, "gamma": True},
        occupations=FermiDirac(settings["smearing"]),
        convergence=settings["convergence"],
        maxiter=settings["max_iterations"],
        spinpol=polarised,
        txt=log,
        **old,
    )
    atoms.calc = calculator
    # the density after initialisation is the superposition of free atoms' pseudo-densities
    calculator.initialize(atoms)
    calculator.set_positions(atoms)
    start = calculator.density.nt_sG.sum(axis=0) / Bohr**3
    energy = atoms.get_potential_energy()
    total = calculator.get_pseudo_density()
    grids = {"total": total, "difference": total - start}
    if polarised:
        grids["spin"] = calculator.get_pseudo_density(0) - calculator.get_pseudo_density(1)
    figures = {
        "dft_energy": float(energy),
        "dft_efermi": float(calculator.get_fermi_level()),
        "dft_magnetization": float(calculator.get_magnetic_moment()) if polarised else 0.0,
        "dft_spin_polarised": polarised,
        "dft_kpoints": "x".join(str(n) for n in calculator.wfs.kd.N_c),
        "dft_cutoff": float(settings["cutoff"]),
        "setups": {s.symbol: f"{s.type}, MD5 {s.fingerprint}" for s in calculator.setups},
    }
    return figures, grids


def count_kpoints(atoms, density, coupled_axes):
    """Return the counts of k-points, the same along axes that symmetry mixes."""
    from gpaw.kpt_descriptor import kpts2sizeandoffsets

    counts = kpts2sizeandoffsets(density=density, gamma=True, atoms=atoms)[0]
    counts = [int(count) for count in counts]
    for axes in coupled_axes:
        largest = max(counts[axis] for axis in axes)
        for axis in axes:
            counts[axis] = largest
    return counts


def version():
    """Return GPAW's version and the folders in which it looks for PAW data sets."""
    import gpaw

    return {"version": gpaw.__version__, "setups": [str(path) for path in gpaw.setup_paths]}


def _kind(error):
    names = {cls.__name__ for cls in type(error).__mro__}
    if "ConvergenceError" in names:
        return "not converged"
    if isinstance(error, FileNotFoundError) and "PAW dataset" in str(error):
        return "no setup"
    if isinstance(error, (MemoryError, OSError)):  # these say nothing about the crystal
        return "no resources"
    return type(error).__name__


def _end_with_parent(parent):
    """End the calculation when the worker is killed."""
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


if __name__ == "__main__":
    # the script's folder holds rhosight's own gpaw.py, which would hide GPAW
    del sys.path[0]
    if sys.argv[1:] == ["--version"]:
        print(json.dumps(version()))
    else:
        sys.exit(main(Path(sys.argv[1])))
