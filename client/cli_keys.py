"""`tacit keys`: make, list, show, delete and upload keys."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.client.cli_common import (
    bytes_text,
    progress_on_stderr,
    read_passphrase,
    read_token,
    say,
)
from tacit.client.cli_parsers import (
    add_command,
    add_key_options,
    add_server_options,
    positive_number,
)
from tacit.client.cli_predict import open_client
from tacit.client.key_ring import KeyRing, RingEntry
from tacit.errors import UnknownKeyError, UserError

if TYPE_CHECKING:
    from tacit.client.cli_parsers import Commands
    from tacit.client.keys import KeyFacts
    from tacit.signature import Signature

_DAY = 86400.0


def add_keys(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit keys` and its commands."""
    keys = commands.add_parser(
        "keys",
        help="make, list, show, delete and upload keys",
        description="Keys: the secret key stays on this machine; evaluation keys go to the server.",
        epilog="examples:\n"
        "  tacit keys make http://localhost:8000 heart --ttl-days 90\n"
        "  tacit keys make --from models/heart/1 --passphrase-file passphrase.txt\n"
        "  tacit keys list\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    below = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_make(below, common)
    _add_list(below, common)
    _add_show(below, common)
    _add_delete(below, common)
    _add_upload(below, common)


def _add_make(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "make",
        run_make,
        "make the keys a model needs, replacing those that are there",
        "  tacit keys make http://localhost:8000 heart --ttl-days 90\n"
        "  tacit keys make --from models/heart/1 --passphrase-file passphrase.txt\n",
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="the server")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the model")
    parser.add_argument(
        "--from", dest="artifact", type=Path, metavar="DIR", help="an artifact's public half"
    )
    parser.add_argument("--version", metavar="V", help="the model's version (default the latest)")
    parser.add_argument(
        "--ttl-days", type=positive_number, metavar="DAYS", help="refuse them when older"
    )
    add_server_options(parser)
    add_key_options(parser)


def _add_list(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "list",
        run_list,
        "list the keys of this machine",
        "  tacit keys list\n  tacit keys list --json\n",
    )
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    add_key_options(parser)


def _add_show(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "show",
        run_show,
        "show what is known of a key pair; never the secret",
        "  tacit keys show 3f9a\n",
    )
    parser.add_argument("prefix", metavar="KEY", help="the beginning of its name")
    add_key_options(parser)


def _add_delete(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "delete",
        run_delete,
        "delete a key pair for good; what was encrypted under it cannot be read any more",
        "  tacit keys delete 3f9a\n  tacit keys delete 3f9a --server http://localhost:8000\n",
    )
    parser.add_argument("prefix", metavar="KEY", help="the beginning of its name")
    parser.add_argument("--server", metavar="URL", help="have this server delete its copy too")
    add_server_options(parser)
    add_key_options(parser)


def _add_upload(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "upload",
        run_upload,
        "upload a model's evaluation keys, if the server lacks them",
        "  tacit keys upload http://localhost:8000 heart\n",
    )
    parser.add_argument("url", metavar="URL", help="the server")
    parser.add_argument("name", metavar="NAME", help="the model")
    parser.add_argument("--version", metavar="V", help="the model's version (default the latest)")
    add_server_options(parser)
    add_key_options(parser)


def run_make(options: argparse.Namespace) -> int:
    """Make keys for a model on a server or in a folder."""
    ring = _ring(options)
    signature = _signature(options)
    ttl = options.ttl_days * _DAY if options.ttl_days else None
    with progress_on_stderr(options.quiet) as progress:
        made = ring.make(signature, ttl=ttl, progress=progress)
    size = _size_text(made.facts)
    say(f"key {made.key_id[:16]} made for {signature.model!r}: {size}")
    return 0


def run_list(options: argparse.Namespace) -> int:
    """List the key pairs."""
    entries = _ring(options).entries()
    if options.json:
        say(json.dumps([_facts(entry) for entry in entries]))
        return 0
    if not entries:
        say(f"no keys in {options.key_dir}")
    for entry in entries:
        facts = entry.facts
        made = time.strftime("%Y-%m-%d", time.gmtime(facts.created))
        note = ", expired" if facts.expired(time.time()) else ""
        guard = "passphrase" if entry.protected else "no passphrase"
        size = _size_text(facts)
        say(f"{facts.key_id[:16]}  made {made}  N = 2^{facts.params.log_n}  {size}, {guard}{note}")
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Show one key pair's facts."""
    for name, value in _facts(_ring(options).entry(options.prefix)).items():
        say(f"{name + ':':<18} {value}")
    return 0


def run_delete(options: argparse.Namespace) -> int:
    """Delete a key pair here, and at a server if asked to."""
    from tacit.client.service import Service

    ring = _ring(options)
    entry = ring.entry(options.prefix)
    if options.server:
        token = read_token(options.token_file)
        with Service(options.server, token=token, timeout=options.timeout) as service:
            try:
                service.delete_keys(entry.facts.key_id)
                say(f"deleted at {options.server}")
            except UnknownKeyError:
                say(f"{options.server} does not hold them")
    ring.delete(entry.key_config)
    say(f"key {entry.facts.key_id[:16]} deleted")
    return 0


def run_upload(options: argparse.Namespace) -> int:
    """Upload evaluation keys."""
    with progress_on_stderr(options.quiet) as progress, open_client(options, progress) as client:
        sent = client.upload_keys(options.name, options.version)
        key_id = client.keys_for(options.name, options.version).key_id
    done = f"uploaded, {bytes_text(sent)}" if sent else "already there"
    say(f"key {key_id[:16]}: {done}")
    return 0


def _ring(options: argparse.Namespace) -> KeyRing:
    passphrase = read_passphrase(options.passphrase_file)
    return KeyRing(options.key_dir, passphrase, options.allow_insecure)


def _signature(options: argparse.Namespace) -> Signature:
    from tacit.artifact import load_public
    from tacit.client.service import Service

    if options.artifact is not None and options.url is None:
        return load_public(options.artifact)
    if options.artifact is not None or options.url is None or options.name is None:
        raise UserError("say which model: URL NAME, or --from DIR")
    token = read_token(options.token_file)
    with Service(options.url, token=token, timeout=options.timeout) as service:
        return service.signature(options.name, options.version)


def _facts(entry: RingEntry) -> dict[str, object]:
    facts = entry.facts
    return {
        "key_id": facts.key_id,
        "key_config": entry.key_config,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.created)),
        "ttl_days": None if facts.ttl is None else facts.ttl / _DAY,
        "expired": facts.expired(time.time()),
        "passphrase": entry.protected,
        "security": facts.params.security.value,
        "log_n": facts.params.log_n,
        "log_qp": round(facts.params.log_qp, 1),
        "rotations": list(facts.rotations),
        "relinearization": facts.relinearization,
        "bootstraps": facts.bootstraps,
        "evaluation_keys": len(facts.frames),
        "key_bytes": facts.key_bytes,
        "full_key_bytes": facts.full_key_bytes,
    }


def _size_text(facts: KeyFacts) -> str:
    """Return how many evaluation keys there are, their size, and what they would take in full."""
    text = f"{len(facts.frames)} evaluation keys, {bytes_text(facts.key_bytes)}"
    if facts.full_key_bytes == facts.key_bytes:
        return text
    return f"{text} (untrimmed {bytes_text(facts.full_key_bytes)})"
