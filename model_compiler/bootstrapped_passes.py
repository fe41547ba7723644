"""The passes of bootstrapped circuits: each activation becomes a bootstrap that applies it."""

from __future__ import annotations

from dataclasses import replace

from tacit.bootstrap import PERIOD
from tacit.bootstrap_levels import bootstrap_depth
from tacit.errors import ParameterError
from tacit.model_compiler.bootstrap import DEGREES, default_plan
from tacit.model_compiler.choose_bootstrapped import (
    MOST_KEY_BYTES,
    choose_bootstrapped,
    given_stages,
)
from tacit.model_compiler.choose_params import Choice, describe
from tacit.model_compiler.choose_refreshes import with_best_refreshes
from tacit.model_compiler.compile_state import (
    Pass,
    State,
    calibrate_ranges,
    check,
    compute_outputs_once,
    judge,
    known,
)
from tacit.model_compiler.graph import Activation, Graph, Node
from tacit.model_compiler.lowering.depths import is_refreshing, latency_cost, required_levels
from tacit.model_compiler.lowering.plans import PlanChoice, Target, interleaved_plan, latency_plan
from tacit.model_compiler.op_times import Backend
from tacit.model_compiler.passes.bootstrapped import HOMOGENEOUS, bootstrap_activations
from tacit.model_compiler.passes.calibrate import widened
from tacit.model_compiler.passes.joins import joint_sizes, part_joins
from tacit.model_compiler.passes.ranges import Source
from tacit.model_compiler.passes.scale import scale
from tacit.model_compiler.passes.shorten import shorten_ways
from tacit.params import CryptoParams, SecretDistribution, Security

# Bits of the outputs' half range that noise must leave, where the user does not say: 2^-8 of
# the range.
_PRECISION_BITS = 7.0
# Half widths of what calibration rows show, where the user does not say: what leaves its range by
# more wraps around, and spoils the whole answer.
_MARGIN = 1.6
_AMPLITUDE = 0.5
# Of series with kinks, in units of their range; what is left, they go from one end to the other in.
# OpenFHE has no other than `PERIOD`.
_SHORT_PERIOD = 1.25
# Parameters whose noise the series are fitted for, before the real ones are known.
_LIKELY_RING, _LIKELY_SCALE = 15, 34


def _part_joins(state: State) -> State:
    graph = known(state.graph)
    parted = part_joins(graph)
    return state if parted is graph else calibrate_ranges(replace(state, graph=parted))


def _shorten_ways(state: State) -> State:
    return replace(state, graph=shorten_ways(known(state.graph)))


def _place_refreshes(state: State) -> State:
    graph, ranges = known(state.graph), known(state.ranges)
    refreshed = with_best_refreshes(graph, state.times, state.options.params)
    if refreshed is graph:
        return state
    added = {n.output: n.inputs[0] for n in refreshed.nodes if n.output not in graph.shapes}
    tensors = {**ranges.tensors, **{new: ranges.tensors[old] for new, old in added.items()}}
    return replace(state, graph=refreshed, ranges=replace(ranges, tensors=tensors))


def _widen_ranges(state: State) -> State:
    """Leave more room for rows to come than polynomials need."""
    ranges, options = known(state.ranges), state.options
    if ranges.source is not Source.DATA or options.margin is not None:
        return state
    return replace(state, ranges=widened(known(state.graph), ranges, _MARGIN))


def _bootstrap_activations(state: State) -> State:
    graph, ranges, options = known(state.graph), known(state.ranges), state.options
    sizes = joint_sizes(graph, ranges.tensors)
    levels = required_levels(graph, latency_cost, 2)
    level = max(levels[node.output] for node in _refreshing(graph))
    params = options.params or _likely_params(level)
    plan = replace(default_plan(params, level), period=_period(state))
    result = bootstrap_activations(
        graph,
        ranges,
        sizes,
        params,
        plan,
        state.rows,
        exact=state.exact or None,
        accuracy=options.accuracy,
        keep_argmax=options.keep_argmax,
    )
    return replace(state, graph=result.graph, approximated=result, sizes=sizes)


