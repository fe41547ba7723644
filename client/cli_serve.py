"""`tacit serve`: the endpoint."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tacit.client.cli_common import say
from tacit.client.cli_parsers import add_command, port_number, positive_integer, positive_number

if TYPE_CHECKING:
    from tacit.client.cli_parsers import Commands
    from tacit.runtime.options import ServerOptions, WorkerLimits
    from tacit.training import TrainingTask

_HOUR = 3600.0


def add_serve(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit serve`."""
    parser = add_command(
        commands,
        common,
        "serve",
        run_serve,
        "serve compiled models over KServe v2, HTTP and gRPC",
        "  tacit serve models\n"
        "  tacit serve models --http-port 8443 --tls-cert c.pem --tls-key k.pem\n"
        "  tacit serve models --host 0.0.0.0 --token-file tokens.txt --audit-file audit.jsonl\n",
    )
    parser.add_argument(
        "repository",
        type=Path,
        metavar="REPOSITORY",
        help="models as NAME/VERSION/ folders, or one artifact",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        parser.add_argument(
            f"--{name}-port",
            type=port_number,
            default=port,
            metavar="N",
            help=f"default {port}; 0 chooses a free port",
        )
    _add_access(parser)
    _add_limits(parser)
    _add_workers(parser)


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("access")
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="who may ask: one '<tenant> <token>' per line (default everybody)",
    )
    group.add_argument(
        "--administrator",
        action="append",
        metavar="NAME",
        dest="administrators",
        help="tenant of the token file that may load and unload models; may be repeated "
        "(default: everybody without a token file, nobody with one)",
    )
    group.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate chain")
    group.add_argument("--tls-key", type=Path, metavar="PEM", help="its private key")
    group.add_argument("--audit-file", type=Path, metavar="FILE", help="hash-chained audit log")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--key-dir",
        type=Path,
        metavar="DIR",
        help="where evaluation keys are kept (default REPOSITORY/.tacit-keys)",
    )
    group.add_argument(
        "--training-dir",
        type=Path,
        metavar="DIR",
        help="where training jobs are kept (default REPOSITORY/.tacit-training); one server each",
    )
    group.add_argument(
        "--party-dir",
        type=Path,
        metavar="DIR",
        help="where parties' sessions are kept (default REPOSITORY/.tacit-parties); one each",
    )
    group.add_argument(
        "--training-quota-gb",
        type=positive_number,
        metavar="GB",
        help="ciphertexts of training jobs per tenant",
    )
    group.add_argument(
        "--key-quota-gb", type=positive_number, metavar="GB", help="evaluation keys per tenant"
    )
    group.add_argument(
        "--key-ttl-hours",
        type=positive_number,
        metavar="H",
        help="remove evaluation keys not used for so long (default never)",
    )
    group.add_argument(
        "--request-timeout",
        type=positive_number,
        metavar="SECONDS",
        help="deadline of a request",
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers")
    group.add_argument(
        "--backend",
        choices=("auto", "native", "openfhe"),
        default="auto",
        help="what computes on ciphertexts: our own kernels, or OpenFHE (default: native if its "
        "compiled kernels load, else openfhe with a warning)",
    )
    group.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="where our kernels compute: the processor, an NVIDIA GPU, or a GPU where there is one "
        "and the processor for what it cannot do (default cpu)",
    )
    group.add_argument(
        "--device-memory-gb",
        type=positive_number,
        metavar="GB",
        help="memory of the GPU that one worker may use (default all that is free when it starts)",
    )
    group.add_argument(
        "--device-key-gb",
        type=positive_number,
        metavar="GB",
        help="evaluation keys that one worker keeps on the GPU; others wait in its pinned memory "
        "(default half of the GPU's memory)",
    )
    group.add_argument(
        "--device-torch",
        action="store_true",
        help="let torch own the GPU's memory and stream (extra `gpu`)",
    )
    group.add_argument(
        "--isolate",
        choices=("owner", "tenant", "none"),
        help="key owners that never share a worker process: any two, those of different tenants, "
        "or none (default tenant; with OpenFHE always owner)",
    )
    group.add_argument(
        "--workers",
        type=positive_integer,
        metavar="N",
        help="worker processes at the same time; the one unused longest makes room",
    )
    group.add_argument(
        "--parallel", type=positive_integer, metavar="N", help="jobs that run at the same time"
    )
    group.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="batches one worker evaluates at the same time (default: its share of the cores)",
    )
    group.add_argument(
        "--join-owners",
        type=positive_integer,
        metavar="N",
        help="key owners of one process whose waiting requests run as one job (default 1; on a "
        "GPU 64)",
    )
    group.add_argument(
        "--worker-key-gb",
        type=positive_number,
        metavar="GB",
        help="evaluation keys one worker holds; the owner unused longest makes room",
    )
    group.add_argument(
        "--worker-constant-gb",
        type=positive_number,
        metavar="GB",
        help="encoded constants of models one worker keeps, the most useful ones; others are "
        "encoded whenever they are needed (default 2.1)",
    )
    group.add_argument(
        "--worker-memory-gb",
        type=positive_number,
        metavar="GB",
        help="memory one worker may allocate; what needs more is refused (default no limit)",
    )


