"""Files of open pages: one folder per material, deleted when its visitor leaves.

A folder has a random name that only its visitor knows. All folders are in one temporary folder,
which is deleted when the server stops.
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

GONE = "this material is no longer available; send the file or choose the material again"

UPLOADS = "upload"
"""Folder for the file that a visitor sent. What the server writes for a material lies above it, so
that no upload is taken for the server's own file."""

_KEY = re.compile(r"[A-Za-z0-9_-]{22}")
_UNWANTED = re.compile(r"[^\w.+ -]|^[.\s]+|\s+$")
_MAX_NAME = 80


class Store:
    """Keep folders by key. Used from one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._temporary = tempfile.TemporaryDirectory(
            prefix="rhosight-", ignore_cleanup_errors=True
        )
        self.root = Path(self._temporary.name)
        self._used: dict[str, float] = {}
        self._visitors: dict[str, set[str]] = {}

    def create_folder(self) -> str:
        """Make an empty folder and return its key."""
        key = secrets.token_urlsafe(16)
        (self.root / key / UPLOADS).mkdir(parents=True)
        self._used[key] = time.monotonic()
        return key

    def open_folder(self, key: str) -> Path:
        """Return the folder of a key and extend the time for which it is kept.

        Raises
        ------
        RhosightError
            If the folder does not exist or was deleted.
        """
        if not isinstance(key, str) or key not in self._used:  # a request may contain anything
            raise RhosightError(GONE)
        self._used[key] = time.monotonic()
        return self.root / key

    def find_upload(self, handle: str) -> Path:
        """Return the path of the upload ``key/name``.

        Raises
        ------
        RhosightError
            If no such file was sent, or it was read before.
        """
        key, _, name = handle.partition("/")
        path = self.root / key / UPLOADS / name
        if not _KEY.fullmatch(key) or key not in self._used or name != make_safe_name(name):
            raise RhosightError("no such upload; send the file again")
        return path

    def assign(self, visitor: str, key: str) -> None:
        """Assign a folder to a visitor; it is deleted when the visitor leaves."""
        self._visitors.setdefault(visitor, set()).add(key)

    def delete(self, key: str) -> None:
        """Delete a folder and its content."""
        if isinstance(key, str) and self._used.pop(key, None) is not None:
            shutil.rmtree(self.root / key, ignore_errors=True)

    def leave(self, visitor: str) -> None:
        """Delete all folders of a visitor."""
        for key in self._visitors.pop(visitor, ()):
            self.delete(key)

    def delete_unused(self) -> None:
        """Delete folders that were not used for a long time."""
        oldest = time.monotonic() - self._limits.keep_seconds
        for key in [key for key, used in self._used.items() if used < oldest]:
            self.delete(key)
        for visitor, keys in list(self._visitors.items()):
            keys &= self._used.keys()
            if not keys:
                del self._visitors[visitor]

    def measure_size(self) -> int:
        """Return the total size of all files, bytes."""
        total = 0
        for parent, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # a worker has just removed it
                    total += os.stat(os.path.join(parent, name)).st_size
        return total

    def close(self) -> None:
        """Delete everything."""
        self._temporary.cleanup()


def make_safe_name(name: str) -> str:
    """Return a file name without folders, control characters and markup.

    The end of the name is kept, because it may tell the format.
    """
    cleaned = _UNWANTED.sub("_", name.replace("\\", "/").rpartition("/")[2])[-_MAX_NAME:]
    return cleaned if cleaned.strip("._ ") else "upload"
