"""What every source of materials is: a list of ids, and a way to read one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...density.charge_density import ChargeDensity


@dataclass(frozen=True)
class Entry:
    """One material as a source gives it.

    Attributes
    ----------
    density
        Structure and grids, e/Å³, named by the material id, with provenance.
    labels
        Column of :mod:`rhosight.dataset.schema` (or a further one) → value; missing ones are left out.
        Those of a table beside the densities are not among them: :meth:`Source.table_row`.
    texts
        Extent → text, as far as the source has it already.
    """

    density: ChargeDensity
    labels: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


class Source(ABC):
    """Where materials come from. :func:`rhosight.build` turns one into a dataset.

    A source is small and can be pickled: workers of a cluster get a copy each and read from it.
    It holds no key and no password; those come from the environment of the worker.
    """

    name: ClassVar[str]
    """As in ``rhosight data build NAME``."""

    batch: ClassVar[int] = 8
    """Materials that a worker reads in one go. Those in flight are lost when it is killed."""

    @abstractmethod
    def ids(self) -> list[str]:
        """The ids of all materials, sorted; called once, before any ``read``, in the main process.

        May look up (and keep on the object) what is asked for all materials at once. Materials
        that are already known to be unusable are in :meth:`problems` instead.
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
        """All that decides about the densities, as JSON: a build of other settings is another one.
        What :meth:`state` and :meth:`table_row` tell is not among it.
        """

    def state(self, material_id: str) -> str:
        """What tells whether the input of a material has changed since it was read, in few words;
        empty if nothing does. A material whose state is another one is read again.
        """
        return ""

    def table_row(self, material_id: str) -> dict[str, Any]:
        """Its labels in a table beside the densities: every column → value, None where missing.

        Apart from :meth:`read`, so that a corrected table costs no reading. A label that reading
        gives goes before one of the table.
        """
        return {}

    def problems(self) -> dict[str, str]:
        """Id (or file name) → why it is not among :meth:`ids`; known after these."""
        return {}

    def about(self) -> dict[str, Any]:
        """File metadata: name, description, attribution, licence, units of further targets."""
        return {}
