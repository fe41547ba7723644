"""`tacit compile`, `tacit inspect`, `tacit simulate`: a provider's commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tacit.client.cli_common import (
    Array,
    read_inputs,
    read_rows,
    remark,
    say,
    steps_on_stderr,
    write_rows,
)
from tacit.client.cli_parsers import add_command, positive_number
from tacit.client.rows import chosen_output, named_inputs
from tacit.errors import UserError

if TYPE_CHECKING:
    from tacit.artifact import Artifact
    from tacit.client.cli_parsers import Commands

PLANS = ("latency", "interleaved", "batch")
TARGETS = ("native", "openfhe")
BOOTSTRAPS = ("auto", "never", "always")


def add_compile(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit compile`."""
    parser = add_command(
        commands,
        common,
        "compile",
        run_compile,
        "compile an ONNX model into encrypted circuits",
        "  tacit compile heart.onnx --out models/heart/1 --calibrate train.npy --name heart\n"
        "  tacit compile mlp.onnx --out models/mlp/1 --input-range 0 1 --plan latency\n"
        "  tacit compile mlp.onnx --out models/mlp/1 --target openfhe --precision-bits 20\n",
    )
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the model")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the artifact")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="rows typical of what customers send: X.npy, or X.npz with one array per input",
    )
    parser.add_argument("--name", default="", help="the model's name (default the file's)")
    parser.add_argument("--version", default="1", help="the model's version (default 1)")
    parser.add_argument(
        "--accuracy",
        type=positive_number,
        metavar="FRACTION",
        help="root mean square error the polynomials may cause in the model's outputs, after the "
        "client's part, as a fraction of their range; default 0.006, the worst row may be off 12"
        " times as much",
    )
    parser.add_argument(
        "--precision-bits",
        type=positive_number,
        metavar="BITS",
        help="encryption may cause an error of 2^-BITS of the output's half range; default 16, and "
        "7 for models that bootstrap",
    )
    parser.add_argument(
        "--keep-on-server",
        action="store_true",
        help="compute input scaling and a final sigmoid encrypted, not at the client",
    )
    parser.add_argument(
        "--input-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="the range of every input, in place of what the calibration rows say",
    )
    parser.add_argument(
        "--plan",
        action="append",
        choices=PLANS,
        help="a plan to make; may be repeated (default latency and batch)",
    )
    parser.add_argument(
        "--max-key-mb",
        type=positive_number,
        metavar="MB",
        help="limit on a customer's evaluation keys",
    )
    parser.add_argument(
        "--bootstrap",
        choices=BOOTSTRAPS,
        default=BOOTSTRAPS[0],
        help="whether activations become bootstraps: by predicted time (default), never, or always",
    )
    parser.add_argument(
        "--known-answer",
        action="store_true",
        help="reserve one row of each plan that has room for inputs whose answer is known; "
        "clients refuse answers in which it came back wrong. Of plans without room the answer of "
        "one evaluation is stated, which clients may ask for (`tacit predict --probe`)",
    )
    parser.add_argument(
        "--target",
        choices=TARGETS,
        default=TARGETS[0],
        help="the backend whose measured times choose parameters and plans (default native); "
        "what is compiled runs on both",
    )


