"""The embedding of CHGNet, a graph network that was pre-trained on other people's calculations.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3. Its weights come
with its package (``pip install 'rhosight[chgnet]'``) and are used as they are: nothing is trained
here. It has seen energies, forces, stresses and magnetic moments of the Materials Project's
relaxations (MPtrj), so that a material of ours is likely to be one of its training materials.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Structure

from ...errors import RhosightError
from ...inputs.progress import Progress

CHGNET_NOTE = (
    "CHGNet was pre-trained on energies of the Materials Project, scored materials likely among "
    "them: its rows are shown for comparison and do not count as a baseline to beat"
)
"""What a table with a row of CHGNet says below it."""

WIDTH = 64
"""Length of the embedding."""

_BATCH = 16

_known: dict[str, np.ndarray] = {}


def chgnet_version() -> str | None:
    """Of the optional package; None if it is not installed."""
    try:
        return version("chgnet")
    except PackageNotFoundError:
        return None


def chgnet_features(
    structures: Sequence[Structure], progress: Progress | None = None
) -> pd.DataFrame:
    """What the frozen CHGNet 0.3.0 knows of each crystal before it says its energy.

    The features of the atoms after the last convolution, averaged over the cell, so that they do
    not depend on which cell a crystal is stored in. About 0.03 s for a few atoms on one CPU core;
    a structure that was seen before in this process costs nothing.

    Parameters
    ----------
    structures
        n ordered crystals.
    progress
        Called with ("CHGNet", done, n).

    Returns
    -------
    DataFrame (n, 64), columns ``chgnet_0`` … ``chgnet_63``, without unit, index 0 … n − 1.

    Raises
    ------
    RhosightError
        If chgnet is not installed or its weights are not the expected ones, or for a crystal with
        partial occupancies or with an atom that has no neighbour within 6 Å.
    """
    keys = []
    for start in range(0, len(structures), _BATCH):
        part = structures[start : start + _BATCH]
        names = [_hash(structure) for structure in part]
        new = {n: s for n, s in zip(names, part, strict=True) if n not in _known}
        _known.update(zip(new, _embeddings(list(new.values())), strict=True))
        keys += names
        if progress:
            progress("CHGNet", len(keys), len(structures))
    rows = np.array([_known[key] for key in keys]).reshape(len(keys), WIDTH)
    return pd.DataFrame(rows, columns=[f"chgnet_{i}" for i in range(WIDTH)])


def _hash(structure: Structure) -> str:
    if not structure.is_ordered:
        where = structure.composition.reduced_formula
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    digest = hashlib.sha256(np.ascontiguousarray(structure.lattice.matrix, dtype="<f8"))
    digest.update(np.ascontiguousarray(structure.frac_coords, dtype="<f8"))
    digest.update(np.array([site.specie.Z for site in structure], dtype="<i4"))
    return digest.hexdigest()


def _embeddings(structures: list[Structure]) -> list[np.ndarray]:
    if not structures:
        return []
    model, graphs = _model(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about how chgnet makes its tensors
        for structure in structures:
            try:
                graphs.append(model.graph_converter(structure))
            except ValueError as error:  # chgnet's word for an isolated atom
                where = structure.composition.reduced_formula
                raise RhosightError(
                    f"{where}: CHGNet cannot read it ({error}); leave this material out"
                ) from error
        found = model.predict_graph(graphs, task="e", return_crystal_feas=True, batch_size=_BATCH)
    found = found if isinstance(found, list) else [found]  # of one graph it gives no list
    # "crystal_fea" is the sum over the atoms
    sums = (np.asarray(result["crystal_fea"], dtype=float) for result in found)
    return [total / len(structure) for total, structure in zip(sums, structures, strict=True)]


@cache
def _model() -> Any:
    """The pre-trained network on the CPU, its weights checked and read without pickled code."""
    import torch

    from ...networks.weights import packaged_file

    path = packaged_file("chgnet")
    # its own CHGNet.load would unpickle the file, and prints
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model import CHGNet

        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        return CHGNet.from_dict(state, mlp_out_bias=False, version="0.3.0").eval()
