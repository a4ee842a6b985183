"""Draw the trials of a sweep and the importances of its parameters."""

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

from ...density.drawing import BLUE
from .space import SearchSpace

logger = logging.getLogger(__name__)


def write_figures(study: optuna.Study, space: SearchSpace, folder: Path) -> None:
    """Write the figures parallel-coordinates and importances, each as PNG and SVG.

    The importances require complete trials with different errors. Until there are such trials, only
    the first figure is written.
    """
    complete = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    varied = [n for n in space.parameters if len({trial.params[n] for trial in complete}) > 1]
    # Optuna draws with pyplot and sets its own style
    with warnings.catch_warnings(), pyplot.rc_context():
        warnings.simplefilter("ignore")
        _save(
            _draw_parallel_coordinates(study, len(space.parameters)),
            folder / "parallel-coordinates",
        )
        if varied and len({trial.value for trial in complete}) > 1:
            _save(_draw_importances(study, varied), folder / "importances")
        else:
            logger.info("importances will be drawn when trials with different errors are complete")


def _draw_parallel_coordinates(study: optuna.Study, parameters: int) -> Figure:
    """Draw the complete trials over their parameters."""
    axes = plots.plot_parallel_coordinate(study, target_name="RMSE / σ")
    axes.set_title("Complete trials; darker lines have a lower error")
    for lines in axes.collections:
        lines.set_cmap("viridis")
    figure = axes.get_figure(root=True)
    assert figure is not None
    for other in figure.axes:
        if other.get_yscale() == "log":
            other.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            other.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            other.yaxis.set_minor_formatter(NullFormatter())
    figure.set_size_inches(3 + 1.8 * parameters, 5)
    return figure


def _draw_importances(study: optuna.Study, varied: list[str]) -> Figure:
    """Draw the share of each varied parameter in the variance of the error."""
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    axes = plots.plot_param_importances(study, evaluator=evaluator, params=varied)
    axes.set_title("Importance of the parameters for the error", loc="left")
    axes.set(xlabel="share of the error's variance (fANOVA)", ylabel="")
    legend = axes.get_legend()
    assert legend is not None, "Optuna draws a legend"
    legend.remove()
    for bar in axes.patches:
        bar.set_facecolor(BLUE)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _save(figure: Figure, stem: Path) -> None:
    for ending in ("png", "svg"):
        figure.savefig(stem.with_suffix(f".{ending}"), bbox_inches="tight", dpi=150)
    pyplot.close(figure)
