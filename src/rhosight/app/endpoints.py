"""The API: named endpoints of Gradio, which do what the page does and give numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ..errors import RhosightError
from .jobs import Jobs
from .pool import Update

FREE = {"concurrency_limit": None}  # the pool decides whose turn it is


def add_endpoints(jobs: Jobs, materials: list[dict[str, str]]) -> None:
    """Add the endpoints to the page that is being built."""

    async def predict(
        file: dict[str, Any] | None,
        material: str,
        kind: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, how Gradio passes it
    ) -> dict[str, Any]:
        if not file and not material:
            raise gr.Error("give a file, or the id of a bundled material", print_exception=False)
        if file and not isinstance(file, dict):
            raise gr.Error("file: give one uploaded file", print_exception=False)
        path = file["path"] if file else None
        updates = jobs.analyse(str(request.session_hash), path, material, kind)
        return await _answer(updates, progress)

    async def slice(
        request: gr.Request,
        key: str,
        h: int = 0,
        k: int = 0,
        l: int = 0,  # noqa: E741, the Miller index
        offset: float = 0.0,
        window: float = 8.0,
    ) -> dict[str, Any]:
        visitor = str(request.session_hash)
        return await _answer(jobs.slices(visitor, key, (h, k, l), offset, window, "data"))

    async def block(request: gr.Request, key: str, kind: str = "total") -> dict[str, Any]:
        visitor = str(request.session_hash)
        return await _answer(jobs.block(visitor, key, kind, "data"))

    async def explain(request: gr.Request, key: str) -> dict[str, Any]:
        return await _answer(jobs.explain(str(request.session_hash), key))

    def forget(key: str) -> str:
        jobs.forget(key)
        return "deleted"

    def list_materials() -> list[dict[str, str]]:
        return materials

    with gr.Column(visible=False):
        file = gr.File(label="file")
        material = gr.Textbox("", label="material")
        kind = gr.Textbox("total", label="kind")
        answer = gr.JSON(label="prediction")
        gr.Button().click(
            predict,
            [file, material, kind],
            answer,
            api_name="predict",
            api_description=(
                "Read a density (CHGCAR, cube, XSF) or a CIF, or take a bundled material by its "
                "id, and predict. kind: what the file holds, total or difference. The answer's "
                "`key` is for the other endpoints."
            ),
            preprocess=False,
            **FREE,
        )
    gr.api(
        slice,
        api_name="slice",
        api_description=(
            "The densities on a lattice plane: x and y in Å, values in e/Å³. Miller indices of "
            "the conventional cell, all 0 for the densest plane; offset in interplanar spacings; "
            "window in Å."
        ),
        **FREE,
    )
    gr.api(
        block,
        api_name="block",
        api_description=(
            "Atoms (Å) in the conventional cell, and one kind of density (e/Å³) on a grid in it."
        ),
        **FREE,
    )
    gr.api(
        explain,
        api_name="explain",
        api_description=(
            "Shapley values of each modality: base (the mean over the training materials) and "
            "they sum to the prediction."
        ),
        **FREE,
    )
    gr.api(
        list_materials,
        api_name="materials",
        api_description="The bundled materials: id and formula.",
        **FREE,
    )
    gr.api(
        forget,
        api_name="forget",
        api_description="Delete what is kept of a material; leaving does it as well.",
        **FREE,
    )


async def _answer(
    updates: AsyncIterator[Update], progress: gr.Progress | None = None
) -> dict[str, Any]:
    """The result of a job, its updates as Gradio's progress."""
    result: dict[str, Any] = {}
    try:
        async for update in updates:
            if update.result is not None:
                result = update.result
            elif progress is None:
                continue
            elif update.place:
                progress(0, desc=update.label or f"waiting, place {update.place}")
            else:
                progress((update.step, update.steps), desc=update.label)
    except RhosightError as error:
        raise gr.Error(str(error), print_exception=False) from None
    return result
