"""Does GPAW need fewer iterations from a predicted density than from its own guess?

    python benchmarks/scf_start.py write FOLDER      # densities of test crystals, with rhosight
    python3 benchmarks/scf_start.py run FOLDER       # the calculations, in a Python that has GPAW

GPAW's state is its pseudo-density and the atomic density matrices D_asp. Only the first is
predicted: the second are those of free atoms, scaled so that the cell is neutral with the
predicted integral (``predicted``, ``truth``); or GPAW's own guess is kept whole, and the predicted
difference, less its mean, is added to its pseudo-density (``difference``). Initial wave functions
come from this state, as they do from GPAW's own guess.
The output has iterations to GPAW's default convergence; a second run continues the first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

SETTINGS = {
    "cutoff": 400.0,
    "functional": "PBE",
    "kpoint_density": 2.0,  # fewer than mp-fcc has: iterations hardly depend on them
    "smearing": 0.1,
}


STARTS = ("atoms", "difference", "predicted", "truth")


def write(folder: Path, count: int = 20) -> None:
    """Write structures and densities of the smallest non-magnetic test crystals."""
    import rhosight

    dataset = rhosight.load_dataset("mp-fcc")
    test = dataset[rhosight.split(dataset)[1]]
    model = rhosight.DensityModel.from_pretrained("density")
    small = test.table[~test.table["dft_spin_polarised"]].sort_values(["nsites"]).index[:count]
    folder.mkdir(parents=True, exist_ok=True)
    for name in small:
        density = test[str(name)].density
        structure = density.structure
        predicted = model.predict_density(structure, grid=density.shape)
        np.savez(
            folder / f"{name}.npz",
            numbers=structure.atomic_numbers,
            cell=structure.lattice.matrix,
            places=structure.frac_coords,
            predicted=predicted.grid("total"),
            difference=predicted.grid("difference"),
            truth=density.grid("total"),
            cost=np.prod(list(map(int, test.table.loc[name, "dft_kpoints"].split("x"))))
            * structure.volume,
        )


def run(folder: Path) -> None:
    """Count the iterations from each start; ``truth`` is the converged pseudo-density."""
    results = folder / "iterations.json"
    done = json.loads(results.read_text()) if results.exists() else {}
    for path in sorted(folder.glob("*.npz"), key=lambda path: float(np.load(path)["cost"])):
        counts = done.setdefault(path.stem, {})
        for kind in [kind for kind in STARTS if kind not in counts]:
            counts[kind] = calculate(np.load(path), kind)
            results.write_text(json.dumps(done))
        print(path.stem, json.dumps(done[path.stem]), flush=True)
    own = np.array([counts["atoms"] for counts in done.values()])
    for kind in STARTS:
        counts = np.array([counts[kind] for counts in done.values()])
        print(
            f"{kind:10s} mean {counts.mean():.1f}, median {np.median(counts):.0f}, "
            f"geometric mean of the ratio to atoms {np.exp(np.log(counts / own).mean()):.2f}; "
            f"fewer than atoms for {(counts < own).sum()}, more for {(counts > own).sum()}"
        )


def calculate(data, start: str) -> int:
    """Return the number of iterations to convergence."""
    from ase import Atoms
    from ase.units import Bohr
    from gpaw import GPAW, PW, FermiDirac

    atoms = Atoms(
        numbers=data["numbers"], cell=data["cell"], scaled_positions=data["places"], pbc=True
    )
    calculator = GPAW(
        mode=PW(SETTINGS["cutoff"]),
        xc=SETTINGS["functional"],
        kpts={"density": SETTINGS["kpoint_density"], "gamma": True},
        occupations=FermiDirac(SETTINGS["smearing"]),
        txt=None,
    )
    atoms.calc = calculator
    calculator.initialize(atoms)
    if start != "atoms":
        start_from(calculator.density, data[start] * Bohr**3, start == "difference")
    calculator.set_positions(atoms)
    atoms.get_potential_energy()
    return int(calculator.get_number_of_iterations())


def start_from(density, values: np.ndarray, is_added: bool) -> None:
    """Change the pseudo-density that GPAW makes of free atoms, before its wave functions."""
    guess = density.initialize_from_atomic_densities

    def initialize(basis_functions) -> None:
        guess(basis_functions)
        assert density.nt_sG.shape[1:] == values.shape, "another grid"
        if is_added:
            density.nt_sG[:] += values - values.mean()
            density.mixer.reset()
            density.calculate_normalized_charges_and_mix()
            return
        density.nt_sG[:] = values
        wanted = -density.gd.integrate(values)
        charge = density.calculate_multipole_moments()[0]
        matrices = {atom: matrix.copy() for atom, matrix in density.D_asp.items()}
        for matrix in density.D_asp.values():
            matrix[:] = 0.0
        empty = density.calculate_multipole_moments()[0]
        for atom, matrix in density.D_asp.items():
            matrix[:] = matrices[atom] * ((wanted - empty) / (charge - empty))
        density.mixer.reset()
        density.calculate_normalized_charges_and_mix()

    density.initialize_from_atomic_densities = initialize


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "run"):
        sys.exit(__doc__)
    {"write": write, "run": run}[sys.argv[1]](Path(sys.argv[2]))
