"""Compare the answers of an approximated graph with the exact ones, as a customer sees them.

A customer reads what the epilogue makes of the decrypted outputs: probabilities, not logits. There
an error of 0.01 means the same for every classifier, however far its logits spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tacit.clear_steps import apply_steps
from tacit.model_compiler.graph import Graph

Floats = NDArray[np.float64]

# What `accuracy` grants beside the root mean square error, which it bounds itself.
GREATEST_ERROR: Final = 12.0  # times accuracy: the worst row
CLOSE_MARGIN: Final = 2.0  # times accuracy: up to it, a row may change its argmax
CHANGED_ROWS: Final = 0.005  # of all rows: these may, whatever their margin


@dataclass(frozen=True, slots=True)
class Score:
    """How close answers are to the exact ones; the worst answer counts.

    Errors and margins are fractions of the range of the exact answer over all rows.

    Attributes:
        error: greatest |difference| over rows and elements. inf when not finite.
        rms: root mean square over rows of the row's greatest |difference|.
        agreement: fraction of rows with equal argmax; 1 for answers of one element.
        changed_margin: among exact rows whose argmax changed, but for `CHANGED_ROWS` of all rows,
            the greatest gap between a row's two greatest elements; 0 when none are left.
    """

    error: float
    rms: float
    agreement: float
    changed_margin: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search must keep.

    Attributes:
        accuracy: greatest `Score.rms`. `Score.error` may be `GREATEST_ERROR` times as much.
        keep_argmax: whether `Score.changed_margin` must be at most `CLOSE_MARGIN` times the
            accuracy: all but a few rows keep their argmax, unless it was a close call.
    """

    accuracy: float
    keep_argmax: bool = True

    def allows(self, score: Score) -> bool:
        """Tell whether a score lies within the budget."""
        return self.excess(score) <= 1.0

    def excess(self, score: Score) -> float:
        """Return the greatest ratio of a score to what is granted; at most 1 is within budget."""
        used = max(score.rms, score.error / GREATEST_ERROR)
        if self.keep_argmax:
            used = max(used, score.changed_margin / CLOSE_MARGIN)
        return used / self.accuracy


def answers(graph: Graph, outputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return what a customer reads: the model's real-valued outputs after the epilogue.

    Args:
        graph: names the outputs and the epilogue.
        outputs: of the core, each (rows, size); may hold more tensors.

    Returns:
        Shape (rows, elements) each; the core's own outputs where they are not finite, or where
        the epilogue leaves no real number (only labels).
    """
    core = {name: outputs[name] for name in graph.outputs}
    if not graph.epilogue or not all(np.all(np.isfinite(v)) for v in core.values()):
        return core
    with np.errstate(all="ignore"):
        final = apply_steps(graph.epilogue, core)
    rows = len(next(iter(core.values())))
    real: dict[str, Floats] = {
        name: np.asarray(final[name], dtype=np.float64).reshape(rows, -1)
        for name in graph.model_outputs
        if final[name].dtype.kind == "f" and final[name].shape[:1] == (rows,)
    }
    return real or core


def score_answers(exact: Mapping[str, Floats], got: Mapping[str, Floats]) -> Score:
    """Compare answers with the exact ones; `got` may hold more tensors."""
    scores = [_score(expected, got.get(name)) for name, expected in exact.items()]
    return Score(
        error=max((s.error for s in scores), default=0.0),
        rms=max((s.rms for s in scores), default=0.0),
        agreement=min((s.agreement for s in scores), default=1.0),
        changed_margin=max((s.changed_margin for s in scores), default=0.0),
    )


def _score(expected: Floats, got: Floats | None) -> Score:
    if got is None or not np.all(np.isfinite(got)):
        return Score(np.inf, np.inf, 0.0, np.inf)
    span = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    worst = np.abs(got - expected).max(axis=1) / span
    rms = float(worst.max()) * float(np.sqrt(np.mean((worst / (worst.max() or 1.0)) ** 2)))
    if expected.shape[1] == 1:
        return Score(float(worst.max()), rms, 1.0, 0.0)
    changed = expected.argmax(axis=1) != got.argmax(axis=1)
    margins = np.sort(_margins(expected[changed]))[::-1][int(CHANGED_ROWS * len(expected)) :]
    changed_margin = float(margins.max(initial=0.0)) / span
    return Score(float(worst.max()), rms, 1.0 - float(changed.mean()), changed_margin)


def _margins(values: Floats) -> Floats:
    """Return the gap between the two greatest elements of each row."""
    top = np.partition(values, -2, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])
