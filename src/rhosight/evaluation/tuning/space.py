"""Define search spaces: the varied fields of a recipe and their ranges.

>>> SearchSpace.from_name("network")
>>> SearchSpace.from_json("mine.json")

A space consists of parameters; each parameter sets one or several fields of the recipe. A field is
named by its path, with numbers for positions in a list: ``head.learning_rate``,
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
from ...models.gaussian_process.recipe import DescriptorRecipe
from ...models.loading import load_recipe
from ...networks.recipe import Recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

SPACES: tuple[str, ...] = ("network", "best", "paper-table2", "paper-table3")
"""Names for :meth:`SearchSpace.from_name`.

``network``
    Learning rates, epochs, batch size, regularisation and text extent of the default recipe.
``best``
    Composition of the Gaussian processes of the descriptor recipe; their hyperparameters are
    always fitted to the training data.
``paper-table2``, ``paper-table3``
    Batch size, learning rate, patience and patch size of CLIP, starting with the paper's five
    trials.
"""

Value = bool | int | float | str | None
Values = dict[str, Value]
"""Parameter → its value, or the name of its value for named choices."""


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included.

    The numbers are integers if ``low``, ``high`` and ``step`` are integers.

    Attributes
    ----------
    step
        Restrict the values to low, low + step, ...
    log
        Draw evenly on a logarithmic scale.
    fields
        Fields of the recipe that are set; the parameter's own name if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: int | float
    high: int | float
    step: int | float | None = Field(None, gt=0)
    log: bool = False
    fields: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be less than high ({self.high})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log requires a low greater than 0 and no step")
        return self

    @property
    def ends(self) -> tuple[Value, Value]:
        """Smallest and largest number."""
        return self.low, self.high

    def suggest(self, trial: Trial, name: str) -> Value:
        """Draw a number."""
        low, high, step = self.low, self.high, 1 if self.step is None else self.step
        if isinstance(low, int) and isinstance(high, int) and isinstance(step, int):
            return trial.suggest_int(name, low, high, step=step, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def resolve(self, drawn: Value) -> Any:
        """Return the value for the recipe."""
        return drawn


class Choice(BaseModel):
    """One of several values: plain values, or named values of any JSON type.

    Attributes
    ----------
    choices
        A list of numbers, texts, booleans or nulls; or name → value.
    fields
        Fields of the recipe that are set; the parameter's own name if empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: Annotated[tuple[Value, ...], Field(min_length=1)] | dict[str, Any]
    fields: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[Value, Value]:
        """First and last value, or their names."""
        values = tuple(self.choices)
        return values[0], values[-1]

    def suggest(self, trial: Trial, name: str) -> Value:
        """Draw a value, or the name of one."""
        return trial.suggest_categorical(name, tuple(self.choices))

    def __contains__(self, value: Value) -> bool:
        return value in self.choices

    def resolve(self, drawn: Value) -> Any:
        """Return the value for the recipe."""
        return self.choices[str(drawn)] if isinstance(self.choices, dict) else drawn


class SearchSpace(BaseModel):
    """Parameters of a sweep and the recipe that they change.

    Attributes
    ----------
    recipe
        Name of the initial recipe, see :func:`rhosight.networks.presets.recipe_names`, or ``best``
        or ``no-dft``.
    changes
        Fields with other, fixed values than in this recipe.
    parameters
        Name → :class:`Range` or :class:`Choice`.
    first
        Trials to run before others are drawn, with values of all parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = "default"
    changes: dict[str, Any] = {}
    parameters: dict[str, Range | Choice] = Field(min_length=1)
    first: tuple[Values, ...] = ()

    @classmethod
    def from_name(cls, name: str) -> SearchSpace:
        """Return a space of :data:`SPACES`.

        Raises
        ------
        RhosightError
            If there is no space of this name.
        """
        if name not in SPACES:
            raise RhosightError(
                f"there is no search space {name!r}; choose from {', '.join(SPACES)}, or give the "
                "path of a JSON file"
            )
        text = (resources.files("rhosight") / "data" / "spaces" / f"{name}.json").read_text()
        return cls._validate(json.loads(text), name)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> SearchSpace:
        """Read a space from a JSON file.

        Raises
        ------
        RhosightError
            If the file cannot be read, or a field is invalid; the message names the first one.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RhosightError(
                f"{path}: cannot be read as a search space in JSON ({error}); correct the file"
            ) from error
        return cls._validate(content, str(path))

    @classmethod
    def _validate(cls, content: Any, where: str) -> SearchSpace:
        """Return the space of a file's content; ``where`` names the file in messages."""
        try:
            space = cls.model_validate(content)
        except ValidationError as error:
            problem = error.errors()[0]
            kinds = (Range.__name__, Choice.__name__)  # pydantic adds them to the path
            path = ".".join(str(part) for part in problem["loc"] if part not in kinds)
            raise RhosightError(f"{where}: {path or 'content'}: {problem['msg']}") from error
        space._check_recipes(where)
        return space

    def with_targets(self, targets: tuple[str, ...]) -> SearchSpace:
        """Return the same space for other columns of the dataset."""
        return self.model_copy(update={"changes": self.changes | {"targets": targets}})

    @property
    def has_targets(self) -> bool:
        """True if the space itself sets the targets."""
        return "targets" in load_recipe(self.recipe, **self.changes).model_fields_set

    def make_recipe(self, values: Values) -> Recipe | DescriptorRecipe:
        """Return the recipe with these values of the parameters.

        Raises
        ------
        RhosightError
            If a path is not a field of the recipe, or a value is invalid.
        """
        fields = load_recipe(self.recipe, **self.changes).model_dump(mode="json")
        for name, drawn in values.items():
            parameter = self.parameters[name]
            for path in parameter.fields or (name,):
                _set_field(fields, path, copy.deepcopy(parameter.resolve(drawn)))
        return load_recipe(self.recipe, **fields)

    def draw(self, trial: Trial) -> Values:
        """Draw the values of a trial."""
        return {name: part.suggest(trial, name) for name, part in self.parameters.items()}

    def _check_recipes(self, where: str) -> None:
        """Raise unless the first trials and both ends of parameters are valid.

        Mistakes are thus found before the sweep starts.
        """
        low, high = (
            {name: part.ends[end] for name, part in self.parameters.items()} for end in (0, 1)
        )
        for values in (low, high, *self.first):
            if values.keys() != self.parameters.keys():
                names = ", ".join(sorted(values.keys() ^ self.parameters.keys()))
                raise RhosightError(
                    f"{where}: first: give exactly one value for each parameter; see {names}"
                )
            for name, value in values.items():
                if value not in self.parameters[name]:
                    raise RhosightError(
                        f"{where}: first: {name}: {value!r} is outside the range of this parameter"
                    )
            try:
                self.make_recipe(values)
            except RhosightError as error:
                raise RhosightError(f"{where}: {error}") from error


def _set_field(fields: dict[str, Any], path: str, value: Any) -> None:
    """Set the field at a path of names and positions."""
    *above, last = path.split(".")
    place: Any = fields
    try:
        for part in above:
            place = place[int(part) if isinstance(place, list) else part]
        key = int(last) if isinstance(place, list) else last
        place[key]  # raises if the field does not exist
        place[key] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise RhosightError(
            f"{path}: the recipe has no such field; correct the path in `fields`"
        ) from error
