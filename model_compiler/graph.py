"""The tensor graph: what a model computes on one row, with five kinds of node.

Every tensor is held flat, in C order, without the batch axis. Every linear ONNX operator is an
`Affine` node (a sparse matrix per input and a bias), so later passes know one linear rule, not
thirty. Activations start as named real functions and become `Polynomial` nodes in the approximation
pass, or `Fourier` nodes where they are applied by bootstrapping. `evaluate` is the executable
meaning of a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tacit.bootstrap import PERIOD
from tacit.clear_steps import ClearStep
from tacit.errors import CircuitError
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.series_table import series_values

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """output = sum_i matrices[i] @ inputs[i] + bias.

    Attributes:
        matrices: one (output size, input size) sparse float64 matrix per input.
        bias: shape (output size,), float64.
        origin: names of the ONNX nodes it came from, for messages.
    """

    output: str
    inputs: tuple[str, ...]
    matrices: tuple[csr_array, ...]
    bias: Floats
    origin: str


@dataclass(frozen=True, slots=True, eq=False)
class Activation:
    """output = function(input) element by element; `function` is a name in `functions`."""

    output: str
    input: str
    function: str
    parameters: tuple[float, ...]
    origin: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors read."""
        return (self.input,)


@dataclass(frozen=True, slots=True, eq=False)
class Polynomial:
    """output = sum_k coefficients[k] T_k((input - center) / half_width), element by element.

    Chebyshev basis on [center - half_width, center + half_width]. After scaling every node has
    center 0 and half_width 1.

    Attributes:
        samples: some of the values it reads on the calibration rows, for the prediction of noise;
            None where they are not known.
    """

    output: str
    input: str
    coefficients: Floats
    center: float
    half_width: float
    origin: str
    samples: Floats | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors read."""
        return (self.input,)


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """output = left * right element by element; equal sizes (broadcasting is an Affine)."""

    output: str
    left: str
    right: str
    origin: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors read."""
        return (self.left, self.right)


@dataclass(frozen=True, slots=True, eq=False)
class Fourier:
    """output = series((input - center) / (2 half_width)), element by element: one bootstrap.

    The input lies in [center - half_width, center + half_width]; beyond, the series continues, and
    repeats after its period. After scaling every node has center 0 and half_width 1/2.

    Attributes:
        series: shape (2, degree + 1), see `tacit.fourier.fit_series`.
        function: name of what it stands for; "identity" where it only refreshes.
        period: of the series, in units of twice the half width.
    """

    output: str
    input: str
    series: Floats
    center: float
    half_width: float
    origin: str
    function: str
    period: float = PERIOD

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors read."""
        return (self.input,)

    @property
    def degree(self) -> int:
        """Number of harmonics."""
        return int(self.series.shape[1]) - 1


Node = Affine | Activation | Polynomial | Product | Fourier


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A model on one row: the encrypted core between the client's prologue and epilogue.

    Attributes:
        inputs: names of the core's input tensors (what the prologue writes).
        outputs: names of the core's output tensors (what the epilogue reads).
        shapes: per-row shape of every tensor, batch axis removed.
        nodes: in topological order, each tensor written once.
        prologue: clear steps at the client, from the model's inputs to `inputs`.
        epilogue: clear steps at the client, from `outputs` to the model's outputs.
        model_inputs: names and per-row shapes of the ONNX inputs.
        model_outputs: names of the ONNX outputs, in order.
        images: tensors that maps read in another shape, with the one that is most of an image.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    nodes: tuple[Node, ...]
    prologue: tuple[ClearStep, ...] = ()
    epilogue: tuple[ClearStep, ...] = ()
    model_inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    model_outputs: tuple[str, ...] = ()
    images: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        written = set(self.inputs)
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in written]
            if missing:
                raise CircuitError(f"node {node.output!r} reads {missing} before they are written")
            if node.output in written:
                raise CircuitError(f"tensor {node.output!r} is written twice")
            written.add(node.output)
        unknown = [name for name in self.outputs if name not in written]
        if unknown:
            raise CircuitError(f"outputs {unknown} are never written")

    def size(self, tensor: str) -> int:
        """Count the elements of one row of a tensor."""
        return int(np.prod(self.shapes[tensor], dtype=np.int64))

    def image_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor, or the one in which it is read as an image."""
        found = dict(self.shapes)
        for name, shape in self.images.items():
            if name in found and self.size(name) == math.prod(shape):
                found[name] = shape
        return found


def evaluate(
    graph: Graph,
    inputs: Mapping[str, Floats],
    observe: Callable[[str, Floats], None] | None = None,
) -> dict[str, Floats]:
    """Run the encrypted core in the clear.

    Args:
        graph: the graph.
        inputs: for each name in `graph.inputs`, shape (rows, size), float64.
        observe: called with (tensor name, values of shape (rows, size)) for every tensor.

    Returns:
        For each name in `graph.outputs`, shape (rows, size).
    """
    values = {name: np.asarray(inputs[name], dtype=np.float64) for name in graph.inputs}
    for name in graph.inputs:
        if observe is not None:
            observe(name, values[name])
    for node in graph.nodes:
        values[node.output] = apply_node(node, values)
        if observe is not None:
            observe(node.output, values[node.output])
    return {name: values[name] for name in graph.outputs}


def apply_node(node: Node, values: Mapping[str, Floats]) -> Floats:
    """Compute one node on clear values of shape (rows, size)."""
    match node:
        case Affine():
            total: Floats = np.asarray(node.bias[None, :], dtype=np.float64)
            for name, matrix in zip(node.inputs, node.matrices, strict=True):
                total = total + _times(matrix, values[name])
            return total
        case Activation():
            return real_function(node.function, node.parameters)(values[node.input])
        case Polynomial():
            argument = (values[node.input] - node.center) / node.half_width
            return np.asarray(chebyshev.chebval(argument, node.coefficients))
        case Product():
            return values[node.left] * values[node.right]
        case Fourier():
            argument = (values[node.input] - node.center) / (2.0 * node.half_width)
            return series_values(node.series, argument, node.period)


# From so many entries on, and this share of all places, multiplying by zeros is faster.
_MANY = 1 << 16
_DENSE = 0.2


def _times(matrix: csr_array, rows: Floats) -> Floats:
    """Apply a matrix to each row."""
    if matrix.nnz > max(_MANY, _DENSE * math.prod(matrix.shape)):
        return np.asarray(rows @ matrix.toarray().T)
    return np.asarray((matrix @ rows.T).T)
