"""Serve a repository on free ports; print them as JSON. For tests of whole server processes."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tacit.runtime.listeners import Ports
from tacit.runtime.server import serve


def announce(ports: Ports) -> None:
    sys.stdout.write(json.dumps(asdict(ports)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), http_port=0, grpc_port=0, metrics_port=0, on_ready=announce)
