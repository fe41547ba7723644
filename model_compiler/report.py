"""What a compiled model is, for people: lines for a terminal and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tacit.artifact import Artifact
from tacit.model_compiler.report_costs import (
    CANDIDATE_HEAD,
    MEMORY_HEAD,
    candidate_rows,
    memory_rows,
    primes_text,
)
from tacit.signature import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Facts = Mapping[str, Any]
Magnitudes = Mapping[str, Sequence[float]]

_INK = "#30507a"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; color: #222; }
h1 { margin-bottom: 0; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { padding: .2em .9em .2em 0; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #999; } td.n, th.n { text-align: right; }
pre { background: #f5f5f2; padding: 1em; overflow-x: auto; font-size: 13px; }
img { max-width: 100%; } p.note { color: #666; }
"""


def summary_lines(artifact: Artifact) -> list[str]:
    """Describe model, parameters, precision and cost, one fact per line."""
    signature, report = artifact.signature, artifact.report
    params = signature.params
    shapes = ", ".join(f"{n}{list(s)}" for n, s in signature.model_inputs.items())
    lines = [
        f"model       {signature.model}, version {signature.version}",
        f"inputs      {shapes} per row",
        f"outputs     {', '.join(signature.model_outputs)}",
        f"parameters  N = 2^{params.log_n}, {params.depth} level(s), scale 2^{params.log_scale}, "
        f"log2(QP) = {params.log_qp:.0f}, {params.security.value}",
        f"client      before: {_steps(signature.prologue)}; after: {_steps(signature.epilogue)}",
        f"keys        {len(signature.rotations)} rotation key(s)"
        f"{' and relinearisation' if signature.relinearization else ''}"
        f"{' and those of bootstrapping' if signature.bootstraps else ''}, "
        f"{signature.key_bytes / 1e6:.1f} MB (untrimmed {signature.full_key_bytes / 1e6:.1f} MB)",
    ]
    for plan in signature.plans:
        lines.append(_plan_line(plan, _plan_facts(report, plan.name)))
    for name, reason in _section(report, "plan_reasons").items():
        if name not in {plan.name for plan in signature.plans}:
            lines.append(f"no plan     {name}: {reason}")
    bootstraps = _section(report, "bootstraps")
    if bootstraps.get("count"):
        lines.append("bootstraps  " + _bootstraps_text(bootstraps))
    for name, text in _section(report, "known_answer").items():
        lines.append(f"known       {name}: {text}")
    lines += _tightest(report)
    for row in _activations(report):
        used = f"domain used {row[7]}"
        lines.append("activation  " + ", ".join([*row[:1], *row[2:5], f"error {row[5]}", used]))
    approximation = _section(report, "approximation")
    if approximation:
        lines.append("polynomials " + _approximation_text(approximation))
    return lines


def _tightest(report: Facts) -> list[str]:
    """Name the layer whose output comes nearest to the end of its range."""
    reaching = [layer for layer in report.get("layers", ()) if "reach" in layer]
    if not reaching:
        return []
    layer = max(reaching, key=lambda layer: float(layer["reach"]))
    reach = 100 * float(layer["reach"])
    return [f"margins     {layer['from']} comes nearest its range's end, at {reach:.0f} %"]


def circuit_lines(artifact: Artifact) -> list[str]:
    """List the circuits as text; those of more than 500 operations only by their size."""
    lines: list[str] = []
    for plan in artifact.signature.plans:
        text = str(_plan_facts(artifact.report, plan.name).get("circuit", ""))
        count = len(artifact.circuits[plan.name].nodes)
        lines += ["", f"circuit of plan {plan.name!r}, {count} operation(s), %value:level"]
        lines += text.splitlines() or ["(too long to print)"]
    return lines


