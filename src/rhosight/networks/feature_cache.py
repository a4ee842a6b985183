"""Features on disk, computed once for each density or text, encoder and setting.

The files are shared by folds, runs and commands. A key is a hash of all that a feature depends on,
so nothing in the cache becomes wrong; files that were not read for long are removed when the cache
is too large. Several processes can use it at a time: a file appears at once, whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..storage import replacing

CACHE_VARIABLE, SIZE_VARIABLE = "RHOSIGHT_CACHE", "RHOSIGHT_CACHE_MB"
DEFAULT_MEGABYTES = 500.0
"""Largest size of the cache, unless the environment variable RHOSIGHT_CACHE_MB gives another."""


def cache_folder() -> Path:
    """Return RHOSIGHT_CACHE, or ``rhosight`` in the user's folder for caches."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    above = os.environ.get("XDG_CACHE_HOME")
    return (Path(above) if above else Path.home() / ".cache") / "rhosight"


class FeatureCache:
    """Arrays by key, in files of at most a given total size.

    Parameters
    ----------
    folder
        Where the files are; :func:`cache_folder` by default. A folder that cannot be written is not
        used.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = (folder or cache_folder()) / "features"
        self._written = 0

    @staticmethod
    def key(*parts: Any) -> str:
        """Return the key of JSON values, bytes and arrays."""
        digest = hashlib.sha256()
        for part in parts:
            if isinstance(part, np.ndarray):
                digest.update(f"{part.dtype}{part.shape}".encode())
                data: bytes | memoryview = np.ascontiguousarray(part).data
            else:
                data = json.dumps(part, sort_keys=True).encode()
            digest.update(data)
            digest.update(b"\0")
        return digest.hexdigest()

    def get(self, key: str) -> list[np.ndarray] | None:
        """Return the arrays of a key, or None if they are not there or damaged."""
        path = self._path(key)
        try:
            arrays = load_file(path)
            os.utime(path)  # read lately: removed last
        except (OSError, SafetensorError):
            return None
        return [arrays[str(number)] for number in range(len(arrays))]

    def put(self, key: str, arrays: list[np.ndarray]) -> None:
        """Store arrays; without space or permission they are computed again next time."""
        path = self._path(key)
        data = save({str(number): np.ascontiguousarray(a) for number, a in enumerate(arrays)})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(data)
        except OSError:
            return
        self._written += len(data)

    def tidy(self) -> None:
        """Remove files that were not read for long if the cache is too large."""
        if not self._written:
            return
        self._written = 0
        limit = 1e6 * float(os.environ.get(SIZE_VARIABLE, DEFAULT_MEGABYTES))
        files = []
        for path in self.folder.glob("*/*"):
            try:
                state = path.stat()
            except OSError:  # another process has removed it
                continue
            files.append((state.st_mtime, state.st_size, path))
        size = sum(own for _, own, _ in files)
        for _, own, path in sorted(files):
            if size <= limit:
                break
            path.unlink(missing_ok=True)
            size -= own

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.safetensors"
