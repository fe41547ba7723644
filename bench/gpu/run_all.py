"""Check, then measure the CUDA engine on this machine's GPU, in one call of a few minutes.

    python -m bench.gpu.run_all --fixtures FILE --circuits FOLDER --out FILE     on a GPU
    python -m bench.gpu.run_all --dry-run                      a rehearsal on fibres, tiny rings
    python -m bench.gpu.run_all --predict --out FILE           what the model predicts, no GPU

Every line of the result names the hardware. Predictions say `predicted`; a rehearsal's times are
those of a simulation and are not written.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu import fixtures
from bench.gpu.circuits import CLIENTS, circuit_workloads, found_models
from bench.gpu.floors import floor_of
from bench.gpu.machines import Fibres, Gpu, Machine
from bench.gpu.processor import processor_seconds
from bench.gpu.rates import copy_bytes_per_us, wide_multiplications_per_us
from bench.gpu.sizes import Sizes, real, rehearsal
from bench.gpu.workloads import Run, Workload, workloads
from bench.record import Record, Surroundings, look_around
from tacit.circuit import Circuit
from tacit.errors import UnusableEnvironmentError
from tacit.kernels.cuda.image import default_cache
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.planning import H200_RATES, Rates
from tacit.kernels.cuda.recorded import Recorded
from tacit.params import CryptoParams

TESTS = (
    "test_transforms.py",
    "test_limb_kernels.py",
    "test_keyswitch.py",
    "test_raising.py",
    "test_owners.py",
)


def main() -> None:
    """Run what the command line asks for."""
    options = _options()
    if options.predict:
        predicted = {"gpu": "none: predicted for an H200"}
        Log(options.out, look_around(), predicted).predictions(real(), options.circuits)
        return
    machine: Machine = Fibres() if options.dry_run else Gpu()
    log = Log(None if options.dry_run else options.out, look_around(), machine.hardware())
    sizes = rehearsal() if options.dry_run else real()
    started = time.monotonic()
    if not options.dry_run:
        _run_tests()
        _run_sanitizers()
    if options.fixtures:
        compared = fixtures.check(options.fixtures, machine.kernels)
        print(f"{compared} ciphertexts equal OpenFHE's, limb for limb")
    if options.only_checks:
        return
    rates = log.rates(machine, sizes)
    for workload in all_workloads(sizes, options.circuits):
        if time.monotonic() - started > options.seconds:
            print(f"left out for lack of time: {workload.name}")
            continue
        log.measured(machine, workload, sizes, rates)
    log.gains()
    for name, (params, circuit) in found_models(sizes, options.circuits).items():
        for requests in CLIENTS if sizes.real else (1, 3):
            if time.monotonic() - started > options.seconds:
                print(f"left out for lack of time: {name} on the processor")
                continue
            log.on_processor(name, params, circuit, requests, sizes)


def all_workloads(sizes: Sizes, circuits: Path | None) -> Iterator[Workload]:
    """Yield operations, then whole circuits."""
    yield from workloads(sizes)
    yield from circuit_workloads(sizes, circuits)


class Log:
    """Prints results and appends them to a file of JSON lines.

    Args:
        path: of the file; None to print only.
        around: machine, commit, time.
        device: more about the hardware.
    """

    def __init__(
        self, path: Path | None, around: Surroundings, device: dict[str, Any] | None = None
    ) -> None:
        self._path = path
        self._found: dict[tuple[str, str], float] = {}
        self._around = replace(around, hardware={**around.hardware, **(device or {})})

    def predictions(self, sizes: Sizes, circuits: Path | None) -> None:
        """Write what the model of bytes and instructions predicts for each workload."""
        for workload in all_workloads(sizes, circuits):
            floor = floor_of(workload, default_cache())
            launches = sum(floor.launches.values())
            self._write(workload, "predicted_us", floor.us / workload.units, 1, [])
            self._write(workload, "predicted_launches", launches, 1, [])
            self._write(workload, "predicted_bytes", floor.nbytes / workload.units, 1, [])

    def rates(self, machine: Machine, sizes: Sizes) -> Rates:
        """Measure what bounds everything else."""
        copied = copy_bytes_per_us(machine, sizes)
        multiplied = wide_multiplications_per_us(machine, sizes)
        print(f"copy {copied / 1e6:.2f} TB/s read and written")
        print(f"wide multiplications {multiplied / 1e6:.2f} 10^12/s of all threads")
        return Rates(copied, H200_RATES.instructions_per_us)

    def measured(self, machine: Machine, workload: Workload, sizes: Sizes, rates: Rates) -> None:
        """Measure one workload, launched one by one and as a graph."""
        cuda = machine.kernels(workload.params)
        run, inputs = workload.prepare(cuda)
        simulated = isinstance(machine, Fibres)
        floor = floor_of(workload, None if simulated else default_cache(), rates)
        recorded = Recorded(cuda, machine.device, run, inputs)
        for metric, repeat in (
            ("us", lambda: run(inputs)),
            ("graph_us", lambda: recorded.launch(inputs)),
        ):
            samples = _samples(machine, repeat, sizes)
            value = 1000 * median(samples) / workload.units
            fraction = None if simulated else floor.us / workload.units / value
            self._write(workload, metric, value, len(samples), samples, fraction)
        recorded.close()

    def gains(self) -> None:
        """Print what graphs and batches gain over launches one by one, request by request."""
        for (name, metric), us in self._found.items():
            model, _, clients = name.partition(", ")
            alone = self._found.get((f"{model}, 1 clients", "us"))
            if metric == "graph_us" and alone and clients.endswith("clients"):
                print(f"{name} as a graph: {alone / us:.1f} times one by one", flush=True)

    def on_processor(
        self, name: str, params: CryptoParams, circuit: Circuit, requests: int, sizes: Sizes
    ) -> None:
        """Measure the CPU engine on this machine's cores, with as many requests at once."""
        try:
            seconds = processor_seconds(params, circuit, requests, 3 if sizes.real else 1)
        except UnusableEnvironmentError as error:
            print(f"left out: {name} on the processor: {error}")
            return
        named = Workload(f"{name}, {requests} clients, cpu engine", params, requests, _nothing)
        samples = [1000 * second for second in seconds]
        self._write(named, "us", 1000 * median(samples) / requests, len(samples), samples)

    def _write(
        self,
        workload: Workload,
        metric: str,
        value: float,
        runs: int,
        samples: list[float],
        fraction: float | None = None,
    ) -> None:
        limit = "" if fraction is None else f"  {fraction:.2f} of the limit"
        print(f"{workload.name}: {metric} {value:.2f}{limit}", flush=True)
        self._found[workload.name, metric] = value
        if self._path is None:
            return
        parameters = workload.params.to_json()
        parameters |= {"fraction_of_limit": fraction} if fraction is not None else {}
        parameters |= {"predicted": True} if metric.startswith("predicted") else {}
        unit = {"predicted_launches": "1", "predicted_bytes": "bytes"}.get(metric, "us")
        around = self._around
        record = Record(
            *("gpu", workload.name, "tacit", metric, value, unit, 1, parameters, runs),
            *(around.hardware, around.commit, samples, around.load, around.time),
        )
        with self._path.open("a") as file:
            file.write(record.to_json() + "\n")


