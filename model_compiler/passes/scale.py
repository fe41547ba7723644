"""Choose how every tensor is stored, so that each stored value lies in [-1, 1], at no cost.

stored = (value - offset) / scale. Affine maps absorb offsets and scales into matrices and biases,
polynomials into coefficients (their domain becomes exactly [-1, 1]); a product multiplies scales.
In bootstrapped graphs values lie in [-1/2, 1/2], as bootstraps want them, and the tensors of a
residual join share one scale (`joins`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.errors import CircuitError
from tacit.model_compiler.approximation import interpolate, trimmed
from tacit.model_compiler.graph import (
    Affine,
    Fourier,
    Graph,
    Node,
    Polynomial,
    Product,
    evaluate,
)
from tacit.model_compiler.lowering.matrices import with_factors
from tacit.model_compiler.passes.compose import consumers_of
from tacit.model_compiler.passes.ranges import TensorRange, chebyshev_image

Floats = NDArray[np.float64]

# Greatest growth of coefficients accepted when a polynomial is rewritten on another interval.
_MOST_GROWTH = 8.0
_NARROW = 1e-6
_MOST_EXTENSION = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """How one tensor is stored: stored = (value - offset) / scale.

    Attributes:
        offset: shape () or, for a graph input, (size,).
        scale: same shape, above 0.
    """

    offset: Floats
    scale: Floats

    def store(self, values: Floats) -> Floats:
        """Turn values into stored values, shape (rows, size)."""
        return np.asarray((values - self.offset) / self.scale)

    def read(self, stored: Floats) -> Floats:
        """Turn stored values into values, shape (rows, size)."""
        return np.asarray(stored * self.scale + self.offset)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledGraph:
    """A graph on stored values.

    Attributes:
        graph: Affine, Product, and Polynomial nodes with center 0 and half width 1; every
            tensor lies in [-1, 1] for inputs in range.
        placements: how each tensor is stored. Those of inputs and outputs are public: the inputs'
            come from their calibrated ranges alone, the outputs' are rounded to a few bits
            unless a product or a polynomial fixes them.
    """

    graph: Graph
    placements: Mapping[str, Placement]

    @property
    def output_scale(self) -> dict[str, float]:
        """Scale of each graph output."""
        return {name: float(self.placements[name].scale) for name in self.graph.outputs}


def evaluate_scaled(
    scaled: ScaledGraph,
    inputs: Mapping[str, Floats],
    observe: Callable[[str, Floats], None] | None = None,
) -> dict[str, Floats]:
    """Run a scaled graph on unscaled inputs and return unscaled outputs.

    Args:
        scaled: the graph on stored values.
        inputs: for each graph input, shape (rows, size).
        observe: called with every tensor's name and stored values.
    """
    stored = {name: scaled.placements[name].store(inputs[name]) for name in scaled.graph.inputs}
    outputs = evaluate(scaled.graph, stored, observe)
    return {name: scaled.placements[name].read(values) for name, values in outputs.items()}


def scale(
    graph: Graph,
    ranges: Mapping[str, TensorRange],
    *,
    amplitude: float = 1.0,
    sizes: Mapping[str, float] = MappingProxyType({}),
) -> ScaledGraph:
    """Choose placements and fold them into the nodes.

    A polynomial's input is stored on its domain, what a product reads and writes has offset 0,
    everything else spans its range. A polynomial whose input must be stored otherwise is
    rewritten on that interval if its coefficients stay small; else an identity map is put
    before it, which costs a level.

    Args:
        graph: without Activation nodes.
        ranges: a range for every tensor of this very graph, margins applied.
        amplitude: magnitude of stored values, where no node wants another.
        sizes: half widths that tensors must be stored with, in place of those of their ranges.

    Returns:
        The scaled graph; equal to `graph` up to rounding.

    Raises:
        CircuitError: an activation is left, or a tensor has no range.
    """
    tensors = (*graph.inputs, *(node.output for node in graph.nodes))
    missing = [name for name in tensors if name not in ranges]
    if missing:
        raise CircuitError(f"no range for tensors {missing}: calibrate this graph before scaling")
    wishes = _wishes(graph)

    def placed(name: str, bounds: TensorRange) -> Placement:
        return _placement(name, graph, bounds, wishes[name], amplitude, sizes.get(name))

    placements = {name: placed(name, ranges[name]) for name in graph.inputs}
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Product):
            scales = placements[node.left].scale * placements[node.right].scale
            placements[node.output] = Placement(np.zeros(()), scales)
        else:
            bounds = _reachable(node, ranges[node.output])
            placements[node.output] = placed(node.output, bounds)
        nodes += _rewritten(node, placements, graph)
    shapes = dict(graph.shapes)
    for node in nodes:
        if node.output not in shapes:
            shapes[node.output] = graph.shapes[node.inputs[0]]
    return ScaledGraph(replace(graph, nodes=tuple(nodes), shapes=shapes), placements)


def _reachable(node: Node, bounds: TensorRange) -> TensorRange:
    """Extend a polynomial's observed range to all it can reach on its domain, if that is near."""
    if not isinstance(node, Polynomial):
        return bounds
    least, greatest = chebyshev_image(node.coefficients, np.full(1, -1.0), np.full(1, 1.0))
    low, high = np.minimum(bounds.low, least), np.maximum(bounds.high, greatest)
    reachable = TensorRange(low, high, bounds.source)
    return reachable if reachable.half_width <= _MOST_EXTENSION * bounds.half_width else bounds


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the readers of a tensor ask of its placement.

    Attributes:
        domains: (offset, scale) of what the polynomials and bootstraps that read it want.
        no_offset: a product reads it.
    """

    domains: tuple[tuple[float, float], ...]
    no_offset: bool


def _wishes(graph: Graph) -> dict[str, _Wishes]:
    result: dict[str, _Wishes] = {}
    for name, indices in consumers_of(graph).items():
        readers = [graph.nodes[index] for index in indices]
        result[name] = _Wishes(
            domains=tuple(_wished(n) for n in readers if isinstance(n, Polynomial | Fourier)),
            no_offset=any(isinstance(n, Product) for n in readers),
        )
    return result


def _wished(node: Polynomial | Fourier) -> tuple[float, float]:
    """Return offset and scale that bring a node's domain to [-1, 1], or to [-1/2, 1/2]."""
    return node.center, node.half_width * (2.0 if isinstance(node, Fourier) else 1.0)


