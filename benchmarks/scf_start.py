"""Does GPAW need fewer iterations from a predicted density than from its own guess?

    python benchmarks/scf_start.py write FOLDER      # densities of test crystals, with rhosight
    python3 benchmarks/scf_start.py run FOLDER       # the calculations, in a Python that has GPAW

GPAW's state is its pseudo-density and the atomic density matrices D_asp. Only the first is
predicted: the second stays that of free atoms, and GPAW scales the pseudo-density to be neutral
with their compensation charges.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

SETTINGS = {
    "cutoff": 400.0,
    "functional": "PBE",
    "kpoint_density": 3.0,
    "smearing": 0.1,
}


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
            truth=density.grid("total"),
        )


def run(folder: Path) -> None:
    """Count the iterations from both starts, and from the converged density for comparison."""
    for path in sorted(folder.glob("*.npz")):
        data = np.load(path)
        counts = {kind: calculate(data, kind) for kind in ("atoms", "predicted", "truth")}
        print(path.stem, json.dumps(counts), flush=True)


def calculate(data, start: str) -> int:
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
    calculator.set_positions(atoms)
    if start != "atoms":
        density = calculator.density
        assert density.nt_sG.shape[1:] == data[start].shape, "another grid"
        density.nt_sG[:] = data[start] * Bohr**3
        density.mixer.reset()
        density.calculate_normalized_charges_and_mix()
        density.interpolate_pseudo_density()
        calculator.hamiltonian.update(density)
    atoms.get_potential_energy()
    return int(calculator.get_number_of_iterations())


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("write", "run"):
        sys.exit(__doc__)
    {"write": write, "run": run}[sys.argv[1]](Path(sys.argv[2]))
