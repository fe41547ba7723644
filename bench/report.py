"""Turn outcomes into records and into a table on the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.record import Record, Surroundings
from bench.rounds import Outcome
from bench.task import Task

_HEADINGS = (
    "server",
    "range",
    "vs tacit",
    "client",
    "error",
    "of range",
    "labels",
    "keys",
    "memory",
    "setup",
    "runs",
    "threads",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one outcome, before the surroundings are added."""

    metric: str
    unit: str
    samples: list[float]

    @property
    def median(self) -> float:
        """The figure that is reported."""
        return statistics.median(self.samples)


def figures_of(outcome: Outcome, task: Task) -> list[Figure]:
    """Return everything measured about a subject; empty if it was skipped or failed."""
    if outcome.ready is None or not outcome.rounds:
        return []
    rounds = outcome.rounds
    figures = [
        Figure("server_seconds", "s", [r.server_seconds for r in rounds]),
        Figure("client_seconds", "s", [r.client_seconds for r in rounds]),
        Figure("error", "1", [_largest_error(outcome, task)]),
        Figure("error_of_range", "1", [_largest_error(outcome, task) / task.output_range()]),
        Figure("label_agreement", "1", [_label_agreement(outcome, task)]),
        Figure("setup_seconds", "s", [outcome.ready.setup_seconds]),
        Figure("peak_rss_bytes", "bytes", [float(outcome.peak_rss_bytes)]),
    ]
    if outcome.ready.key_bytes is not None:
        figures.append(Figure("key_bytes", "bytes", [float(outcome.ready.key_bytes)]))
    return figures + _extra_figures(outcome)


def records_of(
    outcome: Outcome, task: Task, around: Surroundings, *, question: str, workload: str
) -> list[Record]:
    """Return one record per figure."""
    return [
        record_of(figure, outcome, around, question=question, workload=workload)
        for figure in figures_of(outcome, task)
    ]


def record_of(
    figure: Figure, outcome: Outcome, around: Surroundings, *, question: str, workload: str
) -> Record:
    """Return the record of one figure of a measured subject; a variant's name leads its metric."""
    assert outcome.ready is not None
    return around.record(
        question,
        workload,
        outcome.subject,
        f"{outcome.variant}_{figure.metric}" if outcome.variant else figure.metric,
        figure.median,
        figure.unit,
        outcome.ready.parameters,
        threads=outcome.ready.threads,
        samples=figure.samples,
    )


def show(console: Console, task: Task, outcomes: Sequence[Outcome]) -> None:
    """Print the table of one workload; skipped and failed subjects have a row, too."""
    table = Table(title=f"{task.question}: {task.workload}", title_justify="left")
    table.add_column("subject", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    ours = _median_of(outcomes, "tacit", task)
    reasons = []
    for outcome in outcomes:
        if outcome.measured:
            table.add_row(*_cells(outcome, task, ours))
        else:
            word, reason = _absence(outcome)
            table.add_row(outcome.name, word, style="yellow")
            reasons.append(f"{outcome.name} {word}: {reason}")
    console.print(table)
    for outcome in outcomes:
        extras = ", ".join(_format_figure(figure) for figure in _extra_figures(outcome))
        if extras:
            console.print(f"{outcome.name}: {extras}", highlight=False)
    for line in reasons:
        console.print(line, style="yellow", markup=False)


def format_seconds(seconds: float) -> str:
    """Write a duration with a fitting unit."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def format_bytes(count: float) -> str:
    """Write a size in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _format_figure(figure: Figure) -> str:
    name = figure.metric.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")
    if figure.unit == "s":
        return f"{name} {format_seconds(figure.median)}"
    if figure.unit == "bytes":
        return f"{name} {format_bytes(figure.median)}"
    return f"{name} {figure.median:.3g}"


def _cells(outcome: Outcome, task: Task, ours: float | None) -> list[str]:
    figures = {figure.metric: figure for figure in figures_of(outcome, task)}
    server = figures["server_seconds"]
    spread = f"{format_seconds(min(server.samples))} – {format_seconds(max(server.samples))}"
    keys = figures.get("key_bytes")
    assert outcome.ready is not None
    return [
        outcome.name,
        format_seconds(server.median),
        spread,
        f"{server.median / ours:.2f} x" if ours else "",
        format_seconds(figures["client_seconds"].median),
        f"{figures['error'].median:.1e}",
        f"{figures['error_of_range'].median:.1e}",
        f"{figures['label_agreement'].median:.1%}",
        format_bytes(keys.median) if keys else "",
        format_bytes(outcome.peak_rss_bytes),
        format_seconds(outcome.ready.setup_seconds),
        str(len(outcome.rounds)),
        str(outcome.ready.threads),
    ]


def _absence(outcome: Outcome) -> tuple[str, str]:
    if outcome.skipped:
        return "skipped", outcome.skipped
    return "FAILED", outcome.failed or "no round was measured"


def _median_of(outcomes: Sequence[Outcome], subject: str, task: Task) -> float | None:
    for outcome in outcomes:
        if outcome.name == subject and outcome.measured:
            return figures_of(outcome, task)[0].median
    return None


def _largest_error(outcome: Outcome, task: Task) -> float:
    return max(
        float(np.abs(np.array(measured.outputs) - task.expected(index)).max())
        for index, measured in enumerate(outcome.rounds)
    )


def _label_agreement(outcome: Outcome, task: Task) -> float:
    """Return the share of distinct rows whose label equals the float model's."""
    seen = {index % len(task.reference): r for index, r in enumerate(outcome.rounds)}
    equal = [
        task.labels(np.array(measured.outputs)) == task.labels(task.expected(index))
        for index, measured in seen.items()
    ]
    return float(np.concatenate(equal).mean())


def _extra_figures(outcome: Outcome) -> list[Figure]:
    samples: dict[tuple[str, str], list[float]] = {}
    entries = [entry for measured in outcome.rounds for entry in measured.extra]
    for entry in [*(outcome.ready.extra if outcome.ready else []), *entries]:
        samples.setdefault((entry.metric, entry.unit), []).append(entry.value)
    return [Figure(metric, unit, values) for (metric, unit), values in samples.items()]
