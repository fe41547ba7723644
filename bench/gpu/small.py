"""`python -m bench.gpu.small`: every workload once on tiny rings, under memory checkers."""

from __future__ import annotations

from bench.gpu.machines import Gpu
from bench.gpu.sizes import rehearsal
from bench.gpu.workloads import workloads

if __name__ == "__main__":
    machine = Gpu()
    for workload in workloads(rehearsal()):
        cuda = machine.kernels(workload.params)
        run, inputs = workload.prepare(cuda)
        for made in run(inputs):
            cuda.download(made)
