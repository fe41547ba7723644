"""Question `engine`: the native CPU engine against OpenFHE, operation by operation.

Each ring is measured in a process of its own, on one thread and on two. In every round each
operation runs once on OpenFHE and right after on our kernels, on the same ciphertext. Times are
medians over the rounds; the ratio is the median of the rounds' ratios, because a busy moment hits
both engines of a round alike. On a busy machine the ratio of CPU times is the steadier one. OpenFHE
has no way to call its transform, so both are taken from the slope of rescaling over limbs
(one transform, one subtraction and one product per limb), and ours is timed alone beside it. Beside
each of our figures is the fraction of what the machine can do at most (docs/roofline.md).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.engine_report import Measured, draw_ratios, machine_records, records_of, show_ring
from bench.engine_report import show_summary as show_all
from bench.question import Answer, Options
from bench.record import Record, look_around
from bench.roofline import Machine, measure_machine
from bench.subjects import run_apart
from tacit.errors import UnusableEnvironmentError

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "engine"
SUMMARY = "the native CPU engine against OpenFHE, operation by operation"
ROUNDS = {13: 41, 14: 31, 15: 15, 16: 9}
QUICK_ROUNDS, QUICK_SIZES = 3, (13, 14)
THREADS = (1, 2)


@dataclass(frozen=True, slots=True)
class Setting:
    """A ring; times do not depend on whether its moduli are secure."""

    log_n: int
    depth: int
    log_scale: int
    log_first: int
    dnum: int
    transforms_only: bool = False

    @property
    def suffix(self) -> str:
        """What a workload's name ends in."""
        bits = f" {self.log_scale + 1}-bit" if self.transforms_only else ""
        return f"2^{self.log_n}{bits}"


OPERATIONS = (
    Setting(13, 4, 40, 50, 3),
    Setting(14, 8, 40, 50, 3),
    Setting(15, 14, 45, 55, 3),
    Setting(16, 24, 45, 55, 3),
)
# Scale primes lie around 2^log_scale: the largest have one bit more.
TRANSFORMS = tuple(
    Setting(log_n, 5, log_scale, 60, 3, transforms_only=True)
    for log_n in ROUNDS
    for log_scale in (49, 59)
)


def run(options: Options, console: Console) -> Answer:
    """Measure all rings on each number of threads, with the machine's limits beside them."""
    sizes = options.sizes or (QUICK_SIZES if options.quick else tuple(ROUNDS))
    chosen = [s for s in (*TRANSFORMS, *OPERATIONS) if s.log_n in sizes]
    counts = options.threads or ((1,) if options.quick else THREADS)
    around, answer, machines = look_around(), Answer(), dict[int, Machine]()
    with _progress(console) as progress:
        task = progress.add_task("engine", total=len(counts) * (len(chosen) + 1))
        for threads in counts:
            progress.update(task, description=f"engine: limits, threads: {threads}")
            try:
                machines[threads] = measure_machine(threads)
            except UnusableEnvironmentError as error:
                answer.failures.append(f"limits: {error}")
                return answer
            answer.records += machine_records(machines[threads], around)
            progress.advance(task)
            for setting in chosen:
                progress.update(task, description=f"engine: {setting.suffix}, threads: {threads}")
                records = _measure(setting, threads, options, answer, machines[threads])
                answer.records += [record.at(around) for record in records]
                show_ring(progress.console, setting.suffix, threads, records)
                progress.advance(task)
    show_all(console, answer.records)
    return answer


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw how many times faster the native engine is, by workload and threads."""
    draw_ratios(records, path)


def _measure(
    setting: Setting, threads: int, options: Options, answer: Answer, machine: Machine
) -> list[Measured]:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS[setting.log_n])
    finished = _measure_apart(setting, rounds, threads, options.instructions)
    if finished.returncode:
        answer.failures.append(f"{setting.suffix}: {finished.stderr.strip()[-500:]}")
        return []
    found: dict[str, Any] = json.loads(finished.stdout)
    return records_of(found, setting.suffix, threads, machine)


def _measure_apart(
    setting: Setting, rounds: int, threads: int, instructions: str | None
) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, since OpenFHE reads its number of threads when it is loaded."""
    asked = {"rounds": rounds, "threads": threads, "instructions": instructions}
    request = json.dumps({**asdict(setting), **asked})
    return run_apart("bench.engine_worker", [request], threads)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
