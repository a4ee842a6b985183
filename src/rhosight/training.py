"""The two-stage protocol (paper section 2.2) as one recipe.

Each model is trained twice: the head on frozen features, then everything. The image model and the
text model come first, the stacked model is built from both:

    image: head, fine-tuning → text: head, fine-tuning → image+text: head, fine-tuning

Everything random is drawn from the recipe's seed, epoch by epoch, so that a run that was
interrupted and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import json
import logging
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from .backbones import DEFAULT_IMAGE, DEFAULT_TEXT, ImageBackbone, TextBackbone
from .errors import RhosightError
from .image import ImageSettings
from .inputs import Inputs
from .models import ImageModel, StackedModel, TextModel
from .runs import replacing
from .schema import TARGETS

logger = logging.getLogger(__name__)

Modality = Literal["image", "text", "image+text"]
MODALITIES: tuple[Modality, ...] = ("image", "text", "image+text")
STAGES = ("head", "fine-tuning")

CHECKPOINT_SECONDS = 60.0

EVAL_BATCH = 64
"""Materials at a time where nothing is learned."""


class Recipe(BaseModel):
    """All settings of a model and its training; stored with every model and report.

    Fields that are pairs hold one value for the head stage and one for the fine-tuning stage.
    Where the paper gives no value, the default is ours (assumed).

    Attributes
    ----------
    modality
        ``"image"``, ``"text"`` or ``"image+text"``; the last trains the other two first.
    targets
        Columns of the dataset, predicted together by one network; missing labels are masked.
    image_backbone, text_backbone
        See :mod:`rhosight.backbones`.
    image
        See :class:`rhosight.image.ImageSettings`.
    extent
        How much text: ``"formula"``, ``"keywords"`` or ``"all"``.
    epochs, batch_size, learning_rate
        Pairs. The learning rate is that of readout and fusion, and the peak of a one-cycle
        schedule.
    stacked_epochs
        Pair of the stacked model, whose parts are already fine-tuned.
    image_rate, text_rate
        Peak learning rates of the backbones in the fine-tuning stage.
    stacked_factor
        Scales all learning rates when the stacked model, whose parts have been fine-tuned, is.
    patience
        Pair: epochs without improvement after which a stage stops.
    early_stopping
        ``"inner"``: watch an inner split of the training part. ``"validation"``: watch the
        validation fold, as the paper seems to; its validation scores are then optimistic.
    inner_fraction
        Of the training part, held out to watch.
    augment
        Turn and reflect the images and reword the texts at random in training, which leaves the
        physics unchanged.
    views
        So many fixed turns of each image and wordings of each text: the head stage learns from all
        of them, and predictions are their mean. One without ``augment``.
    seed
        Fixes initial weights, order, dropout, augmentation and the inner split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Modality = "image+text"
    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    image_backbone: str = DEFAULT_IMAGE
    text_backbone: str = DEFAULT_TEXT
    image: ImageSettings = ImageSettings()
    extent: Literal["formula", "keywords", "all"] = "keywords"
    epochs: tuple[int, int] = (60, 16)
    stacked_epochs: tuple[int, int] = (40, 3)
    batch_size: tuple[int, int] = (32, 16)
    learning_rate: tuple[float, float] = (1e-3, 1e-3)
    image_rate: float = 5e-4
    text_rate: float = 2e-4
    stacked_factor: float = 0.1
    patience: tuple[int, int] = (20, 12)
    early_stopping: Literal["inner", "validation"] = "inner"
    inner_fraction: float = Field(0.12, gt=0, lt=0.5)
    dropout: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    augment: bool = True
    views: int = Field(6, ge=1)
    seed: int = 0

    @classmethod
    def checked(cls, fields: dict[str, Any]) -> Recipe:
        """The recipe with these fields; RhosightError names the first that is wrong."""
        try:
            return cls(**fields)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            raise RhosightError(f"recipe: {where}: {problem['msg']}") from error

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The models that are trained, in order."""
        return MODALITIES if self.modality == "image+text" else (self.modality,)

    @property
    def uses_image(self) -> bool:
        return "image" in self.modality

    @property
    def uses_text(self) -> bool:
        return "text" in self.modality

    @classmethod
    def quick(cls, **changes: Any) -> Recipe:
        """The default recipe with fewer epochs: the demo's, minutes on two cores."""
        return cls(**({"epochs": (40, 6), "stacked_epochs": (30, 2), "views": 3} | changes))

    @classmethod
    def paper(cls, **changes: Any) -> Recipe:
        """The paper's stacked model: InceptionV3 at 299 px, RoBERTa-base, its image, its way of
        stopping early (optimistic on the validation fold). Trains one target per network if you
        give one in ``targets``, as the paper does."""
        settings: dict[str, Any] = {
            "image_backbone": "inception_v3",
            "text_backbone": "roberta-base",
            "image": ImageSettings.paper(),
            "early_stopping": "validation",
            "augment": False,
            "views": 1,
            "text_rate": 2e-5,
        }
        return cls(**(settings | changes))


