"""Figures of a sweep: which values did well, and which parameters matter."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import optuna
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from ...inputs.drawing import BLUE
from .space import SearchSpace

logger = logging.getLogger(__name__)


def write_figures(study: optuna.Study, space: SearchSpace, folder: Path) -> None:
    """Write parallel-coordinates and importances, each as PNG and SVG.

    The importances need complete trials of different errors, and are left out before.
    """
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    varied = [n for n in space.parameters if len({trial.params[n] for trial in complete}) > 1]
    # Optuna draws with pyplot, in a style of its own
    with warnings.catch_warnings(), pyplot.rc_context():
        warnings.simplefilter("ignore")
        _save(_parallel(study, len(space.parameters)), folder / "parallel-coordinates")
        if varied and len({trial.value for trial in complete}) > 1:
            _save(_importances(study, varied), folder / "importances")
        else:
            logger.info("importances are drawn once there are trials of different errors")


def _parallel(study: optuna.Study, parameters: int) -> Figure:
    axes = plots.plot_parallel_coordinate(study, target_name="RMSE / σ")
    axes.set_title("Complete trials: the darker, the lower the error")
    for lines in axes.collections:
        lines.set_cmap("viridis")
    for other in axes.figure.axes:
        if other.get_yscale() == "log":
            other.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            other.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            other.yaxis.set_minor_formatter(NullFormatter())
    axes.figure.set_size_inches(3 + 1.8 * parameters, 5)
    return axes.figure


def _importances(study: optuna.Study, varied: list[str]) -> Figure:
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    axes = plots.plot_param_importances(study, evaluator=evaluator, params=varied)
    axes.set_title("What the error depends on", loc="left")
    axes.set(xlabel="share of its variance (fANOVA)", ylabel="")
    axes.get_legend().remove()
    for bar in axes.patches:
        bar.set_facecolor(BLUE)
    return axes.figure


def _save(figure: Figure, stem: Path) -> None:
    for ending in ("png", "svg"):
        figure.savefig(stem.with_suffix(f".{ending}"), bbox_inches="tight", dpi=150)
    pyplot.close(figure)
