"""The Materials Project as a source, against local servers that speak as the real ones do."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rhosight import ChargeDensity, RhosightError
from rhosight.dataset import Dataset
from rhosight.dataset.sources.materials_project.source import MaterialsProject

pytest.importorskip("mp_api")
pytest.importorskip("moto")

from servers.faulty import DROP, Cut, Reply, Silent, as_json
from servers.materials_api import KEY, VERSION, MaterialsAPI, task_id
from servers.open_data import BUCKET, OpenData, chgcar_object

SILICON, HFC, MAGNET = "mp-149", "mp-21075", "mp-16495"


@pytest.fixture(scope="module")
def bucket(few: Dataset) -> Iterator[OpenData]:
    """The bucket, with the density of each material's later calculation."""
    with OpenData() as server:
        for material in few:
            name = task_id(material.material_id)
            server.put(name, chgcar_object(material.density, name))
        yield server


@pytest.fixture
def api(few: Dataset) -> Iterator[MaterialsAPI]:
    with MaterialsAPI(few) as server:
        yield server


@pytest.fixture
def outside() -> Iterator[Silent]:
    with Silent() as server:
        yield server


@pytest.fixture
def source(
    api: MaterialsAPI, bucket: OpenData, outside: Silent, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., MaterialsProject]:
    """Makes a source that finds the two servers; all other addresses lead to ``outside``."""
    bucket.forget()
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "PMG_MAPI_KEY", "MP_API_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, outside.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("MP_API_KEY", KEY)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", bucket.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else boto3 hides the faults of the bucket

    def make(**settings: object) -> MaterialsProject:
        return MaterialsProject(
            **{"endpoint": api.url, "retries": 2, "backoff": 0.01, "require": (), **settings}
        )

    return make


def clone(api: MaterialsAPI, material_id: str, **changes: object) -> None:
    """Another summary of silicon under a new id."""
    template = api.document("summary", SILICON)
    api.collections["summary"].append({**template, "material_id": material_id, **changes})


PRIMITIVE_CUBIC = {"crystal_system": "Cubic", "symbol": "Pm-3m", "number": 221}


# The query


def test_query_asks_for_stable_cubic_and_keeps_face_centred(source, api, few):
    clone(api, "mp-5", is_stable=False)
    clone(api, "mp-6", symmetry={"crystal_system": "Hexagonal", "symbol": "P6_3/mmc"})
    clone(api, "mp-7", symmetry=PRIMITIVE_CUBIC)
    clone(api, "mp-8", deprecated=True)
    clone(api, "mp-9", builder_meta={"license": "BY-NC", "batch_id": "gnome_r2scan_statics"})
    mine = source()
    assert mine.ids() == sorted(few.ids)
    assert mine.problems() == {}
    (asked,) = api.seen("/materials/summary")
    assert asked.query["crystal_system"] == "Cubic"
    assert asked.query["is_stable"] == "True"
    assert asked.query["deprecated"] == "False"
    assert {r.headers["x-api-key"] for r in api.seen("/materials/")} == {KEY}


def test_what_the_query_found_but_lacks_something_is_a_problem(source, api, few):
    api.document("summary", SILICON)["has_props"]["charge_density"] = False
    api.document("summary", HFC)["efermi"] = None
    mine = source(require=("efermi", "bulk_modulus_vrh"))
    no_modulus = few.table.index[few.table["bulk_modulus_vrh"].isna()]
    assert MAGNET in no_modulus
    assert mine.ids() == sorted(set(few.ids) - {SILICON, HFC} - set(no_modulus))
    problems = mine.problems()
    assert set(problems) == {SILICON, HFC} | set(no_modulus)
    assert "no charge density" in problems[SILICON]
    assert "no efermi" in problems[HFC]
    assert "no bulk_modulus_vrh" in problems[MAGNET]


def test_older_databases_serve_has_props_as_a_list(source, api, few):
    for document in api.collections["summary"]:
        document["has_props"] = ["materials", "charge_density"]
    api.document("summary", SILICON)["has_props"] = ["materials"]
    assert source().ids() == sorted(set(few.ids) - {SILICON})


