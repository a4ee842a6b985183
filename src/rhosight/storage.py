"""Files that are complete or absent, locks between processes, and run folders."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .errors import RhosightError

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_JSON = 2**26
"""Largest JSON file of a saved model, in bytes."""

LOCK = ".lock"
"""Name of the file by which :func:`lock_folder` locks a folder."""


def bundled_file(name: str) -> AbstractContextManager[Path]:
    """Return a context in which a file of the package's data has a path."""
    return resources.as_file(resources.files("rhosight") / "data" / name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft that replaces ``path`` if the block ends without an error.

    >>> with replacing(path) as draft:
    ...     draft.write_text("all or nothing")
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield draft
        with draft.open("rb") as file:  # the content reaches the disk before the name does
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that a file can be written: better known before its content is computed.

    Raises
    ------
    RhosightError
        If it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise RhosightError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise RhosightError(f"{path}: {path.parent} is not a writable folder; choose another")


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Try to lock a file for this process alone; yield whether it succeeded.

    The operating system releases the lock of a process that ends, however it ends, so no lock is
    ever stale.

    Raises
    ------
    OSError
        If the file system does not support locks.
    """
    with ExitStack() as stack:
        try:
            # no marker files where flock is missing: those of a killed process would stay
            stack.enter_context(FileLock(path, blocking=False, fallback_to_soft=False))
        except Timeout:
            yield False
        else:
            yield True


@contextmanager
def share_lock(path: Path) -> Iterator[bool]:
    """Try to lock a file together with other readers; yield whether it succeeded.

    It excludes :func:`hold_lock` on the same file, in every process. filelock has no such lock that
    ends with its process: its readers' locks need SQLite, or expire after a time.

    Raises
    ------
    OSError
        If the file system does not support locks.
    """
    with path.open("a+") as file:  # NFS grants a lock only on a file opened for reading and writing
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is created if necessary.

    A folder that holds no other file at the end is removed. A file system without locks admits
    every process.

    Raises
    ------
    RhosightError
        If another process works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            is_mine = stack.enter_context(hold_lock(folder / LOCK))
        except FileNotFoundError:  # another process has just removed the folder
            is_mine = False
        except OSError:
            is_mine = True
        if not is_mine:
            raise RhosightError(
                f"{folder}: another process is working here; wait until it ends, or stop it"
            )
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder, ignore_errors=True)


def open_run(run_dir: str | os.PathLike | None, settings: dict[str, Any]) -> Path | None:
    """Open a run folder: write its settings, or compare them with those in it.

    Raises
    ------
    RhosightError
        If the folder holds a run with other settings, or something that is not a run.
    """
    if run_dir is None:
        return None
    folder = Path(run_dir)
    path = folder / "settings.json"
    # JSON turns tuples into lists, so compare with what is read back
    settings = json.loads(json.dumps(settings))
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        differ = sorted(k for k in {**settings, **stored} if settings.get(k) != stored.get(k))
        if differ:
            raise RhosightError(
                f"{folder}: holds a run with other settings ({', '.join(differ)} differ); give "
                "another folder, or remove this one to start again"
            )
    else:
        # an interrupted start leaves a draft, whose name starts with a dot
        if folder.exists() and any(file.name[0] != "." for file in folder.iterdir()):
            raise RhosightError(f"{folder}: not empty and not a run; give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a regular file of a saved model.

    Raises
    ------
    ValueError
        If it is not a regular file, too large, nested too deep or no JSON object.
    OSError
        If it cannot be read.
    """
    if not path.is_file():  # a pipe would wait for ever
        raise ValueError(f"{path.name} is not a regular file")
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path.name} is larger than {MAX_JSON / 2**20:g} MiB")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deep") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def check_regular_files(folder: Path) -> None:
    """Raise ValueError if a folder holds anything but folders and regular files.

    A pipe in place of a file would wait for ever, and a device never end.
    """
    for path in folder.rglob("*"):
        if not path.is_file() and not path.is_dir():
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")


def validate_content(schema: type[BaseModel], content: Any) -> None:
    """Check content against a schema; ValueError names the first wrong entry."""
    from pydantic import ValidationError

    try:
        schema.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(": ".join(filter(None, (place, problem["msg"])))[:200]) from None
    except RhosightError as error:
        raise ValueError(str(error)) from None
