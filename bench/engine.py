"""Question `engine`: the native CPU engine against OpenFHE, operation by operation.

Each ring is measured in a process of its own. In every round each operation runs once on OpenFHE
and right after on our kernels, on the same ciphertext; figures are medians over the rounds. The
ratio is that of CPU times, which a busy machine disturbs less than wall time. OpenFHE gives no
access to its transform, so both transforms are taken from the slope of rescaling over limbs
(`_by_rescale`: one transform, one subtraction and one product per limb), and ours is timed alone
beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_seconds
from bench.subjects import ROOT

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "engine"
SUMMARY = "the native CPU engine against OpenFHE, operation by operation"
ROUNDS, QUICK_ROUNDS = 15, 3


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
    for log_n in range(12, 17)
    for log_scale in (49, 59)
)


def run(options: Options, console: Console) -> Answer:
    """Measure on one thread; without --quick also the operations on two."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    largest = 14 if options.quick else 16
    chosen = [s for s in (*TRANSFORMS, *OPERATIONS) if s.log_n <= largest]
    runs = [(setting, 1) for setting in chosen]
    if not options.quick:
        runs += [(setting, 2) for setting in OPERATIONS]
    around, answer = look_around(), Answer()
    for setting, threads in runs:
        with console.status(f"engine: {setting.suffix}, threads: {threads}"):
            finished = _measure_apart(setting, rounds, threads)
        if finished.returncode:
            answer.failures.append(f"{setting.suffix}: {finished.stderr.strip()[-500:]}")
            continue
        records = _records(setting, json.loads(finished.stdout), threads, around)
        answer.records += records
        _show(console, setting, threads, records)
    return answer


def _measure_apart(setting: Setting, rounds: int, threads: int) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, since OpenFHE reads its number of threads when it is loaded."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    path = os.pathsep.join(
        filter(None, [str(ROOT), str(ROOT / "src"), inherited.get("PYTHONPATH", "")])
    )
    openmp = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    request = {
        "log_n": setting.log_n,
        "depth": setting.depth,
        "log_scale": setting.log_scale,
        "log_first": setting.log_first,
        "dnum": setting.dnum,
        "rounds": rounds,
        "threads": threads,
        "transforms_only": setting.transforms_only,
    }
    return subprocess.run(
        [sys.executable, "-m", "bench.engine_worker", json.dumps(request)],
        cwd=ROOT,
        env={**inherited, **openmp, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def _records(
    setting: Setting, measured: dict[str, Any], threads: int, around: Surroundings
) -> list[Record]:
    return [
        Record(
            question=NAME,
            workload=f"{name} {setting.suffix}",
            subject=subject,
            metric=metric,
            value=statistics.median(samples),
            unit="s",
            threads=threads,
            parameters=measured["parameters"],
            runs=len(samples),
            hardware=around.hardware,
            commit=around.commit,
            samples=samples,
            load=around.load,
            time=around.time,
        )
        for name, subjects in measured["samples"].items()
        for subject, metrics in subjects.items()
        for metric, samples in metrics.items()
    ]


def _show(console: Console, setting: Setting, threads: int, records: Sequence[Record]) -> None:
    title = f"engine: {setting.suffix}, {threads} thread{'s' * (threads > 1)}"
    table = Table(title=title, title_justify="left")
    for heading in ("workload", "metric", "openfhe", "tacit", "ratio"):
        table.add_column(heading, justify="left" if heading in ("workload", "metric") else "right")
    values = {(r.workload, r.metric, r.subject): r.value for r in records}
    for workload, metric in dict.fromkeys((r.workload, r.metric) for r in records):
        theirs = values.get((workload, metric, "openfhe"))
        ours = values[workload, metric, "tacit"]
        cells = ("", format_seconds(ours), "")
        if theirs is not None:
            cells = (format_seconds(theirs), format_seconds(ours), f"{theirs / ours:.1f}")
        table.add_row(workload, metric, *cells)
    console.print(table)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw how many times faster the native engine is, by workload, on one thread."""
    ratios = _ratios(records)
    if not ratios:
        return
    figure = Figure(figsize=(9, 1 + 0.25 * len(ratios)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(ratios), list(ratios.values()), color="#0b6e4f")
    axes.axvline(1.0, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.set(xlabel="CPU time of OpenFHE / CPU time of the native engine, one thread")
    figure.suptitle(f"{NAME}: {records[0].hardware['cpu']}, commit {records[0].commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _ratios(records: Sequence[Record]) -> dict[str, float]:
    values = {
        (r.workload, r.subject): r.value
        for r in records
        if r.threads == 1
        and r.metric in ("cpu_seconds", "cpu_seconds_by_rescale")
        and not (r.metric == "cpu_seconds" and r.workload.startswith("ntt"))
    }
    return {
        workload: value / values[workload, "tacit"]
        for (workload, subject), value in values.items()
        if subject == "openfhe" and values.get((workload, "tacit"))
    }
