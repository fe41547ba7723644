"""Collects the nodes of the tensor graph while ONNX operators are translated.

It knows polynomial forms: when a tensor is c0 + c1 r + c2 r² + … of another tensor r, element by
element, further element-wise arithmetic is done on the coefficients. So x*x*x, 0.5*x + x**2, or the
many steps of an exported GELU end as one node; what nobody reads is dropped at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array, eye_array

from tacit.errors import ModelError
from tacit.model_compiler.graph import Activation, Affine, Node, Product
from tacit.model_compiler.lowering.order import pixels
from tacit.model_compiler.onnx_ops.loading import MAX_ROW_ELEMENTS

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

MAX_NONZEROS = 1 << 26
MAX_DEGREE = 8


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph seen with a per-row shape; a reshape is another Value on it."""

    tensor: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Form:
    """tensor = sum_k coefficients[k] * root**k, element by element."""

    root: str
    coefficients: tuple[float, ...]

    @property
    def is_root(self) -> bool:
        """Whether the tensor is the root itself."""
        return self.coefficients == (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Mask:
    """Where the root is above (or below) a number; computed only where `piecewise` finds no use."""

    root: str
    threshold: float
    above: bool


class GraphBuilder:
    """Nodes and shapes so far; every method returns the value it created or found."""

    def __init__(self, reserved: frozenset[str]) -> None:
        """Start empty; `reserved` names are never used for intermediate tensors."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.images: dict[str, tuple[int, ...]] = {}
        self.nodes: list[Node] = []
        self._reserved = reserved
        self.masks: dict[str, Mask] = {}
        self._compared: dict[str, str] = {}
        self._forms: dict[str, Form] = {}
        self._producers: dict[str, Node] = {}

    def add_input(self, name: str, shape: tuple[int, ...]) -> Value:
        """Declare an input tensor of the encrypted core."""
        self.shapes[name] = shape
        return Value(name, shape)

    def add_mask(self, mask: Mask, shape: tuple[int, ...], output: str) -> Value:
        """Name a comparison; `comparison` computes it."""
        name = self._fresh(output)
        self.masks[name], self.shapes[name] = mask, shape
        return Value(name, shape)

    def comparison(self, mask: Mask, named: Value, origin: str) -> Value:
        """Compute a comparison: 1 where it holds, 0 elsewhere; once for all that read it."""
        known = self._compared.get(named.tensor)
        if known is None:
            slope = 1.0 if mask.above else -1.0
            form = Form(mask.root, (-slope * mask.threshold, slope))
            inner = self.inner_name(named.tensor, "distance")
            distance = self.polynomial(form, named.shape, inner, origin)
            output = self.inner_name(named.tensor, "step")
            known = self.activation(distance, "step", (), output, origin).tensor
            self._compared[named.tensor] = known
        return Value(known, named.shape)

    def form(self, value: Value) -> Form:
        """Return the polynomial form of a value; its own root if it has no other."""
        return self._forms.get(value.tensor, Form(value.tensor, (0.0, 1.0)))

    def producer(self, tensor: str) -> Node | None:
        """Return the node that writes a tensor, or None for an input."""
        return self._producers.get(tensor)

    def affine(
        self,
        terms: Sequence[tuple[Value, csr_array]],
        bias: Floats | float,
        shape: tuple[int, ...],
        output: str,
        origin: str,
    ) -> Value:
        """Add sum matrix @ value + bias; terms on the same tensor are added up.

        Raises:
            ModelError: a weight is NaN or infinite, or the map is too large to hold.
        """
        merged: dict[str, csr_array] = {}
        for value, matrix in terms:
            known = merged.get(value.tensor)
            merged[value.tensor] = matrix if known is None else csr_array(known + matrix)
            self._note_image(value)
        size = math.prod(shape)
        self._refuse_large(origin, size, sum(matrix.nnz for matrix in merged.values()))
        offsets = np.array(np.broadcast_to(np.asarray(bias, dtype=np.float64), (size,)))
        for weights in (offsets, *(matrix.data for matrix in merged.values())):
            if not np.isfinite(weights).all():
                raise ModelError(f"node {origin!r} has NaN or infinite weights: export again")
        name = self._fresh(output)
        inputs, matrices = tuple(merged), tuple(merged.values())
        return self._add(Affine(name, inputs, matrices, offsets, origin), shape)

    def select(
        self, value: Value, numbers: Indices, output: str, origin: str, fill: float = 0.0
    ) -> Value:
        """Pick elements: output element i is input element numbers[i], or `fill` where it is -1."""
        flat = numbers.ravel()
        if flat.size == value.size and np.array_equal(flat, np.arange(value.size)):
            return Value(value.tensor, numbers.shape)
        matrix = selection_matrix(flat, value.size)
        bias = np.where(flat < 0, fill, 0.0)
        return self.affine([(value, matrix)], bias, numbers.shape, output, origin)

    def activation(
        self, value: Value, function: str, parameters: tuple[float, ...], output: str, origin: str
    ) -> Value:
        """Add a real function applied element by element.

        Raises:
            ModelError: a parameter is NaN or infinite.
        """
        if not np.isfinite(parameters).all():
            raise ModelError(f"node {origin!r} has NaN or infinite parameters: export again")
        node = Activation(self._fresh(output), value.tensor, function, parameters, origin)
        return self._add(node, value.shape)

    def polynomial(self, form: Form, shape: tuple[int, ...], output: str, origin: str) -> Value:
        """Return the value of a form: its root, an affine map of it, or one polynomial node."""
        root = Value(form.root, shape)
        coefficients = tuple(float(c) for c in polynomial.polytrim(form.coefficients))
        if coefficients == (0.0, 1.0):
            return root
        if len(coefficients) <= 2:
            slope = coefficients[1] if len(coefficients) == 2 else 0.0
            matrix = csr_array(slope * eye_array(root.size))
            made = self.affine([(root, matrix)], coefficients[0], shape, output, origin)
        else:
            made = self.activation(root, "polynomial", coefficients, output, origin)
        self._forms[made.tensor] = Form(form.root, coefficients)
        return made

    def product(self, left: Value, right: Value, output: str, origin: str) -> Value:
        """Add left * right element by element; both must have the same shape."""
        node = Product(self._fresh(output), left.tensor, right.tensor, origin)
        return self._add(node, left.shape)

    def live_nodes(self, outputs: Sequence[str]) -> tuple[Node, ...]:
        """Return the nodes that `outputs` depend on, in order."""
        needed = set(outputs)
        live: list[Node] = []
        for node in reversed(self.nodes):
            if node.output in needed:
                live.append(node)
                needed.update(node.inputs)
        return tuple(reversed(live))

    def inner_name(self, output: str, part: str) -> str:
        """Return an unused name for a tensor inside the translation of one operator."""
        name, number = f"{output}/{part}", 1
        while name in self.shapes or name in self._reserved:
            name, number = f"{output}/{part}{number}", number + 1
        return name

    def _add(self, node: Node, shape: tuple[int, ...]) -> Value:
        self._refuse_large(node.origin, math.prod(shape), 0)
        self.nodes.append(node)
        self.shapes[node.output] = shape
        self._producers[node.output] = node
        return Value(node.output, shape)

    def _fresh(self, wanted: str) -> str:
        return wanted if wanted not in self.shapes else self.inner_name(wanted, "again")

    def _note_image(self, value: Value) -> None:
        """Note the shape that a map reads a tensor in; what the client makes has no layout."""
        known = self.images.get(value.tensor, self.shapes.get(value.tensor))
        if known is not None and pixels(value.shape) > pixels(known):
            self.images[value.tensor] = value.shape

    def _refuse_large(self, origin: str, size: int, nonzeros: int) -> None:
        if size == 0:
            raise ModelError(f"node {origin!r} makes a tensor without elements: remove the node")
        if size > MAX_ROW_ELEMENTS or nonzeros > MAX_NONZEROS:
            raise ModelError(
                f"node {origin!r} makes {size} elements per row from {nonzeros} weights; at most "
                f"{MAX_ROW_ELEMENTS} and {MAX_NONZEROS} are compiled"
            )


def element_numbers(shape: tuple[int, ...]) -> Indices:
    """Number the elements of one row, 0, 1, 2, …, in C order."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def selection_matrix(numbers: Indices, columns: int) -> csr_array:
    """Return the 0/1 matrix whose row i picks column numbers[i]; -1 gives an empty row."""
    rows = np.flatnonzero(numbers >= 0)
    ones = np.ones(rows.size)
    return csr_array((ones, (rows, numbers[rows])), shape=(numbers.size, columns))


def diagonal_matrix(diagonal: Floats) -> csr_array:
    """Return the square matrix with this diagonal."""
    return csr_array(diags_array(np.asarray(diagonal, dtype=np.float64).ravel()))
