"""What question `engine` makes of its measurements: records with goals, tables, a plot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.engine_work import HOISTED, SIDE, Shape, Work, transform_work, workloads
from bench.record import Record, Surroundings
from bench.report import format_seconds
from bench.roofline import Machine
from tacit.kernels.library import InstructionSet

QUESTION = "engine"
# How many times faster than OpenFHE: by the beginning of a workload's name.
GOALS = {"rotate": 3.0, "multiply 2": 3.0, "bsgs": 4.0}
TRANSFORM_GOALS = {"50-bit": 4.0, "60-bit": 1.5}


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure without its surroundings."""

    workload: str
    subject: str
    metric: str
    value: float
    unit: str
    threads: int
    parameters: dict[str, Any]
    samples: list[float]

    def at(self, around: Surroundings) -> Record:
        """Return the record."""
        return around.record(
            QUESTION,
            self.workload,
            self.subject,
            self.metric,
            self.value,
            self.unit,
            self.parameters,
            threads=self.threads,
            samples=self.samples,
        )


def goal_of(workload: str) -> float | None:
    """Return how many times faster than OpenFHE a workload should be, or None."""
    if workload.startswith("ntt 2"):
        return next((g for bits, g in TRANSFORM_GOALS.items() if workload.endswith(bits)), None)
    return next((g for start, g in GOALS.items() if workload.startswith(start)), None)


def records_of(
    found: Mapping[str, Any], suffix: str, threads: int, machine: Machine
) -> list[Measured]:
    """Return times, ratios with their goals, and fractions of the machine's limits.

    Args:
        found: what the worker answered.
        suffix: what workload names end in.
        threads: of both engines.
        machine: its limits with so many threads.
    """
    parameters, made = found["parameters"], []
    works = _works(found)
    for name, subjects in found["samples"].items():
        workload = f"{name} {suffix}"

        def add(
            subject: str, metric: str, unit: str, samples: list[float], workload: str = workload
        ) -> None:
            goal = goal_of(workload) if metric == "ratio" else None
            beside = parameters if goal is None else {**parameters, "goal": goal}
            value = statistics.median(samples)
            made.append(Measured(workload, subject, metric, value, unit, threads, beside, samples))

        for subject, metrics in subjects.items():
            for metric, samples in metrics.items():
                add(subject, metric, "s", samples)
        if "openfhe" in subjects:
            for metric, of in (("ratio", "seconds"), ("cpu_ratio", "cpu_seconds")):
                pair = subjects["openfhe"][of], subjects["tacit"][of]
                add("tacit", metric, "1", _ratios(name, *pair))
        if name in works:
            instructions = InstructionSet[parameters["instructions"].upper()]
            compute = works[name].compute_seconds(machine, instructions)
            memory = works[name].memory_seconds(machine)
            add("tacit", "compute_seconds", "s", [compute])
            add("tacit", "memory_seconds", "s", [memory])
            seconds = statistics.median(subjects["tacit"]["seconds"])
            add("tacit", "roofline_fraction", "1", [max(compute, memory) / seconds])
    return made


def _ratios(name: str, theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Divide round by round; slopes, which may vanish in a single round, only their medians."""
    if name == "ntt":
        return [statistics.median(theirs) / statistics.median(ours)]
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def machine_records(machine: Machine, around: Surroundings) -> list[Record]:
    """Return the machine's limits as records."""
    return [
        Measured("machine", "tacit", name, value, "1/s", machine.threads, {}, [value]).at(around)
        for name, value in machine.figures().items()
    ]


def _works(found: Mapping[str, Any]) -> dict[str, Work]:
    parameters = found["parameters"]
    shape = Shape(
        parameters["log_n"],
        tuple(found["moduli"]),
        tuple(found["specials"]),
        parameters["dnum"],
        InstructionSet[parameters["instructions"].upper()],
    )
    alone = transform_work(shape, shape.moduli[1])
    transforms = {"ntt forward alone": alone, "ntt inverse alone": alone}
    return transforms | workloads(shape, len(HOISTED), SIDE)


def show_ring(console: Console, suffix: str, threads: int, measured: Sequence[Measured]) -> None:
    """Print one ring's table."""
    if measured:
        title = f"engine: {suffix}, {threads} thread{'s' * (threads > 1)}"
        console.print(_table(title, measured))


def show_summary(console: Console, records: Sequence[Record]) -> None:
    """Print all workloads with a goal, and whether it is met."""
    goals = [r for r in records if r.metric == "ratio" and "goal" in r.parameters]
    if not goals:
        return
    title = f"engine: {sum(_met(r) for r in goals)} of {len(goals)} goals met"
    table = Table(title=title, title_justify="left")
    for heading in ("workload", "threads", "ratio", "goal", ""):
        table.add_column(heading, justify="left" if heading in ("workload", "") else "right")
    for r in goals:
        cells = (str(r.threads), f"{r.value:.2f}", f"{r.parameters['goal']:g}")
        table.add_row(r.workload, *cells, "met" if _met(r) else "MISSED")
    console.print(table)


def draw_ratios(records: Sequence[Record], path: Path) -> None:
    """Draw the ratios as bars, a panel per number of threads, goals as lines across them."""
    ratios = [r for r in records if r.metric == "ratio"]
    if not ratios:
        return
    counts = sorted({r.threads for r in ratios})
    names = list(dict.fromkeys(r.workload for r in ratios))
    size = (5 + 4.5 * len(counts), 1 + 0.27 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for axes, threads in zip(panels, counts, strict=True):
        shown = [r for r in ratios if r.threads == threads]
        axes.barh([r.workload for r in shown], [r.value for r in shown], color="#0b6e4f")
        for r in shown:
            if "goal" in r.parameters:
                at = names.index(r.workload)
                axes.plot([r.parameters["goal"]] * 2, [at - 0.45, at + 0.45], color="#c1666b")
        axes.axvline(1.0, color="black", linewidth=1)
        label = f"time of OpenFHE / of the native engine, {threads} thread{'s' * (threads > 1)}"
        axes.set(xlabel=label)
    panels[0].invert_yaxis()
    first = ratios[0]
    figure.suptitle(f"engine: {first.hardware['cpu']}, commit {first.commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _met(record: Record) -> bool:
    return bool(record.value >= record.parameters["goal"])


def _table(title: str, measured: Sequence[Measured]) -> Table:
    headings = ("workload", "openfhe", "tacit", "ratio", "by CPU", "goal", "compute", "memory")
    table = Table(title=title, title_justify="left")
    for heading in (*headings, "of limit"):
        table.add_column(heading, justify="left" if heading == "workload" else "right")
    values = {(m.workload, m.subject, m.metric): m for m in measured}

    def cell(workload: str, metric: str, subject: str = "tacit") -> str:
        m = values.get((workload, subject, metric))
        if m is None:
            return ""
        return format_seconds(m.value) if m.unit == "s" else f"{m.value:.2f}"

    for workload in dict.fromkeys(m.workload for m in measured):
        goal = goal_of(workload)
        table.add_row(
            workload,
            cell(workload, "seconds", "openfhe"),
            cell(workload, "seconds"),
            cell(workload, "ratio"),
            cell(workload, "cpu_ratio"),
            "" if goal is None else f"{goal:g}",
            cell(workload, "compute_seconds"),
            cell(workload, "memory_seconds"),
            cell(workload, "roofline_fraction"),
        )
    return table
