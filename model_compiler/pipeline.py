"""From an ONNX file to an artifact: the list of passes, each a function from state to state.

After the first passes there are two ways: leveled circuits, with polynomials for activations, and
bootstrapped ones, where each activation is a bootstrap. Which is taken depends on what is feasible,
and then on predicted time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tacit.artifact import Artifact, save
from tacit.known_answer import KnownAnswer
from tacit.model_compiler.choose_way import choose_way
from tacit.model_compiler.compile_report import write_report
from tacit.model_compiler.compile_state import (
    Model,
    Pass,
    State,
    calibrate_ranges,
    compose_maps,
    equalize_channels,
    import_model,
    known,
)
from tacit.model_compiler.op_times import reference_times
from tacit.model_compiler.options import CompileOptions
from tacit.model_compiler.passes.known_answer import known_answers
from tacit.model_compiler.public_half import make_signature

Progress = Callable[[str, float], None]

FIRST_PASSES: tuple[tuple[str, Pass], ...] = (
    ("import", import_model),
    ("compose linear maps", compose_maps),
    ("calibrate", calibrate_ranges),
    ("equalize channels", equalize_channels),
)
# Of either way; for the progress that is shown.
_MOST_PASSES = 14


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

    def run(state: State, passes: Sequence[tuple[str, Pass]]) -> State:
        return _run(state, passes, progress)

    state = choose_way(run(state, FIRST_PASSES), run)
    if progress is not None:
        progress("save", 1.0)
    return save(_artifact(state), Path(out_dir))


def _run(
    state: State, passes: Sequence[tuple[str, Pass]], progress: Progress | None = None
) -> State:
    for name, run in passes:
        if progress is not None:
            progress(name, min(len(state.seconds) / _MOST_PASSES, 1.0))
        start = time.perf_counter()
        state = run(state)
        state = replace(state, seconds={**state.seconds, name: time.perf_counter() - start})
    return state


def _artifact(state: State) -> Artifact:
    choice, scaled = known(state.choice), known(state.scaled)
    tried = known_answers(scaled, state.plans) if state.options.known_answer else {}
    signature = make_signature(
        scaled,
        known(state.ranges),
        choice.params,
        state.plans,
        state.approximation_error,
        state.options.version,
        {name: found for name, found in tried.items() if isinstance(found, KnownAnswer)},
    )
    report = write_report(
        signature=signature,
        imported=known(state.imported),
        scaled=scaled,
        ranges=known(state.ranges),
        approximated=known(state.approximated),
        approximation_error=state.approximation_error,
        choice=choice,
        plans=state.plans,
        reasons=state.reasons,
        reach=state.reach,
        known=tried,
        pass_seconds=state.seconds,
        times=state.times,
        way=state.way,
        stages=state.stages,
    )
    circuits = {name: plan.circuit for name, plan in state.plans.items()}
    return Artifact(signature, circuits, report)
