"""Derive the spherical pseudo-densities of free atoms.

    python benchmarks/make_free_atoms.py [--out FILE] [--gpaw-python PYTHON]

The output is src/rhosight/data/free_atoms.safetensors. It contains each element for which GPAW has
parameters of a standard PAW data set. GPAW's own atomic code (scalar-relativistic Kohn-Sham PBE,
``gpaw.atom.generator``; doi:10.1088/0953-8984/22/25/253202) solves the free atom in its nominal
configuration and makes smooth partial waves inside the augmentation radii. Nothing is read from the
data sets that are distributed with GPAW. They are under the GPL-3
(/usr/share/doc/gpaw-data/copyright), but numbers that a program computes are not covered by its
licence. Both agree to about 1e-7 of the density at the nucleus.

The valence density is the sum of occupation × |smooth orbital|² / 4π. The orbitals go smoothly to
zero at 8 Bohr, as in GPAW's starting guess. The core density is the smooth core. ``charge`` is the
integral of the atom by construction of the augmentation charges, including the tails beyond 8 Bohr.

The run takes half a minute and needs two interpreters: this one has rhosight, and the one that it
starts has GPAW.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from math import pi, sqrt
from pathlib import Path

import numpy as np

POINTS = 401
"""Number of radii 0, 0.02, ..., 8 Bohr: finer than GPAW's orbital splines of 100 points."""

REACH = 8.0
"""Radius in Bohr at which GPAW's starting guess ends."""


def calculate(out: Path) -> None:
    """Solve all atoms in the interpreter that has GPAW, in atomic units."""
    import gpaw
    from gpaw.atom.configurations import parameters
    from gpaw.atom.generator import Generator
    from gpaw.xc import XC

    radii = np.linspace(0, REACH, POINTS)
    elements, valence, core, charge = [], [], [], []
    for symbol, settings in sorted(parameters.items()):
        atom = Generator(symbol, "PBE", scalarrel=True, nofiles=True, txt=None)
        data = atom.run(exx=False, logderiv=False, write_xml=False, **settings)
        setup = data.build(XC("PBE"), 2, None)
        occupations = [f for n, f in zip(setup.n_j, setup.f_j, strict=True) if n > 0]
        density = np.zeros(POINTS)
        for occupation, orbital in zip(occupations, setup.basis.phit_j, strict=True):
            # GPAW's splines store f(r) / r^l
            wave = orbital.map(radii) * radii ** orbital.get_angular_momentum_number()
            density += occupation * wave**2 / (4 * pi)
        smooth = setup.nct.map(radii) / sqrt(4 * pi)
        # neutral atom: pseudo-density = −(augmentation charge + nucleus + core)
        flat = setup.initialize_density_matrix(
            setup.calculate_initial_occupation_numbers(0.0, False, 0.0, 1)
        )[0]
        total = -sqrt(4 * pi) * (flat @ setup.Delta_pL[:, 0] + setup.Delta0)
        shells = 4 * pi * radii**2 * smooth
        core_charge = float(np.sum((shells[1:] + shells[:-1]) / 2 * np.diff(radii)))
        elements.append(symbol)
        valence.append(density)
        core.append(smooth)
        charge.append([total - core_charge, core_charge])
        print(f"{symbol:2} valence {total - core_charge:9.5f} core {core_charge:9.5f}", flush=True)
    np.savez(
        out,
        elements=np.array(elements),
        valence=np.array(valence),
        core=np.array(core),
        charge=np.array(charge),
        version=np.array(gpaw.__version__),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    package = Path(__file__).parents[1] / "src/rhosight/data"
    parser.add_argument("--out", type=Path, default=package / "free_atoms.safetensors")
    parser.add_argument(
        "--gpaw-python", default=None, help="Python with GPAW (default: detected automatically)"
    )
    parser.add_argument("--calculate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.calculate:
        return calculate(arguments.calculate)

    from safetensors.numpy import save_file
    from scipy.constants import physical_constants

    from rhosight.dataset.sources.gpaw import find_gpaw

    bohr = physical_constants["Bohr radius"][0] * 1e10
    gpaw = find_gpaw(arguments.gpaw_python)
    with tempfile.TemporaryDirectory() as folder:
        computed = Path(folder) / "atoms.npz"
        subprocess.run([gpaw.python, __file__, "--calculate", str(computed)], check=True)
        with np.load(computed, allow_pickle=False) as found:
            atoms = {name: found[name] for name in found.files}
    about = {
        "elements": json.dumps(atoms["elements"].tolist()),
        "reach": repr(REACH * bohr),
        "unit": "valence and core e/Å³ at equidistant radii from 0 to reach Å; charge in electrons",
        "source": f"GPAW {atoms['version']} atomic generator, PBE, scalar-relativistic",
        "citation": "doi:10.1088/0953-8984/22/25/253202",
        "made_by": "benchmarks/make_free_atoms.py",
    }
    tensors = {
        "valence": (atoms["valence"] / bohr**3).astype(np.float32),
        "core": (atoms["core"] / bohr**3).astype(np.float32),
        "charge": atoms["charge"],
    }
    save_file(tensors, arguments.out, about)
    size = arguments.out.stat().st_size / 1e3
    print(f"{arguments.out}: {len(atoms['elements'])} elements, {size:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
