"""Answers, figures and the report of many runs: real materials, folds and baselines; the networks
are true values with noise, so that what the answers must be is known."""

from __future__ import annotations

import base64
import io
import re
from html import unescape
from pathlib import Path
from shutil import which

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from rhosight.dataset import Dataset, split
from rhosight.dataset.schema import TARGETS
from rhosight.errors import RhosightError
from rhosight.evaluation.statistics import repeated_folds
from rhosight.experiments import answers, paper, plots, scores
from rhosight.experiments.exhibit import Exhibit
from rhosight.experiments.exhibits import figure1, figure3, figure4, figure5, figure8
from rhosight.experiments.report import write_experiments_report
from rhosight.inputs.image import ImageSettings, density_image
from rhosight.metrics import r2_score
from rhosight.models.baselines.baselines import compute_baseline_features, make_baseline
from rhosight.networks.modules import build_model
from rhosight.networks.recipe import Recipe

REPEATS, FOLDS = 2, 5

# of synthetic networks, in standard deviations of the labels
NOISE = {
    ("image", ""): 0.60,
    ("text", "formula"): 0.50,
    ("text", "keywords"): 0.40,
    ("text", "all"): 0.40,
    ("image+text", "formula"): 0.30,
    ("image+text", "keywords"): 0.40,
    ("image+text", "all"): 0.80,
}


@pytest.fixture(scope="module")
def predictions(dataset: Dataset) -> pd.DataFrame:
    """Two repeats of five folds, all targets: mean and composition are real. Each repeat has a
    test part of its own, as in the experiments."""
    features = {name: compute_baseline_features(name, dataset) for name in ("mean", "composition")}
    return pd.concat([make_predictions(dataset, features, seed) for seed in range(REPEATS)])


def make_predictions(
    dataset: Dataset, features: dict[str, pd.DataFrame], seed: int
) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    train, test = split(dataset, seed=seed)
    ids = np.array(dataset.ids)
    found = []
    for part in repeated_folds(dataset, FOLDS, 1, seed, indices=train):
        rows = {"train": part.train, "validation": part.validation, "test": test}
        for target in TARGETS:
            y = dataset.targets[target].to_numpy(float)
            known = part.train[~np.isnan(y[part.train])]
            said = {}
            for name, x in features.items():
                model = make_baseline(name, seed)
                if name != "mean":
                    model[-1].set_params(n_estimators=5)
                said[name, "", ""] = model.fit(x.iloc[known], y[known]).predict(x)
            for (name, extent), noise in NOISE.items():
                for stage, factor in (("head", 1.5), ("fine-tuning", 1.0)):
                    error = rng.normal(0, noise * factor * np.nanstd(y), len(y))
                    said[name, extent, stage] = y + error
            for (model, extent, stage), values in said.items():
                for name, where in rows.items():
                    where = where[~np.isnan(y[where])]
                    keys = [seed, part.fold, target, extent, model, stage, name]
                    columns = [*keys, ids[where], y[where], values[where]]
                    found.append(pd.DataFrame(dict(zip(scores.COLUMNS, columns, strict=True))))
    return pd.concat(found, ignore_index=True)


@pytest.fixture(scope="module")
def answered(predictions: pd.DataFrame, dataset: Dataset) -> dict[str, list[answers.Answer]]:
    return answers.answer(predictions, dataset.units)


def named(found: list[answers.Answer], name: str) -> answers.Answer:
    return next(a for a in found if a.question.name == name)


