"""A recipe: all settings of a model and its training. Ours, and the paper's, by name.

>>> network_recipe("paper-clip", targets=("efermi",))
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from ..dataset.schema import TARGETS
from ..errors import RhosightError
from ..inputs.descriptors.blocks import ALL_BLOCKS
from ..inputs.image import ImageSettings
from .weights import DEFAULT_IMAGE, DEFAULT_TEXT

Modality = Literal["image", "text", "image+text", "clip"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
STAGES = ("head", "fine-tuning")
"""Of the training of each model, in order."""

PARTS = ("train", "validation", "test")
"""Of the materials, on which models are scored."""

MODALITIES: tuple[str, ...] = (
    "image",
    "text",
    "descriptors",
    "image+text",
    "image+descriptors",
    "text+descriptors",
    "image+text+descriptors",
    "clip",
)
"""What the models are called that a recipe trains, in the order in which tables show them."""


Settings = TypeVar("Settings", bound=BaseModel)


def checked(kind: type[Settings], fields: Mapping[str, Any]) -> Settings:
    """Settings of a kind with these fields; RhosightError names the first that is wrong."""
    try:
        return kind(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))  # empty if fields contradict each other
        said = ": ".join(filter(None, ("recipe", where, problem["msg"])))
        raise RhosightError(said) from error


def near(name: str, names: Iterable[str]) -> list[str]:
    """Those of these names that may be meant by a misspelled one, whatever its case."""
    known = {other.lower(): other for other in names}
    return [known[found] for found in difflib.get_close_matches(name.lower(), known, n=3)]


class Pretraining(BaseModel):
    """How a dual encoder learns which image and which text belong together.

    Read where the modality is ``"clip"``. No labels are used; within a cross-validation only the
    materials that a fold learns from are.

    Attributes
    ----------
    epochs
        0 leaves pre-training out.
    batch_size
        Pairs that are told apart at a time.
    width
        Of the space that images and texts share; a CLIP of the hub brings its own.
    learning_rate
        Peak rate of the projections and the temperature.
    image_rate, text_rate
        Peak rates of the encoders.
    patience
        Epochs without improvement after which pre-training stops.
    weights
        Folder that ``rhosight pretrain`` wrote, with the recipe's own backbones: start from it
        instead. Materials it has seen are refused wherever a model is scored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(20, ge=0)
    batch_size: int = Field(64, ge=2)
    width: int = Field(256, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    image_rate: float = Field(3e-4, gt=0)
    text_rate: float = Field(1e-4, gt=0)
    patience: int = Field(10, ge=1)
    weights: str | None = None


class Recipe(BaseModel):
    """All settings of a model and its training; stored with every model and report.

    Fields that are pairs hold one value for the head stage and one for the fine-tuning stage.

    The paper's recipes (:func:`recipe_names`) take from it: the backbones, the readout of four
    dense layers, its two stages, standardised targets, one slice of the difference, z-scored; of
    CLIP the batch size, learning rate, patience and patches of Tables 2 and 3. Where it gives no
    value, the default is ours. So these are assumed:

    - optimiser (AdamW), its rates, weight decay and schedule, and the loss (Huber);
    - epochs, and the batch size of all but CLIP;
    - dropout, and the widths of the two inner layers of the readout;
    - the image's window, orientation and offset (:meth:`rhosight.inputs.image.ImageSettings.paper`), and
      that the stacked model's images are grey;
    - that early stopping watches the validation fold;
    - that readouts drop nothing and keep their statistics in fine-tuning, and that the stacked
      model may keep the weights with which its fine-tuning began;
    - of CLIP, that the linear layer reads both projected embeddings before they are normalised, and
      that all is fine-tuned at once, at one constant rate, for at most 200 epochs;
    - that the three runs of Table 1 differ in their seed and in their split.

    Attributes
    ----------
    modality
        ``"image"``, ``"text"``, ``"image+text"`` (trains the other two first) or ``"clip"`` (one
        linear layer on a dual encoder).
    descriptors
        Blocks of numbers (:data:`rhosight.inputs.descriptors.blocks.ALL_BLOCKS`: composition, statistics of the
        density, descriptors of its shape) that join the image and text networks: a network of
        their own, and the stacked model of all. Not with ``"clip"``.
    targets
        Columns of the dataset, predicted together by one network; missing labels are masked.
    image_backbone, text_backbone
        See :mod:`rhosight.networks.backbones`.
    clip
        Hub id or folder of a CLIP model. None: a dual encoder of ``image_backbone`` and
        ``text_backbone``, which only ``pretraining`` brings together.
    pretraining
        See :class:`Pretraining`.
    image
        See :class:`rhosight.inputs.image.ImageSettings`.
    extent
        How much text: ``"formula"``, ``"keywords"`` or ``"all"``.
    max_tokens
        Of a text that the encoder is shown; None is all that it reads.
    element_steps
        Batches of made-up descriptions from which the text backbone first learns the elements'
        properties, see :mod:`rhosight.training.elements`; 0 leaves that out, as the paper does.
    epochs, batch_size, learning_rate
        Pairs. No epochs leave a stage out. The learning rate is that of readout and fusion, and
        the peak of the schedule.
    stacked_epochs
        Pair of the stacked model, whose parts are already fine-tuned.
    image_rate, text_rate
        Peak learning rates of the backbones in the fine-tuning stage.
    stacked_factor
        Scales all learning rates when the stacked model, whose parts have been fine-tuned, is.
    schedule
        ``"one-cycle"`` (Smith and Topin, arXiv:1708.07120) or ``"constant"``.
    patience
        Pair: epochs without improvement after which a stage stops.
    early_stopping
        ``"inner"``: watch an inner split of the training part. ``"validation"``: watch the
        validation fold, as the paper seems to; its validation scores are then optimistic.
    inner_fraction
        Of the training part, held out to watch.
    dropout
        Share of the values that each dense layer of readout and fusion drops in training (assumed).
    weight_decay
        Of AdamW: how strongly it draws all weights to zero (assumed).
    augment
        Turn and reflect the images and reword the texts at random in training, which leaves the
        physics unchanged.
    shift
        Augmentation also moves the window within its plane, along each axis by up to this fraction
        of the side of the narrowest channel; all channels by the same length, so that they must
        have windows in one unit. Normalisations that look at an image keep to the middle one.
    parallel
        Augmentation also takes the parallel planes that lie so far from those of the channels, in
        interplanar spacings. Each adds a canvas of its own to the memory that images take.
    views
        So many fixed turns (shifts, planes) of each image and wordings of each text: the head
        stage learns from all of them, and predictions are their mean. One without ``augment``.
    tuned
        What of the backbones learns in the fine-tuning stage: ``"all"``, ``"last"`` (only the last
        ``tuned_blocks``: stages of an image backbone as timm groups them, layers of a transformer)
        or ``"lora"`` (only updates of rank ``lora_rank``), see :mod:`rhosight.networks.adapters`.
    tuned_blocks, lora_rank
        Read with ``tuned`` ``"last"`` and ``"lora"``.
    batch_statistics
        Of an image backbone's batch normalisation in the fine-tuning stage. ``"learned"`` from the
        batches, which are not those of the pre-training: the readout has to be learned again, and
        ends better after a dozen epochs or more. ``"kept"``: fine-tuning goes on where the head
        stage ended, which is better after few; learning rates of 1e-4 go with it.
    precision
        Of training, as Lightning names it. ``"auto"``: bfloat16 where a GPU has it, float16 on
        other GPUs, float32 on CPUs, which are rarely faster otherwise.
    compiled
        Fine-tune through ``torch.compile``, which needs a C++ compiler; the last digits change.
    devices
        Fine-tune in so many processes, each on a GPU if there are GPUs and else on the CPU; they
        share every batch. The order of summation changes, so the last digits do.
    seed
        Fixes initial weights, order, dropout, augmentation and the inner split.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: Modality = "image+text"
    descriptors: tuple[str, ...] = ()
    targets: tuple[str, ...] = Field(tuple(TARGETS), min_length=1)
    image_backbone: str = DEFAULT_IMAGE
    text_backbone: str = DEFAULT_TEXT
    clip: str | None = None
    pretraining: Pretraining = Pretraining()
    image: ImageSettings = ImageSettings()
    extent: Literal["formula", "keywords", "all"] = "keywords"
    max_tokens: int | None = Field(None, ge=3)
    element_steps: int = Field(300, ge=0)
    epochs: tuple[NonNegativeInt, NonNegativeInt] = (60, 16)
    stacked_epochs: tuple[NonNegativeInt, NonNegativeInt] = (40, 3)
    batch_size: tuple[PositiveInt, PositiveInt] = (32, 16)
    learning_rate: tuple[PositiveFloat, PositiveFloat] = (1e-3, 1e-3)
    image_rate: float = Field(5e-4, ge=0)
    text_rate: float = Field(2e-4, ge=0)
    stacked_factor: float = Field(0.1, gt=0)
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    patience: tuple[NonNegativeInt, NonNegativeInt] = (20, 12)
    early_stopping: Literal["inner", "validation"] = "inner"
    inner_fraction: float = Field(0.12, gt=0, lt=0.5)
    dropout: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    augment: bool = True
    shift: float = Field(0.0, ge=0, le=0.5)
    parallel: tuple[float, ...] = ()
    views: int = Field(6, ge=1)
    tuned: Literal["all", "last", "lora"] = "all"
    tuned_blocks: int = Field(2, ge=1)
    lora_rank: int = Field(8, ge=1)
    batch_statistics: Literal["learned", "kept"] = "learned"
    precision: Precision = "auto"
    compiled: bool = False
    devices: int = Field(1, ge=1)
    seed: int = 0

    @field_validator("descriptors")
    @classmethod
    def _known_blocks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in ALL_BLOCKS]:
            raise ValueError(f"no block is called {unknown[0]!r}; known: {', '.join(ALL_BLOCKS)}")
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.descriptors and self.modality == "clip":
            raise ValueError("descriptors join image and text networks, not clip; leave one out")
        if (self.shift or self.parallel) and not self.augment:
            raise ValueError("shift and parallel are augmentation; set augment, or drop them")
        if self.shift and self.image.fourier:
            raise ValueError("a Fourier image cannot be shifted; leave out shift or fourier")
        if self.shift and len({channel.unit for channel in self.image.channels}) > 1:
            raise ValueError("shift needs channels whose windows have one unit")
        return self

    @classmethod
    def checked(cls, fields: dict[str, Any]) -> Recipe:
        """The recipe with these fields; RhosightError names the first that is wrong."""
        return checked(cls, fields)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The models that are trained, in order; the last is that of the whole recipe."""
        parts = (*self.modality.split("+"), *(("descriptors",) if self.descriptors else ()))
        return parts if len(parts) == 1 else (*parts, "+".join(parts))

    @property
    def uses_image(self) -> bool:
        return self.modality != "text"

    @property
    def uses_text(self) -> bool:
        return self.modality != "image"

    def require_training(self) -> None:
        """RhosightError if the last model would stay as it began."""
        stacked = len(self.modalities) > 1
        if not any(self.stacked_epochs if stacked else self.epochs):
            name = "stacked_epochs" if stacked else "epochs"
            raise RhosightError(f"recipe: {name} is 0, 0: nothing would be trained; give it some")

    @property
    def pretrains(self) -> bool:
        """Whether training begins with contrastive pre-training on its own materials."""
        settings = self.pretraining
        return self.modality == "clip" and settings.weights is None and settings.epochs > 0
