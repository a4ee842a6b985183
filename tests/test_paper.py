"""The printed scores: all there, as printed, and the contradictions are in them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rhosight import load_recipe
from rhosight.dataset.schema import TARGETS
from rhosight.errors import RhosightError
from rhosight.experiments import paper
from rhosight.networks.presets import recipe_names

KEYS = ["target", "extent", "model", "part"]


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    return paper.read_scores()


def of(exhibit: str, **values: str) -> pd.DataFrame:
    table = paper.read_scores(exhibit)
    return table[(table[list(values)] == list(values.values())).all(axis=1)]


def one(exhibit: str, **values: str) -> tuple[float, float]:
    found = of(exhibit, **values)
    assert len(found) == 1
    return tuple(found[["r2", "rmse"]].iloc[0])


def test_all_cells_are_there(cells: pd.DataFrame):
    counts = cells.groupby("exhibit").size().to_dict()
    # targets × rows × parts; Figure 2 has a panel of averages, Figure 9 a second column
    sizes = {"table1": 3 * 4 * 2, "table2": 5 * 2, "table3": 5 * 2}
    assert counts == sizes | {"figure2": 4 * 9 * 3, "figure9": 3 * 9 * 3 * 2}
    assert not cells.duplicated(["exhibit", "panel", "trial", *KEYS]).any()
    assert cells["r2"].notna().all()
    assert (cells["rmse"].isna() == (cells["target"] == "average")).all()
    assert set(cells["target"]) == {*TARGETS, "average"}
    trials = {f"T{i}" for i in range(1, 6)}
    assert set(paper.read_scores("table2", "table3")["trial"]) == trials
    assert trials == {name[-2:] for name in recipe_names() if name.startswith("paper-table2-")}


def test_cells_are_as_printed():
    fermi = {"target": "efermi", "extent": "all", "model": "clip"}
    assert one("table1", trial="3", part="test", **fermi) == (0.51, 2.07)
    assert one("table1", trial="mean", part="validation", **fermi) == (0.90, 0.86)
    assert one("table2", trial="T3", part="validation") == (0.8548, 0.3670)
    assert one("table3", trial="T5", part="test") == (0.68, 0.60)
    modulus = {"target": "bulk_modulus_vrh", "extent": "keywords", "model": "image+text"}
    assert one("figure2", part="train", **modulus) == (0.95, 17.07)
    energy = {"target": "formation_energy_per_atom", "extent": "all", "model": "text"}
    assert one("figure9", part="validation", stage="head", **energy) == (-0.04, 0.60)
    assert (
        of("figure2", target="average", extent="all", model="image", part="test").r2.item() == 0.67
    )


def test_units(cells: pd.DataFrame):
    units = cells.drop_duplicates(["exhibit", "target"]).set_index(["exhibit", "target"])
    units = units["rmse_unit"]
    assert units["table1", "efermi"] == "eV" and units["figure9", "bulk_modulus_vrh"] == "GPa"
    assert units["table2", "formation_energy_per_atom"] == paper.STANDARDISED
    assert units["figure2", "average"] == ""


def test_averages_of_figure_2_are_those_of_its_panels():
    table = paper.read_scores("figure2")
    keys = ["extent", "model", "part"]
    panels = table[table["target"] != "average"].groupby(keys)["r2"].mean()
    averages = table[table["target"] == "average"].set_index(keys)["r2"]
    assert np.allclose(averages, panels[averages.index], atol=0.0051)


def test_figure_9_has_its_headings_exchanged():
    """Contradictions 1 to 3: column b is Figure 2, but for four cells."""
    figure2 = paper.read_scores("figure2")
    figure2 = figure2[figure2["target"] != "average"].set_index(KEYS)[["r2", "rmse"]]
    by_stage = {
        stage: of("figure9", stage=stage).set_index(KEYS)[["r2", "rmse"]].loc[figure2.index]
        for stage in ("head", "fine-tuning")
    }
    differs = {stage: (table != figure2).any(axis=1) for stage, table in by_stage.items()}
    assert differs["head"].sum() == 77 and differs["fine-tuning"].sum() == 4
    first = ("formation_energy_per_atom", "formula", "image", "test")
    assert tuple(figure2.loc[first]) == (0.72, 0.17)
    assert tuple(by_stage["fine-tuning"].loc[first]) == (0.72, 0.26)
    gap = (by_stage["fine-tuning"] - figure2)[differs["fine-tuning"]].drop(index=first)
    assert np.allclose(gap["r2"], 0) and np.allclose(gap["rmse"].abs(), 0.01)
    better = by_stage["fine-tuning"]["r2"] > by_stage["head"]["r2"]
    assert better.xs("validation", level="part").sum() == 26


def test_one_spread_turns_each_r2_of_figure_2_into_its_rmse():
    """Contradiction 4: so the 0.17 is the misprint, and RMSE were calculated from R²."""
    table = paper.read_scores("figure2")
    table = table[table["target"] != "average"]
    explained, spreads = 0, {}
    for key, group in table.groupby(["target", "part"]):
        spread = paper.compute_implied_spread(group)["spread"].median()
        spread = spread * np.linspace(0.97, 1.03, 4001)
        predicted = spread[:, None] * np.sqrt(1 - group["r2"].to_numpy())
        fits = np.abs(predicted - group["rmse"].to_numpy()) < 0.0051
        explained += fits.sum(1).max()
        spreads[key] = float(spread[fits.sum(1).argmax()])
        assert (group.groupby("r2")["rmse"].nunique() == 1).all() or key[1] == "test"
    assert explained == 80
    energy = [spreads["formation_energy_per_atom", p] for p in ("train", "validation", "test")]
    assert energy == pytest.approx([0.78, 0.59, 0.49], abs=0.011)


def test_spreads_of_the_tables():
    """Contradictions 6 and 9: other test parts in each run, standardised errors."""
    modulus = of("table1", target="bulk_modulus_vrh", part="test")
    spread = paper.compute_implied_spread(modulus[modulus["trial"] != "mean"])
    assert spread["spread"].round().tolist() == [70, 79, 82]
    assert (spread["low"].to_numpy()[1:] > spread["high"].to_numpy()[:-1]).all()
    trials = paper.read_scores("table2", "table3")
    spread = paper.compute_implied_spread(trials[trials["part"] == "test"])["spread"]
    assert spread.between(1.04, 1.07).all() and len(spread) == 10
    energy = of("table1", target="formation_energy_per_atom", part="test")
    spread = paper.compute_implied_spread(energy[energy["trial"] != "mean"])["spread"]
    assert spread.between(0.60, 0.73).all()


def test_averages_of_table_1():
    """Contradiction 7: two of twelve averages are not those of the runs."""
    table = paper.read_scores("table1").set_index(["target", "part", "trial"])[["r2", "rmse"]]
    runs = table.drop(index="mean", level="trial").groupby(["target", "part"]).mean()
    printed = table.xs("mean", level="trial").loc[runs.index]
    half = pd.DataFrame(0.0051, printed.index, printed.columns)
    half.loc["bulk_modulus_vrh", "rmse"] = 0.051
    wrong = ((runs - printed).abs() > half).stack()
    expected = {
        ("efermi", "validation", "rmse"),
        ("formation_energy_per_atom", "test", "rmse"),
    }
    assert set(wrong[wrong].index) == expected


def test_the_chosen_trial_is_not_chosen_by_validation():
    """Contradiction 8."""
    best = {}
    for name in ("table2", "table3"):
        for part in ("validation", "test"):
            table = of(name, part=part)
            best[name, part] = set(table.loc[table["r2"] == table["r2"].max(), "trial"])
    assert best == {
        ("table2", "validation"): {"T2"},
        ("table2", "test"): {"T3"},
        ("table3", "validation"): {"T3"},
        ("table3", "test"): {"T2", "T4"},
    }


def test_text_does_not_always_help_the_formation_energy():
    """Contradiction 12."""
    where = {"target": "formation_energy_per_atom", "extent": "formula"}
    for part, image, both in (("validation", 0.62, 0.59), ("test", 0.72, 0.68)):
        assert one("figure2", model="image", part=part, **where)[0] == image
        assert one("figure2", model="image+text", part=part, **where)[0] == both


def test_contradictions_say_where_what_and_how_they_are_read():
    assert len({item.where for item in paper.CONTRADICTIONS}) == len(paper.CONTRADICTIONS) == 14
    for item in paper.CONTRADICTIONS:
        assert item.what.endswith((".", "”.")) and item.reading.endswith(".")


def test_the_paper_preset_has_the_tables_hyperparameters():
    """Columns BS, LR, Patience and Patch of Tables 2 and 3."""
    printed = {"T1": (16, 1.5e-4, 17, 32), "T2": (32, 1.5e-4, 50, 32), "T3": (16, 1e-4, 50, 32)}
    printed |= {"T4": (32, 1.5e-4, 50, 16), "T5": (16, 1e-4, 50, 16)}
    for number, fourier in ((2, False), (3, True)):
        for trial, (batch, rate, patience, patch) in printed.items():
            recipe = load_recipe(f"paper-table{number}-{trial}")
            assert recipe.fine_tuning.batch_size == batch
            assert recipe.fine_tuning.learning_rate == rate
            assert recipe.fine_tuning.patience == patience and recipe.clip.endswith(f"patch{patch}")
            assert recipe.image.settings.fourier is fourier


def test_an_exhibit_without_scores_is_refused():
    with pytest.raises(RhosightError, match="figure5 prints no scores; table1, table2"):
        paper.read_scores("figure5")


def test_printed_errors():
    assert [paper.format_error(value) for value in (0.4, 1.47, 36.61)] == ["0.40", "1.47", "36.6"]
