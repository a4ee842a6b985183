"""The page and its API: what a visitor sees, and which job each control starts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from ..errors import RhosightError
from . import cards
from .endpoints import FREE, add_endpoints
from .jobs import Jobs
from .limits import MAX_INDEX, MIB, Limits
from .pool import Update

STYLE = Path(__file__).parent / "page.css"

KINDS = ("total", "difference", "spin")

# Moves the surface in the browser: no request, and the view stays as it was turned
_MOVE_LEVEL = """(level, kind) => {
  const plot = document.querySelector('#solid .js-plotly-plot');
  if (plot && plot.data.length && plot.data[0].type === 'isosurface')
    window.Plotly.restyle(
      plot, {isomin: [kind === 'total' ? level : -level], isomax: [level]}, [0]);
  return [];
}"""

HEAD = '<meta name="color-scheme" content="light dark">'


def theme() -> gr.Theme:
    """Fonts of the visitor's own system; calm colours."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="slate",
        font=[gr.themes.Font(name) for name in fonts],
        font_mono=[gr.themes.Font(name) for name in mono],
        radius_size="sm",
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_300",
    )


def build_page(jobs: Jobs, limits: Limits, materials: list[dict[str, str]]) -> gr.Blocks:
    """The page and its API.

    Parameters
    ----------
    jobs
        What the controls start.
    limits
        For the texts.
    materials
        ``material`` (id) and ``formula`` of those that a visitor can choose.
    """
    choices = [(f"{m['formula']} · {m['material']}", m["material"]) for m in materials]
    with gr.Blocks(
        title="rhosight", analytics_enabled=False, fill_width=True, delete_cache=None
    ) as page:
        page.max_threads = 2 * limits.waiting  # waiting is the pool's business
        gr.HTML(cards.header())
        key = gr.State("")
        with gr.Row(elem_id="choose", equal_height=True):
            file = gr.File(
                label=f"CHGCAR, cube, XSF or CIF, {limits.file_bytes / MIB:g} MiB at most",
                elem_id="file",
                height=150,
                scale=3,
                min_width=280,
            )
            with gr.Column(scale=2, min_width=280):
                material = gr.Dropdown(
                    choices,
                    value=None,
                    label="or a bundled material",
                    elem_id="material",
                    filterable=True,
                )
                kind = gr.Radio(
                    ["total", "difference"],
                    value="total",
                    label="The file holds",
                    elem_id="kind",
                )
        with gr.Row(elem_id="progress"):
            status = gr.HTML(cards.status(""), elem_id="status")
            cancel = gr.Button("Cancel", visible=False, size="sm", elem_id="cancel", min_width=90)
        summary = gr.HTML("", elem_id="summary")
        with gr.Column(visible=False, elem_id="density") as density:
            gr.HTML(cards.heading("Density on a lattice plane"))
            with gr.Row(elem_id="plane"):
                indices = [
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
                densest = gr.Button("Densest plane", size="sm", min_width=120, elem_id="densest")
                offset = gr.Slider(
                    -1,
                    1,
                    0,
                    step=0.02,
                    label="Offset, spacings d",
                    min_width=240,
                    buttons=[],
                    elem_id="offset",
                    scale=3,
                )
                window = gr.Slider(
                    2,
                    24,
                    8,
                    step=0.5,
                    label="Window, Å",
                    min_width=200,
                    buttons=[],
                    elem_id="window",
                    scale=3,
                )
            plane_line = gr.HTML("")
            with gr.Row():
                figures = [
                    gr.Plot(label=name, visible=False, min_width=290, elem_id=f"slice-{name}")
                    for name in KINDS
                ]
            downloads = gr.HTML("")
        with gr.Column(visible=False, elem_id="crystal") as crystal:
            gr.HTML(cards.heading("Structure and isosurface"))
            with gr.Row():
                shown = gr.Radio(["none"], value="none", label="Surface of", min_width=240)
                level = gr.Slider(
                    0, 1, 0.5, label="Level, e/Å³", min_width=220, buttons=[], elem_id="level"
                )
            solid = gr.Plot(show_label=False, elem_id="solid")
        nearest = gr.HTML("", elem_id="nearest")
        with gr.Column(visible=False, elem_id="why") as why:
            gr.HTML(cards.heading("Why this prediction"))
            explain = gr.Button("Explain", size="sm", elem_id="explain")
            explanation = gr.HTML("")

        plane = [*indices, offset, window]
        outputs = [
            *(key, file, material, status, cancel, summary, nearest),
            *(density, *indices, offset, plane_line, *figures, downloads),
            *(crystal, shown, level, solid, why, explain, explanation),
        ]

        async def show(
            file: dict[str, Any] | None,
            material: str | None,
            kind: str,
            window: float,
            old: str,
            request: gr.Request,
        ) -> AsyncIterator[dict[Any, Any]]:
            if not file and not material:  # the field was emptied
                return
            visitor = str(request.session_hash)
            yield {status: cards.status("starting"), cancel: gr.Button(visible=True)}
            done = {
                file_field: None,
                status: cards.status(""),
                cancel: gr.Button(visible=False),
            }
            try:
                path = file["path"] if file else None
                async for update in jobs.analyse(visitor, path, material, kind):
                    yield {status: cards.status(update)}
                result = update.result
                new_key = result["key"]
                jobs.forget(old)
                has_density = bool(result["kinds"])
                yield {
                    key: new_key,
                    file_field: None,
                    summary: cards.summary(result),
                    nearest: cards.nearest(result),
                    density: gr.Column(visible=has_density),
                    crystal: gr.Column(visible=True),
                    why: gr.Column(visible=True),
                    explain: gr.Button(visible=True),
                    explanation: "",
                }
                if has_density:
                    async for update in jobs.slices(visitor, new_key, None, 0.0, window, "figures"):
                        yield {status: cards.status(update)}
                    yield {
                        offset: 0,
                        **dict(zip(indices, update.result["hkl"], strict=True)),
                        **shown_slices(new_key, update.result, 0.0, window),
                    }
                first = result["kinds"][0] if has_density else "none"
                async for update in jobs.block(visitor, new_key, first, "figure"):
                    yield {status: cards.status(update)}
                surfaces = [*result["kinds"], "none"]
                yield {
                    shown: gr.Radio(surfaces, value=first, visible=has_density),
                    **shown_solid(update.result),
                    **done,
                }
            except RhosightError as error:
                yield {**done, status: cards.problem(error)}

        def shown_slices(key: str, found: dict[str, Any], offset: float, window: float) -> dict:
            plots = {
                figure: gr.Plot(_plot(found["figures"].get(name)), visible=name in found["figures"])
                for name, figure in zip(KINDS, figures, strict=True)
            }
            return {
                **plots,
                plane_line: cards.plane(found),
                downloads: cards.downloads(key, found["hkl"], offset, window),
            }

        def shown_solid(found: dict[str, Any]) -> dict:
            span = found["level"]
            return {
                solid: _plot(found["figure"]),
                level: gr.Slider(
                    minimum=span["least"],
                    maximum=span["most"],
                    value=span["value"],
                    step=span["step"],
                    visible=found["kind"] is not None,
                ),
            }

        file_field = file

        async def cut(
            key: str, h: int, k: int, m: int, offset: float, window: float, request: gr.Request
        ) -> dict[Any, Any]:
            if not key:
                return {plane_line: ""}
            try:
                hkl = [h, k, m] if any((h, k, m)) else None
                found = await _last(
                    jobs.slices(str(request.session_hash), key, hkl, offset, window, "figures")
                )
            except RhosightError as error:
                return {plane_line: cards.problem(error)}
            return {
                **dict(zip(indices, found["hkl"], strict=True)),
                **shown_slices(key, found, offset, window),
            }

        async def tell_why(key: str, request: gr.Request) -> AsyncIterator[dict[Any, Any]]:
            yield {cancel: gr.Button(visible=True)}
            done = {status: cards.status(""), cancel: gr.Button(visible=False)}
            try:
                async for update in jobs.explain(str(request.session_hash), key):
                    yield {status: cards.status(update), explanation: cards.status(update)}
                found = update.result or {}
                yield {
                    **done,
                    explain: gr.Button(visible=False),
                    explanation: cards.explanation(found),
                }
            except RhosightError as error:
                yield {**done, explanation: cards.problem(error)}

        def leave(request: gr.Request) -> None:
            jobs.leave(str(request.session_hash))

        async def draw(key: str, kind: str, request: gr.Request) -> dict[Any, Any]:
            if not key:
                return {solid: None}
            try:
                found = await _last(jobs.block(str(request.session_hash), key, kind, "figure"))
            except RhosightError as error:
                return {status: cards.problem(error)}
            return shown_solid(found)

        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        again: dict[str, Any] = {"trigger_mode": "always_last", **FREE, **private}
        started = gr.on(
            [file.upload, material.input],
            show,
            [file, material, kind, window, key],
            outputs,
            preprocess=False,
            **again,
        )
        asked = explain.click(tell_why, [key], [status, cancel, explain, explanation], **again)
        cancel.click(
            lambda: {
                status: cards.status("cancelled"),
                cancel: gr.Button(visible=False),
                explanation: "",
            },
            None,
            [status, cancel, explanation],
            cancels=[started, asked],
            queue=False,
            **private,
        )
        cutting = [*indices, plane_line, *figures, downloads]
        gr.on(
            [*(number.submit for number in indices), *(number.blur for number in indices),
             offset.release, window.release],
            cut, [key, *plane], cutting, **again,
        )  # fmt: skip
        densest.click(lambda: (0, 0, 0, 0), None, [*indices, offset], queue=False, **private).then(
            cut, [key, *plane], cutting, **again
        )
        shown.input(draw, [key, shown], [solid, level, status], **again)
        level.input(None, [level, shown], None, js=_MOVE_LEVEL)
        page.unload(leave)
        add_endpoints(jobs, materials)
    return page


async def _last(updates: AsyncIterator[Update]) -> dict[str, Any]:
    async for update in updates:
        last = update
    return last.result or {}


def _plot(figure: str | None) -> PlotData | None:
    return PlotData(type="plotly", plot=figure) if figure else None
