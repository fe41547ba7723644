"""Server processes for tests that look at them from outside."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tacit.runtime.listeners import Ports
from tacit.runtime.tensors import join_bytes

_HERE = Path(__file__).parent


def start(script: str, *words: str, first: Path | None = None) -> "subprocess.Popen[str]":
    """Start a script of this folder, with pipes; `first` comes first on its import path."""
    path = os.pathsep.join([*([str(first)] if first else []), *(p for p in sys.path if p)])
    return subprocess.Popen(
        [sys.executable, str(_HERE / script), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


@contextmanager
def server_process(
    script: str, repository: Path, *words: str, first: Path | None = None
) -> Iterator[tuple["subprocess.Popen[str]", Ports]]:
    """Run a server script; gives its process and ports. See `start`."""
    with start(script, str(repository), *words, first=first) as process:
        try:
            assert process.stdout is not None
            yield process, Ports(**json.loads(process.stdout.readline()))
        finally:
            process.kill()


def tensor_body(frames: Sequence[bytes]) -> tuple[bytes, int]:
    """An infer body for one evaluation; returns it with the length of its JSON header."""
    tensor = join_bytes(frames)
    described = {
        "name": "ciphertexts",
        "datatype": "BYTES",
        "shape": [1, len(frames)],
        "parameters": {"binary_data_size": len(tensor)},
    }
    fields = {"parameters": {"binary_data_output": True}, "inputs": [described]}
    header = json.dumps(fields).encode()
    return header + tensor, len(header)


def children(pid: int) -> list[int]:
    """Process ids of a process's children."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(c) for task in tasks for c in (task / "children").read_text().split()]


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own: anonymous pages, not files it maps."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("the process ended")


def open_files(pid: int) -> int:
    """Number of a process's file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