def run_serve(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from tacit.kernels.devices import Device
    from tacit.runtime.backends.loading import choose_backend
    from tacit.runtime.device_choice import choose_device
    from tacit.runtime.listeners import Ports
    from tacit.runtime.server import serve

    settings = server_options(options)
    chosen = choose_backend(settings.workers.backend)
    device = choose_device(settings.workers.device, chosen.name)
    if device.device is not Device.CPU:
        settings = on_device(settings, options)

    def announce(ports: Ports) -> None:
        say(
            f"ready: http {ports.host}:{ports.http}, grpc {ports.host}:{ports.grpc}, "
            f"metrics {ports.host}:{ports.metrics}"
        )
        say(f"backend: {chosen.name.value} ({chosen.reason})")
        say(f"device: {device.device.value} ({device.reason})")

    serve(
        options.repository,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        host=options.host,
        options=settings,
        on_ready=announce,
    )
    return 0


def server_options(options: argparse.Namespace) -> ServerOptions:
    """Return the settings that were given, defaults for the others."""
    from tacit.runtime.batcher import QueueLimits
    from tacit.runtime.endpoint import RequestLimits
    from tacit.runtime.keystore import KeyLimits
    from tacit.runtime.options import ServerOptions
    from tacit.runtime.training_service import TrainingLimits

    requests, queue, keys = RequestLimits(), QueueLimits(), KeyLimits()
    quota, training = options.key_quota_gb, TrainingLimits()
    rows_quota = options.training_quota_gb
    return ServerOptions(
        requests=RequestLimits(seconds=options.request_timeout or requests.seconds),
        queue=QueueLimits(
            parallel=options.parallel or queue.parallel,
            owners=options.join_owners or queue.owners,
        ),
        workers=_worker_limits(options),
        keys=KeyLimits(
            tenant_bytes=round(quota * 1e9) if quota else keys.tenant_bytes,
            seconds_to_live=(options.key_ttl_hours or 0.0) * _HOUR,
        ),
        key_directory=options.key_dir,
        token_file=options.token_file,
        administrators=_administrators(options, ServerOptions().administrators),
        audit_file=options.audit_file,
        tls_certificate=options.tls_cert,
        tls_key=options.tls_key,
        training=TrainingLimits(
            tenant_bytes=round(rows_quota * 1e9) if rows_quota else training.tenant_bytes
        ),
        training_directory=options.training_dir,
        party_directory=options.party_dir,
        compile_training=compile_training,
    )


def on_device(settings: ServerOptions, options: argparse.Namespace) -> ServerOptions:
    """Return the settings with batches as large as a GPU needs, where nothing else was asked."""
    from tacit.runtime.worker_settings import DEVICE_JOINED

    owners = options.join_owners or DEVICE_JOINED
    joined = max(settings.queue.joined, DEVICE_JOINED)
    return replace(
        settings,
        queue=replace(settings.queue, owners=owners, joined=joined),
        workers=replace(settings.workers, joined=DEVICE_JOINED),
    )


def compile_training(task: TrainingTask, folder: Path) -> None:
    """Compile a training task; the compiler is loaded when the first one comes."""
    from tacit.model_compiler.training import compile_training as compile_task

    compile_task(task, folder)


def _worker_limits(options: argparse.Namespace) -> WorkerLimits:
    from tacit.kernels.devices import Device
    from tacit.runtime.backends.loading import BackendName
    from tacit.runtime.isolation import Isolation
    from tacit.runtime.options import WorkerLimits

    default = WorkerLimits()
    key_gb, memory_gb = options.worker_key_gb, options.worker_memory_gb
    device_gb, device_key_gb = options.device_memory_gb, options.device_key_gb
    constant_gb = options.worker_constant_gb
    return WorkerLimits(
        processes=options.workers or default.processes,
        threads=options.threads or default.threads,
        backend=None if options.backend == "auto" else BackendName(options.backend),
        isolation=Isolation(options.isolate) if options.isolate else None,
        key_bytes=round(key_gb * 1e9) if key_gb else default.key_bytes,
        constant_bytes=round(constant_gb * 1e9) if constant_gb else default.constant_bytes,
        memory_bytes=round(memory_gb * 1e9) if memory_gb else default.memory_bytes,
        device=Device(options.device),
        device_bytes=round((device_gb or 0.0) * 1e9),
        device_key_bytes=round((device_key_gb or 0.0) * 1e9),
        device_torch=options.device_torch,
    )


def _administrators(options: argparse.Namespace, default: frozenset[str]) -> frozenset[str]:
    """Return who was named; with a token file nobody is one by default."""
    if options.administrators:
        return frozenset(options.administrators)
    return frozenset() if options.token_file else default
