"""What the paper printed: every score of its tables and figures, and where it contradicts itself.

D. Massa, G. Kaszuba, S. Papanikolaou, P. Sankowski, arXiv:2401.09301. The cells stand in
``data/paper/scores.csv`` as printed; what they mean is said here. The other figures print no
numbers: 1, 4, 5 and 8 are pictures, 3 and 6 and 7 are curves.
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
"""Those that print scores."""

SAMPLES = {"collected": 781, "cleaned": 592}
"""Materials before and after the paper's filter (section 2.1; Figure 3 shows the latter)."""

STANDARDISED = "standard deviations"
"""Unit of an RMSE of standardised labels."""

_STAGES = {"a": "head", "b": "fine-tuning"}  # Figure 9's columns, see CONTRADICTIONS
_PER_CELL = ["exhibit", "panel", "trial", "target", "extent", "model", "part"]


def cells(*exhibits: str) -> pd.DataFrame:
    """The printed scores, one row a cell.

    Parameters
    ----------
    exhibits
        Some of :data:`EXHIBITS`; all if none is named.

    Returns
    -------
    DataFrame with columns

    - ``exhibit``; ``panel``: the letter of Figures 2 and 9, else empty
    - ``trial``: "1" to "3" and "mean" in Table 1, "T1" to "T5" in Tables 2 and 3, else empty
    - ``target``: "average" in Figure 2 d; ``extent`` of the text, empty in Tables 2 and 3, which do
      not say; ``model``; ``part``
    - ``stage``: of Figure 9 after exchange of its headings; CLIP and Figure 2 are fine-tuned
    - ``r2``; ``rmse``, NaN where none is printed; ``rmse_unit``

    Raises
    ------
    RhosightError
        For an exhibit that prints no scores.
    """
    unknown = [name for name in exhibits if name not in EXHIBITS]
    if unknown:
        raise RhosightError(f"{unknown[0]} prints no scores; {', '.join(EXHIBITS)} do")
    found = _cells()
    return found[found["exhibit"].isin(exhibits or EXHIBITS)].reset_index(drop=True)


@cache
def _cells() -> pd.DataFrame:
    path = resources.files("rhosight") / "data" / "paper" / "scores.csv"
    texts = dict.fromkeys(_PER_CELL, str)
    with path.open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype=texts, keep_default_na=False, na_values={"rmse": [""]})
    in_figure9 = table["exhibit"] == "figure9"
    stage = table["panel"].map(_STAGES).where(in_figure9, "fine-tuning")
    table.insert(table.columns.get_loc("part"), "stage", stage)
    unit = table["target"].map(TARGETS).fillna("")
    standardised = table["exhibit"].isin(["table2", "table3"])
    return table.assign(rmse_unit=unit.mask(standardised, STANDARDISED))