def test_all_pages_are_read(source, api, few):
    others = api.collections["summary"]
    api.collections["summary"] = []
    api.collections["summary"] += others[:1]
    for number in range(2300):
        api.collections["summary"].append(
            {**others[0], "material_id": f"mp-{5000000 + number}", "symmetry": PRIMITIVE_CUBIC}
        )
    api.collections["summary"] += others[1:]
    assert source().ids() == sorted(few.ids)
    pages = [(r.query.get("_skip"), r.query["_limit"]) for r in api.seen("/materials/summary")]
    assert pages == [(None, "1000"), ("1000", "1000"), ("2000", "306")]


def test_ids_do_not_depend_on_the_servers_order(source, api):
    first, second = source(), source()
    ids = first.ids()
    for documents in api.collections.values():
        documents.reverse()
    assert second.ids() == ids
    assert [second.read(i).density.provenance for i in ids[:2]] == [
        first.read(i).density.provenance for i in ids[:2]
    ]


def test_limit_takes_the_first_and_reports_only_what_it_passed(source, api, few):
    api.document("summary", sorted(few.ids)[0])["efermi"] = None
    api.document("summary", sorted(few.ids)[-1])["efermi"] = None
    mine = source(limit=2, require=("efermi",))
    assert mine.ids() == sorted(few.ids)[1:3]
    assert list(mine.problems()) == sorted(few.ids)[:1]


def test_elements_and_systems_narrow_the_query(source, few):
    assert source(elements=("Hf",)).ids() == sorted(few.table.index[few.table["formula"] == "HfC"])
    assert source(chemsys=("Si",)).ids() == [SILICON]


def test_each_named_material_is_taken_or_explained(source, api):
    clone(api, "mp-5", is_stable=False)
    clone(api, "mp-7", symmetry=PRIMITIVE_CUBIC)
    clone(api, "mp-9", builder_meta={"license": "BY-NC", "batch_id": "gnome_r2scan_statics"})
    mine = source(material_ids=(SILICON, "mp-5", "mp-7", "mp-9", "mp-31415"))
    assert mine.ids() == [SILICON]
    problems = mine.problems()
    assert "convex hull" in problems["mp-5"]
    assert "cP, not cF" in problems["mp-7"]
    assert "CC BY-NC 4.0" in problems["mp-9"]
    assert f"not in database version {VERSION}" in problems["mp-31415"]
    assert all(why.startswith(f"{i}: ") for i, why in problems.items())


