"""Compare Gaussian processes, fine-tuned networks and AutoGluon's MultiModalPredictor on one core.

    python -m venv autogluon && autogluon/bin/pip install autogluon.multimodal==1.6.3
    python benchmarks/training.py --autogluon-python autogluon/bin/python --json training.json

AutoGluon needs other versions of PyTorch and timm than rhosight. It therefore has a separate
environment, which also runs this file. Both programs start from the same weights (the bundled
encoders, written to disk in AutoGluon's format). They use the same materials, images, texts and
inner split for early stopping, predict one target, and are scored on the same validation folds of
the training set. The test set of the default split is not used. Both combine an image and a text
encoder, each with its own settings. rhosight uses its `quick` recipe, but the text encoder is not
first trained on the elements unless --element-steps is given. AutoGluon uses its defaults with
three exceptions: the batch size (as in rhosight), the pooling (the mean over tokens, as in
rhosight), and no separate process for data loading. AutoGluon gets the images as 8-bit PNG files.

Gaussian processes read the same encoders at several layers (the recipe `image+text`, with images of
the same size and the same text). They need no epochs and no materials to watch: they learn from
those, too. Their seconds include the drawing of the images; nothing is read from a cache.

Each other program runs with several numbers of fine-tuning epochs. Each run is complete and follows
its learning-rate schedule to the end. The script prints the seconds and the validation R² of every
run. It also prints the time to an R², which is the time of the shortest run that reaches it on the
mean over the folds, and the best R² within equal time. A second table shows rhosight's image and
text networks with each setting of `tuned`: seconds per fine-tuning epoch, and validation R². Time
is processor time with one thread for a whole fit, from the loading of the weights. For networks it
does not include the drawing of the images, which both programs share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from rhosight import Dataset, Recipe
    from rhosight.inputs.tensors import Inputs
    from rhosight.training.stages import EncoderCache

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TUNED = ("all", "last", "lora")
PARTS = ("learned", "watched", "scored")
PROCESSES = "rhosight, Gaussian processes"


def main() -> None:
    os.environ.update(dict.fromkeys(THREADS, "1"))  # before NumPy loads
    if sys.argv[1:2] == ["--autogluon-run"]:
        autogluon_run(Path(sys.argv[2]))
        return
    arguments = parse()
    from rhosight import load_dataset, load_recipe, split
    from rhosight.dataset import folds
    from rhosight.models.inputs import make_inputs
    from rhosight.training.folds import inner_split
    from rhosight.training.stages import EncoderCache

    changes = {"targets": (arguments.target,), "text": {"element_steps": arguments.element_steps}}
    recipe = load_recipe("quick", **changes)
    recipe = recipe.replace(image={"settings": {"size": arguments.size}})
    dataset = load_dataset("mp-fcc").require_targets(recipe.targets)
    inputs = make_inputs(dataset, recipe)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.autogluon_python:
            write_weights(folder, arguments.size)
            write_materials(folder, dataset, recipe)
        parts = folds(dataset, 5, indices=split(dataset)[0])[: arguments.folds]
        for fold, (training, scored) in enumerate(parts):
            learned, watched = (training[part] for part in inner_split(dataset[training], recipe))
            part = dict(zip(PARTS, (learned, watched, scored), strict=True))
            if not arguments.only_tuned:
                row = {"program": PROCESSES, "fold": fold, "epochs": 0}
                rows.append(row | process_run(recipe, dataset, part))
                report(rows[-1])
            for epochs in arguments.epochs:
                if not arguments.only_tuned:
                    changed = recipe.replace(fine_tuning={"epochs": epochs})
                    row = {"program": "rhosight", "fold": fold, "epochs": epochs}
                    found = rhosight_run(changed, dataset, inputs, part, EncoderCache())
                    rows.append(row | found[-1])
                    report(rows[-1])
                if arguments.autogluon_python:
                    settings = {"epochs": epochs, "batch": recipe.fine_tuning.batch_size}
                    settings |= {"target": arguments.target, "seed": recipe.seed}
                    row = {"program": "AutoGluon", "fold": fold, "epochs": epochs}
                    job = {"settings": settings, "rows": {k: v.tolist() for k, v in part.items()}}
                    rows.append(row | autogluon_fit(arguments.autogluon_python, folder, job))
                    report(rows[-1])
            for modality in ("image", "text") if arguments.tuned_epochs else ():
                cache = EncoderCache()
                for tuned in TUNED:
                    stage = {"tuned": tuned, "epochs": arguments.tuned_epochs}
                    changed = recipe.replace(modality=modality, fine_tuning=stage)
                    head, whole = rhosight_run(changed, dataset, inputs, part, cache)
                    row = {"program": f"{modality}, {tuned}", "fold": fold}
                    row |= {"epoch": whole["epoch"], "r2_head": head["r2"], "r2": whole["r2"]}
                    rows.append(row)
                    report(rows[-1])
    print(summary(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--autogluon-python", type=Path, help="Python of the environment with AutoGluon"
    )
    parser.add_argument("--target", default="formation_energy_per_atom")
    parser.add_argument("--size", type=int, default=96, help="pixels along each side of the image")
    parser.add_argument("--element-steps", type=int, default=0)
    parser.add_argument("--folds", type=int, default=1, help="number of folds to run, out of five")
    parser.add_argument("--epochs", type=int, nargs="*", default=[2, 6, 12])
    parser.add_argument("--tuned-epochs", type=int, default=8, help="0: no second table")
    parser.add_argument("--only-tuned", action="store_true", help="make only the second table")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.only_tuned and arguments.autogluon_python:
        parser.error("--only-tuned does not run AutoGluon. Omit --autogluon-python")
    return arguments


def rhosight_run(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    rows: dict[str, np.ndarray],
    cache: EncoderCache,
) -> list[dict[str, float]]:
    """Return total seconds, seconds per epoch and validation R² after each stage.

    The seconds count from the start; the epochs are fine-tuning epochs. ``cache`` keeps the
    features of frozen backbones between runs.
    """
    import numpy as np

    from rhosight.metrics import r2_score
    from rhosight.training.folds import fit_scaler
    from rhosight.training.stages import TrainingData, train

    targets = dataset.targets[list(recipe.targets)].to_numpy(dtype=float)
    training = np.concatenate([rows["learned"], rows["watched"]])
    stages: list[dict[str, float]] = []
    ends: list[float] = []
    begun = time.process_time()

    def progress(label: str, *_: Any) -> None:
        if label.endswith("fine-tuning"):
            ends.append(time.process_time())

    def remember(result: Any) -> None:
        seconds = time.process_time() - begun
        r2 = r2_score(targets[rows["scored"], 0], result.predict(rows["scored"])[:, 0])
        stages.append({"seconds": seconds, "r2": r2})
        stages[-1]["epoch"] = float(np.median(np.diff(ends))) if len(ends) > 1 else float("nan")
        ends.clear()

    scaler = fit_scaler(targets[training])
    data = TrainingData(inputs, targets, rows["learned"], rows["watched"], scaler)
    train(recipe, data, cache, on_stage=remember, progress=progress)
    return stages


def process_run(recipe: Recipe, dataset: Dataset, rows: dict[str, np.ndarray]) -> dict[str, float]:
    """Return total seconds and validation R² of Gaussian processes that read the encoders."""
    import numpy as np

    from rhosight import load_recipe
    from rhosight.metrics import r2_score
    from rhosight.models.blocks import BlockReader
    from rhosight.models.gaussian_process.fitting import fit_descriptors
    from rhosight.networks.feature_settings import three_planes

    size = recipe.image.settings.size
    text = {"extents": (recipe.text.extent,), "lesson": recipe.text.element_steps > 0}
    images = tuple(three_planes(kind, size) for kind in ("total", "difference"))
    processes = load_recipe(
        "image+text", targets=recipe.targets, image={"images": images}, text=text
    )
    training = np.concatenate([rows["learned"], rows["watched"]])
    own = dataset[np.concatenate([training, rows["scored"]])]
    targets = own.targets[list(recipe.targets)].to_numpy(dtype=float)
    known, new = np.split(np.arange(len(own)), [len(training)])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RHOSIGHT_CACHE"] = folder
        begun = time.process_time()
        table = BlockReader(processes).table(own)
        predicted = fit_descriptors(processes, table, targets, known)(new)
        seconds = time.process_time() - begun
        del os.environ["RHOSIGHT_CACHE"]
    return {"seconds": seconds, "r2": r2_score(targets[new, 0], predicted[:, 0])}


def write_weights(folder: Path, size: int) -> None:
    """Write the bundled encoders as AutoGluon checkpoints (timm_image, hf_text)."""
    import torch

    from rhosight.networks.backbones import ImageBackbone, TextBackbone
    from rhosight.networks.weights import DEFAULT_IMAGE

    image, text = ImageBackbone(), TextBackbone()
    (folder / "image").mkdir()
    # AutoGluon reads this format
    torch.save(image.model.state_dict(), folder / "image" / "pytorch_model.bin")
    about = {
        "architecture": DEFAULT_IMAGE,
        "num_features": image.width,
        "input_size": [3, size, size],
        "mean": image.mean.flatten().tolist(),
        "std": image.std.flatten().tolist(),
    }
    (folder / "image" / "config.json").write_text(json.dumps(about))
    text.model.save_pretrained(folder / "text")
    text.tokenizer.save_pretrained(folder / "text")


def write_materials(folder: Path, dataset: Dataset, recipe: Recipe) -> None:
    """Write a table of image file, text and target in the dataset's order."""
    import pandas as pd

    from rhosight.inputs.image import density_image, to_pil
    from rhosight.models.inputs import collect_texts

    (folder / "images").mkdir()
    files = []
    for name, density in zip(dataset.ids, dataset.densities, strict=True):
        files.append(str(folder / "images" / f"{name}.png"))
        to_pil(density_image(density, recipe.image.settings)).save(files[-1])
    target = recipe.targets[0]
    columns = {"image": files, "text": collect_texts(dataset, recipe.text.extent)}
    columns[target] = dataset.targets[target].to_numpy()
    pd.DataFrame(columns).to_csv(folder / "materials.csv", index=False)


