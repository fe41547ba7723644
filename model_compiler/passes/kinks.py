"""Functions with several kinks by composite signs: clip, hard sigmoid, hard swish, shrink.

f(x) = base(x) + sum_i factor_i(x) sign(x - at_i), with polynomials of degree at most 2. The signs
are computed side by side, so the second costs no level, and what multiplies a sign vanishes where
it jumps, so that it does not matter how the sign is decided there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import polynomial as power_basis
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array

from tacit.model_compiler.approximation import from_power_basis
from tacit.model_compiler.composite import CompositeSign, Degrees, best_margin
from tacit.model_compiler.graph import Activation, Affine, Node, Polynomial, Product
from tacit.model_compiler.passes.domains import Domain

Floats = NDArray[np.float64]
Quadratic = tuple[float, float, float]

_CELLS: Final = 1200


@dataclass(frozen=True, slots=True)
class Term:
    """factor(x) sign(x - at); factor as c0, c1, c2."""

    at: float
    factor: Quadratic


@dataclass(frozen=True, slots=True)
class Kinked:
    """base(x) + the sum of the terms."""

    base: Quadratic
    terms: tuple[Term, ...]

    def within(self, domain: Domain) -> Kinked:
        """Return the same function on a domain, where signs of far kinks are constant."""
        low, high = domain[0] - domain[1], domain[0] + domain[1]
        base, near = np.array(self.base), []
        for term in self.terms:
            if low < term.at < high:
                near.append(term)
            else:
                base += np.array(term.factor) * (1.0 if term.at <= low else -1.0)
        return Kinked((float(base[0]), float(base[1]), float(base[2])), tuple(near))


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """Nodes that compute a kinked function; errors as in `replacements.Replacement`."""

    nodes: tuple[Node, ...]
    max_error: float
    mean_error: float
    rms_error: float
    margin: float
    magnitude: float


def kinked_of(node: Activation) -> Kinked | None:
    """Write an activation by two signs, if it is of that form."""
    match node.function, node.parameters:
        case "clip", (low, high):
            return _clip(low, high, 1.0)
        case "hard_sigmoid", (alpha, beta) if alpha > 0.0:
            return _clip(-beta / alpha, (1.0 - beta) / alpha, alpha)
        case "hard_swish", ():
            # x/2 + ((x^2 + 3x) sign(x + 3) - (x^2 - 3x) sign(x - 3)) / 12
            rising, falling = (0.0, 0.25, 1.0 / 12.0), (0.0, 0.25, -1.0 / 12.0)
            return Kinked((0.0, 0.5, 0.0), (Term(-3.0, rising), Term(3.0, falling)))
        case "shrink", (limit, bias) if limit == bias > 0.0:
            above, below = (-0.5 * bias, 0.5, 0.0), (-0.5 * bias, -0.5, 0.0)
            return Kinked((0.0, 1.0, 0.0), (Term(limit, above), Term(-limit, below)))
    return None


def _clip(low: float, high: float, slope: float) -> Kinked:
    """slope (|x - low| - |x - high|) / 2, moved to where it belongs."""
    half = slope / 2.0
    middle = half * (low + high) if slope == 1.0 else 0.5
    rising, falling = (-half * low, half, 0.0), (half * high, -half, 0.0)
    return Kinked((middle, 0.0, 0.0), (Term(low, rising), Term(high, falling)))


def compose_kinks(
    node: Activation,
    kinked: Kinked,
    degrees: Degrees,
    domain: Domain,
    size: int,
    mass: Callable[[Floats], Floats],
) -> Composed:
    """Build the nodes with the margin that loses least.

    Args:
        node: the activation.
        kinked: its form on the domain, with at least one term.
        degrees: of the stages of each sign.
        domain: center and half width.
        size: elements of its tensor.
        mass: borders of cells -> weight of each cell, summing to 1.
    """
    edges = _cells(kinked, domain)
    x, weights = (edges[1:] + edges[:-1]) / 2.0, mass(edges)
    widths = [abs(domain[0] - term.at) + domain[1] for term in kinked.terms]

    def errors(sign: CompositeSign) -> Floats:
        total = np.zeros_like(x)
        for term, width in zip(kinked.terms, widths, strict=True):
            u = (x - term.at) / width
            total += np.abs(power_basis.polyval(x, term.factor) * (sign(u) - np.sign(u)))
        return total

    sign = best_margin(degrees, lambda one: float(weights @ errors(one) ** 2))
    error = errors(sign)
    reach = sum(np.abs(power_basis.polyval(x, term.factor)) for term in kinked.terms)
    magnitude = float(np.max(np.abs(power_basis.polyval(x, kinked.base)) + reach))
    return Composed(
        tuple(_nodes(node, kinked, sign, widths, domain, size)),
        float(error.max()),
        float(weights @ error),
        float(np.sqrt(weights @ error**2)),
        sign.margin,
        magnitude,
    )


def _nodes(
    node: Activation,
    kinked: Kinked,
    sign: CompositeSign,
    widths: list[float],
    domain: Domain,
    size: int,
) -> list[Node]:
    nodes: list[Node] = []
    summands: list[tuple[str, float]] = []
    for number, (term, width) in enumerate(zip(kinked.terms, widths, strict=True)):
        source, center, half_width = node.input, term.at, width
        for position, stage in enumerate(sign.stages):
            output = f"{node.output}/kink{number}.{position}"
            nodes.append(Polynomial(output, source, stage, center, half_width, node.origin))
            source, center, half_width = output, 0.0, 1.0
        c0, c1, c2 = term.factor
        product = f"{node.output}/part{number}"
        if c2:
            factor = f"{node.output}/factor{number}"
            nodes.append(_polynomial(factor, node, term.factor, domain))
            nodes.append(Product(product, factor, source, node.origin))
            summands.append((product, 1.0))
            continue
        nodes.append(Product(product, node.input, source, node.origin))
        summands += [(product, c1), (source, c0)]
    bias, slope, square = kinked.base
    if square:
        base = f"{node.output}/base"
        nodes.append(_polynomial(base, node, kinked.base, domain))
        summands.append((base, 1.0))
        bias = 0.0
    elif slope:
        summands.append((node.input, slope))
    kept = [(name, factor) for name, factor in summands if factor]
    matrices = tuple(csr_array(factor * eye_array(size, format="csr")) for _, factor in kept)
    names = tuple(name for name, _ in kept)
    nodes.append(Affine(node.output, names, matrices, np.full(size, bias), node.origin))
    return nodes


def _polynomial(output: str, node: Activation, power: Quadratic, domain: Domain) -> Polynomial:
    coefficients = from_power_basis(np.array(power), *domain)
    return Polynomial(output, node.input, coefficients, *domain, node.origin)


def _cells(kinked: Kinked, domain: Domain) -> Floats:
    """Return borders of cells of the domain, ever finer towards every kink."""
    low, high = domain[0] - domain[1], domain[0] + domain[1]
    near = 2.0 * domain[1] * np.geomspace(2.0**-18, 1.0, _CELLS)
    around = [part for term in kinked.terms for part in (term.at - near, term.at + near)]
    edges = np.concatenate([np.linspace(low, high, _CELLS), *around])
    return np.asarray(np.unique(edges[(edges >= low) & (edges <= high)]))
