"""Look back: would the search have found known compounds with wanted properties?

    python benchmarks/design_lookback.py ../shared/data/pool-fcc/pool.csv --tables tables \\
        --methods structure,composition,no-dft,density,chgnet --out lookback.json

The pool lists formula, space group, bulk modulus and formation energy of compounds that no model
was trained on. Each is built from the structure types with its space group and formula, occupied in
every way; the occupation of the lowest predicted formation energy stands for the compound. The pool
is ranked as the search ranks candidates, by

- ``structure``, ``no-dft``: these models;
- ``composition``: a model that reads only the composition, learned on the training set of
  ``structure``; ``composition-fcc``: on that of ``no-dft``;
- ``density``: ``best``, which reads the density that ``rhosight.DensityModel`` predicts for the
  occupation that ``structure`` chose; it has the training set of ``no-dft``. It ranks the compounds
  that are most probable by ``structure`` in any of the windows, as many as ``--front`` says;
- ``structure+no-dft``, ``structure+density``: the mean of two predictions;
- ``chgnet``: energies and equations of state of CHGNet, of the same compounds.

Predictions are kept in the folder of ``--tables``; an interrupted run continues there. Intervals
are those of a bootstrap over the compounds of the pool, the same draws for all rankings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pymatgen.core import Composition, Structure

import rhosight
from rhosight.design.prototypes import load_library, resize
from rhosight.design.screening import Screening
from rhosight.design.selection import choose_diverse, keep_lowest
from rhosight.design.space import Candidate, Space, find_nearest_example
from rhosight.design.volume import load_volume_model
from rhosight.design.wishes import read_wishes
from rhosight.ecd.model import load_density_model
from rhosight.models.baselines.chgnet import predict_energies
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe
from rhosight.storage import replacing

K, E = "bulk_modulus_vrh", "formation_energy_per_atom"
WINDOWS = ((200, 250, 20), (150, 200, 20), (250, 300, 35))
ENERGY = -0.5
BATCH = 64
DRAWS = 2000
ENDS = ("", "_low", "_high")


def build(pool: pd.DataFrame) -> list[tuple[str, Candidate]]:
    """Return material id and candidate for each way to build a compound."""
    prototypes: dict[tuple[int, tuple[int, ...]], list] = {}
    for prototype in load_library().prototypes:
        counts = np.array(prototype.counts)
        key = prototype.number, tuple(sorted(counts // np.gcd.reduce(counts)))
        prototypes.setdefault(key, []).append(prototype)
    built = []
    for row in pool.itertuples():
        amounts = Composition(row.formula).reduced_composition.get_el_amt_dict()
        key = row.spacegroup_number, tuple(sorted(int(n) for n in amounts.values()))
        for prototype in prototypes.get(key, []):
            unit = np.gcd.reduce(np.array(prototype.counts))
            seen = set()
            for elements in permutations(sorted(amounts)):
                if any(
                    amounts[e] * unit != n for e, n in zip(elements, prototype.counts, strict=True)
                ):
                    continue
                form = prototype.canonical(elements)
                if form not in seen:
                    seen.add(form)
                    built.append(
                        (
                            row.material_id,
                            Candidate(prototype, form, find_nearest_example(prototype, form)),
                        )
                    )
    return built


def screen(pool: pd.DataFrame, model: object) -> pd.DataFrame:
    """Predict all ways to build the compounds; one row each, without a probability."""
    built = build(pool)
    space = Space(load_library(), [])
    screening = Screening({"model": model}, read_wishes([f"{K}=0.."]), space, load_volume_model())
    rows, start = [], time.process_time()
    for at in range(0, len(built), BATCH):
        part = built[at : at + BATCH]
        rows += screening.evaluate([candidate for _, candidate in part])
        print(f"{at + len(part)} of {len(built)}, {time.process_time() - start:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    table["material_id"] = [name for name, _ in built]
    return table


def rank(table: pd.DataFrame, model: object, low: float, high: float, count: int) -> list[str]:
    """Return the ids for a range of the bulk modulus, in the order in which they are proposed.

    The first ``count`` as the search chooses them, the others by probability.
    """
    wishes = read_wishes([f"{K}={low}..{high}", f"{E}=..{ENERGY}"])
    screening = Screening({"model": model}, wishes, Space(load_library(), []), load_volume_model())
    table = table.copy()
    table["probability"] = screening._probability(table.set_index("name", drop=False))
    kept = keep_lowest(table).sort_values(["probability", "name"], ascending=[False, True])
    first = choose_diverse(kept, count)["material_id"].tolist()
    return list(dict.fromkeys([*first, *kept["material_id"]]))


def load_part(name: str) -> rhosight.DescriptorModel:
    """Return `structure`, or the part of `best` or `no-dft` that knows `mp-fcc`."""
    model: Any = rhosight.load_model(name)
    return getattr(model, "special", model)


def composition_model(like: str) -> rhosight.DescriptorModel:
    """Train a model that reads only the composition, on the training set of another."""
    other = load_part(like)
    dataset = rhosight.load_dataset(other.about["dataset"])[other.about["training_ids"]]
    blocks = ("fractions", "magpie")
    scales = {name: how for name, how in (other.recipe.scales or {}).items() if name in (E, K)}
    recipe = DescriptorRecipe(
        targets=(E, K), scales=scales or None, kernels=(Kernel(alone=blocks, together=blocks),)
    )
    return rhosight.DescriptorModel(recipe).fit(dataset)


def list_front(
    pool: pd.DataFrame, predicted: pd.DataFrame, model: object, size: int
) -> list[tuple[dict, Structure]]:
    """Return row and crystal of the compounds that are most probable in any of the windows."""
    orders = [rank(predicted, model, low, high, 1) for low, high, _ in WINDOWS]
    places = [{name: place for place, name in enumerate(order)} for order in orders]
    screening = Screening({}, [], Space(load_library(), []), load_volume_model())
    built = {(material, one.name): one for material, one in build(pool)}
    rows = keep_lowest(predicted[predicted[K].notna()]).to_dict("records")
    rows.sort(key=lambda row: min(place[row["material_id"]] for place in places))
    names = ("material_id", "name", "formula", "label")
    return [
        (
            {name: row[name] for name in names},
            screening.structure(built[row["material_id"], row["name"]]),
        )
        for row in rows[:size]
    ]


def compute_rows(
    chosen: list[tuple[dict, Structure]],
    compute: Callable[[Structure], dict[str, float]],
    path: Path | None,
) -> pd.DataFrame:
    """Return a table with a row for each crystal; those in the file are not computed again."""
    kept = pd.read_csv(path).to_dict("records") if path and path.exists() else []
    done = {row["material_id"]: row for row in kept}
    start = time.process_time()
    for number, (row, crystal) in enumerate(chosen, 1):
        if row["material_id"] in done:
            continue
        done[row["material_id"]] = row | compute(crystal)
        if path and (len(done) % 10 == 0 or number == len(chosen)):
            with replacing(path) as draft:
                pd.DataFrame(done.values()).to_csv(draft, index=False)
        spent = time.process_time() - start
        print(f"{number} of {len(chosen)}, {spent:.0f} s", flush=True)
    return pd.DataFrame([done[row["material_id"]] for row, _ in chosen])


def density_table(chosen: list[tuple[dict, Structure]], path: Path | None) -> pd.DataFrame:
    """Return the predictions of ``best`` from predicted densities."""
    densities, best = load_density_model(), rhosight.load_model("best")

    def compute(crystal: Structure) -> dict[str, float]:
        predicted = densities.predict_density(crystal, spacing=0.25)
        row = best.predict_intervals(predicted).iloc[0]
        return {f"{t}{end}": row[f"{t}{end}"] for t in (E, K) for end in ENDS}

    return compute_rows(chosen, compute, path)


def chgnet_table(chosen: list[tuple[dict, Structure]], path: Path | None) -> pd.DataFrame:
    """Return energies and bulk moduli of CHGNet.

    Seven volumes about that of the model of volumes give the modulus and the lowest energy.
    Energies of the elements are fitted to the labels of no-dft's training set. The spread of the
    errors there is the uncertainty of the formation energy, and 25 GPa that of the modulus.
    """
    elements, spread = fit_elements()

    def compute(crystal: Structure) -> dict[str, float]:
        volumes = crystal.volume * (1 + np.linspace(-0.15, 0.15, 7))
        energy = energies([resize(crystal, volume) for volume in volumes])
        curve = np.polynomial.Polynomial.fit(volumes / len(crystal), energy, 4)
        fine = np.linspace(volumes[0], volumes[-1], 301) / len(crystal)
        at = fine[int(np.argmin(curve(fine)))]
        amounts = crystal.composition.fractional_composition.as_dict()
        values = {
            E: float(curve(at)) - sum(n * elements.get(e, 0) for e, n in amounts.items()),
            K: float(at * curve.deriv(2)(at)) * 160.2177,
        }
        widths = {E: spread, K: 25.0}
        row = dict(values)
        for target, value in values.items():
            row[f"{target}_low"] = value - 1.645 * widths[target]
            row[f"{target}_high"] = value + 1.645 * widths[target]
        return row

    return compute_rows(chosen, compute, path)


def energies(structures: list[Structure]) -> np.ndarray:
    """Return energies of CHGNet, eV/atom."""
    return np.array([float(result["e"]) for result in predict_energies(structures)])


def fit_elements() -> tuple[dict[str, float], float]:
    """Return CHGNet energies of the elements, eV/atom, and the spread of formation energies."""
    about = load_part("no-dft").about
    dataset = rhosight.load_dataset(about["dataset"])[about["training_ids"]]
    labels = dataset.targets[E].to_numpy(float)
    rows = np.flatnonzero(~np.isnan(labels))
    crystals = [dataset.structures[int(i)] for i in rows]
    own = np.concatenate([energies(crystals[i : i + 16]) for i in range(0, len(crystals), 16)])
    shares = pd.DataFrame([c.composition.fractional_composition.as_dict() for c in crystals])
    design = shares.fillna(0.0)
    weight = 0.01 * np.eye(design.shape[1])
    matrix = design.to_numpy()
    # E - E_f = sum of shares times energies of the elements
    solved = np.linalg.solve(matrix.T @ matrix + weight, matrix.T @ (own - labels[rows]))
    spread = float(np.std(own - matrix @ solved - labels[rows]))
    print(f"CHGNet: formation energies of the training set within {spread:.3f} eV/atom", flush=True)
    return dict(zip(design.columns, solved, strict=True)), spread


def mean_table(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of two predictions of the compounds that both have, ends included."""
    one, other = (keep_lowest(t[t[K].notna()]).set_index("material_id") for t in (one, other))
    table = one.loc[one.index.isin(other.index)].copy()
    for column in (f"{target}{end}" for target in (E, K) for end in ENDS):
        table[column] = (table[column] + other[column].loc[table.index]) / 2
    return table.reset_index()