@dataclass
class StageResult:
    """What one stage leaves behind, handed to ``on_stage`` as soon as it ends."""

    modality: Modality
    stage: str
    history: list[dict[str, float]]
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    """Rows of the inputs → predictions (rows, targets) in the targets' units."""


def build_model(recipe: Recipe, pretrained: bool = True, text_source: str | None = None):
    """The network of a recipe. ``text_source`` is where tokenizer and text configuration come
    from when not from the backbone's own name."""
    outputs, dropout = len(recipe.targets), recipe.dropout
    image = text = None
    if recipe.uses_image:
        image = ImageModel(ImageBackbone(recipe.image_backbone, pretrained), outputs, dropout)
    if recipe.uses_text:
        backbone = TextBackbone(text_source or recipe.text_backbone, pretrained)
        text = TextModel(backbone, outputs, dropout)
    if image and text:
        return StackedModel(image, text, outputs, dropout)
    return image or text


def train(
    recipe: Recipe,
    inputs: Inputs,
    targets: np.ndarray,
    fit_rows: np.ndarray,
    stop_rows: np.ndarray,
    scaler: tuple[np.ndarray, np.ndarray],
    run_dir: Path | None = None,
    on_stage: Callable[[StageResult], None] | None = None,
    frozen: dict[str, Tensor] | None = None,
    progress: Callable[[str, int, int, float], None] | None = None,
) -> nn.Module:
    """Run the protocol and return the trained network.

    Parameters
    ----------
    recipe
        The settings.
    inputs
        Images and tokens of n materials.
    targets
        Shape (n, targets), in their units, NaN where missing.
    fit_rows, stop_rows
        Which materials are learned from, and which are watched for early stopping.
    scaler
        Mean and standard deviation of each target over the training part.
    run_dir
        Where finished stages and checkpoints go; running again with the same folder goes on.
    on_stage
        Called after each stage with its :class:`StageResult`.
    frozen
        Features of the pre-trained backbones by name, filled and used again: pass one dict to
        several calls with the same inputs (folds) to compute them once.
    progress
        Called with (label, epoch, epochs, watched loss).
    """
    mean, std = scaler
    labels = torch.as_tensor((targets - mean) / std, dtype=torch.float32)
    frozen = {} if frozen is None else frozen
    with torch.random.fork_rng(devices=[]), _quiet_lightning():
        torch.manual_seed(recipe.seed)
        network = build_model(recipe)
        parts = {
            "image": network.image if isinstance(network, StackedModel) else network,
            "text": network.text if isinstance(network, StackedModel) else network,
            "image+text": network,
        }
        for number, modality in enumerate(recipe.modalities):
            model = parts[modality]
            cached = modality if modality != "image+text" else None
            features = frozen.get(cached)
            if features is None:
                features = frozen_features(model, inputs, recipe)
                if cached:
                    frozen[cached] = features
            for phase, stage in enumerate(STAGES):
                job = _Job(recipe, phase, modality, number * len(STAGES) + phase, features)
                lightning = _Stage(job, model, inputs, labels, stop_rows)
                folder = run_dir / f"{modality}-{stage}" if run_dir else None
                history = _fit_stage(lightning, fit_rows, folder, progress)

                def predict(rows, run=lightning.predict):
                    return run(rows) * std + mean

                if on_stage:
                    on_stage(StageResult(modality, stage, history, predict))
    return network.eval()


def frozen_features(model: nn.Module, inputs: Inputs, recipe: Recipe) -> Tensor:
    """What the frozen part of a model says of every material, shape (views, n, width)."""
    model.eval()
    rows = torch.arange(len(inputs))
    found = []
    with torch.inference_mode():
        for view in range(view_count(recipe)):
            parts = [
                model.features(*inputs.batch(model.inputs, part, view=view))
                for part in rows.split(EVAL_BATCH)
            ]
            found.append(torch.cat(parts))
    return torch.stack(found).clone()


def view_count(recipe: Recipe) -> int:
    """Over how many fixed views a model's predictions are averaged."""
    return recipe.views if recipe.augment else 1