def _placement(
    name: str,
    graph: Graph,
    bounds: TensorRange,
    wishes: _Wishes,
    amplitude: float,
    size: float | None,
) -> Placement:
    """Place a tensor that no product writes."""
    domains = [d for d in wishes.domains if d[0] == 0.0 or not wishes.no_offset]
    if domains:
        return _scalar(*max(domains, key=lambda domain: domain[1]))
    if wishes.no_offset:
        return _scalar(0.0, bounds.magnitude or 1.0)
    if name in graph.outputs:
        return _rounded(bounds, amplitude)
    if size is not None:
        return _scalar(bounds.center, size / amplitude)
    if name in graph.inputs and not bounds.is_uniform:
        return _per_feature(bounds)
    if bounds.half_width <= _NARROW * bounds.magnitude:
        return _scalar(0.0, (bounds.magnitude or 1.0) / amplitude)
    return _scalar(bounds.center, bounds.half_width / amplitude)


def _scalar(offset: float, size: float) -> Placement:
    return Placement(np.asarray(offset, dtype=np.float64), np.asarray(size, dtype=np.float64))


def _per_feature(bounds: TensorRange) -> Placement:
    half_width = (bounds.high - bounds.low) / 2.0
    center = (bounds.high + bounds.low) / 2.0
    return Placement(center, np.where(half_width > 0.0, half_width, bounds.magnitude or 1.0))


