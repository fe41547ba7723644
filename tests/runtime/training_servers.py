"""Training servers whose workers compute nothing: every plan answers with ciphertexts of zeros."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tacit import wire
from tacit.errors import ParameterMismatchError, TacitError, UnknownKeyError
from tacit.model_compiler.training import compile_training
from tacit.runtime.options import ServerOptions
from tacit.runtime.requests import Job, Result, Timing
from tacit.runtime.server import ServerHandle
from tacit.runtime.server_process import Replacements
from tacit.runtime.training_service import TrainingLimits
from tacit.signature import Signature, TensorSpec
from tacit.training import TrainingTask
from tests.model_compiler.trainings import insecure

KEY, OTHER_KEY, LATE_KEY, FOREIGN_KEY = ("ab" * 32, "cd" * 32, "ef" * 32, "01" * 32)
TOKENS = {"clinic": "clinic-token-0123456789", "lab": "lab-token-0123456789"}


def zeros(signature: Signature, spec: TensorSpec, key_id: str = KEY, first: int = 0) -> bytes:
    """A well-formed ciphertext of nothing; `first` is its first residue."""
    params = signature.params
    limbs = np.zeros((2, spec.level + 1, params.n), dtype=np.uint64)
    limbs[0, 0, 0] = first
    ciphertext = wire.Ciphertext(
        limbs=limbs,
        level=spec.level,
        degree=spec.degree,
        scale=params.scale(spec.level) ** spec.degree,
        slots=params.slots,
        params_digest=params.digest,
        key_id=bytes.fromhex(key_id),
    )
    return wire.encode_ciphertext(ciphertext, params.moduli)


@dataclass
class ZeroExecutor:
    """Answers every plan with zeros; `errors` come first, one per run of a step."""

    seconds: float = 0.0
    errors: list[TacitError] = field(default_factory=list)
    ran: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[Job], None] = lambda job: None

    async def run(self, job: Job) -> Sequence[Result | TacitError]:
        self.ran.append((job.lane.tenant, job.lane.plan))
        self.before(job)
        await asyncio.sleep(self.seconds)
        if self.errors:
            return [self.errors.pop(0) for _ in job.work]
        signature = job.model.signature
        plan = signature.plan(job.lane.plan)
        inputs = sum(spec.layout.ciphertexts for spec in plan.inputs)
        once = [
            zeros(signature, spec, job.lane.key_id)
            for spec in plan.outputs
            for _ in range(spec.layout.ciphertexts)
        ]
        timing = Timing(0.001, 0.002, 0.001)
        return [Result(once * (len(work.frames) // inputs), timing) for work in job.work]

    async def close(self) -> None:
        return None


class SomeKeys:
    """Knows two keys, a third once it is `there`, and one of another configuration."""

    def __init__(self) -> None:
        self.there = {KEY, OTHER_KEY}

    def require(self, tenant: str, key_id: str, signature: Signature) -> None:
        if key_id == FOREIGN_KEY:
            raise ParameterMismatchError("these keys were made for another configuration")
        if key_id not in self.there:
            raise UnknownKeyError("the server does not hold these evaluation keys: upload them")


def compile_insecurely(task: TrainingTask, folder: Path) -> None:
    compile_training(task, folder, insecure(task))


@contextmanager
def training_server(
    root: Path,
    executor: ZeroExecutor,
    keys: SomeKeys | None = None,
    limits: TrainingLimits | None = None,
) -> Iterator[ServerHandle]:
    """Run a server for two tenants."""
    root.mkdir(exist_ok=True)
    tokens = root.parent / f"{root.name}-tokens"
    tokens.write_text("".join(f"{name} {token}\n" for name, token in TOKENS.items()))
    tokens.chmod(0o600)
    options = ServerOptions(
        compile_training=compile_insecurely,
        token_file=tokens,
        training=limits or TrainingLimits(),
        audit_file=root.parent / f"{root.name}-audit",
    )
    replacements = Replacements(executor, keys or SomeKeys())
    with ServerHandle(root, options, replacements) as handle:
        yield handle
