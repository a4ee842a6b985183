"""The report, from results made by hand: real materials and baselines, synthetic models."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rhosight.dataset import Dataset, folds, split
from rhosight.errors import RhosightError
from rhosight.evaluation.cross_validation import CrossValidation
from rhosight.evaluation.html import format_number, format_setting, link_references
from rhosight.evaluation.report import _scale_bar, write_report
from rhosight.inputs.image import Channel, ImageSettings
from rhosight.models.baselines.baselines import compute_baseline_features, make_baseline
from rhosight.networks.recipe import STAGES, Recipe

TARGETS = ("formation_energy_per_atom", "efermi", "bulk_modulus_vrh")
ERRORS = {"image": 0.6, "text": 0.5, "image+text": 0.3}  # of synthetic models, in spreads
SMALL = ImageSettings(
    size=32,
    channels=(Channel(kind="total"), Channel(kind="difference"), Channel(window=16, offset=0.5)),
)
ONE = Recipe(modality="text", targets=("efermi",))


def synthetic(
    dataset: Dataset, recipe: Recipe, only_folds: int = 3, errors: dict | None = None
) -> CrossValidation:
    """As `cross_validate` returns it; baselines are real, trained models true values plus noise."""
    errors, rng = errors or ERRORS, np.random.default_rng(0)
    dataset = dataset.require_targets(recipe.targets, how="any")
    train, test = split(dataset)
    features = {
        name: compute_baseline_features(name, dataset.densities) for name in ("mean", "density")
    }
    rows, history = [], []
    for fold, (fit, validation) in enumerate(folds(dataset, 3, indices=train)[:only_folds]):
        for target in recipe.targets:
            y = dataset.targets[target].to_numpy(float)
            known = fit[~np.isnan(y[fit])]
            said = {}
            for name, x in features.items():
                model = make_baseline(name, 0)
                if name != "mean":
                    model[-1].set_params(n_estimators=10)
                said[name, ""] = model.fit(x.iloc[known], y[known]).predict(x)
            for name in recipe.modalities:
                for stage, factor in zip(STAGES, (1.4, 1.0), strict=True):
                    noise = rng.normal(0, errors[name] * factor * np.nanstd(y), len(y))
                    said[name, stage] = y + noise
            for (model, stage), values in said.items():
                for part, where in (("train", fit), ("validation", validation), ("test", test)):
                    frame = pd.DataFrame({"material_id": np.array(dataset.ids)[where]})
                    frame = frame.assign(true=y[where], predicted=values[where], target=target)
                    frame = frame.assign(model=model, stage=stage, fold=fold, part=part)
                    rows.append(frame[frame["true"].notna()])
        for model in recipe.modalities:
            for stage in STAGES:
                epoch = np.arange(12)
                loss = 0.5 * np.exp(-epoch / 4) + rng.uniform(0, 0.03, 12)
                frame = pd.DataFrame({"epoch": epoch, "train": loss, "watched": loss + 0.08})
                history.append(frame.assign(model=model, stage=stage, fold=fold))
    settings = {
        "recipe": recipe.flat(),
        "n_splits": 3,
        "test_fraction": 0.15,
        "split_seed": 0,
        "groups": "formula",
        "dataset": dataset.metadata.get("name", ""),
        "dataset_sha256": dataset.fingerprint(),
        "units": {target: dataset.units[target] for target in recipe.targets},
        "versions": {"rhosight": "0.1.0", "torch": "2.9.0"},
    }
    texts = {i: f"{i} crystallizes in <a> & cubic cell." for i in dataset.ids}
    return CrossValidation(
        pd.concat(rows, ignore_index=True),
        pd.concat(history, ignore_index=True),
        settings,
        texts if recipe.uses_text else {},
    )


class Page(HTMLParser):
    """What a browser would make of it: elements, links, and the text of each section."""

    VOID = frozenset(("meta", "img", "br", "wbr", "link", "hr", "input"))

    def __init__(self, path: Path):
        super().__init__()
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict]] = []
        self.sections: dict[str, str] = {"": ""}
        self.cells: list[dict] = []
        self.now = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag == "section":
            self.now = attributes["id"]
            self.sections[self.now] = ""
        if tag == "td":
            self.cells.append({**attributes, "section": self.now, "text": ""})

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, f"</{tag}> closes another element"
        if tag == "section":
            self.now = ""

    def handle_data(self, data):
        if "style" in self.stack:
            return
        self.sections[self.now] += data
        if "td" in self.stack:
            self.cells[-1]["text"] += data

    def text(self, section: str = "") -> str:
        return " ".join(self.sections[section].split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def recipe(**changes) -> Recipe:
    fields = {"image": {"settings": SMALL}, "head": {"epochs": 60}, "fine_tuning": {"epochs": 15}}
    return Recipe(**fields).replace(**changes)


@pytest.fixture(scope="module")
def thirty(dataset: Dataset) -> Dataset:
    """Thirty materials; two bulk moduli are masked, one more is missing."""
    masked = dataset.masked["material_id"].to_list()[:2]
    without = dataset.targets["bulk_modulus_vrh"].isna()
    missing = [i for i in dataset.ids if without[i] and i not in set(dataset.masked["material_id"])]
    return dataset[masked + missing[:1] + [i for i in dataset.ids if not without[i]][:27]]


@pytest.fixture(scope="module")
def page(thirty: Dataset, tmp_path_factory) -> Page:
    """The report of everything: three targets, both modalities, three folds."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    result = synthetic(thirty, recipe())
    assert write_report(result, thirty, path) == path
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    page = Page(path)
    page.result = result
    return page


