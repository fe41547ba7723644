"""Gauges of a server's parts: what workers hold, what trainings do."""

from __future__ import annotations

from collections.abc import Callable

from tacit.runtime.metrics import Metrics
from tacit.runtime.training_service import TrainingService
from tacit.runtime.workers import WorkerPool

_MEMORY = {
    "keys": ("tacit_worker_key_bytes", "Evaluation keys in the workers' memory"),
    "constants": ("tacit_worker_constant_bytes", "Encoded constants of models in the workers"),
    "pool": ("tacit_worker_pool_bytes", "Arrays that the workers keep for reuse"),
    "owners": ("tacit_worker_owners", "Key sets loaded in the workers"),
    "device_bytes": ("tacit_device_bytes", "Memory of CUDA devices that the workers hold"),
    "device_keys": ("tacit_device_key_bytes", "Evaluation keys in the memory of CUDA devices"),
    "moved": ("tacit_device_moved", "Requests of the present workers that the processor took over"),
}


def add_memory_gauges(metrics: Metrics, pool: WorkerPool) -> None:
    """Show the memory of all workers together."""

    def add(part: str, name: str, help_text: str) -> None:
        def total() -> float:
            return float(sum(getattr(memory, part) for memory in pool.memory().values()))

        metrics.add_gauge(name, help_text, total)

    for part, (name, help_text) in _MEMORY.items():
        add(part, name, help_text)
    failing = "1: a CUDA device that is to compute fails; requests are refused"
    metrics.add_gauge("tacit_device_failing", failing, lambda: bool(pool.device_error))


def add_training_gauges(metrics: Metrics, training: Callable[[], TrainingService | None]) -> None:
    """Show training jobs; there are none before the server has started."""

    def running() -> float:
        service = training()
        return service.runner.running if service else 0

    def units() -> float:
        service = training()
        return service.runner.units_done if service else 0

    metrics.add_gauge("tacit_training_running", "Training jobs that run now", running)
    metrics.add_gauge("tacit_training_units", "Units of training done since the start", units)
