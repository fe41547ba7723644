"""Processes that compile a deep network, or serve it on the native engine, and weigh themselves."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit import artifact
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.session import Session

Array = NDArray[np.float64]


def main() -> None:
    """Run the task that standard input describes as JSON; print the result as JSON."""
    task = json.load(sys.stdin)
    work = task.pop("work")
    paths = {name: Path(value) for name, value in task.items()}
    found = compile_network(**paths) if work == "compile" else serve(**paths)
    json.dump(found, sys.stdout)


def compile_network(model: Path, calibration: Path, directory: Path) -> dict[str, object]:
    """Compile a model for the latency plan."""
    start = time.perf_counter()
    options = CompileOptions(calibration=np.load(calibration), plans=("latency",))
    compile_model(model, directory, options=options)
    return {"compile_seconds": time.perf_counter() - start, "peak_memory_bytes": _peak()}


def serve(directory: Path, frames: Path) -> dict[str, object]:
    """Answer requests, one image each.

    Args:
        directory: the artifact.
        frames: folder with `key-*` and `input-*`, one frame each; answers go to `output-*`.
    """
    model = artifact.load(directory)
    keys = [path.read_bytes() for path in sorted(frames.glob("key-*"))]
    session = Session.open(model, keys, backend=BackendName.NATIVE)
    del keys
    gauge = _Gauge()
    layers = [node.label for node in model.circuits["latency"].nodes]
    seconds, clocks = [], []
    for path in sorted(frames.glob("input-*")):
        inputs = [part.read_bytes() for part in sorted(path.iterdir())]
        clock = _Clock(layers, gauge)
        start = time.perf_counter()
        result = session.run("latency", inputs, clock.heard)
        seconds.append(time.perf_counter() - start)
        clocks.append(clock)
        answers = frames / path.name.replace("input", "output")
        answers.mkdir()
        for index, frame in enumerate(result.frames):
            (answers / f"{index:04d}").write_bytes(frame)
    middle = clocks[sorted(range(len(seconds)), key=seconds.__getitem__)[len(seconds) // 2]]
    return {
        "seconds": seconds,
        "seconds_by_layer": middle.seconds,
        "memory_by_layer": middle.memory,
        "peak_memory_bytes": max(gauge.highest, gauge.peak()),
    }


class _Gauge:
    """The most memory that was resident since it was last read."""

    def __init__(self) -> None:
        self.highest = _peak()

    def peak(self) -> int:
        """Read it, and begin anew."""
        found = _peak()
        self.highest = max(self.highest, found)
        with suppress(OSError):  # where it cannot be reset, it only grows
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return found


class _Clock:
    """Notes time and peak memory by layer."""

    def __init__(self, layers: list[str], gauge: _Gauge) -> None:
        self._layers, self._gauge = layers, gauge
        gauge.peak()
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, int] = {}

    def heard(self, done: int, total: int) -> None:
        """Note what the operation just done took."""
        if not 1 <= done <= len(self._layers):
            return
        now, layer = time.perf_counter(), self._layers[done - 1]
        self.seconds[layer] = self.seconds.get(layer, 0.0) + now - self._last
        self.memory[layer] = max(self.memory.get(layer, 0), self._gauge.peak())
        self._last = time.perf_counter()


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """Return a line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
