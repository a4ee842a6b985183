"""The two-stage protocol (paper section 2.2).

Each model is trained twice: the head on frozen features, then everything. The image model and the
text model come first, the stacked model is built from both:

    image: head, fine-tuning → text: head, fine-tuning → image+text: head, fine-tuning

Descriptors, if the recipe has any, come before the stacked model. They have a head stage only,
because nothing of them is pre-trained.

A CLIP reads image and text from the start; one that does not come from a hub begins with
pre-training:

    pre-training → clip: head, fine-tuning
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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
from ..networks.lesson import apply_lesson, lesson_hash
from ..networks.modules import Network, build_model
from ..networks.recipe import STAGES, Recipe
from .contrastive import Pairs, load_weights, pretrain_encoder
from .elements import learn_elements
from .plan import EVAL_BATCH, Plan, Stage


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The materials of a training.

    Attributes
    ----------
    inputs
        Images, tokens and descriptors of n materials.
    targets
        Shape (n, targets), in their units, NaN where missing.
    fit_rows, stop_rows
        Rows to learn from, and rows to watch for early stopping.
    scaler
        Mean and standard deviation of each target over the training set.
    formulas
        Formulas of the n materials; used if the recipe pre-trains.
    scored_rows
        Rows that are scored after every epoch, for learning curves: the history then has
        ``r2_TARGET`` and ``rmse_TARGET`` (of the standardised target). Nothing else depends on
        them.
    """

    inputs: Inputs
    targets: np.ndarray
    fit_rows: np.ndarray
    stop_rows: np.ndarray
    scaler: tuple[np.ndarray, np.ndarray]
    formulas: Sequence[str] = ()
    scored_rows: np.ndarray | None = None

    @cached_property
    def labels(self) -> Tensor:
        """Standardised targets, shape (n, targets), float32."""
        mean, std = self.scaler
        return torch.as_tensor((self.targets - mean) / std, dtype=torch.float32)


@dataclass(eq=False)
class EncoderCache:
    """Results of pre-trained encoders that do not depend on labels.

    Pass one cache to several trainings with the same inputs and recipe (folds): the first fills
    it, and the others use it.

    Attributes
    ----------
    features
        Modality → features of its backbone as it was loaded, shape (views, n, width).
    elements
        Weights of the text backbone that has learned the elements; None if there is none yet.
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    elements: dict[str, Tensor] | None = None


@dataclass
class StageResult:
    """The result of one stage, passed to ``on_stage`` as soon as the stage ends."""

    modality: str
    stage: str
    history: list[dict[str, float]]
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    """Rows of the inputs → predictions (rows, targets) in the targets' units."""


def train(
    recipe: Recipe,
    data: TrainingData,
    cache: EncoderCache | None = None,
    run_dir: Path | None = None,
    on_stage: Callable[[StageResult], None] | None = None,
    progress: EpochProgress | None = None,
) -> Network:
    """Run the protocol and return the trained network.

    Parameters
    ----------
    recipe
        The settings.
    data
        The materials.
    cache
        Shared with other trainings on the same inputs.
    run_dir
        Folder for finished stages and checkpoints; the same call with the same folder resumes an
        interrupted one.
    on_stage
        Called after each stage with its :class:`StageResult`; not after pre-training, which
        predicts nothing.
    progress
        Called with (label, epoch, epochs, watched loss).
    """
    from .loop import fit_stage, keep_freed_memory, quiet_lightning

    cache = EncoderCache() if cache is None else cache
    mean, std = data.scaler
    with torch.random.fork_rng(devices=[]), quiet_lightning(), keep_freed_memory():
        torch.manual_seed(recipe.seed)
        network = _build_network(recipe, data, cache, run_dir, progress)
        for number, modality in enumerate(recipe.modalities):
            model = network.parts.get(modality, network)
            for phase, stage in enumerate(STAGES):
                job = _Job(recipe, phase, modality, number * len(STAGES) + phase)
                if not job.epochs:
                    continue
                if phase == 0:
                    job.features = _compute_features(job, model, data.inputs, cache)
                regression = _Regression(job, model, data)
                folder = run_dir / f"{modality}-{stage}" if run_dir else None
                history = fit_stage(regression, data.fit_rows, folder, progress)

                def predict(
                    rows: np.ndarray, standardised: Callable = regression.predict_rows
                ) -> np.ndarray:
                    return standardised(rows) * std + mean

                if on_stage:
                    on_stage(StageResult(modality, stage, history, predict))
    return network.eval()


