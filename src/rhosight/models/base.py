"""What every model has in common: scores on held-out materials, a folder on disk, a model card."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
from pymatgen.core import Structure
from safetensors import SafetensorError

from .. import __version__
from ..dataset.dataset import Dataset
from ..density.charge_density import ChargeDensity
from ..errors import RhosightError, first_line
from .folder import CONFIG, new_folder

if TYPE_CHECKING:
    from ..explain.explainers import Explains
    from ..explain.explanation import Explanation, Explanations

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the saved folder; a folder of another one is refused."""

MODELS = Path(__file__).parent / "data" / "models"

BUNDLED_MODELS: dict[str, str] = {
    "best": "c6e150654ac20a7a1faf0b3a88c331dc11557783bffe7f1c5cba98320cac9d84",
    "no-dft": "cd1786e95352bdb90911972148aa32814aeeae9788d5a909d33bdab2ff9d0f31",
}
"""Models that come with the package, and the SHA-256 of their weights."""

WEIGHTS, CARD = "model.safetensors", "README.md"


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
        self._explains: Explains | None = None

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
    def predict(
        self, materials: Any, progress: Callable[[str, int, int], None] | None = None
    ) -> pd.DataFrame:
        """Predictions (materials, targets), in :attr:`units`, indexed by id or file name."""

    def predict_intervals(
        self, materials: Any, progress: Callable[[str, int, int], None] | None = None
    ) -> pd.DataFrame:
        """As :meth:`predict`, with the intervals of the models that have them."""
        return self.predict(materials, progress)

    def explain(
        self,
        materials: Any,
        details: bool = True,
        background: Dataset | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Explanation | Explanations:
        """Why it predicts what it does: modalities, and places, words or descriptors within them.

        Parameters
        ----------
        materials
            As :meth:`predict` takes them; one density (or, where that is enough, structure) by
            itself gives one explanation.
        details
            Whether to look into the modalities; what each adds as a whole takes less time.
        background
            Materials that predictions are compared with. Default: those of the training part. A
            network does not keep them; they are found if they come with the package.
        progress
            Called with ("explanations", done, all).

        Returns
        -------
        :class:`rhosight.explain.Explanation`, or :class:`rhosight.explain.Explanations` in the
        order given.

        Raises
        ------
        RhosightError
            If the model is not fitted, a material lacks what it reads, or there is no background.
        """
        from ..explain.explanation import Explanations

        self._check_fitted()
        one = isinstance(materials, (ChargeDensity, Structure))
        if self.uses_density and isinstance(materials, (Structure, Mapping)):
            raise RhosightError(
                "this model reads charge densities; use no-dft for structures alone"
            )
        if isinstance(materials, Structure):
            materials = {materials.composition.reduced_formula: materials}
        elif one:
            materials = [materials]
        if background is None:
            explains = self._explains = self._explains or self.explainer()
        else:
            explains = self.explainer(background)
        found, codes = [], set()
        for part in _one_by_one(materials):  # may be read from files at this moment
            found.append(explains(part, details))
            codes |= codes_of(part)
            if progress:
                progress("explanations", len(found), len(materials))
        warn_of_other_codes(codes, self.about.get("codes", []), self.core_free)
        return found[0] if one else Explanations(found)

    @abstractmethod
    def explainer(self, background: Dataset | None = None) -> Explains:
        """What :meth:`explain` asks about each material; made once for each background."""

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
        self._check_fitted("nothing to save: the model is not fitted")
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

    def _check_fitted(self, message: str = "") -> None:
        if not self.fitted:
            raise RhosightError(
                message or "this model is not fitted; call fit, or load one: from_pretrained"
            )

    def _remember(self, dataset: Dataset, **more: Any) -> None:
        """What the card and later warnings need to know of the training part."""
        self._explains = None  # that of an earlier fit
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
            example.append('model.predict([rhosight.ChargeDensity.from_file("CHGCAR")])')
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


def load_model(name: str | os.PathLike) -> SavedModel:
    """Load any model.

    Parameters
    ----------
    name
        ``best`` or ``no-dft``, which come with the package (trained on 85 % of ``mp-fcc``, see
        their cards), a folder that ``save_pretrained`` wrote, or a Hugging Face hub id.

    Raises
    ------
    RhosightError
        If there is no such model, or its weights are not those that were packaged.
    """
    from .descriptor_model import DescriptorModel

    if name in BUNDLED_MODELS:
        return DescriptorModel.from_pretrained(bundled_folder(str(name)))
    kind = read_config(name)[1]["kind"]
    if kind == DescriptorModel.kind:
        return DescriptorModel.from_pretrained(name)
    from .ensemble import Ensemble  # Lightning takes seconds to load
    from .property_model import PropertyModel

    return (Ensemble if kind == Ensemble.kind else PropertyModel).from_pretrained(name)


def bundled_folder(name: str) -> Path:
    """Where a model of :data:`BUNDLED_MODELS` lies, its weights checked against their SHA-256.

    Raises
    ------
    RhosightError
        If the weights are not those that were packaged.
    """
    weights = MODELS / name / WEIGHTS
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "no file"
    if found != BUNDLED_MODELS[name]:
        raise RhosightError(f"{weights}: not the weights that came with rhosight; install it again")
    return weights.parent


def read_config(folder: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Where a saved model lies (fetched if it is a hub id), and its config."""
    path = Path(folder)
    if not path.exists() and str(folder).count("/") == 1 and not str(folder).startswith("."):
        path = _from_hub(str(folder))
    if not path.is_dir() or not all((path / name).exists() for name in (CONFIG, WEIGHTS)):
        raise RhosightError(
            f"{folder}: not a rhosight model; give {' or '.join(BUNDLED_MODELS)}, or a folder with "
            f"{CONFIG} and {WEIGHTS}, as `rhosight train` writes it"
        )
    try:
        config = json.loads((path / CONFIG).read_text())
        if config.get("rhosight_format") != FORMAT:
            raise ValueError(f"format {config.get('rhosight_format')!r}, expected {FORMAT}")
        config.setdefault("kind", "network")
    except (ValueError, AttributeError, OSError) as error:
        raise RhosightError(
            f"{folder}: not a readable rhosight model ({error}); train or download it again"
        ) from error
    return path, config


def _one_by_one(materials: Any) -> Iterator[Any]:
    """A dataset, a list, or name → structure, in parts of one material each."""
    if isinstance(materials, Mapping):
        yield from ({name: structure} for name, structure in materials.items())
    else:
        yield from (materials[number : number + 1] for number in range(len(materials)))


def codes_of(materials: Dataset | Sequence[Any] | Mapping[str, Any]) -> set[str]:
    """Codes that densities come from, as far as their provenance tells."""
    if isinstance(materials, Dataset):
        found: Sequence[Any] = materials.provenances
    else:
        found = [d.provenance for d in materials if isinstance(d, ChargeDensity)]
    return {str(about["code"]) for about in found if about.get("code")}


def other_codes(found: set[str], trained: Sequence[str], core_free: bool = False) -> str:
    """What to say of densities from codes that a model was not trained on; empty if nothing.

    Parameters
    ----------
    found
        Codes of the densities.
    trained
        Codes of the training part; empty for a model that reads no density.
    core_free
        Whether the model reads only what codes agree on.
    """
    others = ", ".join(sorted(found - set(trained)))
    if not trained or not others:
        return ""
    why = (
        "it reads what codes agree on, between the atoms, but was tried on few of such densities; "
        "the model no-dft reads none and tells how far to trust it"
        if core_free
        else "near the nuclei they are not the same quantity, and predictions may be far off; use "
        "best, which does not look there, or no-dft, which reads no density"
    )
    return f"densities of {others}, but the model learned from those of {', '.join(trained)}: {why}"


def warn_of_other_codes(found: set[str], trained: Sequence[str], core_free: bool = False) -> None:
    """Log what :func:`other_codes` says."""
    if said := other_codes(found, sorted(trained), core_free):
        logger.warning("%s", said)


def r2_score(true: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination; NaN for a truth without spread."""
    spread = np.sum((true - true.mean()) ** 2) if len(true) else 0.0
    return float(1 - np.sum((true - predicted) ** 2) / spread) if spread > 0 else float("nan")


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Root mean square error, in the unit of the values."""
    return float(np.sqrt(np.mean((true - predicted) ** 2))) if len(true) else float("nan")


def versions() -> dict[str, str]:
    """Versions of what decides about the numbers."""
    packages = (
        "torch",
        "timm",
        "transformers",
        "lightning",
        "peft",
        "pymatgen",
        "robocrys",
        "matminer",
        "spglib",
        "numpy",
        "scipy",
        "scikit-learn",
    )
    return {"rhosight": __version__} | {name: version(name) for name in packages}


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise RhosightError(
            f"{name}: no such folder, and not found on the model hub; give a folder that "
            "`rhosight train` wrote"
        ) from error