def render_html(artifact: Artifact, magnitudes: Magnitudes | None = None) -> str:
    """Return one HTML page with plots inside it.

    Args:
        artifact: the compiled model.
        magnitudes: for each plan, the largest absolute slot value after each operation.
    """
    signature, report = artifact.signature, artifact.report
    title = f"{signature.model}, version {signature.version}"
    parts = [f"<h1>{html.escape(title)}</h1>", "<p class=note>compiled by Tacit</p>"]
    parts.append(f"<pre>{html.escape(chr(10).join(summary_lines(artifact)))}</pre>")
    parts.append("<h2>Plans</h2>" + _plans_table(artifact))
    for plan in signature.plans:
        parts.append(f"<h2>Plan {html.escape(plan.name)}</h2>")
        facts = _plan_facts(report, plan.name)
        parts += _plan_parts(facts, (magnitudes or {}).get(plan.name, ()))
    parts.append("<h2>Ranges</h2>" + _ranges(report))
    activations = _activations(report)
    if activations:
        head = (
            "function",
            "from",
            "domain",
            "degree",
            "levels",
            "largest error",
            "mean error",
            "domain used",
            "margin",
        )
        parts.append("<h2>Activations</h2>" + _table(head, activations))
    parts.append("<h2>Layers</h2>" + _layers_table(report))
    parts.append("<h2>Parameters considered</h2>" + _considered(artifact))
    memory = [list(row) for row in memory_rows(report)]
    parts.append("<h2>Memory</h2>" + _table(MEMORY_HEAD, memory))
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _considered(artifact: Artifact) -> str:
    """Show primes, the reason for the choice and the candidates."""
    reason = str(_section(artifact.report, "parameters").get("reason", ""))
    notes = (primes_text(artifact.signature.params), reason)
    text = "".join(f"<p>{html.escape(note)}</p>" for note in notes if note)
    return text + _table(CANDIDATE_HEAD, candidate_rows(artifact))


def _plan_line(plan: Plan, facts: Facts) -> str:
    sent, returned = facts.get("ciphertexts_sent", "?"), facts.get("ciphertexts_returned", "?")
    return (
        f"plan        {plan.name}: {plan.batch} row(s) per evaluation, "
        f"{_duration(plan.seconds)} predicted, {sent} ciphertext(s) in, {returned} out, "
        f"{plan.precision_bits:.1f} bits"
    )


def _plans_table(artifact: Artifact) -> str:
    head = (
        "plan",
        "rows",
        "predicted time",
        "per row",
        "ciphertexts in / out",
        "rotation keys",
        "keys",
        "peak memory",
        "precision",
    )
    rows = []
    for plan in artifact.signature.plans:
        facts = _plan_facts(artifact.report, plan.name)
        rows.append(
            [
                plan.name,
                str(plan.batch),
                _duration(plan.seconds),
                _duration(plan.seconds / plan.batch),
                f"{facts.get('ciphertexts_sent', '?')} / {facts.get('ciphertexts_returned', '?')}",
                str(facts.get("rotation_keys", "?")),
                _megabytes(facts.get("key_bytes")),
                _megabytes(facts.get("peak_bytes")),
                f"{plan.precision_bits:.1f} bits",
            ]
        )
    machine = html.escape(str(artifact.report.get("machine", "")))
    return _table(head, rows) + f"<p class=note>times are for {machine}</p>"


def _plan_parts(facts: Facts, magnitudes: Sequence[float]) -> Iterable[str]:
    levels = [node["level"] for node in facts.get("levels", ())]
    if levels:
        yield _plot(levels, "operation", "level", steps=True)
    if len(magnitudes):
        yield _plot(magnitudes, "operation", "largest absolute value", steps=False)
    seconds = facts.get("seconds_by_layer", {})
    if seconds:
        yield _bars({name: 1e3 * float(value) for name, value in seconds.items()})
    operations = facts.get("operations", {})
    yield _table(("operation", "count"), [[str(k), str(v)] for k, v in operations.items()])
    if facts.get("circuit"):
        yield f"<pre>{html.escape(str(facts['circuit']))}</pre>"


def _plot(values: Sequence[float], x_label: str, y_label: str, *, steps: bool) -> str:
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        count = range(1, len(values) + 1)
        style = "steps-mid" if steps else "default"
        axes.plot(count, values, color=_INK, drawstyle=style, marker="o", markersize=3)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(0, 1.1 * max(*values, 1e-9))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    return _image(draw, f"{y_label} along the circuit", 2.6)


