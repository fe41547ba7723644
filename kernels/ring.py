"""A ring: its primes, their tables in the compiled kernels, and checked access to arrays."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tacit.errors import (
    InternalError,
    OutOfMemoryError,
    ParameterError,
    UnusableEnvironmentError,
)
from tacit.kernels.library import InstructionSet, available, load
from tacit.moduli import smallest_root

Limbs = NDArray[np.uint64]
Mods = NDArray[np.uint32]

_NO_RESOURCES = 2  # TACIT_NO_RESOURCES of csrc/tacit_kernels.h


class Ring:
    """Z_q[X] / (X^N + 1) for several primes q; may be used by several threads at once.

    Args:
        log_n: base-2 logarithm of N, 3 to 17.
        moduli: primes below 2^60, 1 modulo 2N.
        instructions: by default the best that this processor has.
        threads: share the rows of one call; 1 is the caller's own.
        roots: primitive 2N-th roots of unity; by default the smallest, as OpenFHE takes.
        library: the compiled kernels.

    Raises:
        ParameterError: a modulus does not fit.
        OutOfMemoryError: no memory for the tables, or no threads.
        UnusableEnvironmentError: no compiled kernels, or not for these instructions.
    """

    def __init__(
        self,
        log_n: int,
        moduli: Sequence[int],
        *,
        instructions: InstructionSet | None = None,
        threads: int = 1,
        roots: Sequence[int] | None = None,
        library: ctypes.CDLL | None = None,
    ) -> None:
        self.library = load() if library is None else library
        self.log_n = log_n
        self.n = 1 << log_n
        self.threads = threads
        self.moduli = tuple(moduli)
        if not 3 <= log_n <= 17 or not all(2 < q < 1 << 60 for q in self.moduli):
            raise ParameterError("N = 2^3 to 2^17 and primes below 2^60 are expected")
        self.roots = tuple(roots or (smallest_root(q, log_n) for q in self.moduli))
        usable = available(self.library)
        self.instructions = usable[-1] if instructions is None else instructions
        if self.instructions not in usable:
            raise UnusableEnvironmentError(f"this processor has no {self.instructions.name}")
        words = np.array([self.moduli, self.roots], dtype=np.uint64)
        failure = ctypes.c_int()
        self.handle = self.library.tacit_ring_new(
            log_n,
            len(self.moduli),
            words[0].ctypes.data,
            words[1].ctypes.data,
            int(self.instructions),
            threads,
            ctypes.byref(failure),
        )
        if failure.value == _NO_RESOURCES:
            raise OutOfMemoryError(
                f"no memory for the tables of {len(self.moduli)} primes at N = 2^{log_n}, or no "
                f"{threads} threads"
            )
        if not self.handle:
            raise ParameterError(f"no tables for N = 2^{log_n} and moduli {self.moduli}")
        weakref.finalize(self, self.library.tacit_ring_free, self.handle)

    def address(self, array: Limbs, rows: int, length: int = 0) -> int:
        """Return where an array of `rows` rows of N residues, or of `length`, lies.

        Raises:
            InternalError: it is not a contiguous uint64 array of that size.
        """
        described = array.__array_interface__  # one look-up where array.ctypes takes several
        length = length or self.n
        if (
            described["typestr"] != "<u8"
            or described["strides"] is not None  # None: contiguous
            or described["shape"][-1] != length
            or array.size != rows * length
        ):
            raise InternalError(
                f"{rows} rows of {length} uint64 expected, got {array.dtype} {array.shape}"
            )
        address: int = described["data"][0]
        return address

    def row_moduli(self, mods: Mods | None, rows: int) -> int | None:
        """Return where the moduli's indices lie; None for 0, 1, 2, ...

        Raises:
            InternalError: there are not as many as rows.
        """
        if mods is None:
            if rows > len(self.moduli):
                raise InternalError(f"{rows} rows, but {len(self.moduli)} moduli")
            return None
        if mods.dtype != np.uint32 or mods.shape != (rows,) or not mods.flags.c_contiguous:
            raise InternalError(f"{rows} indices of moduli expected, got {mods.shape}")
        return int(mods.ctypes.data)

    def rows_of(self, array: Limbs, batch: int = 1) -> int:
        """Return how many rows of `batch` times N residues an array has."""
        return array.size // (self.n * batch)