def _period(state: State) -> float:
    """Choose the period of all series: a kink is the sharper the shorter it is."""
    kinks = any(
        n.function in HOMOGENEOUS for n in known(state.graph).nodes if isinstance(n, Activation)
    )
    return _SHORT_PERIOD if kinks and state.times.backend is Backend.NATIVE else PERIOD


def _refreshing(graph: Graph) -> list[Node]:
    """Return the nodes that become bootstraps.

    Raises:
        ParameterError: there are none.
    """
    found = [node for node in graph.nodes if is_refreshing(node)]
    if not found:
        raise ParameterError("nothing in this model needs a bootstrap: compile it without")
    return found


def _likely_params(level: int) -> CryptoParams:
    """Return parameters of enough depth for any series; never used to encrypt."""
    kinds = (Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED)
    shallow = CryptoParams.choose(_LIKELY_RING, 1, _LIKELY_SCALE, _LIKELY_SCALE + 1, 1, *kinds)
    plan = default_plan(shallow, level)
    depth = plan.level + bootstrap_depth(shallow, plan, max(DEGREES))
    return CryptoParams.choose(_LIKELY_RING, depth, _LIKELY_SCALE, _LIKELY_SCALE + 1, 3, *kinds)


def _scale(state: State) -> State:
    ranges = known(state.ranges).tensors
    scaled = scale(known(state.graph), ranges, amplitude=_AMPLITUDE, sizes=state.sizes)
    return replace(state, scaled=scaled, graph=scaled.graph)


def _choose_params(state: State) -> State:
    graph, options = known(state.graph), state.options
    if options.params is not None:
        stages = given_stages(graph, options.params, state.times)
        given = Choice(options.params, 0.0, 0.0, (f"{describe(options.params)}: given",))
        return replace(state, choice=given, stages=stages)
    bits = _PRECISION_BITS if options.precision_bits is None else options.precision_bits
    most = float("inf") if options.max_key_mb is None else options.max_key_mb * 1e6
    found = choose_bootstrapped(graph, bits, state.times, state.maps, most_key_bytes=most)
    return replace(state, choice=found.choice, stages=found.stages)


def _lower(state: State) -> State:
    graph, options = known(state.graph), state.options
    asked = [name for name in options.plans if name != "batch"]
    if not asked:
        raise ParameterError("bootstrapped models have no batch plan: ask for the latency plan")
    most = float("inf") if options.max_key_mb is None else options.max_key_mb * 1e6
    params, stages = known(state.choice).params, known(state.stages)
    target = Target(
        params,
        state.times,
        most,
        MOST_KEY_BYTES,
        state.maps,
        stages=stages,
        spare_row=options.known_answer,
    )
    latency = latency_plan(graph, target)
    plans = {"latency": latency} if "latency" in asked else {}
    reasons = {"latency": latency.reason, "batch": "a bootstrap for every element takes too long"}
    if "interleaved" in asked:
        made = interleaved_plan(graph, target, latency)
        if isinstance(made, PlanChoice):
            plans["interleaved"] = made
        reasons["interleaved"] = made.reason if isinstance(made, PlanChoice) else made
    kept = {name: reason for name, reason in reasons.items() if name in options.plans}
    return replace(state, plans=plans or {"latency": latency}, reasons=kept)


BOOTSTRAPPED_PASSES: tuple[tuple[str, Pass], ...] = (
    ("part residual joins", _part_joins),
    ("shorten ways between bootstraps", _shorten_ways),
    ("place bootstraps", _place_refreshes),
    ("widen ranges", _widen_ranges),
    ("fit series to activations", _bootstrap_activations),
    ("compute equal outputs once", compute_outputs_once),
    ("scale", _scale),
    ("judge the approximation", judge),
    ("choose parameters", _choose_params),
    ("lower", _lower),
    ("check levels", check),
)
