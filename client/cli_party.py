"""`tacit party`: the commands of sessions of several parties, and their examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.client import cli_party_runs as runs
from tacit.client.cli_parsers import (
    add_command,
    add_server_options,
    positive_integer,
    positive_number,
)

if TYPE_CHECKING:
    from tacit.client.cli_parsers import Commands


def add_party(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit party` and its commands."""
    party = commands.add_parser(
        "party",
        help="train and compute with other parties under a joint key",
        description="Several parties under one joint key: nobody can decrypt alone.",
        epilog="examples:\n"
        "  tacit party create http://localhost:8000 heart --parties berne basle \\\n"
        "    --columns columns.csv --most-rows 1000 --folder berne\n"
        "  tacit party join basle.invitation --folder basle\n"
        "  tacit party keygen --folder basle\n"
        "  tacit party moments --folder basle --rows basle.npy --out moments.json\n"
        "  tacit party train --folder basle --rows basle.npy --labels ill.npy --out model.json\n"
        "  tacit party verify --folder basle\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    below = party.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_create(below, common)
    _add_join(below, common)
    _add_keygen(below, common)
    _add_moments(below, common)
    _add_train(below, common)
    _add_encrypt(below, common)
    _add_decrypt(below, common)
    _add_status(below, common)
    _add_verify(below, common)


def _add_create(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "create",
        runs.run_create,
        "create a session for a model or a training, and an invitation for every other party",
        "  tacit party create http://localhost:8000 heart --parties berne basle zurich \\\n"
        "    --columns columns.csv --most-rows 1000 --folder berne\n"
        "  tacit party create http://localhost:8000 --train 3 --parties berne basle \\\n"
        "    --columns columns.csv --most-rows 1000 --folder berne\n\n"
        "columns.csv has a line NAME,LOW,HIGH for every feature: the range that all agree on.\n"
        "Hand each invitation to its party over a channel you trust; it holds a token.\n",
    )
    parser.add_argument("url", metavar="URL", help="the server")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a served model the key is for")
    parser.add_argument(
        "--train",
        type=positive_integer,
        metavar="ITERATIONS",
        help="or make the key for training logistic regression, with so many iterations",
    )
    parser.add_argument(
        "--parties", nargs="+", required=True, metavar="NAME", help="all parties, yours first"
    )
    parser.add_argument(
        "--columns", type=Path, required=True, metavar="CSV", help="NAME,LOW,HIGH in each line"
    )
    parser.add_argument("--most-rows", type=positive_integer, required=True, metavar="N")
    parser.add_argument("--name", metavar="TEXT", help="of the session (default the model's)")
    parser.add_argument(
        "--smudging-bits",
        type=positive_integer,
        default=30,
        metavar="BITS",
        help="how far the noise of shares is above the ciphertexts' own (default 30)",
    )
    parser.add_argument(
        "--least-smudging-bits",
        type=positive_integer,
        default=20,
        metavar="BITS",
        help="at least so far, where the scale has no room for more (default 20)",
    )
    parser.add_argument(
        "--precision-bits",
        type=positive_integer,
        default=10,
        metavar="BITS",
        help="what decrypted values must keep (default 10)",
    )
    parser.add_argument(
        "--step-hours",
        type=positive_number,
        default=24.0,
        metavar="H",
        help="after so long a party counts as missing (default 24)",
    )
    _add_folder(parser)
    add_server_options(parser)


def _add_join(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "join",
        runs.run_join,
        "join a session with an invitation",
        "  tacit party join basle.invitation --folder basle --columns columns.csv\n",
    )
    parser.add_argument("invitation", type=Path, metavar="FILE")
    parser.add_argument(
        "--columns",
        type=Path,
        metavar="CSV",
        help="compare your own list of columns with the session's",
    )
    _add_folder(parser)
    add_server_options(parser)


def _add_keygen(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "keygen",
        runs.run_keygen,
        "make the joint key with the others; may be interrupted and run again",
        "  tacit party keygen --folder basle\n  tacit party keygen --folder berne --upload\n",
    )
    parser.add_argument(
        "--upload",
        action="store_true",
        help="bring the evaluation keys to the server (first party)",
    )
    _add_folder(parser)
    _add_wait(parser)
    add_server_options(parser)


def _add_moments(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "moments",
        runs.run_moments,
        "compute means and deviations of all parties' rows together, nobody's own",
        "  tacit party moments --folder basle --rows basle.npy --out moments.json\n",
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="NPY", help="NaN where missing")
    parser.add_argument("--out", type=Path, metavar="JSON", help="default: print it")
    parser.add_argument("--name", default="moments", help="of this activity (default moments)")
    _add_folder(parser)
    _add_wait(parser)
    add_server_options(parser)


def _add_train(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "train",
        runs.run_train,
        "train logistic regression on all parties' rows; each gets the same model",
        "  tacit party train --folder basle --rows basle.npy --labels ill.npy --out model.json\n",
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="NPY", help="NaN where missing")
    parser.add_argument("--labels", type=Path, required=True, metavar="NPY", help="0 or 1 each")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON")
    parser.add_argument("--name", default="training", help="of this training (default training)")
    parser.add_argument(
        "--constant",
        choices=("refuse", "ignore"),
        default="refuse",
        help="columns that are the same in all rows of all parties: refuse (default), or ignore, "
        "which gives them weight 0",
    )
    _add_folder(parser)
    _add_wait(parser)
    add_server_options(parser)


def _add_encrypt(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "encrypt",
        runs.run_encrypt,
        "encrypt this party's slot vectors under the joint key",
        "  tacit party encrypt --folder basle --slots basle.npy --level 5 --out basle.frames\n\n"
        "The array has shape (ciphertexts, slots), zeros where other parties' rows are; the file\n"
        "holds one frame after the other.\n",
    )
    parser.add_argument("--slots", type=Path, required=True, metavar="NPY")
    parser.add_argument("--level", type=int, required=True, metavar="N")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    _add_folder(parser)
    add_server_options(parser)


def _add_decrypt(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "decrypt",
        runs.run_decrypt,
        "take part in a decryption; the first party names the ciphertexts",
        "  tacit party decrypt weights --folder berne --frames weights.frames --level 1 \\\n"
        "    --noise-bits 14 --purpose 'final weights' --out weights.npy\n"
        "  tacit party decrypt weights --folder basle --purpose 'final weights' --out w.npy\n",
    )
    parser.add_argument("name", metavar="NAME", help="of this decryption, new in the session")
    parser.add_argument("--frames", type=Path, metavar="FILE", help="ciphertexts (first party)")
    parser.add_argument("--level", type=int, metavar="N", help="of the ciphertexts")
    parser.add_argument("--degree", type=int, choices=(1, 2), default=1)
    parser.add_argument(
        "--noise-bits", type=positive_number, metavar="BITS", help="bound of their noise"
    )
    parser.add_argument(
        "--repeats", type=positive_integer, default=1, metavar="N", help="slots that hold a value"
    )
    parser.add_argument(
        "--purpose", default="", metavar="TEXT", help="what it is for; must be the same for all"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="NPY")
    _add_folder(parser)
    _add_wait(parser)
    add_server_options(parser)


def _add_status(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "status",
        runs.run_status,
        "show where a session stands and who is missing",
        "  tacit party status --folder basle\n",
    )
    _add_folder(parser)
    add_server_options(parser)


def _add_verify(commands: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        commands,
        common,
        "verify",
        runs.run_verify,
        "check the transcript in a folder, without the server",
        "  tacit party verify --folder basle\n\n"
        "Compare the fingerprint with the other parties', over a channel the server has no part "
        "in.\n",
    )
    _add_folder(parser)
    add_server_options(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=Path, required=True, metavar="DIR", help="this party's folder"
    )
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="its first line protects the secrets"
    )
    parser.add_argument(
        "--allow-insecure", action="store_true", help="accept parameters below 128 bits (tests)"
    )


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait",
        type=positive_number,
        default=3600.0,
        metavar="SECONDS",
        help="for the others in each step (default 3600)",
    )
