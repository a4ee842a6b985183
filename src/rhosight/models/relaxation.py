"""Relax structures with CHGNet, for models that were trained on relaxed crystals.

CHGNet (Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3) learned
energies, forces and stresses of the Materials Project's own relaxations, so that its volumes are
close to those of the bundled training set.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import Any

from pymatgen.core import Structure

from ..density.crystals import SYMPREC
from ..errors import RhosightError
from .baselines.chgnet import load_network, require_chgnet

MAX_FORCE = 0.05
"""eV/Å; the relaxation ends below it. That of the stress is alike, as a force on the cell."""

MAX_STEPS = 500


def relax_structure(
    structure: Structure, where: str = "", keep_symmetry: bool = False
) -> Structure:
    """Return a crystal whose cell and positions are relaxed with CHGNet 0.3.0.

    Parameters
    ----------
    structure
        An ordered crystal.
    where
        What error messages name, such as a file; the formula by default.
    keep_symmetry
        Move along the directions only that keep the space group.

    Returns
    -------
    pymatgen.core.Structure
        The crystal at a minimum of CHGNet's energy: forces below 0.05 eV/Å.

    Raises
    ------
    RhosightError
        If CHGNet is not installed, cannot read the crystal, or finds no minimum in 500 steps.
    """
    where = where or structure.composition.reduced_formula
    require_chgnet("relaxing")
    from ase.constraints import FixSymmetry
    from chgnet.model.dynamics import StructOptimizer

    atoms = structure.to_ase_atoms()
    if keep_symmetry:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMPREC))

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch warns about chgnet's way to make tensors
        optimizer = StructOptimizer(load_network(), use_device="cpu")
        try:
            result: dict[str, Any] = optimizer.relax(
                atoms, fmax=MAX_FORCE, steps=MAX_STEPS, verbose=False
            )
        except ValueError as error:  # an isolated atom
            raise RhosightError(f"{where}: CHGNet cannot relax it ({error})") from error
    if len(result["trajectory"]) > MAX_STEPS:
        raise RhosightError(
            f"{where}: not relaxed after {MAX_STEPS} steps of CHGNet; start from a structure that "
            "is closer to its minimum"
        )
    relaxed: Structure = result["final_structure"]
    return Structure(relaxed.lattice, [site.specie for site in structure], relaxed.frac_coords)
