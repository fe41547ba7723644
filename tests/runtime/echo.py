"""A server whose executor gives back what it gets, for tests of the protocols."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tacit.errors import TacitError, UnknownKeyError
from tacit.runtime.options import ServerOptions
from tacit.runtime.requests import Job, Result, Timing
from tacit.runtime.server import ServerHandle
from tacit.runtime.server_process import Replacements
from tacit.signature import Signature

KEY = "ab" * 32
OTHER_KEY = "cd" * 32
HEADERS = {"tacit-key-id": KEY}


@dataclass
class EchoExecutor:
    """Echoes frames after `seconds`; remembers the jobs it saw."""

    seconds: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    fail_with: TacitError | None = None

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        self.jobs.append(job)
        await asyncio.sleep(self.seconds)
        if self.fail_with is not None:
            return [self.fail_with for _ in job.work]
        return [Result(work.frames, Timing(0.001, 0.002, 0.003)) for work in job.work]

    async def close(self) -> None:
        return None


class TwoKeys:
    """Knows two keys and no other."""

    def require(self, tenant: str, key_id: str, signature: Signature) -> None:
        if key_id not in (KEY, OTHER_KEY):
            raise UnknownKeyError("the server does not hold these evaluation keys: upload them")


@contextmanager
def echo_server(
    repository: Path, executor: EchoExecutor, options: ServerOptions | None = None
) -> Iterator[ServerHandle]:
    """Run a server on free ports."""
    replacements = Replacements(executor, TwoKeys())
    with ServerHandle(repository, options or ServerOptions(), replacements) as handle:
        yield handle
