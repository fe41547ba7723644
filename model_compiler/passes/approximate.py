"""Replace every activation by polynomials, the cheapest that keep an accuracy budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.model_compiler.approximation import USEFUL_DEGREES
from tacit.model_compiler.graph import Activation, Affine, Graph, Node, evaluate
from tacit.model_compiler.level_price import level_price
from tacit.model_compiler.passes.calibrate import Ranges
from tacit.model_compiler.passes.degree_search import search_degrees
from tacit.model_compiler.passes.domains import Domain, choose_domain, readings
from tacit.model_compiler.passes.price import DepthPrice, Pricer
from tacit.model_compiler.passes.ranges import Source, TensorRange, node_bounds
from tacit.model_compiler.passes.replacements import (
    Choice,
    Replacement,
    choices_for,
    exact_polynomial,
    replacement,
)
from tacit.model_compiler.passes.score import Budget, Score, answers, score_answers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DomainOf = Callable[[Activation], Domain]


Fit = Callable[[Activation, Choice], Replacement]

_EXACT = Choice(())
_MOST_SIGN_LEVELS = 15
# Searches, each with a tighter budget than the last, while the rows left out of them disagree.
_ATTEMPTS = 3
# Times the budget beyond which the search has not kept it on its own rows either.
_OUT_OF_REACH = 3.0
_RANDOM_ROWS = 256
_MOST_VALUES = 2**25
# Multiplications that one evaluation during a search may take, those of a polynomial, and the rows
# it has at least.
_MOST_WORK = 2**28
_POLYNOMIAL_WORK = 2**7
_LEAST_ROWS = 32

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
        degree: degree of the polynomial; 1 and less have become affine maps. Of a composite sign
            the greatest degree of its stages.
        degrees: of the polynomial, or of each stage of a composite sign.
        levels: levels consumed; a completed square will save one of degree 2.
        products: products of two ciphertexts, for a tensor of one ciphertext.
        max_error: greatest error on the domain, but for the margin of a jump.
        mean_error: mean error on the calibration histogram, or on the domain without data.
        margin: distance from the kink within which a composite sign is undecided, as a share of
            the greatest distance from it in the domain (for trees: of each comparison's own); 0
            for one polynomial.
        clipped: fraction of the values on the rows that lay outside the domain.
        reach: greatest distance of the values on the rows from the middle of the domain, in half
            widths; what is missing to 1 is the margin for rows to come.
        bootstrapped: whether a bootstrap applies it; then degrees count harmonics.
    """

    output: str
    origin: str
    function: str
    low: float
    high: float
    degree: int
    degrees: tuple[int, ...]
    levels: int
    products: int
    max_error: float
    mean_error: float
    margin: float
    clipped: float
    reach: float
    bootstrapped: bool = False


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
    max_sign_levels: int = _MOST_SIGN_LEVELS,
    search_rows: int = 1024,
    price: DepthPrice = price_at_16_bits,
    bargain: bool = True,
) -> Approximated:
    """Replace activations by polynomials on their calibrated ranges.

    `polynomial` activations are rewritten exactly. For the others the search of `degree_search`
    finds the cheapest that keep the budget of `score.Budget`: one Chebyshev polynomial fitted to
    the data, or, for functions with a kink or a jump, a composite sign.
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
        max_degree: greatest degree of a single polynomial.
        max_sign_levels: longest composite sign; 0 for none.
        search_rows: rows used while searching; all are used for the score.
        price: what a circuit of some depth costs; inf for one that cannot be run.
        bargain: what to do where nothing that can be run keeps the budget on the rows searched:
            choose the best bargain, or raise.

    Returns:
        The graph and a report. Degrees of 0 and 1 become affine maps: compose again afterwards.

    Raises:
        ModelError: a function is not finite on its range.
        ParameterError: the budget cannot be kept, and no bargain is wanted.
    """
    rows = judging_rows(graph, ranges) if rows is None else rows
    budget = Budget(accuracy, keep_argmax)
    read = readings(graph)
    domains = {name: choose_domain(name, r, ranges.tensors) for name, r in read.items()}
    fit = _fitter(ranges, lambda node: domains[node.input])
    some = thinned(graph, rows, search_rows)
    pricer = Pricer(graph, price)
    degrees = _usable_degrees(max_degree)
    ladders = _ladders(graph, fit, pricer, degrees, max_sign_levels, domains)
    results: list[Approximated] = []
    asked = budget
    for _ in range(_ATTEMPTS):
        wanted = bargain or bool(results)
        choices = _choose(graph, fit, some, asked, ladders, pricer, bargain=wanted)
        if ranges.source is Source.INTERVAL:
            domains = _sound_domains(graph, ranges, choices)
        results.append(_finished(graph, ranges, domains, choices, rows, budget))
        excess = budget.excess(results[-1].score)
        if excess <= 1.0:
            return results[-1]
        if excess > _OUT_OF_REACH:
            break
        asked = replace(asked, accuracy=asked.accuracy / min(max(excess, 1.05), 2.0))
    return results[0]


