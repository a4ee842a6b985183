"""The paper's recipes: every row of its tables by name, and its architectures from checkpoints in
the hub's own format, small and randomly initialised but for InceptionV3."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaTokenizer,
)
from typer.testing import CliRunner

from rhosight import PropertyModel, RhosightError, load_dataset, load_recipe
from rhosight.cli import app
from rhosight.inputs.image import to_pil
from rhosight.networks.backbones import ClipBackbone, ImageBackbone, TextBackbone
from rhosight.networks.presets import recipe_names

# Tables 2 and 3: BS, LR, patience, patch
TRIALS = {
    "T1": (16, 0.00015, 17, 32),
    "T2": (32, 0.00015, 50, 32),
    "T3": (16, 0.00010, 50, 32),
    "T4": (32, 0.00015, 50, 16),
    "T5": (16, 0.00010, 50, 16),
}
SYMBOLS = {"E_F": "formation_energy_per_atom", "E_fermi": "efermi", "K_VRH": "bulk_modulus_vrh"}


class TestRows:
    @pytest.mark.parametrize(("table", "colour"), [("table2", "viridis"), ("table3", "grey")])
    @pytest.mark.parametrize("trial", TRIALS)
    def test_trials_of_clip(self, table, colour, trial):
        recipe = load_recipe(f"paper-{table}-{trial}")
        batch, rate, patience, patch = TRIALS[trial]
        assert recipe.modality == "clip" and recipe.clip == f"openai/clip-vit-base-patch{patch}"
        assert recipe.head.epochs == 0, "the paper names one stage, of one rate and one patience"
        assert recipe.fine_tuning.batch_size == batch and recipe.fine_tuning.patience == patience
        rates = {recipe.fine_tuning.learning_rate, recipe.image.rate, recipe.text.rate}
        assert rates == {rate} and recipe.training.schedule == "constant"
        assert recipe.image.settings.colour == colour and recipe.image.settings.fourier == (
            table == "table3"
        )
        assert recipe.image.settings.size == 224 and recipe.image.settings.kinds == ("difference",)
        assert recipe.targets == ("formation_energy_per_atom",) and recipe.text.extent == "all"
        assert not recipe.pretrains and not recipe.augmentation.enabled

    def test_table_1_is_the_chosen_trial_for_each_target(self):
        chosen = load_recipe("paper-table2-T3").model_dump(exclude={"targets", "seed"})
        seeds = set()
        for symbol, target in SYMBOLS.items():
            for run in (1, 2, 3):
                recipe = load_recipe(f"paper-table1-{symbol}-{run}")
                assert recipe.targets == (target,)
                assert recipe.model_dump(exclude={"targets", "seed"}) == chosen
                seeds.add((symbol, recipe.seed))
        assert len(seeds) == 9

    @pytest.mark.parametrize("extent", ["formula", "keywords", "all"])
    @pytest.mark.parametrize("symbol", SYMBOLS)
    def test_figure_2_is_the_stack(self, symbol, extent):
        recipe = load_recipe(f"paper-figure2-{symbol}-{extent}")
        assert recipe.modalities == ("image", "text", "image+text")
        assert (recipe.image.backbone, recipe.text.backbone) == ("inception_v3", "roberta-base")
        assert recipe.image.settings.size == 299 and recipe.image.settings.normalisation == "paper"
        assert recipe.targets == (SYMBOLS[symbol],) and recipe.text.extent == extent
        assert recipe.training.early_stopping == "validation"

    def test_all_names_give_a_recipe_and_no_two_the_same(self):
        names = recipe_names()
        assert len([n for n in names if n.startswith("paper-")]) == 4 + 9 + 9 + 5 + 5
        recipes = {name: load_recipe(name).model_dump_json() for name in names}
        # T3 for the formation energy is in two tables, and its first run has the default seed
        twins = {"paper-table1-E_F-1"}
        assert len(set(recipes.values())) == len(names) - len(twins)

    def test_changes_win_and_are_checked(self):
        assert load_recipe("paper-clip", targets=("efermi",)).targets == ("efermi",)
        with pytest.raises(RhosightError, match="patience"):
            load_recipe("paper-clip", head={"patience": -3})

    def test_an_unknown_name_lists_near_ones_also_on_the_command_line(self):
        with pytest.raises(RhosightError, match=r"'paper-table2-T6'.*paper-table2-T"):
            load_recipe("paper-table2-T6")
        failed = CliRunner().invoke(app, ["crossval", "mp-fcc", "--preset", "papper-clip"])
        assert isinstance(failed.exception, RhosightError)
        assert "paper-clip" in str(failed.exception)


@pytest.fixture(scope="module")
def materials():
    return load_dataset("mp-fcc")[:24]


@pytest.fixture(scope="module")
def texts(materials):
    return list(materials.texts["all"])


def byte_pairs(texts, special, suffix):
    """Vocabulary and merges of a byte-level BPE, as GPT-2's kin have."""
    ends = {"end_of_word_suffix": suffix} if suffix else {}
    tokenizer = Tokenizer(models.BPE(unk_token=special[-1], **ends))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, show_progress=False, **ends,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text.lower() for text in texts], trainer)
    found = json.loads(tokenizer.to_str())["model"]
    return found["vocab"], [tuple(pair) for pair in found["merges"]]


