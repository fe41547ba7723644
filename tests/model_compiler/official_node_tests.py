"""ONNX's own node tests on simulated circuits: which there are, and how each one ends."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from onnx import ModelProto
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from tacit.clear_operations import Array
from tacit.errors import TacitError
from tacit.model_compiler.onnx_ops.table import core_rules
from tacit.onnx_backend import prepare

LARGEST = 1 << 14
# Of the output's range, where a polynomial stands in for a function.
APPROXIMATED = 2.0**-5


class Outcome(str, Enum):
    """How a test ended."""

    PASSED = "passed"
    REFUSED = "refused"
    WRONG = "wrong"


@dataclass(frozen=True)
class Result:
    """One test's outcome; `reason` is the refusal or the error."""

    name: str
    operator: str
    outcome: Outcome
    reason: str = ""


def node_tests(operators: Sequence[str] = ()) -> list[TestCase]:
    """Return the tests of operators that are computed on encrypted values.

    Tests with tensors of more than 2^14 elements are left out, and functions written out
    ("expanded"), whose operators have tests of their own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    known = set(operators) or {op for _, op in core_rules()}
    return [
        case
        for case in cases
        if case.model is not None
        and "_expanded" not in case.name
        and len(case.model.graph.node) == 1
        and case.model.graph.node[0].op_type in known
        and _largest(case) <= LARGEST
    ]


def run(case: TestCase) -> Result:
    """Run one test in simulation."""
    model = case.model or ModelProto()
    operator = model.graph.node[0].op_type
    representation = prepare(model)
    for inputs, expected in case.data_sets or ():
        try:
            got = representation.run(inputs)
        except TacitError as error:
            return Result(case.name, operator, Outcome.REFUSED, str(error))
        for found, wanted in zip(got, expected, strict=True):
            approximated = representation.approximated
            problem = _difference(found, np.asarray(wanted), case, approximated=approximated)
            if problem:
                return Result(case.name, operator, Outcome.WRONG, problem)
    return Result(case.name, operator, Outcome.PASSED)


def _largest(case: TestCase) -> int:
    arrays = [np.asarray(a) for sets in case.data_sets or () for arrays in sets for a in arrays]
    return max((array.size for array in arrays), default=0)


def _difference(found: Array, wanted: Array, case: TestCase, *, approximated: bool) -> str:
    if found.shape != wanted.shape:
        return f"shape {found.shape} instead of {wanted.shape}"
    if not wanted.size:
        return ""
    span = float(np.ptp(wanted)) if wanted.size > 1 else float(np.abs(wanted).max())
    if approximated:
        error = float(np.abs(found - wanted).max()) / max(span, 1e-9)
        return "" if error < APPROXIMATED else f"off by {error:.2g} of the range"
    close = np.allclose(found, wanted, rtol=case.rtol, atol=max(case.atol, 1e-6 * span))
    return "" if close else f"off by {np.abs(found - wanted).max():.2g}"
