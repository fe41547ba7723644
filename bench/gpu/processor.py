"""The CPU engine on the same machine: requests at the same time, as the server deals them out."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from bench.gpu.circuits import evaluation
from tacit.circuit import Circuit
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.params import CryptoParams


def processor_seconds(
    params: CryptoParams, circuit: Circuit, requests: int, runs: int
) -> list[float]:
    """Return seconds for all requests together, spread over all cores, in each of several runs.

    Raises:
        UnusableEnvironmentError: there are no compiled kernels.
    """
    cores = len(os.sched_getaffinity(0))
    share = max(1, cores // requests)  # of the limbs of one operation, where requests are few
    run, inputs = evaluation(CpuKernels(params, threads=share), params, circuit, 1)
    run(inputs)
    made = []
    with ThreadPoolExecutor(min(cores, requests)) as pool:
        for _ in range(runs):
            start = time.perf_counter()
            list(pool.map(run, [inputs] * requests))
            made.append(time.perf_counter() - start)
    return made