def _rounded(bounds: TensorRange, amplitude: float) -> Placement:
    """Cover a range with a scale of three significant bits and an offset of a few.

    Output placements are public and, without data, computed from weights: say little. One that
    never moved says nothing of how far it may: it gets room as far as it is from 0.
    """
    moved = bounds.half_width > _NARROW * bounds.magnitude
    half_width = (bounds.half_width if moved else bounds.magnitude) or 1.0
    step = 2.0 ** (np.floor(np.log2(half_width)) - 2)
    offset = np.round(bounds.center / step) * step
    reach = max(bounds.high.max() - offset, offset - bounds.low.min(), half_width)
    return _scalar(float(offset), float(np.ceil(reach / step) * step / amplitude))


def _rewritten(node: Node, placements: dict[str, Placement], graph: Graph) -> list[Node]:
    """Express a node on stored values; may put an identity map before it."""
    match node:
        case Affine():
            return [_scaled_affine(node, placements)]
        case Polynomial():
            return _scaled_polynomial(node, placements, graph.size(node.input))
        case Fourier():
            return _scaled_fourier(node, placements, graph.size(node.input))
        case Product():
            return [node]
        case _:
            raise CircuitError(f"approximate {node.output!r} ({node.origin}) before scaling")


def _scaled_affine(node: Affine, placements: Mapping[str, Placement]) -> Affine:
    out = placements[node.output]
    bias = node.bias - out.offset
    matrices: list[csr_array] = []
    for name, matrix in zip(node.inputs, node.matrices, strict=True):
        size = matrix.shape[1]
        offset = np.broadcast_to(placements[name].offset, (size,))
        bias = bias + matrix @ offset
        matrices.append(with_factors(matrix, columns=placements[name].scale / out.scale))
    scaled_bias = np.asarray(bias / out.scale, dtype=np.float64)
    return Affine(node.output, node.inputs, tuple(matrices), scaled_bias, node.origin)


def _scaled_polynomial(node: Polynomial, placements: dict[str, Placement], size: int) -> list[Node]:
    out = placements[node.output]
    coefficients = _on_interval(node, placements[node.input])
    if coefficients is not None:
        return [_unit_polynomial(node, node.input, coefficients, out)]
    copy = _moved(node, placements, size)
    return [copy, _unit_polynomial(node, copy.output, node.coefficients, out)]


def _scaled_fourier(node: Fourier, placements: dict[str, Placement], size: int) -> list[Node]:
    out, source = placements[node.output], placements[node.input]
    series = node.series / float(out.scale)
    series[0, 0] -= float(out.offset) / float(out.scale)
    unit = replace(node, series=series, center=0.0, half_width=0.5)
    if source.scale.ndim == 0 and (float(source.offset), float(source.scale)) == _wished(node):
        return [unit]
    copy = _moved(node, placements, size)
    return [copy, replace(unit, input=copy.output)]


def _moved(node: Polynomial | Fourier, placements: dict[str, Placement], size: int) -> Affine:
    """Store a node's input as it wants it, by an identity map."""
    moved = f"{node.input}.for.{node.output}"
    placements[moved] = _scalar(*_wished(node))
    matrix = csr_array(eye_array(size, format="csr"))
    copy = Affine(moved, (node.input,), (matrix,), np.zeros(size), node.origin)
    return _scaled_affine(copy, placements)


def _on_interval(node: Polynomial, source: Placement) -> Floats | None:
    """Rewrite a polynomial on the interval its input is stored on; None if that loses precision."""
    if source.offset.ndim or source.scale.ndim:
        return None
    if float(source.offset) == node.center and float(source.scale) == node.half_width:
        return node.coefficients
    first = (float(source.offset) - node.center) / node.half_width
    ratio = float(source.scale) / node.half_width
    grown = interpolate(
        lambda v: np.asarray(chebyshev.chebval(first + ratio * v, node.coefficients)),
        node.coefficients.size - 1,
    )
    limit = _MOST_GROWTH * np.abs(node.coefficients).sum()
    return trimmed(grown) if np.abs(grown).sum() <= limit else None


def _unit_polynomial(
    node: Polynomial, source: str, coefficients: Floats, out: Placement
) -> Polynomial:
    scaled = coefficients / float(out.scale)
    scaled[0] -= float(out.offset) / float(out.scale)
    return Polynomial(node.output, source, scaled, 0.0, 1.0, node.origin)
