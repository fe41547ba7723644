"""From a model's rows to slot vectors and back: what client and simulator share.

rows --prologue--> core tensors --scale, layout--> slot vectors in [-1, 1]
slot vectors --layout, scale--> core tensors --epilogue--> the model's outputs
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.clear_steps import apply_steps
from tacit.errors import InputRangeError, InputShapeError
from tacit.signature import Plan, Signature, TensorSpec

Floats = NDArray[np.float64]


def core_inputs(
    signature: Signature, inputs: Mapping[str, NDArray[np.generic]]
) -> dict[str, Floats]:
    """Check shapes and run the prologue.

    Args:
        signature: the model's public half.
        inputs: for each model input, shape (rows, ...) with the model's per-row shape.

    Returns:
        For each input of the encrypted core, shape (rows, size), float64.

    Raises:
        InputShapeError: a tensor is missing, has another shape, or row counts differ.
    """
    for name, shape in signature.model_inputs.items():
        if name not in inputs:
            raise InputShapeError(
                f"input {name!r} is missing; the model reads {list(signature.model_inputs)}"
            )
        _check_shape(name, inputs[name], shape)
    rows = {len(inputs[name]) for name in signature.model_inputs}
    if len(rows) != 1 or 0 in rows:
        raise InputShapeError(f"inputs must have the same number of rows, at least one, got {rows}")
    tensors = apply_steps(signature.prologue, dict(inputs))
    count = rows.pop()
    names = [spec.name for spec in signature.plans[0].inputs]
    return {n: np.asarray(tensors[n], dtype=np.float64).reshape(count, -1) for n in names}


def _check_shape(name: str, value: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if value.shape[1:] == shape or int(np.prod(value.shape[1:])) == int(np.prod(shape)):
        return
    expected = ", ".join(["rows", *map(str, shape)])
    raise InputShapeError(f"input {name!r}: expected shape ({expected}), got {value.shape}")


def model_outputs(
    signature: Signature, outputs: Mapping[str, Floats]
) -> dict[str, NDArray[np.generic]]:
    """Run the epilogue on core outputs of shape (rows, size); returns the model's outputs."""
    shapes = {spec.name: spec.shape for spec in signature.plans[0].outputs}
    tensors: dict[str, NDArray[np.generic]] = {
        name: value.reshape(len(value), *shapes[name]) for name, value in outputs.items()
    }
    finished = apply_steps(signature.epilogue, tensors)
    return {name: finished[name] for name in signature.model_outputs}


def pack(plan: Plan, tensors: Mapping[str, Floats], *, clip: bool = False) -> Floats:
    """Scale and place core inputs, and the row with a known answer where the plan has one.

    Args:
        plan: the plan to pack for.
        tensors: for each input, shape (rows, size).
        clip: move values outside the calibrated range to its edge instead of refusing them.

    Returns:
        Shape (evaluations, ciphertexts of all inputs, slots), values in [-1, 1].

    Raises:
        InputRangeError: a value outside the calibrated range, or not finite, and not `clip`.
    """
    stored = [_to_stored(spec, tensors[spec.name], clip) for spec in plan.inputs]
    rows = len(stored[0])
    return np.stack(
        [
            np.concatenate(
                [
                    _placed(plan, spec, values[start : start + plan.batch])
                    for spec, values in zip(plan.inputs, stored, strict=True)
                ]
            )
            for start in range(0, rows, plan.batch)
        ]
    )


def known_vectors(plan: Plan) -> Floats | None:
    """Return one evaluation of nothing but the inputs whose answer is known.

    Returns:
        Shape (1, ciphertexts of all inputs, slots); None if the plan has no known answer.
    """
    known = plan.known_answer or plan.probe
    if known is None:
        return None
    nobodys = ((spec, np.zeros((0, spec.layout.size))) for spec in plan.inputs)
    parts = [spec.layout.pack(known.with_rows(spec, rows)) for spec, rows in nobodys]
    return np.concatenate(parts)[None]


def _placed(plan: Plan, spec: TensorSpec, rows: Floats) -> Floats:
    if plan.known_answer is not None:
        rows = plan.known_answer.with_rows(spec, rows)
    return spec.layout.pack(rows)


def unpack(plan: Plan, vectors: Floats, rows: int) -> dict[str, Floats]:
    """Read core outputs from slot vectors.

    Args:
        plan: the plan the vectors belong to.
        vectors: shape (evaluations, ciphertexts of all outputs, slots).
        rows: rows that were packed.

    Returns:
        For each output, shape (rows, size), in value units.
    """
    counts = [spec.layout.ciphertexts for spec in plan.outputs]
    if vectors.ndim != 3 or vectors.shape[1] != sum(counts):
        raise InputShapeError(
            f"plan {plan.name!r} has {sum(counts)} output ciphertexts, got shape {vectors.shape}"
        )
    parts = np.split(vectors, np.cumsum(counts)[:-1], axis=1)
    return {
        spec.name: _from_stored(spec, part, plan.batch, rows)
        for spec, part in zip(plan.outputs, parts, strict=True)
    }


def _to_stored(spec: TensorSpec, values: Floats, clip: bool) -> Floats:
    if not np.all(np.isfinite(values)):
        raise InputRangeError(f"input {spec.name!r} holds values that are not finite")
    if clip:
        values = np.clip(values, spec.low, spec.high)
    slack = 1e-6 * (np.asarray(spec.high) - np.asarray(spec.low))
    outside = (values < spec.low - slack) | (values > spec.high + slack)
    if np.any(outside):
        row, column = (int(i) for i in np.argwhere(outside)[0])
        low, high = (np.broadcast_to(b, values.shape[1:])[column] for b in (spec.low, spec.high))
        raise InputRangeError(
            f"input {spec.name!r}: {int(outside.sum())} value(s) outside the calibrated range, "
            f"the first in row {row}, element {column} (range [{low:.6g}, {high:.6g}]): check the "
            "units, ask for clipping, or have the model compiled with wider calibration rows"
        )
    return (values - spec.offset) / spec.scale


def _from_stored(spec: TensorSpec, part: Floats, batch: int, rows: int) -> Floats:
    pieces = [
        spec.layout.unpack(vectors, min(batch, rows - index * batch))
        for index, vectors in enumerate(part)
    ]
    return np.concatenate(pieces) * spec.scale + spec.offset
