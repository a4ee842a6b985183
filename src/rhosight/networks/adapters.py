"""Limit fine-tuning to parts of the encoders, and store only what it changed.

An encoder is tuned whole; or only its last blocks, whose features are the least general (Yosinski
et al. 2014, arXiv:1411.1792); or only low-rank updates of its linear and convolutional layers
(LoRA, Hu et al. 2021, arXiv:2106.09685, by :mod:`peft`) while the layers themselves are frozen. If
only a part learns, a saved model leaves out the weights that the encoder's own package holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..errors import RhosightError
from .backbones import Encoder, ImageBackbone, TextBackbone
from .modules import Network
from .recipe import Recipe
from .weights import packaged_hash

LORA_SCALE = 2
"""Factor of all low-rank updates."""


def limit_tuning(network: Network, recipe: Recipe) -> None:
    """Freeze the parts of a network's encoders that ``fine_tuning.tuned`` excludes.

    ``"lora"`` adds the updates; they begin at zero, so no output changes.

    Raises
    ------
    RhosightError
        If an encoder has fewer blocks than ``tuned_blocks``, or no layer that ``lora_rank`` fits.
    """
    if recipe.fine_tuning.tuned == "all":
        return
    for encoder in network.encoders:
        encoder.requires_grad_(False)
        if recipe.fine_tuning.tuned == "lora":
            add_updates(encoder, recipe.fine_tuning.lora_rank)
        else:
            _release_last(encoder, recipe.fine_tuning.tuned_blocks)
        encoder.train(encoder.training)  # sets the frozen layers to evaluation mode


def select_state(network: Network, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the weights that a saved model has to hold.

    Returns
    -------
    The network's tensors by name, without those that an encoder's package holds and that
    fine-tuning could not change; and the SHA-256 of the packages' weights by name of the encoder. A
    network that was tuned whole is stored whole.
    """
    state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    hashes: dict[str, str] = {}
    if recipe.fine_tuning.tuned == "all":
        return state, hashes
    learned = {key for key, value in network.named_parameters() if value.requires_grad}
    for prefix, encoder, name, digest in _iterate_packaged(network, recipe):
        hashes[name] = digest
        # a frozen text encoder may still differ: it may have learned the elements before
        for key, value in type(encoder)(name).state_dict(prefix=prefix).items():
            key = key if key in state else _wrap_key(key)
            if key not in learned and torch.equal(state[key], value):
                del state[key]
    return state, hashes


def load_state(
    network: Network, recipe: Recipe, state: dict[str, Tensor], hashes: Mapping[str, str]
) -> None:
    """Load what :func:`select_state` returned into a new network.

    The network is as :func:`rhosight.networks.modules.build_model` builds it.

    Raises
    ------
    RhosightError
        If a package is missing, or its weights are not those that the model was trained from.
    RuntimeError
        If the tensors are not those of this network.
    """
    packaged_prefixes: list[str] = []
    for prefix, encoder, name, digest in _iterate_packaged(network, recipe):
        if name not in hashes:
            continue
        if hashes[name] != digest:
            raise RhosightError(
                f"the model was trained from other weights of {name} (SHA-256 {hashes[name]}) than "
                f"this version of rhosight uses ({digest}); load it with the version "
                "that is in its config.json"
            )
        encoder.load_state_dict(type(encoder)(name).state_dict())
        packaged_prefixes.append(prefix)
    limit_tuning(network, recipe)
    missing, unexpected = network.load_state_dict(state, strict=False)
    learned = {key for key, value in network.named_parameters() if value.requires_grad}
    wrong = [
        k for k in missing if k in learned or not k.startswith(tuple(packaged_prefixes))
    ] + unexpected
    if wrong:
        raise RuntimeError(f"{wrong[0]} is missing or unknown")


