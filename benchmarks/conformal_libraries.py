"""Compare conformal intervals and Holm correction with other libraries.

    pip install crepes mapie statsmodels; python benchmarks/conformal_libraries.py

The libraries are crepes, MAPIE and statsmodels. The script compares plain and normalised intervals,
CV+ with the same folds, and corrected p-values. It prints the largest difference from rhosight and
the ratio of the times. Labels of one target are missing, as in `mp-fcc`.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict

from rhosight.evaluation.statistics import holm
from rhosight.models.uncertainty import ConformalIntervals, cv_plus


def timed(function: Callable) -> tuple[np.ndarray, float]:
    """Return the result and the shortest time in seconds."""
    return np.asarray(function()), min(timeit.repeat(function, number=20, repeat=5)) / 20


def report(what: str, ours: Callable, theirs: Callable) -> None:
    (a, own), (b, other) = timed(ours), timed(theirs)
    print(f"{what}: largest difference {np.nanmax(np.abs(a - b)):.2g}, time ×{other / own:.2g}")


def main() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=344), rng.normal(size=344) * 0.1
    std, new, new_std = rng.uniform(0.5, 2, 344), rng.normal(size=61), rng.uniform(0.5, 2, 61)
    true[::9] = np.nan
    known = ~np.isnan(true)

    from crepes import ConformalRegressor

    def crepes(sigmas, new_sigmas):
        # crepes has no missing labels, minimum standard deviation or JSON state
        model = ConformalRegressor().fit((true - predicted)[known], sigmas=sigmas)
        return model.predict_int(new, sigmas=new_sigmas, confidence=0.9)

    def plain():
        return np.column_stack(ConformalIntervals.fit(true, predicted)(new))

    def scaled():
        return np.column_stack(ConformalIntervals.fit(true, predicted, std)(new, new_std))

    report("plain intervals, crepes", plain, lambda: crepes(None, None))
    report("normalised intervals, crepes", scaled, lambda: crepes(std[known], new_std))

    from mapie.regression import CrossConformalRegressor

    x, x_new = rng.normal(size=(300, 5)), rng.normal(size=(61, 5))
    y = x.sum(axis=1) + rng.normal(size=300)
    folds = KFold(5)

    def ours():
        fold = np.concatenate([np.full(len(test), k) for k, (_, test) in enumerate(folds.split(x))])
        residuals = np.abs(y - cross_val_predict(Ridge(), x, y, cv=folds))
        each = [Ridge().fit(x[train], y[train]).predict(x_new) for train, _ in folds.split(x)]
        return np.column_stack(cv_plus(np.column_stack(each), residuals, fold))

    def mapie():
        model = CrossConformalRegressor(Ridge(), confidence_level=0.9, cv=folds, method="plus")
        return model.fit_conformalize(x, y).predict_interval(x_new)[1][:, :, 0]

    report("CV+, MAPIE", ours, mapie)

    from statsmodels.stats.multitest import multipletests

    p = rng.uniform(size=3) * 0.05
    report("Holm, statsmodels", lambda: holm(p), lambda: multipletests(p, method="holm")[1])


if __name__ == "__main__":
    main()
