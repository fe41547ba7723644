"""How many evaluations of a circuit are worth computing as one batch, and fit in memory."""

from __future__ import annotations

from tacit.circuit import Circuit, LinearPlan, ValueType, last_uses
from tacit.params import CryptoParams

# A batch may take so much memory for what lives at the same time.
BATCH_BYTES = 1 << 30
_WORD = 8


def most_in_batch(
    params: CryptoParams, circuit: Circuit, joined: int, limit_bytes: int = BATCH_BYTES
) -> int:
    """Return how many evaluations to join at most: what is allowed, and fits.

    Args:
        params: of the circuit.
        circuit: what is evaluated.
        joined: the limit for any circuit.
        limit_bytes: memory that one batch may take.
    """
    return max(1, min(joined, limit_bytes // peak_bytes(params, circuit)))


def peak_bytes(params: CryptoParams, circuit: Circuit) -> int:
    """Estimate the bytes that one evaluation takes at its widest node.

    Counted are the values that live beside it, its own inputs and outputs, and, for a linear
    transform, the rotated inputs over all primes.
    """
    last = last_uses(circuit)
    sizes = {value: _ciphertext(params, circuit.types[value]) for value in circuit.inputs}
    widest = sum(sizes.values())
    for index, node in enumerate(circuit.nodes):
        sizes.update({v: _ciphertext(params, circuit.types[v]) for v in node.outputs})
        at = circuit.types[node.inputs[0]]
        widest = max(widest, sum(sizes.values()) + _working(params, node.attribute, at))
        for value in {*node.inputs, *node.outputs}:
            if last.get(value, -1) <= index:
                sizes.pop(value, None)
    return widest


def _ciphertext(params: CryptoParams, at: ValueType) -> int:
    return 2 * (at.level + 1) * params.n * _WORD


def _working(params: CryptoParams, attribute: object, at: ValueType) -> int:
    extended = 2 * (at.level + 1 + len(params.special_moduli)) * params.n * _WORD
    if not isinstance(attribute, LinearPlan):
        return (1 + params.dnum) * extended
    babies = {(term.input, term.baby) for term in attribute.terms}
    return (len(babies) + 2 + params.dnum) * extended