def _iterate_packaged(network: Network, recipe: Recipe) -> Iterator[tuple[str, Encoder, str, str]]:
    """Yield encoders from PyPI packages: prefix of tensors, encoder, name, SHA-256."""
    prefixes = {module: f"{name}." for name, module in network.named_modules()}
    names = {ImageBackbone: recipe.image.backbone, TextBackbone: recipe.text.backbone}
    for encoder in network.encoders:
        name = names.get(type(encoder))
        if name and (digest := packaged_hash(name)):
            yield prefixes[encoder], encoder, name, digest


def _wrap_key(key: str) -> str:
    """Return the name under which peft keeps a tensor of a layer that has an update."""
    layer, _, tensor = key.rpartition(".")
    return f"{layer}.base_layer.{tensor}"


def _release_last(encoder: Encoder, count: int) -> None:
    """Unfreeze the last blocks of each network of an encoder."""
    for blocks in _towers(encoder):
        if count > len(blocks):
            raise RhosightError(
                f"recipe: fine_tuning.tuned_blocks: {encoder.name} has {len(blocks)}, not {count}; "
                "give fewer, or tuned 'all'"
            )
        for block in blocks[-count:]:
            for parameter in block:
                parameter.requires_grad_(True)


def add_updates(encoder: Encoder, rank: int) -> None:
    """Add low-rank updates to all layers that are larger than their update would be.

    Only plain linear and convolutional layers get one: peft repeats the arithmetic of the layer,
    which a subclass changes (timm's convolutions with TensorFlow's padding), and the rank of a
    depthwise kernel cannot be lowered. The scale is :data:`LORA_SCALE` for any rank.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = []
    for name, layer in encoder.model.named_modules():
        if type(layer) not in (nn.Linear, nn.Conv2d) or getattr(layer, "groups", 1) > 1:
            continue
        outputs, inputs = len(layer.weight), layer.weight[0].numel()
        if rank * (outputs + inputs) < outputs * inputs:
            names.append(name.replace(".", r"\."))
    if not names:
        raise RhosightError(
            f"recipe: fine_tuning.lora_rank: no layer of {encoder.name} is larger than its update "
            f"of rank {rank}; give a lower rank"
        )
    # one regular expression: names in a list would also match the ends of other names
    config = LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, target_modules="|".join(names))
    inject_adapter_in_model(config, encoder.model)


def _towers(encoder: Encoder) -> list[list[list[nn.Parameter]]]:
    """Return the parameters of an encoder's networks, by block from input to output."""
    model = encoder.model
    if isinstance(encoder, ImageBackbone):
        return [_stages(encoder)]
    if isinstance(encoder, TextBackbone):
        return [_layers(model)]
    image, text = _layers(model.vision_model), _layers(model.text_model)
    image[-1] += model.visual_projection.parameters()
    text[-1] += model.text_projection.parameters()
    return [image, text]


def _stages(encoder: ImageBackbone) -> list[list[nn.Parameter]]:
    """Return stem and stages as timm groups them.

    A normalisation belongs to the block that it follows.
    """
    from timm.models import group_parameters

    if not hasattr(encoder.model, "group_matcher"):
        raise RhosightError(
            f"recipe: fine_tuning.tuned: timm names no stages of {encoder.name}; use 'all' or "
            "'lora'"
        )
    groups = group_parameters(encoder.model, encoder.model.group_matcher(coarse=True))
    blocks: list[list[nn.Parameter]] = []
    for _, names in sorted(groups.items()):
        block = [encoder.model.get_parameter(name) for name in names]
        if blocks and all(parameter.ndim < 2 for parameter in block):
            blocks[-1] += block
        else:
            blocks.append(block)
    return blocks


def _layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the embeddings, then the layers of a transformer.

    The normalisation after the last layer belongs to that layer; parameters that all layers share
    belong to the embeddings.
    """
    stack = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
    layers = [list(layer.parameters()) for layer in stack]
    inside = {parameter for layer in layers for parameter in layer}
    shared: list[nn.Parameter] = []
    seen = False
    for parameter in model.parameters():
        if parameter in inside:
            seen = True
        elif seen and parameter.ndim < 2:
            layers[-1].append(parameter)
        else:
            shared.append(parameter)
    return [shared, *layers] if shared else layers
