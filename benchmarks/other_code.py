"""Compare Quantum ESPRESSO densities with the bundled GPAW densities.

    apt install quantum-espresso quantum-espresso-data
    python benchmarks/other_code.py [--ids mp-149 ...] [--pseudo /usr/share/espresso/pseudo]

Debian packages the pseudopotentials of Quantum ESPRESSO's examples. For the crystals whose elements
have PBE pseudopotentials there, ``pw.x`` converges the same cell with the same k-points and
smearing, and ``pp.x`` writes the charge density and its difference from superposed atoms. The
densities of both codes are sampled on the same lattice plane (:func:`density_slice`, default image
window) and mapped to [-1, 1] by the physical normalisation. The comparison includes the pixels
whose distance from every atom, in the plane or not, exceeds ``--mask``. Inside this radius the
densities of the codes have different meanings. A third comparison uses the difference between
Quantum ESPRESSO's total density and rhosight's table of free atoms
(:func:`rhosight.density.free_atoms.difference_from_total`).

The exit code is 1 if a pixel deviates by more than :data:`TOLERANCE`, and 2 if Quantum ESPRESSO is
not installed or fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import numpy as np
from pymatgen.io.common import VolumetricData
from scipy.constants import physical_constants

from rhosight.dataset import load_dataset
from rhosight.density import ChargeDensity
from rhosight.density.free_atoms import difference_from_total
from rhosight.density.plane import lattice_plane
from rhosight.inputs.image import Channel, density_slice, normalise
from rhosight.models.loading import load_model

PSEUDO = {
    "C": "C.pbe-n-kjpaw_psl.0.1.UPF",
    "Cu": "Cu.pbe-kjpaw.UPF",
    "Ge": "Ge.pbe-kjpaw.UPF",
    "I": "I.pbe-n-kjpaw_psl.1.0.0.UPF",
    "N": "N.pbe-n-kjpaw_psl.1.0.0.UPF",
    "O": "O.pbe-kjpaw.UPF",
    "Rh": "Rh.pbe-rrkjus_lb.UPF",
    "Si": "Si.pbe-nl-rrkjus_psl.1.0.0.UPF",
}
"""Ultrasoft and PAW pseudopotentials; some differ from GPAW in radii and valence."""

IDS = (
    *("mp-149", "mp-1002206", "mp-30"),
    *("mp-32", "mp-1008922", "mp-22895", "mp-8352", "mp-867917"),
)
"""Si, SiC, Cu (images also compared); Ge, CuN, CuI, SiO2, CuGeRh2.

No other crystals of the dataset have only these elements and no magnetic moment.
"""

BOHR = physical_constants["Bohr radius"][0] * 1e10
RYDBERG = physical_constants["Rydberg constant times hc in eV"][0]
TOLERANCE = {
    "mp-149": {"total": 0.005, "difference": 0.1},
    "mp-1002206": {"total": 0.005, "difference": 0.1},
    "mp-30": {"total": 0.02, "difference": 0.1},
}
"""Largest deviation of a pixel outside the cores, on the image scale [-1, 1].

The codes superpose different free atoms for their differences. The 3d shell of copper extends
beyond the mask and converges most slowly with the cutoff.
"""

CUTOFF = 45
"""Cutoff of the wave functions in Ry; the cutoff of the density is eight times as high."""

SIZE = 160
"""Pixels along each side of an image."""


def calculate(reference: ChargeDensity, kpoints: str, pseudo: dict, folder: Path) -> ChargeDensity:
    """Calculate ``total`` and ``difference`` of a cell with Quantum ESPRESSO."""
    structure = reference.structure
    species = "\n".join(f"{s} 1.0 {file}" for s, file in pseudo.items())
    vectors = "\n".join(" ".join(f"{x:.10f}" for x in v) for v in structure.lattice.matrix)
    sites = "\n".join(
        f"{site.specie.symbol} " + " ".join(f"{x:.10f}" for x in site.frac_coords)
        for site in structure
    )
    (folder / "scf.in").write_text(
        f"""&control
  calculation = 'scf', pseudo_dir = '{folder}', outdir = '{folder}', prefix = 'run'
/
&system
  ibrav = 0, nat = {len(structure)}, ntyp = {len(pseudo)}
  ecutwfc = {CUTOFF}, ecutrho = {8 * CUTOFF}
  occupations = 'smearing', smearing = 'fermi-dirac', degauss = {0.1 / RYDBERG:.6f}
/
&electrons
  conv_thr = 1e-9
/
ATOMIC_SPECIES
{species}
CELL_PARAMETERS angstrom
{vectors}
ATOMIC_POSITIONS crystal
{sites}
K_POINTS automatic
{kpoints.replace("x", " ")} 0 0 0
"""
    )
    run("pw.x", folder / "scf.in")
    grids = {}
    for kind, number in (("total", 0), ("difference", 9)):
        (folder / "pp.in").write_text(
            f"""&inputpp
  prefix = 'run', outdir = '{folder}', plot_num = {number}, filplot = '{folder}/{kind}.plot'
