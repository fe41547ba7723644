"""Which plans a model gets: how many rows travel together, and what is not worth having."""

from __future__ import annotations

from dataclasses import dataclass, field

from tacit.circuit import Circuit
from tacit.errors import ParameterError
from tacit.model_compiler.bsgs import RotationCosts
from tacit.model_compiler.cost import Prediction, predict, rotation_costs
from tacit.model_compiler.graph import Graph
from tacit.model_compiler.lowering.batch import lower_batch
from tacit.model_compiler.lowering.latency import (
    LinearMaps,
    Stages,
    lower_latency,
    smallest_cells,
)
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.noise import predicted_error
from tacit.model_compiler.op_times import MachineTimes
from tacit.params import CryptoParams

MOST_CIPHERTEXTS = 4096
MOST_BYTES = 8 << 30
_TIE = 1.10
# Prices of a key, in rotations: the first avoids keys that save next to nothing, the others are
# tried to keep a limit.
_KEY_PRICES = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True)
class Target:
    """What plans are made for.

    Attributes:
        times: prices of the machine.
        most_key_bytes: limit on the evaluation keys of one plan.
        wished_key_bytes: what they should not exceed, as far as splits can help it.
        maps: what earlier lowerings of the same graph found out.
        stages: of bootstraps.
        spare_row: prefer plans with room for a row more than one.
    """

    params: CryptoParams
    times: MachineTimes
    most_key_bytes: float = float("inf")
    wished_key_bytes: float = float("inf")
    maps: LinearMaps = field(default_factory=LinearMaps)
    stages: Stages = field(default_factory=Stages)
    spare_row: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PlanChoice:
    """A plan that was made.

    Attributes:
        error: greatest encryption error expected in an output, in stored units.
        reason: why it is as it is.
    """

    lowered: Lowered
    prediction: Prediction
    error: float
    reason: str

    @property
    def circuit(self) -> Circuit:
        """The plan's circuit."""
        return self.lowered.circuit

    @property
    def seconds_per_row(self) -> float:
        """Predicted time per row when the batch is full."""
        return self.prediction.seconds / self.lowered.batch


def latency_plan(graph: Graph, target: Target) -> PlanChoice:
    """Make the plan that answers one row soonest; ties within 10 % go to the larger batch.

    If the keys exceed the limit, splits with fewer distinct rotations are tried.

    Raises:
        ParameterError: no split keeps the limit on keys.
    """
    counts = _cell_counts(graph, target.params.slots)
    if target.spare_row and len(counts) > 1:
        counts = counts[:-1]  # the last one fills the ciphertext with one row
    choices = _within_key_limit(graph, target, counts)
    soonest = min(choice.prediction.seconds for choice in choices)
    close = [c for c in choices if c.prediction.seconds <= _TIE * soonest]
    return max(close, key=lambda choice: choice.lowered.batch)


def interleaved_plan(graph: Graph, target: Target, latency: PlanChoice) -> PlanChoice | str:
    """Make the plan of fewest cells, or say why it is not worth having."""
    cells = _cell_counts(graph, target.params.slots)[0]
    if cells == target.params.slots // latency.lowered.batch:
        return "the latency plan already packs as many rows as fit"
    (choice, *_) = _within_key_limit(graph, target, [cells])
    if choice.seconds_per_row >= latency.seconds_per_row:
        return (
            f"{choice.seconds_per_row:.3g} s per row is no better than the latency plan's "
            f"{latency.seconds_per_row:.3g} s"
        )
    return choice


def batch_plan(graph: Graph, target: Target, latency: PlanChoice | None) -> PlanChoice | str:
    """Make the plan of one row per slot, or say why it is not worth having."""
    sizes = [graph.size(name) for name in (*graph.inputs, *(n.output for n in graph.nodes))]
    if max(sizes) > MOST_CIPHERTEXTS:
        return f"a tensor of {max(sizes)} elements needs as many ciphertexts (> {MOST_CIPHERTEXTS})"
    lowered = lower_batch(graph, target.params.slots)
    choice = _finished(lowered, target, "one slot per row, no rotations")
    if choice.prediction.peak_bytes > MOST_BYTES:
        return f"it needs {choice.prediction.peak_bytes / 2**30:.1f} GiB (> {MOST_BYTES >> 30} GiB)"
    if latency is not None and choice.seconds_per_row >= latency.seconds_per_row:
        return (
            f"{choice.seconds_per_row:.3g} s per row is no better than the latency plan's "
            f"{latency.seconds_per_row:.3g} s"
        )
    return choice


def _cell_counts(graph: Graph, slots: int) -> list[int]:
    """Return the powers of two from what the largest tensor needs up to the slots."""
    cells = min(smallest_cells(graph), slots)
    counts = [cells]
    while cells < slots:
        cells *= 2
        counts.append(cells)
    return counts


def _within_key_limit(graph: Graph, target: Target, counts: list[int]) -> list[PlanChoice]:
    tried: list[PlanChoice] = []
    for weight in _KEY_PRICES:
        tried += [_lowered_for(graph, target, cells, weight) for cells in counts]
        wished = min(target.wished_key_bytes, target.most_key_bytes)
        small = [c for c in tried if c.prediction.key_bytes <= wished]
        if small:
            return small
    smallest = min(tried, key=lambda choice: choice.prediction.key_bytes)
    least = smallest.prediction.key_bytes
    if least <= target.most_key_bytes:
        return [smallest]
    raise ParameterError(
        f"the evaluation keys take {least / 1e6:.0f} MB, more than the "
        f"{target.most_key_bytes / 1e6:.0f} MB allowed: raise the limit or use a smaller model"
    )


def _lowered_for(graph: Graph, target: Target, cells: int, key_weight: float) -> PlanChoice:
    """Lower with a key priced at `key_weight` rotations."""

    def prices(level: int) -> RotationCosts:
        giant = rotation_costs(target.params, target.times, level).giant
        return rotation_costs(target.params, target.times, level, key=key_weight * giant)

    slots, stages = target.params.slots, target.stages
    lowered = lower_latency(graph, slots, cells, prices, target.maps, stages)
    reason = f"{lowered.batch} row(s) per ciphertext, {cells} cells each"
    if key_weight != _KEY_PRICES[0]:
        reason += f"; a key weighs {key_weight:g} rotations, to keep the limit on keys"
    return _finished(lowered, target, reason)


def _finished(lowered: Lowered, target: Target, reason: str) -> PlanChoice:
    error = predicted_error(lowered, target.params)
    prediction = predict(lowered.circuit, target.params, target.times)
    return PlanChoice(lowered, prediction, error, reason)
