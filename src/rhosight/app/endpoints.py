"""The API: named Gradio endpoints that do what the page does and return numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from ..errors import RhosightError
from .checks import CERTAIN
from .jobs import Jobs
from .pool import Update

FREE: dict[str, Any] = {"concurrency_limit": None}
"""Options of every event: the pool limits how many jobs run, not Gradio."""


def add_endpoints(jobs: Jobs, materials: list[dict[str, str]]) -> None:
    """Add the endpoints to the page that is being built.

    Parameters
    ----------
    jobs
        Runs the tasks behind the endpoints.
    materials
        ``material`` (id) and ``formula`` of the bundled materials.
    """
    _add_predict(jobs)
    _add_slice(jobs)
    _add_block(jobs)
    _add_explain(jobs)
    _add_design(jobs)

    def list_materials() -> list[dict[str, str]]:
        return materials

    def forget(key: str) -> str:
        jobs.forget(key)
        return "deleted"

    gr.api(
        list_materials,
        api_name="materials",
        api_description="List the bundled materials: id and formula.",
        **FREE,
    )
    gr.api(
        forget,
        api_name="forget",
        api_description="Delete the stored data of a material; closing the page deletes it too.",
        **FREE,
    )


def _add_predict(jobs: Jobs) -> None:
    async def predict(
        file: dict[str, Any] | None,
        material: str,
        kind: str,
        unit: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008, how Gradio passes it
    ) -> dict[str, Any]:
        if not file and not material:
            raise gr.Error("give a file or the id of a bundled material", print_exception=False)
        if file and not isinstance(file, dict):
            raise gr.Error("file: give one uploaded file", print_exception=False)
        path = file["path"] if file else None
        updates = jobs.analyse(str(request.session_hash), path, material, kind, unit)
        return await _await_result(updates, progress)

    with gr.Column(visible=False):
        upload = {"path": "CHGCAR", "meta": {"_type": "gradio.FileData"}}
        file = _give_example(gr.File(label="file"), upload)
        material = _give_example(gr.Textbox("", label="material"), "")
        kind = _give_example(gr.Textbox("total", label="kind"), "total")
        unit = _give_example(gr.Textbox("", label="unit"), "")
        answer = gr.JSON(label="prediction")
        gr.Button().click(
            predict,
            [file, material, kind, unit],
            answer,
            api_name="predict",
            api_description=(
                "Read a density (CHGCAR, cube, XSF) or a CIF, or take a bundled material by its "
                "id, and predict its properties. kind: the content of the file, total, "
                f"difference or spin, or `{CERTAIN}` if its name or comment says otherwise. unit: "
                "e/bohr3, e/angstrom3 or e (electrons per cell); empty for that of the format. "
                "The other endpoints take the `key` of the result."
            ),
            preprocess=False,
            **FREE,
        )


def _give_example(component: Any, value: Any) -> Any:
    """Return a component with this value as its example on the API page."""
    component.example_payload = component.example_value = lambda: value
    return component


def _add_slice(jobs: Jobs) -> None:
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
        return await _await_result(jobs.cut_slices(visitor, key, (h, k, l), offset, window, "data"))

    gr.api(
        slice,
        api_name="slice",
        api_description=(
            "Cut the densities along a lattice plane: x and y in Å, values in e/Å³. h, k, l: "
            "Miller indices of the conventional cell, all 0 for the densest plane; offset: in "
            "interplanar spacings; window: side in Å."
        ),
        **FREE,
    )


def _add_block(jobs: Jobs) -> None:
    async def block(request: gr.Request, key: str, kind: str = "total") -> dict[str, Any]:
        visitor = str(request.session_hash)
        return await _await_result(jobs.make_block(visitor, key, kind, "data"))

    gr.api(
        block,
        api_name="block",
        api_description=(
            "Return the atoms (Å) in the conventional cell, and one kind of density (e/Å³) on a "
            "grid in it."
        ),
        **FREE,
    )


def _add_explain(jobs: Jobs) -> None:
    async def explain(request: gr.Request, key: str) -> dict[str, Any]:
        return await _await_result(jobs.explain(str(request.session_hash), key))

    gr.api(
        explain,
        api_name="explain",
        api_description=(
            "Return the Shapley value of each modality. The base (the mean prediction for the "
            "training set) and the Shapley values sum to the prediction."
        ),
        **FREE,
    )


def _add_design(jobs: Jobs) -> None:
    async def design(
        request: gr.Request,
        targets: list[str],
        elements: list[str] | None = None,
        exclude: list[str] | None = None,
        candidates: int = 150,
        count: int = 5,
        max_atoms: int = 8,
        known: bool = False,
    ) -> dict[str, Any]:
        asked = {
            "targets": targets,
            "elements": elements,
            "exclude": exclude,
            "candidates": candidates,
            "count": count,
            "max_atoms": max_atoms,
            "known": known,
        }
        return await _await_result(jobs.design(str(request.session_hash), asked))

    gr.api(
        design,
        api_name="design",
        api_description=(
            "Search for crystals whose properties lie in ranges. targets: texts such as "
            "bulk_modulus_vrh=200..250, formation_energy_per_atom=..-0.5 or "
            "energy_above_hull=..0.1; elements: the only ones that may occur; exclude: those that "
            "may not; candidates: crystals to try; count: proposals; max_atoms: in the primitive "
            "cell; known: also propose crystals of the bundled datasets."
        ),
        **FREE,
    )


async def _await_result(
    updates: AsyncIterator[Update], progress: gr.Progress | None = None
) -> dict[str, Any]:
    """Return the result of a job; pass its updates to Gradio's progress."""
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
