"""Record where a model's training data and weights come from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError
from ..version import __version__

logger = logging.getLogger(__name__)

PACKAGES = (
    "torch",
    "timm",
    "transformers",
    "lightning",
    "peft",
    "pymatgen",
    "robocrys",
    "matminer",
    "spglib",
    "numpy",
    "scipy",
    "scikit-learn",
)
"""Packages whose versions affect predictions."""

PREDICTED = "densities predicted from structures"
"""Name of the code of densities that a model predicted."""


def find_codes(materials: Dataset | Sequence[Any] | Mapping[str, Any]) -> set[str]:
    """Return the codes that made some densities, if their provenance names them.

    :data:`PREDICTED` stands for densities that a model predicted.
    """
    if isinstance(materials, Dataset):
        provenances: Sequence[Any] = materials.provenances
    else:
        provenances = [d.provenance for d in materials if isinstance(d, ChargeDensity)]
    return {
        PREDICTED if about.get("predicted") else str(about["code"])
        for about in provenances
        if about.get("code") or about.get("predicted")
    }


def describe_other_codes(codes: set[str], trained: Sequence[str], core_free: bool = False) -> str:
    """Return a warning about codes outside the training set, or an empty text.

    Parameters
    ----------
    codes
        Codes of the densities.
    trained
        Codes of the training set; empty for a model that reads no density.
    core_free
        Whether the model ignores the density near the nuclei.
    """
    unknown = codes - set(trained)
    if not trained or not unknown:
        return ""
    if unknown == {PREDICTED}:
        return (
            f"{PREDICTED}: with the model best they had no clear gain over no-dft, which reads the "
            "structure itself"
        )
    others = ", ".join(sorted(unknown))
    reason = (
        "it reads the density only between the atoms, where codes agree, but few such densities "
        "were tested; compare with the model no-dft, which reads no density"
        if core_free
        else "near the nuclei the two are different quantities, and predictions may be far off; "
        "use best, which ignores that region, or no-dft, which reads no density"
    )
    return (
        f"densities of {others}, but the model learned from those of {', '.join(trained)}: {reason}"
    )


def warn_of_other_codes(codes: set[str], trained: Sequence[str], core_free: bool = False) -> None:
    """Log the warning of :func:`describe_other_codes`."""
    if warning := describe_other_codes(codes, sorted(trained), core_free):
        logger.warning("%s", warning)


def describe_training_set(dataset: Dataset) -> dict[str, Any]:
    """Return the facts about a training set that a model stores."""
    return {
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
        "materials": len(dataset),
        "training_ids": dataset.ids,
        "licence": dataset.metadata.get("licence", ""),
        "attribution": dataset.metadata.get("attribution", ""),
        "versions": collect_versions(),
    }


def require_unseen(
    dataset: Dataset, seen: Iterable[str], where: str = "are in the training set", cure: str = ""
) -> None:
    """Raise if a model has seen materials: their scores would be meaningless."""
    if common := set(seen) & set(dataset.ids):
        raise RhosightError(
            f"{len(common)} of these materials {where}, such as {min(common)}; "
            f"{cure or 'score a test set'}"
        )


def collect_versions() -> dict[str, str]:
    """Return the versions of rhosight and of packages that affect predictions."""
    return {"rhosight": __version__, **_find_versions()}


@cache
def _find_versions() -> dict[str, str]:
    """Return the versions of the installed packages, which are read from files."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):  # best and no-dft need no PyTorch
            versions[name] = version(name)
    return versions


def hash_weights(sources: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of the files of each source of weights that is a folder.

    A folder may be overwritten before an interrupted run resumes. ``sources`` are the
    ``weight_sources`` of a recipe; names of a hub are left out.
    """
    hashes = {}
    for name in sources:
        digest = hashlib.sha256()
        for path in sorted(Path(name).expanduser().rglob("*")):
            if path.is_file():
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
        if Path(name).expanduser().is_dir():
            hashes[name] = digest.hexdigest()
    return hashes