def predict_rows(model: nn.Module, inputs: Inputs, rows: Tensor, recipe: Recipe) -> Tensor:
    """Standardised predictions (rows, targets) of a whole model: the mean over its views."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        views = range(view_count(recipe))
        found = []
        for part in rows.split(EVAL_BATCH):
            batches = (inputs.batch(model.inputs, part, view=view) for view in views)
            outputs = [model(*(tensor.to(device) for tensor in batch)) for batch in batches]
            found.append(torch.stack(outputs).mean(0).cpu())
    return torch.cat(found)


@dataclass
class _Job:
    """One stage of one model: where it stands in the protocol, and what it is given."""

    recipe: Recipe
    phase: int
    modality: Modality
    number: int
    features: Tensor

    @property
    def label(self) -> str:
        return f"{self.modality}, {STAGES[self.phase]}"

    @property
    def epochs(self) -> int:
        stacked = self.modality == "image+text"
        return (self.recipe.stacked_epochs if stacked else self.recipe.epochs)[self.phase]


class _Stage(L.LightningModule):
    """Head stage: the head learns from cached features. Fine-tuning: everything learns."""

    def __init__(
        self, job: _Job, model: nn.Module, inputs: Inputs, labels: Tensor, stop_rows: np.ndarray
    ):
        super().__init__()
        self.job, self.inputs, self.labels = job, inputs, labels
        self.stop_rows = torch.as_tensor(stop_rows)
        self.network = model.head if job.phase == 0 else model
        self.history: list[dict[str, float]] = []

    def outputs(self, rows: Tensor, learning: bool) -> Tensor:
        """Standardised predictions for rows of the inputs."""
        if self.job.phase == 0:
            views = len(self.job.features)
            view = torch.randint(views, rows.shape) if learning else torch.zeros_like(rows)
            return self.network(self.job.features[view, rows].to(self.device))
        augment = learning and self.job.recipe.augment
        batch = self.inputs.batch(self.network.inputs, rows, augment)
        return self.network(*(part.to(self.device) for part in batch))

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Standardised predictions, shape (rows, targets), mean over the views."""
        rows = torch.as_tensor(rows)
        if self.job.phase == 1:
            return predict_rows(self.network, self.inputs, rows, self.job.recipe).numpy()
        self.network.eval()
        with torch.inference_mode():
            views = [self.network(view[rows].to(self.device)) for view in self.job.features]
        return torch.stack(views).mean(0).cpu().numpy()

    def training_step(self, rows: Tensor, _: int) -> Tensor:
        loss, count = self._loss(rows, learning=True)
        self.log("train", loss, on_step=False, on_epoch=True, batch_size=count)
        return loss

    def validation_step(self, rows: Tensor, _: int) -> None:
        loss, count = self._loss(rows, learning=False)
        self.log("watched", loss, on_step=False, on_epoch=True, batch_size=count)

    def watched_loss(self) -> float:
        """The loss that early stopping watches, as the network stands."""
        self.network.eval()
        with torch.inference_mode():
            found = [self._loss(rows, learning=False) for rows in self.stop_rows.split(EVAL_BATCH)]
        return sum(float(loss) * count for loss, count in found) / sum(n for _, n in found)

    def _loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """Huber loss of the standardised targets over the labels that are there."""
        labels = self.labels[rows.cpu()].to(self.device)
        there = ~labels.isnan()
        loss = functional.huber_loss(self.outputs(rows.cpu(), learning)[there], labels[there])
        return loss, max(1, int(there.sum()))

    def on_train_epoch_start(self) -> None:
        # one seed per epoch: dropout and augmentation survive an interruption
        recipe = self.job.recipe
        torch.manual_seed(hash((recipe.seed, self.job.number, self.current_epoch)) % 2**63)

    def configure_optimizers(self):
        recipe, phase = self.job.recipe, self.job.phase
        rate = recipe.learning_rate[phase]
        if phase == 0:
            groups = [{"params": list(self.network.parameters()), "lr": rate}]
        else:
            groups = self._fine_tuning_groups(rate)
        optimiser = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, [g["lr"] for g in groups], total_steps=steps, pct_start=0.2
        )
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def _fine_tuning_groups(self, rate: float) -> list[dict[str, Any]]:
        """Backbones learn at their own rates; all of the stacked model more slowly."""
        recipe, model = self.job.recipe, self.network
        if isinstance(model, StackedModel):
            slow = recipe.stacked_factor
            parts = [
                (model.image.backbone, recipe.image_rate * slow),
                (model.text.backbone, recipe.text_rate * slow),
                (model.image.head.hidden, rate * slow),
                (model.text.head.hidden, rate * slow),
                (model.head, rate * slow),
            ]
        else:
            backbone_rate = recipe.image_rate if "image" in model.inputs else recipe.text_rate
            parts = [(model.backbone, backbone_rate), (model.head, rate)]
        return [{"params": list(part.parameters()), "lr": lr} for part, lr in parts]


