"""The tutorials run as they stand, with small parameters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="extra `dev` not installed")
nbclient = pytest.importorskip("nbclient", reason="extra `dev` not installed")
pytest.importorskip("ipykernel", reason="extra `dev` not installed")
pytest.importorskip("sklearn", reason="extra `demo` not installed")

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"
SMALL = """
ITERATIONS, DEGREE, JOINT_ITERATIONS, PATIENTS = 2, 3, 2, 40
"""
INSECURE = """
from tests.e2e.serve_joint_training import compile_insecurely as COMPILE
INSECURE, LEAST_SMUDGING_BITS = True, 4
"""


def executed(name: str, added: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a notebook with lines added to tagged cells; returns it with its outputs."""
    notebook = nbformat.read(TUTORIALS / name, as_version=4)
    for tag, lines in added.items():
        (cell,) = [c for c in notebook.cells if tag in c.metadata.get("tags", [])]
        cell.source += "\n" + lines
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3").execute()
    return notebook


def said(notebook: Any) -> str:
    """What the cells printed."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_tutorial_of_four_hospitals_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from tacit.kernels.build import build_if_stale

    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    printed = said(
        executed("four_hospitals.ipynb", {"parameters": SMALL, "security": INSECURE}, monkeypatch)
    )
    assert "area under the curve: encrypted" in printed
    auc, clear = (
        float(part.split()[-1].rstrip(","))
        for part in printed.partition("area under the curve: ")[2].splitlines()[0].split(", ")
    )
    assert auc > 0.75  # made-up patients, two iterations: scikit-learn has about 0.9
    assert abs(auc - clear) < 0.15
    assert "risks differ by" in printed
    assert "released" in printed
    joint = float(printed.partition("several parties ")[2].split(",")[0])
    assert abs(joint - clear) < 0.15
    assert (
        float(printed.partition("has the same model, up to ")[2].split()[0]) < 0.05
    )  # noise of shares


def test_tutorials_are_kept_without_outputs() -> None:
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells), path.name
