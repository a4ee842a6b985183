"""Search spaces: which fields of a recipe a sweep varies, and how far. JSON on disk.

>>> SearchSpace.named("network")
>>> SearchSpace.from_json("mine.json")

A space varies parameters, and a parameter sets one or several fields of the recipe. A field is
named by the path to it, with numbers for positions in a list: ``head.learning_rate``,
``image.settings.channels.0.window``::

    {
      "recipe": "default",
      "changes": {"modality": "text"},
      "parameters": {
        "dropout": {"low": 0.0, "high": 0.5, "fields": ["training.dropout"]},
        "rate": {"low": 1e-4, "high": 1e-2, "log": true,
                 "fields": ["head.learning_rate", "fine_tuning.learning_rate"]},
        "fine-tuning epochs": {"low": 4, "high": 24, "step": 4, "fields": ["fine_tuning.epochs"]},
        "extent": {"choices": ["formula", "keywords"], "fields": ["text.extent"]}
      },
      "first": [{"dropout": 0.1, "rate": 1e-3, "fine-tuning epochs": 16, "extent": "keywords"}]
    }
"""

from __future__ import annotations

import copy
import json
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import RhosightError
from ...models.gaussian_process.recipe import DESCRIPTOR_RECIPES, DescriptorRecipe
from ...models.loading import load_recipe
from ...networks.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

SPACES: tuple[str, ...] = ("network", "best", "paper-table2", "paper-table3")
"""Names for :meth:`SearchSpace.named`.

``network``
    Ours: rates, epochs, batch, regularisation and text extent of the default recipe.
``best``
    Which Gaussian processes the descriptor recipe is made of; the rest they settle by themselves.
``paper-table2``, ``paper-table3``
    Batch, rate, patience and patch of CLIP, the paper's five trials first.
"""

Value = bool | int | float | str | None
Values = dict[str, Value]
"""Parameter → its value; of a parameter with named choices, the name."""


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included; integers if both (and ``step``) are.

    Attributes
    ----------
    step
        Only low, low + step, ...
    log
        Evenly on a logarithmic scale.
    fields
        What the number is written to; the parameter's own name if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int | float
    high: int | float
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    fields: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        return self

    @property
    def ends(self) -> tuple[Value, Value]:
        return self.low, self.high

    def suggest(self, trial: Trial, name: str) -> Value:
        """Draw a number."""
        step = 1 if self.step is None else self.step
        if all(isinstance(number, int) for number in (self.low, self.high, step)):
            return trial.suggest_int(name, self.low, self.high, step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def value_of(self, drawn: Value) -> Any:
        """What is written to the recipe."""
        return drawn


class Choice(BaseModel):
    """One of several values: plain ones, or names for anything that JSON can hold.

    Attributes
    ----------
    choices
        A list of numbers, texts, booleans or nulls; or name → value.
    fields
        What the value is written to; the parameter's own name if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: Annotated[tuple[Value, ...], Field(min_length=1)] | dict[str, Any]
    fields: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[Value, Value]:
        values = tuple(self.choices)
        return values[0], values[-1]

    def suggest(self, trial: Trial, name: str) -> Value:
        """Draw a value, or the name of one."""
        return trial.suggest_categorical(name, tuple(self.choices))

    def __contains__(self, value: Value) -> bool:
        return value in self.choices

    def value_of(self, drawn: Value) -> Any:
        """What is written to the recipe."""
        return self.choices[drawn] if isinstance(self.choices, dict) else drawn


class SearchSpace(BaseModel):
    """What a sweep varies.

    Attributes
    ----------
    recipe
        Name of the recipe that it starts from: see :func:`rhosight.networks.presets.recipe_names`, or
        ``best`` or ``no-dft``.
    changes
        Fields of it that are other than there, and fixed.
    parameters
        Name → :class:`Range` or :class:`Choice`.
    first
        Trials that are run before any is drawn; values of all parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = "default"
    changes: dict[str, Any] = {}
    parameters: dict[str, Range | Choice] = Field(min_length=1)
    first: tuple[Values, ...] = ()

    @classmethod
    def named(cls, name: str) -> SearchSpace:
        """One of :data:`SPACES`; RhosightError names them if there is no such."""
        if name not in SPACES:
            raise RhosightError(
                f"no search space is called {name!r}; known are {', '.join(SPACES)}, or give the "
                "path of a JSON file"
            )
        text = (resources.files("rhosight") / "data" / "spaces" / f"{name}.json").read_text()
        return cls._checked(json.loads(text), name)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> SearchSpace:
        """Read a file; RhosightError names the file and the first field that is wrong."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RhosightError(f"{path}: not a readable JSON search space ({error})") from error
        return cls._checked(content, str(path))

    @classmethod
    def _checked(cls, content: Any, where: str) -> SearchSpace:
        try:
            space = cls.model_validate(content)
        except ValidationError as error:
            problem = error.errors()[0]
            kinds = (Range.__name__, Choice.__name__)  # pydantic's, not the file's
            path = ".".join(str(part) for part in problem["loc"] if part not in kinds)
            raise RhosightError(f"{where}: {path or 'content'}: {problem['msg']}") from error
        space._try_out(where)
        return space

    def with_targets(self, targets: tuple[str, ...]) -> SearchSpace:
        """The same for other columns of the dataset."""
        return self.model_copy(update={"changes": self.changes | {"targets": targets}})

    @property
    def has_targets(self) -> bool:
        """Whether it says itself what is predicted."""
        return "targets" in load_recipe(self.recipe, **self.changes).model_fields_set

    @property
    def uses_descriptors(self) -> bool:
        """Whether it varies a descriptor recipe, not a network's."""
        return self.recipe in DESCRIPTOR_RECIPES

    def recipe_of(self, values: Values) -> Recipe | DescriptorRecipe:
        """The recipe of a trial.

        Raises
        ------
        RhosightError
            If a path is no field of the recipe, or a value is none for it.
        """
        fields = load_recipe(self.recipe, **self.changes).model_dump(mode="json")
        for name, drawn in values.items():
            parameter = self.parameters[name]
            for path in parameter.fields or (name,):
                _put(fields, path, copy.deepcopy(parameter.value_of(drawn)))
        return load_recipe(self.recipe, **fields)

    def draw(self, trial: Trial) -> Values:
        """The values of a trial of Optuna."""
        return {name: part.suggest(trial, name) for name, part in self.parameters.items()}

    def _try_out(self, where: str) -> None:
        """Mistakes show at once, not after hours: both ends of every parameter make a recipe."""
        low, high = (
            {name: part.ends[end] for name, part in self.parameters.items()} for end in (0, 1)
        )
        for values in (low, high, *self.first):
            if values.keys() != self.parameters.keys():
                names = ", ".join(sorted(values.keys() ^ self.parameters.keys()))
                raise RhosightError(f"{where}: first: give each parameter one value ({names})")
            for name, value in values.items():
                if value not in self.parameters[name]:
                    raise RhosightError(f"{where}: first: {name}: {value!r} is out of its range")
            try:
                self.recipe_of(values)
            except RhosightError as error:
                raise RhosightError(f"{where}: {error}") from error


def _put(fields: dict[str, Any], path: str, value: Any) -> None:
    """Set what a path of names and positions leads to."""
    *above, last = path.split(".")
    place: Any = fields
    try:
        for part in above:
            place = place[int(part) if isinstance(place, list) else part]
        key = int(last) if isinstance(place, list) else last
        place[key]  # raises if it is not there
        place[key] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RhosightError(f"{path}: no such field of a recipe") from error
