"""The notebooks of the documentation run from their first cell to their last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert len(outputs) >= 4, "a notebook that shows nothing"


def test_notebooks_show_what_they_print_and_draw():
    """They are read on the web, too; `make notebooks` tells if the outputs are out of date."""
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert path.stat().st_size < 1_000_000
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        outputs = [output for cell in cells for output in cell.outputs]
        assert len(outputs) >= 4, path.name
        assert any("image/png" in output.get("data", {}) for output in outputs), path.name
        assert not any(output.output_type == "error" for output in outputs), path.name
        assert all(cell.execution_count == n for n, cell in enumerate(cells, start=1)), path.name
        text = path.read_text(encoding="utf-8")
        roots = {"tmp", "home", "Users", *(place.name for place in Path("/").iterdir())}
        assert not [root for root in roots if f"/{root}/" in text], path.name