def test_answers_are_those_that_the_noise_was_made_for(answered):
    assert list(answered) == list(TARGETS)
    for target, found in answered.items():
        assert [a.question for a in found] == list(answers.QUESTIONS)
        assert {a.target for a in found} == {target}
        helps = named(found, "text helps image")
        assert helps.verdict == "it depends"
        assert "Yes: with the formula (RMSE " in helps.text
        assert "It is harmful: with the whole text (RMSE " in helps.text
        assert "with keywords" in helps.text.split("It is harmful")[0]
        image = named(found, "image helps text").comparisons.set_index("case")
        # keywords: image+text is as noisy as the text alone
        assert image.loc["with the formula", "better"] and image.loc["with the whole text", "worse"]
        assert not image.loc["with keywords", ["better", "worse"]].any()
        assert named(found, "fine-tuning helps").verdict == "yes"
        joint = named(found, "joint fine-tuning helps")
        assert joint.verdict == "yes" and len(joint.comparisons) == 3


def test_what_is_uncertain_says_so(answered):
    """Same noise, so there is nothing to find: the answer must not find it."""
    for found in answered.values():
        text = named(found, "image helps text").text
        said = re.search(
            r"No significant difference in 10 folds: with keywords \((.*?)\); interval (.*?)\.",
            text,
        )
        change, low, high = re.findall(r"[+−]?\d+(?=\N{NO-BREAK SPACE}%)", " ".join(said.groups()))
        values = [int(v.replace("−", "-")) for v in (low, change, high)]
        assert values == sorted(values) and values[0] < 0 < values[2]


def test_no_is_said_where_no_interval_leaves_room_for_a_gain(predictions: pd.DataFrame, dataset):
    """Networks that are composition's predictions with noise on top cannot help it."""
    useless = predictions[predictions["target"] == "efermi"].reset_index(drop=True)
    keys = ["repeat", "fold", "part", "material_id"]
    composition = useless[useless["model"] == "composition"].set_index(keys)["predicted"]
    network = ~useless["model"].isin(["mean", "composition"])
    known = useless[keys].join(composition.rename("known"), on=keys)["known"]
    noise = np.random.default_rng(0).normal(0, 3, len(useless))
    useless.loc[network, "predicted"] = (known + noise)[network]
    answer = named(answers.answer(useless, dataset.units)["efermi"], "either helps composition")
    assert answer.verdict == "no", answer.text
    assert answer.text.startswith("No gain of 5\N{NO-BREAK SPACE}% or more: ")
    assert "intervals from " in answer.text
    rest = answer.comparisons
    assert (rest["low"] > -answers.SMALL * rest["baseline_rmse"]).all()


def test_a_test_on_some_folds_knows_the_size_of_their_training_parts(predictions, dataset):
    """Two of five folds: each network learned from all other folds, not from the one beside it."""
    some = predictions[(predictions["fold"] < 2) & (predictions["repeat"] == 0)]
    without = some[some["part"] != "train"]
    tables = [
        named(answers.answer(rows, dataset.units)["efermi"], "fine-tuning helps").comparisons
        for rows in (some, without)
    ]
    wide = [table["high"] - table["low"] for table in tables]
    # the variance of the mean difference: 1/2 + 1/4 against 1/2 + 1
    assert np.allclose(wide[1] / wide[0], np.sqrt(1.5 / 0.75), rtol=0.02)


def test_p_values_are_corrected_over_targets_and_pairs(answered):
    for i, question in enumerate(answers.QUESTIONS):
        tables = [found[i].comparisons for found in answered.values()]
        table = pd.concat(tables)
        assert len(table) >= 9, question
        smallest = table.sort_values("p").iloc[0]
        assert smallest["p_holm"] == pytest.approx(smallest["p"] * len(table))
        assert (table["p_holm"] >= table["p"]).all()
        unsure = table[~(table["better"] | table["worse"])]
        assert ((unsure["low"] <= 0) & (unsure["high"] >= 0)).all()


