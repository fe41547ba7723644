"""The command line, `tacit`: parses arguments, runs a command, turns errors into one line.

Exit codes: 0 done, 2 the caller can fix it, 3 damaged input, 4 our own fault, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from tacit import __version__
from tacit.client import (
    cli_demo,
    cli_keys,
    cli_models,
    cli_party,
    cli_predict,
    cli_serve,
    cli_train,
)
from tacit.client.cli_common import remark
from tacit.client.environment import quiet_openmp
from tacit.errors import DamagedInputError, TacitError, UserError

_USER, _DAMAGED, _INTERNAL, _INTERRUPTED = 2, 3, 4, 130
_EXAMPLES = """\
examples:
  tacit demo
  tacit compile heart.onnx --out models/heart/1 --calibrate train.npy --name heart
  tacit serve models
  tacit predict http://localhost:8000 heart --inputs patients.npy --out risk.npy
  tacit train fit http://localhost:8000 patients.csv --target disease --out disease.onnx

every command explains itself: tacit COMMAND --help
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        arguments: without the program's name; default those of the process.
    """
    quiet_openmp(os.environ)
    options = build_parser().parse_args(arguments)
    level = logging.ERROR if options.quiet else logging.WARNING
    logging.basicConfig(level=level, format="tacit: %(message)s", stream=sys.stderr)
    try:
        code = options.run(options)
    except TacitError as error:
        if options.debug:
            raise
        remark(f"tacit: error: {error}")
        return _code_of(error)
    except KeyboardInterrupt:
        remark("tacit: interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`tacit inspect … | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        remark(f"tacit: error: internal: {type(error).__name__}: {error} (--debug shows where)")
        return _INTERNAL
    return int(code)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    parser = argparse.ArgumentParser(
        prog="tacit",
        description="Machine-learning models served over encrypted data.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tacit {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="no progress bars, no warnings")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        cli_models.add_compile,
        cli_models.add_inspect,
        cli_models.add_simulate,
        cli_serve.add_serve,
        cli_keys.add_keys,
        cli_predict.add_predict,
        cli_train.add_train,
        cli_party.add_party,
        cli_demo.add_demo,
        cli_demo.add_doctor,
    ):
        add(commands, common)
    return parser


def _code_of(error: TacitError) -> int:
    if isinstance(error, UserError):
        return _USER
    return _DAMAGED if isinstance(error, DamagedInputError) else _INTERNAL


if __name__ == "__main__":
    sys.exit(main())
