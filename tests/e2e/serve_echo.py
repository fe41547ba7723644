"""Serve a repository with an executor that echoes, until standard input ends.

A process of its own, so that a test measures the server and not itself. Prints the ports as JSON.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tacit.errors import TacitError
from tacit.runtime.requests import Job, Result
from tests.runtime.echo import EchoExecutor, echo_server


class ForgetfulEcho(EchoExecutor):
    """An echo that does not keep the jobs it saw."""

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        results = await super().run(job)
        self.jobs.clear()
        return results


if __name__ == "__main__":
    with echo_server(Path(sys.argv[1]), ForgetfulEcho()) as handle:
        sys.stdout.write(json.dumps(asdict(handle.ports)) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
