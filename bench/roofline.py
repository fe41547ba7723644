"""What this machine can do at most, measured on the spot by `roofline.cpp`."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.compile_sources import find_compiler

SOURCE = Path(__file__).parent / "roofline.cpp"
KIB = 1 << 10
# Per thread: a quarter of a usual second and third cache, and far beyond any.
L2_BYTES, L3_BYTES, MEMORY_BYTES = 512 * KIB, 4096 * KIB, 256 * KIB * KIB
TRIALS = 5
CHUNK_SECONDS = 0.02

# Bits of tacit_measure_sets, and the multiplications that each set's kernels use.
_PEAKS = {
    "integer": (1, "tacit_measure_integer"),
    "avx2_double": (2, "tacit_measure_avx2_double"),
    "avx2_integer": (2, "tacit_measure_avx2_integer"),
    "avx512_double": (4, "tacit_measure_avx512_double"),
    "avx512_ifma": (4, "tacit_measure_avx512_ifma"),
    "avx512_integer": (4, "tacit_measure_avx512_integer"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """The most that `threads` threads together did in the best of several trials.

    Attributes:
        threads: how many.
        multiplications: per second, by kind: `integer` 64 x 64 to 128 bits; `avx2_double` and
            `avx512_double` multiply-adds; `avx2_integer` 32 x 32 to 64 bits; `avx512_ifma` halves
            of 52-bit multiply-adds; `avx512_integer` low halves of 64-bit products.
        l2: bytes read and written per second within the second cache.
        l3: within the third.
        memory: in main memory.
    """

    threads: int
    multiplications: dict[str, float]
    l2: float
    l3: float
    memory: float

    def bandwidth(self, size_bytes: float) -> float:
        """Return the bytes per second of the smallest memory that holds so many bytes."""
        if size_bytes <= 2 * L2_BYTES * self.threads:
            return self.l2
        return self.l3 if size_bytes <= 4 * L3_BYTES else self.memory

    def figures(self) -> dict[str, float]:
        """Return every figure by name, per second."""
        found = asdict(self)
        rates = {f"{kind}_per_second": x for kind, x in self.multiplications.items()}
        return rates | {f"{name}_bytes_per_second": found[name] for name in ("l2", "l3", "memory")}


def measure_machine(threads: int) -> Machine:
    """Measure peaks and bandwidths with so many threads at once.

    Raises:
        UnusableEnvironmentError: there is no C++ compiler, or it fails.
    """
    with tempfile.TemporaryDirectory(prefix="tacit-roofline-") as folder:
        library = _compile(Path(folder))
        sets = library.tacit_measure_sets()
        peaks = {
            kind: _best(threads, lambda _, name=name: _per_second(getattr(library, name)))  # type: ignore[misc]
            for kind, (bit, name) in _PEAKS.items()
            if sets & bit
        }
        sizes = (L2_BYTES, L3_BYTES, MEMORY_BYTES)
        return Machine(threads, peaks, *(_bandwidth(library, threads, size) for size in sizes))


def _bandwidth(library: ctypes.CDLL, threads: int, size_bytes: int) -> float:
    arrays = [np.ones(size_bytes // 8, dtype=np.uint64) for _ in range(threads)]

    def copied(index: int) -> float:
        array = arrays[index]
        return _per_second(
            lambda rounds: library.tacit_measure_copy(array.ctypes.data, len(array), rounds)
        )

    return _best(threads, copied)


def _best(threads: int, rate: Callable[[int], float]) -> float:
    with ThreadPoolExecutor(threads) as pool:  # ctypes releases the interpreter's lock
        return max(sum(pool.map(rate, range(threads))) for _ in range(TRIALS))


def _per_second(work: Callable[[int], int]) -> float:
    """Repeat until a trial takes long enough; return what was done per second of CPU time."""
    rounds = 1
    while True:
        start = time.thread_time()  # other programs on this core do not count
        done = work(rounds)
        seconds = time.thread_time() - start
        if seconds >= CHUNK_SECONDS:
            return done / seconds
        rounds *= 2 if seconds < CHUNK_SECONDS / 4 else 4


def _compile(folder: Path) -> ctypes.CDLL:
    compiler, target = find_compiler(), folder / "roofline.so"
    if compiler is None:
        raise UnusableEnvironmentError("no C++ compiler for the roofline: install g++")
    flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC"]
    made = subprocess.run(
        [compiler, *flags, str(SOURCE), "-o", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise UnusableEnvironmentError(f"the C++ compiler failed:\n{made.stderr}")
    library = ctypes.CDLL(str(target))
    for _, name in _PEAKS.values():
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = (ctypes.c_uint64,), ctypes.c_uint64
    copy = library.tacit_measure_copy
    copy.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
    copy.restype = ctypes.c_uint64
    library.tacit_measure_sets.restype = ctypes.c_uint32
    return library
