"""Files that are complete or absent, and locks between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rhosight.errors import RhosightError
from rhosight.storage import hold_lock, lock_folder, open_run, replacing, share_lock

HOLD = """
import os, sys, time
from pathlib import Path
from rhosight.storage import hold_lock, share_lock
with {lock}(Path(sys.argv[1])) as mine:
    assert mine
    if {forks} and os.fork() == 0:  # a worker that outlives its parent
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(lock: str, path: Path, forks: bool = False) -> Iterator[subprocess.Popen]:
    """A process that holds the lock, and may have a child."""
    command = [sys.executable, "-c", HOLD.format(lock=lock, forks=forks), str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def is_free(lock, path: Path) -> bool:
    with lock(path) as mine:
        return mine


def test_a_lock_excludes_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with holder("hold_lock", path, forks=True) as process:
        assert not is_free(hold_lock, path) and not is_free(share_lock, path)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30  # its child lives longer, but gives the lock up
        while not is_free(hold_lock, path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert is_free(share_lock, path)


def test_readers_share_a_lock_and_exclude_a_writer(tmp_path):
    path = tmp_path / "lock"
    with holder("share_lock", path):
        assert is_free(share_lock, path) and not is_free(hold_lock, path)
    assert is_free(hold_lock, path)


def test_two_holders_in_one_process_exclude_each_other(tmp_path):
    with hold_lock(tmp_path / "lock") as mine:
        assert mine and not is_free(hold_lock, tmp_path / "lock")
        assert not is_free(share_lock, tmp_path / "lock")


def test_a_folder_admits_one_process(tmp_path):
    folder = tmp_path / "build"
    refused = pytest.raises(RhosightError, match="another process is working here")
    with lock_folder(folder), refused, lock_folder(folder):
        pass
    assert not folder.exists()  # nothing was started


def test_a_draft_replaces_a_file_only_if_it_is_complete(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(ValueError), replacing(path) as draft:
        draft.write_text("new")
        raise ValueError
    assert path.read_text() == "old"
    with replacing(path) as draft:
        draft.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_run_folder_keeps_its_settings(tmp_path):
    assert open_run(None, {}) is None
    folder = open_run(tmp_path / "run", {"seeds": (1, 2)})
    assert open_run(folder, {"seeds": (1, 2)}) == folder
    with pytest.raises(RhosightError, match="seeds differ"):
        open_run(folder, {"seeds": (1, 3)})