def test_blends_are_learned_on_the_other_folds(predictions: pd.DataFrame):
    held_out = predictions[
        (predictions["part"] == "validation") & (predictions["target"] == "efermi")
    ]
    composition = held_out[held_out["model"] == "composition"]
    perfect = composition.assign(predicted=composition["true"])
    blended = answers.blend(perfect, composition)
    assert np.allclose(blended["predicted"], composition["true"])
    # the mirror image of composition's error: half and half is right, in each fold
    mirrored = composition.assign(predicted=2 * composition["true"] - composition["predicted"])
    assert np.allclose(answers.blend(mirrored, composition)["predicted"], composition["true"])
    # a model that is right in one fold only has its weight from the others there
    one = (composition["repeat"] == 0) & (composition["fold"] == 0)
    useless = composition["predicted"] - 3 * (composition["true"] - composition["predicted"])
    once = composition.assign(predicted=composition["true"].where(one, useless))
    blended = answers.blend(once, composition)
    assert np.allclose(blended["predicted"][one], composition["predicted"][one])


def test_one_fold_answers_nothing(predictions: pd.DataFrame, dataset: Dataset):
    single = predictions[(predictions["repeat"] == 0) & (predictions["fold"] == 0)]
    for found in answers.answer(single, dataset.units).values():
        assert {a.verdict for a in found} == {"not run"}
    with pytest.raises(RhosightError, match="no validation set"):
        answers.answer(predictions[predictions["part"] == "test"], dataset.units)
    with pytest.raises(RhosightError, match=r"lack the column\(s\) extent"):
        answers.answer(predictions.drop(columns="extent"), dataset.units)


@pytest.fixture(scope="module")
def table(predictions: pd.DataFrame) -> pd.DataFrame:
    tuned = predictions[predictions["stage"] != "head"]
    ours = pd.concat(
        [scores.summarise(tuned, resamples=200), scores.average_targets(tuned, resamples=200)]
    )
    return scores.add_paper_scores(ours, "figure2")


def test_summary_has_mean_spread_and_interval_of_each_cell(predictions: pd.DataFrame):
    found = scores.summarise(predictions, resamples=200)
    assert not found.duplicated(list(scores.CELL)).any()
    assert (found["folds"] == REPEATS * FOLDS).all()
    where = {"target": "efermi", "extent": "all", "model": "text", "stage": "head", "part": "test"}
    cell = found[(found[list(where)] == list(where.values())).all(axis=1)].iloc[0]
    rows = predictions[(predictions[list(where)] == list(where.values())).all(axis=1)]
    folds = rows.groupby(["repeat", "fold"])[["true", "predicted"]]
    r2 = folds.apply(lambda frame: r2_score(frame["true"], frame["predicted"]))
    assert cell["r2"] == pytest.approx(r2.mean()) and cell["r2_std"] == pytest.approx(r2.std())
    assert cell["rmse_low"] < cell["rmse"] < cell["rmse_high"]
    assert cell["n"] == rows["material_id"].nunique() and cell["repeats"] == REPEATS
    assert cell["r2_run_std"] == pytest.approx(r2.groupby("repeat").mean().std())
    one = scores.summarise(predictions[predictions["repeat"] == 0], resamples=10)
    assert one["r2_run_std"].isna().all() and (one["repeats"] == 1).all()


def test_ours_stands_beside_the_papers(table: pd.DataFrame):
    row = table[(table["target"] == "efermi") & (table["part"] == "test")].set_index(
        ["model", "extent"]
    )
    assert row.loc[("image+text", "all"), ["paper_r2", "paper_rmse"]].tolist() == [0.84, 0.99]
    # the image was trained once here and three times in the paper
    image = row.loc["image"]
    assert image["paper_r2"].to_dict() == {"formula": 0.60, "keywords": 0.63, "all": 0.56}
    assert image["r2"].nunique() == 1
    assert np.isnan(row.loc[("composition", ""), "paper_r2"])
    average = table[(table["target"] == "average") & (table["part"] == "validation")]
    average = average.set_index(["model", "extent"])
    assert average.loc[("text", "formula"), "paper_r2"] == 0.72
    mine = table[(table["part"] == "validation") & (table["target"] != "average")]
    mine = mine[(mine["model"] == "text") & (mine["extent"] == "formula")]
    cell = average.loc[("text", "formula")]
    assert cell["r2"] == pytest.approx(mine["r2"].mean())
    assert 0 < cell["r2_std"] < mine["r2_std"].max() and cell["folds"] == REPEATS * FOLDS
    assert cell["r2_low"] < cell["r2"] < cell["r2_high"] and np.isnan(cell["rmse"])


