"""Every setting of a server, with its default."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from tacit.errors import UserError
from tacit.kernels.devices import Device
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.batcher import QueueLimits
from tacit.runtime.endpoint import RequestLimits
from tacit.runtime.isolation import Isolation
from tacit.runtime.keystore import KeyLimits
from tacit.runtime.party_store import PartyLimits
from tacit.runtime.tenants import PUBLIC
from tacit.runtime.training_plans import PlanTraining
from tacit.runtime.training_service import TrainingLimits
from tacit.runtime.worker_settings import DEFAULT_JOINED, WorkerSettings


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Bounds of the worker processes.

    Attributes:
        processes: worker processes at the same time; the one unused longest goes.
        idle_seconds: a worker that did nothing for so long stops.
        start_seconds: how long a worker may take to load keys ahead of a request.
        grace_seconds: how long a worker may go on with an abandoned request before it is killed.
        threads: batches that one worker evaluates at the same time, or threads that share the
            operations of fewer batches; 0 takes all cores for a worker that runs several jobs, and
            its share of them for one that runs a single one.
        warm_start: start a worker and load keys and model as soon as a key set is complete, or
            while a request still arrives, instead of when it runs.
        backend: what computes on ciphertexts; None for the default of this machine.
        isolation: which key owners share a process; None for the backend's own.
        joined: evaluations that are computed as one batch, at most.
        key_bytes: evaluation keys that one worker holds; the owner unused longest goes.
        constant_bytes: encoded constants of models that one worker holds.
        memory_bytes: what one worker may allocate in all; 0 sets no limit.
        device: where the native backend computes: the processor, a CUDA device, or `auto`: a CUDA
            device where there is one, and the processor for what it cannot do.
        device_bytes: of the device's memory, for one worker; 0 for all that is free when it starts.
        device_key_bytes: of these, for evaluation keys; 0 for half.
        device_torch: whether torch owns the device's memory and stream.
    """

    processes: int = 4
    idle_seconds: float = 600.0
    start_seconds: float = 300.0
    grace_seconds: float = 60.0
    threads: int = 0
    warm_start: bool = True
    backend: BackendName | None = None
    isolation: Isolation | None = None
    joined: int = DEFAULT_JOINED
    key_bytes: int = 4 << 30
    constant_bytes: int = 2 << 30
    memory_bytes: int = 0
    device: Device = Device.CPU
    device_bytes: int = 0
    device_key_bytes: int = 0
    device_torch: bool = False

    def threads_for(self, parallel: int, lines: int = 1) -> int:
        """Return the threads of one worker: one at least.

        Args:
            parallel: jobs that may run at the same time, in all workers.
            lines: how many of them may run in one worker.
        """
        cores = len(os.sched_getaffinity(0))
        return self.threads or max(1, cores * lines // parallel)

    def settings(
        self, backend: BackendName, parallel: int, lines: int, device: Device = Device.CPU
    ) -> WorkerSettings:
        """Return what a worker is told; see `threads_for`."""
        return WorkerSettings(
            backend=backend,
            threads=self.threads_for(parallel, lines),
            key_bytes=self.key_bytes,
            constant_bytes=self.constant_bytes,
            memory_bytes=self.memory_bytes,
            joined=self.joined,
            device=device,
            device_bytes=self.device_bytes,
            device_key_bytes=self.device_key_bytes,
            device_torch=self.device_torch,
        )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Settings that rarely change; ports and host are arguments of `serve`.

    Attributes:
        memory_bytes: request bodies in flight, all together.
        body_idle_seconds: how long a client may pause while it sends a body.
        drain_seconds: how long accepted requests may take to finish at shutdown.
        key_directory: where evaluation keys are kept; default `<repository>/.tacit-keys`.
        party_directory: where sessions of several parties are kept; default
            `<repository>/.tacit-parties`.
        token_file: bearer tokens, one `<tenant> <token>` per line; None lets everyone in.
        administrators: tenants that may load and unload models; without a token file everyone is
            the tenant `public`.
        audit_file: hash-chained audit log.
        tls_certificate, tls_key: PEM files; both or none.
        training: bounds of training jobs.
        training_directory: where jobs and their ciphertexts are kept; default
            `<repository>/.tacit-training`.
        compile_training: compiles a training task into a folder; None refuses new tasks.
    """

    requests: RequestLimits = field(default_factory=RequestLimits)
    queue: QueueLimits = field(default_factory=QueueLimits)
    workers: WorkerLimits = field(default_factory=WorkerLimits)
    keys: KeyLimits = field(default_factory=KeyLimits)
    parties: PartyLimits = field(default_factory=PartyLimits)
    memory_bytes: int = 4 << 30
    body_idle_seconds: float = 30.0
    drain_seconds: float = 60.0
    key_directory: Path | None = None
    party_directory: Path | None = None
    token_file: Path | None = None
    administrators: frozenset[str] = frozenset({PUBLIC})
    audit_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    training: TrainingLimits = field(default_factory=TrainingLimits)
    training_directory: Path | None = None
    compile_training: PlanTraining | None = None

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise UserError("TLS needs a certificate and its key: give both files")