def autogluon_fit(python: Path, folder: Path, job: dict[str, Any]) -> dict[str, float]:
    """Run :func:`autogluon_run` in AutoGluon's environment."""
    (folder / "job.json").write_text(json.dumps(job))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [str(python), str(Path(__file__).resolve()), "--autogluon-run", str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"AutoGluon failed:\n{done.stderr[-4000:]}")
    return json.loads((folder / "result.json").read_text())


def autogluon_run(folder: Path) -> None:
    """Fit and score one predictor from ``job.json`` in AutoGluon's environment."""
    import pandas as pd
    from autogluon.multimodal import MultiModalPredictor

    job = json.loads((folder / "job.json").read_text())
    settings, target = job["settings"], job["settings"]["target"]
    table = pd.read_csv(folder / "materials.csv", keep_default_na=False, dtype={"text": str})
    table[target] = table[target].astype(float)
    learned, watched, scored = (table.iloc[job["rows"][name]] for name in PARTS)
    with tempfile.TemporaryDirectory(dir=folder) as kept:
        begun = time.process_time()
        predictor = MultiModalPredictor(
            label=target, problem_type="regression", eval_metric="r2", path=kept, verbosity=1
        )
        predictor.fit(
            learned.reset_index(drop=True),
            tuning_data=watched.reset_index(drop=True),
            column_types={"image": "image_path", "text": "text", target: "numerical"},
            seed=settings["seed"],
            hyperparameters={
                "model.names": ["timm_image", "hf_text", "fusion_mlp"],
                "model.timm_image.checkpoint_name": str(folder / "image"),
                "model.hf_text.checkpoint_name": str(folder / "text"),
                "model.hf_text.pooling_mode": "mean",
                "optim.max_epochs": settings["epochs"],
                "env.batch_size": settings["batch"],
                "env.per_gpu_batch_size": settings["batch"],
                "env.num_gpus": 0,
                "env.num_workers": 0,
                "env.num_workers_inference": 0,
            },
        )
        seconds = time.process_time() - begun
        predicted = predictor.predict(scored.drop(columns=target))
    true = scored[target].to_numpy()
    r2 = 1 - ((true - predicted.to_numpy()) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    result = {"seconds": seconds, "r2": float(r2)}
    (folder / "result.json").write_text(json.dumps(result))


def report(row: dict[str, Any]) -> None:
    values = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(", ".join(values), file=sys.stderr, flush=True)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return means over the folds as text."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    versus = frame[frame["program"].isin([PROCESSES, "rhosight", "AutoGluon"])]
    lines = []
    if len(versus):
        runs = versus.groupby(["program", "epochs"], sort=False)[["seconds", "r2"]].mean()
        lines += ["whole fits, validation", runs.round(3).to_string(), "", *compared(runs)]
    settings = frame[~frame.index.isin(versus.index)]
    if settings.empty:
        return "\n".join(lines)
    means = settings.groupby("program", sort=False)[["epoch", "r2_head", "r2"]].mean()
    lines += ["", "rhosight's settings of tuned: seconds per fine-tuning epoch, and validation R²"]
    lines += ["after the head stage and after fine-tuning", means.round(3).to_string()]
    return "\n".join(lines)


def compared(runs: pd.DataFrame) -> list[str]:
    """Return the time to an R² and the R² within equal time, for each program."""
    found = []
    for level in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9):
        cells = []
        for program, own in runs.groupby(level="program", sort=False):
            reached = own["seconds"][own["r2"] >= level]
            cells.append(f"{program} {f'{reached.min():.0f} s' if len(reached) else 'not reached'}")
        found.append(f"time to R² {level}: {', '.join(cells)}")
    for seconds in sorted(runs["seconds"]):
        cells = []
        for program, own in runs.groupby(level="program", sort=False):
            within = own["r2"][own["seconds"] <= seconds]
            cells.append(
                f"{program} {f'{within.max():.3f}' if len(within) else 'no run this short'}"
            )
        found.append(f"R² within {seconds:.0f} s: {', '.join(cells)}")
    return found


if __name__ == "__main__":
    main()
