"""Replace every activation by a polynomial, with degrees chosen by an accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.chebyshev import chebyshev_depth
from tacit.errors import CircuitError
from tacit.model_compiler.approximation import (
    USEFUL_DEGREES,
    Approximation,
    approximate_function,
    from_power_basis,
)
from tacit.model_compiler.functions import real_function
from tacit.model_compiler.graph import (
    Activation,
    Affine,
    Graph,
    Node,
    Polynomial,
    evaluate,
)
from tacit.model_compiler.level_price import level_price
from tacit.model_compiler.lowering.depths import latency_cost, required_levels
from tacit.model_compiler.passes.calibrate import Ranges
from tacit.model_compiler.passes.degree_search import search_degrees
from tacit.model_compiler.passes.domains import Domain, choose_domain, readings
from tacit.model_compiler.passes.ranges import Source, TensorRange, node_bounds
from tacit.model_compiler.passes.score import Budget, Score, answers, score_answers

Floats = NDArray[np.float64]
DomainOf = Callable[[Activation], Domain]
DepthPrice = Callable[[int], float]

# A polynomial this close to its function, relative to its greatest value, is close enough.
_NEGLIGIBLE = 2.0**-20
# Searches, each with a tighter budget than the last, while the rows left out of them disagree.
_ATTEMPTS = 3
_RANDOM_ROWS = 256
_MOST_VALUES = 2**25

# Chosen on the heart models: at 0.01 the AUC of one small hospital moved by 0.003, at 0.006 none
# moved by more than 0.0006 (bench/results/heart.jsonl).
DEFAULT_ACCURACY = 0.006


@dataclass(frozen=True, slots=True)
class ActivationReport:
    """What became of one activation.

    Attributes:
        output: its output tensor.
        origin: the ONNX nodes it came from.
        function: its name.
        low: lower end of the polynomial's domain.
        high: upper end.
        degree: degree of the polynomial; 1 and less have become affine maps.
        levels: levels the polynomial consumes; a completed square will save one of degree 2.
        max_error: greatest error on the domain.
        mean_error: mean error on the calibration histogram, or on the domain without data.
        clipped: fraction of the values on the rows that lay outside the domain.
    """

    output: str
    origin: str
    function: str
    low: float
    high: float
    degree: int
    levels: int
    max_error: float
    mean_error: float
    clipped: float


@dataclass(frozen=True, slots=True, eq=False)
class Approximated:
    """The result of `approximate`.

    Attributes:
        graph: the graph without Activation nodes.
        activations: one report each, in node order.
        score: error and argmax agreement of the answers on all rows.
        budget: what was asked for.
    """

    graph: Graph
    activations: tuple[ActivationReport, ...]
    score: Score
    budget: Budget

    @property
    def within_budget(self) -> bool:
        """Tell whether the score keeps the budget."""
        return self.budget.allows(self.score)


def price_at_16_bits(depth: int) -> float:
    """Price levels for outputs right to 16 bits; see `level_price`."""
    return level_price(depth, 16.0)


def approximate(
    graph: Graph,
    ranges: Ranges,
    rows: Mapping[str, Floats] | None = None,
    *,
    accuracy: float = DEFAULT_ACCURACY,
    keep_argmax: bool = True,
    max_degree: int = 127,
    search_rows: int = 1024,
    price: DepthPrice = price_at_16_bits,
) -> Approximated:
    """Replace activations by Chebyshev polynomials on their calibrated ranges.

    `polynomial` activations are rewritten exactly. For the others the search of `degree_search`
    finds the least degrees that keep the budget of `score.Budget`.
    With interval ranges the domains are computed again, front to back, through the polynomials
    themselves, so that no input inside its range can leave a domain.

    Args:
        graph: any graph.
        ranges: of this graph's tensors.
        rows: core inputs to judge by, each (rows, size); None draws 256 rows uniformly from the
            input ranges (seeded).
        accuracy: greatest root mean square error of the answers on the rows, as a fraction of
            their range.
        keep_argmax: for answers of more than one element, keep the argmax of nearly all rows
            for which it was no close call.
        max_degree: greatest degree to use.
        search_rows: rows used while searching; all are used for the score.
        price: what a circuit of some depth costs; inf for one that cannot be run.

    Returns:
        The graph and a report. Degrees of 0 and 1 become affine maps: compose again afterwards.

    Raises:
        ModelError: a function is not finite on its range.
    """
    rows = _random_rows(graph, ranges) if rows is None else rows
    budget = Budget(accuracy, keep_argmax)
    read = readings(graph)
    domains = {name: choose_domain(name, r, ranges.tensors) for name, r in read.items()}
    fit = _fitter(ranges, lambda node: domains[node.input])
    some = _thinned(graph, rows, search_rows)
    results: list[Approximated] = []
    asked = budget
    for _ in range(_ATTEMPTS):
        degrees = _choose_degrees(graph, fit, some, asked, _ladder(max_degree), price)
        if ranges.source is Source.INTERVAL:
            domains = _sound_domains(graph, ranges, degrees)
        results.append(_finished(graph, ranges, domains, degrees, rows, budget))
        excess = budget.excess(results[-1].score)
        if excess <= 1.0:
            return results[-1]
        asked = replace(asked, accuracy=asked.accuracy / min(max(excess, 1.05), 2.0))
    return results[0]


def _ladder(max_degree: int) -> tuple[int, ...]:
    ladder = tuple(d for d in USEFUL_DEGREES if d <= max_degree)
    if not ladder:
        raise CircuitError(f"max_degree must be at least 1, got {max_degree}")
    return ladder


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """A replacement node and, unless it is exact, how good it is."""

    node: Node
    quality: Approximation | None


def _fitter(ranges: Ranges, domain_of: DomainOf) -> Callable[[Activation, int], _Fitted]:
    """Return a cached (activation, degree) -> replacement."""

    @cache
    def fit(node: Activation, degree: int) -> _Fitted:
        center, half_width = domain_of(node)
        size = ranges.tensors[node.input].low.size
        if node.function == "polynomial":
            exact = from_power_basis(np.array(node.parameters), center, half_width)
            return _Fitted(_node(node, exact, center, half_width, size), None)
        histogram = ranges.histograms.get(node.input)
        function = real_function(node.function, node.parameters)
        quality = approximate_function(function, center, half_width, degree, histogram)
        return _Fitted(_node(node, quality.coefficients, center, half_width, size), quality)

    return fit


def _node(
    node: Activation, coefficients: Floats, center: float, half_width: float, size: int
) -> Node:
    """Build the replacement: a polynomial, or an affine map up to degree 1."""
    if coefficients.size > 2:
        return Polynomial(node.output, node.input, coefficients, center, half_width, node.origin)
    slope = float(coefficients[1]) / half_width if coefficients.size == 2 else 0.0
    bias = np.full(size, float(coefficients[0]) - slope * center)
    matrix = csr_array(slope * eye_array(size, format="csr"))
    return Affine(node.output, (node.input,), (matrix,), bias, node.origin)


def _choose_degrees(
    graph: Graph,
    fit: Callable[[Activation, int], _Fitted],
    rows: Mapping[str, Floats],
    budget: Budget,
    ladder: tuple[int, ...],
    price: DepthPrice,
) -> dict[str, int]:
    """Search degrees; returns them by output tensor (exact polynomials are not in it)."""
    activations = {i: n for i, n in enumerate(graph.nodes) if isinstance(n, Activation)}
    free = {i: n for i, n in activations.items() if n.function != "polynomial"}
    exact_nodes = {n.output: fit(n, 0).node for i, n in activations.items() if i not in free}
    base = replace(graph, nodes=tuple(exact_nodes.get(n.output, n) for n in graph.nodes))
    chosen = search_degrees(
        base,
        {i: _worthwhile(n, fit, ladder) for i, n in free.items()},
        lambda index, degree: fit(free[index], degree).node,
        rows,
        answers(graph, evaluate(graph, rows)),
        budget,
        _pricer(base, price),
    )
    return {free[i].output: degree for i, degree in chosen.items()}


def _worthwhile(
    node: Activation, fit: Callable[[Activation, int], _Fitted], ladder: tuple[int, ...]
) -> tuple[int, ...]:
    """Cut a ladder after the first degree whose error is negligible."""
    for count, degree in enumerate(ladder, start=1):
        quality = fit(node, degree).quality
        if quality and quality.max_error <= _NEGLIGIBLE * max(quality.max_magnitude, 1e-300):
            return ladder[:count]
    return ladder


def _pricer(graph: Graph, price: DepthPrice) -> Callable[[tuple[Node, ...]], float]:
    """Return a price for the graph with activations replaced, by its depth.

    An affine map in place of an activation costs nothing: a neighbour will absorb it.
    """
    fixed = {n.output: latency_cost(n) for n in graph.nodes if not isinstance(n, Activation)}

    def levels(node: Node) -> int:
        if node.output in fixed:
            return fixed[node.output]
        return latency_cost(node) if isinstance(node, Polynomial) else 0

    @cache
    def of_depth(depth: int) -> float:
        return price(depth)

    def of_nodes(nodes: tuple[Node, ...]) -> float:
        needed = required_levels(replace(graph, nodes=nodes), levels)
        return of_depth(max(1, *(needed[name] for name in graph.inputs)))

    return of_nodes


def _thinned(graph: Graph, rows: Mapping[str, Floats], most: int) -> dict[str, Floats]:
    """Take few enough rows, at equal distances, to keep every tensor of the graph in memory."""
    row_size = sum(graph.size(name) for name in [*graph.inputs, *(n.output for n in graph.nodes)])
    most = max(2, min(most, _MOST_VALUES // max(row_size, 1)))
    total = next(iter(rows.values())).shape[0]
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))
    return {name: np.asarray(rows[name], dtype=np.float64)[chosen] for name in graph.inputs}


def _random_rows(graph: Graph, ranges: Ranges) -> dict[str, Floats]:
    generator = np.random.default_rng(0)
    bounds = {name: ranges.tensors[name] for name in graph.inputs}
    return {
        name: generator.uniform(b.low, b.high, (_RANDOM_ROWS, b.low.size))
        for name, b in bounds.items()
    }


def _sound_domains(graph: Graph, ranges: Ranges, degrees: Mapping[str, int]) -> dict[str, Domain]:
    """Compute domains front to back with interval bounds through the final polynomials."""
    read = readings(graph)
    domains: dict[str, Domain] = {}
    bounds = {name: ranges.tensors[name] for name in graph.inputs}
    fit = _fitter(ranges, lambda node: domains[node.input])
    for node in graph.nodes:
        replaced: Node = node
        if isinstance(node, Activation):
            domains[node.input] = choose_domain(node.input, read[node.input], bounds)
            replaced = fit(node, degrees.get(node.output, 0)).node
        low, high = node_bounds(replaced, bounds)
        bounds[node.output] = TensorRange(low, high, Source.INTERVAL).widened(ranges.margin)
    return domains


def _finished(
    graph: Graph,
    ranges: Ranges,
    domains: Mapping[str, Domain],
    degrees: Mapping[str, int],
    rows: Mapping[str, Floats],
    budget: Budget,
) -> Approximated:
    fit = _fitter(ranges, lambda node: domains[node.input])
    fitted = {
        node.output: fit(node, degrees.get(node.output, 0))
        for node in graph.nodes
        if isinstance(node, Activation)
    }
    nodes = [fitted[n.output].node if n.output in fitted else n for n in graph.nodes]
    result = replace(graph, nodes=tuple(nodes))
    clipped: dict[str, float] = {}

    def observe(name: str, values: Floats) -> None:
        if name in domains:
            center, half_width = domains[name]
            outside = np.abs(values - center) > half_width * (1.0 + 1e-9)
            clipped[name] = float(outside.mean())

    with np.errstate(all="ignore"):
        got = answers(result, evaluate(result, rows, observe))
    score = score_answers(answers(graph, evaluate(graph, rows)), got)
    reports = tuple(
        _report(node, fitted[node.output], domains[node.input], clipped[node.input])
        for node in graph.nodes
        if isinstance(node, Activation)
    )
    return Approximated(result, reports, score, budget)


def _report(node: Activation, fitted: _Fitted, domain: Domain, clipped: float) -> ActivationReport:
    quality, replacement = fitted.quality, fitted.node
    degree = replacement.coefficients.size - 1 if isinstance(replacement, Polynomial) else 1
    return ActivationReport(
        output=node.output,
        origin=node.origin,
        function=node.function,
        low=domain[0] - domain[1],
        high=domain[0] + domain[1],
        degree=degree,
        levels=chebyshev_depth(degree),
        max_error=quality.max_error if quality else 0.0,
        mean_error=quality.mean_error_on_data if quality else 0.0,
        clipped=clipped,
    )
