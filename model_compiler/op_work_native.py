"""The elementary work of the native engine's operations, kernel by kernel.

Kinds, `narrow` for primes below 2^50 and `wide` above, which take other instructions:

    calls                   calls of kernels, with what Python does around them
    lookups                 encoded constants looked up
    transforms_narrow/wide  butterflies, N / 2 log2 N per row
    terms_narrow/wide       products of two residues, added up, reduced later
    weights_narrow/wide     the same with one number per row; from a wide source they count twice
    rows_narrow/wide        residues reduced: ends of such sums, products with constants
    moves                   residues added, copied or permuted
    traffic, far_traffic    residues of keys and constants that come from the last cache, or, where
                            keys are large, from memory
    fourier, roundings      of encoding: butterflies of a Fourier transform, residues of doubles
"""

from __future__ import annotations

from collections.abc import Mapping

from tacit.errors import CircuitError
from tacit.model_compiler.op_work import Ring, Work

Widths = tuple[bool, ...]

# Keys larger than this push each other out of a cache of some tens of megabytes.
_NEAR_BYTES = 4 << 20

_ENDS = {"down": 1, "rescale": 1}
MEASURED_NATIVE: Mapping[str, Mapping[str, int]] = {
    "add": {"add": 1},
    "add_plain": {"add_plain": 1},
    "multiply_plain": {"multiply_plain": 1},
    "multiply_scalar": {"multiply_scalar": 1},
    "rescale": {"rescale": 1},
    "rotate": {"rotate": 1},
    "rotate_many_4": {"hoist": 1, "hoisted": 4},
    "multiply": {"multiply": 1},
    "linear_8x1": {"times_p": 1, "hoist": 1, "baby": 7, "diagonal": 8, "sum": 1, **_ENDS},
    "linear_1x4": {"diagonal_q": 4, "sum_q": 4, "times_p": 1, "giant_q": 3, **_ENDS},
    "linear_8x8": {
        "times_p": 1,
        "hoist": 1,
        "baby": 7,
        "diagonal": 64,
        "sum": 8,
        "giant": 7,
        **_ENDS,
    },
    "weighted_16x4": {
        "weighted_input": 16,
        "weighted_term": 64,
        "weighted_output": 4,
        "rescale": 4,
    },
    "weighted_48x32": {
        "weighted_input": 48,
        "weighted_term": 48 * 32,
        "weighted_output": 32,
        "rescale": 32,
    },
    "encode": {"encode": 1},
}
"""What the table measures, each as how many of which fine operations."""


def native_work(ring: Ring, operation: str) -> Work:
    """Return the work of one fine operation.

    `linear` transforms with baby steps work over QP; those named `_q` have none and stay over Q.

    Raises:
        CircuitError: there is no such operation.
    """
    q, every = ring.narrow, ring.narrow + ring.narrow_specials
    match operation:
        case "add" | "add_scalar":
            return _calls(1) + _moves(ring, 2 * ring.limbs)
        case "add_plain":
            return _calls(1) + _constant(ring, ring.limbs) + _moves(ring, 2 * ring.limbs)
        case "multiply_plain":
            constant = _constant(ring, ring.limbs)
            return _calls(2) + constant + _rows(ring, 2 * q) + _terms(ring, 2 * q)
        case "multiply_scalar":
            return _calls(2) + _rows(ring, 2 * q)
        case "multiply":
            tensor = _calls(1) + _rows(ring, 3 * q) + _terms(ring, 4 * q)
            return tensor + _mod_up(ring) + _key_product(ring) + _divide(ring, 2)
        case "rescale":
            return _rescale(ring)
        case "hoist":
            return _calls(1) + _mod_up(ring)
        case "hoisted":
            return _again(ring) + native_work(ring, "turn")
        case "turn":
            return _calls(2) + _key_product(ring) + _permute(ring) + _divide(ring, 2)
        case "rotate":
            return native_work(ring, "hoist") + native_work(ring, "turn")
        case "times_p":
            return _calls(2) + _rows(ring, 2 * q) + _moves(ring, 2 * ring.specials)
        case "baby":
            kept = _traffic(ring, 4 * ring.rows)
            return kept + _again(ring) + native_work(ring, "switch") + _permute(ring)
        case "switch":
            return _calls(1) + _key_product(ring)
        case "giant":
            inner = _calls(1) + _divide(ring, 1) + _mod_up(ring) + _permute(ring)
            return inner + native_work(ring, "switch")
        case "giant_q":
            inner = _calls(1) + _rows(ring, q) + _mod_up(ring) + _permute(ring)
            return inner + native_work(ring, "switch")
        case "down":
            return _calls(1) + _divide(ring, 2)
        case "diagonal":
            return _constant(ring, ring.rows) + _terms(ring, 2 * every)
        case "diagonal_q":
            return _constant(ring, ring.limbs) + _terms(ring, 2 * q)
        case "sum":
            return _calls(1) + _rows(ring, 2 * every)
        case "sum_q":
            return _calls(1) + _rows(ring, 2 * q)
        case "weighted_input":  # there are many, and nothing has read them just before
            return Work({"far_traffic": 2 * ring.limbs * ring.n})
        case "weighted_term":
            return _weights(ring, 2 * q)
        case "weighted_output":
            return _calls(1) + _rows(ring, 2 * q)
        case "encode":
            return _encode(ring, q)
        case "encode_extended":
            return _encode(ring, every)
    raise CircuitError(f"no operation {operation!r} in the cost model of the native engine")