@pytest.fixture(scope="module")
def clip_folder(texts, tmp_path_factory):
    """What huggingface.co/openai/clip-vit-base-patch16 holds, with narrower layers."""
    folder = tmp_path_factory.mktemp("clip")
    vocab, merges = byte_pairs(texts, ["<|startoftext|>", "<|endoftext|>"], "</w>")
    CLIPTokenizer(vocab, merges, model_max_length=77).save_pretrained(folder)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=small | {"vocab_size": len(vocab), "bos_token_id": 0, "eos_token_id": 1},
        vision_config=small | {"image_size": 48, "patch_size": 16},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    ).save_pretrained(folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }
    return folder


@pytest.fixture(scope="module")
def roberta_folder(texts, tmp_path_factory):
    """What huggingface.co/roberta-base holds, a masked language model, with narrower layers."""
    folder = tmp_path_factory.mktemp("roberta")
    vocab, merges = byte_pairs(texts, ["<s>", "<pad>", "</s>", "<mask>", "<unk>"], "")
    RobertaTokenizer(vocab, merges, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=514, pad_token_id=1, bos_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inception_folder(tmp_path_factory):
    """What huggingface.co/timm/inception_v3.tv_in1k holds: torchvision's, auxiliary logits too."""
    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    model = timm.create_model("inception_v3.tv_in1k", pretrained=False, aux_logits=True)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    config.pop("model_args", None)  # which the hub's file, an older one, has not
    config["pretrained_cfg"]["tag"] = "tv_in1k"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def small_clip(folder, **changes):
    image = load_recipe("paper-clip").image.settings.model_copy(update={"size": 48})
    return load_recipe("paper-table2-T5", clip=str(folder), image={"settings": image}, **changes)


class TestClip:
    def test_embeddings_are_clips_own_from_a_picture_and_a_text(self, clip_folder, texts):
        backbone, original = ClipBackbone(str(clip_folder)), CLIPModel.from_pretrained(clip_folder)
        image = torch.rand(1, 3, 48, 48) * 2 - 1
        picture = to_pil(image[0].numpy())
        image = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 127.5 - 1
        pixels = CLIPImageProcessor.from_pretrained(clip_folder)(picture, return_tensors="pt")
        tokens = CLIPTokenizer.from_pretrained(clip_folder)(
            texts[:3], padding=True, truncation=True, return_tensors="pt"
        )
        with torch.inference_mode():
            torch.testing.assert_close(
                backbone.eval().image_embedding(image),
                original.eval().get_image_features(**pixels).pooler_output,
                atol=1e-4, rtol=1e-4,
            )  # fmt: skip
            torch.testing.assert_close(
                backbone.text_embedding(*backbone.tokenize(texts[:3])),
                original.get_text_features(**tokens).pooler_output,
            )

    def test_77_tokens_are_read_and_the_last_is_the_end(self, clip_folder, texts):
        backbone = ClipBackbone(str(clip_folder))
        long = max(texts, key=len)
        ids, mask = backbone.tokenize(["NaCl", long])
        assert ids.shape == (2, 77) == (2, backbone.max_tokens) and int(mask[0].sum()) < 77
        assert ids[1, 0] == backbone.tokenizer.bos_token_id
        assert ids[1, -1] == backbone.tokenizer.eos_token_id

    def test_fine_tuning_moves_both_encoders_and_not_the_temperature(
        self, clip_folder, materials, tmp_path
    ):
        model = PropertyModel(
            small_clip(clip_folder, head={"epochs": 0}, fine_tuning={"epochs": 2})
        ).fit(materials)
        assert list(model.history) == [("clip", "fine-tuning")]
        before = ClipBackbone(str(clip_folder)).state_dict()
        after = model.network.backbone.state_dict()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        for part in ("vision_model", "text_model", "visual_projection", "text_projection"):
            assert any(part in key for key in moved), part
        assert "model.logit_scale" not in moved
        layers = [m for m in model.network.head.modules() if isinstance(m, torch.nn.Linear)]
        assert [(m.in_features, m.out_features) for m in layers] == [(2 * 24, 1)]

        model.save_pretrained(tmp_path / "model")
        elsewhere = shutil.move(clip_folder, tmp_path / "moved")
        try:  # a saved model is whole without the checkpoint that it began with
            loaded = PropertyModel.from_pretrained(tmp_path / "model")
            pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))
        finally:
            shutil.move(elsewhere, clip_folder)

    def test_the_head_stage_leaves_the_encoders_as_they_were(self, clip_folder, materials):
        model = PropertyModel(
            small_clip(clip_folder, head={"epochs": 2}, fine_tuning={"epochs": 0})
        ).fit(materials)
        assert list(model.history) == [("clip", "head")]
        after = model.network.backbone.state_dict()
        for key, value in ClipBackbone(str(clip_folder)).state_dict().items():
            assert torch.equal(value, after[key]), key

    def test_fourier_images_in_grey_reach_it(self, clip_folder, materials):
        recipe = load_recipe("paper-table3-T5")
        changes = {
            "clip": str(clip_folder),
            "head": {"epochs": 0},
            "fine_tuning": {"epochs": 1},
            "image": {"settings": {"size": 48}},
        }
        predicted = PropertyModel(recipe, **changes).fit(materials).predict(materials)
        assert list(predicted) == ["formation_energy_per_atom"] and predicted.notna().all(None)

    def test_an_image_of_another_size_is_refused(self, clip_folder, materials):
        recipe = load_recipe("paper-table2-T5", clip=str(clip_folder))
        with pytest.raises(RhosightError, match="images of 48 pixels, not 224"):
            PropertyModel(recipe).fit(materials)

    def test_a_folder_of_another_model_is_refused(self, roberta_folder):
        with pytest.raises(RhosightError, match="a roberta model, not a CLIP"):
            ClipBackbone(str(roberta_folder))

    def test_without_a_hub_the_bundled_recipe_is_named(self, monkeypatch, tmp_path, materials):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(RhosightError, match=r"clip-vit-base-patch32.*'clip-offline'"):
            PropertyModel(load_recipe("paper-clip")).fit(materials)


