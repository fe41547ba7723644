"""Question `bootstrap`: native bootstrapping against OpenFHE's own, plain and with a function.

Both refresh the same slots, all of them, to the same number of levels left, with primes of the same
size and equally many stages; each has the depth that it needs itself, and keys of its own. Each
engine runs in a process of its own, one after the other, since keys and tables fill the memory. On
one thread the CPU times count, which a busy machine disturbs less; on two, wall times. Precision is
that of the last result against the function itself, at every slot; by default at N = 2^15 and 2^16,
where a server's bootstraps are. Most of the time goes into making keys.

OpenFHE's plain bootstrap is `EvalBootstrap`; with a function, `EvalFEFuncBootstrap`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.report import format_seconds
from bench.subjects import run_apart

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "bootstrap"
SUMMARY = "native bootstrapping against OpenFHE's: time, keys, memory, precision"
ROUNDS, QUICK_ROUNDS = 2, 2
GOAL = 3.0
ENGINES = ("openfhe", "tacit")
ENCAPSULATED = "sparse encapsulated"
CORES = os.cpu_count() or 1
UNITS = {"keys": "1", "key_bytes": "bytes", "peak_bytes": "bytes", "prepare_seconds": "s"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A bootstrap; times do not depend on whether the moduli are secure."""

    function: str
    log_n: int
    log_scale: int
    stages: int = 2
    level: int = 3
    secret: str = ENCAPSULATED
    engines: Sequence[str] = ENGINES
    log_slots: int = 0
    threads: Sequence[int] = (1,)

    @property
    def workload(self) -> str:
        """Its name in records."""
        slots = f" 2^{self.log_slots} slots" if self.log_slots else ""
        return f"{self.function} 2^{self.log_n} {self.log_scale}-bit {self.secret}{slots}"


QUICK = (Setting("silu", 13, 34), Setting("plain", 13, 50))
FULL = (
    Setting("silu", 15, 34, stages=3, level=4, threads=(1, 2)),
    Setting("plain", 15, 50, stages=3, level=4),
)
SECRETS = (ENCAPSULATED, "uniform ternary", "sparse ternary")
# Precision by primes, slots and secret, the native engine alone; every size of ring has its table.
# At N = 2^16, where keys take twice as long, other secrets are measured at one size of primes.
PRECISION = tuple(
    Setting("plain", log_n, log_scale, 3, 4, secret, ("tacit",), log_slots)
    for log_n in (13, 15, 16)
    for log_slots in (0, 8)
    for log_scale in (34, 40, 50, 58)
    for secret in SECRETS
    if log_n == 13
    or (secret == ENCAPSULATED and log_slots == 0)
    or (log_scale == 50 and log_slots == 0)
    or (log_n == 15 and secret == ENCAPSULATED and log_scale in (34, 50))
    or (log_n == 15 and log_slots == 0 and log_scale == 34)
)
SIZES = (15, 16)


def run(options: Options, console: Console) -> Answer:
    """Measure both engines, then precision; --quick takes a small ring and leaves precision out.

    `--sizes 13` gives the whole table of precision for that ring, in a few minutes.
    """
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    around, answer = look_around(), Answer()
    side_by_side = QUICK if options.quick else FULL
    sizes = options.sizes or (() if options.quick else SIZES)
    runs = [
        (setting, rounds, threads)
        for setting in side_by_side
        for threads in setting.threads
        if not options.sizes or setting.log_n in options.sizes
    ]
    done = {setting.workload for setting, _, _ in runs}
    runs += [
        (setting, 1, CORES)
        for setting in PRECISION
        if setting.log_n in sizes and setting.workload not in done
    ]
    for setting, count, threads in runs:
        records: list[Record] = []
        for engine in setting.engines:
            with console.status(f"bootstrap: {setting.workload}, {engine}, {threads} threads"):
                finished = measure_apart(setting, engine, count, threads)
            if finished.returncode:
                reason = finished.stderr.strip()[-500:]
                answer.failures.append(f"{setting.workload}: {engine}: {reason}")
                continue
            records += _records(setting, engine, json.loads(finished.stdout), around, threads)
        answer.records += records
        _show(console, setting, records)
    _show_precision(console, answer.records)
    return answer


