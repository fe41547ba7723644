"""Question `operations`: how long each elementary operation of a backend takes.

Every ring is measured in a process of its own, on one thread. A round runs every operation at
every level once, so that the machine's load falls on all of them alike and each finds the caches
full of others' operands, as in a circuit; the figure is the lower quartile of CPU time over the
rounds, which is the latency where no other process wants the core. Plaintexts and rotation keys
are different ones from call to call. The compiler's cost table is made of these figures:
`python -m bench operations --backend native --write-cost-table`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as PrintedTable

from bench.operations_worker import Setting
from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.subjects import run_apart
from tacit.model_compiler.op_times import TABLES, Backend, Table, fit, ring_of, write_table

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "operations"
SUMMARY = "elementary operations of a backend, for the compiler's cost table"
ROUNDS, QUICK_ROUNDS = 15, 3

SETTINGS = {
    Backend.OPENFHE: (
        Setting(13, 1, 40, 50, 2, (0, 1)),
        Setting(13, 3, 40, 50, 4, (0, 1, 2, 3)),
        Setting(13, 4, 40, 50, 3, (0, 1, 2, 4)),
        Setting(14, 5, 40, 50, 3, (0, 1, 3, 5)),
        Setting(14, 8, 40, 50, 3, (0, 1, 4, 8)),
        Setting(14, 8, 40, 50, 9, (0, 1, 4, 8)),
        Setting(15, 12, 40, 50, 3, (0, 1, 6, 12)),
    ),
    Backend.NATIVE: (
        Setting(12, 1, 25, 31, 2, (0, 1)),
        Setting(13, 1, 44, 50, 2, (0, 1)),
        Setting(13, 1, 50, 56, 2, (0, 1)),
        Setting(13, 3, 37, 43, 4, (0, 1, 2, 3)),
        Setting(13, 4, 30, 40, 2, (0, 1, 2, 4)),
        Setting(14, 6, 36, 42, 3, (0, 2, 4, 6)),
        Setting(14, 5, 50, 58, 3, (1, 3, 5)),
        Setting(14, 8, 40, 56, 9, (1, 4, 8)),
        Setting(15, 12, 44, 50, 3, (1, 6, 12)),
        Setting(15, 9, 50, 60, 5, (2, 9)),
    ),
}


def run(options: Options, console: Console) -> Answer:
    """Measure every ring; write the compiler's table if that is asked for."""
    backend, around = Backend(options.backend), look_around()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    answer = Answer()
    for setting in SETTINGS[backend]:
        done = _measure_apart(backend, setting, rounds)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
            answer.failures.append(f"{setting}: {last}")
            continue
        answer.records += _records(backend, setting, json.loads(done.stdout), around)
        console.print(f"{backend.value}, {_words(setting)}: done")
    if answer.records:
        _show(console, answer.records)
    if options.write_cost_table and not answer.failures:
        write_cost_table(answer.records, TABLES)
        console.print(f"{TABLES} written")
    return answer


def rows_of(records: Sequence[Record]) -> list[dict[str, float]]:
    """Return the rows of the cost table, in milliseconds, one per ring and level."""
    rows: dict[str, dict[str, float]] = {}
    for record in records:
        place = {name: record.parameters[name] for name in _PLACE}
        row = rows.setdefault(json.dumps(place), place)
        row[record.metric.removesuffix("_seconds")] = round(1e3 * record.value, 4)
    return list(rows.values())


def write_cost_table(records: Sequence[Record], path: Path) -> None:
    """Write the compiler's table of operation times, in place of the same backend's and machine's.

    Args:
        records: of one backend.
        path: the file of tables.
    """
    first = records[0]
    backend = Backend(first.parameters["backend"])
    library = f"OpenFHE {version('openfhe')}, " if backend is Backend.OPENFHE else ""
    machine = (
        f"{backend.value} backend, one thread of {first.hardware['cpu']}, "
        f"{first.hardware['cores']} cores, {library}"
        f"CPython {sys.version_info[0]}.{sys.version_info[1]}"
    )
    facts = {
        "unit": f"ms of CPU time, lower quartile of {first.runs} interleaved rounds",
        "hardware": first.hardware,
        "commit": first.commit,
        "load": first.load,
        "time": first.time,
    }
    write_table(Table(backend, machine, rows_of(records), facts), path)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw what the cost model makes of the table against what was measured."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for name, points in fitted(records).items():
        measured, found = zip(*points, strict=True)
        axes.scatter(measured, found, s=14, label=name)
    ends = [min(r.value for r in records) * 1e3, max(r.value for r in records) * 1e3]
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="cost model, ms")
    axes.legend(fontsize=7)
    backend = records[0].parameters["backend"]
    title = f"{NAME}, {backend}: {records[0].hardware['cpu']}, commit {records[0].commit}"
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def fitted(records: Sequence[Record]) -> dict[str, list[tuple[float, float]]]:
    """Return for each operation (measured, fitted) milliseconds at every ring and level."""
    backend, rows = Backend(records[0].parameters["backend"]), rows_of(records)
    prices = fit(backend, rows)
    return {
        name: [
            (row[name], backend.measured_work(ring_of(row), name).at(prices))
            for row in rows
            if name in row
        ]
        for name in backend.measured
    }


_PLACE = ("log_n", "limbs", "dnum", "level", "log_scale", "log_first")


def _words(setting: Setting) -> str:
    return (
        f"N = 2^{setting.log_n}, depth {setting.depth}, scale {setting.log_scale}, "
        f"dnum {setting.dnum}"
    )


def _show(console: Console, records: Sequence[Record]) -> None:
    table = PrintedTable(title="cost model / measured", title_justify="left")
    for name in ("operation", "points", "least", "median", "greatest"):
        table.add_column(name, justify="left" if name == "operation" else "right")
    for name, points in fitted(records).items():
        ratios = [found / measured for measured, found in points]
        cells = (min(ratios), float(np.median(ratios)), max(ratios))
        table.add_row(name, str(len(points)), *(f"{ratio:.2f}" for ratio in cells))
    console.print(table)


def _records(
    backend: Backend,
    setting: Setting,
    samples: Mapping[str, Mapping[str, list[float]]],
    around: Surroundings,
) -> list[Record]:
    params = setting.params()
    fixed = {**params.to_json(), "limbs": len(params.moduli), "backend": backend.value}
    return [
        around.record(
            NAME,
            f"{backend.value}, {_words(setting)}, level {level}",
            "tacit",
            f"{name}_seconds",
            float(np.quantile(seconds, 0.25)),
            "s",
            {**fixed, "level": int(level)},
            samples=seconds,
        )
        for level, by_name in samples.items()
        for name, seconds in by_name.items()
    ]


def _measure_apart(
    backend: Backend, setting: Setting, rounds: int
) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, since OpenFHE reads its number of threads when it is loaded."""
    request = json.dumps({**asdict(setting), "rounds": rounds, "backend": backend.value})
    return run_apart("bench.operations_worker", [request])
