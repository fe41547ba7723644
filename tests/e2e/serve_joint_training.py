"""Serve trainings with insecure parameters whose scale leaves room for the noise of shares."""

import sys
from pathlib import Path

from tacit.model_compiler.training import compile_training
from tacit.model_compiler.training_choice import TrainingOptions
from tacit.model_compiler.training_schedule import leveled_depth
from tacit.params import CryptoParams, Security
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import serve
from tacit.training import TrainingTask
from tests.e2e.serve_repository import announce


def compile_insecurely(task: TrainingTask, folder: Path) -> None:
    depth = leveled_depth(task)
    params = CryptoParams.choose(10, depth, 50, 60, 2, Security.UNCHECKED_INSECURE)
    compile_training(task, folder, TrainingOptions(params=params))


if __name__ == "__main__":
    serve(
        Path(sys.argv[1]),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        options=ServerOptions(compile_training=compile_insecurely, workers=WorkerLimits(threads=1)),
        on_ready=announce,
    )