def test_trials_stand_beside_trials(predictions: pd.DataFrame):
    clip = predictions[predictions["target"] == "formation_energy_per_atom"]
    clip = clip[(clip["model"] == "text") & (clip["extent"] == "all") & (clip["stage"] != "head")]
    trials = pd.concat([clip.assign(model="clip", trial=name) for name in ("T1", "T3")])
    found = scores.summarise(scores.standardise(trials), by=["trial"], resamples=100)
    found = scores.add_paper_scores(found, "table2").set_index(["trial", "part"])
    assert found.loc[("T3", "test"), "paper_r2"] == 0.8942
    assert found.loc[("T3", "test"), "rmse_unit"] == paper.STANDARDISED
    # in standard deviations of the training labels, RMSE² is about 1 − R²
    row = found.loc[("T1", "validation")]
    assert row["rmse"] ** 2 == pytest.approx(1 - row["r2"], rel=0.4)
    with pytest.raises(RhosightError, match="lacks its training set"):
        scores.standardise(trials[trials["part"] != "train"])


def shown_texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_heat_map_says_ours_and_the_papers(table: pd.DataFrame):
    figure = plots.draw_heat_map(table, "Figure 2")
    texts = shown_texts(figure)
    assert "a) Formation energy: R² / RMSE (eV/atom)" in texts
    assert "val\nours" in texts and "val\npaper" in texts
    assert "0.84\n0.99" in texts  # the paper's cell
    assert len(figure.axes) == 4
    with pytest.raises(RhosightError, match="run the experiment first"):
        plots.draw_heat_map(table[:0])


def test_dots_and_learning_curves(table: pd.DataFrame):
    figure = plots.draw_dots(table[table["part"] != "train"], "rmse")
    assert [a.get_xlabel() for a in figure.axes[:2]] == ["RMSE (eV/atom)"] * 2
    epochs = pd.DataFrame({"epoch": range(5), "r2": np.linspace(0, 0.8, 5)})
    history = pd.concat(
        [
            epochs.assign(repeat=0, fold=f, extent="all", model="clip", stage="fine-tuning")
            for f in (0, 1)
        ]
    )
    axes = plots.draw_learning_curves(history, "r2").axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2, 3, 4, 5]] * 3
    assert np.allclose(axes.lines[2].get_ydata(), epochs["r2"])  # the mean over folds
    figure = plots.draw_learning_curves(history[:-2], "r2")  # the second fold stops early
    assert figure.axes[0].lines[2].get_xdata().tolist() == [1, 2, 3]
    assert "mean, while all folds train" in shown_texts(figure)
    with pytest.raises(RhosightError, match="the history has no 'rmse'"):
        plots.draw_learning_curves(history, "rmse")


def test_pictures_are_drawn_from_live_data(dataset: Dataset):
    crystal = figure1.make_exhibit(dataset, "mp-2534")
    assert "GaAs" in shown_texts(crystal.figure)
    what = crystal.table.set_index("what")["value"]
    assert what["text, formula"] == "GaAs" and what["bulk_modulus_vrh"].endswith("GPa")
    image = crystal.figure.findobj(AxesImage)[-1].get_array()
    again = density_image(dataset["mp-2534"].density, ImageSettings.paper())
    assert np.allclose(image, again[0])
    titanium = figure4.make_exhibit(dataset)
    assert "P6/mmm" in titanium.note and "bundled" in titanium.note
    # ω-Ti: the layer at c/2 holds two atoms, that at 0 one, none at c/4
    total = titanium.table[titanium.table["density"] == "total"].set_index("z_over_c")
    assert total["mean"].idxmax() == 0.5 and total["maximum"].idxmin() == 0.25
    assert len(titanium.figure.findobj(AxesImage)) == 6
    pictures = figure8.make_exhibit(dataset).figure.findobj(AxesImage)
    assert len(pictures) == 6 and pictures[0].get_array().shape == (299, 299, 3)
    violins = figure3.make_exhibit(dataset).table.set_index("property")
    assert violins.loc["bulk_modulus_vrh", "n"] == 377