def implied_spread(table: pd.DataFrame) -> pd.DataFrame:
    """The standard deviation of the labels that R² and RMSE imply: RMSE / √(1 − R²).

    On one set of materials all models imply the same; another value means other materials or
    another unit. (Means over folds follow it only nearly.)

    Parameters
    ----------
    table
        From :func:`cells`.

    Returns
    -------
    DataFrame with the index of ``table``: ``spread``, and ``low`` and ``high``, what the rounding
    of Tables 2 (four decimals) and of all others leaves possible; in the unit of the RMSE.
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


def as_printed(error: float) -> str:
    """An RMSE of the paper: two decimals, of ten and more one."""
    return format_number(error, 2 if error < 10 else 1)


@dataclass(frozen=True)
class Contradiction:
    """A place where the paper contradicts itself, or leaves open what its numbers are.

    Attributes
    ----------
    where
        Table, figure or section.
    what
        What does not agree.
    reading
        How it is read here.
    """

    where: str
    what: str
    reading: str


CONTRADICTIONS: tuple[Contradiction, ...] = (
    Contradiction(
        "Figure 9, headings",
        "Column a) is headed “Fine-tuned”, b) “Not fine-tuned”, but b) has the values of Figure 2, "
        "which shows fine-tuned models, and is the better one on validation in 26 of 27 rows.",
        "The headings are exchanged: a) is the head stage, b) is after fine-tuning.",
    ),
    Contradiction(
        "Figures 2 and 9, a cell",
        "Formation energy, formula, image, test: 0.72/0.17 in Figure 2, 0.72/0.26 in Figure 9.",
        "0.26: with R² = 0.72 it implies the spread of labels, 0.49 eV/atom, that all other cells "
        "of the column imply; 0.17 implies 0.32.",
    ),
    Contradiction(
        "Figures 2 and 9, last digits",
        "Three more cells differ by 0.01: formation energy, keywords, text, validation (RMSE 0.30, "
        "0.29) and all, image, validation (0.40, 0.41); Fermi energy, all, text, validation (1.38, "
        "1.39).",
        "Rounding; Figure 2 is shown beside ours.",
    ),
    Contradiction(
        "Figures 2 and 9, RMSE",
        "Wherever two models have the same two-digit R², their RMSE agree in all digits, and one "
        "spread of the labels for each target and part turns every R² into its RMSE (80 of 81 "
        "cells of Figure 2; the other is the 0.17 above).",
        "The RMSE were calculated from rounded R²: they say nothing that R² does not. Nor are they "
        "means over folds, which would not follow one spread so exactly.",
    ),
    Contradiction(
        "Figures 2 and 9, parts",
        "The spread that their formation energies imply is 0.78 eV/atom in the training part, 0.59 "
        "in validation, 0.49 in the test part. Section 3 speaks of five folds, over which training "
        "and validation parts hold the same materials.",
        "These figures show one split; R² of parts so unlike cannot be compared with each other.",
    ),
    Contradiction(
        "Table 1, runs",
        "What differs between runs #1 to #3 is not said. The bulk moduli of their test parts have "
        "spreads of 70, 79 and 82 GPa, more apart than rounding allows.",
        "Each run had a test part of its own: repeats draw the split anew.",
    ),
    Contradiction(
        "Table 1, averages",
        "The validation RMSE of the Fermi energy, 0.89, 0.88 and 0.86, have the mean 0.88, not "
        "0.86; the test RMSE of the formation energy, 0.36, 0.24 and 0.35, have 0.32, not 0.31.",
        "The runs are shown beside ours, and their mean as printed.",
    ),
    Contradiction(
        "Tables 2 and 3, choice of T#3",
        "Table 2: T#3 has 0.85 on the validation folds, below T#2's 0.91, and the best of all on "
        "the test part, 0.89. Table 3: T#3 has the best validation folds, 0.90, and 0.68 on the "
        "test part, below 0.72 of T#2 and T#4. T#3 is “the selected hyperparameters set” (Figures "
        "6 and 7).",
        "On images in viridis, T#3 was chosen by the test part, so its test score there is "
        "optimistic. Here Table 1 and Figures 6 and 7 go on with T#3 because the paper does, "
        "whichever trial does best in our Tables 2 and 3.",
    ),
    Contradiction(
        "Tables 2 and 3, unit of RMSE",
        "No unit is given. In all ten trials R² and RMSE of the test part imply labels with a "
        "spread of 1.05 to 1.06, where Table 1 has 0.61 to 0.72 eV/atom.",
        "RMSE of standardised labels, as Figure 7 says of its own; compared with ours in standard "
        "deviations of the training labels.",
    ),
    Contradiction(
        "Figures 6 and 7, captions",
        "Both have the same caption, but for the last sentence of Figure 7: its RMSE is of the "
        "standardised target. The text calls Figure 6 learning curves and never names Figure 7.",
        "Figure 6 shows R², Figure 7 RMSE (of standardised labels), over epochs and folds.",
    ),
    Contradiction(
        "Section 3, reference to Figure 9",
        "“The Appendix Fig(9) and Table(3) respectively report examples of such data”: Figure 9 "
        "holds scores; the Fourier transforms are in Figure 8.",
        "Figure 8 is meant.",
    ),
    Contradiction(
        "Section 3, formation energy",
        "“It shows slight improvement as text input is added”: with the formula, image+text is "
        "below the image alone in Figure 2, on validation (0.59, 0.62) and test (0.68, 0.72).",
        "True of keywords and all, not of the formula; the answers of this report come with tests.",
    ),
    Contradiction(
        "Section 2.1, kind of density",
        "Images are of the “differential” charge density. The Materials Project's files hold the "
        "total density and, where spin-polarised, up minus down, which pymatgen names “diff”.",
        "The deformation density (total minus superposed free atoms), as the text describes it.",
    ),
    Contradiction(
        "Section 2.1, zero level",
        "A z-score, then a rescaling to [−1, 1], is said to preserve oscillations around the zero "
        "level. A z-score takes the mean away, so zero density is another grey in each image.",
        "As written: z-score, then division by the largest |z|. The normalisation “zero” keeps "
        "the zero level.",
    ),
)
"""All that were found; each is checked against the printed cells where it speaks of them."""
