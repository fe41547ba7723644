"""Replace every activation by the series that a bootstrap applies, of as few harmonics as will do.

A bootstrap costs nearly the same whichever function it applies; twice the harmonics cost a level,
for all bootstraps of a circuit. So the most harmonics that any activation may have are doubled
until the answers on the calibration rows keep their budget. Kinks need all of them, smooth
functions few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth, raised_level
from tacit.chebyshev import chebyshev_depth
from tacit.errors import LevelError, ModelError
from tacit.fourier import evaluate_series
from tacit.model_compiler.bootstrap import DEGREES, Extension, extend_function
from tacit.model_compiler.functions import is_defined, real_function
from tacit.model_compiler.graph import Activation, Fourier, Graph, Node, evaluate
from tacit.model_compiler.lowering.depths import is_refreshing
from tacit.model_compiler.passes.approximate import (
    DEFAULT_ACCURACY,
    ActivationReport,
    Approximated,
    few_rows,
    judging_rows,
)
from tacit.model_compiler.passes.calibrate import Ranges
from tacit.model_compiler.passes.domains import choose_domain, readings
from tacit.model_compiler.passes.replacements import exact_polynomial
from tacit.model_compiler.passes.score import Budget, Score, answers, score_answers
from tacit.params import CryptoParams

Floats = NDArray[np.float64]
Domain = tuple[float, float]

# Root mean square error, as a share of an activation's greatest value, that needs no improvement;
# and the share of the error that more harmonics must take away to be worth having.
_FINE: Final = 2.0**-13
_LEAST_GAIN: Final = 0.2
# Weight spread evenly over the domain beside what the calibration rows show.
_FLOOR: Final = 0.02
_SAMPLES: Final = 2049
_NARROWEST: Final = 2.0**-10
# Functions with f(s x) = s f(x), s > 0: on domains of one shape they share a series.
HOMOGENEOUS: Final = frozenset({"relu", "leaky_relu", "abs"})
_CENTERS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """An activation's series for one number of harmonics.

    Attributes:
        extension: for stored inputs in [-1/2, 1/2), values in the activation's own units.
        rms: root mean square error on the calibration rows' values, relative to `magnitude`.
        mean: mean error likewise, in the activation's own units.
        magnitude: greatest |value| on the domain.
    """

    extension: Extension
    rms: float
    mean: float
    magnitude: float


def bootstrap_activations(
    graph: Graph,
    ranges: Ranges,
    sizes: Mapping[str, float],
    params: CryptoParams,
    plan: Bootstrap,
    rows: Mapping[str, Floats] | None = None,
    *,
    exact: Mapping[str, Floats] | None = None,
    accuracy: float = DEFAULT_ACCURACY,
    keep_argmax: bool = True,
) -> Approximated:
    """Replace activations by Fourier nodes, and exact polynomials by Polynomial nodes.

    Args:
        graph: any graph.
        ranges: of this graph's tensors.
        sizes: half widths of tensors of residual joins, see `joins.joint_sizes`.
        params: whose noise the series must suit; those chosen in the end may differ.
        plan: a bootstrap as the circuit will have it.
        rows: core inputs to judge by; None draws some from the input ranges.
        exact: what the graph's outputs are for the rows, if that is known.
        accuracy: as for `approximate`.
        keep_argmax: as for `approximate`.

    Raises:
        ModelError: a function is not finite on its range.
        LevelError: the parameters have too few levels for any series.
    """
    rows = judging_rows(graph, ranges) if rows is None else rows
    budget = Budget(accuracy, keep_argmax)
    fits = _Fits(graph, ranges, sizes, params, plan)
    outputs = evaluate(graph, rows) if exact is None else exact
    few = few_rows(graph, len(next(iter(rows.values()))))
    some = {name: np.asarray(values, dtype=np.float64)[few] for name, values in rows.items()}
    wanted = answers(graph, {name: outputs[name][few] for name in graph.outputs})
    chosen: dict[str, int] = {}
    for most in fits.degrees:
        better = fits.up_to(most)
        if better == chosen:
            continue
        chosen = better
        with np.errstate(all="ignore"):
            got = answers(graph, evaluate(fits.graph(chosen), some))
        if budget.allows(score_answers(wanted, got)):
            break
    return _finished(fits, chosen, rows, answers(graph, outputs), budget)


class _Fits:
    """Series of all activations of a graph, fitted when asked for."""

    def __init__(
        self,
        graph: Graph,
        ranges: Ranges,
        sizes: Mapping[str, float],
        params: CryptoParams,
        plan: Bootstrap,
    ) -> None:
        self.nodes = [n for n in graph.nodes if isinstance(n, Activation) and is_refreshing(n)]
        self._graph, self._ranges, self._sizes = graph, ranges, sizes
        self._params, self._plan = params, plan
        self.degrees = _possible_degrees(params, plan)
        self._exact = _exact_nodes(graph, ranges)
        self._homogeneous: dict[str, bool] = {}
        for node in self.nodes:
            before = self._homogeneous.get(node.input, True)
            self._homogeneous[node.input] = before and node.function in HOMOGENEOUS
        self.fit = cache(self._fit)
        self._extend = cache(self._extended)

    def domain(self, node: Activation) -> Domain:
        """Return center and half width of what a node reads."""
        bounds = self._ranges.tensors[node.input]
        if node.input in self._sizes:
            return bounds.center, self._sizes[node.input]
        if self._homogeneous.get(node.input, False):
            return _shared_domain(float(bounds.low.min()), float(bounds.high.max()))
        return bounds.center, bounds.half_width or _NARROWEST * max(1.0, bounds.magnitude)

    def up_to(self, most: int) -> dict[str, int]:
        """Return the harmonics of every activation that are worth having, by output."""
        return {node.output: self._degree(node, most) for node in self.nodes}

    def graph(self, chosen: Mapping[str, int]) -> Graph:
        """Put the chosen series in place of the activations."""
        nodes = tuple(self._replaced(node, chosen) for node in self._graph.nodes)
        return replace(self._graph, nodes=nodes)

    def _degree(self, node: Activation, most: int) -> int:
        best, least = self.degrees[0], np.inf
        for degree in self.degrees:
            if degree > most or least <= _FINE:
                break
            rms = self.fit(node, degree).rms
            if rms <= (1.0 - _LEAST_GAIN) * least:
                best, least = degree, rms
        return best

    def _replaced(self, node: Node, chosen: Mapping[str, int]) -> Node:
        if node.output in chosen and isinstance(node, Activation):
            series = self.fit(node, chosen[node.output]).extension.series
            name, period = node.function, self._plan.period
            center, half_width = self.domain(node)
            return Fourier(
                node.output, node.input, series, center, half_width, node.origin, name, period
            )
        return self._exact.get(node.output, node)

    def _fit(self, node: Activation, degree: int) -> Fitted:
        function = self._function(node)
        extension = self._extension(node, degree)
        x: Floats = np.linspace(-0.5, 0.5, _SAMPLES, dtype=np.float64)
        exact = function(x)
        error = np.abs(evaluate_series(extension.series, x, self._plan.period) - exact)
        weights = self._weights(node, x)
        magnitude = float(np.abs(exact).max()) or 1.0
        rms = float(np.sqrt(weights @ error**2))
        return Fitted(extension, rms / magnitude, float(weights @ error), magnitude)

    def _extension(self, node: Activation, degree: int) -> Extension:
        """Fit a series; activations that are multiples of each other share one."""
        if node.function not in HOMOGENEOUS:
            return extend_function(self._function(node), degree, self._params, self._plan)
        center, half_width = self.domain(node)
        unit = self._extend(node.function, node.parameters, center / half_width, degree)
        return Extension(
            unit.series * half_width,
            unit.error * half_width,
            unit.mean_error * half_width,
            unit.noise * half_width,
        )

    def _extended(
        self, name: str, parameters: tuple[float, ...], center: float, degree: int
    ) -> Extension:
        inner = real_function(name, parameters)
        return extend_function(lambda x: inner(center + 2.0 * x), degree, self._params, self._plan)

    def _function(self, node: Activation) -> Callable[[Floats], Floats]:
        """Return an activation as a function of stored values."""
        center, half_width = self.domain(node)
        if not is_defined(node.function, center - half_width, center + half_width):
            raise ModelError(
                f"{node.origin}: {node.function} is not bounded on "
                f"[{center - half_width:.6g}, {center + half_width:.6g}]: the values must stay on "
                "one side of 0; calibrate with sample data or declare narrower input ranges"
            )
        inner = real_function(node.function, node.parameters)
        return lambda x: inner(center + 2.0 * half_width * x)

    def _weights(self, node: Activation, x: Floats) -> Floats:
        """Weigh stored values as the calibration rows have them, and a little evenly."""
        even = np.full(x.size, 1.0 / x.size)
        histogram = self._ranges.histograms.get(node.input)
        if histogram is None:
            return even
        center, half_width = self.domain(node)
        step = 1.0 / (x.size - 1)
        edges = np.append(x, x[-1] + step) - step / 2.0
        mass = np.diff(histogram.cumulative(center + 2.0 * half_width * edges))
        total = max(float(mass.sum()), 1e-300)
        return np.asarray((1.0 - _FLOOR) * mass / total + _FLOOR * even)


def _shared_domain(low: float, high: float) -> Domain:
    """Choose an interval around [low, high] whose center is a multiple of 1/8 of half its width."""
    wanted = _CENTERS * (high + low) / (high - low) if high > low else 0.0
    place = float(np.clip(np.round(wanted), 1 - _CENTERS, _CENTERS - 1)) / _CENTERS
    half_width = max(high / (1.0 + place), -low / (1.0 - place), _NARROWEST)
    return place * half_width, half_width


def _possible_degrees(params: CryptoParams, plan: Bootstrap) -> tuple[int, ...]:
    possible = [d for d in DEGREES if plan.level + bootstrap_depth(params, plan, d) <= params.depth]
    if not possible:
        raised_level(params, plan, DEGREES[0])
        raise LevelError("no series fits the parameters: use a greater depth")
    return tuple(possible)


def _exact_nodes(graph: Graph, ranges: Ranges) -> dict[str, Node]:
    """Rewrite `polynomial` activations, by output."""
    read = readings(graph)
    found: dict[str, Node] = {}
    for node in graph.nodes:
        if isinstance(node, Activation) and not is_refreshing(node):
            domain = choose_domain(node.input, read[node.input], ranges.tensors)
            size = ranges.tensors[node.input].low.size
            found[node.output] = exact_polynomial(node, domain, size).nodes[-1]
    return found


def _finished(
    fits: _Fits,
    chosen: Mapping[str, int],
    rows: Mapping[str, Floats],
    wanted: Mapping[str, Floats],
    budget: Budget,
) -> Approximated:
    result = fits.graph(chosen)
    reach: dict[str, tuple[float, float]] = {}
    domains = {node.input: fits.domain(node) for node in fits.nodes}

    def observe(name: str, values: Floats) -> None:
        if name in domains:
            center, half_width = domains[name]
            distance = np.abs(values - center) / half_width
            reach[name] = float((~(distance <= 1.0)).mean()), float(distance.max())

    with np.errstate(all="ignore"):
        got = answers(result, evaluate(result, rows, observe))
    score: Score = score_answers(wanted, got)
    reports = tuple(_report(node, fits, chosen[node.output], reach) for node in fits.nodes)
    return Approximated(result, reports, score, budget)


def _report(
    node: Activation, fits: _Fits, degree: int, reach: Mapping[str, tuple[float, float]]
) -> ActivationReport:
    made = fits.fit(node, degree)
    center, half_width = fits.domain(node)
    clipped, used = reach[node.input]
    return ActivationReport(
        output=node.output,
        origin=node.origin,
        function=node.function,
        low=center - half_width,
        high=center + half_width,
        degree=degree,
        degrees=(degree,),
        levels=chebyshev_depth(degree),
        products=0,
        max_error=made.extension.error,
        mean_error=made.mean,
        margin=0.0,
        clipped=clipped,
        reach=used,
        bootstrapped=True,
    )
