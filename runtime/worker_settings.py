"""What a worker process is told when it starts, and what it tells of its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batch_size import BATCH_BYTES

# Evaluations joined into one batch unless somebody says otherwise; on a CUDA device more.
DEFAULT_JOINED = 8
DEVICE_JOINED = 64
# A batch on a device may take so much of its memory.
DEVICE_BATCH_BYTES = 8 << 30


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
        device: where the native backend computes; `auto` takes the processor for what a CUDA
            device cannot do.
        device_bytes: of the device's memory; 0 for all that is free when the worker starts.
        device_key_bytes: of these, for evaluation keys; 0 for half.
        device_torch: whether torch owns the device's memory and stream.
    """

    backend: BackendName
    threads: int = 1
    key_bytes: int = 4 << 30
    constant_bytes: int = 2 << 30
    memory_bytes: int = 0
    joined: int = DEFAULT_JOINED
    device: Device = Device.CPU
    device_bytes: int = 0
    device_key_bytes: int = 0
    device_torch: bool = False

    @property
    def batch_bytes(self) -> int:
        """Memory that one batch may take: all threads together half of what there is."""
        if self.device is not Device.CPU:
            return self.device_bytes // 4 or DEVICE_BATCH_BYTES
        limit = self.memory_bytes // (2 * self.threads)
        return min(BATCH_BYTES, limit) if limit else BATCH_BYTES

    def to_text(self) -> str:
        """Write them as one word."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> WorkerSettings:
        """Read what `to_text` wrote."""
        values = json.loads(text)
        backend, device = BackendName(values.pop("backend")), Device(values.pop("device"))
        return cls(backend, device=device, **values)


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes a worker holds.

    Attributes:
        keys: evaluation keys.
        constants: encoded constants of models.
        pool: arrays kept for reuse.
        owners: how many key sets are loaded.
        device: where it computes.
        device_bytes: of the device's memory, in use or kept.
        device_keys: of these, evaluation keys.
        moved: requests that the processor answered because the device could not.
        device_error: why, for the last of them, or why the device is not used at all.
    """

    keys: int = 0
    constants: int = 0
    pool: int = 0
    owners: int = 0
    device: str = Device.CPU.value
    device_bytes: int = 0
    device_keys: int = 0
    moved: int = 0
    device_error: str = ""

    def to_json(self) -> dict[str, int | str]:
        """Return the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> WorkerMemory:
        """Read what `to_json` gave; nothing of another form."""
        if not isinstance(values, Mapping):
            return cls()
        texts = ("device", "device_error")
        read = {
            field.name: str(found) if field.name in texts else int(found)
            for field in fields(cls)
            if (found := values.get(field.name)) is not None
        }
        return cls(**read)  # type: ignore[arg-type]
