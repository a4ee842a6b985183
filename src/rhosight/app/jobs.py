"""What the page and its API ask of the worker processes, and whose files are whose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path

from . import checks as arguments
from .pool import Pool, Update
from .store import Store


class Jobs:
    """Each method gives updates, the last with the result, and raises RhosightError.

    Parameters
    ----------
    pool
        Where jobs run.
    store
        Where their files are.
    materials
        Ids of the bundled materials.
    """

    def __init__(self, pool: Pool, store: Store, materials: Collection[str]) -> None:
        self._pool = pool
        self._store = store
        self._materials = materials

    async def analyse(
        self, visitor: str, file: str | None, material: str | None, kind: str
    ) -> AsyncIterator[Update]:
        """Read a file and predict; the result has the ``key`` that the other jobs take.

        Parameters
        ----------
        visitor
            Whose job it is, and with whom its files go.
        file
            An upload's path.
        material
            Id of a bundled material, without a file.
        kind
            What a density file holds.
        """
        key = Path(file).parent.name if file else self._store.new()
        self._store.own(visitor, key)
        answered = False
        try:
            kind = arguments.kind(kind)
            if file:
                asked = {"name": Path(file).name, "kind": kind}
            else:
                asked = {"material": arguments.material_id(material, self._materials)}
            folder = self._store.folder(key)
            async for update in self._pool.run(visitor, "analyse", folder, asked):
                if update.result is not None:
                    answered = True
                    update.result["key"] = key
                yield update
        finally:
            if not answered:
                self._store.delete(key)

    async def slices(
        self,
        visitor: str,
        key: str,
        hkl: tuple[int, int, int],
        offset: float,
        window: float,
        form: str,
    ) -> AsyncIterator[Update]:
        """Densities on a plane, all indices 0 for the densest; see
        :func:`rhosight.app.tasks.slices`.
        """
        asked = {**arguments.plane(*hkl, offset, window), "form": form}
        async for update in self._pool.run(visitor, "slices", self._store.folder(key), asked):
            yield update

    async def block(self, visitor: str, key: str, kind: str, form: str) -> AsyncIterator[Update]:
        """Atoms and a density in the cell; see :func:`rhosight.app.tasks.block`."""
        asked = {"kind": arguments.shown_kind(kind), "form": form}
        async for update in self._pool.run(visitor, "block", self._store.folder(key), asked):
            yield update

    async def explain(self, visitor: str, key: str) -> AsyncIterator[Update]:
        """What each modality adds; see :func:`rhosight.app.tasks.explain`."""
        async for update in self._pool.run(visitor, "explain", self._store.folder(key), {}):
            yield update

    def forget(self, key: str) -> None:
        """Delete what is kept of a material."""
        self._store.delete(key)

    def leave(self, visitor: str) -> None:
        """Delete what is kept for a visitor."""
        self._store.leave(visitor)
