"""A worker process whose CUDA device is fibres: `python -m tests.e2e.shim_worker`.

TACIT_TEST_FAULT names a file: a worker whose device is opened while it is there loses the device
at its tenth launch after that. TACIT_TEST_FAULTS says how many workers; each takes one line.
"""

import os
import sys
from pathlib import Path

from tacit.kernels.cuda.driver import Driver
from tacit.kernels.cuda.shim import ShimControl
from tacit.runtime.device_engine import open_engine
from tacit.runtime.worker import descriptors_of, main
from tacit.runtime.worker_settings import WorkerSettings
from tests.conformance.cuda_backend import fibres

DEVICE_LOST, LAUNCHES = 719, 10


def take_fault(driver: Driver) -> None:
    path = Path(os.environ.get("TACIT_TEST_FAULT", "/nowhere"))
    lines = path.read_text().splitlines() if path.exists() else []
    if lines:
        path.write_text("\n".join(lines[1:]))
        ShimControl(driver).fail("cuLaunchKernel", LAUNCHES, DEVICE_LOST)


if __name__ == "__main__":
    take_fault(fibres().driver())
    chosen = WorkerSettings.from_text(sys.argv[1])
    main(descriptors_of(sys.argv[2]), open_engine(chosen, fibres()))