def judge(places: np.ndarray, right: np.ndarray, count: int, weights: np.ndarray) -> np.ndarray:
    """Return hits among the first ``count``, and the acceleration over random order.

    The acceleration of a hit is the place that it would have in random order, on average, over its
    place; that of a ranking is the median over its hits among the first ``count``.

    Parameters
    ----------
    places
        Rows of the pool that are ranked; the others are never proposed.
    right
        Which compounds of the pool have the wanted properties.
    count
        Number of proposals.
    weights
        How often each compound of the pool is there: 1, or a draw of the bootstrap.
    """
    hits = np.repeat(right[places], weights[places])[:count]
    found = np.flatnonzero(hits) + 1
    total, size = int(weights[right].sum()), int(weights.sum())
    # the k-th of `total` hits in random order stands at k (size + 1) / (total + 1) on average
    random = np.arange(1, len(found) + 1) * (size + 1) / (total + 1)
    return np.array([len(found), np.median(random / found) if len(found) else 0.0])


def compare(
    orders: dict[str, list[str]], right: pd.Series, count: int
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return hits and accelerations of rankings with 90 % intervals, and hits in each draw."""
    generator = np.random.default_rng(0)  # the same draws for all windows
    size = len(right)
    draws = [np.bincount(generator.integers(size, size=size), minlength=size) for _ in range(DRAWS)]
    scores, hits = {}, {}
    is_right = right.to_numpy()
    for name, order in orders.items():
        places = right.index.get_indexer(order)
        found, gain = judge(places, is_right, count, np.ones(size, dtype=int))
        drawn = np.array([judge(places, is_right, count, draw) for draw in draws])
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        scores[name] = {
            "first": count,
            "hits": int(found),
            "hits_90": [low[0], high[0]],
            "acceleration": gain,
            "acceleration_90": [low[1], high[1]],
        }
        hits[name] = np.array([found, *drawn[:, 0]])
    return {"right": int(right.sum()), "scores": scores, "more hits": subtract(hits)}, hits


def subtract(hits: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Return how many more hits one ranking has than another, and its 90 % interval."""
    return {
        f"{one} - {other}": [
            float(hits[one][0] - hits[other][0]),
            *np.quantile(hits[one][1:] - hits[other][1:], [0.05, 0.95]).tolist(),
        ]
        for one, other in combinations(hits, 2)
    }


def measure(table: pd.DataFrame, pool: pd.DataFrame, ids: pd.Index) -> dict[str, object]:
    """Return the errors of predictions of some compounds of the pool."""
    best = keep_lowest(table[table[K].notna()]).set_index("material_id")
    best = best[best.index.isin(ids)]
    labels = pool.set_index("material_id").loc[best.index]
    figures: dict[str, object] = {"predicted": len(best)}
    for target in (K, E):
        label = labels[target]
        error = best[target] - label
        inside = (label >= best[f"{target}_low"]) & (label <= best[f"{target}_high"])
        figures[target] = {
            "rmse": float(np.sqrt((error**2).mean())),
            "median": float(error.abs().median()),
            "r2": float(1 - (error**2).sum() / ((label - label.mean()) ** 2).sum()),
            "inside_90": float(inside.mean()),
        }
    return figures


def make_tables(
    pool: pd.DataFrame, methods: list[str], folder: Path | None, front: int
) -> tuple[dict[str, pd.DataFrame], dict[str, object]]:
    """Return the predictions of each method, and the model whose errors are correlated so."""
    tables: dict[str, pd.DataFrame] = {}
    models: dict[str, object] = {}
    for name in dict.fromkeys(part for method in methods for part in method.split("+")):
        path = folder / f"{name}.csv" if folder else None
        print(name, flush=True)
        if name in ("density", "chgnet"):
            chosen = list_front(pool, tables["structure"], models["structure"], front)
            make = density_table if name == "density" else chgnet_table
            tables[name], models[name] = make(chosen, path), load_part("no-dft")
            continue
        models[name] = load_ranker(name, folder)
        if path and path.exists():
            tables[name] = pd.read_csv(path)
            continue
        tables[name] = screen(pool, models[name])
        if path:
            tables[name].to_csv(path, index=False)
    for name in (method for method in methods if "+" in method):
        one, other = name.split("+")
        tables[name], models[name] = mean_table(tables[one], tables[other]), models[one]
    return {name: tables[name] for name in methods}, models


def load_ranker(name: str, folder: Path | None) -> rhosight.DescriptorModel:
    """Return a model of structures, or train and keep one that reads only the composition."""
    likes = {"composition": "structure", "composition-fcc": "no-dft"}
    if name not in likes:
        return load_part(name)
    kept = folder / f"{name}-model" if folder else None
    if kept and kept.exists():
        return rhosight.DescriptorModel.from_pretrained(kept)
    model = composition_model(likes[name])
    if kept:
        model.save_pretrained(kept)
    return model


def main() -> None:
    """Rank the pool and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pool")
    parser.add_argument("--methods", default="structure,composition", help="see above")
    parser.add_argument("--front", type=int, default=160, help="compounds for density and chgnet")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tables", type=Path, help="folder that keeps the predictions")
    arguments = parser.parse_args()
    pool = pd.read_csv(arguments.pool)
    if arguments.tables:
        arguments.tables.mkdir(parents=True, exist_ok=True)
    methods = list(dict.fromkeys(["structure", *arguments.methods.split(",")]))
    tables, models = make_tables(pool, methods, arguments.tables, arguments.front)
    figures: dict[str, object] = {"compounds": len(pool)}
    truth = pool.set_index("material_id")
    figures |= {name: measure(table, pool, truth.index) for name, table in tables.items()}
    if "density" in tables:
        ids = pd.Index(tables["density"]["material_id"])
        figures["front"] = {name: measure(table, pool, ids) for name, table in tables.items()}
    together = {name: np.zeros(DRAWS + 1) for name in methods}
    for low, high, count in WINDOWS:
        right = truth[K].between(low, high) & (truth[E] < ENERGY)
        orders = {name: rank(tables[name], models[name], low, high, count) for name in methods}
        figures[f"{low}..{high}"], hits = compare(orders, right, count)
        together = {name: together[name] + own for name, own in hits.items()}
    figures["more hits in all windows"] = subtract(together)
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
