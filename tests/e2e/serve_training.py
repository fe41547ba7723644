"""Serve a repository that trains, with insecure parameters, on free ports; print them as JSON.

Words: the repository; then "refresh" to bootstrap after every iteration or two, "lockstep" to begin
an iteration only when the validation margins after the one before were read.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from tacit.runtime.backends.loading import BackendName
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import serve
from tacit.training import TrainingTask
from tests.e2e.serve_repository import announce


def compile_insecurely(task: TrainingTask, folder: Path) -> None:
    _compile(task, folder)


def compile_with_bootstraps(task: TrainingTask, folder: Path) -> None:
    _compile(task, folder, between=2)


def _compile(task: TrainingTask, folder: Path, **refreshed: int) -> None:
    """Load the compiler only now: servers that find the plan on disk start without it."""
    from tacit.model_compiler.training import compile_training
    from tests.model_compiler.trainings import insecure

    compile_training(task, folder, insecure(task, **refreshed))


def options(bootstraps: bool = False, backend: BackendName | None = None) -> ServerOptions:
    compiler = compile_with_bootstraps if bootstraps else compile_insecurely
    workers = WorkerLimits(threads=1, backend=backend)
    return ServerOptions(compile_training=compiler, workers=workers)


def keep_step() -> None:
    """Have the server wait for its customer, so that what it has done does not depend on time."""
    from tacit.runtime.training_runner import _UnitRun
    from tacit.runtime.training_service import TrainingService

    seen: set[int] = {0}
    run, margins = _UnitRun.run, TrainingService.margins

    async def patient(unit_run: Any, unit: Any) -> float:
        while max(unit.iterations - 1, 0) not in seen:
            await asyncio.sleep(0.01)
        return await run(unit_run, unit)

    def noted(service: Any, tenant: str, job: str, iteration: int) -> Any:
        seen.add(iteration)
        return margins(service, tenant, job, iteration)

    _UnitRun.run = patient  # type: ignore[method-assign,assignment]
    TrainingService.margins = noted  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    if "lockstep" in sys.argv[2:]:
        keep_step()
    serve(
        Path(sys.argv[1]),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        options=options("refresh" in sys.argv[2:]),
        on_ready=announce,
    )
