"""Say in a few sentences what a cross-validation shows."""

from __future__ import annotations

from typing import Any

from ..dataset.schema import TARGET_NAMES
from ..models.baselines.baselines import BASELINES, PRETRAINED
from .cross_validation import CrossValidation


def draw_conclusions(result: CrossValidation) -> list[str]:
    """Return sentences on the best models, the recipe's own, and the certainty.

    The test set decides, and models that were pre-trained on the labels do not take part.
    """
    summary = result.summary()["test"]
    sentences = []
    winners = []
    for target in result.targets:
        rows = summary.loc[target].drop(list(PRETRAINED), level="model", errors="ignore")
        model, stage = rows["rmse"].idxmin()
        row = rows.loc[(model, stage)]
        name = f"{model} {stage}".strip()
        winners.append(
            f"{name} predicts the {_name(target)} best (test R² {row['r2']:.2f}, RMSE "
            f"{row['rmse']:.2g} {result.settings['units'][target]})"
        )
    sentences.append(f"{_join(winners)}.")
    final, stage = result.final
    baseline = [name for name in BASELINES if name != "mean"]
    ahead = [t for t in result.targets if _is_ahead(summary, t, (final, stage), baseline)]
    behind = [target for target in result.targets if target not in ahead]
    verdict = [
        f"has a lower error than every baseline for the {_join([_name(t) for t in ahead])}"
    ] * bool(ahead) + [
        f"does not for the {_join([_name(t) for t in behind])}"
        if ahead
        else "has no lower error than the best baseline for any target"
    ] * bool(behind)
    sentences.append(f"{final} {' and '.join(verdict)}.")
    folds = result.predictions["fold"].nunique()
    if folds == 1:
        sentences.append("This is one fold: differences of a few per cent are chance.")
    else:
        sentences.append(f"These are means over {folds} folds; the table shows their spread.")
    return sentences


def _is_ahead(summary: Any, target: str, row: tuple[str, str], baselines: list[str]) -> bool:
    rows = summary.loc[target]
    names = [name for name in baselines if (name, "") in rows.index]
    return not names or rows.loc[row]["rmse"] < min(rows.loc[(n, "")]["rmse"] for n in names)


def _name(target: str) -> str:
    return TARGET_NAMES[target].short if target in TARGET_NAMES else target.replace("_", " ")


def _join(parts: list[str]) -> str:
    """Return a list in words."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
