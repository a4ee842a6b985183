"""What every model has in common: scores on held-out materials, a folder on disk, a model card."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from ..dataset.dataset import Dataset
from ..errors import RhosightError, first_line
from ..inputs.progress import Progress
from ..metrics import r2_score, rmse
from .folder import CARD, CONFIG, FORMAT, new_folder, read_config
from .provenance import versions


class SavedModel(ABC):
    """A fitted model that predicts properties of crystals, and can be saved.

    Attributes
    ----------
    units
        Target → unit (after ``fit``).
    scores
        Target → R² and RMSE on the materials given to ``score``; saved with the model.
    about
        What is known of the training: dataset, its hash, ids, licence, versions, codes.
    """

    kind: ClassVar[str]
    """What ``config.json`` calls this class."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.about: dict[str, Any] = {}
        self.explainer: Any = None
        """Made by :func:`rhosight.explain`, kept for the next call; ``fit`` drops it."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """What it predicts, in order."""

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether there is something to predict with."""

    @property
    @abstractmethod
    def uses_density(self) -> bool:
        """Whether a structure is not enough."""

    @property
    def core_free(self) -> bool:
        """Whether it reads only what codes agree on: nothing near the nuclei."""
        return False

    @abstractmethod
    def predict(self, materials: Any, progress: Progress | None = None) -> pd.DataFrame:
        """Predictions (materials, targets), in :attr:`units`, indexed by id or file name."""

    def predict_intervals(self, materials: Any, progress: Progress | None = None) -> pd.DataFrame:
        """As :meth:`predict`, with the intervals of the models that have them."""
        return self.predict(materials, progress)

    @abstractmethod
    def _write(self, folder: Path) -> dict[str, Any]:
        """Write weights into a folder; return what else the config has to hold."""

    @classmethod
    @abstractmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        """The model of a config, with the weights of a folder."""

    @abstractmethod
    def _describe(self) -> tuple[str, str]:
        """For the model card: what kind of model this is, and what to know of it, Markdown."""

    def score(self, dataset: Dataset) -> dict[str, dict[str, float]]:
        """R², RMSE (in the target's unit) and count for each target; remembered in the card.

        Raises
        ------
        RhosightError
            If a material was part of the training data: such a score would mean nothing.
        """
        seen = set(self.about.get("training_ids", ())) & set(dataset.ids)
        if seen:
            raise RhosightError(
                f"{len(seen)} of these materials were trained on, {min(seen)} for one: score others"
            )
        predicted = self.predict(dataset)
        dataset = dataset.with_targets(self.targets)
        self.scores = {}
        for target in self.targets:
            true = dataset.targets[target].to_numpy(dtype=float)
            known = ~np.isnan(true)
            pair = true[known], predicted[target].to_numpy()[known]
            score = {"r2": r2_score(*pair), "rmse": rmse(*pair), "n": int(known.sum())}
            self.scores[target] = score
        return self.scores

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write weights (safetensors), config (JSON) and model card to a folder.

        The folder appears at once or not at all; an existing model in it is replaced.
        """
        self.check_fitted("nothing to save: the model is not fitted")
        with new_folder(Path(folder)) as draft:
            config = {
                "rhosight_format": FORMAT,
                "kind": self.kind,
                "units": self.units,
                "scores": self.scores,
                "about": self.about,
                **self._write(draft),
            }
            (draft / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            (draft / CARD).write_text(self._card())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Self:
        """Load a model that ``save_pretrained`` wrote: a local folder, or a Hugging Face hub id.

        Raises
        ------
        RhosightError
            If the folder is not such a model, or the hub cannot be reached.
        """
        path, config = read_config(folder)
        if config["kind"] != cls.kind:
            raise RhosightError(
                f"{folder}: a model of kind {config['kind']!r}, not {cls.kind!r}; "
                "rhosight.load_model loads either"
            )
        try:
            model = cls._read(config, path)
        except (ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
            raise RhosightError(
                f"{folder}: not a readable rhosight model ({first_line(error)}); train or download "
                "it again"
            ) from error
        model.units, model.scores, model.about = (
            config[name] for name in ("units", "scores", "about")
        )
        return model

    def check_fitted(self, message: str = "") -> None:
        """Raise RhosightError if there is nothing to predict with."""
        if not self.fitted:
            raise RhosightError(
                message or "this model is not fitted; call fit, or load one: from_pretrained"
            )

    def _remember(self, dataset: Dataset, **more: Any) -> None:
        """What the card and later warnings need to know of the training part."""
        self.explainer = None  # that of an earlier fit
        self.units = {name: dataset.units[name] for name in self.targets}
        self.about = {
            "dataset": dataset.metadata.get("name", ""),
            "dataset_sha256": dataset.fingerprint(),
            "materials": len(dataset),
            "training_ids": dataset.ids,
            "licence": dataset.metadata.get("licence", ""),
            "attribution": dataset.metadata.get("attribution", ""),
            "versions": versions(),
            **more,
        }

    def _score_lines(self) -> str:
        if not self.scores:
            return "Not scored on materials of its own: no test part was held out.\n"
        rows = [
            f"| `{name}` | {s['r2']:.3f} | {s['rmse']:.4g} {self.units[name]} | {s['n']} |"
            for name, s in self.scores.items()
        ]
        head = ["Scores on held-out materials:", "", "| target | R² | RMSE | materials |"]
        return "\n".join([*head, "| --- | --- | --- | --- |", *rows, ""])

    def _card(self) -> str:
        """The model card, Markdown with the hub's YAML header."""
        title, text = self._describe()
        targets = "\n".join(f"- `{name}` ({self.units[name]})" for name in self.targets)
        used = ", ".join(f"{name} {number}" for name, number in self.about["versions"].items())
        example = ["import rhosight", "", 'model = rhosight.load_model("this-folder")']
        if self.uses_density:
            example.append('model.predict([rhosight.read_density("CHGCAR")])')
        else:
            example.insert(1, "from pymatgen.core import Structure")
            example.append('model.predict({"mine": Structure.from_file("mine.cif")})')
        code = "\n".join(example)
        return f"""---
library_name: rhosight
tags: [materials-science, charge-density]
---

# {title} for {", ".join(self.targets)}

Predicts, for a crystal:

{targets}

{text}

## Scores

{self._score_lines()}
## Training data

{self.about["materials"]} materials of `{self.about["dataset"]}` (SHA-256
`{self.about["dataset_sha256"]}`). {self.about["attribution"]} {self.about["licence"]}

Made with {used}.

```python
{code}
```
"""
