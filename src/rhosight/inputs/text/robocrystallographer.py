"""Robocrystallographer's texts, equal to its own to the last character but faster.

Robocrystallographer repeats most of its work for each structure: it reduces all of its 180 mineral
prototypes again to compare a structure with each, and finds the neighbours of each site three
times. Here prototypes are reduced once per process, only those with the structure's number of atoms
of each kind are compared with it, and results for a site are cached while its structure is
described. No number is computed differently, so rounding and ties are the same.

Its classes are extended where they allow it. Where their code names a class or function directly, a
copy of that method uses another one under the same name (:func:`_replace_names`). Its modules are
not modified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from functools import partial
from threading import Lock
from types import FunctionType
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from matminer.featurizers.site import CrystalNNFingerprint
from matminer.featurizers.structure import SiteStatsFingerprint
from pymatgen.analysis.graphs import ConnectedSite, StructureGraph
from pymatgen.analysis.local_env import CrystalNN, VoronoiNN
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from robocrys import StructureCondenser, StructureDescriber
from robocrys.condense.mineral import MineralMatcher, ReducedAflowPrototypeMatcher
from robocrys.condense.site import SiteAnalyzer

Value = TypeVar("Value")


class Robocrystallographer:
    """Describes structures; create one per process.

    Texts are plain, without site labels such as Fe(1), like the Materials Project's own
    descriptions. Molecules are not named.
    """

    def __init__(self, symprec: float) -> None:
        self._condenser = Condenser(symprec)
        self._describer = StructureDescriber(describe_symmetry_labels=False)
        self._lock = Lock()

    def describe(self, structure: Structure) -> str:
        """Return Robocrystallographer's text.

        It raises errors of many types for structures that it cannot describe.
        """
        with self._lock:  # both keep the current structure in their attributes
            text = self._describer.describe(self._condenser.condense_structure(structure))
        assert isinstance(text, str)  # a dict only if parts are requested
        return text


def _replace_names(function: Callable, **names: Any) -> Callable:
    """Return a copy of a function for which some of its module's names are replaced."""
    if missing := set(names) - set(function.__code__.co_names):
        raise ImportError(
            f"{function.__module__}.{function.__qualname__} no longer uses {', '.join(missing)}; "
            "install an earlier robocrys, matminer or pymatgen"
        )
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class Memory(dict[Hashable, Any]):
    """Cached results for the sites of the current structures."""

    def get_site(self, structure: Structure, index: int, compute: Callable[[], Value]) -> Value:
        """Return the value of one site, and compute it if necessary.

        Structures are identified by their content, to the last bit, because they are copied on the
        way.
        """
        content = (
            structure.lattice.matrix.tobytes(),
            structure.frac_coords.tobytes(),
            tuple(structure.species),
        )
        return self.get_or((content, index), compute)

    def get_or(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of a key, and compute it if necessary."""
        if key not in self:
            self[key] = compute()
        return self[key]


class BondGraph(StructureGraph):
    """Bonds with cached neighbours, which are requested many times."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connected = Memory()
        super().__init__(*args, **kwargs)

    def get_connected_sites(
        self, n: int, jimage: tuple[int, int, int] = (0, 0, 0)
    ) -> list[ConnectedSite]:
        """Return the neighbours of a site."""
        find = super().get_connected_sites
        return list(self._connected.get_or((n, jimage), lambda: find(n, jimage)))


class NearNeighbors(CrystalNN):
    """CrystalNN with cached results, for bonds and fingerprints of sites.

    The adjacency of the faces of a Voronoi cell is not needed and not computed.
    """

    _find = _replace_names(
        CrystalNN.get_nn_data, VoronoiNN=partial(VoronoiNN, compute_adj_neighbors=False)
    )
    get_bonded_structure = _replace_names(CrystalNN.get_bonded_structure, StructureGraph=BondGraph)

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()

    def get_nn_data(
        self, structure: Structure, n: int, length: int | None = None
    ) -> CrystalNN.NNData:
        """Return the neighbours of a site and their weights."""
        return self.memory.get_site(structure, n, lambda: self._find(structure, n, length))


class Fingerprints:
    """Order parameters of sites, and their statistics over a structure."""

    def __init__(self, neighbors: NearNeighbors) -> None:
        self._featurizer = CrystalNNFingerprint.from_preset("ops", cation_anion=False)
        self._featurizer.cnn = neighbors
        self._statistics = SiteStatsFingerprint(self, stats=("mean", "std_dev"))
        self._labels = self._featurizer.feature_labels()
        self.memory = Memory()

    def feature_labels(self) -> list[str]:
        """Return the names of the order parameters."""
        return self._labels

    def featurize(self, structure: Structure, n: int) -> list[float]:
        """Return the order parameters of one site."""
        return self.memory.get_site(structure, n, lambda: self._featurizer.featurize(structure, n))

    def describe_sites(self, structure: Structure) -> list[dict[str, float]]:
        """Return label → value, for each site."""
        return [
            dict(zip(self._labels, self.featurize(structure, n), strict=True))
            for n in range(len(structure))
        ]

    def describe_structure(self, structure: Structure, prototype_match: bool = False) -> np.ndarray:
        """Return the statistics over all sites, shape (2 × labels,).

        Electronegativities and distances are included even with ``prototype_match=False``, as in
        Robocrystallographer.
        """
        return np.array(self._statistics.featurize(structure))


class Prototypes(ReducedAflowPrototypeMatcher):
    """Finds the minerals similar to a structure, as rows of their table.

    Two structures can match only if their reduced cells contain the same number of atoms of each
    kind, which the matcher itself tests first. Prototypes that pass are compared in full.
    """

    def __init__(self, minerals: pd.DataFrame) -> None:
        super().__init__(mineral_db=minerals)
        self._by_amounts: dict[tuple[float, ...], list[tuple[int, Structure]]]
        self._by_amounts = defaultdict(list)
        for row, prototype in enumerate(minerals["structure"]):
            prototype = _reduce(prototype)
            self._by_amounts[_count_kinds(prototype)].append((row, prototype))

    # `get_prototypes` passes the result on as it is
    def _match_prototype(  # type: ignore[override]
        self, structure_matcher: StructureMatcher, s: Structure
    ) -> list[int]:
        structure = _reduce(s)
        return [
            row
            for row, prototype in self._by_amounts.get(_count_kinds(structure), ())
            if structure_matcher.fit_anonymous(prototype, structure, skip_structure_reduction=True)
        ]


def _reduce(structure: Structure) -> Structure:
    """Return the cell that StructureMatcher compares: Niggli's, then a primitive one."""
    return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()


def _count_kinds(structure: Structure) -> tuple[float, ...]:
    return tuple(sorted(structure.composition.values()))


class Minerals(MineralMatcher):
    """Names minerals, by fingerprints only if prototypes do not determine the name."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        super().__init__()
        # An AFLOW label may stand for several minerals; row numbers distinguish them.
        self.mineral_db = self.mineral_db.reset_index(drop=True)
        self._prototypes = Prototypes(self.mineral_db)
        self._measure = _replace_names(
            MineralMatcher._set_distance_matrix,
            get_structure_fingerprint=fingerprints.describe_structure,
        )

    def get_best_mineral_name(self, structure: Structure) -> dict[str, Any]:
        """Return the name of the mineral that the structure resembles most."""
        rows: Any = self._prototypes.get_prototypes(structure) or []
        names = set(self.mineral_db.loc[rows, "mineral"])
        if len(names) == 1:
            return {"type": names.pop(), "distance": -1, "n_species_type_match": True}
        return super().get_best_mineral_name(structure)

    def get_aflow_matches(self, structure: Structure) -> list[dict[str, Any]] | None:
        """Return the minerals of matching prototypes, the most similar first."""
        self._set_distance_matrix(structure)
        rows = self._prototypes.get_prototypes(structure) or []
        assert self._mineral_db is not None
        nearest_first = self._mineral_db[self._mineral_db.index.isin(rows)]
        return [
            {"type": row.mineral, "distance": row.distance, "structure": row.structure}
            for row in nearest_first.itertuples()
        ] or None

    def _set_distance_matrix(self, structure: Structure) -> None:
        self._measure(self, structure)


class Sites(SiteAnalyzer):
    """Geometry and bonds of sites, with cached next nearest neighbours.

    Robocrystallographer requests these once for each kind of summary.
    """

    def __init__(self, fingerprints: Fingerprints, *args: Any, **kwargs: Any) -> None:
        self._next_nearest = Memory()
        start = _replace_names(
            SiteAnalyzer.__init__, get_site_fingerprints=fingerprints.describe_sites
        )
        start(self, *args, **kwargs)

    def get_next_nearest_neighbors(
        self, site_index: int, inc_inequivalent_site_index: bool = True
    ) -> list[dict[str, Any]]:
        """Return the next nearest neighbours of a site."""
        find = super().get_next_nearest_neighbors
        key = site_index, inc_inequivalent_site_index
        return self._next_nearest.get_or(key, lambda: find(*key))


class NoNames:
    """Replaces robocrys' MoleculeNamer, which may query PubChem.

    It does so if Open Babel is installed. It has no option to disable this, and a text must not
    depend on the network.
    """

    def get_name_from_molecule_graph(self, molecule_graph: Any) -> None:
        """Return no name."""
        return None


class Condenser(StructureCondenser):
    """Collects the facts about a structure for a text."""

    _condense_components = _replace_names(
        StructureCondenser._condense_components, MoleculeNamer=NoNames
    )

    def __init__(self, symprec: float) -> None:
        neighbors = NearNeighbors()
        fingerprints = Fingerprints(neighbors)
        super().__init__(
            near_neighbors=neighbors, mineral_matcher=Minerals(fingerprints), symprec=symprec
        )
        self._memories = neighbors.memory, fingerprints.memory
        self._condense = _replace_names(
            StructureCondenser.condense_structure, SiteAnalyzer=partial(Sites, fingerprints)
        )

    def condense_structure(self, structure: Structure) -> dict[str, Any]:
        """Return the facts about a structure; cached results are discarded afterwards."""
        try:
            return _to_plain(self._condense(self, structure))
        finally:
            for memory in self._memories:
                memory.clear()


def _to_plain(value: Any) -> Any:
    """Return nested facts with Python's numbers, not ``np.int64(1)``."""
    if isinstance(value, dict):
        return {_to_plain(key): _to_plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_to_plain(one) for one in value]
    if isinstance(value, tuple):
        return tuple(_to_plain(one) for one in value)
    return value.item() if isinstance(value, np.generic) else value
