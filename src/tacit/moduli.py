"""The primes and scales that OpenFHE 1.6 picks for CKKS, computed without OpenFHE.

The compiler must know the exact moduli (for security, key sizes and scales) on machines without
OpenFHE, so this module repeats the choices of its `GenCryptoContext` for FLEXIBLEAUTO scaling
and hybrid key switching. Tests compare every prime and every scale with OpenFHE's own.

All primes are 1 modulo 2N, so that they admit a negacyclic number-theoretic transform.
"""

from dataclasses import dataclass
from functools import lru_cache

from tacit.errors import ParameterError

SPECIAL_PRIME_BITS = 60
# P must exceed the largest digit of Q; OpenFHE 1.6 keeps these bits in reserve (measured).
SPECIAL_GUARD_BITS = 4
ENCAPSULATION_PRIME_BITS = 33
LARGEST_PRIME_BITS = 60
SMALLEST_SCALE_BITS = 14
# These bases make Miller-Rabin a proof for every integer below 3.3e24 (Sorenson & Webster 2015).
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)


@dataclass(frozen=True, slots=True)
class Moduli:
    """The primes of one parameter set.

    Attributes:
        moduli: primes of Q, q_0 first; the last is dropped first.
        special_moduli: primes of P, for key switching.
    """

    moduli: tuple[int, ...]
    special_moduli: tuple[int, ...]


def choose_moduli(log_n: int, depth: int, log_scale: int, log_first: int, dnum: int) -> Moduli:
    """Choose the primes OpenFHE picks for CKKS, FLEXIBLEAUTO, hybrid key switching.

    Args:
        log_n: base-2 logarithm of the ring dimension.
        depth: multiplicative depth; there are depth + 1 primes in Q.
        log_scale: bits of the scale and of all primes but the first.
        log_first: bits of the first prime.
        dnum: digits for key switching.

    Raises:
        ParameterError: OpenFHE refuses these parameters, or finds no primes for them.
    """
    _check(log_n, depth, log_scale, log_first, dnum)
    step = 2 << log_n
    moduli = _scale_primes(depth, log_scale, step) if depth else []
    moduli.insert(0, _first_prime(moduli, log_scale, log_first, step))
    chosen = tuple(moduli)
    flexible_scales(chosen, log_scale)
    return Moduli(chosen, special_moduli(log_n, chosen, dnum))


