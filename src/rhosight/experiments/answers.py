"""Answer the questions that the paper leaves open, from many runs.

Does the text help the image, does the image help the text, does either help a model of the
composition? And how much do fine-tuning and more text help? Each question is a set of pairs of
models on the same folds. Each pair is tested (:func:`rhosight.evaluation.statistics.compare`), and
p values are corrected over all pairs and targets of a question. A difference that the test does not
show is called uncertain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy.stats import t as student

from ..errors import RhosightError
from ..evaluation.html import NBSP, format_percent, format_significant
from ..evaluation.statistics import PREDICTION_COLUMNS, compare, holm
from ..inputs.text.extents import EXTENTS
from .scores import name_row, require_columns

ALPHA = 0.05
"""Default level of significance."""

SMALL = 0.05
"""Share of the RMSE below which a gain does not matter."""

COMPOSITION = "composition"
"""Baseline that reads elements and cell, but not the density."""

Verdict = Literal[
    "yes", "partly", "it depends", "partly worse", "worse", "no", "uncertain", "not run"
]
Pair = tuple[str, str, str]
"""Short name, key of the model with the addition, key of the model without it."""


@dataclass(frozen=True)
class Question:
    """Question that is answered for each target.

    Attributes
    ----------
    name, words
        Short name, and the question in words.
    better, worse
        Beginning of the sentences on pairs that differ; their names follow.
    """

    name: str
    words: str
    better: str = "Yes"
    worse: str = "It is harmful"


QUESTIONS: tuple[Question, ...] = (
    Question("text helps image", "Does the text help the image?"),
    Question("image helps text", "Does the image help the text?"),
    Question("either helps composition", "Does either help a composition model?"),
    Question(
        "better than composition",
        "Is any better than a composition model on its own?",
        worse="Worse",
    ),
    Question("fine-tuning helps", "Does fine-tuning help?"),
    Question(
        "joint fine-tuning helps",
        "Does fine-tuning both together help further?",  # each was fine-tuned on its own before
    ),
    Question("more text helps", "Does more text help?"),
)


@dataclass(frozen=True)
class Answer:
    """Answer to one question for one target.

    Attributes
    ----------
    target, question
        Target and question.
    verdict
        "yes" or "worse" if all pairs differ significantly in that direction; "partly" or "partly
        worse" if some do and the others do not differ; "it depends" if there are some in each
        direction. If none differs: "no" where the intervals of all pairs allow only gains below
        :data:`SMALL`, "uncertain" otherwise. "not run" if there is no pair.
    text
        The answer in a sentence or two, with numbers.
    comparisons
        One row per pair: ``case``, its short name, and the columns of
        :func:`rhosight.evaluation.statistics.compare`, where ``model`` is the one with the
        addition; ``worse``. ``p_holm`` is corrected over all pairs and targets of the question, and
        so are the intervals (Bonferroni).
    """

    target: str
    question: Question
    verdict: Verdict
    text: str
    comparisons: pd.DataFrame


def answer(
    predictions: pd.DataFrame, units: dict[str, str], alpha: float = ALPHA
) -> dict[str, list[Answer]]:
    """Answer all questions for each target, from out-of-fold predictions.

    Parameters
    ----------
    predictions
        Table with :data:`rhosight.experiments.scores.COLUMNS`. Only the validation sets are
        compared: each repeat predicts every material once, with a model that was not trained on
        it. If the training sets are included too, tests use their size even if not all folds
        were run.
    units
        Target → unit.
    alpha
        Level of significance, after correction by Holm's method over all pairs and targets of one
        question.

    Returns
    -------
    Target → one answer for each of :data:`QUESTIONS`.

    Raises
    ------
    RhosightError
        If a column is missing, or there is no validation set.
    """
    require_columns(predictions)
    held_out = predictions
    ratio = _validation_over_training(predictions)
    held_out = held_out[held_out["part"] == "validation"]
    if held_out.empty:
        raise RhosightError("predictions: no validation set; run the cross-validation first")
    # numbers are faster to sort and compare than names
    numbered = pd.factorize(held_out["material_id"])[0]
    held_out = held_out.assign(model=_model_keys(held_out), material_id=numbered)
    held_out = held_out[list(PREDICTION_COLUMNS)]
    targets = list(held_out["target"].unique())
    answers: dict[str, list[Answer]] = {target: [] for target in targets}
    for question, pairs in zip(QUESTIONS, _PAIRS, strict=True):
        is_blended = question.name == "either helps composition"
        table = _compare_pairs(held_out, pairs, is_blended, alpha, ratio)
        for target in targets:
            mine = table[table["target"] == target] if len(table) else table
            answers[target].append(_phrase(target, question, mine, units.get(target, "")))
    return answers


def _validation_over_training(predictions: pd.DataFrame) -> float | None:
    """Return the ratio of validation to training materials, if both are there."""
    keys = ["model", "extent", "stage", "target", "repeat", "fold"]
    counts = predictions.groupby([*keys, "part"]).size().unstack("part")
    if not {"train", "validation"} <= set(counts):
        return None
    return float((counts["validation"] / counts["train"]).mean())


def _model_keys(table: pd.DataFrame) -> pd.Series:
    """Return model|extent|stage, the name of a model in tests."""
    return table["model"] + "|" + table["extent"] + "|" + table["stage"]


def _key(model: str, extent: str = "", stage: str = "fine-tuning") -> str:
    return f"{model}|{extent}|{stage}"


def _image_key(there: set[str], extent: str) -> str:
    """Return the image model for an extent, or the one for all extents."""
    own = _key("image", extent)
    return own if own in there else _key("image")


_WITH = {
    "formula": "with the formula",
    "keywords": "with keywords",
    "all": "with the whole text",
}  # extent → name of its case


def _text_helps_image(there: set[str]) -> Iterator[Pair]:
    for extent in EXTENTS:
        yield _WITH[extent], _key("image+text", extent), _image_key(there, extent)
    yield "Gaussian processes", _key("gp-image+text", stage=""), _key("gp-image", stage="")


def _image_helps_text(there: set[str]) -> Iterator[Pair]:
    for extent in EXTENTS:
        yield _WITH[extent], _key("image+text", extent), _key("text", extent)
    yield "Gaussian processes", _key("gp-image+text", stage=""), _key("gp-text", stage="")


def _against_composition(there: set[str]) -> Iterator[Pair]:
    networks = [_key("image")] if _key("image") in there else [_key("image", e) for e in EXTENTS]
    networks += [_key(model, extent) for model in ("text", "image+text") for extent in EXTENTS]
    networks += [_key(name, stage="") for name in ("gp-image", "gp-text", "gp-image+text")]
    for network in networks:
        yield _name_row(network), network, _key(COMPOSITION, stage="")


def _fine_tuning_helps(there: set[str]) -> Iterator[Pair]:
    for model in ("image", "text"):
        for extent in ("", *EXTENTS):
            name = name_row(model, extent, "")
            yield name, _key(model, extent), _key(model, extent, "head")


def _joint_fine_tuning_helps(there: set[str]) -> Iterator[Pair]:
    for extent in EXTENTS:
        model = "image+text"
        yield _WITH[extent], _key(model, extent), _key(model, extent, "head")


def _more_text_helps(there: set[str]) -> Iterator[Pair]:
    for model in ("text", "image+text"):
        for less, more in (("formula", "keywords"), ("keywords", "all"), ("formula", "all")):
            yield f"{model}, {more} over {less}", _key(model, more), _key(model, less)


_PAIRS: tuple[Callable[[set[str]], Iterator[Pair]], ...] = (
    _text_helps_image,
    _image_helps_text,
    _against_composition,
    _against_composition,
    _fine_tuning_helps,
    _joint_fine_tuning_helps,
    _more_text_helps,
)  # in the order of QUESTIONS


def _compare_pairs(
    predictions: pd.DataFrame,
    pairs: Callable[[set[str]], Iterator[Pair]],
    is_blended: bool,
    alpha: float,
    ratio: float | None,
) -> pd.DataFrame:
    """Test all pairs that were run on all targets, and correct them together."""
    there = set(predictions["model"].unique())
    models = dict(tuple(predictions.groupby("model", sort=False)))
    tables = []
    for case, a, b in pairs(there):
        if a not in there or b not in there:
            continue
        mine, other = models[a], models[b]
        common = sorted(set(mine["target"]) & set(other["target"]))
        mine, other = (table[table["target"].isin(common)] for table in (mine, other))
        if not common or mine.groupby("target")["fold"].nunique().min() < 2:
            continue
        if is_blended:
            mine = blend(mine, other)
        table = compare(pd.concat([mine, other]), a, b, alpha, ratio).reset_index()
        names = {"model": _name_row(a), "baseline": _name_row(b)}
        if is_blended:
            names["model"] = f"{names['baseline']} blended with {names['model']}"
        tables.append(table.assign(case=case, **names))
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    # simultaneous intervals (Bonferroni): those of all uncertain pairs contain zero
    freedom = table["folds"] - 1
    wider = student.ppf(1 - alpha / 2 / len(table), freedom) / student.ppf(1 - alpha / 2, freedom)
    half = wider * (table["high"] - table["low"]) / 2
    table["low"], table["high"] = table["difference"] - half, table["difference"] + half
    corrected = holm(table["p"].to_numpy(dtype=float))
    better = (corrected < alpha) & (table["difference"] < 0)
    worse = (corrected < alpha) & (table["difference"] > 0)
    return table.assign(p_holm=corrected, better=better, worse=worse)


def _name_row(key: str) -> str:
    model, extent, stage = key.split("|")
    return name_row(model, extent, stage)


def blend(network: pd.DataFrame, composition: pd.DataFrame) -> pd.DataFrame:
    """Blend predictions, w · network + (1 − w) · composition, 0 ≤ w ≤ 1.

    The blend shows whether a model has information that the other lacks: stacking (Breiman, Mach.
    Learn. 24, 49 (1996), doi:10.1007/BF00117832). The w of a fold minimises the squared error on
    the other folds of its repeat, so the labels of a fold do not choose its own w. It may be 0.
    """
    keys = ["target", "repeat", "fold", "material_id"]
    other = composition[[*keys, "predicted"]].rename(columns={"predicted": "other"})
    table = network.merge(other, on=keys, how="left", validate="one_to_one")
    step = table["predicted"] - table["other"]
    error = table["true"] - table["other"]
    table = table.assign(product=step * error, square=step**2)
    sums = ["product", "square"]
    folds = table.groupby(["target", "repeat", "fold"])[sums].sum()
    others = folds.groupby(["target", "repeat"])[sums].transform("sum") - folds
    weight = (others["product"] / others["square"].where(others["square"] > 0)).clip(0, 1).fillna(0)
    weights = table[["target", "repeat", "fold"]].join(
        weight.rename("weight"), on=["target", "repeat", "fold"]
    )["weight"]
    return network.assign(predicted=(table["other"] + weights * step).to_numpy())


def _phrase(target: str, question: Question, table: pd.DataFrame, unit: str) -> Answer:
    """Write the answer to a question in words."""
    if table.empty:
        return Answer(target, question, "not run", "Not run, or run in one fold only.", table)
    table = table.reset_index(drop=True)
    better, worse = table[table["better"]], table[table["worse"]]
    rest = table[~(table["better"] | table["worse"])]
    parts = [(question.better, better), (question.worse, worse)]
    sentences = [f"{start}: {_cases(rows, unit)}." for start, rows in parts if len(rows)]
    verdict = _verdict(better, worse, rest)
    if len(rest):
        start = f"No significant difference in {int(table['folds'].min())} folds"
        if verdict == "no":
            start = f"No gain of {100 * SMALL:.0f}{NBSP}% or more"
        low, high = (rest[end] / rest["baseline_rmse"] for end in ("low", "high"))
        reach = f"from {format_percent(low.min())} to {format_percent(high.max())}"
        intervals = "intervals" if len(rest) > 1 else "interval"
        sentences.append(f"{start}: {_cases(rest)}; {intervals} {reach}.")
    return Answer(target, question, verdict, " ".join(sentences), table)


def _verdict(better: pd.DataFrame, worse: pd.DataFrame, rest: pd.DataFrame) -> Verdict:
    if len(better) and len(worse):
        return "it depends"
    if len(better):
        return "partly" if len(rest) else "yes"
    if len(worse):
        return "partly worse" if len(rest) else "worse"
    return "no" if (rest["low"] > -SMALL * rest["baseline_rmse"]).all() else "uncertain"


def _cases(rows: pd.DataFrame, unit: str = "") -> str:
    """List the pairs by their short names, the largest difference first.

    With a unit, add the errors of that first one.
    """
    rows = rows.reindex(rows["relative"].abs().sort_values(ascending=False).index)
    cases: list[str] = []
    for row in rows.to_dict("records"):
        numbers = format_percent(row["relative"])
        if unit and not cases:
            before, after = (format_significant(row[name]) for name in ("baseline_rmse", "rmse"))
            numbers = f"RMSE {before} → {after} {unit}, {numbers}"
        cases.append(f"{row['case']} ({numbers})")
    return "; ".join(cases)
