"""Figures of a sweep: which values did well, and which parameters matter."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import optuna
from optuna.trial import TrialState

from .search_space import SearchSpace

logger = logging.getLogger(__name__)

RMSE = "RMSE / standard deviation"


def write_figures(study: optuna.Study, space: SearchSpace, folder: Path) -> None:
    """Write parallel-coordinates and importances, each as PNG and SVG; the latter needs trials of
    different errors."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    drawings = {
        "parallel-coordinates": lambda: plots.plot_parallel_coordinate(study, target_name=RMSE)
    }
    varied = [n for n in space.parameters if len({str(t.params[n]) for t in complete}) > 1]
    if len({trial.value for trial in complete}) > 1 and varied:
        drawings["importances"] = lambda: plots.plot_param_importances(
            study,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
            params=varied,
            target_name=RMSE,
        )
    else:
        logger.info("importances: not drawn before there are trials of different errors")
    style = pyplot.rcParams.copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, draw in drawings.items():
                axes = draw()
                figure = axes.figure
                for ending in ("png", "svg"):
                    figure.savefig(folder / f"{name}.{ending}", bbox_inches="tight", dpi=150)
                pyplot.close(figure)
    finally:
        pyplot.rcParams.update(style)
