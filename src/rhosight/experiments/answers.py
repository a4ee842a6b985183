"""The questions that the paper leaves open, answered from the scores of many runs.

Does text help the image, does the image help the text, does either help a model of the
composition? And what do fine-tuning and more text bring? Each is a set of pairs of models on the
same folds; each pair is tested (:func:`rhosight.evaluation.statistics.compare`), p values are corrected over
all pairs and targets of a question, and what the test does not show is called uncertain.
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
from .scores import EXTENTS, checked, row_name

ALPHA = 0.05

SMALL = 0.05
"""A gain of a smaller share of the RMSE is none that matters."""

COMPOSITION = "composition"  # the baseline that knows elements and cell, not the density

Verdict = Literal[
    "yes", "partly", "it depends", "partly worse", "worse", "no", "uncertain", "not run"
]
Pair = tuple[str, str, str]  # short name; keys of the model with what may help, and without


@dataclass(frozen=True)
class Question:
    """What is asked of each target.

    Attributes
    ----------
    name, words
        Short, and as a question.
    better, worse
        How it is said that pairs differ; their names follow.
    """

    name: str
    words: str
    better: str = "Yes"
    worse: str = "It does harm"


QUESTIONS: tuple[Question, ...] = (
    Question("text helps image", "Does the text help the image?"),
    Question("image helps text", "Does the image help the text?"),
    Question("either helps composition", "Does either help a composition model?"),
    Question(
        "better than composition",
        "Is any better than a composition model by itself?",
        worse="Worse",
    ),
    Question("fine-tuning helps", "Does fine-tuning help?"),
    Question(
        "joint fine-tuning helps",
        "Does fine-tuning both together help further?",  # each was fine-tuned by itself before
    ),
    Question("more text helps", "Does more text help?"),
)


@dataclass(frozen=True)
class Answer:
    """One question, answered for one target.

    Attributes
    ----------
    target, question
        Which.
    verdict
        "yes" or "worse" if all pairs survive the test that way; "partly" or "partly worse" if some
        do and the others show nothing; "it depends" if some do each way; if none does, "no" where
        the intervals of all leave room for gains below :data:`SMALL` only, and "uncertain"
        elsewhere; "not run" if there is no pair.
    text
        The answer in a sentence or two, numbers included.
    comparisons
        One row a pair: ``case``, its short name, and the columns of
        :func:`rhosight.evaluation.statistics.compare`, where ``model`` is the one with what may help;
        ``worse``; ``p_holm`` is corrected over all pairs and targets of the question, and so are
        the intervals (Bonferroni).
    """

    target: str
    question: Question
    verdict: Verdict
    text: str
    comparisons: pd.DataFrame


def answer(
    predictions: pd.DataFrame, units: dict[str, str], alpha: float = ALPHA
) -> dict[str, list[Answer]]:
    """Answers for each target, from out-of-fold predictions.

    Parameters
    ----------
    predictions
        With :data:`rhosight.experiments.scores.COLUMNS`; the validation part counts, in which every
        material is predicted once in each repeat by a model that has not learned from it. If the
        training part is there, too, tests know its size though not all folds were run.
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
        If a column is missing, or there is no validation part.
    """
    held_out = checked(predictions)
    ratio = _validation_over_training(predictions)
    held_out = held_out[held_out["part"] == "validation"]
    if held_out.empty:
        raise RhosightError("predictions: no validation part; run the cross-validation first")
    # numbers are sorted and compared faster than names
    numbered = pd.factorize(held_out["material_id"])[0]
    held_out = held_out.assign(model=_keys(held_out), material_id=numbered)
    held_out = held_out[list(PREDICTION_COLUMNS)]
    targets = list(held_out["target"].unique())
    found: dict[str, list[Answer]] = {target: [] for target in targets}
    for question, pairs in zip(QUESTIONS, _PAIRS, strict=True):
        table = _compared(
            held_out, pairs, question.name == "either helps composition", alpha, ratio
        )
        for target in targets:
            mine = table[table["target"] == target] if len(table) else table
            found[target].append(_said(target, question, mine, units.get(target, "")))
    return found


def _validation_over_training(predictions: pd.DataFrame) -> float | None:
    """Materials of a validation part over those that its models learned from, if they are there."""
    keys = ["model", "extent", "stage", "target", "repeat", "fold"]
    counts = predictions.groupby([*keys, "part"]).size().unstack("part")
    if not {"train", "validation"} <= set(counts):
        return None
    return float((counts["validation"] / counts["train"]).mean())


def _keys(table: pd.DataFrame) -> pd.Series:
    """model|extent|stage: the name of a model in tests."""
    return table["model"] + "|" + table["extent"] + "|" + table["stage"]


def _key(model: str, extent: str = "", stage: str = "fine-tuning") -> str:
    return f"{model}|{extent}|{stage}"


def _image(there: set[str], extent: str) -> str:
    """The image model beside a text's extent: trained anew for it, or once for all."""
    own = _key("image", extent)
    return own if own in there else _key("image")


