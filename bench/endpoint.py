"""A Tacit server in a process of its own, for the duration of a benchmark.

`python -m bench.endpoint REPOSITORY` serves on free ports and prints the HTTP port when ready.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 60.0


class Endpoint:
    """A running server; `url` is where a client finds it."""

    def __init__(self, repository: Path, log_path: Path) -> None:
        """Start the server and wait until it is ready.

        Args:
            repository: `<name>/<version>/` folders.
            log_path: what the server writes to stderr goes here.

        Raises:
            RuntimeError: it ended, or is not ready in time; the message quotes its last line.
        """
        self._log_path = log_path
        self._log = log_path.open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.endpoint", str(repository)],
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            self.url = f"http://127.0.0.1:{self._read_port()}"
        except RuntimeError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    raise RuntimeError(f"endpoint not ready in {START_SECONDS:.0f} s")
                chunk = os.read(self._process.stdout.fileno(), 64)
                if not chunk:
                    raise RuntimeError(f"the endpoint ended: {self._last_line()}")
                received += chunk
        return int(received)

    def _last_line(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


def main(repository: Path) -> None:
    """Serve until SIGTERM."""
    from tacit.runtime.server import serve

    serve(
        repository,
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        on_ready=lambda ports: print(ports.http, flush=True),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
