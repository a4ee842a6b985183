"""``rhosight data clean``, ``validate``, ``show``, ``info``, ``build gpaw`` and ``build
materials-project`` as a user sees them; and a model's word on densities of another code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster
from PIL import Image

from rhosight import ChargeDensity, PropertyModel, Recipe
from rhosight.dataset import Dataset, load_dataset
from rhosight.inputs.image import ImageSettings
from test_cli import error_of, rhosight
from test_gpaw import SILICON, needs_gpaw


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def sample(dataset: Dataset, tmp_path_factory) -> Path:
    """30 materials, one of them twice, one slightly tetragonal (In)."""
    path = tmp_path_factory.mktemp("sample") / "sample.parquet"
    tetragonal = [i for i in dataset.ids if dataset[i].formula == "In"][:1]
    some = dataset[sorted({*dataset.ids[:28], "mp-149", *tetragonal})]
    densities = [*some.densities, replace(some[0].density, name="zz-copy")]
    labels = some.table.copy()
    labels.loc["zz-copy"] = labels.iloc[0]
    labels.loc["mp-149", "bulk_modulus_vrh"] = 900.0  # GPa
    Dataset.from_densities(densities, labels, about={"name": "sample"}).to_parquet(path)
    return path


# clean


def test_clean_writes_the_dataset_and_why_the_others_left(sample, tmp_path):
    out = tmp_path / "clean.parquet"
    said = rhosight("data", "clean", sample, out, "--bravais", "cF", "--iqr", "difference").stdout
    before, kept = load_dataset(sample), load_dataset(out)
    report = pd.read_csv(tmp_path / "clean.parquet.report.csv")
    removed = report[report["action"] == "removed"]
    assert set(removed["material_id"]) == set(before.ids) - set(kept.ids)
    assert {"bravais", "duplicates"} <= set(removed["step"])
    assert "zz-copy" in set(removed["material_id"])
    assert report["reason"].notna().all()
    assert f"{len(kept)} materials: {out}" in said
    assert np.isnan(load_dataset(sample)["mp-149"].targets["bulk_modulus_vrh"])  # when it was built


def test_clean_leaves_alone_what_is_not_asked_for(sample, tmp_path):
    rhosight("data", "clean", sample, tmp_path / "same.parquet", "--no-duplicates")
    assert load_dataset(tmp_path / "same.parquet").ids == load_dataset(sample).ids


def test_errors_of_clean(sample, tmp_path):
    out = tmp_path / "x.parquet"
    assert "unknown Bravais lattice cQ" in error_of("data", "clean", sample, out, "--bravais", "cQ")
    assert "absent.parquet" in error_of("data", "clean", tmp_path / "absent.parquet", out)
    message = error_of("data", "clean", sample, out, "--iqr", "spin")
    assert "not `spin`, which the IQR filter needs" in message
    missing = error_of("data", "clean", sample, tmp_path / "no" / "folder" / "x.parquet")
    assert "not a writable folder" in missing
    assert not out.exists()


# validate


def test_validate_says_sound_or_what_is_wrong(few, tmp_path):
    path = tmp_path / "few.parquet"
    few.to_parquet(path)
    assert "no errors" in rhosight("data", "validate", path).stdout

    table = pq.read_table(path)
    wrong = table["nsites"].to_numpy().copy()
    wrong[2] += 1
    index = table.column_names.index("nsites")
    pq.write_table(table.set_column(index, table.schema.field("nsites"), [wrong]), path)
    said = rhosight("data", "validate", path, code=1).stdout
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and few.ids[2] in lines[0] and "nsites" in lines[0]
    assert f"{path}: 1 error, 0 warnings" in said


def test_errors_of_validate(tmp_path):
    assert "no such Parquet file" in error_of("data", "validate", tmp_path / "absent.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 or not")
    assert "not a readable Parquet file" in error_of("data", "validate", tmp_path / "x.parquet")


# show and info


def test_show_draws_every_figure(sample, tmp_path):
    out = tmp_path / "figures"
    said = rhosight("data", "show", sample, "--id", "mp-149", "--out", out).stdout
    names = {file.stem for file in out.iterdir()}
    assert names == {"targets", "elements", "grids", "missing-labels", "slices-mp-149"}
    for file in out.iterdir():
        pixels = np.asarray(Image.open(file).convert("L"), dtype=float)
        assert pixels.std() > 5 and min(pixels.shape) > 200  # something is drawn
        assert str(file) in said.splitlines()
    rhosight("data", "show", sample, "--out", out, "--format", "svg")
    first = load_dataset(sample).ids[0]
    assert (out / f"slices-{first}.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_errors_of_show_and_info(sample, tmp_path):
    out = tmp_path / "figures"
    message = error_of("data", "show", sample, "--id", "mp-0", "--out", out)
    assert "mp-0: no such material_id" in message and not out.exists()
    assert "absent" in error_of("data", "info", tmp_path / "absent.parquet")
    assert "absent" in error_of("data", "show", tmp_path / "absent.parquet", "--out", out)


def test_info_of_a_dataset_of_ones_own(sample):
    said = rhosight("data", "info", sample).stdout
    loaded = load_dataset(sample)
    assert f"sample: {len(loaded)} materials" in said
    assert "above 600 GPa" in " ".join(said.split())  # the modulus that was masked
    for word in ("efermi", "eV/atom", "GPa", "total", "difference", "grids:"):
        assert word in said


# build gpaw


@needs_gpaw
def test_build_gpaw(tmp_path, scheduler):
    """A coarse calculation of silicon, beside a CIF that is none; then a changed table."""
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    SILICON.get_primitive_structure().to(filename=str(cifs / "si.cif"))
    (cifs / "bad.cif").write_text("data_x\n_cell_length_a nonsense\n")
    targets = tmp_path / "targets.csv"
    targets.write_text("id,hardness (GPa)\nsi,12\nabsent,1\n")
    out = tmp_path / "mine.parquet"
    command = (
        *("data", "build", "gpaw", cifs, out, "--targets", targets, "--scheduler", scheduler),
        *("--cutoff", 150, "--kpoint-density", 1, "--texts", "formula"),
    )
    said = rhosight(*command).stdout
    assert "1 material (1 new)" in said and "2 problems" in said
    problems = pd.read_csv(tmp_path / "mine.parquet.problems.csv", index_col="material_id")
    assert "not a readable CIF file" in problems.loc["bad", "problem"]
    assert "no CIF file has this name" in problems.loc["absent", "problem"]
    (material,) = load_dataset(out)
    assert material.density.kinds == ("total", "difference", "promolecule")
    assert material.targets["hardness"] == 12
    assert load_dataset(out).units["hardness"] == "GPa"
    assert material.density.provenance["code"] == "GPAW"

    targets.write_text("id,hardness (GPa)\nsi,11\n")
    said = rhosight(*command).stdout
    assert "1 material (1 with new labels" in said
    (again,) = load_dataset(out)
    assert again.targets["hardness"] == 11
    assert load_dataset(out).table["dft_cutoff"].to_list() == [150]
    for kind in ("total", "difference"):
        np.testing.assert_array_equal(again.density.grid(kind), material.density.grid(kind))


def test_errors_of_build_gpaw(tmp_path):
    out = tmp_path / "x.parquet"
    (tmp_path / "empty").mkdir()
    assert "no *.cif files" in error_of("data", "build", "gpaw", tmp_path / "empty", out)
    assert "no such file" in error_of("data", "build", "gpaw", tmp_path / "absent.cif", out)
    SILICON.to(filename=str(tmp_path / "si.cif"))
    command = ("data", "build", "gpaw", tmp_path / "si.cif", out)
    message = error_of(*command, "--python", tmp_path / "no-python")
    assert "no-python" in message and "apt install gpaw" in message
    assert "no such file" in error_of(*command, "--targets", tmp_path / "absent.csv").lower()
    assert not out.exists()


# build materials-project


@pytest.fixture
def mp(few: Dataset, tmp_path: Path, monkeypatch) -> Iterator[Callable[..., tuple]]:
    """Runs the command against servers of this machine; the worker starts behind them, so that it
    knows where the bucket is."""
    pytest.importorskip("mp_api")
    pytest.importorskip("moto")
    from servers.faulty import Silent
    from servers.materials_api import KEY, MaterialsAPI, task_id
    from servers.open_data import OpenData, chgcar_object

    with MaterialsAPI(few) as api, OpenData() as bucket, Silent() as outside:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "PMG_MAPI_KEY", "MP_API_ENDPOINT"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, outside.url)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setenv("MP_API_KEY", KEY)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.url)
        for material in few:
            name = task_id(material.material_id)
            bucket.put(name, chgcar_object(material.density, name))
        out = tmp_path / "mp.parquet"

        def arguments(*options: object) -> tuple:
            base = ("data", "build", "materials-project", out, "--endpoint", api.url)
            return (*base, "--workers", 1, *options)

        yield arguments, out, api


def test_build_materials_project(mp, few):
    """The key is in no file and no output; silicon has no modulus and is listed."""
    arguments, out, api = mp
    api.document("summary", "mp-149")["bulk_modulus"] = None
    done = rhosight(*arguments("--texts", "all,formula"))
    kept = few.table.index[few.table["bulk_modulus_vrh"].notna()].drop("mp-149", errors="ignore")
    mine = load_dataset(out)
    assert mine.ids == sorted(kept)
    for material in mine:
        truth = few[material.material_id]
        found = material.density.grid("total")
        np.testing.assert_allclose(found, truth.density.grid("total"), rtol=1e-5, atol=1e-6)
        assert material.targets["efermi"] == pytest.approx(truth.targets["efermi"])
        assert material.texts["all"] and material.texts["formula"] == truth.formula
    problems = pd.read_csv(f"{out}.problems.csv", index_col="material_id")
    assert set(problems.index) == set(few.ids) - set(kept)
    assert "no bulk_modulus_vrh" in problems.loc["mp-149", "problem"]
    assert mine.metadata["database_version"] == "2025.09.25"
    from servers.materials_api import KEY

    for text in (done.stdout, done.stderr, str(mine.metadata)):
        assert KEY not in text
    assert KEY.encode() not in out.read_bytes()
    assert f"{len(kept)} materials ({len(kept)} new)" in done.stdout


def test_errors_of_build_materials_project(mp, monkeypatch):
    arguments, out, api = mp
    assert "bravais: 'cQ' is unknown" in error_of(*arguments("--bravais", "cQ"))
    assert "'silicon' is not a Materials Project id" in error_of(*arguments("--id", "silicon"))
    monkeypatch.setenv("MP_API_KEY", "x" * 32)
    message = error_of(*arguments())
    assert "MP_API_KEY" in message and "x" * 32 not in message
    monkeypatch.delenv("MP_API_KEY")
    api.forget()
    assert "MP_API_KEY" in error_of(*arguments())
    assert api.requests == [] and not out.exists()


# options that all sources share


def test_errors_of_shared_options(few, tmp_path):
    few[0].density.to_chgcar(tmp_path / "CHGCAR")
    command = ("data", "build", "directory", tmp_path, tmp_path / "x.parquet")
    assert "unknown extent of text poem" in error_of(*command, "--texts", "poem")
    assert "--image-size" in error_of(*command, "--image-size", 1)
    assert "lots: not an amount of memory (--memory)" in error_of(*command, "--memory", "lots")
    assert "--workers" in rhosight(*command, "--workers", 0, code=2).stderr
    nowhere = ("data", "build", "directory", tmp_path, tmp_path / "no" / "x.parquet")
    assert "create it first" in error_of(*nowhere)
    absent = ("data", "build", "directory", tmp_path / "absent", tmp_path / "x.parquet")
    assert "no such folder" in error_of(*absent)


# provenance


@pytest.fixture(scope="module")
def model(dataset: Dataset, tmp_path_factory) -> Path:
    """One that was trained on GPAW's densities, for a moment."""
    folder = tmp_path_factory.mktemp("models") / "model"
    recipe = Recipe(
        text={"element_steps": 0},
        modality="image",
        image={
            "settings": ImageSettings().model_copy(update={"size": 32, "interpolation": "spline"})
        },
        head={"epochs": 1},
        fine_tuning={"epochs": 1},
        augmentation={"views": 1},
    )
    PropertyModel(recipe).fit(dataset[:24]).save_pretrained(folder)
    return folder