class _KeepBest(Callback):
    """The weights of the epoch with the lowest watched loss; they survive in checkpoints.

    In the stacked model's fine-tuning those it begins with are among them: its parts are tuned
    already, and to tune them together can make it worse. Image and text models begin with frozen
    backbones, and a head that was best of many epochs on the few materials that are watched: to
    keep that would be to believe a lucky number.
    """

    def __init__(self) -> None:
        self.loss, self.weights = float("inf"), {}

    def on_fit_start(self, trainer: L.Trainer, stage: _Stage) -> None:
        job = stage.job
        resumed = bool(self.weights)
        if job.modality == "image+text" and job.phase == 1 and not resumed:
            self._offer(stage.watched_loss(), stage)

    def on_validation_end(self, trainer: L.Trainer, stage: _Stage) -> None:
        self._offer(float(trainer.callback_metrics["watched"]), stage)

    def _offer(self, loss: float, stage: _Stage) -> None:
        if loss < self.loss:
            self.loss = loss
            self.weights = {k: v.detach().clone() for k, v in stage.network.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self.loss, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loss, self.weights = state["loss"], state["weights"]


class _Record(Callback):
    """History, progress, and a checkpoint now and then; kept and resumed with the checkpoint."""

    def __init__(self, path: Path | None, progress: Callable | None) -> None:
        self.path, self.progress = path, progress
        self.history: list[dict[str, float]] = []
        self.saved = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, stage: _Stage) -> None:
        metrics = {key: float(trainer.callback_metrics[key]) for key in ("train", "watched")}
        self.history.append({"epoch": trainer.current_epoch, **metrics})
        if self.progress:
            epochs = trainer.max_epochs
            self.progress(stage.job.label, trainer.current_epoch + 1, epochs, metrics["watched"])
        if self.path and time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            with replacing(self.path) as draft:
                trainer.save_checkpoint(draft)
            self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]


def _fit_stage(
    stage: _Stage,
    fit_rows: np.ndarray,
    folder: Path | None,
    progress: Callable | None,
) -> list[dict[str, float]]:
    """Train one stage, or load it if the folder already holds it. Leaves the best weights."""
    if folder and (folder / "history.json").exists():
        stage.network.load_state_dict(load_file(folder / "weights.safetensors"))
        return json.loads((folder / "history.json").read_text())
    job = stage.job
    checkpoint = folder / "last.ckpt" if folder else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    best, record = _KeepBest(), _Record(checkpoint, progress)
    trainer = L.Trainer(
        max_epochs=job.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=2.0,
        callbacks=[best, EarlyStopping("watched", patience=job.recipe.patience[job.phase]), record],
    )
    size = job.recipe.batch_size[job.phase]
    resume = str(checkpoint) if checkpoint and checkpoint.exists() else None
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(
            stage,
            _loader(fit_rows, size, shuffle_seed=hash((job.recipe.seed, job.number))),
            _loader(stage.stop_rows, EVAL_BATCH),
            ckpt_path=resume,
            weights_only=True if resume else None,
        )
    except SystemExit as stop:  # what Lightning makes of Ctrl-C, deaf to it from then on
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop
    stage.network.load_state_dict(best.weights)
    if folder:
        weights = {key: value.contiguous() for key, value in best.weights.items()}
        with replacing(folder / "weights.safetensors") as draft:
            save_file(weights, draft)
        # written last: it says that the stage is finished
        with replacing(folder / "history.json") as draft:
            draft.write_text(json.dumps(record.history))
        checkpoint.unlink(missing_ok=True)
    return record.history


class _Shuffle(torch.utils.data.Sampler):
    """An order that depends on seed and epoch alone, not on what was drawn before."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:  # Lightning calls it, also after a resume
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        yield from torch.randperm(self.count, generator=generator).tolist()

    def __len__(self) -> int:
        return self.count


def _loader(rows: Sequence[int], size: int, shuffle_seed: int | None = None):
    """Batches of row numbers. A last batch of one is left out in training: BatchNorm needs two."""
    dataset = torch.as_tensor(np.asarray(rows))
    learning = shuffle_seed is not None
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=min(size, len(dataset)),
        sampler=_Shuffle(len(dataset), shuffle_seed) if learning else None,
        drop_last=learning and len(dataset) % size == 1,
        # else it would draw a number from the global generator, at a time that differs on a resume
        generator=torch.Generator(),
    )


@contextmanager
def _quiet_lightning():
    """Lightning's notes on loggers, workers and hardware say nothing to our users."""
    noisy = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in noisy]
    try:
        for log in noisy:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(noisy, levels, strict=True):
            log.setLevel(level)
