"""Everything of one server process: its stores, workers and listeners, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from tacit.kernels.cuda.shared_device import check
from tacit.runtime.audit import AuditLog
from tacit.runtime.backends.loading import BackendName, choose_backend
from tacit.runtime.batcher import Batcher
from tacit.runtime.bodies import Memory
from tacit.runtime.device_choice import choose_device, device_works
from tacit.runtime.endpoint import Endpoint, KeyFinder
from tacit.runtime.grpc_service import Service, generic_handler
from tacit.runtime.http_app import build_application, metrics_application
from tacit.runtime.isolation import Isolation, choose_isolation, group_of
from tacit.runtime.key_rules import WireKeyRules, frame_key
from tacit.runtime.keystore import KeyStore
from tacit.runtime.listeners import HttpListener, Ports, Tls, bind_grpc
from tacit.runtime.metrics import Metrics
from tacit.runtime.options import ServerOptions
from tacit.runtime.party_store import PartyStore
from tacit.runtime.replays import Replays
from tacit.runtime.repository import Repository
from tacit.runtime.requests import Executor, Lane
from tacit.runtime.server_gauges import add_memory_gauges, add_training_gauges
from tacit.runtime.tenants import Tenants
from tacit.runtime.training_service import TrainingParts, TrainingService
from tacit.runtime.training_store import TrainingStore
from tacit.runtime.warm_start import WarmStart
from tacit.runtime.worker_process import WORKER_MODULE, worker_command
from tacit.runtime.workers import WorkerPool

_LOG = logging.getLogger("tacit.runtime.server")
_HOUSEKEEPING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Replacements:
    """Parts a test puts in the place of the real ones."""

    executor: Executor | None = None
    keys: KeyFinder | None = None
    worker_module: str = WORKER_MODULE
    look_for_cuda: Callable[[], str] = check
    device_works: Callable[[], str] = device_works


NO_REPLACEMENTS = Replacements()


class Server:
    """Everything of one server process; `start` and `stop` run on one event loop."""

    def __init__(
        self,
        repository: Repository,
        options: ServerOptions,
        replacements: Replacements = NO_REPLACEMENTS,
    ) -> None:
        """Open key store, token file and audit log; nothing listens yet.

        Raises:
            UserError: a file cannot be read, or the backend cannot be used.
        """
        self._options = options
        self._repository = repository
        self._ready = False
        self.metrics = Metrics()
        self._memory = Memory(options.memory_bytes)
        self._tenants = Tenants.read(options.token_file) if options.token_file else Tenants({})
        self._audit = AuditLog(options.audit_file) if options.audit_file else None
        directory = options.key_directory or repository.root / ".tacit-keys"
        self.keys = KeyStore(directory, WireKeyRules(repository), options.keys)
        sessions = options.party_directory or repository.root / ".tacit-parties"
        self.parties = PartyStore(sessions, options.parties)
        self.backend = choose_backend(options.workers.backend)
        if self.backend.warning:
            _LOG.warning("%s", self.backend.warning)
        self._replacements = replacements
        wanted, look = options.workers.device, replacements.look_for_cuda
        self.device = choose_device(wanted, self.backend.name, look)
        if self.device.warning:
            _LOG.warning("%s", self.device.warning)
        self._isolation = choose_isolation(options.workers.isolation, self.backend.name)
        self._parallel, self._pool = self._build_pool()
        self._executor = replacements.executor or self._pool
        warming = options.workers.warm_start and replacements.executor is None
        self._warm_start = WarmStart(repository, self.keys, self._pool.warm if warming else None)
        self._key_finder: KeyFinder = replacements.keys or self.keys
        self._training: TrainingService | None = None
        self._http: list[HttpListener] = []
        self._grpc: Any = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._add_gauges()

    async def start(self, host: str, http_port: int, grpc_port: int, metrics_port: int) -> Ports:
        """Listen on three ports, 0 for free ones; returns the ports taken.

        Raises:
            DirectoryInUseError: another process works on the same trainings or sessions.
            UserError: a port is taken or a TLS file cannot be read.
        """
        options = self._options
        loop = asyncio.get_running_loop()

        def forget(tenant: str, key_id: str) -> None:
            loop.call_soon_threadsafe(self._pool.forget, tenant, key_id)

        self.keys.on_removal = forget
        self.parties.hold()
        endpoint = self._build_endpoint()
        self._training = self._build_training()
        tls, drain = _tls(options), options.drain_seconds
        application = build_application(
            endpoint,
            self.keys,
            self._tenants,
            self._memory,
            self._is_ready,
            self.status,
            self._warm_start,
            options.body_idle_seconds,
            self.parties,
            self._training,
        )
        http = HttpListener.bind(application, host, http_port, tls, drain)
        self._http.append(http)
        counters = metrics_application(self.metrics)
        metrics = HttpListener.bind(counters, host, metrics_port, None, 1.0)
        self._http.append(metrics)
        service = Service(endpoint, self._tenants, self._memory, self._is_ready)
        body_bytes = options.requests.body_bytes
        self._grpc, taken = bind_grpc(generic_handler(service), host, grpc_port, tls, body_bytes)
        for listener in self._http:
            await listener.start()
        await self._grpc.start()
        self._housekeeping = loop.create_task(self._keep_house())
        self._training.runner.start()
        self._ready = True
        return Ports(host, http.port, taken, metrics.port)

    async def stop(self) -> None:
        """Refuse new requests, finish accepted ones, stop the workers and close every port."""
        self._ready = False
        drain = self._options.drain_seconds
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.gather(self._housekeeping, return_exceptions=True)
            await self._batcher.drain(drain)
        if self._training is not None:
            await self._training.close()
        if self._grpc is not None:
            await self._grpc.stop(1.0)
        for listener in self._http:
            await listener.stop()
        await self._executor.close()
        await self._pool.close()
        self.parties.close()
        if self._audit is not None:
            self._audit.close()

    def _build_pool(self) -> tuple[int, WorkerPool]:
        """Return how many jobs run at the same time, and where."""
        limits, parallel = self._options.workers, self._options.queue.parallel
        alone = self._isolation is Isolation.OWNER
        lines = 1 if alone else parallel
        parallel = min(parallel, limits.processes * lines)
        settings = limits.settings(self.backend.name, parallel, lines, self.device.device)
        command = worker_command(settings, self._replacements.worker_module)
        return parallel, WorkerPool(self.keys, limits, command, self._isolation, lines)

    def _build_endpoint(self) -> Endpoint:
        options = self._options
        self._batcher = Batcher(
            self._executor,
            replace(options.queue, parallel=self._parallel),
            lambda job: self.metrics.executed(job.model.name, job.model.version),
            self._shared,
        )
        return Endpoint(
            self._repository,
            self._key_finder,
            self._batcher,
            self.metrics,
            Replays(),
            options.requests,
            frame_key,
            self._audit,
            options.administrators,
        )

    def _build_training(self) -> TrainingService:
        """Open the store of training jobs, which go on where they were."""
        options = self._options
        directory = options.training_directory or self._repository.root / ".tacit-training"
        models, keys, executor = self._repository, self._key_finder, self._executor
        compiler = options.compile_training
        parts = TrainingParts(models, keys, executor, self._batcher, self._audit, compiler)
        return TrainingService(TrainingStore(directory), parts, options.training)

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return self._pool.pids()

    def key_sets_loaded(self) -> int:
        """Key sets that the workers hold."""
        return sum(memory.owners for memory in self._pool.memory().values())

    def status(self) -> dict[str, object]:
        """Say what computes and why, and what the workers hold."""
        workers = [{"pid": pid, **memory.to_json()} for pid, memory in self._pool.memory().items()]
        return {
            "backend": self.backend.name.value,
            "backend_reason": self.backend.reason,
            "backend_warning": self.backend.warning,
            "device": self.device.device.value,
            "device_reason": self.device.reason,
            "device_warning": self.device.warning,
            "device_error": self._pool.device_error,
            "isolation": self._isolation.value,
            "workers": workers,
            "worker_crashes": self._pool.crashes,
            "training_jobs": self._training.counts() if self._training else {},
        }

    def _shared(self, lane: Lane) -> Hashable:
        """Return what lanes have in common whose requests may run as one job."""
        group = group_of(self._isolation, lane.owner)
        return lane.model, lane.version, lane.digest, lane.plan, group

    def _is_ready(self) -> bool:
        return self._ready and not self._pool.device_error

    async def _recheck_device(self) -> None:
        """Accept requests again once a device that failed them works again."""
        if self._pool.device_error:
            wrong = await asyncio.to_thread(self._replacements.device_works)
            self._pool.device_error = wrong and f"the device does not work: {wrong}"

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            try:
                await self._pool.stop_idle()
                await self._recheck_device()
                await asyncio.to_thread(self.keys.expire, time.time())
                await asyncio.to_thread(self.parties.expire)
            except Exception as error:
                _LOG.error("housekeeping failed; it goes on", exc_info=error)

    def _add_gauges(self) -> None:
        add = self.metrics.add_gauge
        native = self.backend.name is BackendName.NATIVE
        add("tacit_backend_native", "1: native kernels compute; 0: OpenFHE", lambda: native)
        add("tacit_workers", "Worker processes", lambda: self._pool.workers)
        add("tacit_worker_crashes", "Worker processes that died", lambda: self._pool.crashes)
        add_memory_gauges(self.metrics, self._pool)
        add_training_gauges(self.metrics, lambda: self._training)
        add("tacit_keys", "Complete key sets", lambda: self.keys.complete_keys)
        add("tacit_key_bytes", "Declared bytes of all keys", lambda: self.keys.stored_bytes)
        add("tacit_models", "Loaded model versions", lambda: len(self._repository.loaded()))
        add("tacit_body_bytes", "Request bodies in flight", lambda: self._memory.used_bytes)
        add("nv_inference_pending_request_count", "Waiting requests", lambda: self._batcher.waiting)


def _tls(options: ServerOptions) -> Tls | None:
    if options.tls_certificate is None or options.tls_key is None:
        return None
    return Tls(options.tls_certificate, options.tls_key)
