"""The passes of leveled circuits: activations become polynomials, nothing is bootstrapped."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tacit.errors import ParameterError
from tacit.model_compiler.calibration_rows import drawn_rows
from tacit.model_compiler.choose_params import Choice, choose_params, describe
from tacit.model_compiler.compile_state import (
    Pass,
    State,
    calibrate_ranges,
    check,
    compose_maps,
    compute_outputs_once,
    judge,
    known,
)
from tacit.model_compiler.level_price import level_price
from tacit.model_compiler.lowering.depths import circuit_depth
from tacit.model_compiler.lowering.latency import lower_latency, smallest_cells
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.plans import (
    PlanChoice,
    Target,
    batch_plan,
    interleaved_plan,
    latency_plan,
)
from tacit.model_compiler.passes.approximate import approximate
from tacit.model_compiler.passes.samples import with_samples
from tacit.model_compiler.passes.scale import scale
from tacit.model_compiler.passes.square import complete_squares
from tacit.params import CryptoParams

_PRECISION_BITS = 16.0


def _precision_bits(state: State) -> float:
    asked = state.options.precision_bits
    return _PRECISION_BITS if asked is None else asked


def _approximate(state: State, *, bargain: bool = True) -> State:
    options = state.options
    result = approximate(
        known(state.graph),
        known(state.ranges),
        state.rows,
        accuracy=options.accuracy,
        keep_argmax=options.keep_argmax,
        price=partial(level_price, precision_bits=_precision_bits(state)),
        bargain=bargain,
    )
    return replace(state, graph=result.graph, approximated=result)


def _complete_squares(state: State) -> State:
    return replace(state, graph=complete_squares(known(state.graph)))


def _scale(state: State) -> State:
    graph, ranges = known(state.graph), known(state.ranges)
    rows = state.rows or drawn_rows(known(state.imported), ranges)
    scaled = with_samples(scale(graph, ranges.tensors), rows)
    return replace(state, scaled=scaled, graph=scaled.graph)


def _choose_params(state: State) -> State:
    graph, options = known(state.graph), state.options
    depth = max(1, circuit_depth(graph))
    if options.params is not None:
        return replace(state, choice=_given_params(options.params, depth))
    needed = smallest_cells(graph)

    def lower(slots: int) -> Lowered:
        return lower_latency(graph, slots, slots, maps=state.maps)

    choice = choose_params(
        lower, depth, _precision_bits(state), state.times, lambda slots: slots < needed
    )
    return replace(state, choice=choice)


def _lower(state: State) -> State:
    graph, options = known(state.graph), state.options
    most = float("inf") if options.max_key_mb is None else options.max_key_mb * 1e6
    params, spare = known(state.choice).params, state.options.known_answer
    target = Target(params, state.times, most, maps=state.maps, spare_row=spare)
    latency = latency_plan(graph, target) if set(options.plans) - {"batch"} else None
    made: dict[str, PlanChoice | str] = {}
    if latency is not None and "latency" in options.plans:
        made["latency"] = latency
    if latency is not None and "interleaved" in options.plans:
        made["interleaved"] = interleaved_plan(graph, target, latency)
    if "batch" in options.plans:
        made["batch"] = batch_plan(graph, target, latency)
    plans = {name: plan for name, plan in made.items() if isinstance(plan, PlanChoice)}
    reasons = {n: p.reason if isinstance(p, PlanChoice) else p for n, p in made.items()}
    if not plans:
        raise ParameterError(f"no plan is left: {reasons}; ask for the latency plan too")
    return replace(state, plans=plans, reasons=reasons)


def _given_params(params: CryptoParams, depth: int) -> Choice:
    if params.depth < depth:
        raise ParameterError(
            f"the model needs {depth} levels, the given parameters have {params.depth}"
        )
    return Choice(params, 0.0, 0.0, (f"{describe(params)}: given",))


LEVELED_PASSES: tuple[tuple[str, Pass], ...] = (
    ("approximate activations", _approximate),
    ("compose again", compose_maps),
    ("compute equal outputs once", compute_outputs_once),
    ("complete squares", _complete_squares),
    ("calibrate again", calibrate_ranges),
    ("scale", _scale),
    ("judge the approximation", judge),
    ("choose parameters", _choose_params),
    ("lower", _lower),
    ("check levels", check),
)
ACCURATE_FIRST_PASS: tuple[tuple[str, Pass], ...] = (
    (LEVELED_PASSES[0][0], partial(_approximate, bargain=False)),
)
"""The first of them where there is another way: it raises where the accuracy cannot be kept."""
