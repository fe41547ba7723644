"""Question `bootstrap`: native bootstrapping against OpenFHE's own, plain and with a function.

Both refresh the same slots, all of them, to the same number of levels left, with primes of the same
size and equally many stages; each has the depth that it needs itself, and keys of its own. Each
engine runs in a process of its own, one after the other, since keys and tables fill the memory. The
ratio is that of CPU times, which a busy machine disturbs less than wall time. Precision is that of
the last result against the function itself, at every slot.

OpenFHE's plain bootstrap is `EvalBootstrap`; with a function, `EvalFEFuncBootstrap`.
"""

from __future__ import annotations

import json
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
ROUNDS, QUICK_ROUNDS = 3, 2
ENGINES = ("openfhe", "tacit")
ENCAPSULATED = "sparse encapsulated"
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

    @property
    def workload(self) -> str:
        """Its name in records."""
        slots = f" 2^{self.log_slots} slots" if self.log_slots else ""
        return f"{self.function} 2^{self.log_n} {self.log_scale}-bit {self.secret}{slots}"


QUICK = (Setting("silu", 13, 34), Setting("plain", 13, 50))
FULL = (
    Setting("silu", 15, 34, stages=3, level=4),
    Setting("plain", 15, 50, stages=3, level=4),
)
# Precision by primes and secret: the native engine alone. 2^16 takes about 16 GB.
PRECISION = tuple(
    setting
    for log_n, log_slots in ((13, 0), (13, 8), (15, 0), (16, 0))
    for log_scale in (34, 40, 50, 58)
    for secret in (ENCAPSULATED, "uniform ternary", "sparse ternary")
    if (setting := Setting("plain", log_n, log_scale, 3, 4, secret, ("tacit",), log_slots)).workload
    not in {other.workload for other in QUICK + FULL}
)


def run(options: Options, console: Console) -> Answer:
    """Measure on one thread; --quick leaves out large rings and the table of precision."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    around, answer = look_around(), Answer()
    runs = [(setting, rounds) for setting in (QUICK if options.quick else QUICK + FULL)]
    runs += [] if options.quick else [(setting, 1) for setting in PRECISION]
    for setting, count in runs:
        records: list[Record] = []
        for engine in setting.engines:
            with console.status(f"bootstrap: {setting.workload}, {engine}"):
                finished = measure_apart(setting, engine, count)
            if finished.returncode:
                reason = finished.stderr.strip()[-500:]
                answer.failures.append(f"{setting.workload}: {engine}: {reason}")
                continue
            records += _records(setting, engine, json.loads(finished.stdout), around)
        answer.records += records
        _show(console, setting, records)
    return answer


def measure_apart(
    setting: Setting, engine: str, rounds: int, threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, which gives its memory back when it ends."""
    fields = {name: value for name, value in asdict(setting).items() if name != "engines"}
    request = {**fields, "engine": engine, "rounds": rounds, "threads": threads}
    return run_apart("bench.bootstrap_worker", [json.dumps(request)], threads)


def _records(
    setting: Setting, engine: str, measured: dict[str, Any], around: Surroundings
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
        around.record(NAME, workload, engine, metric, value, unit, parameters, samples=samples)
        for metric, value, unit, samples in values
    ]


def _show(console: Console, setting: Setting, records: Sequence[Record]) -> None:
    if not records:
        return
    table = Table(title=f"bootstrap: {setting.workload}", title_justify="left")
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
    seconds = {(r.workload, r.subject): r.value for r in records if r.metric == "cpu_seconds"}
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
