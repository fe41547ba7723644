"""Choosing CKKS parameters: the fastest that are secure and precise enough, smallest ring first.

Time depends on the ring, on how many limbs there are and on the digits of the key switch, hardly on
the bits per limb. So for each ring and number of digits the largest scale that is still secure is
taken, up to 50 bits; the cost model ranks what the precision model accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tacit.errors import ParameterError, SecurityError
from tacit.model_compiler.cost import predict
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.noise import predicted_error
from tacit.model_compiler.op_times import MachineTimes
from tacit.moduli import SPECIAL_PRIME_BITS, digit_limbs
from tacit.params import MAX_LOG_QP_128, SECURITY_MARGIN_BITS, CryptoParams
from tacit.precision import bits

LARGEST_SCALE = 50
SMALLEST_SCALE = 24
LARGEST_RING = 16
SMALLEST_RING = 11
_LARGEST_FIRST = 60
_HEADROOMS = (10, 6)
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters and what is predicted for the circuit they were chosen for.

    Attributes:
        seconds: predicted evaluation time.
        precision_bits: -log2 of the predicted greatest error of an output, in stored units.
        considered: one line for every candidate that was looked at.
    """

    params: CryptoParams
    seconds: float
    precision_bits: float
    considered: tuple[str, ...]


def choose_params(
    lower: Callable[[int], Lowered],
    depth: int,
    precision_bits: float,
    times: MachineTimes,
    larger_ring_helps: Callable[[int], bool] = lambda _slots: False,
) -> Choice:
    """Choose 128-bit secure parameters.

    Args:
        lower: makes the plan to be scored, for a number of slots.
        depth: levels it needs.
        precision_bits: bits that the outputs, stored in [-1, 1], must be right to.
        times: prices of the machine it will run on.
        larger_ring_helps: whether twice the slots could be faster, because tensors take several
            ciphertexts at this number.

    Raises:
        ParameterError: no ring up to 2^16 fits.
    """
    considered: list[str] = []
    best: Choice | None = None
    for log_n in range(SMALLEST_RING, LARGEST_RING + 1):
        choice = _best_in_ring(log_n, lower, depth, precision_bits, times, considered)
        if choice is not None and (best is None or choice.seconds < best.seconds):
            best = choice
        if best is not None and not larger_ring_helps(1 << (log_n - 1)):
            break
    if best is None:
        raise ParameterError(_hopeless(depth, precision_bits, considered))
    return Choice(best.params, best.seconds, best.precision_bits, tuple(considered))


def secure_params(log_n: int, depth: int) -> Iterator[CryptoParams]:
    """Yield, for each number of digits, the parameters of the largest secure scale."""
    limit = MAX_LOG_QP_128[log_n] - SECURITY_MARGIN_BITS
    for dnum in range(1, min(depth + 1, _MOST_DIGITS) + 1):
        found = _largest_scale(log_n, depth, dnum, limit)
        if found is not None:
            yield found


def _largest_scale(log_n: int, depth: int, dnum: int, limit: float) -> CryptoParams | None:
    for log_scale in range(LARGEST_SCALE, max(SMALLEST_SCALE, log_n + 2) - 1, -1):
        for headroom in _HEADROOMS:
            log_first = min(log_scale + headroom, _LARGEST_FIRST)
            try:
                if _total_bits(depth, log_scale, log_first, dnum) - 1 > limit:
                    continue
                return CryptoParams.choose(log_n, depth, log_scale, log_first, dnum)
            except SecurityError:
                continue
            except ParameterError:
                return None
    return None


def _total_bits(depth: int, log_scale: int, log_first: int, dnum: int) -> int:
    """Return about log2(Q P) from the nominal sizes of the primes."""
    digit = digit_limbs(depth + 1, dnum)
    largest = max(log_first + (digit - 1) * log_scale, min(digit, depth) * log_scale)
    specials = -(-largest // SPECIAL_PRIME_BITS)
    return log_first + depth * log_scale + SPECIAL_PRIME_BITS * specials


def _best_in_ring(
    log_n: int,
    lower: Callable[[int], Lowered],
    depth: int,
    precision_bits: float,
    times: MachineTimes,
    considered: list[str],
) -> Choice | None:
    candidates = list(secure_params(log_n, depth))
    if not candidates:
        considered.append(f"N = 2^{log_n}: no secure scale for {depth} levels")
        return None
    lowered = lower(1 << (log_n - 1))
    timed = [
        (predict(lowered.circuit, params, times).seconds, i) for i, params in enumerate(candidates)
    ]
    best: Choice | None = None
    for seconds, index in sorted(timed):
        params = candidates[index]
        precise = bits(predicted_error(lowered, params))
        considered.append(f"{describe(params)}: {seconds:.4g} s, {precise:.1f} bits")
        if best is None and precise >= precision_bits:
            best = Choice(params, seconds, precise, ())
    return best


def describe(params: CryptoParams) -> str:
    """Describe parameters in a few words."""
    return (
        f"N = 2^{params.log_n}, {params.depth} levels, scale {params.log_scale}, "
        f"first {params.log_first}, {params.dnum} digits, log QP {params.log_qp:.1f}"
    )


def _hopeless(depth: int, precision_bits: float, considered: list[str]) -> str:
    looked = "; ".join(considered[-6:])
    return (
        f"no 128-bit secure parameters up to N = 2^{LARGEST_RING} give {depth} levels and "
        f"{precision_bits:.0f} bits: use fewer or smaller activations, or ask for less precision "
        f"(last looked at: {looked})"
    )
