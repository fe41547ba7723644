"""Rates of a device: copies of its memory and wide multiplications."""

from __future__ import annotations

import ctypes
from statistics import median

from bench.gpu.machines import Machine
from bench.gpu.sizes import Sizes

_THREADS = 256
_CHAINS = 8


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("source", ctypes.c_uint64),
        ("target", ctypes.c_uint64),
        ("words", ctypes.c_uint64),
        ("rounds", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
    )


def copy_bytes_per_us(machine: Machine, sizes: Sizes) -> float:
    """Return bytes read and written per microsecond by a copy of memory much larger than caches."""
    words = sizes.copied_words
    source, target = (machine.device.block(8 * words) for _ in range(2))
    arguments = _Arguments(source.address, target.address, words, 0, 0)
    blocks = -(-words // (2 * _THREADS))
    return 16 * words / _microseconds(machine, "tacit_copy", blocks, arguments, sizes)


def wide_multiplications_per_us(machine: Machine, sizes: Sizes) -> float:
    """Return multiplications 32 x 32 + 64 per microsecond, of all threads together."""
    target = machine.device.block(8)
    arguments = _Arguments(0, target.address, 0, sizes.rounds, 12345)
    blocks = 8 * machine.device.abilities.multiprocessors if sizes.rounds > 100 else 2
    us = _microseconds(machine, "tacit_wide_multiply", blocks, arguments, sizes)
    return blocks * _THREADS * _CHAINS * sizes.rounds / us


def _microseconds(
    machine: Machine, name: str, blocks: int, arguments: ctypes.Structure, sizes: Sizes
) -> float:
    ring, device = machine.load_rates(), machine.device
    timer, samples = device.timer(), []
    for run in range(sizes.warm_runs + sizes.runs):
        timer.start()
        device.launch(ring, name, (blocks, 1, 1), _THREADS, arguments)
        passed = timer.stop()
        if run >= sizes.warm_runs:
            samples.append(passed)
    timer.close()
    return 1000 * max(median(samples), 1e-6)
