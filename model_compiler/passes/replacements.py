"""What can stand in place of an activation: one polynomial, or a composite sign and a product.

Every candidate is a chain of nodes that reads the activation's input and writes its output. They
are ranked by price (levels and products of ciphertexts) and by error on the data; what another one
beats in both is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.errors import ModelError
from tacit.model_compiler.approximation import (
    Approximation,
    Histogram,
    approximate_function,
    from_power_basis,
)
from tacit.model_compiler.composite import (
    SIGN_DEGREES,
    CompositeSign,
    Degrees,
    best_margin,
)
from tacit.model_compiler.functions import BOUND_BY_ZERO, is_defined, real_function
from tacit.model_compiler.graph import Activation, Affine, Node, Polynomial, Product
from tacit.model_compiler.passes.domains import Domain
from tacit.model_compiler.passes.kinks import compose_kinks, kinked_of
from tacit.model_compiler.polynomial_cost import (
    node_products,
    polynomial_levels,
)

Floats = NDArray[np.float64]

# Weight spread evenly over the domain beside the histogram when a margin is chosen.
_FLOOR: Final = 1e-3
# Greatest error of a reciprocal, root or logarithm, relative to its greatest value.
_WORST_TAIL: Final = 0.15
# A polynomial this close to its function, relative to its greatest value, is close enough.
NEGLIGIBLE: Final = 2.0**-20


@dataclass(frozen=True, slots=True)
class Kink:
    """f(x) = (x if times_x else 1) * (constant + factor * sign(x - at)).

    Attributes:
        at: where the function bends or jumps.
        times_x: whether the input is multiplied in.
        constant: see above.
        factor: see above.
    """

    at: float
    times_x: bool
    constant: float
    factor: float


def kink_of(node: Activation) -> Kink | None:
    """Write an activation by one sign, if it is of that form."""
    match node.function, node.parameters:
        case "relu", ():
            return Kink(0.0, True, 0.5, 0.5)
        case "leaky_relu", (alpha,):
            return Kink(0.0, True, (1.0 + alpha) / 2.0, (1.0 - alpha) / 2.0)
        case "abs", ():
            return Kink(0.0, True, 0.0, 1.0)
        case "thresholded_relu", (alpha,):
            return Kink(alpha, True, 0.5, 0.5)
        case "sign", ():
            return Kink(0.0, False, 0.0, 1.0)
        case "step", ():
            return Kink(0.0, False, 0.5, 0.5)
    return None


@dataclass(frozen=True, slots=True)
class Choice:
    """How to replace an activation: by one polynomial, or by a composite sign.

    Attributes:
        degrees: of the one polynomial, or of each stage of the sign.
        composite: which of the two.
    """

    degrees: Degrees
    composite: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """Nodes in place of an activation, and how good they are.

    Attributes:
        nodes: in order; the last writes the activation's output.
        choice: what was asked for.
        max_error: greatest |error| on the domain, but for the margin of a jump.
        mean_error: mean |error| on the histogram, or on the domain without data.
        rms_error: root mean square error, likewise.
        margin: distance from the kink within which a composite sign is undecided, as a share of
            the greatest distance in the domain; 0 for one polynomial.
        magnitude: greatest |value| on the domain.
    """

    nodes: tuple[Node, ...]
    choice: Choice
    max_error: float
    mean_error: float
    rms_error: float
    margin: float
    magnitude: float

    @property
    def levels(self) -> int:
        """Levels of the longest path; an affine map counts nothing, it joins the next one."""
        deepest = {name: 0 for node in self.nodes for name in node.inputs}
        for node in self.nodes:
            own = max(deepest[name] for name in node.inputs)
            if isinstance(node, Polynomial):
                own += polynomial_levels(node.coefficients)
            elif isinstance(node, Product):
                own += 1
            deepest[node.output] = own
        return deepest[self.nodes[-1].output]

    @property
    def products(self) -> int:
        """Products of two ciphertexts, for a tensor of one ciphertext."""
        return node_products(self.nodes)

    @property
    def degrees(self) -> Degrees:
        """Degree of each polynomial; 1 for an affine map."""
        chain = [node for node in self.nodes if isinstance(node, Polynomial)]
        return tuple(int(node.coefficients.size) - 1 for node in chain) or (1,)

    @property
    def is_negligible(self) -> bool:
        """Tell whether a better one is not worth having."""
        return self.max_error <= NEGLIGIBLE * max(self.magnitude, 1e-300)


def exact_polynomial(node: Activation, domain: Domain, size: int) -> Replacement:
    """Rewrite a `polynomial` activation in the Chebyshev basis of its domain."""
    coefficients = from_power_basis(np.array(node.parameters), *domain)
    made = _single(node, coefficients, domain, size)
    return Replacement((made,), Choice((coefficients.size - 1,)), 0.0, 0.0, 0.0, 0.0, 1.0)


def replacement(
    node: Activation, choice: Choice, domain: Domain, size: int, histogram: Histogram | None
) -> Replacement:
    """Build the nodes of a choice.

    Args:
        node: any activation but `polynomial`.
        choice: composite only for one with a kink.
        domain: center and half width of the interval to serve.
        size: elements of its tensor.
        histogram: values it reads.

    Raises:
        ModelError: the function is not finite on the domain.
    """
    if choice.composite and kink_of(node) is not None:
        return _composite(node, choice, domain, histogram)
    if choice.composite:
        return _by_several_signs(node, choice, domain, size, histogram)
    fitted = _fitted(node, domain, choice.degrees[0], histogram)
    made = _single(node, fitted.coefficients, domain, size)
    return Replacement(
        (made,),
        choice,
        fitted.max_error,
        fitted.mean_error_on_data,
        fitted.rms_error_on_data,
        0.0,
        fitted.max_magnitude,
    )


def choices_for(
    node: Activation,
    build: Callable[[Choice], Replacement],
    degrees: Degrees,
    most_sign_levels: int,
    level_value: float,
    domain: Domain,
) -> tuple[Choice, ...]:
    """Rank the choices for an activation: each dearer than the one before, and more accurate.

    Args:
        node: any activation but `polynomial`.
        build: makes a choice's replacement.
        degrees: degrees of single polynomials to consider, ascending.
        most_sign_levels: longest composite sign to consider; 0 for none.
        level_value: what a level is worth, in products of ciphertexts.
        domain: center and half width of the interval to serve.
    """
    built: list[Replacement] = []
    for degree in degrees:
        built.append(build(Choice((degree,))))
        if built[-1].is_negligible:
            break
    has_signs = kink_of(node) is not None or _kinks_inside(node, domain)
    if has_signs and not built[-1].is_negligible:
        chosen = [SIGN_DEGREES[n] for n in SIGN_DEGREES if n <= most_sign_levels]
        built += [build(Choice(d, composite=True)) for d in chosen]
    if node.function in BOUND_BY_ZERO:  # a bad tail is multiplied with what made it large
        built = [made for made in built if made.max_error <= _WORST_TAIL * made.magnitude] or (
            built[-1:]
        )  # fmt: skip
    built.sort(key=lambda made: (level_value * made.levels + made.products, made.rms_error))
    front: list[Replacement] = []
    for made in built:
        if not front or made.rms_error < front[-1].rms_error or _is_better_in_tails(made, front):
            front.append(made)
    return tuple(made.choice for made in front)


def _is_better_in_tails(made: Replacement, front: list[Replacement]) -> bool:
    """Tell whether as good on the data and better elsewhere, e.g. where data are few."""
    last = front[-1]
    return made.rms_error <= last.rms_error and made.max_error < 0.5 * last.max_error


def _fitted(
    node: Activation, domain: Domain, degree: int, histogram: Histogram | None
) -> Approximation:
    low, high = domain[0] - domain[1], domain[0] + domain[1]
    if not is_defined(node.function, low, high):
        raise ModelError(
            f"{node.origin}: {node.function} has no polynomial on [{low:.6g}, {high:.6g}]: the "
            "values must stay on one side of 0; calibrate with sample data or declare narrower "
            "input ranges"
        )
    function = real_function(node.function, node.parameters)
    return approximate_function(function, *domain, degree, histogram)


def _single(node: Activation, coefficients: Floats, domain: Domain, size: int) -> Node:
    """Build one polynomial, or an affine map up to degree 1."""
    center, half_width = domain
    if coefficients.size > 2:
        return Polynomial(node.output, node.input, coefficients, center, half_width, node.origin)
    slope = float(coefficients[1]) / half_width if coefficients.size == 2 else 0.0
    bias = np.full(size, float(coefficients[0]) - slope * center)
    matrix = csr_array(slope * eye_array(size, format="csr"))
    return Affine(node.output, (node.input,), (matrix,), bias, node.origin)


def _composite(
    node: Activation, choice: Choice, domain: Domain, histogram: Histogram | None
) -> Replacement:
    kink = kink_of(node)
    assert kink is not None
    half_width = abs(domain[0] - kink.at) + domain[1]
    edges = _cells()
    weights = _weights(edges, kink, half_width, domain, histogram)
    u = (edges[1:] + edges[:-1]) / 2.0
    x = kink.at + half_width * u
    size = np.abs(x) if kink.times_x else np.ones_like(x)

    def errors(sign: CompositeSign) -> Floats:
        return np.asarray(size * abs(kink.factor) * np.abs(sign(u) - np.sign(u)))

    def loss(sign: CompositeSign) -> float:
        return float(weights @ errors(sign) ** 2)

    sign = best_margin(choice.degrees, loss)
    error = errors(sign)
    decided = error if kink.times_x else error[np.abs(u) >= sign.margin]
    nodes = _chain(node, kink, sign, half_width)
    return Replacement(
        nodes,
        choice,
        float(decided.max()),
        float(weights @ error),
        float(np.sqrt(weights @ error**2)),
        sign.margin,
        float(size.max()) * (abs(kink.constant) + abs(kink.factor)),
    )


def _kinks_inside(node: Activation, domain: Domain) -> bool:
    kinked = kinked_of(node)
    return kinked is not None and bool(kinked.within(domain).terms)


def _by_several_signs(
    node: Activation, choice: Choice, domain: Domain, size: int, histogram: Histogram | None
) -> Replacement:
    kinked = kinked_of(node)
    assert kinked is not None

    def mass(edges: Floats) -> Floats:
        even = np.diff(edges) / np.ptp(edges)
        if histogram is None:
            return np.asarray(even)
        data = np.diff(histogram.cumulative(edges))
        return np.asarray((1.0 - _FLOOR) * data / max(data.sum(), 1e-300) + _FLOOR * even)

    made = compose_kinks(node, kinked.within(domain), choice.degrees, domain, size, mass)
    return Replacement(
        made.nodes,
        choice,
        made.max_error,
        made.mean_error,
        made.rms_error,
        made.margin,
        made.magnitude,
    )


def _chain(
    node: Activation, kink: Kink, sign: CompositeSign, half_width: float
) -> tuple[Node, ...]:
    nodes: list[Node] = []
    source, center, width = node.input, kink.at, half_width
    last = len(sign.stages) - 1
    for position, stage in enumerate(sign.stages):
        ends = position == last and not kink.times_x
        output = node.output if ends else f"{node.output}/sign{position}"
        coefficients = stage
        if position == last:
            coefficients = kink.factor * stage
            coefficients[0] += kink.constant
        nodes.append(Polynomial(output, source, coefficients, center, width, node.origin))
        source, center, width = output, 0.0, 1.0
    if kink.times_x:
        nodes.append(Product(node.output, node.input, source, node.origin))
    return tuple(nodes)


def _weights(
    edges: Floats, kink: Kink, half_width: float, domain: Domain, histogram: Histogram | None
) -> Floats:
    """Weigh cells of [-1, 1] by the data that fall in, plus a floor on the domain."""
    low = (domain[0] - domain[1] - kink.at) / half_width
    high = (domain[0] + domain[1] - kink.at) / half_width
    inside = np.diff(np.clip(edges, low, high))
    even = inside / inside.sum()
    if histogram is None:
        return np.asarray(even)
    mass = np.diff(histogram.cumulative(kink.at + half_width * edges))
    return np.asarray((1.0 - _FLOOR) * mass / max(mass.sum(), 1e-300) + _FLOOR * even)


@lru_cache(maxsize=1)
def _cells() -> Floats:
    """Return borders of cells of [-1, 1], ever finer towards 0."""
    right = np.unique(
        np.concatenate([np.geomspace(2.0**-18, 1.0, 1200), np.linspace(2.0**-18, 1.0, 600)])
    )
    return np.concatenate([-right[::-1], right])