def _ranges(report: Facts) -> str:
    """Draw the calibrated range of every tensor, inputs first, then in the order of the layers."""
    facts = _section(report, "ranges")
    given = _section(facts, "tensors")
    if not given:
        return ""
    layers = [str(layer.get("output")) for layer in report.get("layers", ())]
    inputs = [name for name in given if name not in layers]
    tensors = {name: given[name] for name in [*inputs, *layers] if name in given}

    def draw(axes: Axes) -> None:
        for position, bounds in enumerate(tensors.values()):
            axes.plot([position] * 2, [bounds["low"], bounds["high"]], color=_INK, linewidth=5)
        axes.axhline(0, color="#999", linewidth=0.8)
        axes.set_xticks(range(len(tensors)), [_short(n) for n in tensors], rotation=30, ha="right")
        axes.set_ylabel("value")

    note = f"from {facts.get('source', '?')}, widened by {facts.get('margin', '?')}"
    return _image(draw, "range of every tensor", 3.6) + f"<p class=note>{html.escape(note)}</p>"


def _bars(values: Mapping[str, float]) -> str:
    def draw(axes: Axes) -> None:
        names = [_short(name) for name in values]
        axes.barh(range(len(names)), list(values.values()), color=_INK)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("predicted milliseconds")

    return _image(draw, "cost per layer", 1.2 + 0.3 * len(values))


def _short(name: str) -> str:
    return name if len(name) < 30 else name[:27] + "…"


def _image(draw: Any, title: str, height: float) -> str:
    """Draw into a figure of its own, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, min(height, 40.0)), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{encoded}">'


def _layers_table(report: Facts) -> str:
    rows = []
    for layer in report.get("layers", ()):
        size = layer.get("size")
        shape = f"{size[0]} x {size[1]}" if size else ""
        detail = f"degree {layer['degree']}" if "degree" in layer else ""
        weights = f"{layer['weights']} weights" if "weights" in layer else ""
        text = ", ".join(filter(None, (shape, weights, detail)))
        reach = f"{100 * float(layer['reach']):.0f} %" if "reach" in layer else ""
        rows.append([str(layer.get("kind", "")), str(layer.get("from", "")), text, reach])
    return _table(("kind", "from", "size", "range reached"), rows)


def _activations(report: Facts) -> list[list[str]]:
    return [
        [
            str(a["function"]),
            str(a["origin"]),
            f"[{a['low']:.3g}, {a['high']:.3g}]",
            f"{'harmonics' if a.get('bootstrapped') else 'degree'} {_degrees(a)}",
            f"{a['levels']} level(s)",
            f"{a['max_error']:.2e}",
            f"{a['mean_error']:.2e}",
            f"{100 * a['reach']:.0f} %" if "reach" in a else "?",
            f"{a['margin']:.1e}" if a.get("margin") else "",
        ]
        for a in report.get("activations", ())
    ]


def _bootstraps_text(facts: Facts) -> str:
    counts = ", ".join(f"{count} in plan {name}" for name, count in facts["count"].items())
    stages = f"{facts['stages_to_coefficients']} and {facts['stages_to_slots']} stages"
    return f"{counts}, in {stages}; why: {facts.get('reason', '?')}"


def _degrees(activation: Facts) -> str:
    return " after ".join(str(d) for d in reversed(activation.get("degrees", ()))) or str(
        activation["degree"]
    )


def _approximation_text(facts: Facts) -> str:
    rms, worst = (facts.get(f"{n}error_of_output_range") for n in ("rms_", ""))
    change = "unknown error" if worst is None else f"error {worst:.2e} of the output's range"
    change += "" if rms is None else f" on the worst row, {rms:.2e} root mean square"
    agreement = facts.get("argmax_agreement")
    same = "" if agreement is None else f", argmax unchanged on {100 * agreement:.2f} % of rows"
    return change + same + ("" if facts.get("within_budget") else ": OVER THE BUDGET")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    others = (
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{first}</tr>{''.join(others)}</table>"


def _section(report: Facts, name: str) -> dict[str, Any]:
    value = report.get(name, {})
    return dict(value) if isinstance(value, Mapping) else {}


def _plan_facts(report: Facts, name: str) -> dict[str, Any]:
    return _section(_section(report, "plans"), name)


def _steps(steps: Sequence[Any]) -> str:
    return ", ".join(step.op for step in steps) or "nothing"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.1f} µs"
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _megabytes(count: object) -> str:
    return f"{float(count) / 1e6:.1f} MB" if isinstance(count, int | float) else "?"