def test_architecture_is_that_of_the_live_model():
    recipe = Recipe(targets=("efermi",))
    found = figure5.make_exhibit(recipe)
    network = build_model(recipe, pretrained=False)
    assert found.table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    rows = found.table.set_index("block")
    assert rows.loc["image.head.hidden.2", "width_out"] == 256
    assert rows.loc["head.0", ["width_in", "width_out"]].tolist() == [512, 256]
    assert rows.loc["head.1", "width_out"] == 1
    texts = shown_texts(found.figure)
    assert "tf_efficientnet_lite0" in texts and "concatenation\n512" in texts
    alone = figure5.list_layers(network.text)
    assert alone["role"].tolist() == ["backbone", "dense", "dense", "dense", "output"]


def test_exhibits_are_saved_in_all_formats(table: pd.DataFrame, tmp_path: Path):
    some = table[(table["target"] == "efermi") & (table["part"] == "test")]
    exhibit = Exhibit("figure2", "Scores", table, plots.draw_dots(some), "Half the % said.")
    paths = exhibit.save(tmp_path / "a")
    assert [p.suffix for p in paths] == [".csv", ".tex", ".png", ".svg", ".pdf"]
    assert len(pd.read_csv(paths[0])) == len(table)
    latex = paths[1].read_text(encoding="utf-8")
    assert latex.count(r"\begin{longtable}") == 4  # a target each, and their average
    assert r"reproduced: bulk modulus, R$^2$ / RMSE (GPa). Half the \% said.} \label" in latex
    row = next(line for line in latex.splitlines() if line.startswith("text (all) & "))
    assert re.fullmatch(r"text \(all\)( & 0\.\d\d±0\.\d\d /[\d.]+ & [\d.]+ /[\d.]+){2} \\\\", row)
    again = exhibit.save(tmp_path / "b")
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(paths, again, strict=True))
    with pytest.raises(RhosightError, match="no format 'gif'"):
        exhibit.save(tmp_path, ["gif"])


@pytest.fixture(scope="module")
def page(
    predictions: pd.DataFrame, table: pd.DataFrame, dataset: Dataset, tmp_path_factory
) -> Path:
    pictures = Exhibit(
        "figure4", "Slices", figure4.make_exhibit().table, figure4.draw(), "a <note>"
    )
    settings = {
        "preset": "offline",
        "weights": "EfficientNet-Lite0 and all-MiniLM-L6-v2",
        "deviations": {"image model": "trained once"},
        "recipe": Recipe().flat(),
        "clip": Recipe(modality="clip").flat(),
        "hardware": {"processor": "a fast one"},
        "command": "rhosight reproduce figure2",
        "n_splits": 10,
        "versions": {"torch": "2.9"},
    }
    exhibits = [Exhibit("figure2", "Scores", table, plots.draw_heat_map(table)), pictures]
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_experiments_report(path, exhibits, predictions, settings, dataset)


