"""Provide the scores that the paper printed, and its contradictions.

D. Massa, G. Kaszuba, S. Papanikolaou, P. Sankowski, arXiv:2401.09301. The file
``data/paper/scores.csv`` holds the cells as printed; this module says what they mean. The other
figures print no numbers: 1, 4, 5 and 8 are pictures, 3, 6 and 7 are curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from ..dataset.schema import TARGETS
from ..errors import RhosightError
from ..evaluation.html import format_number

EXHIBITS: tuple[str, ...] = ("table1", "table2", "table3", "figure2", "figure9")
"""Exhibits that print scores."""

SAMPLES = {"collected": 781, "cleaned": 592}
"""Numbers of materials before and after the paper's filter (section 2.1; Figure 3: after)."""

STANDARDISED = "standard deviations"
"""Unit of an RMSE of standardised labels."""

_STAGES = {"a": "head", "b": "fine-tuning"}  # Figure 9's columns, see CONTRADICTIONS
_PER_CELL = ["exhibit", "panel", "trial", "target", "extent", "model", "part"]


def read_scores(*exhibits: str) -> pd.DataFrame:
    """Return the printed scores, one row per cell.

    Parameters
    ----------
    exhibits
        Some of :data:`EXHIBITS`; all by default.

    Returns
    -------
    DataFrame with columns

    - ``exhibit``; ``panel``: the letter of Figures 2 and 9, else empty
    - ``trial``: "1" to "3" and "mean" in Table 1, "T1" to "T5" in Tables 2 and 3, else empty
    - ``target``: "average" in Figure 2 d; ``extent`` of the text, empty in Tables 2 and 3, which do
      not give it; ``model``; ``part``
    - ``stage``: in Figure 9 after its headings are exchanged; CLIP and Figure 2 are fine-tuned
    - ``r2``; ``rmse``, NaN where none is printed; ``rmse_unit``

    Raises
    ------
    RhosightError
        For an exhibit that prints no scores.
    """
    unknown = [name for name in exhibits if name not in EXHIBITS]
    if unknown:
        raise RhosightError(f"{unknown[0]} prints no scores; {', '.join(EXHIBITS)} do")
    table = _read_cells()
    return table[table["exhibit"].isin(exhibits or EXHIBITS)].reset_index(drop=True)


@cache
def _read_cells() -> pd.DataFrame:
    path = resources.files("rhosight") / "data" / "paper" / "scores.csv"
    texts = dict.fromkeys(_PER_CELL, str)
    with path.open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=texts, keep_default_na=False, na_values={"rmse": [""]})
    in_figure9 = table["exhibit"] == "figure9"
    stage = table["panel"].map(_STAGES).where(in_figure9, "fine-tuning")
    table.insert(list(table.columns).index("part"), "stage", stage)
    unit = table["target"].map(TARGETS).fillna("")
    standardised = table["exhibit"].isin(["table2", "table3"])
    return table.assign(rmse_unit=unit.mask(standardised, STANDARDISED))


