"""What `predict` takes, how models show themselves, and what they need installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.io.vasp.outputs import Chgcar

from rhosight import DescriptorModel, RhosightError, load_model, read_density
from rhosight.dataset.dataset import Dataset
from rhosight.models.base import SavedModel
from rhosight.models.materials import as_crystals, as_densities
from servers.faulty import Reply
from servers.hub import Hub


@pytest.fixture(scope="module")
def no_dft() -> SavedModel:
    return load_model("no-dft")


def test_densities_in_the_forms_that_users_hold(dataset: Dataset, tmp_path: Path):
    material = dataset[0]
    density = material.density
    density.to_chgcar(tmp_path / "CHGCAR")
    chgcar = Chgcar.from_file(tmp_path / "CHGCAR")
    for given in (density, [density], (density,), material, [material]):
        (one,) = as_densities(given)
        assert one is given or one.name == density.name
    (one,) = as_densities({"mine": density})
    assert one.name == "mine" and one.structure == density.structure
    for given in (chgcar, [chgcar]):
        (one,) = as_densities(given)
        expected = read_density(tmp_path / "CHGCAR").grid("total")
        np.testing.assert_allclose(one.grid("total"), expected, rtol=1e-9)
    assert as_densities(dataset) is dataset
    assert as_densities(dataset.densities) is dataset.densities or len(dataset.densities)
    assert as_densities([]) == []


def test_structures_in_the_forms_that_users_hold(no_dft: SavedModel):
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(4.26), ["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]]
    )
    atoms = structure.to_ase_atoms()
    assert isinstance(atoms, Atoms)
    expected = no_dft.predict({"MgO": structure})
    several = no_dft.predict([structure, atoms])
    assert several.index.to_list() == ["MgO", "MgO (2)"]
    for name in several.index:
        np.testing.assert_allclose(several.loc[name], expected.loc["MgO"], rtol=1e-6)
    for given in (structure, atoms):
        assert list(as_crystals(given)) == ["MgO"]
    assert list(as_crystals({"a": structure, "b": atoms})) == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("CHGCAR", "CHGCAR: no such file"),
        (Path("POSCAR"), "POSCAR: no such file"),
        (["a", "b"], "a: no such file"),
        (3, "an object of type int is not a crystal"),
        (None, "an object of type NoneType is not a crystal"),
        ({"mine": pd.DataFrame()}, "an object of type DataFrame is not a crystal"),
    ],
)
def test_other_objects_are_an_error_with_a_cure(given: object, message: str):
    for convert in (as_densities, as_crystals):
        with pytest.raises(RhosightError, match=message) as caught:
            list(convert(given))
        assert "\n" not in str(caught.value)


def test_a_structure_is_not_enough_for_a_model_of_densities():
    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
    with pytest.raises(RhosightError, match=r"Si: this model reads charge densities; .* no-dft"):
        as_densities(silicon)


def test_a_model_shows_itself(no_dft: SavedModel):
    text, page = repr(no_dft), no_dft._repr_html_()
    for shown in (text, page):
        for fact in ("structures", "344 materials of mp-fcc", "efermi", "eV/atom", "GPa", "0.9"):
            assert fact in shown
    assert len(text.splitlines()) == 9
    assert "not yet; call fit" in repr(DescriptorModel())


def test_a_model_goes_to_the_hub_and_comes_back(
    no_dft: SavedModel, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with Hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url.rstrip("/"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "{repo_id}/resolve/{revision}/{filename}",
        )
        url = no_dft.push_to_hub("me/model", token="hf_secret")
        assert url.startswith(f"{hub.url}me/model/commit/")
        assert set(hub.files["me/model"]) == {"config.json", "model.safetensors", "README.md"}
        assert hub.seen("/commit/", "POST")[0].headers["authorization"] == "Bearer hf_secret"
        assert not any(b"hf_secret" in content for content in hub.files["me/model"].values())
        structure = dataset["mp-149"].structure
        again = load_model("me/model").predict(structure)
        pd.testing.assert_frame_equal(again, no_dft.predict(structure))
        hub.fail("/commit/", Reply(403))
        with pytest.raises(RhosightError, match="cannot be reached or refuses the upload"):
            no_dft.push_to_hub("me/model", token="hf_secret")
    with pytest.raises(RhosightError, match="not fitted; call fit"):
        DescriptorModel().push_to_hub("me/model")