def test_report_says_what_a_reader_asks(page: Path, answered):
    html = page.read_text(encoding="utf-8")
    text = unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style.*?</style>", "", html, flags=re.S)))
    text = " ".join(text.split())
    assert text.index("Does the text help the image?") < text.index("Figure 2 Scores")
    for found in answered.values():
        for answer in found:
            assert " ".join(answer.text.split()) in text
    for item in paper.CONTRADICTIONS:
        assert item.reading in text
    assert "preset offline" in text and "EfficientNet-Lite0 and all-MiniLM-L6-v2" in text
    assert "Image model: trained once" in text
    assert "Each first trains its readout of four dense layers" in text
    assert "CLIP: a dual encoder of tf_efficientnet_lite0 and all-MiniLM-L6-v2, pre-trained" in text
    counts = re.search(r"In each of 2 repeats a test set of ([\d to]+) materials", text)
    assert {int(n) for n in counts.group(1).split(" to ")} <= {60, 61, 62}
    assert "were divided into 10 folds, of which 5 were run. Each repeat has its own seeds" in text
    assert "composition (Magpie statistics of the elements, volume per atom" in text
    assert "{'" not in text and "pretraining epochs: " in text and "a fast one" in text
    assert re.search(r"\d\.\d\d to \d\.\d\d runs ± \d\.\d\d", text)
    for key in ("massa2024transfer", "tan2019efficientnet", "wang2020minilm"):
        assert key in text
    assert "szegedy2016rethinking" not in text  # did not take part
    assert "a <note>" in text


def test_data_stand_behind_links(page: Path, table: pd.DataFrame):
    html = page.read_text(encoding="utf-8")
    links = dict(
        re.findall(r'<a download="([^"]+)" href="data:[^;]+;charset=utf-8;base64,([^"]+)"', html)
    )
    expected = {
        "figure2.csv",
        "figure4.csv",
        "rhosight.bib",
        *(f"answers-{t}.csv" for t in TARGETS),
    }
    assert set(links) == expected
    found = pd.read_csv(io.BytesIO(base64.b64decode(links["figure2.csv"])))
    assert np.allclose(found["r2"], table["r2"]) and len(found) == len(table)
    bibtex = base64.b64decode(links["rhosight.bib"]).decode()
    assert bibtex.count("\n@") + 1 == len(re.findall(r"^@\w+{\w+,$", bibtex, re.M)) >= 12


def test_report_without_answers(dataset: Dataset, tmp_path: Path):
    exhibits = [Exhibit("figure3", "Violins", figure3.make_exhibit(dataset).table)]
    empty = pd.DataFrame(columns=list(scores.COLUMNS))
    path = write_experiments_report(tmp_path / "r.html", exhibits, empty, {}, dataset)
    assert "There are no answers" in path.read_text(encoding="utf-8")
    with pytest.raises(RhosightError, match="is not a writable folder"):
        write_experiments_report(tmp_path / "no" / "r.html", exhibits, empty, {}, dataset)


CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := which(n))), None
)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


PUBLISHED = Path(__file__).parents[1] / "docs" / "results" / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path; install chromium")
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
@pytest.mark.parametrize("whole", [False, True], ids=["made here", "published"])
def test_report_in_a_browser(page: Path, whole: bool, width: int, scheme: str):
    """No requests beyond the file, no script errors, no sideways scrolling, nothing unnamed."""
    page = PUBLISHED if whole else page
    assert page.read_text(encoding="utf-8").count('<section id="figure') == (9 if whole else 2)
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    problems, requests = [], []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        view = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        view.on("pageerror", lambda error: problems.append(str(error)))
        view.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        view.on("request", lambda request: requests.append(request.url))
        view.goto(page.as_uri())
        for summary in view.locator("summary").all():
            summary.click()
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        ids = view.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))
        view.locator("#copy").click()
        view.wait_for_function("document.getElementById('copy').textContent != 'Copy BibTeX'")
        assert view.evaluate("getSelection().toString()").startswith("@article{massa2024transfer")
        smallest = view.evaluate(
            "Math.min(...[...document.querySelectorAll('p, li, td, th, small, span')]"
            ".map(e => parseFloat(getComputedStyle(e).fontSize)))"
        )
        assert smallest >= 10.5
        browser.close()
    assert requests == [page.as_uri()] and problems == []
