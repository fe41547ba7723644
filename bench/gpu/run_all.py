"""Check, then measure the CUDA engine on this machine's GPU, in one call of a few minutes.

    python -m bench.gpu.run_all --fixtures FILE --out FILE     on a machine with a GPU
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
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu import fixtures
from bench.gpu.floors import floor_of
from bench.gpu.machines import Fibres, Gpu, Machine
from bench.gpu.rates import copy_bytes_per_us, wide_multiplications_per_us
from bench.gpu.sizes import Sizes, real, rehearsal
from bench.gpu.workloads import Workload, workloads
from bench.record import Record, Surroundings, look_around
from tacit.kernels.cuda.image import default_cache
from tacit.kernels.cuda.planning import H200_RATES, Rates
from tacit.kernels.cuda.recorded import Recorded

TESTS = ("test_transforms.py", "test_limb_kernels.py")


def main() -> None:
    """Run what the command line asks for."""
    options = _options()
    if options.predict:
        predicted = {"gpu": "none: predicted for an H200"}
        Log(options.out, look_around(), predicted).predictions(real())
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
    for workload in workloads(sizes):
        if time.monotonic() - started > options.seconds:
            print(f"left out for lack of time: {workload.name}")
            continue
        log.measured(machine, workload, sizes, rates)


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
        self._around = replace(around, hardware={**around.hardware, **(device or {})})

    def predictions(self, sizes: Sizes) -> None:
        """Write what the model of bytes and instructions predicts for each workload."""
        for workload in workloads(sizes):
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
        if self._path is None:
            return
        parameters = workload.params.to_json()
        parameters |= {"fraction_of_limit": fraction} if fraction is not None else {}
        unit = {"predicted_launches": "1", "predicted_bytes": "bytes"}.get(metric, "us")
        around = self._around
        record = Record(
            *("gpu", workload.name, "tacit", metric, value, unit, 1, parameters, runs),
            *(around.hardware, around.commit, samples, around.load, around.time),
        )
        with self._path.open("a") as file:
            file.write(record.to_json() + "\n")


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
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "gpu.jsonl")
    parser.add_argument("--seconds", type=float, default=420.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
