"""Run folders: what finished is kept, a file is there whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import RhosightError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to write to; it takes the place of ``path`` when the block ends without an error.

    >>> with replacing(path) as draft:
    ...     draft.write_text("all or nothing")
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        with draft.open("rb") as file:  # on the disk, before the name says so
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[bool]:
    """Whether this process holds a lock file now, alone or with others that share it. The system
    lifts the lock of a process that ends, however it ends: none is ever stale.

    Raises
    ------
    OSError
        If the file system has no locks.
    """
    # to read and to write: NFS locks no file that is not open for what the lock allows
    with path.open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        else:
            held = True
        yield held


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it is not there; a file system without
    locks lets all in.

    Raises
    ------
    RhosightError
        If another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        mine = True
        with suppress(OSError):
            mine = stack.enter_context(locked(folder / ".lock"))
        if not mine:
            raise RhosightError(
                f"{folder}: another process is at work here; wait until it has ended, or stop it"
            )
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # nothing was begun
                shutil.rmtree(folder, ignore_errors=True)


def open_run(run_dir: str | os.PathLike | None, settings: dict[str, Any]) -> Path | None:
    """A run folder, its settings written or, if they are there, compared.

    Raises
    ------
    RhosightError
        If it holds a run with other settings, or something that is not a run.
    """
    if run_dir is None:
        return None
    folder = Path(run_dir)
    path = folder / "settings.json"
    # JSON turns tuples into lists, so compare what is read back
    settings = json.loads(json.dumps(settings))
    if path.exists():
        there = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(k for k in {**settings, **there} if settings.get(k) != there.get(k))
        if differ:
            raise RhosightError(
                f"{folder}: holds a run with other settings ({', '.join(differ)} differ); give "
                "another folder, or remove this one to start anew"
            )
    else:
        # a dot: the draft that an interrupted start left behind
        if folder.exists() and any(file.name[0] != "." for file in folder.iterdir()):
            raise RhosightError(f"{folder}: not empty and not a run; give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder
