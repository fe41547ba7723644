"""What is measured: functions that launch one operation, over random residues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.gpu.sizes import Sizes, one_kind
from tacit.kernels.cuda.keys import CudaKeyTable
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.params import CryptoParams

Words = NDArray[np.uint64]
Run = Callable[[Sequence[DeviceArray]], Sequence[DeviceArray]]
HOISTED = 16


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table.

    Attributes:
        name: of the row.
        params: of the kernels.
        units: ciphertexts, rotations or limbs that one run makes.
        prepare: given kernels, returns what to run and on which arrays.
    """

    name: str
    params: CryptoParams
    units: int
    prepare: Callable[[CudaKernels], tuple[Run, list[DeviceArray]]]


def workloads(sizes: Sizes) -> Iterator[Workload]:
    """Yield every row."""
    for log_n in sizes.transforms:
        for kind, log_scale in (("integers", 55), ("doubles", 45)):
            params = one_kind(log_n, sizes.limbs, log_scale)
            units = sizes.limbs * sizes.batch
            for direction in ("forward", "inverse"):
                name = f"ntt {direction} 2^{log_n} {kind}, {units} limbs"
                yield Workload(name, params, units, _transform(direction, sizes.batch))
    for name, params in sizes.sets.items():
        for batch in sizes.batches[name]:
            label = f"set {name}, batch {batch}"
            yield Workload(
                f"multiply relinearise rescale, {label}", params, batch, _multiply(batch)
            )
            yield Workload(f"rotate, {label}", params, batch, _rotate(batch))
        hoisted = f"hoisted rotation, each of {HOISTED}, set {name}"
        yield Workload(hoisted, params, HOISTED, _hoisted)


def random_limbs(params: CryptoParams, components: int, limbs: int, batch: int) -> Words:
    """Return residues [component][limb][batch][N]."""
    rng = np.random.default_rng(limbs)
    shape = (components, limbs, batch, params.n)
    moduli = np.array(params.moduli[:limbs], dtype=np.uint64)[:, None, None]
    return rng.integers(0, 1 << 62, shape, dtype=np.uint64) % moduli


def random_key(params: CryptoParams) -> Words:
    """Return a switching key of random residues: its values do not change the time."""
    rng = np.random.default_rng(params.dnum)
    moduli = np.array(params.moduli + params.special_moduli, dtype=np.uint64)[:, None]
    shape = (2, params.dnum, len(moduli), params.n)
    return rng.integers(0, 1 << 62, shape, dtype=np.uint64) % moduli


def _table(cuda: CudaKernels, batch: int) -> CudaKeyTable:
    return cuda.key_table([cuda.upload_key(random_key(cuda.params))] * batch)


def _transform(
    direction: str, batch: int
) -> Callable[[CudaKernels], tuple[Run, list[DeviceArray]]]:
    def prepare(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
        limbs = len(cuda.params.moduli)
        a = cuda.upload(random_limbs(cuda.params, 1, limbs, batch))

        def run(inputs: Sequence[DeviceArray]) -> Sequence[DeviceArray]:
            return [cuda.transformed(inputs[0], inverse=direction == "inverse")]

        return run, [a]

    return prepare


def _multiply(batch: int) -> Callable[[CudaKernels], tuple[Run, list[DeviceArray]]]:
    def prepare(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
        params, table = cuda.params, _table(cuda, batch)
        limbs = len(params.moduli)
        a, b = (cuda.upload(random_limbs(params, 2, limbs, batch)) for _ in range(2))

        def run(inputs: Sequence[DeviceArray]) -> Sequence[DeviceArray]:
            a, b = inputs
            return [cuda.rescale(cuda.multiply(a, b, table))]

        return run, [a, b]

    return prepare


def _rotate(batch: int) -> Callable[[CudaKernels], tuple[Run, list[DeviceArray]]]:
    def prepare(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
        params, table, moved = cuda.params, _table(cuda, batch), cuda.galois(5)
        a = cuda.upload(random_limbs(params, 2, len(params.moduli), batch))

        def run(inputs: Sequence[DeviceArray]) -> Sequence[DeviceArray]:
            first, second = (cuda.part(inputs[0], part) for part in range(2))
            return cuda.switch_down(second, [table], [moved], plus=(first, None))

        return run, [a]

    return prepare


def _hoisted(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
    """Every rotation has a key of its own, as in life."""
    params = cuda.params
    words = random_key(params)
    tables = [cuda.key_table([cuda.upload_key(words)]) for _ in range(HOISTED)]
    moves = [cuda.galois(pow(5, step, 2 * params.n)) for step in range(1, HOISTED + 1)]
    a = cuda.upload(random_limbs(params, 2, len(params.moduli), 1))

    def run(inputs: Sequence[DeviceArray]) -> Sequence[DeviceArray]:
        first, second = (cuda.part(inputs[0], part) for part in range(2))
        return cuda.switch_down(second, tables, moves, plus=(first, None))

    return run, [a]