_WITH = {
    "formula": "with the formula",
    "keywords": "with keywords",
    "all": "with the whole text",
}  # extent → how a case of it is called


def _text_helps_image(there: set[str]) -> Iterator[Pair]:
    for extent in EXTENTS:
        yield _WITH[extent], _key("image+text", extent), _image(there, extent)


def _image_helps_text(there: set[str]) -> Iterator[Pair]:
    for extent in EXTENTS:
        yield _WITH[extent], _key("image+text", extent), _key("text", extent)


def _against_composition(there: set[str]) -> Iterator[Pair]:
    networks = [_key("image")] if _key("image") in there else [_key("image", e) for e in EXTENTS]
    networks += [_key(model, extent) for model in ("text", "image+text") for extent in EXTENTS]
    for network in networks:
        yield row_name(*network.split("|")), network, _key(COMPOSITION, stage="")


def _fine_tuning_helps(there: set[str]) -> Iterator[Pair]:
    for model in ("image", "text"):
        for extent in ("", *EXTENTS):
            name = row_name(model, extent, "")
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
)  # of QUESTIONS


def _compared(
    predictions: pd.DataFrame,
    pairs: Callable[[set[str]], Iterator[Pair]],
    blended: bool,
    alpha: float,
    ratio: float | None,
) -> pd.DataFrame:
    """All pairs that were run, tested on all targets, corrected together."""
    there = set(predictions["model"].unique())
    models = dict(tuple(predictions.groupby("model", sort=False)))
    found = []
    for case, a, b in pairs(there):
        if a not in there or b not in there:
            continue
        mine, other = models[a], models[b]
        common = sorted(set(mine["target"]) & set(other["target"]))
        mine, other = (table[table["target"].isin(common)] for table in (mine, other))
        if not common or mine.groupby("target")["fold"].nunique().min() < 2:
            continue
        if blended:
            mine = blend(mine, other)
        table = compare(pd.concat([mine, other]), a, b, alpha, ratio).reset_index()
        names = {"model": row_name(*a.split("|")), "baseline": row_name(*b.split("|"))}
        if blended:
            names["model"] = f"{names['baseline']} blended with {names['model']}"
        found.append(table.assign(case=case, **names))
    if not found:
        return pd.DataFrame()
    table = pd.concat(found, ignore_index=True)
    # intervals that hold together (Bonferroni): no pair that is uncertain has one without zero
    freedom = table["folds"] - 1
    wider = student.ppf(1 - alpha / 2 / len(table), freedom) / student.ppf(1 - alpha / 2, freedom)
    half = wider * (table["high"] - table["low"]) / 2
    table["low"], table["high"] = table["difference"] - half, table["difference"] + half
    corrected = holm(table["p"].to_numpy(dtype=float))
    better = (corrected < alpha) & (table["difference"] < 0)
    worse = (corrected < alpha) & (table["difference"] > 0)
    return table.assign(p_holm=corrected, better=better, worse=worse)


def blend(network: pd.DataFrame, composition: pd.DataFrame) -> pd.DataFrame:
    """Predictions of w · network + (1 − w) · composition, w between 0 and 1.

    Whether a model knows what another does not: stacking (Breiman, Mach. Learn. 24, 49 (1996),
    doi:10.1007/BF00117832). The w of a fold has the least squared error on the other folds of its
    repeat, so a fold's labels do not choose its own w; it may still be 0.
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


def _said(target: str, question: Question, table: pd.DataFrame, unit: str) -> Answer:
    if table.empty:
        return Answer(target, question, "not run", "Not run, or in one fold only.", table)
    table = table.reset_index(drop=True)
    better, worse = table[table["better"]], table[table["worse"]]
    rest = table[~(table["better"] | table["worse"])]
    parts = [(question.better, better), (question.worse, worse)]
    sentences = [f"{start}: {_cases(rows, unit)}." for start, rows in parts if len(rows)]
    verdict = _verdict(better, worse, rest)
    if len(rest):
        start = f"No difference that {int(table['folds'].min())} folds can show"
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
    """The pairs by their short names, the largest difference first; of that one, if there is a
    unit, the errors.
    """
    rows = rows.reindex(rows["relative"].abs().sort_values(ascending=False).index)
    said = []
    for row in rows.itertuples():
        numbers = format_percent(row.relative)
        if unit and not said:
            errors = f"RMSE {format_significant(row.baseline_rmse)} → {format_significant(row.rmse)} {unit}"
            numbers = f"{errors}, {numbers}"
        said.append(f"{row.case} ({numbers})")
    return "; ".join(said)
