"""The elementary work of the OpenFHE backend's operations, whose limbs all cost the same.

Kinds: calls; transforms, in butterflies (N / 2 log2 N per limb); products, in base conversions and
key switches; plain_products, with an encoded plaintext; scalar_products, with one number per limb;
sums; traffic, residues that come from memory because too many others were used in between.
"""

from __future__ import annotations

from tacit.errors import CircuitError
from tacit.model_compiler.op_work import Ring, Work

_OPERATIONS = (
    "add",
    "add_plain",
    "add_scalar",
    "multiply_plain",
    "multiply_scalar",
    "weighted_term",
    "rescale",
    "hoist",
    "hoisted",
    "extended",
    "down",
    "rotate",
    "multiply",
)
MEASURED_OPENFHE = {name: {name: 1} for name in _OPERATIONS}
"""What the table measures: each fine operation alone."""


def openfhe_work(ring: Ring, operation: str) -> Work:
    """Return the work of one operation.

    Raises:
        CircuitError: there is no such operation.
    """
    limbs = ring.limbs
    match operation:
        case "add":
            return _work(ring, sums=2 * limbs)
        case "add_plain" | "add_scalar":
            return _work(ring, sums=limbs)
        case "multiply_plain":
            return _work(ring, plain_products=2 * limbs)
        case "multiply_scalar":
            return _work(ring, scalar_products=2 * limbs)
        case "weighted_term":
            return _work(ring, scalar_products=2 * limbs, sums=2 * limbs, traffic=2 * limbs)
        case "rescale":
            return _work(ring, transforms=2 * limbs, products=4 * (limbs - 1))
        case "hoist":
            return _decompose(ring)
        case "hoisted":
            return _extend(ring) + _divide(ring)
        case "extended":
            return _extend(ring)
        case "down":
            return _divide(ring)
        case "rotate":
            return _decompose(ring) + _extend(ring) + _divide(ring)
        case "multiply":
            switch = _decompose(ring) + _extend(ring) + _divide(ring)
            return switch + _work(ring, products=4 * limbs)
    raise CircuitError(f"no operation {operation!r} in the cost model")


def _work(ring: Ring, *, transforms: float = 0.0, **limbs: float) -> Work:
    """Turn numbers of limbs into an amount of work, for one call."""
    amounts = {kind: count * ring.n for kind, count in limbs.items()}
    return Work({"calls": 1.0, "transforms": transforms * ring.n / 2 * ring.log_n, **amounts})


def _decompose(ring: Ring) -> Work:
    """Cut one polynomial into digits and extend each to all moduli and special primes."""
    starts = range(0, ring.limbs, ring.digit)
    sizes = [min(ring.digit, ring.limbs - start) for start in starts]
    others = [ring.rows - size for size in sizes]
    converted = sum(size * other for size, other in zip(sizes, others, strict=True))
    return _work(ring, transforms=ring.limbs + sum(others), products=converted)


def _extend(ring: Ring) -> Work:
    """Multiply the digits with a key, and permute."""
    return _work(ring, products=2 * ring.digits * ring.rows, sums=2 * ring.rows)


def _divide(ring: Ring) -> Work:
    """Divide both components by the special primes."""
    converted = 2 * (ring.specials * ring.limbs + 2 * ring.limbs)
    return _work(ring, transforms=2 * (ring.limbs + ring.specials), products=converted)