def measure_apart(
    setting: Setting, engine: str, rounds: int, threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, which gives its memory back when it ends."""
    passed = asdict(setting)
    for name in ("engines", "threads"):
        passed.pop(name)
    request = {**passed, "engine": engine, "rounds": rounds, "threads": threads}
    return run_apart("bench.bootstrap_worker", [json.dumps(request)], threads)


def _records(
    setting: Setting,
    engine: str,
    measured: dict[str, Any],
    around: Surroundings,
    threads: int = 1,
) -> list[Record]:
    values = [
        (metric, statistics.median(samples), "s", samples)
        for metric, samples in measured["samples"].items()
    ]
    values += [
        (metric, float(value), UNITS.get(metric, "bits"), [])
        for metric, value in measured["figures"].items()
    ]
    parameters, workload = measured["parameters"], setting.workload
    return [
        around.record(
            *(NAME, workload, engine, metric, value, unit, parameters),
            threads=threads,
            samples=samples,
        )
        for metric, value, unit, samples in values
    ]


def _show(console: Console, setting: Setting, records: Sequence[Record]) -> None:
    if not records:
        return
    title = f"bootstrap: {setting.workload}, threads: {records[0].threads}"
    table = Table(title=title, title_justify="left")
    for heading in ("metric", *setting.engines, "ratio"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    values = {(r.metric, r.subject): r for r in records}
    for metric in dict.fromkeys(r.metric for r in records):
        found = [values.get((metric, engine)) for engine in setting.engines]
        cells = [_cell(record) for record in found]
        whole = [record.value for record in found if record is not None]
        comparable = len(whole) == 2 and not metric.endswith("_bits")
        table.add_row(metric, *cells, f"{whole[0] / whole[1]:.1f}" if comparable else "")
    console.print(table)
    timed = "cpu_seconds" if records[0].threads == 1 else "seconds"
    compared = [values.get((timed, engine)) for engine in ENGINES]
    if None not in compared:
        ratio = compared[0].value / compared[1].value  # type: ignore[union-attr]
        console.print(f"{timed}: {ratio:.1f} times as fast (goal: {GOAL:.0f})")


def _show_precision(console: Console, records: Sequence[Record]) -> None:
    """Print bits of precision, largest and mean error, by primes, slots and secret."""
    bits: dict[tuple[int, int, str, str], dict[int, float]] = {}
    for r in records:
        if r.subject == "tacit" and r.workload.startswith("plain") and r.metric.endswith("_bits"):
            p = r.parameters
            place = (p["log_n"], p["log_slots"], p["secret"], r.metric)
            bits.setdefault(place, {})[p["log_scale"]] = r.value
    sizes = sorted({size for found in bits.values() for size in found})
    if not sizes:
        return
    table = Table(title="bits right, largest error and mean", title_justify="left")
    for heading in ("N", "slots", "secret", *(f"{size}-bit" for size in sizes)):
        table.add_column(heading)
    for log_n, log_slots, secret in dict.fromkeys(place[:3] for place in bits):
        largest, mean = (
            bits.get((log_n, log_slots, secret, f"{kind}_error_bits"), {})
            for kind in ("max", "mean")
        )
        cells = [f"{largest[s]:.1f}, {mean[s]:.1f}" if s in largest else "" for s in sizes]
        if any(cells):
            table.add_row(f"2^{log_n}", f"2^{log_slots}", secret, *cells)
    console.print(table)


def _cell(record: Record | None) -> str:
    if record is None:
        return ""
    match record.unit:
        case "s":
            return format_seconds(record.value)
        case "bytes":
            return f"{record.value / 1e9:.2f} GB"
        case _:
            return f"{record.value:.4g}"


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw CPU seconds of both engines, by workload."""
    seconds = {
        (r.workload, r.subject): r.value
        for r in records
        if r.metric == "cpu_seconds" and r.threads == 1
    }
    both = [w for (w, s) in seconds if s == "openfhe" and (w, "tacit") in seconds]
    if not both:
        return
    figure = Figure(figsize=(9, 1.5 + 0.6 * len(both)), layout="constrained")
    axes = figure.subplots()
    for offset, engine in ((-0.2, "openfhe"), (0.2, "tacit")):
        places = [i + offset for i in range(len(both))]
        axes.barh(places, [seconds[w, engine] for w in both], height=0.38, label=engine)
    axes.set_yticks(range(len(both)), both)
    axes.set(xscale="log", xlabel="CPU seconds of one bootstrap, one thread")
    axes.invert_yaxis()
    axes.legend()
    figure.suptitle(f"{NAME}: {records[0].hardware['cpu']}, commit {records[0].commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