def special_moduli(log_n: int, moduli: tuple[int, ...], dnum: int) -> tuple[int, ...]:
    """Choose the primes of P: 60-bit ones that exceed the largest digit of Q by 4 bits.

    Raises:
        ParameterError: the limbs cannot be distributed into `dnum` digits.
    """
    alpha = digit_limbs(len(moduli), dnum)
    largest = max(_product_bits(moduli[i : i + alpha]) for i in range(0, len(moduli), alpha))
    count = -(-(largest + SPECIAL_GUARD_BITS) // SPECIAL_PRIME_BITS)
    step = 2 << log_n
    primes: list[int] = []
    candidate = (1 << SPECIAL_PRIME_BITS) + 1  # 60 bits always exceed log2(step)
    while len(primes) < count:
        candidate = _prime_below(candidate, step)
        if candidate not in moduli:
            primes.append(candidate)
    return tuple(primes)


def encapsulation_moduli(log_n: int, moduli: tuple[int, ...]) -> tuple[int, ...]:
    """Choose the two auxiliary primes under which OpenFHE 1.6.1 switches to a sparse secret.

    They are the largest of 33 bits that are not in Q; with q_0 they are the only moduli at which
    the sparse secret of an encapsulated one exists.
    """
    step = 2 << log_n
    primes: list[int] = []
    candidate = (1 << ENCAPSULATION_PRIME_BITS) + 1
    while len(primes) < 2:
        candidate = _prime_below(candidate, step)
        if candidate not in moduli:
            primes.append(candidate)
    return tuple(primes)


def digit_limbs(limbs: int, dnum: int) -> int:
    """Return how many limbs of Q one key-switching digit covers; the last may cover fewer.

    Raises:
        ParameterError: `dnum` digits of that size would leave the last one empty.
    """
    if dnum < 1:
        raise ParameterError(f"dnum must be at least 1, not {dnum}")
    alpha = -(-limbs // dnum)
    if limbs - alpha * (dnum - 1) <= 0:
        raise ParameterError(
            f"can't distribute {limbs} limbs into {dnum} digits: {dnum - 1} digits of {alpha} "
            f"limbs leave none for the last; use another dnum"
        )
    return alpha


def flexible_scales(moduli: tuple[int, ...], log_scale: int) -> tuple[float, ...]:
    """Compute the scale of each level, in double precision exactly as OpenFHE does.

    Args:
        moduli: primes of Q, q_0 first.
        log_scale: bits of the scale, which counts where Q has a single prime.

    Returns:
        Scales indexed by level: [depth] for a fresh ciphertext, [0] where q_0 alone is left.

    Raises:
        ParameterError: the scales drift by a factor of two; OpenFHE refuses such depths.
    """
    if len(moduli) == 1:
        return (2.0**log_scale,)
    fresh = float(moduli[-1])
    scales = [fresh]
    for modulus in moduli[:0:-1]:
        scales.append(scales[-1] * scales[-1] / float(modulus))
        if not 0.5 < scales[-1] / fresh < 2.0:
            raise ParameterError(
                f"scales drift from {fresh:.6g} to {scales[-1]:.6g} over {len(moduli) - 1} "
                "levels; use larger primes or fewer levels"
            )
    return tuple(reversed(scales))


@lru_cache(maxsize=256)
def smallest_root(modulus: int, log_n: int) -> int:
    """Return the smallest primitive 2N-th root of unity, the one OpenFHE's transform uses.

    Raises:
        ParameterError: the modulus is not a prime that is 1 modulo 2N.
    """
    order = 2 << log_n
    if modulus % order != 1 or not is_prime(modulus):
        raise ParameterError(f"{modulus} is not a prime that is 1 modulo {order}")
    root = next(
        power
        for power in (pow(base, (modulus - 1) // order, modulus) for base in range(2, modulus))
        if pow(power, order // 2, modulus) == modulus - 1
    )
    square = root * root % modulus
    smallest = candidate = root
    for _ in range(order // 2 - 1):
        candidate = candidate * square % modulus
        smallest = min(smallest, candidate)
    return smallest


@lru_cache(maxsize=8192)
def is_prime(candidate: int) -> bool:
    """Decide primality for any integer below 2^64 (deterministic Miller-Rabin)."""
    if candidate < 2:
        return False
    for prime in _WITNESSES:
        if candidate % prime == 0:
            return candidate == prime
    odd, twos = candidate - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(candidate, witness, odd, twos) for witness in _WITNESSES)


def _passes(candidate: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, candidate)
    if power in (1, candidate - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % candidate
        if power == candidate - 1:
            return True
    return False


def _check(log_n: int, depth: int, log_scale: int, log_first: int, dnum: int) -> None:
    if not 1 <= log_n <= 17:
        raise ParameterError(f"log_n must be 1 to 17, not {log_n}")
    if depth < 0:
        raise ParameterError(f"depth must not be negative, got {depth}")
    if not SMALLEST_SCALE_BITS <= log_scale < LARGEST_PRIME_BITS:
        raise ParameterError(
            f"log_scale must be {SMALLEST_SCALE_BITS} to {LARGEST_PRIME_BITS - 1}, not {log_scale}"
        )
    if not log_scale <= log_first <= LARGEST_PRIME_BITS:
        raise ParameterError(
            f"log_first must be log_scale ({log_scale}) to {LARGEST_PRIME_BITS}, not {log_first}"
        )
    digit_limbs(depth + 1, dnum)


def _scale_primes(depth: int, log_scale: int, step: int) -> list[int]:
    """Choose the primes q_1 .. q_depth: each keeps the next scale close to the fresh one.

    Going down a level turns the scale s into s^2 / q. The primes are therefore taken alternately
    just below and just above the current scale, so that errors do not add up.
    """
    primes = [_scale_prime(log_scale, step)]
    scale = float(primes[0])
    for i in range(depth - 1):
        scale = scale * scale / float(primes[0])
        centre = _round_half_away(scale)
        centre += 1 - centre % step
        if i % 2 == 0:
            prime = _prime_below(centre - step, step)
            while prime in primes:
                prime = _prime_below(prime, step)
        else:
            prime = _prime_above(centre + step, step)
            while prime in primes:
                prime = _prime_above(prime, step)
        primes.insert(0, prime)
    return primes


def _first_prime(primes: list[int], log_scale: int, log_first: int, step: int) -> int:
    largest = max(primes, default=_scale_prime(log_scale, step))
    if log_first == log_scale:
        return _prime_above(largest, step)
    first = _last_prime(log_first, step)
    return _prime_above(largest, step) if first in primes else first


def _scale_prime(log_scale: int, step: int) -> int:
    """Return the smallest prime from 2^log_scale on that is 1 modulo `step`."""
    power = 1 << log_scale
    return _prime_above(power - power % step + 1 - (step if power % step == 0 else 0), step)


def _last_prime(bits: int, step: int) -> int:
    """Return the largest prime of exactly `bits` bits that is 1 modulo `step`."""
    power = 1 << bits
    prime = _prime_below(power - power % step + 1 + (step if power % step else 0), step)
    if prime.bit_length() != bits:
        raise ParameterError(f"there is no prime of {bits} bits that is 1 modulo {step}")
    return prime


def _prime_below(start: int, step: int) -> int:
    """Return the largest prime below `start`, which must be 1 modulo `step`, in its class."""
    candidate = start - step
    while candidate > 1 and not is_prime(candidate):
        candidate -= step
    if candidate <= 1:
        raise ParameterError(f"there is no prime below {start} that is 1 modulo {step}")
    return candidate


def _prime_above(start: int, step: int) -> int:
    """Return the smallest prime above `start`, which must be 1 modulo `step`, in its class."""
    candidate = start + step
    while not is_prime(candidate):
        candidate += step
    return candidate


def _round_half_away(value: float) -> int:
    """Round like C's llround."""
    floor = int(value)
    return floor + (value - floor >= 0.5)


def _product_bits(moduli: tuple[int, ...]) -> int:
    product = 1
    for modulus in moduli:
        product *= modulus
    return product.bit_length()
