"""Run the jobs of the page and its API in worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from .checks import (
    check_kind,
    check_material_id,
    check_plane,
    check_search,
    check_surface,
    check_unit,
)
from .pool import Pool, Update
from .store import Store


class Jobs:
    """Run jobs for visitors.

    Each job yields updates, the last one with the result, and raises RhosightError for wrong input.

    Parameters
    ----------
    pool
        Runs the jobs.
    store
        Keeps their files.
    materials
        Ids of the bundled materials.
    """

    def __init__(self, pool: Pool, store: Store, materials: Collection[str]) -> None:
        self._pool = pool
        self._store = store
        self._materials = materials

    async def analyse(
        self, visitor: str, file: str | None, material: str | None, kind: str, unit: str = ""
    ) -> AsyncIterator[Update]:
        """Read a file and predict; the result has the ``key`` that the other jobs take.

        Parameters
        ----------
        visitor
            Owner of the job and its files.
        file
            Path of an upload.
        material
            Id of a bundled material, used without a file.
        kind
            Kind of density in the file.
        unit
            Unit of its values; empty for that of the format.
        """
        key = Path(file).parent.parent.name if file else self._store.create_folder()
        self._store.assign(visitor, key)
        is_answered = False
        try:
            said = {"kind": check_kind(kind), "unit": check_unit(unit)}
            if file:
                arguments = {"name": Path(file).name, **said}
            else:
                arguments = {"material": check_material_id(material, self._materials)}
            folder = self._store.open_folder(key)
            async for update in self._pool.run(visitor, "analyse", folder, arguments):
                if update.result is not None:
                    is_answered = True
                    update.result["key"] = key
                yield update
        finally:
            if not is_answered:
                self._store.delete(key)

    async def cut_slices(
        self,
        visitor: str,
        key: str,
        hkl: tuple[Any, Any, Any],
        offset: Any,
        window: Any,
        form: str,
    ) -> AsyncIterator[Update]:
        """Cut the densities along a plane, see :func:`rhosight.app.tasks.cut_slices`.

        The indices are all 0 for the densest plane.
        """
        arguments = {**check_plane(*hkl, offset, window), "form": form}
        folder = self._store.open_folder(key)
        async for update in self._pool.run(visitor, "slices", folder, arguments):
            yield update

    async def make_block(
        self, visitor: str, key: str, kind: str, form: str
    ) -> AsyncIterator[Update]:
        """Return atoms and density in the cell, see :func:`rhosight.app.tasks.make_block`."""
        arguments = {"kind": check_surface(kind), "form": form}
        folder = self._store.open_folder(key)
        async for update in self._pool.run(visitor, "block", folder, arguments):
            yield update

    async def explain(self, visitor: str, key: str) -> AsyncIterator[Update]:
        """Explain the prediction, see :func:`rhosight.app.tasks.explain`."""
        async for update in self._pool.run(visitor, "explain", self._store.open_folder(key), {}):
            yield update

    async def design(self, visitor: str, arguments: dict[str, Any]) -> AsyncIterator[Update]:
        """Search for crystals, see :func:`rhosight.app.proposals.propose`.

        ``arguments`` are those of :func:`rhosight.app.checks.check_search`.
        """
        checked = check_search(**arguments)
        key = self._store.create_folder()
        self._store.assign(visitor, key)
        try:
            folder = self._store.open_folder(key)
            async for update in self._pool.run(visitor, "design", folder, checked):
                yield update
        finally:
            self._store.delete(key)

    def forget(self, key: str) -> None:
        """Delete the files of a material."""
        self._store.delete(key)

    def leave(self, visitor: str) -> None:
        """Delete the files of a visitor."""
        self._store.leave(visitor)
