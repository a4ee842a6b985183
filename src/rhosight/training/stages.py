"""The two-stage protocol (paper section 2.2).

Each model is trained twice: the head on frozen features, then everything. The image model and the
text model come first, the stacked model is built from both:

    image: head, fine-tuning → text: head, fine-tuning → image+text: head, fine-tuning

Descriptors, if the recipe has any, come before the stacked model, with a head stage alone: nothing
of them is pre-trained.

A CLIP reads both from the start; one that no hub has trained begins with pre-training:

    pre-training → clip: head, fine-tuning
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..inputs.progress import EpochProgress
from ..inputs.tensors import Inputs
from ..metrics import r2_score, rmse
from ..networks.adapters import limit_tuning
from ..networks.backbones import TextBackbone
from ..networks.modules import ClipModel, DescriptorNetwork, StackedModel, build_model, encoders
from ..networks.recipe import MODALITIES, STAGES, Recipe
from .contrastive import load_weights, pretrain_encoder
from .elements import learn_elements
from .loop import EVAL_BATCH, Plan, Stage, fit_stage, quiet_lightning

__all__ = ["MODALITIES", "STAGES", "Recipe", "StageResult", "build_model", "predict_rows", "train"]


@dataclass
class StageResult:
    """What one stage leaves behind, handed to ``on_stage`` as soon as it ends."""

    modality: str
    stage: str
    history: list[dict[str, float]]
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    """Rows of the inputs → predictions (rows, targets) in the targets' units."""


