"""What is known of a model while it is compiled, and the passes that both ways share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from tacit.errors import InternalError
from tacit.model_compiler.calibration_rows import core_rows, drawn_rows
from tacit.model_compiler.choose_params import Choice
from tacit.model_compiler.graph import Graph, evaluate
from tacit.model_compiler.levels import check_levels
from tacit.model_compiler.lowering.latency import LinearMaps, Stages
from tacit.model_compiler.lowering.plans import PlanChoice
from tacit.model_compiler.onnx_import import import_onnx
from tacit.model_compiler.op_times import MachineTimes
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.passes.approximate import Approximated, few_rows
from tacit.model_compiler.passes.calibrate import Ranges, calibrate
from tacit.model_compiler.passes.compose import compose
from tacit.model_compiler.passes.distinct_outputs import distinct_outputs
from tacit.model_compiler.passes.equalize import equalize
from tacit.model_compiler.passes.scale import ScaledGraph, evaluate_scaled

Floats = NDArray[np.float64]
Model = str | Path | bytes | onnx.ModelProto

T = TypeVar("T")

_MOST_JUDGED_ROWS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is known so far; each pass fills in what comes after it.

    Attributes:
        rows: calibration rows of the core's inputs, or None.
        exact: what the model's core gives for them; empty until it is known.
        imported: the graph as imported, the exact meaning of the model.
        graph: the graph after the latest pass.
        ranges: of `graph`.
        kept: elements still computed of outputs that repeated themselves, by name.
        approximation_error: greatest error of each output due to polynomials, in stored units.
        maps: what all lowerings of the scaled graph share.
        reach: greatest |stored value| of each tensor on the rows judged; 1 is the range's end.
        plans: the plans made, by name.
        reasons: why each plan asked for was made as it is, or was left out.
        seconds: duration of each pass.
        stages: of the bootstraps; None without any.
        sizes: half widths that tensors of residual joins share.
        way: why the circuits bootstrap or do not.
    """

    model: Model
    options: CompileOptions
    times: MachineTimes
    rows: Mapping[str, Floats] | None = None
    exact: Mapping[str, Floats] = field(default_factory=dict)
    imported: Graph | None = None
    graph: Graph | None = None
    ranges: Ranges | None = None
    approximated: Approximated | None = None
    kept: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    scaled: ScaledGraph | None = None
    approximation_error: Mapping[str, float] = field(default_factory=dict)
    reach: Mapping[str, float] = field(default_factory=dict)
    choice: Choice | None = None
    maps: LinearMaps = field(default_factory=LinearMaps)
    plans: Mapping[str, PlanChoice] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    stages: Stages | None = None
    sizes: Mapping[str, float] = field(default_factory=dict)
    way: str = ""


Pass = Callable[[State], State]


def import_model(state: State) -> State:
    """Read the model, and bring the calibration rows to the core."""
    keep = state.options.keep_on_server
    graph = import_onnx(state.model, name=_name(state), keep_on_server=keep)
    return replace(state, imported=graph, graph=graph, rows=core_rows(graph, state.options))


def compose_maps(state: State) -> State:
    """Multiply consecutive affine maps where that is cheaper."""
    return replace(state, graph=compose(known(state.graph)))


def calibrate_ranges(state: State) -> State:
    """Find the range of every tensor."""
    graph, bounds = known(state.graph), state.options.input_range
    declared = None if bounds is None else dict.fromkeys(graph.inputs, bounds)
    margin = state.options.margin
    ranges = calibrate(graph, state.rows, margin=margin, input_ranges=declared)
    return replace(state, ranges=ranges, exact=state.exact or ranges.outputs)


def equalize_channels(state: State) -> State:
    """Spread the channels of rectified layers."""
    graph = known(state.graph)
    equalized = equalize(graph, known(state.ranges).tensors)
    return state if equalized is graph else calibrate_ranges(replace(state, graph=equalized))


def compute_outputs_once(state: State) -> State:
    """Leave out outputs that repeat others."""
    result = distinct_outputs(known(state.graph))
    return replace(state, graph=result.graph, kept=result.kept)


def judge(state: State) -> State:
    """Measure what the polynomials cost in accuracy, on the rows the ranges come from."""
    scaled, imported = known(state.scaled), known(state.imported)
    rows = state.rows or drawn_rows(imported, known(state.ranges))
    few = few_rows(imported, len(next(iter(rows.values()))), _MOST_JUDGED_ROWS)
    judged = {name: np.asarray(rows[name], dtype=np.float64)[few] for name in imported.inputs}
    reach: dict[str, float] = {}

    def observe(name: str, values: Floats) -> None:
        reach[name] = _greatest(values)

    exact = {name: values[few] for name, values in state.exact.items()}
    exact = exact or evaluate(imported, judged)
    got = evaluate_scaled(scaled, judged, observe)
    errors = {
        name: _greatest(got[name] - exact[name][:, state.kept.get(name, slice(None))])
        / scaled.output_scale[name]
        for name in imported.outputs
    }
    return replace(state, approximation_error=errors, reach=reach)


def _greatest(values: Floats) -> float:
    return float(np.abs(values).max())


def check(state: State) -> State:
    """Check the levels of every circuit."""
    for plan in state.plans.values():
        check_levels(plan.circuit)
    return state


def known(value: T | None) -> T:
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
