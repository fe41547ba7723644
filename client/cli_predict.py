"""`tacit predict`: encrypted rows to a server, decrypted answers to a file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from tacit.client.cli_common import (
    bytes_text,
    milliseconds_text,
    progress_on_stderr,
    read_inputs,
    read_passphrase,
    read_token,
    say,
    write_rows,
)
from tacit.client.cli_models import add_row_options
from tacit.client.cli_parsers import add_command, add_key_options, add_server_options
from tacit.client.rows import chosen_output

if TYPE_CHECKING:
    from tacit.client.cli_parsers import Commands
    from tacit.client.client import Client
    from tacit.client.frames import Progress
    from tacit.client.timings import Timings


def add_predict(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit predict`."""
    parser = add_command(
        commands,
        common,
        "predict",
        run_predict,
        "predict on encrypted rows",
        "  tacit predict http://localhost:8000 heart --inputs patients.npy --out risk.npy\n"
        "  tacit predict http://localhost:8000 heart --inputs p.npy --out r.npy --plan batch\n"
        "  tacit predict http://localhost:8000 images --inputs i.npy --out r.npy --probe\n",
    )
    parser.add_argument("url", metavar="URL", help="the server, e.g. http://localhost:8000")
    parser.add_argument("name", metavar="NAME", help="the model")
    add_row_options(parser)
    parser.add_argument("--version", metavar="V", help="the model's version (default the latest)")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="where the plan has no row for a known answer, send an evaluation whose answer is "
        "known along, and refuse answers if it comes back wrong; costs as much as another row",
    )
    parser.add_argument("--json", action="store_true", help="print the timings as JSON")
    parser.add_argument(
        "--transport", choices=("http", "grpc"), default="http", help="default http"
    )
    parser.add_argument("--grpc-url", metavar="HOST:PORT", help="default the same host, port 8001")
    add_server_options(parser)
    add_key_options(parser)


def run_predict(options: argparse.Namespace) -> int:
    """Predict and write the output."""
    inputs = read_inputs(options.inputs)
    with progress_on_stderr(options.quiet) as progress, open_client(options, progress) as client:
        outputs = client.predict_all(
            options.name, inputs, version=options.version, plan=options.plan
        )
        timings = client.last_timings
    write_rows(options.out, chosen_output(outputs, options.output))
    if options.json:
        say(json.dumps(timings.to_json()))
    else:
        say(f"{timings.rows} row(s) predicted with plan {timings.plan!r}: {options.out}")
        for line in timing_lines(timings):
            say(line)
    return 0


def open_client(options: argparse.Namespace, progress: Progress) -> Client:
    """Return a client as the options say."""
    from tacit.client.client import Client

    return Client(
        options.url,
        token=read_token(options.token_file),
        key_dir=options.key_dir,
        passphrase=read_passphrase(options.passphrase_file),
        transport=getattr(options, "transport", "http"),
        grpc_url=getattr(options, "grpc_url", None),
        timeout=options.timeout,
        clip=getattr(options, "clip", False),
        probe_every=int(getattr(options, "probe", False)),
        allow_insecure=options.allow_insecure,
        progress=progress,
    )


def timing_lines(timings: Timings) -> list[str]:
    """Describe where the time went and what travelled."""
    stages = {name: ms for name, ms in timings.stage_ms.items() if ms >= 0.05}
    lines = ["  ".join(f"{name} {milliseconds_text(ms)}" for name, ms in stages.items())]
    if timings.server_ms:
        shares = (f"{name} {milliseconds_text(ms)}" for name, ms in timings.server_ms.items())
        lines.append("at the server: " + "  ".join(shares))
    keys = f", keys {bytes_text(timings.uploaded_bytes)}" if timings.uploaded_bytes else ""
    sent, received = bytes_text(timings.sent_bytes), bytes_text(timings.received_bytes)
    lines.append(f"sent {sent}, received {received}{keys}")
    return lines
