"""Serve a repository that trains, with insecure parameters, on free ports; print them as JSON.

Words: the repository; then "refresh" to bootstrap after every iteration or two.
"""

import sys
from pathlib import Path

from tacit.model_compiler.training import compile_training
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import serve
from tacit.training import TrainingTask
from tests.e2e.serve_repository import announce
from tests.model_compiler.trainings import insecure


def compile_insecurely(task: TrainingTask, folder: Path) -> None:
    compile_training(task, folder, insecure(task))


def compile_with_bootstraps(task: TrainingTask, folder: Path) -> None:
    compile_training(task, folder, insecure(task, between=2))


def options(bootstraps: bool = False) -> ServerOptions:
    compiler = compile_with_bootstraps if bootstraps else compile_insecurely
    return ServerOptions(compile_training=compiler, workers=WorkerLimits(threads=1))


if __name__ == "__main__":
    serve(
        Path(sys.argv[1]),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        options=options("refresh" in sys.argv[2:]),
        on_ready=announce,
    )
