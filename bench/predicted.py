"""Question `predicted`: the compiler's predicted latency against the measured one.

Prices are fitted to single operations (question `operations`). The models of the other questions
were looked at while the cost model took shape; those of `bench.blind` were not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import blind, heart, logreg, mlp
from bench.plots import draw_predictions as draw
from bench.question import Answer, Options
from bench.record import Surroundings, look_around
from bench.report import Figure, figures_of, record_of, records_of, show
from bench.rounds import Outcome, run_side_by_side
from bench.task import Task
from tacit.model_compiler.op_times import Backend

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "predicted"
SUMMARY = "predicted against measured latency, known and blind models (goal: within 30 %)"
ROUNDS = 15


def run(options: Options, console: Console) -> Answer:
    """Measure Tacit alone on every model of the other questions, and on the blind ones."""
    around = look_around()
    answer = Answer()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        for task in _tasks(Path(folder), options, console):
            _measure(task, options, around, console, answer)
    for known in (True, False):
        _summarise(answer, console, known=known)
    return answer


def _measure(
    task: Task, options: Options, around: Surroundings, console: Console, answer: Answer
) -> None:
    name = "tacit:openfhe" if options.backend == Backend.OPENFHE.value else "tacit"
    (outcome,) = run_side_by_side(task, [name], options.pace(ROUNDS), console.print)
    show(console, task, [outcome])
    workload = f"{task.question}, {task.workload}"
    if not outcome.measured:
        answer.failures.append(f"{workload}: {name}: {outcome.failed or outcome.skipped}")
        return
    answer.records += records_of(outcome, task, around, question=NAME, workload=workload)
    ratio = predicted_over_measured(outcome, task)
    console.print(f"{workload}: predicted / measured = {ratio:.2f}")
    figure = Figure("predicted_over_measured", "1", [ratio])
    answer.records.append(record_of(figure, outcome, around, question=NAME, workload=workload))


def predicted_over_measured(outcome: Outcome, task: Task) -> float:
    """Return predicted server time over the lower quartile of the measured processor time.

    Raises:
        KeyError: the subject reported no prediction.
    """
    samples = {figure.metric: figure.samples for figure in figures_of(outcome, task)}
    measured = float(np.quantile(samples["server_cpu_seconds"], 0.25))
    return samples["predicted_seconds"][0] / measured


def _summarise(answer: Answer, console: Console, *, known: bool) -> None:
    """Print the range of the ratios of one group of models."""
    ratios = [
        record.value
        for record in answer.records
        if record.metric.endswith("predicted_over_measured")
        and record.workload.startswith("blind,") is not known
    ]
    if ratios:
        group = "known models" if known else "blind models"
        spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        console.print(f"{group}: predicted / measured = {spread}")


def _tasks(folder: Path, options: Options, console: Console) -> list[Task]:
    tasks = [*logreg.make_tasks(folder), *mlp.make_tasks(folder, console)]
    if options.heart is None:
        console.print("predicted: the heart models are skipped, give --heart DIR")
    else:
        tasks += heart.make_tasks(folder, options.heart)[0]
    return tasks + blind.make_tasks(folder)
