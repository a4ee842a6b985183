"""The schema of ``config.json`` in the folder of a saved model.

Each kind of model has its own entries. Entries that the schema does not know are ignored, so that
folders of later versions stay readable where they mean the same.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..storage import validate_content
from .gaussian_process.recipe import DescriptorRecipe

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _About(_Part):
    dataset: str = ""
    licence: str = ""
    attribution: str = ""
    dataset_sha256: str = ""
    training_ids: list[str] = []
    codes: list[str] = []
    backbones: dict[str, str] = {}
    versions: dict[str, Any] = {}


class _Config(_Part):
    """The entries that the configs of all kinds of models have."""

    rhosight_format: Literal[1]
    units: dict[str, str]
    scores: dict[str, dict[str, float | None]]
    about: _About
    recipe: dict[str, Any]


class _Target(_Part):
    mean: _Finite
    scale: _Positive
    log_posterior: _Finite


class _Term(_Part):
    kind: Literal["rbf", "rational"]
    blocks: list[str] = Field(min_length=1)


class _Process(_Part):
    terms: list[_Term] = Field(min_length=1)
    linear: list[str]
    robust: Annotated[float, Field(gt=2, allow_inf_nan=False)] | None
    max_iterations: int
    restarts: int
    seed: int
    one_target: Literal[False]
    targets: list[_Target] = Field(min_length=1)


class _Committee(_Part):
    members: list[_Process] = Field(min_length=1)


class _Intervals(_Part):
    level: _Share
    quantiles: list[_NotNegative | None]
    floors: list[_Positive] | None = None
    outside: list[_NotNegative | None] | None = None


class _Domain(_Part):
    elements: list[str] = Field(min_length=1)
    max_distance: _NotNegative
    max_std: list[_NotNegative]
    neighbours: int = Field(ge=1)
    quantile: _Share


class _Descriptors(_Config):
    encoders: dict[str, str] = {}
    prototypes: list[str]
    process: _Committee
    intervals: _Intervals
    domain: _Domain

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        targets = list(DescriptorRecipe.model_validate(self.recipe).targets)
        count = len(targets)
        lengths = {
            "units": count if self._has_units(targets) else -1,
            **{f"process {i}": len(p.targets) for i, p in enumerate(self.process.members)},
            "quantiles": len(self.intervals.quantiles),
            "floors": count if self.intervals.floors is None else len(self.intervals.floors),
            "outside": len(self.intervals.outside or targets),
            "max_std": len(self.domain.max_std) or count,
        }
        if wrong := [name for name, length in lengths.items() if length != count]:
            raise ValueError(f"{wrong[0]} does not belong to the targets {', '.join(targets)}")
        return self

    def _has_units(self, targets: list[str]) -> bool:
        return set(self.units) == set(targets)


class _General(_Part):
    name: str
    sha256: str


class _SpecialAbout(_About):
    special: _About


class _Combined(_Descriptors):
    about: _SpecialAbout
    general: _General
    kept: list[str]
    combined_intervals: _Intervals

    def _has_units(self, targets: list[str]) -> bool:
        """Accept the units of the general model's further targets."""
        own = len(self.combined_intervals.quantiles), len(self.combined_intervals.floors or targets)
        known = set(self.units) >= set(targets) >= set(self.kept)
        return known and own == (len(targets), len(targets))


class _Scaler(_Part):
    mean: list[_Finite] = Field(min_length=1)
    std: list[_Positive]


class _Network(_Config):
    scaler: _Scaler
    prototypes: list[str] = []
    packaged: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if not len(self.scaler.mean) == len(self.scaler.std) == len(self.units):
            raise ValueError("scaler and units have different numbers of targets")
        return self


class _Ensemble(_Config):
    members: int = Field(ge=2, le=1000)
    seeds: int = Field(ge=1, le=1000)
    level: _Share
    domain: _Domain


_SCHEMAS: dict[str, type[_Config]] = {
    "descriptors": _Descriptors,
    "combined": _Combined,
    "network": _Network,
    "ensemble": _Ensemble,
}


def check_config(config: dict[str, Any], kind: str) -> None:
    """Check the config of a kind of model; an unknown kind is not checked.

    Raises
    ------
    ValueError
        If an entry is missing or wrong; the message names it.
    """
    schema = _SCHEMAS.get(kind)
    if schema is not None:
        validate_content(schema, config)