def train(
    recipe: Recipe,
    inputs: Inputs,
    targets: np.ndarray,
    fit_rows: np.ndarray,
    stop_rows: np.ndarray,
    scaler: tuple[np.ndarray, np.ndarray],
    run_dir: Path | None = None,
    on_stage: Callable[[StageResult], None] | None = None,
    frozen: dict[str, Any] | None = None,
    progress: EpochProgress | None = None,
    formulas: Sequence[str] = (),
    scored_rows: np.ndarray | None = None,
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
        Called after each stage with its :class:`StageResult`; not after pre-training, which
        predicts nothing.
    frozen
        What depends on no label: features of the pre-trained backbones by name, and the text
        backbone that knows the elements. Filled and used again: pass one dict to several calls with
        the same inputs and recipe (folds) to compute them once.
    progress
        Called with (label, epoch, epochs, watched loss).
    formulas
        Of the n materials; read if the recipe pre-trains.
    scored_rows
        Materials that are scored after every epoch, for learning curves: the history then has
        ``r2_TARGET`` and ``rmse_TARGET`` (of the standardised target). Nothing else reads them.
    """
    mean, std = scaler
    labels = torch.as_tensor((targets - mean) / std, dtype=torch.float32)
    frozen = {} if frozen is None else frozen
    with torch.random.fork_rng(devices=[]), quiet_lightning():
        torch.manual_seed(recipe.seed)
        columns = 0 if inputs.descriptors is None else inputs.descriptors.shape[1]
        network = build_model(recipe, columns=columns)
        for module in network.modules():
            if isinstance(module, DescriptorNetwork):
                module.backbone.fit(inputs.descriptors[fit_rows], inputs.linear)
        if recipe.uses_text and recipe.text.element_steps:
            _teach_elements(network, recipe, frozen, progress)
        if recipe.pretrains:
            folder = run_dir / "pre-training" if run_dir else None
            pretrain_encoder(
                network.backbone, inputs, formulas, fit_rows, stop_rows, recipe, folder, progress
            )
        elif recipe.modality == "clip" and recipe.pretraining.weights:
            load_weights(network.backbone, recipe)
        if isinstance(network, ClipModel):  # no part of a regression
            network.backbone.logit_scale.requires_grad_(False)
        limit_tuning(network, recipe)
        parts = network.parts if isinstance(network, StackedModel) else {}
        for number, modality in enumerate(recipe.modalities):
            model = parts.get(modality, network)
            for phase, stage in enumerate(STAGES):
                job = _Job(recipe, phase, modality, number * len(STAGES) + phase)
                if not job.epochs:
                    continue
                if phase == 0:
                    job.features = _features(job, model, inputs, frozen)
                lightning = _Regression(job, model, inputs, labels, stop_rows, scored_rows)
                folder = run_dir / f"{modality}-{stage}" if run_dir else None
                history = fit_stage(lightning, fit_rows, folder, progress)

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
        for view in range(recipe.views):
            parts = [
                model.features(*inputs.batch(model.inputs, part, view=view))
                for part in rows.split(EVAL_BATCH)
            ]
            found.append(torch.cat(parts))
    return torch.stack(found).clone()


def predict_rows(model: nn.Module, inputs: Inputs, rows: Tensor, recipe: Recipe) -> Tensor:
    """Standardised predictions (rows, targets) of a whole model: the mean over its views."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        views = range(recipe.views)
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
    modality: str
    number: int
    features: Tensor | None = None

    @property
    def epochs(self) -> int:
        if self.modality == "descriptors" and self.phase == 1:
            return 0  # the head is all that there is
        return self.recipe.epochs(self.stacked)[self.phase]

    @property
    def stacked(self) -> bool:
        return "+" in self.modality

    @property
    def plan(self) -> Plan:
        recipe, phase = self.recipe, self.phase
        stage = recipe.fine_tuning if phase == 1 else recipe.head
        return Plan(
            label=f"{self.modality}, {STAGES[phase]}",
            seeds=(recipe.seed, self.number),
            epochs=self.epochs,
            batch_size=stage.batch_size,
            patience=stage.patience,
            weight_decay=recipe.training.weight_decay,
            schedule=recipe.training.schedule,
            # The parts of the stacked model are tuned already, and to tune them together can make
            # it worse. Other models begin with frozen backbones, and a head that was best of many
            # epochs on the few materials that are watched: to keep that is to believe a lucky
            # number.
            keeps_start=self.stacked and phase == 1,
            precision=recipe.hardware.precision,
            devices=recipe.hardware.devices if phase == 1 else 1,  # the head alone takes seconds
        )


def _teach_elements(
    network: nn.Module, recipe: Recipe, frozen: dict[str, Any], progress: EpochProgress | None
) -> None:
    """Give the network a text backbone that knows the elements, trained the first time."""
    backbone = next((e for e in encoders(network) if isinstance(e, TextBackbone)), None)
    if backbone is None:  # a CLIP of the hub brings its own encoders, trained together
        return
    if "elements" not in frozen:
        learn_elements(backbone, recipe.text.element_steps, recipe.seed, progress)
        frozen["elements"] = {k: v.detach().clone() for k, v in backbone.state_dict().items()}
    backbone.load_state_dict(frozen["elements"])


def _features(job: _Job, model: nn.Module, inputs: Inputs, frozen: dict[str, Any]) -> Tensor:
    """The features that a head learns from; those of a backbone as it was loaded, only once."""
    own = job.modality == "clip" and not job.recipe.clip  # its projections begin at random
    if job.stacked or job.modality == "descriptors" or own:
        return frozen_features(model, inputs, job.recipe)
    if job.modality not in frozen:
        frozen[job.modality] = frozen_features(model, inputs, job.recipe)
    return frozen[job.modality]


class _Regression(Stage):
    """Head stage: the head learns from cached features. Fine-tuning: the backbones learn, too."""

    def __init__(
        self,
        job: _Job,
        model: nn.Module,
        inputs: Inputs,
        labels: Tensor,
        stop_rows: np.ndarray,
        scored_rows: np.ndarray | None = None,
    ):
        super().__init__(job.plan, model.head if job.phase == 0 else model, stop_rows)
        self.job, self.inputs, self.labels = job, inputs, labels
        self.scored_rows = scored_rows

    def setup(self, stage: str) -> None:
        if self.job.phase == 1 and self.job.recipe.hardware.compiled:
            for encoder in encoders(self.network):
                # in place: names of weights stay, and a copy in another process compiles its own
                encoder.model.compile(dynamic=True)

    def start_learning(self) -> None:
        super().start_learning()
        if self.job.phase == 1:
            # Readouts keep the statistics that the head stage found and drop nothing: a batch is
            # too small to find others in while the features move (worse on validation folds).
            parts = self.network.parts.values() if isinstance(self.network, StackedModel) else ()
            for model in (self.network, *parts):
                model.head.eval()
            if self.job.recipe.fine_tuning.batch_statistics == "kept":
                for module in self.network.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()

    def outputs(self, rows: Tensor, learning: bool) -> Tensor:
        """Standardised predictions for rows of the inputs."""
        if self.job.phase == 0:
            views = len(self.job.features)
            view = torch.randint(views, rows.shape) if learning else torch.zeros_like(rows)
            return self.network(self.job.features[view, rows].to(self.device))
        augment = learning and self.job.recipe.augmentation.enabled
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

    def epoch_scores(self) -> dict[str, float]:
        """R² and RMSE of each standardised target on the scored rows."""
        if self.scored_rows is None:
            return {}
        modes = {module: module.training for module in self.network.modules()}
        predicted = self.predict(self.scored_rows)
        for module, mode in modes.items():
            module.training = mode
        found = {}
        for column, target in enumerate(self.job.recipe.targets):
            true = self.labels[self.scored_rows, column].double().numpy()
            known = ~np.isnan(true)
            pair = true[known], predicted[known, column].astype(float)
            found |= {f"r2_{target}": r2_score(*pair), f"rmse_{target}": rmse(*pair)}
        return found

    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """Huber loss of the standardised targets over the labels that are there."""
        labels = self.labels[rows].to(self.device)
        there = ~labels.isnan()
        outputs = self.outputs(rows, learning).float()  # which mixed precision has halved
        loss = functional.huber_loss(outputs[there], labels[there])
        return loss, max(1, int(there.sum()))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Backbones learn at their own rates; all of the stacked model more slowly."""
        recipe, model = self.job.recipe, self.network
        stage = recipe.fine_tuning if self.job.phase == 1 else recipe.head
        rate = stage.learning_rate
        if self.job.phase == 0:
            parts = [(model, rate)]
        elif isinstance(model, StackedModel):
            slow = recipe.stacked.rate_factor
            rates = {"image": recipe.image.rate, "text": recipe.text.rate}
            backbones = {n: p.backbone for n, p in model.parts.items() if n in rates}
            parts = [(backbone, rates[name] * slow) for name, backbone in backbones.items()]
            parts += [(part.head.hidden, rate * slow) for part in model.parts.values()]
            parts.append((model.head, rate * slow))
        elif isinstance(model, ClipModel):
            rates = {"image": recipe.image.rate, "text": recipe.text.rate, "new": rate}
            found = model.backbone.parts.items()
            parts = [(part, rates[name]) for name, modules in found for part in modules]
            parts.append((model.head, rate))
        else:
            backbone_rate = recipe.image.rate if "image" in model.inputs else recipe.text.rate
            parts = [(model.backbone, backbone_rate), (model.head, rate)]
        learning = (([p for p in part.parameters() if p.requires_grad], lr) for part, lr in parts)
        return [{"params": weights, "lr": lr} for weights, lr in learning if weights]
