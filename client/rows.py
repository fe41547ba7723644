"""From what a caller passes to what one request carries: inputs by name, the plan, the cuts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tacit.errors import ArtifactError, InputShapeError, UserError
from tacit.signature import Plan, Signature, TensorSpec
from tacit.wire import Packing, ciphertext_frame_bytes

Array = NDArray[Any]
Inputs = ArrayLike | Mapping[str, ArrayLike]

_REQUEST_BYTES = 48 << 20
_REQUEST_EVALUATIONS = 64


def named_inputs(signature: Signature, inputs: Inputs) -> dict[str, Array]:
    """Return inputs by name, as arrays of numbers.

    Raises:
        InputShapeError: not numbers, or one array for a model with several inputs.
    """
    names = list(signature.model_inputs)
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputShapeError(f"the model reads {names}: pass a dict of arrays by name")
        inputs = {names[0]: inputs}
    try:
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
    except ValueError as error:
        raise InputShapeError(f"the inputs are not arrays: {error}") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputShapeError(f"input {name!r} has dtype {array.dtype}, numbers are expected")
        if array.ndim < 1:
            raise InputShapeError(f"input {name!r} has no axis of rows: its first axis is rows")
    return arrays


def choose_plan(signature: Signature, name: str | None, rows: int) -> Plan:
    """Return the named plan, or the one predicted to answer first.

    Raises:
        UserError: the model has no such plan.
    """
    if name is None:
        return signature.plan_for(rows)
    try:
        return signature.plan(name)
    except ArtifactError as error:
        raise UserError(str(error)) from error


def request_parts(signature: Signature, plan: Plan, evaluations: int) -> Iterator[slice]:
    """Cut evaluations into requests of at most 48 MiB and 64 evaluations."""
    each = _evaluation_bytes(signature, plan.inputs)
    step = max(1, min(_REQUEST_EVALUATIONS, _REQUEST_BYTES // each))
    for start in range(0, evaluations, step):
        yield slice(start, min(start + step, evaluations))


def _evaluation_bytes(signature: Signature, specs: Sequence[TensorSpec]) -> int:
    params = signature.params
    return sum(
        spec.layout.ciphertexts
        * ciphertext_frame_bytes(Packing.BITS, params.log_n, params.moduli[: spec.level + 1])
        for spec in specs
    )


def chosen_output(outputs: Mapping[str, Array], name: str | None) -> Array:
    """Return the named output, or the first.

    Raises:
        UserError: the model has no such output.
    """
    if name is None:
        return next(iter(outputs.values()))
    if name not in outputs:
        raise UserError(f"no output {name!r}: the model answers with {list(outputs)}")
    return outputs[name]
