"""The least that a workload must move and compute, and the time that takes: a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from bench.gpu.workloads import Workload
from tacit.errors import UnusableEnvironmentError
from tacit.kernels.cuda.image import cubin
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.planning import H200, H200_RATES, CountingDevice, Rates, Work
from tacit.kernels.cuda.sass import disassemble

NARROW_BITS = 50


def floor_of(workload: Workload, cache: Path | None, rates: Rates = H200_RATES) -> Work:
    """Count one run of a workload, warm.

    Args:
        workload: what to count.
        cache: folder of compiled kernels, to count their instructions; None counts bytes alone.
        rates: of the device.
    """
    params = workload.params
    share = sum(q >> NARROW_BITS == 0 for q in params.moduli) / len(params.moduli)
    code = transform_instructions(params.log_n, cache, round(share, 2)) if cache else {}
    device = CountingDevice(params.log_n, code, rates=rates, abilities=H200)
    cuda = CudaKernels(params, device, b"")
    run, inputs = workload.prepare(cuda)
    run(inputs)
    device.restart()
    run(inputs)
    return device.work


@cache
def transform_instructions(log_n: int, cache: Path, narrow_share: float) -> Mapping[str, int]:
    """Return instructions of one thread of each transform, averaged over kinds of primes.

    Empty where there is no NVRTC or no disassembler. A kernel holds both arithmetics, of which a
    thread runs one; what one holds more than the other's own build is the doubles' part.
    """
    try:
        integers = disassemble(cubin(log_n, 90, doubles=False, cache=cache))
        both = disassemble(cubin(log_n, 90, doubles=True, cache=cache))
    except UnusableEnvironmentError:
        return {}
    made = {}
    for name, alone in integers.items():
        if not any(kind in name for kind in ("forward", "backward", "rescale")):
            continue
        doubles = both[name].total - alone.total
        made[name] = round(narrow_share * doubles + (1 - narrow_share) * alone.total)
    return made
