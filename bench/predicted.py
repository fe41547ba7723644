"""Question `predicted`: the compiler's predicted latency against the measured one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from bench import heart, logreg, mlp
from bench.plots import draw_predictions as draw
from bench.question import Answer, Options
from bench.record import Surroundings, look_around
from bench.report import Figure, figures_of, record_of, records_of, show
from bench.rounds import Outcome, run_side_by_side
from bench.task import Task

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "predicted"
SUMMARY = "predicted against measured latency of each benchmark model (goal: within 30 %)"
ROUNDS = 5


def run(options: Options, console: Console) -> Answer:
    """Measure Tacit alone on every model of the other questions."""
    around = look_around()
    answer = Answer()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        for task in _tasks(Path(folder), options, console):
            _measure(task, options, around, console, answer)
    return answer


def _measure(
    task: Task, options: Options, around: Surroundings, console: Console, answer: Answer
) -> None:
    (outcome,) = run_side_by_side(task, ["tacit"], options.pace(ROUNDS), console.print)
    show(console, task, [outcome])
    workload = f"{task.question}, {task.workload}"
    if not outcome.measured:
        answer.failures.append(f"{workload}: tacit: {outcome.failed or outcome.skipped}")
        return
    answer.records += records_of(outcome, task, around, question=NAME, workload=workload)
    ratio = predicted_over_measured(outcome, task)
    console.print(f"{workload}: predicted / measured = {ratio:.2f}")
    figure = Figure("predicted_over_measured", "1", [ratio])
    answer.records.append(record_of(figure, outcome, around, question=NAME, workload=workload))


def predicted_over_measured(outcome: Outcome, task: Task) -> float:
    """Return predicted over measured server time.

    Raises:
        KeyError: the subject reported no prediction.
    """
    medians = {figure.metric: figure.median for figure in figures_of(outcome, task)}
    return medians["predicted_seconds"] / medians["server_seconds"]


def _tasks(folder: Path, options: Options, console: Console) -> list[Task]:
    tasks = [*logreg.make_tasks(folder), *mlp.make_tasks(folder, console)]
    if options.heart is None:
        console.print("predicted: the heart models are skipped, give --heart DIR")
        return tasks
    return tasks + heart.make_tasks(folder, options.heart)[0]
