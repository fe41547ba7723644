"""One picture per question, drawn from its records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.record import Record

COLOURS = {
    "tacit": "#0b6e4f",
    "tenseal": "#c1666b",
    "concrete-ml": "#d4a373",
    "orion": "#4a7c9b",
    "heir": "#8e6c8a",
    "openfhe": "#7a9e7e",
    "onnxruntime": "#9a9a9a",
}


def draw_comparison(records: Sequence[Record], path: Path) -> None:
    """Draw server time and error per subject and variant, a row of panels per workload."""
    workloads = list(dict.fromkeys(record.workload for record in records))
    bars = max(len(_bars_of(records, workload, "server_seconds")) for workload in workloads)
    height = 1 + (1 + 0.25 * bars) * len(workloads)
    figure = Figure(figsize=(11, height), layout="constrained")
    axes = figure.subplots(len(workloads), 2, squeeze=False)
    for row, workload in zip(axes, workloads, strict=True):
        times = _bars_of(records, workload, "server_seconds")
        _draw_bars(row[0], times, f"{workload}: server time, s")
        errors = _bars_of(records, workload, "error")
        _draw_bars(row[1], errors, f"{workload}: largest error against float")
    _save(figure, records, path)


def draw_predictions(records: Sequence[Record], path: Path) -> None:
    """Draw predicted against measured latency and the 30 % band; nothing without predictions."""
    measured = _values(records, "server_seconds")
    predicted = _values(records, "predicted_seconds")
    workloads = sorted(measured.keys() & predicted.keys())
    if not workloads:
        return
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.subplots()
    for workload in workloads:
        axes.scatter(measured[workload], predicted[workload], s=50, label=workload)
    limits = [0.5 * min(measured.values()), 2.0 * max(measured.values())]
    axes.plot(limits, limits, color="black", linewidth=1)
    axes.fill_between(
        limits, [0.7 * x for x in limits], [1.3 * x for x in limits], alpha=0.15, label="±30 %"
    )
    axes.set(xscale="log", yscale="log", xlabel="measured, s", ylabel="predicted, s")
    axes.legend(fontsize=8)
    _save(figure, records, path)


def draw_auc(records: Sequence[Record], path: Path) -> None:
    """Draw the area under the curve per model and hospital; nothing without such records."""
    clear, encrypted = _values(records, "auc_clear"), _values(records, "auc_encrypted")
    workloads = [name for name in clear if name in encrypted]
    if not workloads:
        return
    figure = Figure(figsize=(8, 1 + 0.5 * len(workloads)), layout="constrained")
    axes = figure.subplots()
    places = range(len(workloads))
    for shift, values, label in ((-0.2, clear, "clear"), (0.2, encrypted, "encrypted")):
        colour = COLOURS["tacit" if label == "encrypted" else "onnxruntime"]
        lengths = [values[name] for name in workloads]
        axes.barh([p + shift for p in places], lengths, height=0.38, label=label, color=colour)
    axes.set_yticks(list(places), workloads)
    axes.invert_yaxis()
    axes.set(xlim=(0.5, 1.0), xlabel="AUC")
    axes.legend(loc="lower right")
    _save(figure, records, path)


def draw_training(records: Sequence[Record], path: Path) -> None:
    """Draw accuracy lost by fold, and time against rows, features and iterations."""
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 4)
    losses = {r.workload: r.samples for r in records if r.metric == "auc_loss_vs_sklearn_by_fold"}
    for height, folds in enumerate(losses.values()):
        axes[0].plot(folds, [height] * len(folds), "o", alpha=0.6, color=COLOURS["tacit"])
    axes[0].set_yticks(range(len(losses)), list(losses), fontsize=7)
    axes[0].axvline(0.005, color="black", linewidth=1, linestyle="--")
    axes[0].set_title("AUC lost against scikit-learn, by fold", fontsize=9)
    for panel, axis in zip(axes[1:], ("rows", "features", "iterations"), strict=True):
        for metric in ("fit_seconds", "server_seconds"):
            points = _scaling_points(records, axis, metric)
            if points:
                panel.plot(*zip(*points, strict=True), "o-", label=metric)
        panel.set(xlabel=axis, ylabel="s")
        panel.set_ylim(bottom=0.0)
        if panel.lines:
            panel.legend(fontsize=7)
    _save(figure, records, path)


def _scaling_points(records: Sequence[Record], axis: str, metric: str) -> list[tuple[float, float]]:
    prefix = f"scaling, {axis} "
    return sorted(
        (float(r.workload.removeprefix(prefix)), r.value)
        for r in records
        if r.workload.startswith(prefix) and r.metric == metric
    )


def _bars_of(records: Sequence[Record], workload: str, metric: str) -> dict[str, float]:
    """Return the positive values of a metric by subject and variant, smallest first."""
    values = {
        f"{record.subject} {record.metric.removesuffix(metric).rstrip('_')}".strip(): record.value
        for record in records
        if record.workload == workload and f"_{record.metric}".endswith(f"_{metric}")
    }
    return dict(sorted(((n, v) for n, v in values.items() if v > 0), key=lambda item: item[1]))


def _draw_bars(axes: Any, values: dict[str, float], title: str) -> None:
    colours = [COLOURS[name.split()[0]] for name in values]
    axes.barh(list(values), list(values.values()), color=colours)
    for place, value in enumerate(values.values()):
        axes.annotate(f" {value:.2g}", (value, place), va="center", fontsize=8, clip_on=False)
    axes.invert_yaxis()
    if values:
        axes.set_xscale("log")
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.15)


def _values(records: Sequence[Record], metric: str) -> dict[str, float]:
    return {record.workload: record.value for record in records if record.metric == metric}


def _save(figure: Figure, records: Sequence[Record], path: Path) -> None:
    first = records[0]
    machine = f"{first.hardware['cpu']}, {first.hardware['cores']} cores"
    figure.suptitle(f"{first.question}: {machine}, commit {first.commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
