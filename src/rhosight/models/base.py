"""The base class of models: prediction, scores on a test set, a folder on disk."""

from __future__ import annotations

import json
import os
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from ..dataset.dataset import Dataset
from ..errors import RhosightError, first_line
from ..inputs.progress import AnyProgress, Progress
from ..metrics import r2_score, rmse
from .card import render_html, render_text, write_card
from .folder import CARD, CONFIG, FORMAT, new_folder, read_config, upload_folder
from .provenance import describe_training_set, require_unseen


class SavedModel(ABC):
    """A fitted model that predicts properties of crystals, and can be saved.

    Attributes
    ----------
    units
        Target → unit (after ``fit``).
    scores
        Target → R² and RMSE on the materials given to ``score``; saved with the model.
    about
        Facts about the training: dataset, its hash, ids, licence, versions, codes.
    """

    kind: ClassVar[str]
    """Name of this class in ``config.json``."""

    def __init__(self) -> None:
        self.units: dict[str, str] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.about: dict[str, Any] = {}
        self.explainer: Any = None
        """Background and explainer, kept by :func:`rhosight.explain`; ``fit`` removes them."""

    @property
    @abstractmethod
    def targets(self) -> tuple[str, ...]:
        """Return the predicted targets, in order."""

    @property
    @abstractmethod
    def is_fitted(self) -> bool:
        """Tell whether the model can predict."""

    @property
    @abstractmethod
    def uses_density(self) -> bool:
        """Tell whether the model needs charge densities, not only structures."""

    @property
    def core_free(self) -> bool:
        """True if the model ignores the density near the nuclei, where codes disagree."""
        return False

    @property
    def caveat(self) -> str:
        """Return what limits the model's scores, for predictions; often nothing."""
        return ""

    @abstractmethod
    def fit(
        self,
        dataset: Dataset,
        run_dir: str | os.PathLike | None = None,
        progress: AnyProgress | None = None,
    ) -> Self:
        """Train on the materials that have at least one of the targets.

        Parameters
        ----------
        dataset
            The training set.
        run_dir
            Folder from which an interrupted training resumes, if this kind of model can.
        progress
            Called with (label, step, steps, ...).
        """

    @abstractmethod
    def predict(self, materials: Any, progress: Progress | None = None) -> pd.DataFrame:
        """Predict the targets of materials, in :attr:`units`.

        Returns
        -------
        DataFrame (materials, targets), indexed by material id or file name.
        """

    def predict_intervals(self, materials: Any, progress: Progress | None = None) -> pd.DataFrame:
        """Predict as :meth:`predict`, with intervals if this kind of model has them."""
        return self.predict(materials, progress)

    def predict_structure(self, structure: Any) -> Any:
        """Predict one crystal, or a list of crystals, without tables.

        Parameters
        ----------
        structure
            A crystal in any form that :meth:`predict` takes, such as a pymatgen ``Structure``,
            ASE ``Atoms`` or the path of a file for a model without density; or a list of them.

        Returns
        -------
        Target → value in :attr:`units`; for a list, a list of these.

        Raises
        ------
        RhosightError
            As :meth:`predict`.
        """
        is_list = isinstance(structure, list | tuple)
        rows = self.predict(structure if is_list else [structure]).to_dict("records")
        return rows if is_list else rows[0]

    @abstractmethod
    def _write(self, folder: Path) -> dict[str, Any]:
        """Write weights into a folder; return further entries of the config."""

    @classmethod
    @abstractmethod
    def _read(cls, config: dict[str, Any], folder: Path) -> Self:
        """Rebuild the model of a config with the weights of a folder."""

    @abstractmethod
    def _describe(self) -> tuple[str, str]:
        """Return title and Markdown text of the model card: kind of model, inputs, limits."""

    def score(self, dataset: Dataset) -> dict[str, dict[str, float]]:
        """Score predictions of a test set; the model card shows the scores.

        Returns
        -------
        Target → ``r2``, ``rmse`` in the target's unit, and ``n``, the number of labels; without
        targets that have no label.

        Raises
        ------
        RhosightError
            If a material belongs to the training set: its score would be meaningless.
        """
        require_unseen(dataset, self.about.get("training_ids", ()))
        predicted = self.predict(dataset)
        labels = dataset.with_targets(self.targets).targets.reindex(columns=list(self.targets))
        self.scores = {}
        for target in self.targets:
            true = labels[target].to_numpy(dtype=float)
            known = ~np.isnan(true)
            if not known.any():
                continue
            pair = true[known], predicted[target].to_numpy()[known]
            score = {"r2": r2_score(*pair), "rmse": rmse(*pair), "n": int(known.sum())}
            self.scores[target] = score
        return self.scores

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write weights (safetensors), config (JSON) and model card to a folder.

        The folder appears at once or not at all, and replaces an existing model. No pickle.
        """
        self.check_fitted("the model is not fitted; call fit before save_pretrained")
        with new_folder(Path(folder)) as draft:
            config = {
                "rhosight_format": FORMAT,
                "kind": self.kind,
                "units": self.units,
                "scores": self.scores,
                "about": self.about,
                **self._write(draft),
            }
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            (draft / CONFIG).write_text(text, encoding="utf-8")
            (draft / CARD).write_text(write_card(self, *self._describe()), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Self:
        """Load a model from a ``save_pretrained`` folder or from the Hugging Face hub.

        Raises
        ------
        RhosightError
            If the folder is not such a model, or the hub cannot be reached.
        """
        path, config = read_config(folder)
        if config["kind"] != cls.kind:
            raise RhosightError(
                f"{folder}: a model of kind {config['kind']!r}, not {cls.kind!r}; "
                "rhosight.load_model loads any kind"
            )
        try:
            model = cls._read(config, path)
        except MemoryError:
            raise
        except Exception as error:  # of a damaged or tampered folder, whatever its libraries raise
            raise RhosightError(
                f"{folder}: not a readable rhosight model ({first_line(error)}); train or download "
                "it again"
            ) from error
        model.units, model.scores, model.about = (
            config[name] for name in ("units", "scores", "about")
        )
        return model

    def check_fitted(self, message: str = "") -> None:
        """Raise RhosightError if the model cannot predict yet."""
        if not self.is_fitted:
            raise RhosightError(
                message
                or "this model is not fitted; call fit, or load a model with from_pretrained"
            )

    def _check_predictions(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table of predictions; raise if a value is NaN, or a target infinite."""
        for target in self.targets:
            values = table[target].to_numpy(dtype=float)
            # the ends of an interval may be infinite: too few materials for its level
            ends = [table.get(f"{target}{end}", table[target]) for end in ("_low", "_high")]
            bad = ~np.isfinite(values) | np.isnan(np.array(ends, dtype=float)).any(axis=0)
            if bad.any():
                name = table.index[np.flatnonzero(bad)[0]]
                raise RhosightError(
                    f"{name}: the model predicts no finite {target}; the file is damaged or far "
                    "from any crystal, or the model's folder is damaged: check the file, then "
                    "train or download the model again"
                )
        return table

    def _remember(self, dataset: Dataset, **more: Any) -> None:
        """Store the facts about the training set that the card and later warnings need."""
        self.explainer = None  # belongs to an earlier fit
        self.units = {name: dataset.units[name] for name in self.targets}
        self.about = describe_training_set(dataset) | more

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a rhosight model",
    ) -> str:
        """Upload what :meth:`save_pretrained` writes to the Hugging Face hub.

        Parameters
        ----------
        repo_id
            Name on the hub, such as ``user/model``; created if it does not exist.
        private
            Create the repository private; by default the setting of the account decides.
        token
            Of the account; by default that of ``hf auth login``.
        commit_message
            Of the one commit of all files.

        Returns
        -------
        URL of the commit.

        Raises
        ------
        RhosightError
            If the model is not fitted, or the hub cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as above:
            folder = Path(above) / "model"
            self.save_pretrained(folder)
            return upload_folder(folder, repo_id, private, token, commit_message)

    def __repr__(self) -> str:
        return render_text(self)

    def _repr_html_(self) -> str:
        return render_html(self)
