"""Ciphertexts of the native backend: one, or a batch of them, each with its owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tacit.circuit import ValueType
from tacit.errors import CircuitError, ParameterMismatchError
from tacit.kernels.limb_kernels import LimbArray, LimbKernels
from tacit.type_rules import sum_type


@dataclass(frozen=True, slots=True, eq=False)
class NativeCiphertext:
    """A batch of ciphertexts of one level and degree, often of one.

    Attributes:
        kernels: the device with the limbs, and its arithmetic.
        limbs: shape (2, level + 1, batch, N), NTT form, in the device's memory.
        level: rescalings left.
        degree: 1, or 2 before a rescale.
        owners: for each entry of the batch, the id of the key set it is encrypted under.
    """

    kernels: LimbKernels = field(repr=False)
    limbs: LimbArray = field(repr=False)
    level: int
    degree: int
    owners: tuple[bytes, ...]

    @property
    def type(self) -> ValueType:
        """Level and degree."""
        return ValueType(self.level, self.degree)


def join(ciphertexts: Sequence[NativeCiphertext]) -> NativeCiphertext:
    """Make one batch of ciphertexts, of one owner or of several, in order.

    Raises:
        LevelError: the levels differ.
        CircuitError: there are none, or the degrees differ.
        ParameterMismatchError: they are of different engines.
    """
    if not ciphertexts:
        raise CircuitError("a batch needs at least one ciphertext")
    first = ciphertexts[0]
    if len(ciphertexts) == 1:
        return first
    for other in ciphertexts[1:]:
        sum_type(first.type, other.type)
        if other.kernels is not first.kernels:
            raise ParameterMismatchError("a batch of ciphertexts of one engine expected")
    owners = tuple(owner for ciphertext in ciphertexts for owner in ciphertext.owners)
    limbs = first.kernels.join([ciphertext.limbs for ciphertext in ciphertexts])
    return NativeCiphertext(first.kernels, limbs, first.level, first.degree, owners)


def split(joined: NativeCiphertext) -> list[NativeCiphertext]:
    """Return each entry of a batch alone, with its owner."""
    kernels, level, degree = joined.kernels, joined.level, joined.degree
    return [
        NativeCiphertext(kernels, limbs, level, degree, (owner,))
        for limbs, owner in zip(kernels.split(joined.limbs), joined.owners, strict=True)
    ]
