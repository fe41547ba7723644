"""Serve a repository that trains, with insecure parameters, on free ports; print them as JSON.

Words: the repository; then "refresh" to bootstrap after every iteration or two.
"""

import sys
from pathlib import Path

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


if __name__ == "__main__":
    serve(
        Path(sys.argv[1]),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        options=options("refresh" in sys.argv[2:]),
        on_ready=announce,
    )