def compute_features(model: Network, inputs: Inputs, recipe: Recipe) -> Tensor:
    """Return the features of a model for every material, shape (views, n, width)."""
    model.eval()
    rows = torch.arange(len(inputs))
    views = []
    with torch.inference_mode():
        for view in range(recipe.views):
            parts = [
                model.features(*inputs.batch(model.inputs, part, view=view))
                for part in rows.split(EVAL_BATCH)
            ]
            views.append(torch.cat(parts))
    return torch.stack(views).clone()


def predict_rows(model: Network, inputs: Inputs, rows: Tensor, recipe: Recipe) -> Tensor:
    """Return a model's standardised predictions (rows, targets): the mean over views."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        views = range(recipe.views)
        means = []
        for part in rows.split(EVAL_BATCH):
            batches = (inputs.batch(model.inputs, part, view=view) for view in views)
            outputs = [model(*(tensor.to(device) for tensor in batch)) for batch in batches]
            means.append(torch.stack(outputs).mean(0).cpu())
    return torch.cat(means)


def _build_network(
    recipe: Recipe,
    data: TrainingData,
    cache: EncoderCache,
    run_dir: Path | None,
    progress: EpochProgress | None,
) -> Network:
    """Return the network before its first stage.

    Its encoders have already learned what they can without labels.
    """
    inputs = data.inputs
    columns = 0 if inputs.descriptors is None else inputs.descriptors.shape[1]
    network = build_model(recipe, columns=columns)
    if inputs.descriptors is not None and inputs.linear is not None:
        network.fit_descriptors(inputs.descriptors[data.fit_rows], inputs.linear)
    if recipe.uses_text and recipe.text.element_steps:
        _teach_elements(network, recipe, cache, progress)
    encoder = network.dual_encoder
    if encoder is not None and recipe.pretrains:
        pairs = Pairs(inputs, data.formulas, data.fit_rows, data.stop_rows)
        folder = run_dir / "pre-training" if run_dir else None
        pretrain_encoder(encoder, pairs, recipe, folder, progress)
    elif encoder is not None and recipe.pretraining.weights:
        load_weights(encoder, recipe)
    network.freeze_unused()
    limit_tuning(network, recipe)
    return network


@dataclass
class _Job:
    """One stage of one model: its place in the protocol, and the features it reads."""

    recipe: Recipe
    phase: int
    modality: str
    number: int
    features: Tensor | None = None

    @property
    def epochs(self) -> int:
        if self.modality == "descriptors" and self.phase == 1:
            return 0  # the head is all that learns
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
            # The parts of the stacked model are already tuned, and tuning them together can make
            # it worse.
            keeps_start=phase == 1 and (self.stacked or recipe.fine_tuning.keep_start),
            precision=recipe.hardware.precision,
            devices=recipe.hardware.devices if phase == 1 else 1,  # the head alone takes seconds
        )


def _teach_elements(
    network: Network, recipe: Recipe, cache: EncoderCache, progress: EpochProgress | None
) -> None:
    """Give the network a text backbone that knows the elements; train it only once."""
    backbone = next((e for e in network.encoders if isinstance(e, TextBackbone)), None)
    if backbone is None:  # a CLIP of the hub brings its own encoders, trained together
        return
    if cache.elements is None:
        if lesson_hash(backbone.name):
            apply_lesson(backbone)
        else:
            learn_elements(backbone, recipe.text.element_steps, recipe.seed, progress)
        cache.elements = {k: v.detach().clone() for k, v in backbone.state_dict().items()}
    backbone.load_state_dict(cache.elements)


def _compute_features(job: _Job, model: Network, inputs: Inputs, cache: EncoderCache) -> Tensor:
    """Return the features that a head reads; those of a backbone as loaded are cached."""
    own = job.modality == "clip" and not job.recipe.clip  # its projections begin at random
    if job.stacked or job.modality == "descriptors" or own:
        return compute_features(model, inputs, job.recipe)
    if job.modality not in cache.features:
        cache.features[job.modality] = compute_features(model, inputs, job.recipe)
    return cache.features[job.modality]


class _Regression(Stage):
    """A stage that learns from labels: the head stage, or fine-tuning.

    In the head stage the head learns from cached features. In fine-tuning the backbones learn, too.
    """

    network: Network | nn.Module

    def __init__(self, job: _Job, model: Network, data: TrainingData):
        super().__init__(job.plan, model.head if job.phase == 0 else model, data.stop_rows)
        self.job, self.inputs, self.labels = job, data.inputs, data.labels
        self.scored_rows = data.scored_rows

    @property
    def whole(self) -> Network:
        """The whole network, in the fine-tuning stage."""
        assert isinstance(self.network, Network)
        return self.network

    def prepare(self) -> None:
        if self.job.phase == 1 and self.job.recipe.hardware.compiled:
            for encoder in self.whole.encoders:
                # in place: names of weights stay, and a copy in another process compiles its own
                encoder.model.compile(dynamic=True)

    def start_learning(self) -> None:
        super().start_learning()
        if self.job.phase == 1:
            # Readouts keep the statistics of the head stage and drop nothing: a batch is too small
            # to estimate others while the features move (worse on validation folds).
            for head in self.whole.heads:
                head.eval()
            if self.job.recipe.fine_tuning.batch_statistics == "kept":
                for module in self.network.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()

    def outputs(self, rows: Tensor, learning: bool) -> Tensor:
        """Return standardised predictions for rows of the inputs."""
        if self.job.features is not None:
            views = len(self.job.features)
            view = torch.randint(views, rows.shape) if learning else torch.zeros_like(rows)
            return self.network(self.job.features[view, rows].to(self.device))
        augment = learning and self.job.recipe.augmentation.enabled
        batch = self.inputs.batch(self.whole.inputs, rows, augment)
        return self.network(*(part.to(self.device) for part in batch))

    def predict_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return standardised predictions, shape (rows, targets), mean over the views."""
        where = torch.as_tensor(rows)
        if self.job.features is None:
            return predict_rows(self.whole, self.inputs, where, self.job.recipe).numpy()
        self.network.eval()
        with torch.inference_mode():
            views = [self.network(view[where].to(self.device)) for view in self.job.features]
        return torch.stack(views).mean(0).cpu().numpy()

    def epoch_scores(self) -> dict[str, float]:
        """Return R² and RMSE of each standardised target on the scored rows."""
        if self.scored_rows is None:
            return {}
        modes = {module: module.training for module in self.network.modules()}
        predicted = self.predict_rows(self.scored_rows)
        for module, mode in modes.items():
            module.training = mode
        scores: dict[str, float] = {}
        for column, target in enumerate(self.job.recipe.targets):
            true = self.labels[self.scored_rows, column].double().numpy()
            known = ~np.isnan(true)
            pair = true[known], predicted[known, column].astype(float)
            scores |= {f"r2_{target}": r2_score(*pair), f"rmse_{target}": rmse(*pair)}
        return scores

    def loss(self, rows: Tensor, learning: bool) -> tuple[Tensor, int]:
        """Return the Huber loss of the standardised targets over the known labels."""
        labels = self.labels[rows].to(self.device)
        known = ~labels.isnan()
        outputs = self.outputs(rows, learning).float()  # half precision in mixed training
        loss = functional.huber_loss(outputs[known], labels[known])
        return loss, max(1, int(known.sum()))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights that learn, each group with its peak learning rate."""
        recipe = self.job.recipe
        if self.job.phase == 0:
            rates = [(self.network, recipe.head.learning_rate)]
        else:
            rates = self.whole.tuning_rates(recipe)
        learning = (([p for p in part.parameters() if p.requires_grad], lr) for part, lr in rates)
        return [{"params": weights, "lr": lr} for weights, lr in learning if weights]