def compute_implied_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return the standard deviation of labels, RMSE / √(1 − R²).

    All models on one set of materials imply the same value. Another value means other materials or
    another unit. (Means over folds follow the relation only approximately.)

    Parameters
    ----------
    table
        From :func:`read_scores`.

    Returns
    -------
    DataFrame with the index of ``table``: ``spread``, and ``low`` and ``high``, the bounds that the
    rounding of Table 2 (four decimals) and of all others leaves; in the unit of the RMSE.
    """
    decimals = table["exhibit"].map({"table2": 4}).fillna(2)
    half_r2 = 0.5 * 10.0**-decimals
    coarse = (table["exhibit"] == "table1") & (table["target"] == "bulk_modulus_vrh")
    half_rmse = half_r2.mask(coarse, 0.05)
    unexplained, rmse = 1 - table["r2"], table["rmse"]
    return pd.DataFrame(
        {
            "spread": rmse / np.sqrt(unexplained),
            "low": (rmse - half_rmse) / np.sqrt(unexplained + half_r2),
            "high": (rmse + half_rmse) / np.sqrt(unexplained - half_r2),
        }
    )


def format_error(error: float) -> str:
    """Return an RMSE of the paper as printed: two decimals, or one from 10 on."""
    return format_number(error, 2 if error < 10 else 1)


@dataclass(frozen=True)
class Contradiction:
    """Contradiction in the paper, or a number whose meaning it leaves open.

    Attributes
    ----------
    where
        Table, figure or section.
    what
        The contradiction.
    reading
        The interpretation used here.
    """

    where: str
    what: str
    reading: str


CONTRADICTIONS: tuple[Contradiction, ...] = (
    Contradiction(
        "Figure 9, headings",
        "Column a) has the heading “Fine-tuned”, b) “Not fine-tuned”. But b) has the values of "
        "Figure 2, which shows fine-tuned models, and is better on validation in 26 of 27 rows.",
        "The headings are exchanged: a) is the head stage, b) is after fine-tuning.",
    ),
    Contradiction(
        "Figures 2 and 9, one cell",
        "Formation energy, formula, image, test: 0.72/0.17 in Figure 2, 0.72/0.26 in Figure 9.",
        "0.26: with R² = 0.72 it implies a standard deviation of the labels of 0.49 eV/atom, as "
        "all other cells of the column do; 0.17 implies 0.32.",
    ),
    Contradiction(
        "Figures 2 and 9, last digits",
        "Three more cells differ by 0.01: formation energy, keywords, text, validation (RMSE 0.30, "
        "0.29) and all, image, validation (0.40, 0.41); Fermi energy, all, text, validation (1.38, "
        "1.39).",
        "Rounding. The values of Figure 2 are shown beside ours.",
    ),
    Contradiction(
        "Figures 2 and 9, RMSE",
        "Whenever two models have the same two-digit R², all digits of their RMSE agree. One "
        "standard deviation of the labels for each target and set turns every R² into its RMSE (80 "
        "of 81 cells of Figure 2; the exception is the 0.17 above).",
        "The RMSE were calculated from rounded R² and add no information. They are not means over "
        "folds either, which would not follow one standard deviation so exactly.",
    ),
    Contradiction(
        "Figures 2 and 9, sets",
        "The formation energies imply a standard deviation of 0.78 eV/atom in the training set, "
        "0.59 in the validation set and 0.49 in the test set. Section 3 describes five folds, over "
        "which training and validation sets contain the same materials.",
        "These figures show one split. R² of sets that differ so much cannot be compared with each "
        "other.",
    ),
    Contradiction(
        "Table 1, runs",
        "The paper does not say how runs #1 to #3 differ. The bulk moduli of their test sets have "
        "standard deviations of 70, 79 and 82 GPa, which rounding does not explain.",
        "Each run had a test set of its own: repeats draw the split again.",
    ),
    Contradiction(
        "Table 1, averages",
        "The validation RMSE of the Fermi energy, 0.89, 0.88 and 0.86, have the mean 0.88, not "
        "0.86; the test RMSE of the formation energy, 0.36, 0.24 and 0.35, have 0.32, not 0.31.",
        "The runs are shown beside ours, and their mean as printed.",
    ),
    Contradiction(
        "Tables 2 and 3, choice of T#3",
        "Table 2: T#3 has 0.85 on the validation folds, less than T#2's 0.91, but the best test "
        "score, 0.89. Table 3: T#3 is the best on the validation folds, 0.90, but has 0.68 on the "
        "test set, less than the 0.72 of T#2 and T#4. T#3 is “the selected hyperparameters set” "
        "(Figures 6 and 7).",
        "On images in viridis, the test set decided the choice of T#3, so its test score there is "
        "optimistic. Table 1 and Figures 6 and 7 use T#3 here because the paper does, whichever "
        "trial is best in our Tables 2 and 3.",
    ),
    Contradiction(
        "Tables 2 and 3, unit of RMSE",
        "No unit is given. In all ten trials, R² and RMSE of the test set imply labels with a "
        "standard deviation of 1.05 to 1.06; those of Table 1 imply 0.61 to 0.72 eV/atom.",
        "RMSE of standardised labels, as in the caption of Figure 7. They are compared with ours "
        "in standard deviations of the training labels.",
    ),
    Contradiction(
        "Figures 6 and 7, captions",
        "Both have the same caption, except for the last sentence of Figure 7: its RMSE is that of "
        "the standardised target. The text cites Figure 6 as learning curves, but not Figure 7.",
        "Figure 6 shows R², Figure 7 RMSE (of standardised labels), over epochs and folds.",
    ),
    Contradiction(
        "Section 3, reference to Figure 9",
        "“The Appendix Fig(9) and Table(3) respectively report examples of such data”: Figure 9 "
        "shows scores; the Fourier transforms are in Figure 8.",
        "Figure 8 is meant.",
    ),
    Contradiction(
        "Section 3, formation energy",
        "“It shows slight improvement as text input is added”: with the formula, image+text is "
        "below the image alone in Figure 2, on validation (0.59, 0.62) and test (0.68, 0.72).",
        "True for keywords and all, not for the formula. The answers of this report include tests.",
    ),
    Contradiction(
        "Section 2.1, kind of density",
        "Images show the “differential” charge density. The Materials Project's files contain the "
        "total density and, for spin-polarised calculations, up minus down, which pymatgen calls "
        "“diff”.",
        "The deformation density (total minus superposed free atoms), as the text describes it.",
    ),
    Contradiction(
        "Section 2.1, zero level",
        "A z-score, then a rescaling to [−1, 1], is said to preserve oscillations around the zero "
        "level. A z-score subtracts the mean, so zero density has a different grey in each image.",
        "As written: z-score, then division by the largest |z|. The normalisation “zero” preserves "
        "the zero level.",
    ),
)
"""All known contradictions; tests compare those on printed cells with the cells."""