class TestStack:
    def test_roberta_reads_512_tokens_of_a_masked_language_model(self, roberta_folder, texts):
        backbone = TextBackbone(str(roberta_folder)).eval()
        ids, mask = backbone.tokenize([texts[0], " ".join(texts)])
        assert ids.shape == (2, 512)
        original = RobertaForMaskedLM.from_pretrained(roberta_folder).eval()
        with torch.inference_mode():
            hidden = original.roberta(ids, attention_mask=mask).last_hidden_state
            expected = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            torch.testing.assert_close(backbone(ids, mask), expected, atol=1e-5, rtol=1e-4)

    def test_a_tokenizer_that_states_no_limit_is_cut_at_the_positions(
        self, roberta_folder, texts, tmp_path
    ):
        shutil.copytree(roberta_folder, tmp_path / "unlimited")
        path = tmp_path / "unlimited" / "tokenizer_config.json"
        config = json.loads(path.read_text())
        del config["model_max_length"]
        path.write_text(json.dumps(config))
        backbone = TextBackbone(str(path.parent))
        ids, mask = backbone.tokenize([" ".join(texts)])
        assert ids.shape == (1, 512)
        assert backbone(ids, mask).isfinite().all()

    def test_the_text_recipe_learns_in_both_stages_and_is_saved(
        self, roberta_folder, materials, tmp_path
    ):
        recipe = load_recipe(
            "paper-text",
            text={"backbone": str(roberta_folder)},
            head={"epochs": 1},
            fine_tuning={"epochs": 1},
        )
        model = PropertyModel(recipe).fit(materials)
        assert [stage for _, stage in model.history] == ["head", "fine-tuning"]
        before = TextBackbone(str(roberta_folder)).state_dict()
        after = model.network.backbone.state_dict()
        assert any(not torch.equal(before[key], after[key]) for key in before)
        model.save_pretrained(tmp_path / "model")
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(materials), model.predict(materials))

    def test_inception_loads_from_the_hubs_format(self, inception_folder):
        backbone = ImageBackbone(str(inception_folder)).eval()
        original = timm.create_model("inception_v3", aux_logits=True)
        timm.models.load_checkpoint(original, str(inception_folder / "model.safetensors"))
        pixels = torch.rand(1, 3, 299, 299)
        with torch.inference_mode():
            found = backbone(pixels * 2 - 1)
            normal = (pixels - 0.5) / 0.5  # Inception's own mean and deviation
            expected = original.eval().forward_features(normal)[0].mean((2, 3))
        assert found.shape == (1, 2048)
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)

    @pytest.mark.slow
    def test_the_paper_stack_at_full_size(
        self, inception_folder, roberta_folder, materials, tmp_path
    ):
        recipe = load_recipe(
            "paper-figure2-K_VRH-keywords",
            image={"backbone": str(inception_folder)},
            text={"backbone": str(roberta_folder)},
            head={"epochs": 1},
            fine_tuning={"epochs": 1},
            stacked={"head_epochs": 1, "fine_tuning_epochs": 1},
        )
        few = materials[:8]
        model = PropertyModel(recipe).fit(few)
        assert len(model.history) == 6
        before = ImageBackbone(str(inception_folder)).state_dict()
        after = model.network.image.backbone.state_dict()
        weights = [key for key in before if key.endswith("conv.weight")]
        moved = sum(not torch.equal(before[key], after[key]) for key in weights)
        assert moved == len(weights) > 90
        model.save_pretrained(tmp_path / "model")
        loaded = PropertyModel.from_pretrained(tmp_path / "model")
        pd.testing.assert_frame_equal(loaded.predict(few), model.predict(few), rtol=1e-4, atol=1e-4)
