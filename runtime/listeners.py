"""The sockets of a server: two HTTP ports and one gRPC port on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from tacit.errors import UserError
from tacit.runtime.http_app import Application

_LARGEST_MESSAGE = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of a certificate chain and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens."""

    host: str
    http: int
    grpc: int
    metrics: int


class _Uvicorn(uvicorn.Server):
    """Uvicorn without its signal handlers: the server handles signals once for all listeners."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(slots=True)
class HttpListener:
    """One HTTP port."""

    server: _Uvicorn
    socket: socket.socket
    task: asyncio.Task[None] | None = field(default=None)

    @classmethod
    def bind(
        cls, application: Application, host: str, port: int, tls: Tls | None, drain_seconds: float
    ) -> HttpListener:
        """Take the port; 0 chooses a free one.

        Raises:
            UserError: the port is taken.
        """
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            http="httptools",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
        )
        return cls(_Uvicorn(config), _bound(host, port))

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self.socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        self.task = loop.create_task(self.server.serve(sockets=[self.socket]))
        while not self.server.started:
            if self.task.done():
                self.task.result()
                raise UserError(f"the HTTP listener on port {self.port} did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop accepting, finish open responses, and return."""
        self.server.should_exit = True
        if self.task is not None:
            await self.task
        self.socket.close()


def bind_grpc(
    handler: Any, host: str, port: int, tls: Tls | None, body_bytes: int
) -> tuple[Any, int]:
    """Create a gRPC server on a port; returns it and the port.

    Raises:
        UserError: the port is taken.
    """
    limit = min(body_bytes + (1 << 20), _LARGEST_MESSAGE)
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", _LARGEST_MESSAGE),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((handler,))
    try:
        if tls is None:
            return server, int(server.add_insecure_port(f"{_literal(host)}:{port}"))
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        credentials = grpc.ssl_server_credentials([pair])
        return server, int(server.add_secure_port(f"{_literal(host)}:{port}", credentials))
    except (RuntimeError, OSError) as error:
        raise UserError(f"cannot listen for gRPC on {host}:{port}: {error}") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    bound.setblocking(False)
    return bound


def _literal(host: str) -> str:
    return f"[{host}]" if ":" in host else host
