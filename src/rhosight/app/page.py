"""Build the page and its API: the controls and the jobs that they start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from ..density.charge_density import Kind
from ..density.electrons import UNITS
from ..errors import RhosightError
from . import fragments
from .checks import UPLOADED
from .endpoints import FREE, add_endpoints
from .jobs import Jobs
from .limits import MAX_INDEX, MIB, Limits
from .pool import Update
from .search_tab import SearchTab

KINDS: tuple[Kind, ...] = ("total", "difference", "promolecule", "spin")
"""Kinds of density on a plane; the free atoms are shown beside a predicted density."""

EXAMPLE = "mp-149"
"""Bundled material of the button that shows an example: silicon."""

DENSEST = (0, 0, 0)
"""Miller indices that stand for the densest plane."""

# Changes the level in the browser, without a request; the view keeps its rotation
_MOVE_LEVEL = """(level, kind) => {
  const plot = document.querySelector('#solid .js-plotly-plot');
  if (plot && plot.data.length && plot.data[0].type === 'isosurface')
    window.Plotly.restyle(
      plot, {isomin: [kind === 'total' ? level : -level], isomax: [level]}, [0]);
  return [];
}"""


def build_page(jobs: Jobs, limits: Limits, materials: list[dict[str, str]]) -> gr.Blocks:
    """Build the page and its API.

    Parameters
    ----------
    jobs
        Jobs that the controls start.
    limits
        Limits of an upload, which the texts mention.
    materials
        ``material`` (id) and ``formula`` of the materials that a visitor can choose.
    """
    with gr.Blocks(title="rhosight", analytics_enabled=False, fill_width=True) as blocks:
        blocks.max_threads = 2 * limits.waiting  # the pool limits the number of jobs
        gr.HTML(fragments.render_header())
        page, search = _Page(jobs), SearchTab(jobs)
        with gr.Tab("Predict", elem_id="predict"):
            page.add_controls(limits, materials)
        with gr.Tab("Search for crystals", elem_id="design"):
            search.add_controls()
        page.connect_events(blocks)
        search.connect_events()
        add_endpoints(jobs, materials)
    return blocks


class _Page:
    """The controls, from top to bottom, and their events."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def add_controls(self, limits: Limits, materials: list[dict[str, str]]) -> None:
        """Add the controls to the block that is being built."""
        self.key = gr.State("")
        self._add_choice(limits, materials)
        self.example = gr.Button("Show an example: silicon", size="sm", elem_id="example")
        with gr.Row(elem_id="progress", elem_classes="rho-progress"):
            self.status = gr.HTML(fragments.render_status(""), elem_id="status")
            self.cancel = gr.Button(
                "Cancel", visible=False, size="sm", elem_id="cancel", min_width=90
            )
        self.summary = gr.HTML("", elem_id="summary")
        with gr.Column(visible=False, elem_id="density") as self.density:
            self._add_plane()
        with gr.Column(visible=False, elem_id="crystal") as self.crystal:
            self._add_crystal()
        self.nearest = gr.HTML("", elem_id="nearest")
        with gr.Column(visible=False, elem_id="why") as self.why:
            gr.HTML(fragments.render_heading("Why this prediction?"))
            self.explain = gr.Button("Explain", size="sm", elem_id="explain")
            self.explanation = gr.HTML("")

    def _add_choice(self, limits: Limits, materials: list[dict[str, str]]) -> None:
        with gr.Row(elem_id="choose", equal_height=True):
            self.file = gr.File(
                label=f"Files (CHGCAR, cube, XSF or CIF), up to {limits.file_bytes / MIB:g} MiB",
                file_count="multiple",
                elem_id="file",
                height=150,
                scale=3,
                min_width=280,
            )
            with gr.Column(scale=2, min_width=280):
                self.material = gr.Dropdown(
                    [(f"{m['formula']} · {m['material']}", m["material"]) for m in materials],
                    value=None,
                    label="Or a bundled material",
                    elem_id="material",
                )
                self.kind = gr.Radio(
                    UPLOADED, value="total", label="The file contains", elem_id="kind"
                )
                self.unit = gr.Dropdown(
                    [("that of its format", ""), *((unit, unit) for unit in UNITS)],
                    value="",
                    label="Unit of its values",
                    elem_id="unit",
                )

    def _add_plane(self) -> None:
        gr.HTML(fragments.render_heading("Density on a lattice plane"))
        with gr.Row(elem_id="plane"):
            self.indices = [
                gr.Number(
                    1,
                    label=name,
                    precision=0,
                    minimum=-MAX_INDEX,
                    maximum=MAX_INDEX,
                    min_width=60,
                    elem_id=f"index-{name}",
                )
                for name in "hkl"
            ]
            self.densest = gr.Button("Densest plane", size="sm", min_width=120, elem_id="densest")
            wide: dict[str, Any] = {"scale": 3, "min_width": 220, "buttons": []}
            self.offset = gr.Slider(
                -1, 1, 0, step=0.02, label="Offset (spacings d)", elem_id="offset", **wide
            )
            self.window = gr.Slider(
                2, 24, 8, step=0.5, label="Window (Å)", elem_id="window", **wide
            )
        self.plane_line = gr.HTML("")
        with gr.Row():
            self.figures = [
                gr.Plot(label=name, visible=False, min_width=290, elem_id=f"slice-{name}")
                for name in KINDS
            ]
        self.downloads = gr.HTML("")

    def _add_crystal(self) -> None:
        gr.HTML(fragments.render_heading("Structure and isosurface"))
        with gr.Row():
            self.surface = gr.Radio(["none"], value="none", label="Isosurface of", min_width=240)
            self.level = gr.Slider(
                0, 1, 0.5, label="Level (e/Å³)", min_width=220, buttons=[], elem_id="level"
            )
        self.solid = gr.Plot(show_label=False, elem_id="solid")

    def connect_events(self, blocks: gr.Blocks) -> None:
        """Connect each control to the job that it starts."""
        plane = [*self.indices, self.offset, self.window]
        # without the indices, or a response would overwrite what the visitor is typing
        slice_outputs = [self.plane_line, *self.figures, self.downloads]
        block_outputs = [self.solid, self.level, self.status]
        progress = [self.status, self.cancel]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        job: dict[str, Any] = {"trigger_mode": "always_last", **FREE, **private}
        shown_outputs = [
            *(self.key, self.file, self.material, *progress, self.summary, self.nearest),
            *(self.density, *self.indices, self.offset, *slice_outputs),
            *(self.crystal, self.surface, self.level, self.solid),
            *(self.why, self.explain, self.explanation, self.example),
        ]
        shown = gr.on(
            [self.file.upload, self.material.input],
            self._show,
            [self.file, self.material, self.kind, self.unit, self.window, self.key],
            shown_outputs,
            preprocess=False,
            **job,
        )
        example = self.example.click(
            self._show_example, [self.window, self.key], shown_outputs, preprocess=False, **job
        )
        explained = self.explain.click(
            self._explain, [self.key], [*progress, self.explain, self.explanation], **job
        )
        self.cancel.click(
            self._cancel,
            [self.key],
            [*progress, self.material, self.explanation],
            cancels=[shown, example, explained],
            **FREE,
            **private,
        )
        # while one job runs, only the latest change waits
        changes = [self.offset.change, self.window.change, *(n.input for n in self.indices)]
        gr.on(changes, self._cut, [self.key, *plane], slice_outputs, preprocess=False, **job)
        self.densest.click(
            self._cut_densest,
            [self.key, self.window],
            [*self.indices, self.offset, *slice_outputs],
            preprocess=False,
            **job,
        )
        self.surface.input(self._draw, [self.key, self.surface], block_outputs, **job)
        self.level.input(None, [self.level, self.surface], None, js=_MOVE_LEVEL)
        blocks.unload(self._leave)

    async def _show(
        self,
        files: list[dict[str, Any]] | None,
        material: str | None,
        kind: str,
        unit: str,
        window: float,
        old: str,
        request: gr.Request,
    ) -> AsyncIterator[dict[Any, Any]]:
        """Predict, then draw; each part appears as soon as it is ready.

        Of several files, the last that can be read is drawn. A browser that is behind skips all but
        the last outputs, so each contains those before it.
        """
        if not files and not material:  # the visitor has emptied the field
            return
        visitor = str(request.session_hash)
        self._jobs.forget(old)
        shown = self._clear() | ({self.material: None} if files else {})
        shown[self.example] = gr.Button(visible=False)
        yield {
            **shown,
            self.status: fragments.render_status("starting"),
            self.cancel: gr.Button(visible=True),
        }
        done = {**self._stop(), self.file: None}
        try:
            results: list[dict[str, Any]] = []
            problems: list[RhosightError] = []
            for file in files or [{"path": None}]:
                try:
                    updates = self._jobs.analyse(visitor, file["path"], material, kind, unit)
                    async for update in updates:
                        yield {self.status: fragments.render_status(update)}
                    results.append(update.result or {})
                except RhosightError as error:
                    problems.append(error)
            result = self._choose_last(results, problems)
            key, kinds = result["key"], result["kinds"]
            several = fragments.render_several(results, problems)
            shown |= self._show_prediction(result, several)
            yield shown
            if kinds:
                updates = self._jobs.cut_slices(visitor, key, DENSEST, 0.0, window, "figures")
                async for update in updates:
                    yield {self.status: fragments.render_status(update)}
                shown |= self._show_densest(key, update.result or {}, window)
                yield shown
            first = kinds[0] if kinds else "none"
            async for update in self._jobs.make_block(visitor, key, first, "figure"):
                yield {self.status: fragments.render_status(update)}
            yield {
                **shown,
                self.surface: gr.Radio([*kinds, "none"], value=first, visible=bool(kinds)),
                **self._show_solid(update.result or {}),
                **done,
            }
        except RhosightError as error:
            yield {**shown, **done, self.status: fragments.render_problem(error)}

    def _choose_last(
        self, results: list[dict[str, Any]], problems: list[RhosightError]
    ) -> dict[str, Any]:
        """Return the last result and forget the files of the others.

        Raises
        ------
        RhosightError
            The first problem, if there are no results.
        """
        if not results:
            raise problems[0]
        for one in results[:-1]:
            self._jobs.forget(one["key"])
        return results[-1]

    def _show_prediction(self, result: dict[str, Any], several: str) -> dict[Any, Any]:
        """Return the outputs of a prediction, below a table of several ones."""
        return {
            self.key: result["key"],
            self.file: None,
            self.summary: several + fragments.render_summary(result),
            self.nearest: fragments.render_nearest(result),
            self.density: gr.Column(visible=bool(result["kinds"])),
            self.crystal: gr.Column(visible=True),
            self.why: gr.Column(visible=True),
            # without its label Gradio shows an empty button after a page was left
            self.explain: gr.Button("Explain", visible=True),
        }

    async def _show_example(
        self, window: float, old: str, request: gr.Request
    ) -> AsyncIterator[dict[Any, Any]]:
        """Choose the example and show it."""
        yield {self.material: EXAMPLE}
        async for outputs in self._show(None, EXAMPLE, "total", "", window, old, request):
            yield outputs

    async def _cut(
        self,
        key: str,
        h: int | None,
        k: int | None,
        m: int | None,
        offset: float | None,
        window: float | None,
        request: gr.Request,
    ) -> dict[Any, Any]:
        # a field is empty while the visitor replaces its number
        if not key or None in (h, k, m) or offset is None or window is None:
            return {self.plane_line: gr.skip()}
        visitor = str(request.session_hash)
        updates = self._jobs.cut_slices(visitor, key, (h, k, m), offset, window, "figures")
        try:
            result = await _await_last(updates)
        except RhosightError as error:
            return {self.plane_line: fragments.render_problem(error)}
        return self._show_slices(key, result, offset, window)

    async def _cut_densest(
        self, key: str, window: float | None, request: gr.Request
    ) -> dict[Any, Any]:
        if not key or window is None:
            return {self.plane_line: gr.skip()}
        visitor = str(request.session_hash)
        try:
            result = await _await_last(
                self._jobs.cut_slices(visitor, key, DENSEST, 0.0, window, "figures")
            )
        except RhosightError as error:
            return {self.plane_line: fragments.render_problem(error)}
        return self._show_densest(key, result, window)

    async def _draw(self, key: str, kind: str, request: gr.Request) -> dict[Any, Any]:
        if not key:
            return {self.solid: None}
        try:
            result = await _await_last(
                self._jobs.make_block(str(request.session_hash), key, kind, "figure")
            )
        except RhosightError as error:
            return {self.status: fragments.render_problem(error)}
        return self._show_solid(result)

    async def _explain(self, key: str, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
        yield {self.cancel: gr.Button(visible=True)}
        try:
            async for update in self._jobs.explain(str(request.session_hash), key):
                yield {
                    self.status: fragments.render_status(update),
                    self.explanation: fragments.render_status(update),
                }
            yield {
                **self._stop(),
                self.explain: gr.Button(visible=False),
                self.explanation: fragments.render_explanation(update.result or {}),
            }
        except RhosightError as error:
            yield {**self._stop(), self.explanation: fragments.render_problem(error)}

    def _cancel(self, key: str) -> dict[Any, Any]:
        return {
            **self._stop(),
            **({} if key else {self.material: None}),
            self.status: fragments.render_status("cancelled"),
            self.explanation: "",
        }

    def _leave(self, request: gr.Request) -> None:
        self._jobs.leave(str(request.session_hash))

    def _stop(self) -> dict[Any, Any]:
        """Return the outputs for the end of a job."""
        return {self.status: fragments.render_status(""), self.cancel: gr.Button(visible=False)}

    def _clear(self) -> dict[Any, Any]:
        """Return outputs without a material, so that nothing of the previous one remains."""
        return {
            self.key: "",
            self.summary: "",
            self.nearest: "",
            **{part: gr.Column(visible=False) for part in (self.density, self.crystal, self.why)},
            self.plane_line: "",
            **{figure: gr.Plot(None, visible=False) for figure in self.figures},
            self.downloads: "",
            self.solid: None,
            self.explanation: "",
        }

    def _show_densest(self, key: str, result: dict[str, Any], window: float) -> dict[Any, Any]:
        """Return the outputs of :meth:`_show_slices` and the indices of the densest plane."""
        hkl = dict(zip(self.indices, result["hkl"], strict=True))
        return {**hkl, self.offset: 0, **self._show_slices(key, result, 0.0, window)}

    def _show_slices(self, key: str, result: dict[str, Any], offset: float, window: float) -> dict:
        figures = result["figures"]
        return {
            **{
                figure: gr.Plot(_make_plot(figures.get(name)), visible=name in figures)
                for name, figure in zip(KINDS, self.figures, strict=True)
            },
            self.plane_line: fragments.render_plane(result),
            self.downloads: fragments.render_downloads(key, result["hkl"], offset, window),
        }

    def _show_solid(self, result: dict[str, Any]) -> dict:
        span = result["level"]
        level = gr.Slider(
            minimum=span["least"],
            maximum=span["most"],
            value=span["value"],
            step=span["step"],
            visible=result["kind"] is not None,
        )
        return {self.solid: _make_plot(result["figure"]), self.level: level}


async def _await_last(updates: AsyncIterator[Update]) -> dict[str, Any]:
    async for update in updates:
        last = update
    return last.result or {}


def _make_plot(figure: str | None) -> PlotData | None:
    return PlotData(type="plotly", plot=figure) if figure else None
