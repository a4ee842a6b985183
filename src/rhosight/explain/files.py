"""Write explanations to files: JSON, CSV tables, figures and maps."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .explanation import Explanation, Explanations
from .figures import draw_explanation, draw_maps, draw_summary


def save(
    explanations: Explanation | Explanations, folder: str | Path, each: bool = True
) -> list[Path]:
    """Write explanations into a folder and return the files written.

    Parameters
    ----------
    explanations
        A single explanation is written into the folder itself: ``explanation.json``,
        ``modalities.csv``, ``words.csv`` or ``descriptors.csv``, ``explanation.png``, and for
        models that read images ``map-{target}.png`` and ``maps.npz``. The latter contains
        ``{target}_{number}`` and ``density_{number}`` of each slice, the arrays of
        :class:`rhosight.explain.SliceMap`. Several explanations get one folder for each material,
        and ``explanations.csv``, ``summary.csv`` and ``summary.png`` beside these folders.
    folder
        Output folder; created if it does not exist.
    each
        Also write the files of each material if there are several materials.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(explanations, Explanation):
        return _save_one(explanations, folder)
    several = len(explanations) > 1
    written = []
    if each or not several:
        names = _folder_names([one.name for one in explanations])
        for name, one in zip(names, explanations, strict=True):
            (folder / name).mkdir(exist_ok=True)
            written += _save_one(one, folder / name)
    if several:
        table, summary, figure = (
            folder / name for name in ("explanations.csv", "summary.csv", "summary.png")
        )
        explanations.table().to_csv(table, index=False)
        explanations.summary().to_csv(summary)
        draw_summary(explanations.summary()).savefig(figure, dpi=130)
        written += [table, summary, figure]
    return written


def _save_one(why: Explanation, folder: Path) -> list[Path]:
    """Write the files of one explanation into an existing folder."""
    written = [folder / "explanation.json", folder / "modalities.csv"]
    text = json.dumps(why.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    written[0].write_text(text + "\n", encoding="utf-8")
    with_units = {target: f"{target} ({why.units[target]})" for target in why.targets}
    why.table().rename(columns=with_units).to_csv(written[1], index_label="modality")
    for name, table in (("word", why.words), ("descriptor", why.descriptors)):
        if table is not None:
            written.append(folder / f"{name}s.csv")
            table.rename(columns=with_units).to_csv(written[-1], index_label=name)
    written.append(folder / "explanation.png")
    draw_explanation(why).savefig(written[-1], dpi=130)
    for target in why.targets if why.maps else ():
        written.append(folder / f"map-{target}.png")
        draw_maps(why, target).savefig(written[-1], dpi=130)
    if why.maps:
        written.append(folder / "maps.npz")
        arrays: dict[str, Any] = {f"density_{i}": one.density for i, one in enumerate(why.maps)}
        for i, one in enumerate(why.maps):
            arrays |= {f"{target}_{i}": values for target, values in one.values.items()}
        np.savez_compressed(written[-1], **arrays)
    return written


def _folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder name for each material, made from its file or the file's folder."""
    folders: list[str] = []
    for name in names:
        path = Path(name)
        unnamed = path.name in ("CHGCAR", "CHG") and path.parent.name
        plain = path.parent.name if unnamed else path.name
        plain = re.sub(r"[^\w.+-]+", "-", plain).strip(".-") or "material"
        again = sum(other == plain or other.startswith(f"{plain}~") for other in folders)
        folders.append(f"{plain}~{again + 1}" if again else plain)
    return folders
