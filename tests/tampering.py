"""Model folders that somebody changed: for the tests, and in full for the benchmark."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Change = Callable[[Path], None]


def edit_config(path: tuple[Any, ...], value: Any = ..., delete: bool = False) -> Change:
    """Return a change that sets or deletes one entry of config.json."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text())
        *above, last = path
        place = config
        for key in above:
            place = place[key]
        if delete:
            del place[last]
        else:
            place[last] = value
        file.write_text(json.dumps(config))

    return change


def edit_array(name: str, edit: Callable[[np.ndarray], np.ndarray | None]) -> Change:
    """Return a change that replaces one array; None removes it."""

    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        arrays = load_file(file)
        new = edit(arrays.pop(name).copy())
        if new is not None:
            arrays[name] = np.ascontiguousarray(new)
        file.unlink()  # it may be linked to the original
        save_file(arrays, file)

    return change


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return an edit that sets the first value of an array."""

    def edit(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return edit


def replace_by_pipe(name: str) -> Change:
    """Return a change that puts a pipe in place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def write(name: str, content: bytes) -> Change:
    """Return a change that writes a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return change


def cut_weights(size: int) -> Change:
    """Return a change that keeps only the first bytes of the weights."""

    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        content = file.read_bytes()[:size]
        file.unlink()
        file.write_bytes(content)

    return change


def copy_model(source: Path, folder: Path) -> Path:
    """Copy a model; the weights are linked, because most changes leave them."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name == "model.safetensors":
            os.link(path, folder / path.name)
        elif path.is_file():
            shutil.copy(path, folder / path.name)
    return folder


DEEP = b'{"a":' * 100_000

NAMED: dict[str, Change] = {
    "no scores": edit_config(("scores",), delete=True),
    "no units": edit_config(("units",), delete=True),
    "no about": edit_config(("about",), delete=True),
    "no recipe": edit_config(("recipe",), delete=True),
    "no prototypes": edit_config(("prototypes",), delete=True),
    "no process": edit_config(("process",), delete=True),
    "no members": edit_config(("process", "members"), []),
    "no terms": edit_config(("process", "members", 0, "terms"), []),
    "unknown kernel": edit_config(("process", "members", 0, "terms", 0, "kind"), "exec"),
    "unknown block": edit_config(("process", "members", 0, "terms", 0, "blocks"), ["os"]),
    "one target": edit_config(("process", "members", 0, "one_target"), True),
    "a target less": edit_config(("process", "members", 0, "targets", 0), delete=True),
    "scale of zero": edit_config(("process", "members", 0, "targets", 0, "scale"), 0.0),
    "scale is text": edit_config(("process", "members", 0, "targets", 0, "scale"), "1.0"),
    "mean is NaN": edit_config(("process", "members", 0, "targets", 0, "mean"), float("nan")),
    "quantile is negative": edit_config(("intervals", "quantiles", 0), -1.0),
    "quantile less": edit_config(("intervals", "quantiles", 0), delete=True),
    "level": edit_config(("intervals", "level"), 2.0),
    "units of another": edit_config(("units",), {"efermi": "eV"}),
    "units are numbers": edit_config(("units",), {"efermi": 1}),
    "no elements": edit_config(("domain", "elements"), []),
    "neighbours": edit_config(("domain", "neighbours"), -1),
    "recipe with a new field": edit_config(("recipe", "command"), "rm"),
    "recipe is a list": edit_config(("recipe",), []),
    "config of another format": edit_config(("rhosight_format",), 99),
    "kind": edit_config(("kind",), "builtins"),
    "kind is a list": edit_config(("kind",), ["descriptors"]),
    "config is a list": write("config.json", b"[]"),
    "config is empty": write("config.json", b""),
    "config is no text": write("config.json", b"\xff\xfe\x00"),
    "config nested too deep": write("config.json", DEEP),
    "config is a pipe": replace_by_pipe("config.json"),
    "weights are a pipe": replace_by_pipe("model.safetensors"),
    "weights are empty": write("model.safetensors", b""),
    "weights are a pickle": write("model.safetensors", b"\x80\x04\x95cos\nsystem\n" * 9),
    "weights with a huge header": write("model.safetensors", b"\xff" * 8 + b"{}"),
    "weights cut": cut_weights(100_000),
    "a scaler of NaN": edit_array("process/member/0/scaler/magpie/mean", set_first(np.nan)),
    "a huge feature": edit_array("process/member/0/features/magpie", set_first(1e300)),
    "features of a half": edit_array(
        "process/member/0/features/magpie", lambda a: a.astype(np.float16)
    ),
    "features of a row less": edit_array("process/member/0/features/magpie", lambda a: a[1:]),
    "features of a column less": edit_array("process/member/0/features/magpie", lambda a: a[:, 1:]),
    "no features": edit_array("process/member/0/features/magpie", lambda a: None),
    "labels of a row less": edit_array("process/member/0/target/0/labels", lambda a: a[1:]),
    "labels of infinity": edit_array("process/member/0/target/0/labels", set_first(np.inf)),
    "rows beyond": edit_array("process/member/0/target/0/rows", set_first(10**6)),
    "rows of floats": edit_array("process/member/0/target/0/rows", lambda a: a.astype(float)),
    "weights of zero": edit_array("process/member/0/target/0/weights", set_first(0.0)),
    "parameters of thousands": edit_array("process/member/0/target/0/parameters", set_first(1e4)),
    "a parameter less": edit_array("process/member/0/target/0/parameters", lambda a: a[1:]),
    "a domain of NaN": edit_array("domain/points", set_first(np.nan)),
    "a domain of scale zero": edit_array("domain/scale", set_first(0.0)),
    "a domain of a column less": edit_array("domain/points", lambda a: a[:, 1:]),
    "a domain without materials": edit_array("domain/points", lambda a: a[:0]),
}
"""What was changed → the change. Each must be refused."""

VALUES: tuple[Any, ...] = (None, "x", -1, 1e308, float("nan"), [], {}, True, [[1]], "os.system")


def list_entries(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of entries of a config: all of dicts, the first of lists."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield (*path, key)
            yield from list_entries(below, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from list_entries(value[0], (*path, 0))


def random_changes(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Change]]:
    """Yield changes of random entries and arrays, whether they matter or not."""
    rng = np.random.default_rng(seed)
    entries = list(list_entries(json.loads((folder / "config.json").read_text())))
    names = sorted(load_file(folder / "model.safetensors"))
    edits: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
        "gone": lambda a: None,
        "NaN": lambda a: set_first(np.nan)(a.astype(float)),
        "huge": lambda a: set_first(1e300)(a.astype(float)),
        "half": lambda a: a.astype(np.float16),
        "integers": lambda a: a.astype(np.int64),
        "row less": lambda a: a[1:],
        "flat": lambda a: a.ravel(),
        "negative": lambda a: -a,
        "zero": lambda a: np.zeros_like(a),
    }
    for _ in range(count):
        if rng.random() < 0.5:
            path = entries[rng.integers(len(entries))]
            if rng.random() < 0.3:
                yield f"{path} deleted", edit_config(path, delete=True)
            else:
                value = VALUES[rng.integers(len(VALUES))]
                yield f"{path} = {value!r}", edit_config(path, value)
        else:
            name, kind = names[rng.integers(len(names))], list(edits)[rng.integers(len(edits))]
            yield f"{name}: {kind}", edit_array(name, edits[kind])
