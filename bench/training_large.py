"""Part `large` of question `training`: the size of HELR's handwritten digits.

Mini-batches of 1,024 rows of 196 features, 32 iterations of degree 3, as in Han, Song, Cheon and
Park, "Logistic regression on homomorphic encrypted data at scale" (2019), at 128 bits. Keys and
ciphertexts are drawn residues, on which time does not depend, so no secret is needed. The time of
an H200 is predicted: the least for the same bytes and instructions. An iteration is run here unless
it is predicted to take more than three minutes.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from bench.gpu.circuits import evaluation, workload
from bench.gpu.floors import floor_of
from bench.report import format_bytes, format_seconds
from bench.training_course import THREADS, Course
from tacit.artifact import Artifact
from tacit.kernels.devices import open_kernels
from tacit.model_compiler.training import compile_training
from tacit.training import Algorithm, TrainingTask
from tacit.training_plan import TrainingPlan

WORKLOAD = "digits 1024x196"
TASK = TrainingTask(
    Algorithm.LOGISTIC, rows=11_982, features=196, iterations=32, degree=3, batch_rows=1024
)
LONGEST_SECONDS = 180.0
_LATER = "iteration-2"


@dataclass(frozen=True, slots=True)
class _Large:
    """The compiled training."""

    model: Artifact
    plan: TrainingPlan

    @property
    def steps(self) -> Counter[str]:
        """How often each plan runs; of plans that differ by their number only, the first counts."""
        chosen: dict[tuple[bool, float], str] = {}
        found: Counter[str] = Counter()
        for step in self.plan.steps:
            kind = step.refreshes, step.seconds
            found[chosen.setdefault(kind, step.plan)] += 1
        return found


def run(course: Course) -> None:
    """Compile it, predict its time on a processor and on a GPU, and run an iteration."""
    start = time.perf_counter()
    with course.console.status("compiling"):
        model = compile_training(TASK, course.folder / "large")
    large = _Large(model, TrainingPlan.of(model.signature))
    iterations, signature = TASK.iterations, model.signature
    on_device = sum(count * _device_seconds(large, name) for name, count in large.steps.items())
    figures = {
        "compile_seconds": ("s", time.perf_counter() - start),
        "predicted_iteration_seconds": ("s", large.plan.seconds / iterations),
        "predicted_gpu_iteration_seconds": ("s", on_device / iterations),
        "key_bytes": ("bytes", float(signature.key_bytes)),
        "refreshes": ("1", float(sum(step.refreshes for step in large.plan.steps))),
    }
    alone = signature.plan(_LATER).seconds
    if alone <= LONGEST_SECONDS:
        with course.console.status(f"an iteration on {THREADS} threads"):
            wall, processor = _seconds(large, _LATER)
        figures["iteration_seconds"] = "s", wall
        figures["iteration_cpu_seconds"] = "s", processor
    else:
        course.say(f"{WORKLOAD}: an iteration is not run: {format_seconds(alone)} predicted")
    parameters = dict(signature.params.to_json())
    for metric, (unit, value) in figures.items():
        course.note(WORKLOAD, metric, unit, [value], parameters)
    shown = (
        f"{metric} {format_bytes(value) if unit == 'bytes' else format_seconds(value)}"
        for metric, (unit, value) in figures.items()
        if unit != "1"
    )
    course.say(f"{WORKLOAD}: {', '.join(shown)}")


def _device_seconds(large: _Large, plan: str) -> float:
    """Predict a plan's time on an H200."""
    signature, circuit = large.model.signature, large.model.circuits[plan]
    return floor_of(workload(plan, signature.params, circuit, 1), None).us / 1e6


def _seconds(large: _Large, plan: str) -> tuple[float, float]:
    """Run a plan on the processor, constants encoded before; returns time and processor time."""
    params = large.model.signature.params
    kernels = open_kernels(params, threads=THREADS)
    evaluate, inputs = evaluation(kernels, params, large.model.circuits[plan], 1)
    start, before = time.perf_counter(), time.process_time()
    evaluate(inputs)
    return time.perf_counter() - start, time.process_time() - before