def _mod_up(ring: Ring) -> Work:
    """Extend each digit to QP: back to coefficients, sums of products, transforms."""
    total = _transforms(ring, ring.narrow) + _rows(ring, ring.narrow)
    total += _moves(ring, ring.limbs)
    every = ring.narrow + ring.narrow_specials
    for start in range(0, ring.limbs, ring.digit):
        sources = ring.narrow[start : start + ring.digit]
        others = every[:start] + every[start + len(sources) :]
        total += _transforms(ring, others) + _combine(ring, sources, others)
    return total


def _key_product(ring: Ring) -> Work:
    """Multiply both halves of a key, digit by digit, and add up."""
    every = ring.narrow + ring.narrow_specials
    products = _terms(ring, 2 * ring.digits * every) + _rows(ring, 2 * every)
    return products + _traffic(ring, 2 * ring.digits * ring.rows)


def _again(ring: Ring) -> Work:
    """Read the digits once more, for another rotation of the same input."""
    return _traffic(ring, ring.digits * ring.rows)


def _permute(ring: Ring) -> Work:
    return _moves(ring, 2 * ring.rows + ring.limbs)


def _divide(ring: Ring, components: int) -> Work:
    """Divide by the special primes."""
    specials, q = ring.narrow_specials, ring.narrow
    one = _transforms(ring, specials) + _rows(ring, specials)
    one += _combine(ring, specials, q) + _transforms(ring, q) + _rows(ring, q)
    return one * components


def _rescale(ring: Ring) -> Work:
    left, last = ring.narrow[:-1], ring.narrow[-1:]
    transforms = _transforms(ring, 2 * last) + _transforms(ring, 2 * left)
    return _calls(1) + transforms + _rows(ring, 4 * left) + _moves(ring, 2)


def _combine(ring: Ring, sources: Widths, targets: Widths) -> Work:
    """Sum products of some rows for each target; narrow targets cut wide sources in two."""
    halves = 1 if all(sources) else 2
    count = len(sources)
    products = [_weights(ring, (t,)) * (count * (halves if t else 1)) for t in targets]
    return sum(products, _rows(ring, targets))


def _encode(ring: Ring, rows: Widths) -> Work:
    fourier = Work({"fourier": ring.n / 4 * (ring.log_n - 1)})
    return fourier + _calls(1) + _transforms(ring, rows) + Work({"roundings": len(rows) * ring.n})


def _calls(count: int) -> Work:
    return Work({"calls": count})


def _constant(ring: Ring, rows: int) -> Work:
    return Work({"lookups": 1}) + _traffic(ring, rows) * 0.5  # the other half mirrors it


def _traffic(ring: Ring, rows: int) -> Work:
    kind = "far_traffic" if _key_bytes(ring) > _NEAR_BYTES else "traffic"
    return Work({kind: rows * ring.n})


def _key_bytes(ring: Ring) -> int:
    """Bytes of a key that an operation at this level reads."""
    return 2 * ring.digits * ring.rows * ring.n * 8


def _moves(ring: Ring, rows: int) -> Work:
    return Work({"moves": rows * ring.n})


def _transforms(ring: Ring, rows: Widths) -> Work:
    return _by_width("transforms", rows, ring.n / 2 * ring.log_n)


def _terms(ring: Ring, rows: Widths) -> Work:
    return _by_width("terms", rows, ring.n)


def _weights(ring: Ring, rows: Widths) -> Work:
    return _by_width("weights", rows, ring.n)


def _rows(ring: Ring, rows: Widths) -> Work:
    return _by_width("rows", rows, ring.n)


def _by_width(kind: str, rows: Widths, each: float) -> Work:
    narrow = sum(rows)
    return Work({f"{kind}_narrow": narrow * each, f"{kind}_wide": (len(rows) - narrow) * each})
