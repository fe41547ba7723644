"""Question `bootstrap`: native bootstrapping against OpenFHE's own, plain and with a function.

Both refresh the same slots to the same number of levels left, with primes of the same
size and equally many stages; each has the depth that it needs itself, and keys of its own. Each
engine runs in a process of its own, one after the other, since keys and tables fill the memory. On
one thread the CPU times count, which a busy machine disturbs less; on two, wall times. Precision is
that of the last result against the function itself, at every slot; by default at N = 2^15 and 2^16,
where a server's bootstraps are. Where only precision is asked for there is one bootstrap, untimed.
Most of the time goes into making keys: the whole table takes more than an hour, so a run can be
interrupted and taken up again (`--resume FILE`).

OpenFHE's plain bootstrap is `EvalBootstrap` from primes of 50 bits on; with smaller ones, and with
a function, `EvalFEFuncBootstrap`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.question import Answer, Options
from bench.record import Record, Surroundings, append, look_around, read
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
    """A bootstrap; times do not depend on whether the moduli are secure.

    Attributes:
        function: `plain` or `silu`.
        log_n: base-2 logarithm of N.
        log_scale: bits of the primes.
        stages: in either direction.
        level: levels left afterwards.
        secret: distribution of the secret.
        engines: those measured.
        log_slots: values repeat every 2^log_slots slots; 0 for all slots.
        threads: timed with each of these; none: precision only.
        digit_limbs: limbs of a digit of the keys.
    """

    function: str
    log_n: int
    log_scale: int
    stages: int = 2
    level: int = 3
    secret: str = ENCAPSULATED
    engines: Sequence[str] = ENGINES
    log_slots: int = 0
    threads: Sequence[int] = (1,)
    digit_limbs: int = 3

    @property
    def workload(self) -> str:
        """Its name in records."""
        slots = f" 2^{self.log_slots} slots" if self.log_slots else ""
        return f"{self.function} 2^{self.log_n} {self.log_scale}-bit {self.secret}{slots}"


QUICK = (Setting("silu", 13, 34), Setting("plain", 13, 50))
# Secure rings of 2^15 have keys of many small digits, those of 2^16 of few large ones.
FULL = (
    Setting("silu", 15, 34, stages=3, level=4, threads=(1, 2)),
    Setting("plain", 15, 50, stages=3, level=4),
    Setting("plain", 16, 50, stages=3, level=4, digit_limbs=8),
)
SECRETS = (ENCAPSULATED, "uniform ternary", "sparse ternary")
SCALES = (34, 40, 50, 58)


def _precision() -> Iterator[Setting]:
    """Yield precision by primes, slots and secret; every size of ring has its table.

    All slots of both engines come first, by rings; few slots are the native engine's alone.
    """
    for log_n in (15, 16, 13):
        for secret in SECRETS:
            for log_scale in SCALES:
                if log_n == 13 or secret == ENCAPSULATED or log_scale in (34, 50):
                    engines = ("tacit",) if log_n == 13 else ENGINES
                    yield Setting(
                        *("plain", log_n, log_scale, 3, 4, secret, engines, 0, (), 8),
                    )
    for log_n, secret in ((15, ENCAPSULATED), *((13, secret) for secret in SECRETS)):
        for log_scale in SCALES:
            yield Setting("plain", log_n, log_scale, 3, 4, secret, ("tacit",), 8, (), 8)


PRECISION = tuple(_precision())
SIZES = (15, 16)


def run(options: Options, console: Console) -> Answer:
    """Measure both engines, then precision; --quick takes a small ring and leaves precision out.

    `--sizes 13` gives the whole table of precision for that ring, in a few minutes; `--peers none`
    leaves OpenFHE out.
    """
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    answer, measured = Answer(), _Measured(options.resume, look_around())
    for setting, count, threads in _runs(options, rounds):
        records: list[Record] = []
        for engine in setting.engines:
            if engine not in ("tacit", *options.peers):
                continue
            with console.status(f"bootstrap: {setting.workload}, {engine}, {threads} threads"):
                try:
                    records += measured.records(setting, engine, count, threads)
                except RuntimeError as failure:
                    answer.failures.append(f"{setting.workload}: {engine}: {failure}")
        answer.records += records
        _show(console, setting, records)
    _show_precision(console, answer.records)
    return answer


def _runs(options: Options, rounds: int) -> list[tuple[Setting, int, int]]:
    """Return what to measure, how many rounds of it, and on how many threads."""
    side_by_side = QUICK if options.quick else FULL
    sizes = options.sizes or (() if options.quick else SIZES)
    runs = [
        (setting, rounds, threads)
        for setting in side_by_side
        for threads in setting.threads
        if not options.sizes or setting.log_n in options.sizes
    ]
    done = {setting.workload for setting, _, _ in runs}
    return runs + [
        (setting, 0, CORES)
        for setting in PRECISION
        if setting.log_n in sizes and setting.workload not in done
    ]


class _Measured:
    """Measures what a file of results, from the same commit, does not have yet, and adds it.

    Args:
        path: of the file; None for no file.
        around: this run's surroundings.
    """

    def __init__(self, path: Path | None, around: Surroundings) -> None:
        self._path = path
        self._around = around
        self._known: dict[tuple[str, str, int], list[Record]] = {}
        for record in read(path) if path and path.exists() else ():
            if record.commit == around.commit:
                key = (record.workload, record.subject, record.threads)
                self._known.setdefault(key, []).append(record)

    def records(self, setting: Setting, engine: str, rounds: int, threads: int) -> list[Record]:
        """Return the records of one engine.

        Raises:
            RuntimeError: it failed; the end of what it wrote.
        """
        key = (setting.workload, engine, threads)
        if key not in self._known:
            finished = measure_apart(setting, engine, rounds, threads)
            if finished.returncode:
                raise RuntimeError(finished.stderr.strip()[-500:])
            measured = json.loads(finished.stdout)
            self._known[key] = _records(setting, engine, measured, self._around, threads)
            if self._path:
                append(self._known[key], self._path)
        return self._known[key]


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
        if samples
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
    bits: dict[tuple[int, int, str, str, str], dict[int, float]] = {}
    for r in records:
        if r.workload.startswith("plain") and r.metric.endswith("_bits"):
            p = r.parameters
            place = (p["log_n"], p["log_slots"], p["secret"], r.subject, r.metric)
            bits.setdefault(place, {})[p["log_scale"]] = r.value
    sizes = sorted({size for found in bits.values() for size in found})
    if not sizes:
        return
    table = Table(title="bits right, largest error and mean", title_justify="left")
    for heading in ("N", "slots", "secret", "engine", *(f"{size}-bit" for size in sizes)):
        table.add_column(heading)
    for log_n, log_slots, secret, engine in dict.fromkeys(place[:4] for place in bits):
        largest, mean = (
            bits.get((log_n, log_slots, secret, engine, f"{kind}_error_bits"), {})
            for kind in ("max", "mean")
        )
        cells = [f"{largest[s]:.1f}, {mean[s]:.1f}" if s in largest else "" for s in sizes]
        if any(cells):
            table.add_row(f"2^{log_n}", f"2^{log_slots}", secret, engine, *cells)
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
