"""The folder of a saved model: there at once or not at all, never in place of something else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RhosightError

FORMAT = 1
"""Version of the saved folder; a folder of another one is refused."""
MODELS = Path(__file__).parents[1] / "data" / "models"
BUNDLED_MODELS: dict[str, str] = {
    "best": "c6e150654ac20a7a1faf0b3a88c331dc11557783bffe7f1c5cba98320cac9d84",
    "no-dft": "cd1786e95352bdb90911972148aa32814aeeae9788d5a909d33bdab2ff9d0f31",
}
"""Models that come with the package, and the SHA-256 of their weights."""
WEIGHTS, CARD = "model.safetensors", "README.md"

CONFIG = "config.json"


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A draft of a saved model; it takes the place of ``folder`` when the block ends without an
    error. A folder that holds something else is refused.
    """
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


def bundled_folder(name: str) -> Path:
    """Where a model of :data:`BUNDLED_MODELS` lies, its weights checked against their SHA-256.

    Raises
    ------
    RhosightError
        If the weights are not those that were packaged.
    """
    weights = MODELS / name / WEIGHTS
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "no file"
    if found != BUNDLED_MODELS[name]:
        raise RhosightError(f"{weights}: not the weights that came with rhosight; install it again")
    return weights.parent


def read_config(folder: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Where a saved model lies (fetched if it is a hub id), and its config."""
    path = Path(folder)
    if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith("."):
        path = _from_hub(str(folder))
    if not path.is_dir() or not all((path / name).exists() for name in (CONFIG, WEIGHTS)):
        raise RhosightError(
            f"{folder}: not a rhosight model; give {' or '.join(BUNDLED_MODELS)}, or a folder with "
            f"{CONFIG} and {WEIGHTS}, as `rhosight train` writes it"
        )
    try:
        config = json.loads((path / CONFIG).read_text())
        if config.get("rhosight_format") != FORMAT:
            raise ValueError(f"format {config.get('rhosight_format')!r}, expected {FORMAT}")
        config.setdefault("kind", "network")
    except (ValueError, AttributeError, OSError) as error:
        raise RhosightError(
            f"{folder}: not a readable rhosight model ({error}); train or download it again"
        ) from error
    return path, config


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RhosightError(
            f"{name}: no such folder, and not found on the model hub; give a folder that "
            "`rhosight train` wrote"
        ) from error
