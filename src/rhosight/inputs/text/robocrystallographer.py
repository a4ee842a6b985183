"""Robocrystallographer's texts, equal to its own to the last character and made faster.

Called once for each structure, it spends most of its time on what it did before: it reduces all of
its 180 mineral prototypes again to compare a structure with each, and finds the neighbours of each
site three times. Here prototypes are reduced once for a process, only those with the structure's
number of atoms of each kind are compared with it, and what is computed for a site is kept while its
structure is described. No number is computed differently, so no rounding or tie falls otherwise.

Its classes are extended where they allow it. Where a class or function is fixed in their code, a
copy of that one method is made that sees another under the same name (:func:`_seeing`): its modules
stay as they are, for whoever else uses them.
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
    """Describes one structure after the other; make one and keep it.

    Texts are plain, without site labels such as Fe(1), which is the Materials Project's choice for
    its own descriptions. Molecules are not named.
    """

    def __init__(self, symprec: float) -> None:
        self._condenser = Condenser(symprec)
        self._describer = StructureDescriber(describe_symmetry_labels=False)
        self._lock = Lock()

    def describe(self, structure: Structure) -> str:
        """The text, as Robocrystallographer writes it. It raises errors of many types for
        structures that it cannot describe.
        """
        with self._lock:  # both keep the structure at hand in their attributes
            return self._describer.describe(self._condenser.condense_structure(structure))


def _seeing(function: Callable, **names: Any) -> Callable:
    """The function with some of its module's names replaced, for this copy alone."""
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
    """What was computed for the sites of the structures at hand."""

    def site(self, structure: Structure, index: int, compute: Callable[[], Value]) -> Value:
        """The value of one site; ``compute`` is called where it is not known. The structure counts
        by its content, to the last bit, since it gets copied on the way.
        """
        content = (
            structure.lattice.matrix.tobytes(),
            structure.frac_coords.tobytes(),
            tuple(structure.species),
        )
        return self.get_or((content, index), compute)

    def get_or(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """The value under a key; ``compute`` is called where there is none."""
        if key not in self:
            self[key] = compute()
        return self[key]


class BondGraph(StructureGraph):
    """Bonds; the neighbours of a site are asked for again with each of its own neighbours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._connected = Memory()
        super().__init__(*args, **kwargs)

    def get_connected_sites(
        self, n: int, jimage: tuple[int, int, int] = (0, 0, 0)
    ) -> list[ConnectedSite]:
        find = super().get_connected_sites
        return list(self._connected.get_or((n, jimage), lambda: find(n, jimage)))


class NearNeighbors(CrystalNN):
    """CrystalNN, which both bonds and fingerprints of sites are made from. Which faces of a Voronoi
    cell touch each other does not enter, so it is not computed.
    """

    _find = _seeing(
        CrystalNN.get_nn_data, VoronoiNN=partial(VoronoiNN, compute_adj_neighbors=False)
    )
    get_bonded_structure = _seeing(CrystalNN.get_bonded_structure, StructureGraph=BondGraph)

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()

    def get_nn_data(
        self, structure: Structure, n: int, length: int | None = None
    ) -> CrystalNN.NNData:
        return self.memory.site(structure, n, lambda: self._find(structure, n, length))


class Fingerprints:
    """Order parameters of sites, and their mean and standard deviation over a structure's sites."""

    def __init__(self, neighbors: NearNeighbors) -> None:
        self._featurizer = CrystalNNFingerprint.from_preset("ops", cation_anion=False)
        self._featurizer.cnn = neighbors
        self._statistics = SiteStatsFingerprint(self, stats=("mean", "std_dev"))
        self._labels = self._featurizer.feature_labels()
        self.memory = Memory()

    def feature_labels(self) -> list[str]:
        return self._labels

    def featurize(self, structure: Structure, n: int) -> list[float]:
        return self.memory.site(structure, n, lambda: self._featurizer.featurize(structure, n))

    def of_sites(self, structure: Structure) -> list[dict[str, float]]:
        """Label → value, for each site."""
        return [
            dict(zip(self._labels, self.featurize(structure, n), strict=True))
            for n in range(len(structure))
        ]

    def of_structure(self, structure: Structure, prototype_match: bool = False) -> np.ndarray:
        """Shape (2 × labels,). Electronegativities and distances count even with
        ``prototype_match=False``, as in Robocrystallographer.
        """
        return np.array(self._statistics.featurize(structure))


class Prototypes(ReducedAflowPrototypeMatcher):
    """Finds the minerals that a structure is like, as rows of their table.

    Two structures can match only if their reduced cells hold the same number of atoms of each kind:
    the matcher's own first two tests. The few prototypes that pass are compared in full.
    """

    def __init__(self, minerals: pd.DataFrame) -> None:
        super().__init__(mineral_db=minerals)
        self._by_amounts: dict[tuple[float, ...], list[tuple[int, Structure]]]
        self._by_amounts = defaultdict(list)
        for row, prototype in minerals["structure"].items():
            prototype = _reduced(prototype)
            self._by_amounts[_amounts(prototype)].append((row, prototype))

    def _match_prototype(self, structure_matcher: StructureMatcher, s: Structure) -> list[int]:
        structure = _reduced(s)
        return [
            row
            for row, prototype in self._by_amounts.get(_amounts(structure), ())
            if structure_matcher.fit_anonymous(prototype, structure, skip_structure_reduction=True)
        ]


def _reduced(structure: Structure) -> Structure:
    """The cell that StructureMatcher compares: Niggli's, then a primitive one."""
    return structure.get_reduced_structure(reduction_algo="niggli").get_primitive_structure()


def _amounts(structure: Structure) -> tuple[float, ...]:
    return tuple(sorted(structure.composition.values()))


class Minerals(MineralMatcher):
    """Names minerals; fingerprints are computed only where prototypes leave the name open."""

    def __init__(self, fingerprints: Fingerprints) -> None:
        super().__init__()
        # Rows of one AFLOW label are several minerals; numbers tell them apart.
        self.mineral_db = self.mineral_db.reset_index(drop=True)
        self._prototypes = Prototypes(self.mineral_db)
        self._measure = _seeing(
            MineralMatcher._set_distance_matrix,
            get_structure_fingerprint=fingerprints.of_structure,
        )

    def get_best_mineral_name(self, structure: Structure) -> dict[str, Any]:
        rows = self._prototypes.get_prototypes(structure) or []
        names = set(self.mineral_db.loc[rows, "mineral"])
        if len(names) == 1:
            return {"type": names.pop(), "distance": -1, "n_species_type_match": True}
        return super().get_best_mineral_name(structure)

    def get_aflow_matches(self, structure: Structure) -> list[dict[str, Any]] | None:
        self._set_distance_matrix(structure)
        rows = self._prototypes.get_prototypes(structure) or []
        nearest_first = self._mineral_db[self._mineral_db.index.isin(rows)]
        return [
            {"type": row.mineral, "distance": row.distance, "structure": row.structure}
            for row in nearest_first.itertuples()
        ] or None

    def _set_distance_matrix(self, structure: Structure) -> None:
        self._measure(self, structure)


class Sites(SiteAnalyzer):
    """Geometry and bonds of sites. Next nearest neighbours are asked for once for each kind of
    summary.
    """

    def __init__(self, fingerprints: Fingerprints, *args: Any, **kwargs: Any) -> None:
        self._next_nearest = Memory()
        start = _seeing(SiteAnalyzer.__init__, get_site_fingerprints=fingerprints.of_sites)
        start(self, *args, **kwargs)

    def get_next_nearest_neighbors(
        self, site_index: int, inc_inequivalent_site_index: bool = True
    ) -> list[dict[str, Any]]:
        find = super().get_next_nearest_neighbors
        key = site_index, inc_inequivalent_site_index
        return self._next_nearest.get_or(key, lambda: find(*key))


class NoNames:
    """In the place of robocrys' MoleculeNamer, which asks PubChem where Open Babel is installed and
    offers no option against it; a text must need neither network nor chance.
    """

    def get_name_from_molecule_graph(self, molecule_graph: Any) -> None:
        return None


class Condenser(StructureCondenser):
    """All of a text's facts about a structure."""

    _condense_components = _seeing(StructureCondenser._condense_components, MoleculeNamer=NoNames)

    def __init__(self, symprec: float) -> None:
        neighbors = NearNeighbors()
        fingerprints = Fingerprints(neighbors)
        super().__init__(
            near_neighbors=neighbors, mineral_matcher=Minerals(fingerprints), symprec=symprec
        )
        self._memories = neighbors.memory, fingerprints.memory
        self._condense = _seeing(
            StructureCondenser.condense_structure, SiteAnalyzer=partial(Sites, fingerprints)
        )

    def condense_structure(self, structure: Structure) -> dict[str, Any]:
        try:
            return self._condense(self, structure)
        finally:
            for memory in self._memories:
                memory.clear()
