"""What a worker process is told when it starts, and what it tells of its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batch_size import BATCH_BYTES

# Evaluations joined into one batch unless somebody says otherwise.
DEFAULT_JOINED = 8


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker process; they travel on its command line.

    Attributes:
        backend: what computes.
        threads: batches that it evaluates at the same time; where there are fewer, they share
            the limbs of their operations among the threads.
        key_bytes: evaluation keys it may hold; the owner unused longest goes first.
        constant_bytes: encoded constants it may hold.
        memory_bytes: of the whole process, beyond which allocations fail; 0 for no limit.
        joined: evaluations that are computed as one batch, at most.
    """

    backend: BackendName
    threads: int = 1
    key_bytes: int = 4 << 30
    constant_bytes: int = 2 << 30
    memory_bytes: int = 0
    joined: int = DEFAULT_JOINED

    @property
    def batch_bytes(self) -> int:
        """Memory that one batch may take: all threads together half of what there is."""
        limit = self.memory_bytes // (2 * self.threads)
        return min(BATCH_BYTES, limit) if limit else BATCH_BYTES

    def to_text(self) -> str:
        """Write them as one word."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> WorkerSettings:
        """Read what `to_text` wrote."""
        values = json.loads(text)
        return cls(BackendName(values.pop("backend")), **values)


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes a worker holds.

    Attributes:
        keys: evaluation keys.
        constants: encoded constants of models.
        pool: arrays kept for reuse.
        owners: how many key sets are loaded.
    """

    keys: int = 0
    constants: int = 0
    pool: int = 0
    owners: int = 0

    def to_json(self) -> dict[str, int]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> WorkerMemory:
        """Read what `to_json` gave; nothing of another form."""
        if not isinstance(values, Mapping):
            return cls()
        return cls(*(int(values.get(field.name, 0)) for field in fields(cls)))
