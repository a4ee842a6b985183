"""What the page and its API ask of the worker processes, and whose files are whose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

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
    """

    def __init__(self, pool: Pool, store: Store) -> None:
        self._pool = pool
        self._store = store

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
        if file:
            key, arguments = Path(file).parent.name, {"name": Path(file).name, "kind": kind}
        else:
            key, arguments = self._store.new(), {"material": material}
        self._store.own(visitor, key)
        answered = False
        try:
            folder = self._store.folder(key)
            async for update in self._pool.run(visitor, "analyse", folder, arguments):
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
        hkl: list[int] | None,
        offset: float,
        window: float,
        form: str,
    ) -> AsyncIterator[Update]:
        """Densities on a plane; see :func:`rhosight.app.tasks.slices`."""
        arguments = {"hkl": hkl, "offset": offset, "window": window, "form": form}
        async for update in self._pool.run(visitor, "slices", self._store.folder(key), arguments):
            yield update

    async def block(self, visitor: str, key: str, kind: str, form: str) -> AsyncIterator[Update]:
        """Atoms and a density in the cell; see :func:`rhosight.app.tasks.block`."""
        arguments = {"kind": kind, "form": form}
        async for update in self._pool.run(visitor, "block", self._store.folder(key), arguments):
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
