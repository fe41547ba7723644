"""What the processor's kernels take besides limbs: tables of keys, and automorphisms."""

from __future__ import annotations

from dataclasses import dataclass

from tacit.errors import InternalError
from tacit.kernels.automorphism import Automorphism
from tacit.kernels.keyswitch import KeyPointers
from tacit.kernels.limb_kernels import Galois, KeyTable, Words


@dataclass(frozen=True, slots=True, eq=False)
class SparseKeys:
    """The key to the sparse secret of each batch entry, shape (2, 1, 3, N) each."""

    words: tuple[Words, ...]

    @property
    def batch(self) -> int:
        """Entries."""
        return len(self.words)


def pointers(keys: KeyTable) -> KeyPointers:
    """Return the addresses of switching keys.

    Raises:
        InternalError: they lie on another device, or are keys to sparse secrets.
    """
    if not isinstance(keys, KeyPointers):
        raise InternalError(f"{type(keys).__name__} is no table of keys of this device")
    return keys


def permutation(moved: Galois) -> Automorphism:
    """Return the permutation of an automorphism.

    Raises:
        InternalError: it was prepared for another device.
    """
    if not isinstance(moved, Automorphism):
        raise InternalError(f"{type(moved).__name__} is no automorphism of this device")
    return moved


def sparse_words(keys: KeyTable) -> tuple[Words, ...]:
    """Return the keys to sparse secrets, one for each batch entry.

    Raises:
        InternalError: they are no such keys.
    """
    if not isinstance(keys, SparseKeys):
        raise InternalError("keys to sparse secrets expected")
    return keys.words