def _usable_degrees(max_degree: int) -> tuple[int, ...]:
    degrees = tuple(d for d in USEFUL_DEGREES if d <= max_degree)
    if not degrees:
        raise CircuitError(f"max_degree must be at least 1, got {max_degree}")
    return degrees


def _fitter(ranges: Ranges, domain_of: DomainOf) -> Fit:
    """Return a cached (activation, choice) -> replacement; `_EXACT` for a `polynomial`."""

    @cache
    def fit(node: Activation, choice: Choice) -> Replacement:
        size = ranges.tensors[node.input].low.size
        if node.function == "polynomial":
            return exact_polynomial(node, domain_of(node), size)
        histogram = ranges.histograms.get(node.input)
        return replacement(node, choice, domain_of(node), size, histogram)

    return fit


def _ladders(
    graph: Graph,
    fit: Fit,
    pricer: Pricer,
    degrees: tuple[int, ...],
    max_sign_levels: int,
    domains: Mapping[str, Domain],
) -> dict[int, tuple[Choice, ...]]:
    """List, for the index of every activation that is not exact, what to choose from."""
    return {
        index: choices_for(
            node,
            partial(fit, node),
            degrees,
            max_sign_levels,
            pricer.level_in_products,
            domains[node.input],
        )
        for index, node in enumerate(graph.nodes)
        if isinstance(node, Activation) and node.function != "polynomial"
    }


def _choose(
    graph: Graph,
    fit: Fit,
    rows: Mapping[str, Floats],
    budget: Budget,
    ladders: Mapping[int, tuple[Choice, ...]],
    pricer: Pricer,
    *,
    bargain: bool,
) -> dict[str, Choice]:
    """Search; returns choices by output tensor (exact polynomials are not in it)."""
    activations = {i: n for i, n in enumerate(graph.nodes) if isinstance(n, Activation)}
    exact = {n.output: fit(n, _EXACT).nodes[-1] for i, n in activations.items() if i not in ladders}
    base = replace(graph, nodes=tuple(exact.get(n.output, n) for n in graph.nodes))
    chosen = search_degrees(
        base,
        ladders,
        lambda index, choice: fit(activations[index], choice).nodes,
        rows,
        answers(graph, evaluate(graph, rows)),
        budget,
        pricer,
        bargain=bargain,
    )
    return {activations[i].output: choice for i, choice in chosen.items()}


def thinned(graph: Graph, rows: Mapping[str, Floats], most: int = 1024) -> dict[str, Floats]:
    """Take few enough rows, see `few_rows`."""
    chosen = few_rows(graph, len(next(iter(rows.values()))), most)
    return {name: np.asarray(rows[name], dtype=np.float64)[chosen] for name in graph.inputs}


