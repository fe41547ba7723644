"""`tacit demo` and `tacit doctor`: the main job in one command, and why it does not work here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.client.cli_common import progress_on_stderr, remark, say
from tacit.client.cli_parsers import add_command, positive_integer
from tacit.client.environment import check_openfhe
from tacit.errors import UnusableEnvironmentError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tacit.client.cli_parsers import Commands
    from tacit.signature import Signature


def add_demo(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit demo`."""
    parser = add_command(
        commands,
        common,
        "demo",
        run_demo,
        "predict heart disease on encrypted patients, through a real endpoint on this machine",
        "  tacit demo\n"
        "  tacit demo --rows 20\n"
        "  tacit demo --csv processed.cleveland.data\n"
        "  tacit demo --json\n",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        metavar="FILE|DIR",
        help="UCI heart data (processed.*.data) in place of synthetic patients",
    )
    parser.add_argument(
        "--rows", type=positive_integer, default=8, metavar="N", help="patients (default 8)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_doctor(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit doctor`."""
    add_command(
        commands,
        common,
        "doctor",
        run_doctor,
        "check that this interpreter and OpenFHE's wheel work together",
        "  tacit doctor\n",
    )


def run_demo(options: argparse.Namespace) -> int:
    """Run the demonstration; 1 if an answer is not precise enough."""
    from tacit.client.demo import run, table_lines

    with progress_on_stderr(options.quiet) as progress:
        note = (lambda text: None) if options.quiet or options.json else remark
        result = run(options.csv, options.rows, _compile, note, progress)
    if options.json:
        say(json.dumps(result.to_json()))
    else:
        for line in table_lines(result):
            say(line)
    return 0 if result.precise else 1


def _compile(onnx: bytes, calibration: NDArray[np.float64], directory: Path) -> Signature:
    from tacit.client.demo import NAME
    from tacit.model_compiler import CompileOptions, compile_model

    options = CompileOptions(name=NAME, calibration=calibration)
    return compile_model(onnx, directory, options=options).signature


def run_doctor(options: argparse.Namespace) -> int:
    """Print what was found; fails if something is unusable."""
    findings = check_openfhe()
    for finding in findings:
        mark = "ok " if finding.usable else "BAD"
        say(f"{mark}  {finding.subject + ':':<16} {finding.found}")
        if finding.advice:
            say(f"     -> {finding.advice}")
    bad = [finding for finding in findings if not finding.usable]
    if bad:
        raise UnusableEnvironmentError(f"{bad[0].subject} cannot be used: {bad[0].advice}")
    return 0
