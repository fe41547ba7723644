"""Rows to calibrate and judge by: given by the user, or drawn from the input ranges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.clear_steps import apply_steps
from tacit.errors import InputShapeError
from tacit.model_compiler.graph import Graph
from tacit.model_compiler.options import Array, CompileOptions
from tacit.model_compiler.passes.calibrate import Ranges

Floats = NDArray[np.float64]

_DRAWN_ROWS = 256


def core_rows(graph: Graph, options: CompileOptions) -> dict[str, Floats] | None:
    """Run the prologue on the calibration rows; each result has shape (rows, size).

    Raises:
        InputShapeError: an input is missing, or its rows do not fit the model.
    """
    given = options.calibration
    if given is None:
        return None
    if isinstance(given, Mapping):
        tensors = {name: np.asarray(values) for name, values in given.items()}
    else:
        tensors = {_only_input(graph): np.asarray(given)}
    shaped = {n: _row_shaped(n, tensors, shape) for n, shape in graph.model_inputs.items()}
    counts = {name: len(values) for name, values in shaped.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise InputShapeError(
            f"calibration inputs need the same number of rows, at least one; got {counts}"
        )
    ready = apply_steps(graph.prologue, shaped)
    count = next(iter(counts.values()))
    return {n: np.asarray(ready[n], dtype=np.float64).reshape(count, -1) for n in graph.inputs}


def _only_input(graph: Graph) -> str:
    if len(graph.model_inputs) != 1:
        raise InputShapeError(
            f"the model has inputs {list(graph.model_inputs)}: give calibration rows by name"
        )
    return next(iter(graph.model_inputs))


def _row_shaped(name: str, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    if name not in tensors:
        raise InputShapeError(f"calibration rows for input {name!r} are missing")
    values = tensors[name]
    if values.dtype.kind not in "fiub":
        raise InputShapeError(
            f"calibration rows for input {name!r} have dtype {values.dtype}: give real numbers"
        )
    if values.ndim < 1 or int(np.prod(values.shape[1:])) != int(np.prod(shape)):
        expected = ", ".join(["rows", *map(str, shape)])
        raise InputShapeError(
            f"calibration rows for input {name!r}: expected shape ({expected}), got {values.shape}"
        )
    return values.reshape(len(values), *shape)


def drawn_rows(graph: Graph, ranges: Ranges) -> dict[str, Floats]:
    """Draw rows uniformly from the input ranges, where there is no calibration data."""
    generator = np.random.default_rng(0)
    bounds = {name: ranges.tensors[name] for name in graph.inputs}
    return {
        name: generator.uniform(b.low, b.high, size=(_DRAWN_ROWS, len(b.low)))
        for name, b in bounds.items()
    }
