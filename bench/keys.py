"""Question `keys`: what evaluation keys take, full and trimmed to the levels of their use.

Sizes follow from circuits and parameters alone: no key is made. That frames and stored keys have
just these sizes is asserted by tests, and by question `memory`.

- `logreg`, `mlp`: the networks of these questions, compiled.
- `lenet`: that of question `lenet`, with weights as drawn, compiled.
- `training 780 x 9`: logistic regression, five iterations, as question `training` asks for it.
- `residual network`: no network, but its keys: a functional bootstrap of all slots at N = 2^15, and
  convolutions of 75 rotations at three levels between bootstraps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench import lenet, logreg, mlp
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_bytes
from bench.task import Array
from bench.training_sets import framingham_like
from tacit.bootstrap import Bootstrap
from tacit.circuit import Circuit, LinearPlan, LinearTerm
from tacit.client.training.logistic_regression import LogisticRegression
from tacit.evaluation_keys import NeededKey, full_key, keys_at, keys_bytes
from tacit.key_levels import circuit_key_levels
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.bootstrap import choose_bootstrap
from tacit.model_compiler.builder import CircuitBuilder
from tacit.model_compiler.op_times import reference_times
from tacit.model_compiler.training import compile_training
from tacit.params import CryptoParams

__all__ = ["NAME", "SUMMARY", "Keys", "bootstrapped_network", "draw", "run", "training"]

NAME = "keys"
SUMMARY = "bytes of evaluation keys, full and trimmed to the levels of their use"
MEGABYTES = 1e6
ROTATIONS, BABIES = 75, 25  # of the convolutions of a residual network, and those made first
ITERATIONS = 5  # of the training


@dataclass(frozen=True, slots=True)
class Keys:
    """One workload's keys, as they are needed."""

    workload: str
    params: CryptoParams
    needed: tuple[NeededKey, ...]

    @property
    def figures(self) -> dict[str, int]:
        """Bytes in memory and to upload, trimmed and full, and the number of keys."""
        params = self.params
        full = [full_key(key, params) for key in self.needed]
        return {
            "keys": len(self.needed),
            "key_bytes": sum(key.frame_bytes(params) for key in self.needed),
            "full_key_bytes": sum(key.frame_bytes(params) for key in full),
            "stored_bytes": keys_bytes(self.needed, params),
            "full_stored_bytes": keys_bytes(full, params),
        }


def run(options: Options, console: Console) -> Answer:
    """Account for every workload."""
    around, answer = look_around(), Answer()
    table = Table(title="evaluation keys", title_justify="left")
    for heading in ("workload", "keys", "upload", "untrimmed", "in memory", "untrimmed"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        for keys in _workloads(Path(folder), console, quick=options.quick):
            count, *sizes = keys.figures.values()
            table.add_row(keys.workload, str(count), *map(format_bytes, sizes))
            answer.records += [_record(keys, *figure, around) for figure in keys.figures.items()]
    console.print(table)
    return answer


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw uploads, full and trimmed, for every workload."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    for metric, colour in (("full_key_bytes", "#bbb"), ("key_bytes", "#0b6e4f")):
        chosen = [record for record in records if record.metric == metric]
        sizes = [record.value / MEGABYTES for record in chosen]
        label = "untrimmed" if metric.startswith("full") else "trimmed"
        axes.barh([record.workload for record in chosen], sizes, color=colour, label=label)
    axes.invert_yaxis()
    axes.set(xlabel="MB to upload", xscale="log")
    axes.legend()
    figure.suptitle(f"{NAME}: commit {records[0].commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def training(degree: int, folder: Path) -> Keys:
    """Return the keys of the training that question `training` times, as the server compiles it.

    Args:
        degree: of the sigmoid's polynomial.
        folder: where the compiled training goes.
    """
    patients = framingham_like()
    model = LogisticRegression(iterations=ITERATIONS, degree=degree, where="client", simulate=True)
    task = model.request(patients.rows, patients.labels).task
    signature = compile_training(task, folder / f"training-{degree}").signature
    workload = f"training 780 x 9, {ITERATIONS} iterations, degree {degree}"
    return Keys(workload, signature.params, signature.needed_keys)


def bootstrapped_network(log_n: int, usable_levels: int, degree: int, log_scale: int) -> Keys:
    """Return the keys of convolutions at the levels that bootstraps of all slots leave.

    The bootstrap is the fastest one whose own keys take less than 4 GB.
    """
    times = reference_times()
    choice = choose_bootstrap(usable_levels, degree, log_scale, times, log_ns=(log_n,))
    circuit = _network(choice.params, choice.plan, usable_levels, degree)
    stages = f"{choice.plan.to_coefficients} and {choice.plan.to_slots} stages"
    workload = f"residual network, N = 2^{log_n}, {log_scale}-bit primes, {stages}"
    return _of(workload, circuit, choice.params)


def _network(params: CryptoParams, plan: Bootstrap, levels: int, degree: int) -> Circuit:
    """Convolve at each usable level with the same rotations, then bootstrap."""
    builder = CircuitBuilder(params.slots)
    value = builder.input(plan.level)
    giants = ROTATIONS - BABIES + 2
    terms = tuple(LinearTerm(0, 0, i - i % BABIES, i % BABIES, i) for i in range(giants * BABIES))
    matrix = LinearPlan(1, terms, builder.constant(np.ones((len(terms), 1)), "kernel"), "")
    for level in range(levels):
        (value,) = builder.linear((value,), matrix, f"convolution {level}")
    series = np.ones((2, degree + 1))
    return builder.build([builder.bootstrap(value, plan, series, "activation")])


def _workloads(folder: Path, console: Console, *, quick: bool) -> Iterator[Keys]:
    tasks = logreg.make_tasks(folder)[:1] + ([] if quick else mlp.make_tasks(folder, console)[:1])
    for task in tasks:
        calibration = task.arrays.get("raw_calibration", task.arrays["calibration"])
        yield _compiled(task.question, task.onnx_path, calibration, folder)
    if not quick:
        network = lenet.LeNet.drawn(28, lenet.KERNELS, lenet.HIDDEN, lenet.CLASSES)
        images, _ = mlp.load_images()
        yield _compiled("lenet", lenet.export(network, 28), images[:100], folder)
    for degree in (3, 5):
        yield training(degree, folder)
    for log_scale in (30, 34):
        yield bootstrapped_network(15, 3, 31, log_scale)


def _compiled(name: str, model: onnx.ModelProto | Path, calibration: Array, folder: Path) -> Keys:
    options = CompileOptions(calibration=calibration, plans=("latency",))
    signature = compile_model(model, folder / f"{name}-compiled", options=options).signature
    return Keys(name, signature.params, signature.needed_keys)


def _of(workload: str, circuit: Circuit, params: CryptoParams) -> Keys:
    return Keys(workload, params, keys_at(circuit_key_levels(circuit, params), params))


def _record(keys: Keys, metric: str, value: int, around: Surroundings) -> Record:
    return Record(
        question=NAME,
        workload=f"{NAME} {keys.workload}",
        subject="tacit",
        metric=metric,
        value=value,
        unit="1" if metric == "keys" else "bytes",
        threads=1,
        parameters=keys.params.to_json(),
        runs=1,
        hardware=around.hardware,
        commit=around.commit,
        load=around.load,
        time=around.time,
    )
