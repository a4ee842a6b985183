"""Say in a few sentences what a cross-validation shows."""

from __future__ import annotations

from typing import Any

from ..models.baselines.baselines import BASELINES, COMPARED
from ..models.gaussian_process.recipe import POTENTIAL_RECIPES
from .cross_validation import CrossValidation
from .html import describe_target


def draw_conclusions(result: CrossValidation) -> list[str]:
    """Return sentences on the best models, the recipe's own, and the certainty.

    The test set decides, and models that were pre-trained on the labels do not take part.
    """
    summary = result.summary()["test"]
    sentences = []
    winners = []
    for target in result.targets:
        pretrained = [*COMPARED, *POTENTIAL_RECIPES]
        rows = summary.loc[target].drop(pretrained, level="model", errors="ignore")
        model, stage = rows["rmse"].idxmin()
        row = rows.loc[(model, stage)]
        name = f"{model} {stage}".strip()
        winners.append(
            f"{name} predicts the {describe_target(target)} best (test R² {row['r2']:.2f}, RMSE "
            f"{row['rmse']:.2g} {result.settings['units'][target]})"
        )
    sentences.append(f"{_join(winners)}.")
    sentences.append(_compare_with_baselines(result, summary))
    folds = result.predictions["fold"].nunique()
    if folds == 1:
        sentences.append("This is one fold: differences of a few per cent are chance.")
    else:
        sentences.append(f"These are means over {folds} folds; the table shows their spread.")
    return sentences


def _compare_with_baselines(result: CrossValidation, summary: Any) -> str:
    """Return the sentence on the recipe's own model."""
    baselines = [name for name in BASELINES if name != "mean"]
    ahead: list[str] = []
    behind: list[str] = []
    for target in result.targets:
        is_ahead = _is_ahead(summary, target, result.final, baselines)
        (ahead if is_ahead else behind).append(describe_target(target))
    name = result.final[0]
    if not ahead:
        return f"{name} has no lower error than the best baseline for any target."
    verdict = f"{name} has a lower error than every baseline for the {_join(ahead)}"
    return f"{verdict} and does not for the {_join(behind)}." if behind else f"{verdict}."


def _is_ahead(summary: Any, target: str, row: tuple[str, str], baselines: list[str]) -> bool:
    rows = summary.loc[target]
    names = [name for name in baselines if (name, "") in rows.index]
    return not names or rows.loc[row]["rmse"] < min(rows.loc[(n, "")]["rmse"] for n in names)


def _join(parts: list[str]) -> str:
    """Return a list in words."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
