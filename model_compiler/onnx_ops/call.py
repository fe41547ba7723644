"""One operator to translate: its operands, its attributes and where its result goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tacit.errors import UnsupportedModelError
from tacit.model_compiler.onnx_ops.builder import Floats, GraphBuilder, Mask, Value
from tacit.model_compiler.onnx_ops.loading import MAX_ROW_ELEMENTS, OnnxNode

Constant = NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class ConstantTensor:
    """A constant of the model.

    Attributes:
        array: its value when the model is given `RowCount.value` rows.
        other: its value for another number of rows, if it was computed from the number of rows.
    """

    array: Constant
    other: Constant | None = None

    @property
    def depends_on_rows(self) -> bool:
        """Whether the value changes with the number of rows."""
        return self.other is not None and not np.array_equal(self.array, self.other)


@dataclass(frozen=True, slots=True)
class RowCount:
    """The number of rows that shape computations are folded with.

    Attributes:
        value: the fixed number the model was exported with, or a stand-in for a symbolic one.
        other: a second stand-in; equal to `value` when the number is fixed.
    """

    value: int
    other: int

    def counts_rows(self, length: int) -> bool:
        """Tell whether an axis length in a shape constant means "all rows"."""
        return length in (self.value, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """An ONNX node with its operands resolved; operator functions read it and build the result."""

    node: OnnxNode
    operands: tuple[Value | ConstantTensor | None, ...]
    builder: GraphBuilder
    rows: RowCount

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.node.outputs[0]

    @property
    def origin(self) -> str:
        """What the nodes made here are called in messages."""
        return self.node.name

    def reject(self, reason: str) -> NoReturn:
        """Refuse the node with a sentence that says why and what to use instead."""
        raise UnsupportedModelError([describe(self.node, reason)])

    def has(self, position: int) -> bool:
        """Whether the optional operand is given."""
        return position < len(self.operands) and self.operands[position] is not None

    def is_value(self, position: int) -> bool:
        """Whether the operand is encrypted."""
        return self.has(position) and isinstance(self.operands[position], Value)

    def value(self, position: int) -> Value:
        """Return an operand that must be encrypted; a comparison is computed, as 0 or 1."""
        found, mask = self.value_or_mask(position), self.mask(position)
        return found if mask is None else self.builder.comparison(mask, found, self.origin)

    def mask(self, position: int) -> Mask | None:
        """Return the comparison an operand stands for, if it does."""
        operand = self.operands[position] if self.has(position) else None
        return self.builder.masks.get(operand.tensor) if isinstance(operand, Value) else None

    def value_or_mask(self, position: int) -> Value:
        """Return an operand that must be computed from the input."""
        operand = self.operands[position] if self.has(position) else None
        if not isinstance(operand, Value):
            self.reject(f"operand {position} must be computed from the input, it is constant")
        return operand

    def constant(self, position: int, what: str) -> Constant:
        """Return an operand that must be constant and the same for any number of rows."""
        tensor = self._constant_tensor(position, what)
        if tensor.depends_on_rows:
            self.reject(f"{what} depends on the number of rows: compute it per row")
        return tensor.array

    def integers(self, position: int, what: str) -> tuple[int, ...]:
        """Return a constant list of integers, e.g. a shape or axes; may hold the row count."""
        array = self._constant_tensor(position, what).array
        if array.dtype.kind not in "iu":
            self.reject(f"{what} must be integers, got {array.dtype}")
        return tuple(int(item) for item in array.ravel())

    def weights(self, position: int, rank: int, what: str) -> Floats:
        """Return a constant operand of element-wise arithmetic with a tensor of `rank` axes.

        The row axis (axis 0 of `rank`) must have length 1 or hold equal rows.

        Returns:
            The array without the row axis, float64; it broadcasts against a row.
        """
        tensor = self._constant_tensor(position, what)
        array = _drop_leading(tensor.array, rank)
        other = array if tensor.other is None else _drop_leading(tensor.other, rank)
        if array is None or other is None or not np.array_equal(array, other):
            self.reject(
                f"{what} of shape {list(tensor.array.shape)} differs from row to row or adds axes "
                f"to a tensor of {rank} axes: only axes behind the rows may vary"
            )
        return array

    def attribute(self, name: str, default: object = None) -> object:
        """Return an attribute or its default."""
        return self.node.attributes.get(name, default)

    def number(self, name: str, default: float) -> float:
        """Return a numeric attribute."""
        value = self.attribute(name, default)
        return float(value) if isinstance(value, (int, float)) else default

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a list attribute; empty if absent."""
        value = self.attribute(name, ())
        return tuple(value) if isinstance(value, tuple) else ()

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.number(name, default))

    def integer_list(self, name: str, position: int) -> tuple[int, ...] | None:
        """Return a list of integers given as attribute (old opsets) or as input (new ones)."""
        value = self.attribute(name)
        if isinstance(value, tuple):
            return tuple(int(item) for item in value)
        return self.integers(position, name) if self.has(position) else None

    def row_axis(self, axis: int, rank: int, what: str = "axis") -> int:
        """Turn an axis of the ONNX tensor into an axis of one row.

        Args:
            axis: may be negative.
            rank: axes of the ONNX tensor, rows included.
        """
        if not -rank <= axis < rank:
            self.reject(f"{what}={axis} is outside a tensor of {rank} axes")
        if axis % rank == 0:
            self.reject(f"{what}={axis} is the row axis: rows cannot be mixed")
        return axis % rank - 1

    def bounded(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the per-row shape of a result, or refuse it before memory is taken for it."""
        elements = math.prod(shape)
        if elements > MAX_ROW_ELEMENTS:
            self.reject(f"a row would have {elements} elements, at most {MAX_ROW_ELEMENTS}")
        return shape

    def inner(self, part: str) -> str:
        """Name an intermediate tensor."""
        return self.builder.inner_name(self.output, part)

    def _constant_tensor(self, position: int, what: str) -> ConstantTensor:
        operand = self.operands[position] if self.has(position) else None
        if isinstance(operand, ConstantTensor):
            return operand
        found = "missing" if operand is None else "computed from the input"
        self.reject(f"{what} must be constant, it is {found}")


def describe(node: OnnxNode, reason: str) -> str:
    """Write the one sentence about an unsupported node."""
    kind = f"{node.domain}.{node.op}" if node.domain not in ("", "tacit") else node.op
    return f"{node.name} ({kind}): {reason}"


def rank_of(value: Value) -> int:
    """Count the axes of the ONNX tensor, rows included."""
    return len(value.shape) + 1


def _drop_leading(array: Constant, rank: int) -> Floats | None:
    """Remove the row axis of a constant that is broadcast against `rank` axes."""
    floats = np.asarray(array, dtype=np.float64)
    if floats.ndim > rank:
        return None  # the result would have more axes than the encrypted operand
    if floats.ndim < rank:
        return floats
    if floats.shape[0] == 0 or not (floats == floats[:1]).all():
        return None
    return np.asarray(floats[0])
