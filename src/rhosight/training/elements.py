"""Teach a language model the elements before it sees a label.

A general encoder reads `Zn` and `Cd` as two strings. Before the head stage it can learn what the
periodic table says about them: it reads descriptions of made-up crystals and predicts statistics of
the elements' properties, which later tell the few hundred labelled materials apart. The crystals
are drawn at random, so no dataset, structure or label takes part, and one such encoder serves all
folds. This is pre-training in the domain (Gururangan et al. 2020,
doi:10.18653/v1/2020.acl-main.740) with targets that cost nothing; the paper does not do it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..inputs.descriptors.element_data import MAGPIE, load_element_data
from ..inputs.progress import EpochProgress
from ..networks.backbones import TextBackbone
from .plan import one_cycle

HEAVIEST = 83
"""Atomic number of Bi: Magpie's table has gaps beyond it, and crystals are few."""

NOBLE_GASES = ("He", "Ne", "Ar", "Kr", "Xe")

STOICHIOMETRIES = (
    *((1,), (1, 1), (1, 2), (1, 3), (1, 5), (2, 3), (1, 7)),
    *((1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 1, 3), (1, 2, 4), (1, 2, 6), (1, 1, 4), (2, 3, 5)),
    *((1, 1, 1, 1), (1, 1, 2, 6), (1, 1, 1, 3)),
)
"""Atoms of each element in a formula unit; none implies one structure type."""

COORDINATIONS = (2, 3, 4, 6, 8, 9, 12)

BATCH, BACKBONE_RATE, READOUT_RATE = 16, 2e-4, 2e-3


@dataclass(frozen=True)
class MadeUpCrystal:
    """A description of a crystal, and the facts to learn from it.

    Attributes
    ----------
    text
        Description in the words of the extent ``keywords`` of
        :func:`rhosight.inputs.text.description.describe`.
    amounts
        Symbol → atoms in the formula unit.
    lengths
        Bond lengths in the text, Å.
    ratios
        Bond lengths over the sums of the covalent radii.
    """

    text: str
    amounts: dict[str, int]
    lengths: tuple[float, ...]
    ratios: tuple[float, ...]


def make_up(count: int, seed: int) -> list[MadeUpCrystal]:
    """Make up crystals of random elements and proportions, with likely bond lengths."""
    draw = random.Random(seed)
    symbols, radii = _elements().symbols, _elements().radii
    crystals = []
    for _ in range(count):
        numbers = draw.choice(STOICHIOMETRIES)
        amounts = dict(zip(draw.sample(symbols, len(numbers)), numbers, strict=True))
        order = draw.sample(list(amounts), len(amounts))
        formula = "".join(f"{s}{amounts[s] if amounts[s] > 1 else ''}" for s in order)
        bonds, lengths, ratios = [], [], []
        for _ in range(draw.randint(1, 3)):
            one, other = draw.choice(order), draw.choice(order)
            ratios.append(draw.uniform(0.9, 1.3))
            length = (radii[one] + radii[other]) * ratios[-1]
            each = draw.choice(COORDINATIONS)
            counts = f"{each} per {one}"
            if one != other:
                counts += f", {each * amounts[one] / amounts[other]:.2g} per {other}"
            bonds.append(f"{one}-{other} {length:.2f} Å ({counts})")
            lengths.append(length)
        text = f"{formula} has bond lengths {'; '.join(bonds)}."
        crystals.append(MadeUpCrystal(text, amounts, tuple(lengths), tuple(ratios)))
    return crystals


def compute_facts(crystals: Sequence[MadeUpCrystal]) -> np.ndarray:
    """Return what an encoder is to learn about each crystal, shape (n, facts).

    The facts are mean, mean absolute deviation, largest and smallest value of each of Magpie's
    elemental properties (doi:10.1038/npjcompumats.2016.28) over the atoms of the formula, then the
    mean and the shortest bond length minus 2.7 Å, then the mean and the smallest ratio of a bond
    length to the sum of the covalent radii, minus 1.1, in tenths. Properties are standardised over
    the elements.
    """
    table = _elements()
    rows = []
    for crystal in crystals:
        values = np.array([table.properties[symbol] for symbol in crystal.amounts])
        shares = np.array(list(crystal.amounts.values()), dtype=float)
        shares /= shares.sum()
        mean = shares @ values
        spread = shares @ np.abs(values - mean)
        bonds = [np.mean(crystal.lengths) - 2.7, min(crystal.lengths) - 2.7]
        bonds += [10 * np.mean(crystal.ratios) - 11, 10 * min(crystal.ratios) - 11]
        rows.append(np.concatenate([mean, spread, values.max(0), values.min(0), bonds]))
    return np.array(rows)


def learn_elements(
    backbone: TextBackbone,
    steps: int,
    seed: int,
    progress: EpochProgress | None = None,
    rate: float = BACKBONE_RATE,
) -> None:
    """Train a text encoder in place to tell elements' properties from descriptions.

    Parameters
    ----------
    backbone
        Encoder whose parameters learn, those that require gradients; it is left in evaluation mode,
        with the same width and tokens.
    steps
        Batches of 16 descriptions, each seen once.
    seed
        Fixes crystals, order and dropout; torch's global generator is not changed.
    progress
        Called with (label, step, steps, mean squared error of the standardised facts).
    rate
        Peak learning rate of the encoder.
    """
    crystals = make_up(steps * BATCH, seed)
    ids, mask = backbone.tokenize([crystal.text for crystal in crystals])
    device = next(backbone.parameters()).device
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wanted = torch.as_tensor(compute_facts(crystals), dtype=torch.float32)
        readout = nn.Linear(backbone.width, wanted.shape[1]).to(device)
        groups = [
            {"params": learning, "lr": rate},
            {"params": list(readout.parameters()), "lr": READOUT_RATE},
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        schedule = one_cycle(optimiser, steps, 0.1)
        backbone.train()
        for step, rows in enumerate(torch.arange(len(crystals)).split(BATCH), start=1):
            longest = int(mask[rows].sum(1).max())
            batch = (part[rows, :longest].to(device) for part in (ids, mask))
            loss = functional.mse_loss(readout(backbone(*batch)), wanted[rows].to(device))
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimiser.step()
            schedule.step()
            if progress:
                progress("text, elements", step, steps, loss.item())
        backbone.eval()


@dataclass(frozen=True)
class _Elements:
    symbols: list[str]
    properties: dict[str, np.ndarray]
    radii: dict[str, float]


@cache
def _elements() -> _Elements:
    """Return Magpie's table of the elements, standardised, and covalent radii in Å."""
    from pymatgen.core import Element

    symbols = [Element.from_Z(z).symbol for z in range(1, HEAVIEST + 1)]
    symbols = [symbol for symbol in symbols if symbol not in NOBLE_GASES]
    table = load_element_data("magpie").loc[symbols]
    values = table[list(MAGPIE)].to_numpy()
    radii = table["CovalentRadius"] / 100
    spread = values.std(0)
    values = (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)
    return _Elements(
        symbols, dict(zip(symbols, values, strict=True)), dict(zip(symbols, radii, strict=True))
    )
