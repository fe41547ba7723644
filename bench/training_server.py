"""A Tacit server that trains, in a process of its own, which may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

START_SECONDS = 60.0


class TrainingServer:
    """`tacit serve` on a port that stays the same; `url` is where a client finds it."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        """Start it.

        Args:
            folder: models, keys and jobs are kept there.
            threads: of its workers.

        Raises:
            RuntimeError: it ended, or is not ready in time.
        """
        self._folder = folder
        (folder / "models").mkdir(parents=True, exist_ok=True)
        self._ports = _free_ports(3)
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.start()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        http, grpc, metrics = self._ports
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        arguments = ["serve", str(self._folder / "models")]
        ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
        with (self._folder / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tacit.client.cli", *arguments, *ports],
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._wait()

    def cpu_seconds(self) -> float:
        """Return the processor time that it and its workers have taken so far."""
        assert self._process is not None
        return sum(family(self._process.pid).values()) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Kill it with its workers, as a power failure would."""
        if self._process is not None:
            for process in family(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop it."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/v2/health/ready", timeout=2.0).status_code == 200:
                    return
            time.sleep(0.05)
        log = (self._folder / "serve.log").read_text(errors="replace").strip().splitlines()
        self.kill()
        raise RuntimeError(f"the server is not ready: {log[-1] if log else 'it wrote nothing'}")


def family(root: int) -> dict[int, int]:
    """Return a process and all that descend from it, with their clock ticks.

    Workers are in sessions of their own, so groups do not tell. Ticks include those of children
    that ended.
    """
    parents, ticks = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            process = int(place.parent.name)
            parents[process], ticks[process] = int(fields[1]), sum(map(int, fields[11:15]))
    found = [root] if root in ticks else []
    for parent in found:
        found.extend(child for child, its in parents.items() if its == parent)
    return {process: ticks[process] for process in found}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()
