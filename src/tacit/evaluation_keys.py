"""Which evaluation keys a set of operations needs, in the order in which clients make them."""

from __future__ import annotations

from collections.abc import Iterable

from tacit.params import CryptoParams, SecretDistribution
from tacit.wire_key import KeyKind, sparse_elements

# A key's kind, and its element: see `EvaluationKey`.
Purpose = tuple[KeyKind, int]

_GENERATOR = 5


def needed_keys(
    params: CryptoParams, rotations: Iterable[int], relinearization: bool, bootstraps: bool
) -> tuple[Purpose, ...]:
    """Return the purpose of each evaluation key, without repetition.

    Args:
        params: the CKKS parameters.
        rotations: steps in slots, to the left; 0 needs no key.
        relinearization: whether ciphertexts are multiplied.
        bootstraps: whether ciphertexts are bootstrapped: it takes conjugation and, if the secret
            is encapsulated, the keys to its sparse secret and back.
    """
    purposes: list[Purpose] = [(KeyKind.RELINEARIZATION, 0)] if relinearization else []
    if bootstraps and params.secret is SecretDistribution.SPARSE_ENCAPSULATED:
        there, back = sparse_elements(params.log_n)
        purposes += [(KeyKind.TO_SPARSE, there), (KeyKind.FROM_SPARSE, back)]
    steps = dict.fromkeys(step % params.slots for step in rotations)
    steps.pop(0, None)
    order = 2 * params.n
    purposes += [(KeyKind.ROTATION, pow(_GENERATOR, step, order)) for step in steps]
    if bootstraps:
        purposes.append((KeyKind.ROTATION, order - 1))
    return tuple(purposes)