@pytest.fixture
def report(thirty: Dataset, tmp_path: Path, monkeypatch):
    """Write and read the report of a synthetic result; its figures, which are slow, on demand."""

    def make(result: CrossValidation, dataset: Dataset = thirty, figures: bool = False) -> Page:
        with monkeypatch.context() as patch:
            if not figures:
                patch.setattr("rhosight.evaluation.report._draw_svg", lambda *_: "")
            page = Page(write_report(result, dataset, tmp_path / "report.html"))
        check_self_contained(page)
        return page

    return make


def check_self_contained(page: Page) -> None:
    assert page.stack == []
    assert len(page.source.encode()) < 6_000_000
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "srcset", "data", "poster"):
                assert value.startswith("data:image/png;base64,")
            elif name == "href" and tag == "a":
                assert value.startswith(("https://doi.org/10.", "https://arxiv.org/abs/"))
            elif name.endswith("href"):
                assert value.startswith(("#", "data:"))
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.source)
    assert {a or b for a, b in referred} <= set(ids)


def test_report_is_self_contained(page: Page):
    check_self_contained(page)
    assert list(page.sections)[1:] == [
        "scores",
        "parity",
        "curves",
        "examples",
        "masked",
        "settings",
        "sources",
    ]


def test_report_is_reproducible(thirty: Dataset, tmp_path: Path):
    result = synthetic(thirty, ONE, only_folds=1)
    files = [write_report(result, thirty, tmp_path / name) for name in ("a.html", "b.html")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_headline_says_what_was_done_and_who_won(page: Page):
    text = page.text()
    n_test = page.result.predictions.query("part == 'test'")["material_id"].nunique()
    assert f"The 30 materials of mp-fcc were split into a test set of {n_test}" in text
    assert f"{30 - n_test} materials for cross-validation in 3 folds. All folds were run." in text
    for name in ("Formation energy", "Fermi energy", "Bulk modulus"):
        assert f"{name}: the model is better. Its RMSE is" in text
    assert "The best model, image+text after fine-tuning, has R² 0." in text
    assert "the strongest baseline, density, has R²" in text
    assert re.search(r"RMSE [\d.]+ ± [\d.]+ GPa", text)
    assert "lower RMSE than the strongest baseline for all 3 targets" in text
    assert re.search(
        r"the model is better. Its RMSE is \d+ % lower on average and lower in 3 of", text
    )


def test_headline_admits_defeat(report, thirty: Dataset):
    bad = report(synthetic(thirty, recipe(modality="text"), errors={"text": 3.0}))
    assert "lower RMSE than the strongest baseline for none of the 3 targets" in bad.text()
    assert "the model is better" not in bad.text()
    assert re.search(r"the baseline is better. Its RMSE is \d+ % lower", bad.text())


def test_headline_of_a_mixed_result_and_of_a_tie(report, thirty: Dataset):
    result = synthetic(thirty, recipe(modality="text", targets=TARGETS[:2]))
    p = result.predictions
    mine = (p["stage"] != "") & (p["target"] == "efermi")
    p.loc[mine, "predicted"] = p.loc[mine, "true"] + 50
    page = report(result)
    assert "1 of 2 targets: formation energy" in page.text()
    twin = p[(p["model"] == "density") & (p["target"] == "efermi")].sort_values(
        ["fold", "part", "material_id"]
    )
    last = mine & (p["stage"] == "fine-tuning")
    order = p[last].sort_values(["fold", "part", "material_id"]).index
    p.loc[order, "predicted"] = twin["predicted"].to_numpy()
    assert "Fermi energy: no difference." in report(result).text()


def test_scores_are_those_of_the_summary(page: Page):
    summary = page.result.summary()
    cells = [cell for cell in page.cells if cell["section"] == "scores"]
    texts = [" ".join(cell["text"].split()) for cell in cells]
    rows = summary.index.get_level_values("target").value_counts().iloc[0]
    assert len(cells) == rows * 3 * (len(TARGETS) + 1)  # and the average
    best = summary.loc[("bulk_modulus_vrh", "image+text", "fine-tuning"), "validation"]
    cell = f"{best['r2']:.2f} ± {best['r2_std']:.2f} / {best['rmse']:.1f} ± {best['rmse_std']:.1f}"
    assert cell in texts
    mean = summary["validation"]["r2"].xs("fine-tuning", level="stage").xs("image", level="model")
    assert f"{mean.mean():.2f}" in texts
    assert "c) Bulk modulus: R² / RMSE [GPa]" in page.text("scores")
    assert "27 labels" in page.text("scores")
    assert "d) Average over targets: R²" in page.text("scores")


def test_best_cell_of_a_column_is_bold_and_shade_follows_r2(page: Page):
    cells = [cell for cell in page.cells if cell["section"] == "scores"]
    panel = cells[: len(cells) // 4]
    validation = panel[1::3]
    bold = [cell for cell in validation if "best" in (cell.get("class") or "")]
    assert len(bold) == 1 and bold[0] is validation[-1]
    for cell in cells:
        r2 = float(cell["text"].split()[0].replace("−", "-"))
        shade = float(cell["style"].removeprefix("--r2: "))
        assert shade == pytest.approx(min(max(r2, 0), 1), abs=0.006)


def test_plots_are_inline_svg(page: Page):
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert len(labels) == 3 * 2 + 3 * 2  # parity: targets × two; curves: models × stages
    assert "bulk modulus, predicted against true: image+text, fine-tuning" in labels
    assert "bulk modulus, predicted against true: density, baseline" in labels
    assert "learning curves: text, head" in labels
    assert re.search(r"validation: R² [−\d.]+, RMSE [\d.]+ GPa", page.text("parity"))
    assert re.search(r"test: R² [−\d.]+, RMSE [\d.]+ eV/atom", page.text("parity"))
    svgs = re.findall(r"<svg.*?</svg>", page.source, re.DOTALL)
    assert not any("#0072b2" in svg for svg in svgs)  # colours are the page's
    assert all("currentColor" in svg for svg in svgs)


def test_model_of_the_headline_is_drawn_if_it_is_not_the_final_one(report, thirty: Dataset):
    both = recipe(targets=TARGETS[:1])
    page = report(synthetic(thirty, both, errors=ERRORS | {"image": 0.1}), figures=True)
    assert "The best model, image after fine-tuning, has" in page.text()
    start = "formation energy, predicted against true: "
    labels = [svg["aria-label"] for svg in page.all("svg")]
    drawn = [label.removeprefix(start) for label in labels if label.startswith(start)]
    assert drawn == ["image, fine-tuning", "image+text, fine-tuning", "density, baseline"]


def test_examples_span_the_bulk_modulus(page: Page, thirty: Dataset):
    test = page.result.predictions.query("part == 'test' and target == 'bulk_modulus_vrh'")
    known = test.drop_duplicates("material_id").sort_values("true")
    text = page.text("examples")
    first, last = known.iloc[0], known.iloc[-1]
    assert text.index(first["material_id"]) < text.index(last["material_id"])
    final = test.query("model == 'image+text' and stage == 'fine-tuning'")
    mean = final[final["material_id"] == last["material_id"]]["predicted"].mean()
    assert f"bulk modulus (GPa) {last['true']:.1f} {mean:.1f}" in text
    assert f"{first['material_id']} crystallizes in <a> & cubic cell." in text
    images = page.all("img")
    shown = min(6, len(known))
    assert len(images) == 4 * shown
    assert (text.count("2 Å"), text.count("5 Å")) == (2 * shown, shown)
    assert "red: total, window 8 Å, densest plane, offset 0 d" in text
    assert "blue: difference, window 16 Å, densest plane, offset 0.5 d" in text
    assert images[0]["alt"].endswith("as the network sees it, channels of different scale")


def test_pictures_are_png_of_the_networks_size(page: Page):
    from io import BytesIO

    from PIL import Image

    pictures = []
    for image in page.all("img")[:4]:
        data = base64.b64decode(image["src"].partition(",")[2])
        pictures.append(Image.open(BytesIO(data)))
    assert [p.mode for p in pictures] == ["RGB", "P", "P", "P"]
    assert {p.size for p in pictures} == {(32, 32)}


def test_masked_labels_settings_and_sources(page: Page, thirty: Dataset):
    masked = page.text("masked")
    assert len(thirty.masked) == 2 and "2 labels" in masked
    for row in thirty.masked.itertuples():
        assert row.material_id in masked and row.reason in masked
    assert len(page.all("details")) == 1
    settings = page.text("settings")
    assert "60 (head), 15 (fine-tuning)" in settings
    assert "difference, window 8 Å, densest plane, offset 0 d" in settings
    assert thirty.fingerprint() in settings and "different data" not in settings
    assert "torch" in settings and "2.9.0" in settings
    sources = page.text("sources")
    assert "Transfer Learning in Materials Informatics" in sources and "CC BY 4.0" in sources
    links = [a["href"] for a in page.all("a")]
    assert "https://doi.org/10.1063/1.4812323" in links
    assert "https://doi.org/10.1038/sdata.2015.9" in links


def test_image_only_one_fold_one_target(report, thirty: Dataset):
    only = recipe(modality="image", targets=("bulk_modulus_vrh",))
    page = report(synthetic(thirty, only, only_folds=1), figures=True)
    assert page.text("scores").startswith("Scores In the form of the paper's Figure 2")
    everything = " ".join(page.sections.values())
    assert "±" not in everything and "nan" not in everything.lower().replace("nano", "")
    assert "Only one fold was run" in page.text()
    assert "in 3 folds. 1 fold was run." in page.text()
    assert "Average over targets" not in everything
    assert len(page.all("svg")) == 2 + 2
    assert len(page.all("img")) > 0
    assert "crystallizes" not in everything and "text backbone" not in everything
    assert "27 materials" in page.text()


def test_text_only(report, thirty: Dataset):
    page = report(
        synthetic(
            thirty,
            recipe(modality="text", text={"extent": "keywords"}, targets=TARGETS[:1]),
            only_folds=2,
        ),
        figures=True,
    )
    assert page.all("img") == []
    assert "crystallizes in <a> & cubic cell" in page.text("examples")
    assert "text “keywords”" in page.text()
    assert "image backbone" not in page.text("settings")
    assert "Scale" not in page.text("examples")
    assert "in 3 folds. 2 folds were run." in page.text()


def test_early_stopping_on_validation_is_called_optimistic(report, thirty: Dataset, page: Page):
    assert "optimistic" not in page.text() + page.text("scores")
    watched = recipe(
        training={"early_stopping": "validation"}, modality="text", targets=("efermi",)
    )
    other = report(synthetic(thirty, watched, only_folds=1))
    assert "Validation scores of the trained models are optimistic" in other.text()
    assert "optimistic" in other.text("scores")
    assert "loss monitored for early stopping (on the validation fold)" in other.text("curves")


def test_no_masked_labels_and_missing_ones(report, thirty: Dataset):
    whole = thirty[[i not in set(thirty.masked["material_id"]) for i in thirty.ids]]
    assert whole.targets["bulk_modulus_vrh"].isna().sum() == 1
    result = synthetic(whole, recipe(modality="text", targets=TARGETS[1:]), only_folds=1)
    page = report(result, whole)
    assert "No label of the dataset is masked" in page.text("masked")
    assert page.all("details") == []
    without = whole.targets.index[whole.targets["bulk_modulus_vrh"].isna()][0]
    p = result.predictions
    p.loc[(p["part"] == "test") & (p["target"] == "efermi"), "material_id"] = without
    p.drop(p.index[(p["part"] == "test") & (p["target"] != "efermi")], inplace=True)
    page = report(result, whole)
    assert "no label" in page.text("examples")
    assert "smallest to the largest Fermi energy" in page.text("examples")


def test_a_target_without_labels_in_validation(report, thirty: Dataset):
    result = synthetic(thirty, recipe(modality="text", targets=TARGETS[1:]), only_folds=1)
    p = result.predictions
    result.predictions = p[(p["target"] == "efermi") | (p["part"] == "train")]
    page = report(result, figures=True)
    assert "Bulk modulus: not validated" in page.text()
    assert "for all of the 2 targets" not in page.text()
    assert len([svg for svg in page.all("svg") if "predicted" in svg["aria-label"]]) == 2


def test_papers_grey_image_and_fourier(report, thirty: Dataset):
    grey = recipe(
        modality="image",
        targets=("efermi",),
        image={"settings": ImageSettings.paper("viridis", True, size=48)},
    )
    page = report(synthetic(thirty, grey, only_folds=1))
    examples = page.text("examples")
    assert len(page.all("img")) == examples.count("mp-") > 0  # one a material
    assert "difference, window 2 lattice scales, densest plane, offset 0 d" in examples
    assert "Å⁻¹" in examples


def test_many_points_stay_small(report, thirty: Dataset):
    result = synthetic(thirty, ONE, only_folds=1)
    p = result.predictions
    test = p[(p["part"] == "test")]
    rng = np.random.default_rng(0)
    many = test.sample(60_000, replace=True, random_state=0)
    many = many.assign(predicted=many["true"] + rng.normal(size=len(many)))
    result.predictions = pd.concat([p, many], ignore_index=True)
    page = report(result, figures=True)
    assert len(page.source) < 1_500_000
    assert any(image.get("xlink:href", "").startswith("data:") for image in page.all("image"))


def test_hostile_names_are_escaped(report, thirty: Dataset):
    result = synthetic(thirty, ONE, only_folds=1)
    result.settings["dataset"] = '<script>alert("1")</script>'
    result.settings["units"]["efermi"] = r"<b>$\no$</b>"
    page = report(result, figures=True)
    assert '<script>alert("1")</script>' in page.text()  # as text
    assert r"<b>$\no$</b>" in page.text("parity")


def test_another_dataset_is_noticed(report, thirty: Dataset):
    result = synthetic(thirty, ONE, only_folds=1)
    result.settings["dataset_sha256"] = "0" * 64
    assert "different data" in report(result).text("settings")
    with pytest.raises(RhosightError, match="no such material_id"):
        report(result, thirty[:20])


def test_unwritable_path_says_so_and_leaves_nothing(thirty: Dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("rhosight.evaluation.report._draw_svg", lambda *_: "")
    result = synthetic(thirty, ONE, only_folds=1)
    with pytest.raises(RhosightError, match=r"is not a writable folder"):
        write_report(result, thirty, tmp_path / "nowhere" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RhosightError, match=r"it is a folder"):
        write_report(result, thirty, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_numbers():
    assert format_number(-0.004, 2) == "0.00"
    assert format_number(-1.25, 1, 0.31) == "−1.2\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.3"
    assert format_number(float("nan"), 2) == "–"


def test_settings_in_words():
    assert format_setting([1e-3, 5e-4]) == "0.001 (head), 0.0005 (fine-tuning)"
    assert format_setting(True) == "yes" and format_setting(None) == "none"
    channel = Channel(kind="spin", window=2, unit="lattice", hkl=(1, -1, 0), offset=0.5)
    assert format_setting(channel.model_dump(mode="json")) == (
        "spin, window 2 lattice scales, plane (1 -1 0), offset 0.5\N{NO-BREAK SPACE}d"
    )


def test_scale_bars_are_round():
    assert _scale_bar(8.0, SMALL) == {"label": "2 Å", "share": "25.00"}
    assert _scale_bar(3.0, SMALL)["label"] == "1 Å"
    assert _scale_bar(0.5, SMALL) == {"label": "0.1 Å", "share": "20.00"}
    fourier = ImageSettings(size=160, fourier=True)
    assert _scale_bar(8.0, fourier) == {"label": "5 Å⁻¹", "share": "25.00"}  # 20 cycles per Å


def test_links_stop_at_punctuation():
    html = str(link_references("A (2013), doi:10.1063/1.4812323), <b> arXiv:2401.09301."))
    assert '<a href="https://doi.org/10.1063/1.4812323">doi:10.1063/1.4812323</a>),' in html
    assert '<a href="https://arxiv.org/abs/2401.09301">' in html and "&lt;b&gt;" in html
