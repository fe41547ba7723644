"""Question `memory`: what the compiler says a served model takes against what a process takes.

Keys and ciphertexts are random residues of the right sizes, so that no key is made; the serving
process is a new one for each workload, without OpenFHE.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench import blind, heart, logreg, mlp
from bench.memory_worker import KEY_ID
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_bytes
from bench.subjects import run_apart
from bench.task import Task
from tacit import wire
from tacit.artifact import Artifact
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.memory import key_memory, plan_memory, process_bytes
from tacit.signature import Plan

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "memory"
SUMMARY = "predicted against measured memory of the native engine (goal: within 10 %)"
PLAN = "latency"


def run(options: Options, console: Console) -> Answer:
    """Weigh every model of the other questions, and the blind ones."""
    around, answer = look_around(), Answer()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        for task in _tasks(Path(folder), options, console):
            _measure(task, Path(folder), around, console, answer)
    return answer


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw predicted over measured for every item."""
    ratios = [record for record in records if record.metric == "ratio"]
    figure = Figure(figsize=(9, 1 + 0.2 * len(ratios)), layout="constrained")
    axes = figure.subplots()
    axes.plot([r.value for r in ratios], [r.workload for r in ratios], "o", color="#0b6e4f")
    axes.axvspan(0.9, 1.1, color="#ddd", zorder=0)
    axes.invert_yaxis()
    axes.set(xlabel="predicted bytes / measured bytes")
    figure.suptitle(f"{NAME}: {records[0].hardware['cpu']}, commit {records[0].commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def predicted(model: Artifact, plan: Plan) -> dict[str, int]:
    """Return what the compiler says, by the names that the worker uses."""
    signature = model.signature
    keys = key_memory(signature)
    memory = plan_memory(model.circuits[plan.name], signature.params, plan)
    return {
        "keys": keys.total_bytes,
        "key upload": keys.upload_bytes,
        "input frames": memory.input_frame_bytes,
        "output frames": memory.output_frame_bytes,
        "inputs": memory.input_bytes,
        "outputs": memory.output_bytes,
        "encoded constants": memory.kept_bytes,
        "working arrays": memory.working_bytes,
        "resident": process_bytes(signature, memory),
    }


def _measure(
    task: Task, folder: Path, around: Surroundings, console: Console, answer: Answer
) -> None:
    name = f"{task.question} {task.workload}"
    directory = folder / name.replace(" ", "-")
    arrays = task.arrays
    calibration = arrays.get("raw_calibration", arrays["calibration"])
    model = compile_model(
        task.onnx_path, directory, options=CompileOptions(calibration=calibration)
    )
    plan = model.signature.plan(PLAN)
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as frames:
        write_frames(model, plan, Path(frames))
        done = run_apart("bench.memory_worker", [str(directory), plan.name, frames])
    if done.returncode:
        answer.failures.append(f"{name}: {(done.stderr.strip().splitlines() or ['died'])[-1]}")
        return
    measured = json.loads(done.stdout)
    expected = predicted(model, plan)
    _show(console, name, expected, measured)
    for item, count in expected.items():
        figures = {
            "predicted_bytes": (count, "bytes"),
            "measured_bytes": (measured[item], "bytes"),
            "ratio": (count / measured[item], "1"),
        }
        for metric, (value, unit) in figures.items():
            workload = f"memory {name}, {item}"
            answer.records.append(_record(workload, metric, value, unit, model, around))


def write_frames(model: Artifact, plan: Plan, folder: Path) -> None:
    """Write key frames and the frames of one request, all of random residues."""
    generator = np.random.default_rng(0)
    params, signature = model.signature.params, model.signature
    for number, needed in enumerate(signature.needed_keys):
        limbs = _random(generator, params.n, needed.moduli(params), 2, needed.digits(params))
        key = wire.EvaluationKey(limbs, needed.kind, needed.element, params.digest)
        frame = wire.encode_evaluation_key(
            key, params.moduli, params.special_moduli, limbs=needed.limbs
        )
        (folder / f"key-{number:04}").write_bytes(frame)
    levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    for number, level in enumerate(levels):
        used = params.moduli[: level + 1]
        made = wire.Ciphertext(
            _random(generator, params.n, used, 2),
            level,
            1,
            params.scale(level),
            params.slots,
            params.digest,
            KEY_ID,
        )
        frame = wire.encode_ciphertext(made, params.moduli, wire.Packing.BITS)
        (folder / f"input-{number:04}").write_bytes(frame)


def _random(generator: np.random.Generator, n: int, moduli: tuple[int, ...], *shape: int) -> Any:
    rows = [generator.integers(0, q, (*shape, n), dtype=np.uint64) for q in moduli]
    return np.ascontiguousarray(np.stack(rows, axis=-2))


def _show(
    console: Console, name: str, expected: Mapping[str, int], measured: Mapping[str, int]
) -> None:
    table = Table(title=f"memory: {name}", title_justify="left")
    for heading in ("item", "predicted", "measured", "ratio"):
        table.add_column(heading, justify="left" if heading == "item" else "right")
    for item, count in expected.items():
        ratio = f"{count / measured[item]:.3f}"
        table.add_row(item, format_bytes(count), format_bytes(measured[item]), ratio)
    console.print(table)


def _record(
    workload: str, metric: str, value: float, unit: str, model: Artifact, around: Surroundings
) -> Record:
    parameters = {**model.signature.params.to_json(), "plan": PLAN}
    return around.record(NAME, workload, "tacit", metric, value, unit, parameters)


def _tasks(folder: Path, options: Options, console: Console) -> list[Task]:
    tasks = [*logreg.make_tasks(folder)[:1], *mlp.make_tasks(folder, console)]
    if options.heart is None:
        console.print("memory: the heart models are skipped, give --heart DIR")
    else:
        tasks += heart.make_tasks(folder, options.heart)[0]
    return tasks + blind.make_tasks(folder)
