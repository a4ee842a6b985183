"""The tab that searches for crystals: wishes in, proposals with pictures out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ..design.wishes import HULL
from ..errors import RhosightError
from . import fragments
from .endpoints import FREE
from .jobs import Jobs
from .limits import CANDIDATES, CELLS, PROPOSALS

WISHES = {
    "bulk_modulus_vrh": "Bulk modulus (GPa)",
    "shear_modulus_vrh": "Shear modulus (GPa)",
    "band_gap": "Band gap (eV)",
    "formation_energy_per_atom": "Formation energy (eV/atom)",
    HULL: "Energy above hull (eV/atom)",
}
"""Properties whose ranges can be entered, and their labels."""

FIRST = {"bulk_modulus_vrh": ("200", "250"), HULL: ("", "0.1")}
"""Ranges that the fields hold at first."""


class SearchTab:
    """Its controls, from top to bottom, and their events."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def add_controls(self) -> None:
        """Add the controls to the block that is being built."""
        gr.HTML(fragments.render_heading("Wanted properties"))
        with gr.Row(elem_id="wishes"):
            self.ends = [end for target in WISHES for end in self._add_range(target)]
        with gr.Row(elem_classes="rho-fields"):
            self.elements = gr.Textbox(
                label="Only these elements (all known if empty)",
                placeholder="Ti, Al, Ni",
                max_length=400,
                min_width=240,
                elem_id="elements",
            )
            self.exclude = gr.Textbox(
                "Pt, Ir, Rh, Os, Re, Cd, Hg, Pb",
                label="Without these elements",
                max_length=400,
                min_width=240,
                elem_id="exclude",
            )
        with gr.Row(elem_classes="rho-fields"):
            sliders = (
                ("Crystals to try", CANDIDATES, 150, 10, "candidates"),
                ("Proposals", PROPOSALS, 5, 1, "count"),
                ("Atoms in the cell, at most", CELLS, 4, 1, "max-atoms"),
            )
            self.sliders = [
                gr.Slider(
                    *bounds, value, label=label, step=step, min_width=200, buttons=[], elem_id=name
                )
                for label, bounds, value, step, name in sliders
            ]
        self.known = gr.Checkbox(False, label="Propose known crystals, too", elem_id="known")
        self.search = gr.Button("Search", variant="primary", size="md", elem_id="search")
        with gr.Row(elem_id="search-progress", elem_classes="rho-progress"):
            self.status = gr.HTML(fragments.render_status(""), elem_id="search-status")
            self.cancel = gr.Button(
                "Cancel", visible=False, size="sm", elem_id="search-cancel", min_width=90
            )
        self.proposals = gr.HTML("", elem_id="proposals")

    @staticmethod
    def _add_range(target: str) -> list[gr.Textbox]:
        """Add the fields of a range, and return them."""
        # numbers, but Gradio shows an empty field of numbers as 0
        ends = zip(("from", "to"), FIRST.get(target, ("", "")), strict=True)
        with gr.Column(min_width=240):
            gr.HTML(fragments.render_label(WISHES[target]))
            with gr.Row(elem_classes="rho-ends"):
                return [
                    gr.Textbox(
                        value,
                        label=f"{WISHES[target]}, {word}",
                        placeholder=word,
                        max_length=20,
                        min_width=80,
                        elem_id=f"{word}-{target.split('_')[0]}",
                    )
                    for word, value in ends
                ]

    def connect_events(self) -> None:
        """Connect the buttons to the job that they start and end."""
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        outputs = [self.status, self.cancel, self.search, self.proposals]
        inputs = [*self.ends, self.elements, self.exclude, *self.sliders, self.known]
        searching = self.search.click(
            self._search, inputs, outputs, preprocess=False, trigger_mode="once", **FREE, **private
        )
        self.cancel.click(self._cancel, [], outputs, cancels=[searching], **FREE, **private)

    async def _search(self, request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        """Search, and show the proposals once all of them are there."""
        ends, rest = values[: len(self.ends)], values[len(self.ends) :]
        names = ("elements", "exclude", "candidates", "count", "max_atoms", "known")
        yield {
            self.status: fragments.render_status("starting"),
            self.cancel: gr.Button(visible=True),
            self.search: gr.Button(interactive=False),
            self.proposals: "",
        }
        done = self._stop()
        try:
            asked = {"targets": _write_wishes(ends), **dict(zip(names, rest, strict=True))}
            async for update in self._jobs.design(str(request.session_hash), asked):
                yield {self.status: fragments.render_status(update)}
            yield {**done, self.proposals: fragments.render_proposals(update.result or {})}
        except RhosightError as error:
            yield {**done, self.proposals: "", self.status: fragments.render_problem(error)}

    def _cancel(self) -> dict[Any, Any]:
        return {**self._stop(), self.status: fragments.render_status("cancelled")}

    def _stop(self) -> dict[Any, Any]:
        """Return the outputs for the end of a search."""
        return {
            self.status: fragments.render_status(""),
            self.cancel: gr.Button(visible=False),
            self.search: gr.Button(interactive=True),
        }


def _write_wishes(ends: tuple[Any, ...]) -> list[str]:
    """Return the texts of the ranges of which at least one end is given."""
    pairs = zip(ends[::2], ends[1::2], strict=True)
    texts = {
        target: ["" if end is None else str(end).strip().replace("−", "-") for end in pair]
        for target, pair in zip(WISHES, pairs, strict=True)
    }
    wanted = [f"{target}={'..'.join(pair)}" for target, pair in texts.items() if any(pair)]
    if not wanted:
        raise RhosightError("no property is wanted; enter an end of a range")
    return wanted