def test_predicting_for_another_code_warns_and_for_the_same_does_not(
    model, dataset, tmp_path, caplog
):
    """Of a saved model, with what its folder knows."""
    loaded = PropertyModel.from_pretrained(model)
    others = dataset[30:33]
    loaded.predict(others)
    assert "near the nuclei" not in caplog.text

    densities = [
        ChargeDensity(d.structure, d.grids, d.name, {**d.provenance, "code": "VASP"})
        for d in others.densities
    ]
    values = loaded.predict(densities)
    assert np.isfinite(values.to_numpy()).all()  # a warning, not a refusal
    (record,) = (r for r in caplog.records if "near the nuclei" in r.getMessage())
    assert record.levelname == "WARNING"
    assert "densities of VASP" in record.getMessage()
    assert "learned from those of GPAW" in record.getMessage()

    caplog.clear()
    unknown = [ChargeDensity(d.structure, d.grids, d.name) for d in others.densities]
    loaded.predict(unknown)  # nothing is known, nothing is said
    assert "near the nuclei" not in caplog.text


def vasp_chgcar(density: ChargeDensity, path: Path, kind: str = "total") -> Path:
    """As VASP writes it, and no other code."""
    density.to_chgcar(path, kind)
    occupancies = "".join(
        f"augmentation occupancies   {atom}   1\n  0.1234567E+00\n"
        for atom in range(1, len(density.structure) + 1)
    )
    path.write_text(path.read_text(encoding="utf-8") + occupancies, encoding="utf-8")
    return path


def test_the_command_warns_of_vasps_files(model, dataset, tmp_path, caplog):
    """A file with augmentation occupancies is VASP's, as no other code writes them."""
    kind = PropertyModel.from_pretrained(model).recipe.image.settings.kinds[0]
    path = vasp_chgcar(dataset["mp-149"].density, tmp_path / "CHGCAR", kind)
    done = rhosight("predict", model, path, "--kind", kind, "--format", "json")
    assert len(json.loads(done.stdout)["predictions"]) == 1
    assert "densities of VASP, but the model learned from those of GPAW" in caplog.text


def test_best_is_said_to_read_what_codes_agree_on(dataset, tmp_path, caplog):
    """Whether it predicts or explains."""
    path = vasp_chgcar(dataset["mp-149"].density, tmp_path / "CHGCAR")
    for command in (
        ("predict", "best", path),
        ("explain", path, "--no-details", "--out", tmp_path / "why"),
    ):
        caplog.clear()
        rhosight(*command)
        assert "it reads the density only between the atoms" in caplog.text, command
        assert "near the nuclei" not in caplog.text
