"""Plaintexts on a CUDA device: the same operations as `tacit.kernels.encode`, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import CircuitError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.launches import THREADS, Launches
from tacit.kernels.cuda.memory import Block, DeviceArray
from tacit.kernels.cuda.tables import put
from tacit.kernels.cuda.transforms import Transforms
from tacit.kernels.encode import SlotTransform

Floats = NDArray[np.float64]

_LARGEST = 2.0**1000  # rounded coefficients; residues of larger ones would take too long
_MOST_LAYERS = 3


@dataclass(frozen=True, slots=True)
class _Tables:
    sources: Block
    roots: Block
    twist: Block


class Encoder:
    """Encodes slots for one parameter set."""

    def __init__(self, launches: Launches, transforms: Transforms) -> None:
        self._launches = launches
        self._transforms = transforms
        self._log_slots = launches.params.log_n - 1
        self._slots, device = SlotTransform(launches.params.log_n), launches.device
        tables = (self._slots.sources, self._slots.roots, self._slots.twist)
        self._tables = _Tables(*(put(device, table) for table in tables))

    def encode(self, slots: Floats, scale: float, level: int, *, extended: bool) -> DeviceArray:
        """Encode slots, real or complex, shape (N/2,): (1, rows, 1, N).

        Raises:
            CircuitError: a value is not finite, or may outgrow double precision at its scale.
        """
        real, imaginary = self._slots.parts(slots)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = 2.0 * float(np.max(np.abs(slots))) * scale  # of any coefficient
        if not largest < _LARGEST:
            raise CircuitError("a constant is not finite, or outgrows double precision")
        at = self._launches.levels[level]
        out = self._launches.array(1, at.rows if extended else at.limbs, 1)
        device = self._launches.device
        parts = None if imaginary is None else put(device, imaginary)
        rounded = self._coefficients(put(device, real), parts, scale)
        span = self._launches.span(at, out)
        self._launches.elementwise(
            "tacit_reduce_doubles", out, structures.Reduce(span, rounded.address, out.address)
        )
        self._transforms.forward(at.forward(extended=extended), out, 1)
        return out

    def _coefficients(self, slots: Block, parts: Block | None, scale: float) -> Block:
        """Return rounded coefficients times the scale, as doubles."""
        device, tables, count = self._launches.device, self._tables, 1 << self._log_slots
        work, out = device.block(16 * count), device.block(16 * count)
        for first in range(0, self._log_slots, _MOST_LAYERS):
            layers = min(_MOST_LAYERS, self._log_slots - first)
            arguments = structures.Fourier(
                *(0 if first else slots.address, 0 if first or parts is None else parts.address),
                *(tables.sources.address, tables.roots.address, work.address, first, layers),
            )
            self._launch("tacit_fourier", count >> layers, arguments)
        places = (work.address, tables.twist.address, out.address)
        rounding = structures.Round(*places, scale, parts is None)
        self._launch("tacit_round_slots", count, rounding)
        return out

    def _launch(
        self, name: str, threads: int, arguments: structures.Fourier | structures.Round
    ) -> None:
        self._launches.launch(name, (-(-threads // THREADS), 1, 1), THREADS, arguments)
