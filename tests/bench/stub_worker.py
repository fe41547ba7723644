"""A worker for the tests: doubles its input, or misbehaves as its workload says."""

from __future__ import annotations

import os
import sys
import time

from bench.worker import (
    Measured,
    Ready,
    Round,
    UnsupportedError,
    Worker,
    Workload,
    rows_at,
    serve,
)


class StubWorker:
    def setup(self, workload: Workload) -> Ready:
        sys.stdout.write("chatter that must not reach the answers\n")
        if workload.workload == "unsupported":
            raise UnsupportedError("no such circuit")
        if workload.workload == "broken":
            raise RuntimeError("keys do not fit")
        self._workload = workload
        return Ready({"variant": workload.variant}, 2, 0.5, 1000, [Measured("guess", 0.01, "s")])

    def round(self, index: int) -> Round:
        if self._workload.workload == "crash":
            os._exit(3)
        start = time.perf_counter()
        if self._workload.workload == "slow":
            time.sleep(0.2)
        outputs = (2 * rows_at(self._workload, index)).tolist()
        return Round(time.perf_counter() - start, 0.001, outputs, [Measured("turn", index, "1")])

    def close(self) -> None:
        sys.stdout.write("closing\n")


def make_worker() -> Worker:
    return StubWorker()


if __name__ == "__main__":
    serve(make_worker)
