"""Which evaluation keys a set of operations needs, in the order in which clients make them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tacit.key_levels import KeyLevels
from tacit.moduli import digit_limbs, encapsulation_moduli
from tacit.params import CryptoParams
from tacit.wire_key import KeyKind, evaluation_key_frame_bytes, sparse_elements
from tacit.wire_packing import Packing

_GENERATOR = 5


@dataclass(frozen=True, slots=True)
class NeededKey:
    """One evaluation key.

    Attributes:
        kind: what it does.
        element: see `EvaluationKey`.
        limbs: of Q that it covers, q_0 first: one more than the highest level of its use; 1 to a
            sparse secret.
    """

    kind: KeyKind
    element: int
    limbs: int

    def digits(self, params: CryptoParams) -> int:
        """Return how many digits its limbs fill."""
        return -(-self.limbs // digit_limbs(len(params.moduli), params.dnum))

    def moduli(self, params: CryptoParams) -> tuple[int, ...]:
        """Return the modulus of each limb, those of P or in place of P at the end."""
        if self.kind is KeyKind.TO_SPARSE:
            return params.moduli[:1] + encapsulation_moduli(params.log_n, params.moduli)
        return params.moduli[: self.limbs] + params.special_moduli

    def size_bytes(self, params: CryptoParams) -> int:
        """Return what it takes in memory, 8 bytes per residue."""
        return 2 * self.digits(params) * len(self.moduli(params)) * params.n * 8

    def frame_bytes(self, params: CryptoParams, packing: Packing = Packing.BITS) -> int:
        """Return the length of its frame."""
        moduli, digits = self.moduli(params), self.digits(params)
        return evaluation_key_frame_bytes(packing, params.log_n, moduli, digits)


def needed_keys(
    params: CryptoParams,
    rotations: Iterable[int],
    relinearization: bool,
    bootstraps: bool,
) -> tuple[NeededKey, ...]:
    """Return each evaluation key, with all limbs, without repetition.

    Args:
        params: the CKKS parameters.
        rotations: steps in slots, to the left; 0 needs no key.
        relinearization: whether ciphertexts are multiplied.
        bootstraps: whether ciphertexts are bootstrapped: it takes conjugation and, if the secret
            is encapsulated, the keys to its sparse secret and back.
    """
    uses = KeyLevels.same(params.depth, params, rotations, relinearization, bootstraps)
    return keys_at(uses, params)


def keys_at(uses: KeyLevels, params: CryptoParams) -> tuple[NeededKey, ...]:
    """Return each evaluation key, with as many limbs as its highest level has."""
    keys = []
    if uses.relinearization is not None:
        keys.append(NeededKey(KeyKind.RELINEARIZATION, 0, uses.relinearization + 1))
    if uses.from_sparse is not None:
        there, back = sparse_elements(params.log_n)
        keys.append(NeededKey(KeyKind.TO_SPARSE, there, 1))
        keys.append(NeededKey(KeyKind.FROM_SPARSE, back, uses.from_sparse + 1))
    order = 2 * params.n
    for steps, level in sorted(uses.rotations.items()):
        keys.append(NeededKey(KeyKind.ROTATION, pow(_GENERATOR, steps, order), level + 1))
    if uses.conjugation is not None:
        keys.append(NeededKey(KeyKind.ROTATION, order - 1, uses.conjugation + 1))
    return tuple(keys)


def full_key(key: NeededKey, params: CryptoParams) -> NeededKey:
    """Return the same key with all limbs it can have."""
    small = key.kind is KeyKind.TO_SPARSE
    return NeededKey(key.kind, key.element, 1 if small else len(params.moduli))


def keys_bytes(keys: Iterable[NeededKey], params: CryptoParams) -> int:
    """Return what keys take in memory, 8 bytes per residue."""
    return sum(key.size_bytes(params) for key in keys)
