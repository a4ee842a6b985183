"""Files of open pages: one folder for each material, deleted when its visitor leaves.

A folder is known by a random name that only its visitor has seen. All lie in one temporary folder,
which goes when the server does.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ..errors import RhosightError
from .limits import Limits

GONE = "this material is no longer here; send the file or choose the material again"

_KEY = re.compile(r"[A-Za-z0-9_-]{22}")
_UNWANTED = re.compile(r"[^\w.+ -]|^[.\s]+|\s+$")
_LONGEST_NAME = 80


class Store:
    """Folders by key. Used from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._temporary = tempfile.TemporaryDirectory(
            prefix="rhosight-", ignore_cleanup_errors=True
        )
        self.root = Path(self._temporary.name)
        self._used: dict[str, float] = {}
        self._visitors: dict[str, set[str]] = {}

    def new(self) -> str:
        """The key of a new, empty folder."""
        key = secrets.token_urlsafe(16)
        (self.root / key).mkdir()
        self._used[key] = time.monotonic()
        return key

    def folder(self, key: str) -> Path:
        """The folder of a key, kept for longer from now on.

        Raises
        ------
        RhosightError
            If there is none, or no longer.
        """
        if not isinstance(key, str) or key not in self._used:  # a request may hold anything
            raise RhosightError(GONE)
        self._used[key] = time.monotonic()
        return self.root / key

    def upload(self, handle: str) -> Path:
        """The file that ``key/name`` stands for.

        Raises
        ------
        RhosightError
            If no such file was sent, or it was read before.
        """
        key, _, name = handle.partition("/")
        path = self.root / key / name
        if not _KEY.fullmatch(key) or key not in self._used or name != safe_name(name):
            raise RhosightError("no such upload; send the file again")
        return path

    def own(self, visitor: str, key: str) -> None:
        """Delete this folder when its visitor leaves."""
        self._visitors.setdefault(visitor, set()).add(key)

    def delete(self, key: str) -> None:
        """Delete a folder and what is in it."""
        if isinstance(key, str) and self._used.pop(key, None) is not None:
            shutil.rmtree(self.root / key, ignore_errors=True)

    def leave(self, visitor: str) -> None:
        """Delete all folders of a visitor."""
        for key in self._visitors.pop(visitor, ()):
            self.delete(key)

    def sweep(self) -> None:
        """Delete what nobody asked for in a long time."""
        oldest = time.monotonic() - self._limits.keep_seconds
        for key in [key for key, used in self._used.items() if used < oldest]:
            self.delete(key)
        for visitor, keys in list(self._visitors.items()):
            keys &= self._used.keys()
            if not keys:
                del self._visitors[visitor]

    def size(self) -> int:
        """Bytes of all files."""
        total = 0
        for parent, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # a worker has just removed it
                    total += os.stat(os.path.join(parent, name)).st_size
        return total

    def close(self) -> None:
        """Delete everything."""
        self._temporary.cleanup()


def safe_name(name: str) -> str:
    """A file name without folders, control characters, or what a shell or a page could read as
    more than a name; its end, which may tell the format, is kept.
    """
    cleaned = _UNWANTED.sub("_", name.replace("\\", "/").rpartition("/")[2])[-_LONGEST_NAME:]
    return cleaned if cleaned.strip("._ ") else "upload"