def few_rows(graph: Graph, total: int, most: int = 1024) -> Ints:
    """Choose rows at equal distances, few enough to keep every tensor in memory and be quick."""
    weights = sum(m.nnz for n in graph.nodes if isinstance(n, Affine) for m in n.matrices)
    values = sum(graph.size(n.output) for n in graph.nodes if isinstance(n, Activation))
    work = weights + _POLYNOMIAL_WORK * values
    most = min(most, max(_LEAST_ROWS, _MOST_WORK // max(work, 1)))
    row_size = sum(graph.size(name) for name in [*graph.inputs, *(n.output for n in graph.nodes)])
    most = max(2, min(most, _MOST_VALUES // max(row_size, 1)))
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))


def judging_rows(graph: Graph, ranges: Ranges) -> dict[str, Floats]:
    """Draw rows uniformly from the input ranges, the same every time."""
    generator = np.random.default_rng(0)
    bounds = {name: ranges.tensors[name] for name in graph.inputs}
    return {
        name: generator.uniform(b.low, b.high, (_RANDOM_ROWS, b.low.size))
        for name, b in bounds.items()
    }


def _sound_domains(
    graph: Graph, ranges: Ranges, choices: Mapping[str, Choice]
) -> dict[str, Domain]:
    """Compute domains front to back with interval bounds through the final polynomials."""
    read = readings(graph)
    domains: dict[str, Domain] = {}
    bounds = {name: ranges.tensors[name] for name in graph.inputs}
    fit = _fitter(ranges, lambda node: domains[node.input])
    for node in graph.nodes:
        chain: tuple[Node, ...] = (node,)
        if isinstance(node, Activation):
            domains[node.input] = choose_domain(node.input, read[node.input], bounds)
            chain = fit(node, choices.get(node.output, _EXACT)).nodes
        for link in chain:
            low, high = node_bounds(link, bounds)
            bounds[link.output] = TensorRange(low, high, Source.INTERVAL)
        bounds[node.output] = bounds[node.output].widened(ranges.margin)
    return domains


def _finished(
    graph: Graph,
    ranges: Ranges,
    domains: Mapping[str, Domain],
    choices: Mapping[str, Choice],
    rows: Mapping[str, Floats],
    budget: Budget,
) -> Approximated:
    fit = _fitter(ranges, lambda node: domains[node.input])
    fitted = {
        node.output: fit(node, choices.get(node.output, _EXACT))
        for node in graph.nodes
        if isinstance(node, Activation)
    }
    result = _replaced(graph, fitted)
    usage: dict[str, _Usage] = {}

    def observe(name: str, values: Floats) -> None:
        if name in domains:
            usage[name] = _use_of(values, *domains[name])

    with np.errstate(all="ignore"):
        got = answers(result, evaluate(result, rows, observe))
    score = score_answers(answers(graph, evaluate(graph, rows)), got)
    reports = tuple(
        _report(node, fitted[node.output], domains[node.input], usage[node.input])
        for node in graph.nodes
        if isinstance(node, Activation)
    )
    return Approximated(result, reports, score, budget)


def _replaced(graph: Graph, fitted: Mapping[str, Replacement]) -> Graph:
    """Put chains in place of activations; what they write inside has the activation's shape."""
    nodes: list[Node] = []
    shapes = dict(graph.shapes)
    for node in graph.nodes:
        chain = fitted[node.output].nodes if node.output in fitted else (node,)
        shapes.update(dict.fromkeys((n.output for n in chain[:-1]), graph.shapes[node.output]))
        nodes += chain
    return replace(graph, nodes=tuple(nodes), shapes=shapes)


@dataclass(frozen=True, slots=True)
class _Usage:
    """Which part of a domain some rows use; see `ActivationReport`."""

    clipped: float
    reach: float


def _use_of(values: Floats, center: float, half_width: float) -> _Usage:
    distance = np.abs(values - center) / half_width
    reach = float(distance.max()) if np.all(np.isfinite(distance)) else np.inf
    return _Usage(float((~(distance <= 1.0 + 1e-9)).mean()), reach)


def _report(
    node: Activation, fitted: Replacement, domain: Domain, usage: _Usage
) -> ActivationReport:
    return ActivationReport(
        output=node.output,
        origin=node.origin,
        function=node.function,
        low=domain[0] - domain[1],
        high=domain[0] + domain[1],
        degree=max(fitted.degrees),
        degrees=fitted.degrees,
        levels=max(fitted.levels, 1),
        products=fitted.products,
        max_error=fitted.max_error,
        mean_error=fitted.mean_error,
        margin=fitted.margin,
        clipped=usage.clipped,
        reach=usage.reach,
    )
