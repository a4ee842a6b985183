"""The model card of a density model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ROWS = {
    "folds": "training crystals, each by networks that had not seen it",
    "new_types": "the same, each by a network that had not seen its structure type",
    "test": "test set",
}


def write_card(scores: Mapping[str, Mapping[str, float]], about: Mapping[str, Any]) -> str:
    """Return the model card, Markdown with the YAML header of the Hugging Face hub."""
    rows = "\n".join(
        f"| {_ROWS.get(name, name)} | {row['crystals']} | {row['mean']:.2f} | {row['median']:.2f} "
        f"| {row['p90']:.2f} | {row['outside']:.2f} | {row['promolecule']:.2f} |"
        for name, row in scores.items()
    )
    used = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return f"""---
library_name: rhosight
tags: [materials-science, charge-density]
---

# Charge densities from structures

Predicts, for a crystal without calculation, the pseudo-density that GPAW would write (`total`) and
its difference from superposed free atoms (`difference`), e/Å³, on any grid.

A committee of networks reads, at each point, the free atoms around it and invariant sums over
neighbours; `docs/density-prediction.md` describes it. A predicted density is a function of the
structure: it is no self-consistent density, and its file says so.

**Limits.** Trained on face-centred cubic crystals. Near the nuclei the density is that of GPAW's
pseudo-atoms, not of another code. Its integral is not the number of electrons, as with GPAW. No
spin density.

## Errors

∫|ρ − ρ̂| in percent of ∫ρ; "outside": beyond 1.1 Å from all nuclei.

| | crystals | mean | median | 90 % below | outside | free atoms |
| --- | --- | --- | --- | --- | --- | --- |
{rows}

## Training data

{about["materials"]} materials of `{about["dataset"]}` (SHA-256
`{about["dataset_sha256"]}`). {about["attribution"]} {about["licence"]}

Made with {used}.

```python
import rhosight

model = rhosight.DensityModel.from_pretrained("this-folder")
density = model.predict_density(rhosight.read_structure("mine.cif"))
```
"""
