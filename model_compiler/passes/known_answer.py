"""Choose inputs whose answer is stated in the signature, and compute what must come back.

They are made of what is public anyway, the centre and half width of the inputs' ranges, with
random signs, so they tell nothing of the calibration rows. They must not leave a range anywhere in
the model; if they do, they are drawn closer to the centre.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tacit.known_answer import KnownAnswer
from tacit.model_compiler.graph import Fourier, evaluate
from tacit.model_compiler.lowering.plans import PlanChoice
from tacit.model_compiler.passes.scale import ScaledGraph

Floats = NDArray[np.float64]

# Shares of the half width that are tried; multiples of 1/16, so that the row is short in JSON.
_SHARES = (0.5, 0.25, 0.125, 0.0625, 0.0)
# Stored values lie in [-1, 1]; what bootstraps read in [-1/2, 1/2], with room for its noise.
_INSIDE = 1.0
_INSIDE_BOOTSTRAPS = 0.45
# What is asked of encryption by default; smaller differences are not worth telling.
_LEAST_TOLERANCE = 2.0**-16
# An honest answer stays within this many times the greatest error expected of encryption; of
# bootstrapped circuits, which may be right to a few bits only, within so many at least.
_NOISE_ROOM = 64.0
_LEAST_NOISE_ROOM = 16.0
_LARGEST_TOLERANCE = 0.125


def known_answers(
    scaled: ScaledGraph, plans: Mapping[str, PlanChoice]
) -> dict[str, KnownAnswer | str]:
    """Return, for each plan, its known answer or why it has none.

    Args:
        scaled: the graph on stored values.
        plans: by name.
    """
    row = _row(scaled)
    return {name: _for_plan(scaled, plan, row) for name, plan in plans.items()}


def _for_plan(
    scaled: ScaledGraph, plan: PlanChoice, row: Mapping[str, Floats] | None
) -> KnownAnswer | str:
    if row is None:
        return "even the centre of the input ranges leaves a range inside the model"
    if not _LEAST_NOISE_ROOM * plan.error <= _LARGEST_TOLERANCE:
        return f"encryption may be off by {plan.error:.2g}: too much to tell a fault from noise"
    tolerance = min(max(_LEAST_TOLERANCE, _NOISE_ROOM * plan.error), _LARGEST_TOLERANCE)
    answers = evaluate(scaled.graph, {name: values[None] for name, values in row.items()})
    return KnownAnswer(dict(row), {n: a[0] for n, a in answers.items()}, tolerance)


def _row(scaled: ScaledGraph) -> dict[str, Floats] | None:
    """Draw stored inputs that keep every tensor in range, as far from the centre as they can."""
    graph = scaled.graph
    generator = np.random.default_rng(0)
    signs = {n: generator.choice([-1.0, 1.0], size=graph.size(n)) for n in graph.inputs}
    for share in _SHARES:
        row = {name: share * sign for name, sign in signs.items()}
        if _reach(scaled, row) <= 1.0:
            return row
    return None


def _reach(scaled: ScaledGraph, row: Mapping[str, Floats]) -> float:
    """Return the greatest |stored value| anywhere in the model, as a share of its range."""
    graph = scaled.graph
    inside = {n.input: _INSIDE_BOOTSTRAPS for n in graph.nodes if isinstance(n, Fourier)}
    greatest = [0.0]

    def observe(name: str, values: Floats) -> None:
        greatest.append(float(np.abs(values).max()) / inside.get(name, _INSIDE))

    evaluate(graph, {name: values[None] for name, values in row.items()}, observe)
    return max(greatest)
