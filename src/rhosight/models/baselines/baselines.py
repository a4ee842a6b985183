"""The simple models that every learned score is shown beside.

- ``mean``: the mean of the training labels
- ``composition``: Magpie statistics of the elements, volume per atom, size of the cell, prototype
- ``promolecule``: statistics over the cell of the superposition of free atoms; needs no SCF
- ``density``: statistics over the cell of the SCF density, `total` and `difference`
- ``promolecule+composition``, ``density+composition``: both side by side
- ``chgnet``, ``chgnet+composition``: the embedding of a pre-trained graph network, which is shown
  but never counts as the baseline to beat, see :mod:`rhosight.models.baselines.chgnet`

All but the first come in three forms. The bare name is extremely randomised trees (Geurts et al.,
Mach. Learn. 63, 3 (2006), doi:10.1007/s10994-006-6226-1) with fixed settings; ``-kernel`` is a
Gaussian process with an RBF kernel, whose hyper-parameters maximise the marginal likelihood of the
training part (Rasmussen & Williams, Gaussian Processes for Machine Learning, MIT Press 2006,
section 5.4.1); ``-average`` is the mean of both predictions. Nothing here is tuned on scored
materials. Features know nothing of the labels and do not depend on the cell in which a crystal is
stored; what is learned, the set of prototypes included, is learned in ``fit``, from the training
part only.

>>> X = baseline_features("density", densities)
>>> make_baseline("density", seed=0).fit(X.iloc[train], y[train]).predict(X.iloc[test])
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from math import gcd
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import spglib
from pymatgen.core import Composition, Structure

from ...density.charge_density import ChargeDensity
from ...errors import RhosightError
from .chgnet import chgnet_features

if TYPE_CHECKING:
    from sklearn.base import RegressorMixin

BASELINES: tuple[str, ...] = ("mean", "composition", "promolecule", "density")
"""Names of the baselines that every table shows, from the one that knows least."""

INPUTS: tuple[str, ...] = (
    "composition",
    "promolecule",
    "density",
    "promolecule+composition",
    "density+composition",
)
"""What a baseline can be shown of a material."""

ALL_BASELINES: tuple[str, ...] = (
    "mean",
    *(f"{inputs}{form}" for inputs in INPUTS for form in ("", "-kernel", "-average")),
)
"""Names of all baselines, :data:`BASELINES` among them."""

PRETRAINED: tuple[str, ...] = ("chgnet", "chgnet+composition")
"""What needs the optional package chgnet; with the three forms of the others. Not among
:data:`ALL_BASELINES`, hence no candidate of :func:`strongest`: its pre-training saw energies of the
Materials Project."""

_KNOWN: tuple[str, ...] = (
    *ALL_BASELINES,
    *(f"{inputs}{form}" for inputs in PRETRAINED for form in ("", "-kernel", "-average")),
)

PERCENTS: tuple[int, ...] = (0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 100)
"""Where :func:`density_statistics` takes quantiles, %."""

SYMPREC, ANGLE_TOLERANCE = 0.1, 5.0
"""Tolerances of the symmetry search, Å and degrees: the Materials Project's. Without the second,
spglib calls tetragonal what the Materials Project lists as cubic (In, mp-85)."""


def baseline_features(name: str, densities: Sequence[ChargeDensity]) -> pd.DataFrame:
    """What one baseline is shown of each material.

    Parameters
    ----------
    name
        One of :data:`ALL_BASELINES`, or of :data:`PRETRAINED` in one of the three forms.
    densities
        n materials. ``promolecule`` needs `total` and `difference` of each. ``density`` uses those
        of the two that every material has, so that all rows say the same.

    Returns
    -------
    DataFrame of n rows in the order given, index 0 … n − 1. No columns for ``mean``.

    Raises
    ------
    RhosightError
        For an unknown name, or a material that lacks the density that is needed.
    """
    return features_of_baselines([name], densities)[name]


def features_of_baselines(
    names: Iterable[str], densities: Sequence[ChargeDensity]
) -> dict[str, pd.DataFrame]:
    """:func:`baseline_features` of several baselines; what they share is computed once.

    Parameters
    ----------
    names
        As :func:`baseline_features` takes them.
    densities
        n materials.

    Returns
    -------
    Name → DataFrame of n rows. Baselines that are shown the same share one frame.
    """
    inputs = {name: _inputs_of(name) for name in names}
    parts = {part for shown in inputs.values() for part in shown.split("+")}
    frames = {part: _part(part, densities) for part in sorted(parts)}
    for shown in set(inputs.values()) - set(frames):
        first, second = shown.split("+")
        repeated = frames[second].columns.intersection(frames[first].columns)
        frames[shown] = frames[first].join(frames[second].drop(columns=repeated))
    return {name: frames[shown] for name, shown in inputs.items()}


def make_baseline(name: str, seed: int) -> RegressorMixin:
    """An unfitted scikit-learn regressor for the features of :func:`baseline_features`.

    Parameters
    ----------
    name
        As :func:`baseline_features` takes it.
    seed
        Fixes the trees' random thresholds: the same seed and data give the same predictions. The
        Gaussian process has nothing random.

    Returns
    -------
    For ``mean`` a DummyRegressor. For a bare name a Pipeline that ends in an ExtraTreesRegressor of
    300 trees, otherwise with scikit-learn's default settings. For ``-kernel`` one that ends in a
    Gaussian process, so that ``predict(X, return_std=True)`` gives standard deviations too; numbers
    are brought near a normal distribution (Yeo & Johnson, Biometrika 87, 954 (2000),
    doi:10.1093/biomet/87.4.954) and standardised with the training part. For ``-average`` a
    VotingRegressor of the two.

    ``fit(X, y)`` takes the frame and one target of shape (n,) without missing values. A prototype
    that ``fit`` has not seen is encoded as none of the known ones.
    """
    inputs = _inputs_of(name)
    # scikit-learn's ensembles load with the first baseline, not with a model that shares features
    from .regressors import average, kernel_machine, mean, trees

    if inputs == "mean":
        return mean()
    if name.endswith("-kernel"):
        return kernel_machine(inputs)
    return average(inputs, seed) if name.endswith("-average") else trees(inputs, seed)


def strongest(scores: pd.DataFrame, names: Iterable[str] = ALL_BASELINES) -> dict[str, str]:
    """The baseline to beat, for each target.

    Parameters
    ----------
    scores
        Columns ``model``, ``target``, ``rmse``; one row a fold or one a model, as
        :func:`rhosight.evaluation.statistics.fold_scores` gives them. Other models may be among them.
    names
        Which models count as baselines.

    Returns
    -------
    Target → name of the baseline with the lowest mean RMSE.
    """
    baselines = scores[scores["model"].isin(list(names))]
    if baselines.empty:
        raise RhosightError("none of the scores is a baseline's; score some of them first")
    means = baselines.groupby(["target", "model"], sort=False)["rmse"].mean()
    best = means.groupby(level="target", sort=False).idxmin()
    return {target: model for target, model in best}


def composition_features(structures: Sequence[Structure]) -> pd.DataFrame:
    """Magpie statistics of the elements, and the least one can say of the structure.

    Independent of the cell: primitive, conventional or a supercell, in any order of the sites.

    Parameters
    ----------
    structures
        n ordered crystals. Oxidation states and magnetic moments on the sites are ignored.

    Returns
    -------
    DataFrame of n rows and 135 columns: 132 of matminer, named as it names them
    (``MagpieData mean Electronegativity`` …; Ward et al., npj Comput. Mater. 2, 16028 (2016),
    doi:10.1038/npjcompumats.2016.28), then

    - ``volume_per_atom``, Å³
    - ``nsites``, atoms of the primitive cell
    - ``prototype``, a string: see :func:`prototype_label`

    Raises
    ------
    RhosightError
        For a disordered crystal, or one whose symmetry spglib cannot find.
    """
    featuriser = magpie()
    rows = []
    for structure in structures:
        label, nsites = _prototype(structure)
        # in one order of the elements, so that sums round alike however the cell is stored
        amounts = structure.composition.element_composition.reduced_composition.as_dict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = featuriser.featurize(Composition(dict(sorted(amounts.items()))))
        rows.append([*values, structure.volume / len(structure), nsites, label])
    columns = [*featuriser.feature_labels(), "volume_per_atom", "nsites", "prototype"]
    return pd.DataFrame(rows, columns=columns)


def prototype_label(structure: Structure) -> str:
    """The structure type: space group, then each element's share and the sites that it occupies.

    Elements are anonymous (A, B …, the rarest first), and a site is named by its site symmetry,
    once for each orbit: fluorite is ``225 A(m-3m) B2(-43m)``, and antifluorite is the same.
    Wyckoff letters would tell a little more (they part β-cristobalite from the cubic Laves phase),
    but they depend on the choice of origin, hence on how the crystal was stored: zincblende is a
    and c, a and d, b and c … Site symmetries do not.
    """
    return _prototype(structure)[0]


def density_features(densities: Sequence[ChargeDensity], kinds: Sequence[str]) -> pd.DataFrame:
    """Statistics over the cell of one or several kinds of density.

    Parameters
    ----------
    densities
        n materials.
    kinds
        Such as ``("promolecule",)`` or ``("total", "difference")``.

    Returns
    -------
    DataFrame of n rows: ``volume_per_atom`` (Å³), then those of :func:`density_statistics` for each
    kind, with the kind as their prefix.

    Raises
    ------
    RhosightError
        If a material lacks a kind; the message names it.
    """
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    rows = []
    for density in densities:
        rows.append({"volume_per_atom": density.structure.volume / len(density.structure)})
        for kind in kinds:
            rows[-1] |= density_statistics(density.grid(kind), kind)
    names = [name for kind in kinds for name in density_statistics(np.zeros(1), kind)]
    return pd.DataFrame(rows, columns=["volume_per_atom", *names])


def density_statistics(grid: np.ndarray, prefix: str) -> dict[str, float]:
    """Quantiles and moments of a density over the cell.

    They do not depend on the order of the points, and a supercell, which repeats them, has the
    same ones: a quantile is the smallest value that the given share of the points does not exceed,
    without interpolation.

    Parameters
    ----------
    grid
        Array of any shape, e/Å³.
    prefix
        What the names begin with.

    Returns
    -------
    ``{prefix}_q0``, ``{prefix}_q1`` … ``{prefix}_q100``, the quantiles at :data:`PERCENTS`;
    ``{prefix}_mean``, ``_std`` and ``_mean_abs`` (mean of the absolute values), all in e/Å³;
    ``_skew`` and ``_kurtosis`` (excess: 0 for a normal distribution), without unit and 0 for a
    constant density.
    """
    values = np.sort(np.asarray(grid, dtype=float), axis=None)
    if values.size == 0 or not np.isfinite(values).all():
        raise RhosightError(
            f"`{prefix}`: statistics need a density grid of finite values; got one of shape "
            f"{np.shape(grid)} that is empty or holds NaN or infinities"
        )
    # ranks in integers: a product with a fraction such as 0.05 may round to the next point
    ranks = [max(-(-percent * values.size // 100) - 1, 0) for percent in PERCENTS]
    result = {
        f"{prefix}_q{percent}": float(values[rank])
        for percent, rank in zip(PERCENTS, ranks, strict=True)
    }
    mean, mean_abs = values.mean(), np.abs(values).mean()
    centred = values - mean
    std = np.sqrt(np.mean(centred**2))
    constant = std <= 1e-12 * mean_abs  # what remains is rounding
    scaled = np.zeros_like(values) if constant else centred / std
    result[f"{prefix}_mean"] = float(mean)
    result[f"{prefix}_std"] = float(std)
    result[f"{prefix}_skew"] = float(np.mean(scaled**3))
    result[f"{prefix}_kurtosis"] = 0.0 if constant else float(np.mean(scaled**4) - 3)
    result[f"{prefix}_mean_abs"] = float(mean_abs)
    return result


def _inputs_of(name: str) -> str:
    """What a baseline is shown: one of :data:`INPUTS` or :data:`PRETRAINED`, or ``mean``."""
    if name not in _KNOWN:
        raise RhosightError(f"unknown baseline {name!r}; known are {', '.join(_KNOWN)}")
    return name.removesuffix("-kernel").removesuffix("-average")


def _part(part: str, densities: Sequence[ChargeDensity]) -> pd.DataFrame:
    if part == "mean":
        return pd.DataFrame(index=pd.RangeIndex(len(densities)))
    if part == "composition":
        return composition_features([density.structure for density in densities])
    if part == "chgnet":
        return chgnet_features([density.structure for density in densities])
    if part == "promolecule":
        return density_features(densities, ("promolecule",))
    kinds = ("total", "difference")
    shared = [kind for kind in kinds if all(kind in density.kinds for density in densities)]
    return density_features(densities, shared or kinds)


@cache
def magpie() -> Any:
    """matminer's featuriser; its import and its tables take about two seconds, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from matminer.featurizers.composition import ElementProperty

        return ElementProperty.from_preset("magpie", impute_nan=True)


