"""Pieces of argument parsers that several commands use."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.client.key_ring import default_directory

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    """What `add_subparsers` returns; argparse has no public name for it."""

Run = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands,
    common: argparse.ArgumentParser,
    name: str,
    run: Run,
    text: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a command with its one-line help, its description and its examples."""
    parser = commands.add_parser(
        name,
        parents=[common],
        help=text[0].lower() + text[1:],
        description=text[0].upper() + text[1:] + ".",
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_key_options(parser: argparse.ArgumentParser) -> None:
    """Add where keys are kept and what protects them."""
    group = parser.add_argument_group("keys")
    group.add_argument(
        "--key-dir",
        type=Path,
        default=default_directory(),
        metavar="DIR",
        help="where keys are kept (default ~/.local/share/tacit)",
    )
    group.add_argument(
        "--passphrase-file",
        type=Path,
        metavar="FILE",
        help="its first line protects the secret keys",
    )
    group.add_argument(
        "--allow-insecure",
        action="store_true",
        help="accept parameters below 128 bits (tests only)",
    )


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add how the server is reached."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="its first line is the access token"
    )
    group.add_argument(
        "--timeout",
        type=positive_number,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait for one answer (default 600)",
    )


def positive_number(text: str) -> float:
    """Read a positive number."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def positive_integer(text: str) -> int:
    """Read a positive whole number."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def port_number(text: str) -> int:
    """Read a port, 0 for a free one."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return value
