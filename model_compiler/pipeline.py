"""From an ONNX file to an artifact: the list of passes, each a function from state to state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from tacit.artifact import Artifact, save
from tacit.errors import InternalError, ParameterError
from tacit.model_compiler.calibration_rows import core_rows, drawn_rows
from tacit.model_compiler.choose_params import Choice, choose_params, describe
from tacit.model_compiler.compile_report import write_report
from tacit.model_compiler.graph import Graph, evaluate
from tacit.model_compiler.level_price import level_price
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.lowering.depths import circuit_depth
from tacit.model_compiler.lowering.latency import LinearMaps, lower_latency, smallest_cells
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.lowering.plans import (
    PlanChoice,
    Target,
    batch_plan,
    interleaved_plan,
    latency_plan,
)
from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.op_times import MachineTimes, reference_times
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.passes.approximate import Approximated, approximate
from tacit.model_compiler.passes.calibrate import Ranges, calibrate
from tacit.model_compiler.passes.compose import compose
from tacit.model_compiler.passes.distinct_outputs import distinct_outputs
from tacit.model_compiler.passes.equalize import equalize
from tacit.model_compiler.passes.samples import with_samples
from tacit.model_compiler.passes.scale import ScaledGraph, evaluate_scaled, scale
from tacit.model_compiler.passes.square import complete_squares
from tacit.model_compiler.public_half import make_signature
from tacit.params import CryptoParams

Floats = NDArray[np.float64]
Model = str | Path | bytes | onnx.ModelProto
Progress = Callable[[str, float], None]

T = TypeVar("T")

_MOST_JUDGED_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is known so far; each pass fills in what comes after it.

    Attributes:
        rows: calibration rows of the core's inputs, or None.
        imported: the graph as imported, the exact meaning of the model.
        graph: the graph after the latest pass.
        ranges: of `graph`.
        kept: elements still computed of outputs that repeated themselves, by name.
        approximation_error: greatest error of each output due to polynomials, in stored units.
        maps: what all lowerings of the scaled graph share.
        plans: the plans made, by name.
        reasons: why each plan asked for was made as it is, or was left out.
        seconds: duration of each pass.
    """

    model: Model
    options: CompileOptions
    times: MachineTimes
    rows: Mapping[str, Floats] | None = None
    imported: Graph | None = None
    graph: Graph | None = None
    ranges: Ranges | None = None
    approximated: Approximated | None = None
    kept: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    scaled: ScaledGraph | None = None
    approximation_error: Mapping[str, float] = field(default_factory=dict)
    choice: Choice | None = None
    maps: LinearMaps = field(default_factory=LinearMaps)
    plans: Mapping[str, PlanChoice] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def compile_model(
    model: Model,
    out_dir: str | Path,
    *,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Compile an ONNX model to encrypted circuits and save both halves.

    Args:
        model: a path, the bytes of a file, or a loaded model.
        out_dir: where the artifact goes.
        options: see `CompileOptions`.
        progress: called before each pass with its name and the fraction of passes done.

    Raises:
        UnsupportedModelError: lists every node that cannot be compiled.
        ModelError: the model is malformed, dynamic or not finite.
        InputShapeError: calibration rows that do not fit the model.
        ParameterError: no secure parameters fit, or the given ones do not.
        ArtifactError: the directory cannot be written.
    """
    chosen = options or CompileOptions()
    state = State(model, chosen, reference_times(chosen.target))
    for index, (name, run) in enumerate(PASSES):
        if progress is not None:
            progress(name, index / len(PASSES))
        start = time.perf_counter()
        state = run(state)
        state = replace(state, seconds={**state.seconds, name: time.perf_counter() - start})
    if progress is not None:
        progress("save", 1.0)
    return save(_artifact(state), Path(out_dir))


def _import(state: State) -> State:
    keep = state.options.keep_on_server
    graph = import_onnx(state.model, name=_name(state), keep_on_server=keep)
    return replace(state, imported=graph, graph=graph, rows=core_rows(graph, state.options))


def _compose(state: State) -> State:
    return replace(state, graph=compose(_known(state.graph)))


def _calibrate(state: State) -> State:
    graph, bounds = _known(state.graph), state.options.input_range
    declared = None if bounds is None else dict.fromkeys(graph.inputs, bounds)
    margin = state.options.margin
    ranges = calibrate(graph, state.rows, margin=margin, input_ranges=declared)
    return replace(state, ranges=ranges)


def _equalize(state: State) -> State:
    graph = _known(state.graph)
    equalized = equalize(graph, _known(state.ranges).tensors)
    return state if equalized is graph else _calibrate(replace(state, graph=equalized))


def _approximate(state: State) -> State:
    options = state.options
    result = approximate(
        _known(state.graph),
        _known(state.ranges),
        state.rows,
        accuracy=options.accuracy,
        keep_argmax=options.keep_argmax,
        price=partial(level_price, precision_bits=options.precision_bits),
    )
    return replace(state, graph=result.graph, approximated=result)


def _distinct_outputs(state: State) -> State:
    result = distinct_outputs(_known(state.graph))
    return replace(state, graph=result.graph, kept=result.kept)


def _complete_squares(state: State) -> State:
    return replace(state, graph=complete_squares(_known(state.graph)))


def _scale(state: State) -> State:
    graph, ranges = _known(state.graph), _known(state.ranges)
    rows = state.rows or drawn_rows(_known(state.imported), ranges)
    scaled = with_samples(scale(graph, ranges.tensors), rows)
    return replace(state, scaled=scaled, graph=scaled.graph)


def _judge(state: State) -> State:
    """Measure what the polynomials cost in accuracy, on the rows the ranges come from."""
    scaled, imported = _known(state.scaled), _known(state.imported)
    rows = state.rows or drawn_rows(imported, _known(state.ranges))
    judged = {name: values[:_MOST_JUDGED_ROWS] for name, values in rows.items()}
    exact, got = evaluate(imported, judged), evaluate_scaled(scaled, judged)
    errors = {
        name: _greatest(got[name] - exact[name][:, state.kept.get(name, slice(None))])
        / scaled.output_scale[name]
        for name in imported.outputs
    }
    return replace(state, approximation_error=errors)


def _greatest(values: Floats) -> float:
    return float(np.abs(values).max())


def _choose_params(state: State) -> State:
    graph, options = _known(state.graph), state.options
    depth = max(1, circuit_depth(graph))
    if options.params is not None:
        return replace(state, choice=_given_params(options.params, depth))
    needed = smallest_cells(graph)

    def lower(slots: int) -> Lowered:
        return lower_latency(graph, slots, slots, maps=state.maps)

    choice = choose_params(
        lower, depth, options.precision_bits, state.times, lambda slots: slots < needed
    )
    return replace(state, choice=choice)


def _lower(state: State) -> State:
    graph, options = _known(state.graph), state.options
    most = float("inf") if options.max_key_mb is None else options.max_key_mb * 1e6
    target = Target(_known(state.choice).params, state.times, most, state.maps)
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


def _check(state: State) -> State:
    for plan in state.plans.values():
        check_levels(plan.circuit)
    return state


PASSES: tuple[tuple[str, Callable[[State], State]], ...] = (
    ("import", _import),
    ("compose linear maps", _compose),
    ("calibrate", _calibrate),
    ("equalize channels", _equalize),
    ("approximate activations", _approximate),
    ("compose again", _compose),
    ("compute equal outputs once", _distinct_outputs),
    ("complete squares", _complete_squares),
    ("calibrate again", _calibrate),
    ("scale", _scale),
    ("judge the approximation", _judge),
    ("choose parameters", _choose_params),
    ("lower", _lower),
    ("check levels", _check),
)


def _artifact(state: State) -> Artifact:
    choice = _known(state.choice)
    signature = make_signature(
        _known(state.scaled),
        _known(state.ranges),
        choice.params,
        state.plans,
        state.approximation_error,
        state.options.version,
    )
    report = write_report(
        signature=signature,
        imported=_known(state.imported),
        scaled=_known(state.scaled),
        ranges=_known(state.ranges),
        approximated=_known(state.approximated),
        approximation_error=state.approximation_error,
        choice=choice,
        plans=state.plans,
        reasons=state.reasons,
        pass_seconds=state.seconds,
        times=state.times,
    )
    circuits = {name: plan.circuit for name, plan in state.plans.items()}
    return Artifact(signature, circuits, report)


def _known(value: T | None) -> T:
    """Return what an earlier pass must have filled in."""
    if value is None:
        raise InternalError("a pass ran before the one it depends on")
    return value


def _name(state: State) -> str:
    if state.options.name:
        return state.options.name
    if isinstance(state.model, str | Path):
        return Path(state.model).stem
    return "model"


def _given_params(params: CryptoParams, depth: int) -> Choice:
    if params.depth < depth:
        raise ParameterError(
            f"the model needs {depth} levels, the given parameters have {params.depth}"
        )
    return Choice(params, 0.0, 0.0, (f"{describe(params)}: given",))
