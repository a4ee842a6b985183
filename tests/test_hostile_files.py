"""Files of strangers are data: reading one imports no module that it names, and never waits."""

from __future__ import annotations

import importlib.abc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rhosight import RhosightError, load_dataset, read_density, read_structure
from rhosight.app.limits import Limits
from rhosight.app.reading import load_crystal, read_upload
from rhosight.dataset.dataset import Dataset
from rhosight.dataset.validation import validate_file

CASES = Path(__file__).parents[2] / "shared/cases"
EVIL = "rhosight_evil_module"


class Watch(importlib.abc.MetaPathFinder):
    """Records the names of modules that are looked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        self.names.add(name)


@pytest.fixture
def watch() -> Iterator[Watch]:
    finder = Watch()
    sys.meta_path.insert(0, finder)
    yield finder
    sys.meta_path.remove(finder)


@pytest.fixture(scope="module")
def evil(dataset) -> dict[str, Any]:
    """Return a structure as JSON that names a module wherever monty would follow it."""
    decoy = {"@module": EVIL, "@class": "Run", "@version": None, "args": ["x"]}
    structure = dataset["mp-149"].structure.as_dict(verbosity=0)
    structure["sites"][0]["properties"] = {"p": decoy}
    structure["properties"] = {"q": decoy}
    structure["lattice"]["extra"] = decoy
    structure["more"] = [decoy]
    return structure


def write_hdf5(path: Path, structure: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["structure_json"] = json.dumps(structure)
        grid = np.full((8, 8, 8), 8.0) + np.arange(8.0) / 10
        file.create_dataset("vdata/total", data=grid)
    return path


def write_parquet(path: Path, dataset: Dataset, structure: Any) -> Path:
    dataset[["mp-149"]].to_parquet(path)
    table = pq.read_table(path)
    column = pa.array([json.dumps(structure)])
    number = table.column_names.index("structure")
    pq.write_table(table.set_column(number, table.schema.field(number), column), path)
    return path


def open_as_json(path: Path, dataset: Dataset, structure: Any) -> Any:
    (path / "a.json").write_text(json.dumps(structure))
    return read_structure(path / "a.json")


def open_as_hdf5(path: Path, dataset: Dataset, structure: Any) -> Any:
    return read_density(write_hdf5(path / "a.h5", structure)).structure


def open_as_parquet(path: Path, dataset: Dataset, structure: Any) -> Any:
    file = write_parquet(path / "a.parquet", dataset, structure)
    validate_file(file)
    return load_dataset(file)[0].structure


def open_as_stored(path: Path, dataset: Dataset, structure: Any) -> Any:
    (path / "structure.json").write_text(json.dumps(structure))
    return load_crystal(path)


DOORS: dict[str, Callable[[Path, Dataset, Any], Any]] = {
    "JSON": open_as_json,
    "HDF5": open_as_hdf5,
    "Parquet": open_as_parquet,
    "what the web page stored": open_as_stored,
}


@pytest.mark.parametrize("door", DOORS)
def test_no_module_that_a_file_names_is_imported(door, tmp_path, dataset, evil, watch):
    structure = DOORS[door](tmp_path, dataset, evil)
    assert structure == dataset["mp-149"].structure
    assert not any(EVIL in name for name in watch.names)


@pytest.mark.parametrize(
    "change",
    [
        {"sites": [{"@module": EVIL, "@class": "Run"}]},
        {"lattice": {"@module": EVIL, "@class": "Run", "matrix": "os.system"}},
        {"sites": "__import__('os')"},
        {"sites": []},
        {"lattice": {"matrix": [[1e400, 0, 0], [0, 1, 0], [0, 0, 1]]}},
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_a_structure_that_is_none_is_refused(door, change, tmp_path, dataset, evil, watch):
    with pytest.raises(RhosightError, match="not a pymatgen Structure") as caught:
        DOORS[door](tmp_path, dataset, evil | change)
    assert "\n" not in str(caught.value)
    assert not any(EVIL in name for name in watch.names)


def test_the_upload_page_takes_no_json(tmp_path, evil, watch):
    path = tmp_path / "structure.json"
    path.write_text(json.dumps(evil))
    with pytest.raises(RhosightError, match=r"structure\.json: not a file of a known format"):
        read_upload(path, "total", Limits())
    assert not any(EVIL in name for name in watch.names)


@pytest.mark.skipif(not CASES.exists(), reason="needs the cases beside the repository")
def test_the_given_files_import_nothing():
    # in a process of its own: the files name a module that prints a poem
    code = (
        "import sys, rhosight\n"
        "from rhosight.dataset.validation import validate_file\n"
        f"rhosight.read_density({str(CASES / '17-files-that-run-code/evil.h5')!r}, unit='e')\n"
        f"path = {str(CASES / '17-files-that-run-code/evil.parquet')!r}\n"
        "print(rhosight.load_dataset(path)[0].structure.formula)\n"
        "validate_file(path)\n"
        "assert 'this' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "Si2\n"), result.stderr


def test_a_grid_in_another_file_is_refused(tmp_path, dataset):
    structure = dataset["mp-149"].structure.as_dict(verbosity=0)
    secret = write_hdf5(tmp_path / "secret.h5", structure)
    path = write_hdf5(tmp_path / "a.h5", structure)
    with h5py.File(path, "a") as file:
        del file["vdata/total"]
        file["vdata/total"] = h5py.ExternalLink(str(secret), "vdata/total")
    with pytest.raises(RhosightError, match=r"a\.h5: `vdata/total` is a link"):
        read_density(path)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(8 * 8**3))
    with h5py.File(path, "a") as file:
        del file["vdata/total"]
        file["vdata"].create_dataset("total", (8, 8, 8), "f8", external=[(str(raw), 0, 8 * 8**3)])
    with pytest.raises(RhosightError, match=r"a\.h5: `vdata/total` lies in another file"):
        read_density(path)


def test_a_grid_that_was_never_written_takes_no_memory(tmp_path, dataset):
    path = write_hdf5(tmp_path / "a.h5", dataset["mp-149"].structure.as_dict(verbosity=0))
    with h5py.File(path, "a") as file:
        del file["vdata/total"]
        file["vdata"].create_dataset("total", (800, 800, 800), "f8", chunks=(80, 80, 80))
    with pytest.raises(RhosightError, match="was not written"):
        read_density(path)


def test_a_grid_of_texts_or_objects_is_refused(tmp_path, dataset):
    path = write_hdf5(tmp_path / "a.h5", dataset["mp-149"].structure.as_dict(verbosity=0))
    with h5py.File(path, "a") as file:
        del file["vdata/total"]
        file["vdata/total"] = np.array([[["1.0"]]], dtype=h5py.string_dtype())
    with pytest.raises(RhosightError, match="is not an array of floats"):
        read_density(path)


@pytest.mark.parametrize("read", [read_density, read_structure])
def test_a_pipe_is_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "CHGCAR")
    with pytest.raises(RhosightError, match="not a regular file"):
        read(tmp_path / "CHGCAR")
