"""One server process: KServe v2 over HTTP and gRPC, key uploads, metrics, on one event loop.

`serve` blocks until SIGTERM or SIGINT and then finishes accepted requests. `ServerHandle` runs the
same server in a thread, for tests and notebooks.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tacit.errors import UserError
from tacit.runtime.listeners import Ports
from tacit.runtime.options import ServerOptions
from tacit.runtime.repository import Repository
from tacit.runtime.server_process import NO_REPLACEMENTS, Replacements, Server

_DEFAULT_OPTIONS = ServerOptions()


def serve(
    repository: Path,
    *,
    http_port: int = 8000,
    grpc_port: int = 8001,
    metrics_port: int = 8002,
    host: str = "127.0.0.1",
    options: ServerOptions = _DEFAULT_OPTIONS,
    on_ready: Callable[[Ports], None] | None = None,
) -> None:
    """Serve a repository until SIGTERM or SIGINT, then finish accepted requests and return.

    Args:
        repository: `<name>/<version>/` folders, or one artifact.
        http_port, grpc_port, metrics_port: 0 chooses a free port.
        host: address to listen on.
        options: everything else.
        on_ready: called once with the ports, when requests are accepted.

    Raises:
        ArtifactError: no such directory.
        UserError: a port is taken, or a file of the options cannot be used.
    """
    server = Server(Repository(repository), options)

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await _run(server, host, (http_port, grpc_port, metrics_port), stopping, on_ready)

    _run_loop(run())


class ServerHandle:
    """A server in a thread, on free ports; a context manager."""

    def __init__(
        self,
        repository: Path,
        options: ServerOptions = _DEFAULT_OPTIONS,
        replacements: Replacements = NO_REPLACEMENTS,
    ) -> None:
        """Load the repository; `start` or `with` begins to serve."""
        self.repository = Repository(repository)
        self.server = Server(self.repository, options, replacements)
        self._started = threading.Event()
        self._ports: Ports | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name="tacit-server", daemon=True)

    @property
    def ports(self) -> Ports:
        """Where it listens."""
        if self._ports is None:
            raise UserError("the server has not been started")
        return self._ports

    def start(self) -> Ports:
        """Start and wait until requests are accepted."""
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self.ports

    def stop(self) -> None:
        """Finish accepted requests and stop."""
        if self._loop is not None and self._stopping is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def __enter__(self) -> ServerHandle:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _serve(self) -> None:
        try:
            _run_loop(self._main())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        await _run(self.server, "127.0.0.1", (0, 0, 0), self._stopping, self._on_ready)

    def _on_ready(self, ports: Ports) -> None:
        self._ports = ports
        self._started.set()


async def _run(
    server: Server,
    host: str,
    ports: tuple[int, int, int],
    stopping: asyncio.Event,
    on_ready: Callable[[Ports], None] | None,
) -> None:
    try:
        taken = await server.start(host, *ports)
        if on_ready is not None:
            on_ready(taken)
        await stopping.wait()
    finally:
        await server.stop()


def _run_loop(main: Any) -> None:
    """Run on uvloop without installing it for the rest of the process."""
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
