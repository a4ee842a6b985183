"""The embedding of CHGNet, a graph network pre-trained on the Materials Project.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3. Its weights come
with its package (``pip install 'rhosight[chgnet]'``) and stay frozen. It was trained on energies,
forces, stresses and magnetic moments of the Materials Project's relaxations (MPtrj), so a material
scored here is likely to be one of its training materials.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections import OrderedDict
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
"""Note below a table with a row of CHGNet."""

WIDTH = 64
"""Length of the embedding."""

_BATCH = 16

_CACHE_SIZE = 10_000
"""Number of embeddings that are remembered: 5 MB. Several baselines ask for the same crystals."""

_cache: OrderedDict[str, np.ndarray] = OrderedDict()


def find_chgnet_version() -> str | None:
    """Return the version of the optional package, or None if it is not installed."""
    try:
        return version("chgnet")
    except PackageNotFoundError:
        return None


def require_chgnet(purpose: str) -> None:
    """Raise if the optional package is not installed."""
    if find_chgnet_version() is None:
        raise RhosightError(f"{purpose} needs CHGNet: pip install 'rhosight[chgnet]'")


def compute_embeddings(
    structures: Sequence[Structure], progress: Progress | None = None
) -> pd.DataFrame:
    """Compute the embedding of each crystal in the frozen CHGNet 0.3.0.

    The features of the atoms after the last convolution, averaged over the cell, so that they do
    not depend on the cell in which a crystal is stored. About 0.03 s for a few atoms on one CPU
    core; the last 10,000 structures of this process cost nothing.

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
    rows = np.empty((len(structures), WIDTH))
    for start in range(0, len(structures), _BATCH):
        part = structures[start : start + _BATCH]
        keys = [_hash(structure) for structure in part]
        new = {key: s for key, s in zip(keys, part, strict=True) if key not in _cache}
        _cache.update(zip(new, _embed(list(new.values())), strict=True))
        for row, key in enumerate(keys, start):
            _cache.move_to_end(key)
            rows[row] = _cache[key]
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
        if progress:
            progress("CHGNet", start + len(part), len(structures))
    return pd.DataFrame(rows, columns=[f"chgnet_{i}" for i in range(WIDTH)])


def _hash(structure: Structure) -> str:
    if not structure.is_ordered:
        where = structure.composition.reduced_formula
        raise RhosightError(f"{where}: has partial occupancies; give an ordered structure")
    digest = hashlib.sha256(structure.lattice.matrix.astype("<f8").tobytes())
    digest.update(structure.frac_coords.astype("<f8").tobytes())
    digest.update(np.array([site.specie.Z for site in structure], dtype="<i4").tobytes())
    return digest.hexdigest()


def _embed(structures: list[Structure]) -> list[np.ndarray]:
    if not structures:
        return []
    # "crystal_fea" is the sum over the atoms
    results = predict_energies(structures, return_crystal_feas=True)
    sums = (np.asarray(result["crystal_fea"], dtype=float) for result in results)
    return [total / len(structure) for total, structure in zip(sums, structures, strict=True)]


def predict_energies(structures: Sequence[Structure], **options: Any) -> list[dict[str, Any]]:
    """Return CHGNet's results for crystals, among them ``e``, their energy in eV/atom.

    Parameters
    ----------
    structures
        Ordered crystals.
    **options
        Of CHGNet's ``predict_graph``.

    Raises
    ------
    RhosightError
        For a crystal with an atom that has no neighbour within 6 Å.
    """
    model, graphs = load_network(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about chgnet's way to make tensors
        for structure in structures:
            try:
                graphs.append(model.graph_converter(structure))
            except ValueError as error:  # an isolated atom
                where = structure.composition.reduced_formula
                raise RhosightError(
                    f"{where}: CHGNet cannot read it ({error}); leave this material out"
                ) from error
        results = model.predict_graph(graphs, task="e", batch_size=_BATCH, **options)
    return results if isinstance(results, list) else [results]  # one graph: no list


@cache
def load_network() -> Any:
    """Return the pre-trained network on the CPU; check its weights, use no pickle."""
    import torch

    from ...networks.weights import packaged_file

    path = packaged_file("chgnet")
    # CHGNet.load would unpickle the file, and prints
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from chgnet.model.model import CHGNet

        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        return CHGNet.from_dict(state, mlp_out_bias=False, version="0.3.0").eval()