def _nothing(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
    raise NotImplementedError("this row is not measured on a device")


def _samples(machine: Machine, repeat: Any, sizes: Sizes) -> list[float]:
    """Return milliseconds of each warm run."""
    timer = machine.device.timer()
    for _ in range(sizes.warm_runs):
        repeat()
    made = []
    for _ in range(sizes.runs):
        timer.start()
        repeat()
        made.append(timer.stop())
    timer.close()
    return made


def _run_tests() -> None:
    """Run the kernels' tests on the device instead of fibres, in a process of their own."""
    folder = Path(__file__).parents[2] / "tests" / "kernels" / "cuda"
    places = [str(folder / name) for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *places]
    subprocess.run(command, check=True, env={**os.environ, "TACIT_TEST_CUDA": "1"})


def _run_sanitizers() -> None:
    """Run the fixtures' work under NVIDIA's memory and race checkers, where they are installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        print("left out: no compute-sanitizer")
        return
    for kind in ("memcheck", "racecheck"):
        command = [tool, "--tool", kind, "--error-exitcode", "9", sys.executable]
        subprocess.run([*command, "-m", "bench.gpu.small"], check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--only-checks", action="store_true")
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--circuits", type=Path, help="artifacts, from bench.gpu.circuits")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "gpu.jsonl")
    parser.add_argument("--seconds", type=float, default=420.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
