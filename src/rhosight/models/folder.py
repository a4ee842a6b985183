"""Folders of saved models: write them whole or not at all, find them, read them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RhosightError, first_line
from ..storage import check_regular_files, read_json

FORMAT = 1
"""Version of the saved folder; a folder of another version is refused."""
MODELS = Path(__file__).parents[1] / "data" / "models"
WEIGHTS, CARD, CONFIG = "model.safetensors", "README.md", "config.json"
DENSITY_MODEL = "density"
"""The bundled model that predicts charge densities; the others predict properties."""
GENERAL_MODEL = "structure"
"""The bundled model of crystals of all lattices, which is part of other models."""
POTENTIAL_MODEL = "structure+potential"
"""The same with numbers of CHGNet; part of models that read them, too."""
_DIGESTS: dict[str, str] = {
    path.split("/")[0]: digest
    for digest, path in (
        line.split() for line in (MODELS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
}
BUNDLED_MODELS: dict[str, str] = {
    name: digest for name, digest in _DIGESTS.items() if name != DENSITY_MODEL
}
"""Bundled models of properties, and the SHA-256 of their weights; `make models` writes both."""

_OURS = re.compile(r"(config\.json|model\.safetensors|README\.md|\w+_backbone|member-\d+)$")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a draft folder that replaces ``folder`` if the block ends without error.

    Raises
    ------
    RhosightError
        If the folder holds something else, see :func:`check_new_folder`.
    """
    check_new_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        _set_modes(draft)
        old = draft.with_name(f"{draft.name}.old")
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(draft, folder)
        except BaseException:
            if old.exists():
                os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _set_modes(folder: Path) -> None:
    """Give all files of a draft, which its owner alone can read, the usual mode."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        probe = Path(other, "probe")
        probe.touch()
        mode = probe.stat().st_mode & 0o777
    folder.chmod(mode | (mode & 0o444) >> 2)
    for path in folder.rglob("*"):
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def check_new_folder(folder: Path) -> None:
    """Check that a model can be saved there: better known before training than after.

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
        raise RhosightError(f"{folder}: {above} is not a writable folder; choose another place")


def _is_ours(folder: Path) -> bool:
    """Tell whether rhosight wrote the model, or the encoder, in a folder."""
    try:
        config = read_json(folder / CONFIG)
    except (OSError, ValueError):
        return False
    return "rhosight_format" in config or "retrieval" in config


def bundled_folder(name: str) -> Path:
    """Return the folder of a bundled model after checking its SHA-256.

    Raises
    ------
    RhosightError
        If the weights are not those that were packaged.
    """
    weights = MODELS / name / WEIGHTS
    digest = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else ""
    if digest != _DIGESTS.get(name, "missing"):
        raise RhosightError(
            f"{weights}: not the weights that came with rhosight; install rhosight again"
        )
    return weights.parent


def read_config(folder: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Return folder and config of a saved model; download the folder for a hub id.

    Raises
    ------
    RhosightError
        If it is not a saved model, is damaged or of another format, or the hub does not have it.
    """
    path = Path(folder)
    if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith("."):
        path = _download(str(folder))
    if not path.is_dir() or not all((path / name).exists() for name in (CONFIG, WEIGHTS)):
        raise RhosightError(
            f"{folder}: not a rhosight model; give {', '.join(BUNDLED_MODELS)}, or a folder with "
            f"{CONFIG} and {WEIGHTS}, as `rhosight train` writes it"
        )
    from .config import check_config

    try:
        check_regular_files(path)
        config = read_json(path / CONFIG)
        if config.get("rhosight_format") != FORMAT:
            raise ValueError(f"format {config.get('rhosight_format')!r}, expected {FORMAT}")
        if not isinstance(config.setdefault("kind", "network"), str):
            raise ValueError("kind is not a text")
        check_config(config, config["kind"])
    except (ValueError, OSError) as error:
        raise RhosightError(
            f"{folder}: not a readable rhosight model ({error}); train or download it again"
        ) from error
    return path, config


def _download(name: str) -> Path:
    """Return the local copy of a model on the Hugging Face hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RhosightError(
            f"{name}: no such folder, and not found on the model hub; give a folder that "
            "`rhosight train` wrote"
        ) from error


def upload_folder(
    folder: Path, repo_id: str, private: bool | None, token: str | None, message: str
) -> str:
    """Upload a saved model to the Hugging Face hub in one commit; return its URL.

    Raises
    ------
    RhosightError
        If the hub cannot be reached or refuses.
    """
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise RhosightError(
            f"{repo_id}: the model hub cannot be reached or refuses the upload "
            f"({first_line(error)}); check the connection, the name, and `hf auth login`"
        ) from error
    return commit.commit_url
