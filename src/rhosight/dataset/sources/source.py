"""The interface of every source of materials: list ids, and read one material."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...density.bare_crystal import Crystal, require_density
from ...density.charge_density import ChargeDensity


@dataclass(frozen=True)
class Entry:
    """Hold one material as a source gives it.

    Attributes
    ----------
    crystal
        Structure and grids, e/Å³, named by the material id, with provenance; or a
        :class:`rhosight.density.bare_crystal.BareCrystal` without grids.
    labels
        Column of :mod:`rhosight.dataset.schema` (or another one) → value, without missing values.
        Labels of a table beside the densities are not included, see :meth:`Source.table_row`.
    texts
        Extent → text, for texts that the source has already.
    """

    crystal: Crystal
    labels: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def density(self) -> ChargeDensity:
        """Return the crystal with its density.

        Raises
        ------
        RhosightError
            If it has none.
        """
        return require_density(self.crystal)


class Source(ABC):
    """Supply the materials of which :func:`rhosight.build` makes a dataset.

    A source is small and picklable: each worker of a cluster gets a copy and reads from it. It
    holds no key and no password; workers take those from their environment.
    """

    name: ClassVar[str]
    """Name of the source in ``rhosight data build NAME``."""

    batch: ClassVar[int] = 8
    """Number of materials that a worker reads at a time, and that are lost if it is killed."""

    @abstractmethod
    def ids(self) -> list[str]:
        """List the ids of all materials, sorted.

        It is called once, before any ``read``, in the main process. It may look up data for all
        materials at once and keep them on the object. Materials known to be unusable are in
        :meth:`problems` instead.
        """

    @abstractmethod
    def read(self, material_id: str) -> Entry:
        """Read one material, in a worker.

        Raises
        ------
        RhosightError
            If it cannot be used; the message names the file and the cure.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings that affect the crystals and densities, as JSON.

        Builds with other settings are different builds. The settings exclude the results of
        :meth:`state` and :meth:`table_row`.
        """

    def state(self, material_id: str) -> str:
        """Return a short text that changes whenever the input of a material changes.

        A material with another state is read again. An empty text means that it never changes.
        """
        return ""

    def table_row(self, material_id: str) -> dict[str, Any]:
        """Return its labels in a table: column → value, None if missing.

        They are separate from :meth:`read`, so that a corrected table needs no reading. A label
        from reading takes precedence.
        """
        return {}

    def problems(self) -> dict[str, str]:
        """Return id (or file name) → why it is not in :meth:`ids`; known after that call."""
        return {}

    def about(self) -> dict[str, Any]:
        """Return metadata: name, description, attribution, licence, units of targets."""
        return {}
