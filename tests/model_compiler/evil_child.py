"""Runs in a process of its own, with bounded memory: imports files, tells each ending in JSON.

python -m tests.model_compiler.evil_child corpus|mutants MEMORY_BYTES SECONDS < JSON list
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
import onnx

from tacit.errors import TacitError
from tacit.model_compiler.graph import Graph
from tacit.model_compiler.onnx_import import import_onnx
from tests.model_compiler.evil_files import corpus
from tests.model_compiler.evil_parts import Source
from tests.model_compiler.mutants import mutant
from tests.model_compiler.onnx_models import random_rows, reference, run_imported


def main(what: str, keys: list[str], memory_bytes: int, seconds: int) -> None:
    """Import every file; a line before each one, and a line with its ending after."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    warnings.simplefilter("error")
    for key in keys:
        _tell({"started": key})
        with tempfile.TemporaryDirectory() as directory:
            source = _source(what, key, Path(directory))
            signal.alarm(seconds)
            ending, message = _ending(source, differential=what == "mutants")
            signal.alarm(0)
        _tell({"key": key, "ending": ending, "message": message})


def _source(what: str, key: str, directory: Path) -> Source:
    return mutant(int(key)) if what == "mutants" else corpus()[key].make(directory)


def _ending(source: Source, *, differential: bool) -> tuple[str, str]:
    """Return the name of the error and its text; "graph" if there was none."""
    try:
        graph = import_onnx(source, name="evil")
    except TacitError as error:
        return type(error).__name__, str(error)
    except BaseException as error:
        return f"crash: {type(error).__name__}", traceback.format_exc()
    if differential and isinstance(source, bytes):
        return _compared(graph, onnx.load_model_from_string(source))
    return "graph", ""


def _compared(graph: Graph, model: onnx.ModelProto) -> tuple[str, str]:
    """Run an imported mutant beside ONNX's reference, where that can run it and stays finite."""
    feeds = random_rows(dict(graph.model_inputs), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = [np.asarray(array, np.float64) for array in reference(model, feeds)]
        except Exception as error:
            return "graph", f"the reference cannot run it: {error}"
        if not all(np.isfinite(array).all() for array in expected):
            return "graph", "the reference is not finite"
        got = run_imported(graph, feeds)
    for one, other in zip(got, expected, strict=True):
        size = np.abs(other).max(initial=1.0)
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-6, atol=1e-6 * size):
            return "wrong", f"{one.shape} {other.shape}"
    return "equal", ""


def _tell(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin), int(sys.argv[2]), int(sys.argv[3]))