def add_inspect(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit inspect`."""
    parser = add_command(
        commands,
        common,
        "inspect",
        run_inspect,
        "show a compiled model: circuit, levels, primes, predicted precision, time and memory",
        "  tacit inspect models/heart/1\n"
        "  tacit inspect models/heart/1 --html heart.html --inputs train.npy\n"
        "  tacit inspect models/heart/1 --json | python -m json.tool\n",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the artifact")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    parser.add_argument(
        "--inputs",
        type=Path,
        metavar="X.npy",
        help="rows for the report's plot of magnitudes along the circuit",
    )
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def add_simulate(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit simulate`."""
    parser = add_command(
        commands,
        common,
        "simulate",
        run_simulate,
        "run a compiled model's circuit in the clear, on many rows",
        "  tacit simulate models/heart/1 --inputs test.npy --out predicted.npy\n"
        "  tacit simulate models/heart/1 --inputs test.npy --out predicted.npy --noise\n",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="the artifact")
    add_row_options(parser)
    parser.add_argument("--noise", action="store_true", help="add the noise of encryption")


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """Add rows in, rows out, and how they are treated."""
    parser.add_argument(
        "--inputs",
        type=Path,
        required=True,
        metavar="X.npy",
        help="rows of the model's input, first axis = rows (or .npz with one array per input)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="Y.npy", help="the model's first output"
    )
    parser.add_argument(
        "--output", metavar="NAME", help="write this output of the model in place of the first"
    )
    parser.add_argument("--plan", help="latency, batch, … (default the fastest predicted)")
    parser.add_argument(
        "--clip",
        action="store_true",
        help="move values outside the calibrated range to its edge instead of refusing them",
    )


def run_compile(options: argparse.Namespace) -> int:
    """Compile a model and print what came out."""
    from tacit.model_compiler import CompileOptions, compile_model
    from tacit.model_compiler.op_times import Backend
    from tacit.model_compiler.report import summary_lines

    given = {
        "accuracy": options.accuracy,
        "precision_bits": options.precision_bits,
        "plans": tuple(options.plan) if options.plan else None,
        "max_key_mb": options.max_key_mb,
    }
    if not options.model.is_file():
        raise UserError(f"{options.model}: no such file; give an ONNX model")
    compile_options = CompileOptions(
        name=options.name,
        version=options.version,
        calibration=_calibration(options.calibrate),
        input_range=_range(options.input_range),
        keep_on_server=options.keep_on_server,
        bootstrap=options.bootstrap,
        known_answer=options.known_answer,
        target=Backend(options.target),
        **{name: value for name, value in given.items() if value is not None},
    )
    with steps_on_stderr(options.quiet) as progress:
        artifact = compile_model(
            options.model, options.out, options=compile_options, progress=progress
        )
    for line in summary_lines(artifact):
        say(line)
    for warning in _approximation_warnings(artifact.report):
        remark(f"tacit: warning: {warning}")
    say(f"written to {options.out}")
    return 0


def _approximation_warnings(report: Mapping[str, object]) -> list[str]:
    facts = report.get("approximation")
    found = facts.get("warnings", []) if isinstance(facts, dict) else []
    return [str(warning) for warning in found]


def run_inspect(options: argparse.Namespace) -> int:
    """Print or write what is known of an artifact."""
    from tacit.artifact import load
    from tacit.model_compiler.report import circuit_lines, render_html, summary_lines
    from tacit.model_compiler.report_costs import cost_lines

    artifact = load(options.directory)
    if options.html is not None:
        page = render_html(artifact, _magnitudes(artifact, options.inputs))
        try:
            options.html.write_text(page, encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {options.html}: {error.strerror}") from error
        remark(f"report written to {options.html}")
    if options.json:
        say(json.dumps(dict(artifact.report), sort_keys=True))
    elif options.html is None:
        for line in [*summary_lines(artifact), *cost_lines(artifact), *circuit_lines(artifact)]:
            say(line)
    return 0


def run_simulate(options: argparse.Namespace) -> int:
    """Simulate a model and write its output."""
    from tacit.artifact import load
    from tacit.client.rows import choose_plan
    from tacit.runtime.simulate import simulate

    artifact = load(options.directory)
    signature = artifact.signature
    inputs = named_inputs(signature, read_inputs(options.inputs))
    rows = len(next(iter(inputs.values())))
    plan = choose_plan(signature, options.plan, rows).name
    found = simulate(artifact, inputs, plan, options.noise, clip=options.clip)
    write_rows(options.out, chosen_output(found.outputs, options.output))
    if found.overflows:
        remark(f"tacit: warning: {found.overflows} operation(s) overflowed: results are wrong")
    say(f"{rows} row(s) simulated with plan {plan!r}: {options.out}")
    return 0


def _magnitudes(artifact: Artifact, rows: Path | None) -> dict[str, list[float]]:
    from tacit.runtime.simulate import magnitudes

    if rows is None:
        return {}
    inputs = named_inputs(artifact.signature, read_inputs(rows))
    return {plan.name: magnitudes(artifact, plan.name, inputs) for plan in artifact.signature.plans}


def _calibration(path: Path | None) -> Array | dict[str, Array] | None:
    if path is None:
        return None
    loaded = read_inputs(path)
    return read_rows(path) if isinstance(loaded, dict) and len(loaded) == 1 else loaded


def _range(bounds: list[float] | None) -> tuple[float, float] | None:
    if bounds is None:
        return None
    low, high = bounds
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UserError(f"--input-range {low:g} {high:g}: the first must be below the second")
    return low, high