/
&plot
  iflag = 3, output_format = 6, fileout = '{folder}/{kind}.cube'
/
"""
        )
        run("pp.x", folder / "pp.in")
        cube = VolumetricData.from_cube(folder / f"{kind}.cube")
        grids[kind] = cube.data["total"] / BOHR**3
    return ChargeDensity(structure, grids, "Quantum ESPRESSO", {"code": "Quantum ESPRESSO"})


def run(program: str, file: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [program, "-in", file.name],
            cwd=file.parent,
            env=environment,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        stop(f"{program} is not installed. Run: apt install quantum-espresso quantum-espresso-data")
    if done.returncode or "JOB DONE" not in done.stdout:
        stop(f"{program} failed:\n{done.stdout[-2000:]}{done.stderr[-500:]}")


def stop(message: str) -> NoReturn:
    """Print a message and exit, because nothing can be compared."""
    print(message, file=sys.stderr)
    raise SystemExit(2)


def distances(density: ChargeDensity, channel: Channel) -> np.ndarray:
    """Return the distance of each pixel to the nearest atom, Å, shape (SIZE, SIZE)."""
    plane = lattice_plane(density.structure)
    axis = ((np.arange(SIZE) + 0.5) / SIZE - 0.5) * channel.window
    points = plane.points(axis[None, :], -axis[:, None], channel.offset).reshape(-1, 3)
    found = density.structure.lattice.get_all_distances(points, density.structure.frac_coords)
    return found.min(axis=1).reshape(SIZE, SIZE)


def compare(ours: ChargeDensity, other: ChargeDensity, kinds: list[str], mask: float) -> bool:
    """Print the deviations outside the cores; return True if all are tolerable."""
    sound = True
    for kind in kinds:
        for offset in (0.0, 0.5):
            channel = Channel(kind=kind, window=8.0, offset=offset)
            outside = distances(ours, channel) > mask
            a, b = (density_slice(d, channel, SIZE)[outside] for d in (ours, other))
            x, y = (normalise(values, "physical", kind) for values in (a, b))
            worst, tolerance = np.abs(x - y).max(), TOLERANCE[ours.name][kind]
            sound &= bool(worst <= tolerance)
            print(
                f"  {kind:10} offset {offset}: {outside.mean():4.0%} of the pixels; image: RMS "
                f"{np.sqrt(np.mean((x - y) ** 2)):.4f}, largest {worst:.4f} (of 2; "
                f"{'within' if worst <= tolerance else 'BEYOND'} {tolerance:g}); "
                f"density: relative RMS {np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2)):.4f}, "
                f"correlation {np.corrcoef(a, b)[0, 1]:.5f}",
                flush=True,
            )
    return sound


def shifts(pairs: list[tuple[ChargeDensity, ChargeDensity]]) -> str:
    """Return the changes of the predictions of `best` between the two codes."""
    best = load_model("best").special  # the part that reads densities
    own, other = (best.predict(list(densities)) for densities in zip(*pairs, strict=True))
    found = other.set_axis(own.index) - own
    found.loc["root mean square"] = np.sqrt((found**2).mean())
    found.loc["RMSE on the test set"] = [best.scores[t]["rmse"] for t in best.targets]
    return f"\nshift of the predictions of best\n{found.round(3).to_string()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", nargs="+", choices=IDS, default=list(IDS))
    parser.add_argument("--pseudo", type=Path, default=Path("/usr/share/espresso/pseudo"))
    parser.add_argument("--mask", type=float, default=1.1, help="radius of a core, Å")
    arguments = parser.parse_args()
    dataset = load_dataset("mp-fcc")
    sound = True
    pairs: list[tuple[ChargeDensity, ChargeDensity]] = []
    for material_id in arguments.ids:
        ours = dataset[material_id].density
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pseudo = {symbol: PSEUDO[symbol] for symbol in ours.structure.symbol_set}
            for file in pseudo.values():
                if not (arguments.pseudo / file).exists():
                    stop(
                        f"{arguments.pseudo / file} does not exist. "
                        "Run: apt install quantum-espresso-data"
                    )
                (folder / file).write_bytes((arguments.pseudo / file).read_bytes())
            kpoints = dataset.table.loc[material_id, "dft_kpoints"]
            other = calculate(ours, kpoints, pseudo, folder)
        formula = ours.structure.composition.reduced_formula
        print(
            f"{material_id} {formula}: GPAW {ours.shape}, Quantum ESPRESSO {other.shape}; ", end=""
        )
        print(f"integral {other.integral('total'):.4f} e; cores of {arguments.mask} Å are excluded")
        total = ChargeDensity(other.structure, {"total": other.grid("total")}, other.name)
        pairs.append((ours, total))
        if material_id not in TOLERANCE:
            continue
        sound &= compare(ours, other, ["total", "difference"], arguments.mask)
        print("  difference calculated with the table of free atoms:")
        sound &= compare(ours, difference_from_total(total), ["difference"], arguments.mask)
    print(shifts(pairs))
    print("all images are within tolerance" if sound else "an image exceeds its tolerance")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
