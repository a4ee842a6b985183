"""The folder of a saved model: there at once or not at all, never in place of something else."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RhosightError

CONFIG = "config.json"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft of a saved model; it takes the place of ``folder`` when the block ends without an
    error. A folder that holds something else is refused."""
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        old = draft.with_name(f"{draft.name}.old")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(draft, folder)
        except BaseException:
            if old.exists():
                os.replace(old, folder)
            raise
        folder.chmod(0o755)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


_OURS = re.compile(r"(config\.json|model\.safetensors|README\.md|\w+_backbone|member-\d+)$")


def _is_ours(folder: Path) -> bool:
    """Whether rhosight wrote the model, or the encoder, in a folder."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and ("rhosight_format" in config or "retrieval" in config)


def check_new_folder(folder: Path) -> None:
    """That a model can be saved there: better known before training than after.

    Raises
    ------
    RhosightError
        If the folder holds something else, or cannot be made.
    """
    if folder.is_dir():
        if any(folder.iterdir()) and not _is_ours(folder):
            raise RhosightError(f"{folder}: not empty and not a model; choose another folder")
        if others := sorted(p.name for p in folder.iterdir() if not _OURS.match(p.name)):
            raise RhosightError(
                f"{folder}: holds a model and {', '.join(others[:3])}, which would be lost; move "
                "them away, or choose another folder"
            )
    elif folder.exists():
        raise RhosightError(f"{folder}: is a file; choose another name for the folder")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RhosightError(f"{folder}: {above} is no writable folder; choose another place")
