"""Limbs on the processor as numpy arrays: in and out, put together and taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from tacit.errors import InternalError, OutOfMemoryError
from tacit.kernels.limb_kernels import LimbArray, Words
from tacit.kernels.memory import ArrayPool

_P = ParamSpec("_P")
_R = TypeVar("_R")


def typed(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a method raise OutOfMemoryError where numpy cannot allocate."""

    @wraps(method)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(*args, **kwargs)
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory for limbs: {error}") from error

    return called


def own(a: LimbArray) -> Words:
    """Return an array of the seam as numpy's.

    Raises:
        InternalError: it lies on another device.
    """
    if not isinstance(a, np.ndarray):
        raise InternalError(f"{type(a).__name__} is no array of this device")
    return a


def alike(a: LimbArray, b: LimbArray) -> tuple[Words, Words]:
    """Return two arrays of one shape; see `own`.

    Raises:
        InternalError: of two shapes.
    """
    if a.shape != b.shape:
        raise InternalError(f"arrays of one shape expected, got {a.shape} and {b.shape}")
    return own(a), own(b)


class CpuArrays:
    """The part of `LimbKernels` that moves limbs and does not compute."""

    def __init__(self, pool_bytes: int) -> None:
        """Keep so much memory of past results and working arrays for the next."""
        self._pool = ArrayPool(pool_bytes)

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept for the next results."""
        return self._pool.kept_bytes

    @property
    def peak_bytes(self) -> int:
        """Most bytes that results and working arrays took at once."""
        return self._pool.peak_bytes

    @typed
    def upload(self, words: Words) -> LimbArray:
        """Take an array in, without a copy if it is contiguous."""
        return np.ascontiguousarray(words, dtype=np.uint64)

    @typed
    def upload_key(self, words: Words) -> LimbArray:
        """Take a switching key in; it is not copied if it is contiguous."""
        return self.upload(words)

    @typed
    def upload_sparse_key(self, words: Words) -> LimbArray:
        """Take a key to a sparse secret in; it is not copied if it is contiguous."""
        return self.upload(words)

    @typed
    def download(self, a: LimbArray) -> Words:
        """Return the array itself, or a copy if it is not contiguous."""
        return np.ascontiguousarray(own(a))

    def part(self, a: LimbArray, component: int) -> LimbArray:
        """Return a view of one component."""
        return own(a)[component : component + 1]

    def join(self, arrays: Sequence[LimbArray]) -> LimbArray:
        """Put batches one after the other."""
        words = [own(a) for a in arrays]
        if not words or any(_but_batch(w) != _but_batch(words[0]) for w in words):
            raise InternalError(f"equal shapes expected, got {[w.shape for w in words]}")
        components, rows, _, n = words[0].shape
        out = self._array(components, rows, sum(w.shape[2] for w in words), n)
        return np.concatenate(words, axis=2, out=out)

    def split(self, a: LimbArray) -> list[LimbArray]:
        """Copy each batch entry."""
        words = own(a)
        components, rows, batch, n = words.shape
        if batch == 1:
            return [words]
        entries: list[LimbArray] = []
        for entry in range(batch):
            out = self._array(components, rows, 1, n)
            out[:, :, 0] = words[:, :, entry]
            entries.append(out)
        return entries

    def _array(self, *shape: int) -> Words:
        return self._pool.array(shape)


def _but_batch(a: Words) -> tuple[int, ...]:
    return (*a.shape[:2], *a.shape[3:])
