"""Hostile ONNX files end with one clear error: no crash, no hang, no memory, nothing wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tacit.errors import InputShapeError, ModelError, UserError
from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.pipeline import compile_model
from tacit.runtime.simulate import simulate
from tests.model_compiler.evil_files import corpus
from tests.model_compiler.onnx_models import build, random_rows, reference, run_imported

ROOT = Path(__file__).resolve().parents[2]
CHILD = "tests.model_compiler.evil_child"
MEMORY_BYTES = 4 << 30
SECONDS = 100
LONGEST_MESSAGE = 1500


@dataclass(frozen=True)
class Ending:
    """How an import ended: the error's class, or "graph", "equal", "wrong", "crash", "died"."""

    kind: str
    message: str


def _endings(what: str, keys: Iterable[str]) -> dict[str, Ending]:
    """Import files in child processes; one that dies is replaced, and the file named."""
    todo, found = list(keys), dict[str, Ending]()
    paths = [str(ROOT / "src"), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    while todo:
        child = subprocess.run(
            [sys.executable, "-m", CHILD, what, str(MEMORY_BYTES), str(SECONDS)],
            input=json.dumps(todo),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        found.update({x["key"]: Ending(x["ending"], x["message"]) for x in lines if "key" in x})
        if lines and "started" in lines[-1]:
            reason = f"exit status {child.returncode}: {child.stderr[-500:]}"
            found[lines[-1]["started"]] = Ending("died", reason)
        assert lines, child.stderr
        todo = [key for key in todo if key not in found]
    return found


@pytest.fixture(scope="module")
def endings() -> Mapping[str, Ending]:
    return _endings("corpus", corpus())


@pytest.mark.parametrize("name", corpus())
def test_an_evil_file_ends_with_one_error_that_says_what_is_wrong(
    name: str, endings: Mapping[str, Ending]
) -> None:
    ending = endings[name]
    assert ending.kind in ("ModelError", "UnsupportedModelError"), ending
    assert re.search(corpus()[name].says, ending.message), ending.message
    assert len(ending.message) < LONGEST_MESSAGE
    assert ending.message.count(":") >= 1  # what is wrong: what to do


def _judge_mutants(seeds: range) -> Counter[str]:
    found = _endings("mutants", map(str, seeds))
    allowed = {"ModelError", "UnsupportedModelError", "graph", "equal"}
    bad = {seed: ending for seed, ending in found.items() if ending.kind not in allowed}
    assert not bad
    assert max(len(ending.message) for ending in found.values()) < 20 * LONGEST_MESSAGE
    return Counter(ending.kind for ending in found.values())


def test_mutants_are_refused_or_mean_what_the_reference_says() -> None:
    counts = _judge_mutants(range(600))
    assert counts["equal"] > 30
    assert counts["ModelError"] > 30
    assert counts["UnsupportedModelError"] > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_mutants_are_refused_or_mean_what_the_reference_says() -> None:
    assert _judge_mutants(range(600, 20_600))["equal"] > 1000


ODD = {
    "boolean_weights": ("Y = MatMul(X, W)", {"W": np.arange(16).reshape(4, 4) % 3 == 0}),
    "integer_weights": ("Y = MatMul(X, W)", {"W": np.arange(16).reshape(4, 4)}),
    "half_precision": ("Y = MatMul(X, W)", {"W": np.arange(16.0, dtype=np.float16).reshape(4, 4)}),
    "reflections_beyond_the_edge": (
        'H = MatMul(X, W)\nY = Pad<mode="reflect">(H, P)',
        {"W": np.eye(4), "P": np.array([0, 9, 0, 9])},
    ),
    "stride_beyond_the_end": (
        "U = Unsqueeze(X, A)\nM = MaxPool<kernel_shape=[2], strides=[9]>(U)\nY = Flatten(M)",
        {"A": np.array([1])},
    ),
    "infinite_bounds": (
        "H = MatMul(X, W)\nY = Clip(H, L, T)",
        {"L": np.array(-np.inf), "T": np.array(np.inf), "W": np.eye(4) + 0.5},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_legal_files_mean_what_the_reference_says(name: str) -> None:
    text, constants = ODD[name]
    model = build(text, {"X": (4,)}, constants)
    feeds = random_rows({"X": (4,)}, 3)
    graph = import_onnx(model, name="odd")
    weights = {key: np.asarray(array, np.float64) for key, array in constants.items()}
    plain = {k: v if constants[k].dtype.kind == "i" and k != "W" else weights[k]
             for k, v in constants.items()}  # fmt: skip
    (expected,) = reference(build(text, {"X": (4,)}, plain), feeds)
    (got,) = run_imported(graph, feeds)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


BAD_ROWS = {
    "nan": (np.full((5, 4), np.nan), "NaN|finite"),
    "infinite": (np.full((5, 4), np.inf), "NaN|finite"),
    "other_width": (np.ones((5, 3)), "4"),
    "no_rows": (np.ones((0, 4)), "row"),
    "text": (np.full((5, 4), "a"), "number|dtype|float"),
    "complex": (np.full((5, 4), 1j), "number|dtype|float|real"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_calibration_rows_are_refused(name: str, tmp_path: Path) -> None:
    rows, says = BAD_ROWS[name]
    model = build("H = MatMul(X, W)\nY = Relu(H)", {"X": (4,)}, {"W": np.eye(4)})
    with pytest.raises((InputShapeError, ModelError), match=says):
        compile_model(model, tmp_path, options=CompileOptions(calibration=rows))


GROWING = {
    "enormous_weights": np.full((4, 4), 1e30),
    "enormous_products": np.full((4, 4), 1e15),
    "vanishing_weights": np.full((4, 4), 1e-38),
    "zero_weights": np.zeros((4, 4)),
}


@pytest.mark.parametrize("name", GROWING)
def test_values_that_grow_without_bound_compile_right_or_are_refused(
    name: str, tmp_path: Path
) -> None:
    text = "A = MatMul(X, W)\nB = Mul(A, A)\nY = Mul(B, B)"
    model = build(text, {"X": (4,)}, {"W": GROWING[name]})
    rows = np.random.default_rng(0).uniform(-1.0, 1.0, size=(64, 4))
    try:
        artifact = compile_model(model, tmp_path, options=CompileOptions(calibration=rows))
    except UserError:
        return
    (expected,) = reference(model, {"X": rows})
    got = simulate(artifact, rows).outputs["Y"]
    span = float(np.abs(expected).max())
    assert np.abs(got - expected).max() <= 2.0**-10 * span