def test_another_hull_decides_stability_and_formation_energy(source, api, few):
    for document in api.collections["thermo"]:
        if document["thermo_type"] == "R2SCAN":
            document["formation_energy_per_atom"] = -0.25
            document["is_stable"] = document["material_id"] != HFC
    api.document("summary", SILICON)["is_stable"] = False  # on the hull of summaries
    mine = source(thermo_type="R2SCAN")
    assert mine.ids() == sorted(set(few.ids) - {HFC})
    entry = mine.read(SILICON)
    assert entry.labels["formation_energy_per_atom"] == -0.25
    assert entry.density.provenance["thermo_type"] == mine.about()["thermo_type"] == "R2SCAN"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bravais": "cX"}, "bravais"),
        ({"thermo_type": "PBE"}, "thermo_type"),
        ({"limit": 0}, "limit"),
        ({"material_ids": ("silicon",)}, "not a Materials Project id"),
        ({"material_ids": (SILICON,), "elements": ("Si",)}, "not both"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(RhosightError, match=message):
        MaterialsProject(**settings)


# One material


def test_density_labels_text_and_provenance(source, few):
    mine = source()
    mine.ids()
    entry, served = mine.read(HFC), few[HFC]
    density, row = entry.density, few.table.loc[HFC]
    assert density.kinds == ("total",)
    np.testing.assert_allclose(density.grid("total"), served.density.grid("total"), rtol=1e-12)
    np.testing.assert_allclose(
        density.structure.lattice.matrix, served.structure.lattice.matrix, rtol=1e-12
    )
    assert density.structure.species == served.structure.species
    assert density.name == HFC
    columns = [
        "formula", "spacegroup_number", "formation_energy_per_atom", "efermi", "band_gap",
        "bulk_modulus_vrh", "bulk_modulus_voigt", "bulk_modulus_reuss",
    ]  # fmt: skip
    assert {name: entry.labels[name] for name in columns} == row[columns].to_dict()
    assert entry.labels["dft_energy"] == -10.5
    assert entry.labels["dft_spin_polarised"] is False
    assert entry.texts == {"all": "HfC is as Robocrystallographer describes it."}
    known = density.provenance
    assert known["code"] == "VASP" and known["version"].startswith("5.4.4")
    assert known["task_id"] == task_id(HFC)
    assert (known["functional"], known["calc_type"]) == ("GGA", "GGA Static")
    assert (known["database_version"], known["licence"]) == (VERSION, "CC BY 4.0")
    assert known["thermo_type"] == "GGA_GGA+U_R2SCAN"
    assert "Robocrystallographer" in known["text_all"]
    about = mine.about()
    assert about["database_version"] == VERSION
    assert "10.1063/1.4812323" in about["attribution"]
    assert "10.1038/sdata.2015.9" in about["attribution"]


def test_second_block_is_spin_and_never_difference(source, few):
    mine = source(material_ids=(MAGNET,))
    mine.ids()
    entry = mine.read(MAGNET)
    assert entry.density.kinds == ("total", "spin")
    spin = few[MAGNET].density.grid("spin")
    np.testing.assert_allclose(entry.density.grid("spin"), spin, rtol=1e-12)
    assert entry.labels["dft_spin_polarised"] is True


def test_entries_become_a_valid_dataset(source):
    mine = source(limit=2)
    entries = [mine.read(material_id) for material_id in mine.ids()]
    made = Dataset.from_densities([entry.density for entry in entries])
    assert made.ids == mine.ids()
    assert json.loads(json.dumps(dict(made[0].density.provenance)))["code"] == "VASP"


def test_texts_can_be_left_to_rhosight(source, api):
    mine = source(texts=False, limit=1)
    entry = mine.read(mine.ids()[0])
    assert entry.texts == {} and "text_all" not in entry.density.provenance
    assert api.seen("/materials/robocrys") == []
    assert mine.settings()["text_all"] is None
    assert "API" in source().settings()["text_all"]


def test_settings_are_json_and_tell_builds_apart(source):
    settings = source().settings()
    assert json.loads(json.dumps(settings)) == settings
    assert source(retries=9).settings() == settings
    assert source(stable=False).settings() != settings


def test_earlier_calculation_stands_in_for_one_without_density(source, api, bucket, few):
    newest = task_id(SILICON, 3)
    api.document("core", SILICON)["calc_types"][newest] = "GGA Static"
    api.collections["tasks"].append({"task_id": newest, "last_updated": "2024-01-01T00:00:00"})
    mine = source(material_ids=(SILICON,))
    mine.ids()
    assert mine.read(SILICON).density.provenance["task_id"] == task_id(SILICON)
    asked = [r.path.rsplit("/", 1)[1] for r in bucket.seen("chgcars", "HEAD")]
    assert asked[0] == f"{newest}.json.gz" and asked[-1] == f"{task_id(SILICON)}.json.gz"


def test_calculations_served_by_letters_are_the_same_ones(source, api):
    from emmet.core.mpid import AlphaID

    for document in api.collections["tasks"]:
        document["task_id"] = str(AlphaID(document["task_id"].removeprefix("mp-"), padlen=8))
    mine = source(material_ids=(SILICON,))
    mine.ids()
    known = mine.read(SILICON).density.provenance
    assert known["task_id"] == task_id(SILICON) and known["version"].startswith("5.4.4")


def test_withdrawn_calculations_are_not_read(source, api):
    api.document("core", SILICON)["deprecated_tasks"] = [task_id(SILICON)]
    api.document("core", HFC)["calc_types"] = {task_id(HFC): "r2SCAN Static"}
    mine = source(material_ids=(SILICON, HFC))
    assert mine.ids() == [SILICON]
    assert "no calculation of type GGA Static" in mine.problems()[HFC]
    with pytest.raises(
        RhosightError, match=rf"^{SILICON}: .*of calculation {task_id(SILICON, 1)};"
    ):
        mine.read(SILICON)


def test_density_of_another_crystal_is_refused(source, bucket, few):
    name = task_id(SILICON)
    mine = source(material_ids=(SILICON,))
    mine.ids()
    bucket.put(name, chgcar_object(few[HFC].density, name))
    try:
        with pytest.raises(RhosightError, match=rf"^{SILICON}: .*belongs to HfC, not to Si"):
            mine.read(SILICON)
    finally:
        bucket.put(name, chgcar_object(few[SILICON].density, name))


def test_density_in_a_cell_of_another_lattice_is_refused(source, bucket, few):
    name = task_id(SILICON)
    stretched = few[SILICON].structure.copy()
    stretched.apply_strain([0.0, 0.0, 0.05])
    grids = {"total": few[SILICON].density.grid("total")}
    mine = source(material_ids=(SILICON,))
    any_lattice = source(material_ids=(SILICON,), bravais=None)
    assert mine.ids() == any_lattice.ids() == [SILICON]
    bucket.put(name, chgcar_object(ChargeDensity(stretched, grids), name))
    try:
        with pytest.raises(RhosightError, match=rf"^{SILICON}: .*lattice .*, not cF"):
            mine.read(SILICON)
        assert any_lattice.read(SILICON).density.name == SILICON
    finally:
        bucket.put(name, chgcar_object(few[SILICON].density, name))


# What goes wrong at the API


def test_missing_key_is_said_before_anything_is_asked(source, api, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(RhosightError, match="MP_API_KEY"):
        source().ids()
    assert api.seen("/materials") == []


def test_key_of_wrong_length(source, api, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "tooshort")
    with pytest.raises(RhosightError, match=r"32 characters.*MP_API_KEY") as caught:
        source().ids()
    assert "tooshort" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_names_its_origin_and_is_not_tried_again(source, api, monkeypatch, status):
    wrong = "f" * 32
    monkeypatch.setenv("MP_API_KEY", wrong)
    if status == 403:
        api.fail("/materials", as_json({"message": f"forbidden for {wrong}"}, 403))
    with pytest.raises(RhosightError, match=rf"HTTP {status}.*MP_API_KEY") as caught:
        source().ids()
    assert wrong not in str(caught.value)
    assert len(api.seen("/materials")) == 1


def test_unknown_endpoint(source, api):
    api.fail("/materials/summary", as_json({"detail": "Not Found"}, 404))
    with pytest.raises(RhosightError, match=r"HTTP 404.*endpoint"):
        source().ids()
    assert len(api.seen("/materials/summary")) == 1


def test_404_for_a_text_or_a_calculation_is_not_the_end(source, api):
    api.fail("/materials/robocrys", as_json({"detail": "none"}, 404))
    mine = source(limit=1)
    assert mine.read(mine.ids()[0]).texts == {}
    api.fail("/materials/core", as_json({"detail": "none"}, 404))
    mine = source(material_ids=(SILICON,))
    assert mine.ids() == [] and "no calculation" in mine.problems()[SILICON]


def test_429_waits_as_long_as_the_server_asks(source, api, few):
    api.fail("/materials/summary", Reply(429, b"{}", {"Retry-After": "1"}))
    assert source().ids() == sorted(few.ids)
    first, second = api.seen("/materials/summary")
    assert second.time - first.time >= 1


def test_a_wait_that_is_too_long_is_said(source, api):
    api.fail("/materials/summary", Reply(429, b"{}", {"Retry-After": "3600"}))
    with pytest.raises(RhosightError, match="retry in 3600 s"):
        source().ids()
    assert len(api.seen("/materials/summary")) == 1


def test_passing_faults_are_tried_again(source, api, few):
    faults = {
        "summary": (Reply(500, b"oops"), DROP),
        "core": (Reply(503), Reply(502, b"{}")),
        "tasks": (Cut(), Cut()),
        "robocrys": (Reply(200, b'{"data": ['), Reply(429)),
    }
    for collection, two in faults.items():
        api.fail(f"/materials/{collection}", *two)
    mine = source()
    assert mine.ids() == sorted(few.ids)
    assert {name: len(api.seen(f"/materials/{name}")) for name in faults} == dict.fromkeys(
        faults, 3
    )
    assert mine.problems() == {}


@pytest.mark.parametrize("fault", [Reply(500), DROP, Cut()], ids=["500", "dropped", "cut"])
def test_lasting_fault_ends_after_as_many_requests_as_set(source, api, fault):
    api.fail("/materials/summary", *[fault] * 9)
    with pytest.raises(RhosightError, match="3 times in a row"):
        source().ids()
    assert len(api.seen("/materials/summary")) == 3


def test_other_refusals_are_passed_on(source, api):
    api.fail("/materials/summary", as_json({"detail": f"Bad query by {KEY}"}, 422))
    with pytest.raises(RhosightError, match=r"422.*Bad query by <key>") as caught:
        source().ids()
    assert KEY not in str(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize(
    "fault", [Reply(500, b"oops"), DROP, Reply(429, b"{}")], ids=["500", "dropped", "429"]
)
def test_heartbeat_is_tried_again(source, api, few, fault):
    api.fail("/heartbeat", fault, fault)
    assert source().ids() == sorted(few.ids)
    assert len(api.seen("/heartbeat")) == 4


def test_no_server_at_all(source):
    with pytest.raises(RhosightError, match=r"127.0.0.1:9/heartbeat: no answer"):
        source(endpoint="http://127.0.0.1:9/").ids()


# What goes wrong at the bucket


@pytest.fixture(scope="module")
def looked_up(few: Dataset) -> Iterator[bytes]:
    """A source after its ids(), pickled as for a worker."""
    with MaterialsAPI(few) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MP_API_KEY", KEY)
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        mine = MaterialsProject(endpoint=server.url, retries=2, backoff=0.01, require=())
        assert mine.ids() == sorted(few.ids)
        yield pickle.dumps(mine)


@pytest.fixture
def worker(source, looked_up) -> MaterialsProject:
    """A worker's copy, with the environment of ``source``."""
    return pickle.loads(looked_up)


@pytest.mark.parametrize(
    "fault", [Reply(500), Reply(503), Cut(), DROP], ids=["500", "503", "cut", "dropped"]
)
def test_passing_fault_of_the_bucket(worker, bucket, few, fault, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    bucket.fail("chgcars", fault, method="GET")
    total = worker.read(SILICON).density.grid("total")
    np.testing.assert_allclose(total, few[SILICON].density.grid("total"), rtol=1e-12)
    assert len(bucket.seen("chgcars")) == 2


@pytest.mark.parametrize("status", [500, 503])
def test_busy_bucket_is_not_taken_for_an_empty_one(worker, bucket, status):
    bucket.fail("chgcars", *[Reply(status)] * 99)
    with pytest.raises(RhosightError, match=rf"^{SILICON}: .*HTTP {status}"):
        worker.read(SILICON)
    # each time mp-api asks, and then we ask why
    assert len(bucket.seen("chgcars", "HEAD")) == 6


def test_bucket_that_refuses_is_not_asked_again(worker, bucket):
    bucket.fail("chgcars", *[Reply(403)] * 9)
    with pytest.raises(RhosightError, match=rf"^{SILICON}: .*HTTP 403"):
        worker.read(SILICON)
    assert len(bucket.seen("chgcars", "HEAD")) == 2


@pytest.mark.parametrize("damage", ["truncated", "no JSON", "no density"])
def test_damaged_object_is_that_materials_problem(worker, bucket, few, damage):
    name = task_id(SILICON)
    whole = chgcar_object(few[SILICON].density, name)
    broken = {
        "truncated": whole[: len(whole) // 2],
        "no JSON": gzip.compress(b'{"data": '),
        "no density": gzip.compress(b'{"data": {"total": [1.0]}}'),
    }[damage]
    try:
        bucket.put(name, broken)
        bucket.forget()
        with pytest.raises(RhosightError, match=rf"^{SILICON}: .*{name}"):
            worker.read(SILICON)
        times = 1 if damage == "no density" else 3
        assert len(bucket.seen(name)) == times
    finally:
        bucket.put(name, whole)
    assert worker.read(HFC).density.name == HFC  # the others are not touched
    assert worker.read(SILICON).density.name == SILICON


def test_body_that_is_always_cut_is_that_materials_problem(worker, bucket):
    bucket.fail("chgcars", *[Cut()] * 99, method="GET")
    with pytest.raises(RhosightError, match=rf"^{SILICON}: .*run again later"):
        worker.read(SILICON)
    assert len(bucket.seen("chgcars")) == 5  # boto3's own patience; ours is not added to it


# The key, and where requests go


def test_only_the_local_servers_are_asked_and_the_bucket_anonymously(
    source, api, bucket, outside, monkeypatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "someones-own-secret")
    mine = source(limit=1)
    mine.read(mine.ids()[0])
    assert outside.requests == []
    assert len(api.requests) == 6  # two heartbeats, summary, core, tasks, robocrys
    assert bucket.requests
    for request in bucket.requests:
        assert request.path.startswith(f"/{BUCKET}/chgcars/mp-")
        assert "authorization" not in request.headers
        assert not {name for name in request.query if name.lower().startswith("x-amz")}
        assert KEY not in str(request) and "someones-own-secret" not in str(request)


def test_a_pickled_source_holds_no_key_and_reads_without_one(source, api, few, monkeypatch):
    mine = source(limit=1)
    (material_id,) = mine.ids()
    mine.read(material_id)
    pickled = pickle.dumps(mine)
    assert KEY.encode() not in pickled and KEY not in repr(mine)
    monkeypatch.delenv("MP_API_KEY")
    worker = pickle.loads(pickled)
    api.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        total = worker.read(material_id).density.grid("total")
    np.testing.assert_array_equal(total, mine.read(material_id).density.grid("total"))
    assert api.seen("/materials") == []  # what the API knows came with the pickle
    assert worker.problems() == mine.problems()


def test_the_key_is_never_logged(source, api, bucket, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "botocore", "boto3", "s3transfer", "mp_api"):
        caplog.set_level(logging.DEBUG, logger=name)
    api.fail("/materials/summary", Reply(500), as_json({"detail": f"not for {KEY}"}, 400))
    with pytest.raises(RhosightError) as caught:
        source().ids()
    mine = source(limit=1)
    mine.read(mine.ids()[0])
    assert "urllib3" in {record.name.partition(".")[0] for record in caplog.records}
    assert KEY not in caplog.text and KEY not in str(caught.value)


def test_a_redirect_does_not_carry_the_key_away(source, api, outside):
    api.fail("/materials/summary", Reply(302, headers={"Location": outside.url + "elsewhere"}))
    with pytest.raises(RhosightError):
        source().ids()
    assert outside.seen("/elsewhere")
    assert all(KEY not in str(request) for request in outside.requests)


# Installation


def test_import_needs_no_mp_api_and_its_absence_is_said():
    script = """
import sys
sys.modules["mp_api"] = None
from rhosight.dataset.sources.materials_project import MaterialsProject
assert not {"boto3", "botocore", "emmet", "emmet.core"} & set(sys.modules)
try:
    MaterialsProject().ids()
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("RhosightError")
    assert "pip install 'rhosight[mp]'" in done.stdout
