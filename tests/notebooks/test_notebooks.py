"""The notebooks run from top to bottom, and are kept with their outputs, small."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import deformable_detr

PROJECT = Path(__file__).parents[2]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
MOST_BYTES = 800_000
EPOCHS, FEWER_EPOCHS = '"--epochs", "6"', '"--epochs", "2"'    # of a training; no later cell needs a good result


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_as_it_ran(path: Path) -> None:
    """From top to bottom, without errors and without traces of a machine."""
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for output in outputs_of(notebook)} <= {"stream", "display_data", "execute_result"}
    assert path.stat().st_size < MOST_BYTES
    without_pictures = re.sub(r"[A-Za-z0-9+/=]{200,}", "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"/(?:home|root|work|tmp|usr|Users)/", without_pictures)
    for link in re.findall(r"\]\(([^)\s]+)\)", without_pictures):
        assert link.startswith("http") or (path.parent / link.partition("#")[0]).exists(), link


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "tests").symlink_to(PROJECT / "tests")
    package = str(Path(deformable_detr.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(EPOCHS, FEWER_EPOCHS)
    assert path.stem != "train_on_your_data" or any(FEWER_EPOCHS in cell.source for cell in notebook.cells)
    pictures = sum("image/jpeg" in output.get("data", {}) for output in outputs_of(notebook))
    client = NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()     # an error in a cell is raised
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs_of(notebook)) == pictures > 0
