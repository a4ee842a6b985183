"""Look back: would the search have found known compounds with wanted properties?

    python benchmarks/design_lookback.py ../shared/data/pool-fcc/pool.csv --out lookback.json

The pool lists formula, space group, bulk modulus and formation energy of compounds that no model
was trained on. Each is built from the structure types with its space group and formula, occupied in
every way; the occupation of the lowest predicted formation energy stands for the compound. The pool
is ranked as the search ranks candidates, and compared with a model that reads only the composition
and with random order.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition

import rhosight
from rhosight.design.prototypes import load_library, resize
from rhosight.design.relaxation import energies
from rhosight.design.screening import Screening
from rhosight.design.selection import choose_diverse, keep_lowest
from rhosight.design.space import Candidate, Space, find_nearest_example
from rhosight.design.volume import load_volume_model
from rhosight.design.wishes import read_wishes
from rhosight.models.gaussian_process.kernel import Kernel
from rhosight.models.gaussian_process.recipe import DescriptorRecipe

K, E = "bulk_modulus_vrh", "formation_energy_per_atom"
WINDOWS = ((200, 250, 20), (150, 200, 20), (250, 300, 35))
ENERGY = -0.5
BATCH = 64


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


def screen(pool: pd.DataFrame, model: object, relax: object = None) -> pd.DataFrame:
    """Predict all ways to build the compounds; one row each, without a probability."""
    built = build(pool)
    space = Space(load_library(), [])
    screening = Screening({"model": model}, read_wishes([f"{K}=0.."]), space, load_volume_model())
    screening.relax = relax
    rows, start = [], time.process_time()
    for at in range(0, len(built), BATCH):
        part = built[at : at + BATCH]
        rows += screening.evaluate([candidate for _, candidate in part])
        print(f"{at + len(part)} of {len(built)}, {time.process_time() - start:.0f} s", flush=True)
    table = pd.DataFrame(rows)
    table["material_id"] = [name for name, _ in built]
    return table


def rank(table: pd.DataFrame, model: object, low: float, high: float, count: int) -> list[str]:
    """Return the ids of the first proposals for a range of the bulk modulus."""
    wishes = read_wishes([f"{K}={low}..{high}", f"{E}=..{ENERGY}"])
    screening = Screening({"model": model}, wishes, Space(load_library(), []), load_volume_model())
    table = table.copy()
    table["probability"] = screening._probability(table.set_index("name", drop=False))
    return choose_diverse(keep_lowest(table), count)["material_id"].tolist()


def composition_model() -> rhosight.DescriptorModel:
    """Train a model that reads only the composition, on the training set of no-dft."""
    about = rhosight.load_model("no-dft").about
    dataset = rhosight.load_dataset(about["dataset"])[about["training_ids"]]
    blocks = ("fractions", "magpie")
    recipe = DescriptorRecipe(targets=(E, K), kernels=(Kernel(alone=blocks, together=blocks),))
    return rhosight.DescriptorModel(recipe).fit(dataset)


def chgnet_table(pool: pd.DataFrame, predicted: pd.DataFrame) -> pd.DataFrame:
    """Return energies and bulk moduli of CHGNet for the occupations that the model chose.

    Seven volumes about that of the model of volumes give the modulus and the lowest energy.
    Energies of the elements are fitted to the labels of no-dft's training set. The spread of the
    errors there is the uncertainty of the formation energy, and 25 GPa that of the modulus.
    """
    about = rhosight.load_model("no-dft").about
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
    elements = dict(zip(design.columns, solved, strict=True))
    spread = float(np.std(own - matrix @ solved - labels[rows]))
    print(f"CHGNet: formation energies of the training set within {spread:.3f} eV/atom", flush=True)
    space = Space(load_library(), [])
    screening = Screening({}, [], space, load_volume_model())
    built = {candidate.name: candidate for _, candidate in build(pool)}
    table = []
    for row in keep_lowest(predicted[predicted[K].notna()]).itertuples():
        start = screening.structure(built[row.name])
        volumes = start.volume * (1 + np.linspace(-0.15, 0.15, 7))
        energy = energies([resize(start, volume) for volume in volumes])
        curve = np.polynomial.Polynomial.fit(volumes / len(start), energy, 4)
        fine = np.linspace(volumes[0], volumes[-1], 301) / len(start)
        at = fine[int(np.argmin(curve(fine)))]
        modulus = float(at * curve.deriv(2)(at)) * 160.2177
        amounts = start.composition.fractional_composition.as_dict()
        energy_f = float(curve(at)) - sum(n * elements.get(e, 0) for e, n in amounts.items())
        table.append(
            {
                "material_id": row.material_id,
                "name": row.name,
                "formula": row.formula,
                "label": row.label,
                E: energy_f,
                K: modulus,
                f"{E}_low": energy_f - 1.645 * spread,
                f"{E}_high": energy_f + 1.645 * spread,
                f"{K}_low": modulus - 1.645 * 25,
                f"{K}_high": modulus + 1.645 * 25,
            }
        )
    return pd.DataFrame(table)


def judge(order: list[str], right: pd.Series, count: int) -> dict[str, float]:
    """Return hits among the first, and the acceleration over random order.

    The acceleration is the expected number of draws at random for the last hit among the first
    ``count`` over its place, averaged over all hits (their median).
    """
    hits = right.loc[order].to_numpy()
    found = np.flatnonzero(hits) + 1
    total, size = int(right.sum()), len(right)
    # the k-th of `total` hits in random order stands at k (size + 1) / (total + 1) on average
    random = np.arange(1, len(found) + 1) * (size + 1) / (total + 1)
    gain = random / found if len(found) else np.zeros(1)
    return {
        "first": count,
        "hits": int(hits.sum()),
        "share": float(hits.mean()),
        "all": total,
        "acceleration": float(np.median(gain)),
    }


def bootstrap(
    tables: dict[str, list[str]], right: pd.Series, count: int, draws: int = 2000
) -> dict[str, list[float]]:
    """Return 90 % intervals of the difference in hits between the first ranking and the others."""
    names = list(tables)
    generator = np.random.default_rng(0)
    result = {}
    for other in names[1:]:
        a, b = (right.loc[tables[name]].to_numpy(float) for name in (names[0], other))
        differences = [
            generator.choice(a, count).sum() - generator.choice(b, count).sum()
            for _ in range(draws)
        ]
        result[other] = np.quantile(differences, [0.05, 0.5, 0.95]).tolist()
    return result


def main() -> None:
    """Rank the pool and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pool")
    parser.add_argument("--model", default="no-dft")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--chgnet", action="store_true", help="also rank by CHGNet's numbers")
    parser.add_argument("--tables", type=Path, help="folder that keeps the predictions")
    arguments = parser.parse_args()
    pool = pd.read_csv(arguments.pool)
    models = {"structure": rhosight.load_model(arguments.model), "composition": composition_model()}
    tables = {}
    for name, model in models.items():
        path = arguments.tables / f"{name}.csv" if arguments.tables else None
        if path and path.exists():
            tables[name] = pd.read_csv(path)
        else:
            tables[name] = screen(pool, model)
            if path:
                tables[name].to_csv(path, index=False)
    if arguments.chgnet:
        tables["chgnet"] = chgnet_table(pool, tables["structure"])
        models["chgnet"] = models["composition"]  # for the correlation of errors
    figures: dict[str, object] = {"compounds": len(pool)}
    best = keep_lowest(tables["structure"]).set_index("material_id")
    figures["built"] = len(best)
    best = best[best[K].notna()]  # the others contain elements that the models do not know
    figures["predicted"] = len(best)
    labels = pool.set_index("material_id").loc[best.index]
    for target in (K, E):
        error = best[target] - labels[target]
        inside = (labels[target] >= best[f"{target}_low"]) & (
            labels[target] <= best[f"{target}_high"]
        )
        figures[target] = {
            "rmse": float(np.sqrt((error**2).mean())),
            "median": float(error.abs().median()),
            "r2": float(
                1 - (error**2).sum() / ((labels[target] - labels[target].mean()) ** 2).sum()
            ),
            "inside_90": float(inside.mean()),
        }
    truth = pool.set_index("material_id")
    for low, high, count in WINDOWS:
        right = truth[K].between(low, high) & (truth[E] < ENERGY)
        orders = {name: rank(tables[name], models[name], low, high, count) for name in models}
        scores = {name: judge(order, right, count) for name, order in orders.items()}
        figures[f"{low}..{high}"] = scores | {"ahead": bootstrap(orders, right, count)}
        print(low, high, json.dumps(figures[f"{low}..{high}"]), flush=True)
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