def _prototype(structure: Structure) -> tuple[str, int]:
    """Prototype label and number of atoms in the primitive cell."""
    where = structure.composition.reduced_formula
    if not structure.is_ordered:
        raise RhosightError(f"{where}: partial occupancies; give an ordered structure")
    numbers = [site.specie.Z for site in structure]
    data = None
    with warnings.catch_warnings(), suppress(getattr(spglib, "SpglibError", RuntimeError)):
        warnings.simplefilter("ignore")
        cell = (structure.lattice.matrix, structure.frac_coords, numbers)
        data = spglib.get_symmetry_dataset(cell, SYMPREC, ANGLE_TOLERANCE)
    if data is None:  # in this way or by raising, depending on its version
        raise RhosightError(
            f"{where}: spglib finds no symmetry within {SYMPREC} Å; check the structure for atoms "
            "that coincide or lie closer than that"
        )
    orbits: dict[int, dict[int, str]] = defaultdict(dict)
    for number, orbit, symbol in zip(
        numbers, data.crystallographic_orbits, data.site_symmetry_symbols, strict=True
    ):
        # an orthorhombic crystal's axes have no order of their own: mm2 and 2mm are one
        symbol = "".join(sorted(symbol)) if 16 <= data.number <= 74 else symbol
        orbits[number][int(orbit)] = symbol
    unit = gcd(*(numbers.count(number) for number in orbits))
    elements = sorted(
        (numbers.count(number) // unit, sorted(symbols.values()))
        for number, symbols in orbits.items()
    )
    parts = [
        f"{letter}{count if count > 1 else ''}({','.join(symbols)})"
        for letter, (count, symbols) in zip(ascii_uppercase, elements, strict=False)
    ]
    return " ".join([str(data.number), *parts]), int(max(data.mapping_to_primitive)) + 1
