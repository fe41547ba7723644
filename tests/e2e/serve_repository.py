"""Serve a repository on free ports; print them as JSON. For tests of whole server processes.

Words: the repository, and the backend, by default this machine's.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tacit.runtime.backends.loading import BackendName
from tacit.runtime.listeners import Ports
from tacit.runtime.options import ServerOptions, WorkerLimits
from tacit.runtime.server import serve


def announce(ports: Ports) -> None:
    sys.stdout.write(json.dumps(asdict(ports)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    backend = BackendName(sys.argv[2]) if len(sys.argv) > 2 else None
    serve(
        Path(sys.argv[1]),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        options=ServerOptions(workers=WorkerLimits(backend=backend)),
        on_ready=announce,
    )
