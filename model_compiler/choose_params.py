"""Choosing CKKS parameters: the fastest that are secure and precise enough, smallest ring first.

Time depends on the ring, on how many limbs there are and on the digits of the key switch; on the
bits per limb only where the native engine has faster instructions for primes below 2^50, and in
the number of special primes, which are 60 bits long whatever we ask for: OpenFHE, which makes the
keys, has no setting for them. So for each ring and number of digits the candidates are the largest
secure scale of each kind: primes narrow or wide, the first one narrow or wide, few special primes
or many. The cost model ranks what the precision model accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tacit.errors import ParameterError, SecurityError
from tacit.model_compiler.cost import predict
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.noise import predicted_error
from tacit.model_compiler.op_times import MachineTimes
from tacit.moduli import (
    LARGEST_PRIME_BITS,
    SPECIAL_GUARD_BITS,
    SPECIAL_PRIME_BITS,
    digit_limbs,
)
from tacit.params import MAX_LOG_QP_128, NARROW_BITS, SECURITY_MARGIN_BITS, CryptoParams
from tacit.precision import bits

LARGEST_SCALE = 54
SMALLEST_SCALE = 24
LARGEST_RING = 16
SMALLEST_RING = 11
_HEADROOMS = (10, 6)
_MOST_DIGITS = 9
_TIE = 1.02

_Kind = tuple[bool, bool, int]
"""What time depends on beside ring, limbs and digits: narrow primes, how many special ones."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Parameters that were looked at.

    Attributes:
        seconds: predicted evaluation time of the plan that was scored.
        precision_bits: -log2 of the predicted greatest error of an output, in stored units.
    """

    params: CryptoParams
    seconds: float
    precision_bits: float

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict, as `tacit inspect` shows it."""
        params = self.params
        primes = params.moduli + params.special_moduli
        return {
            "log_n": params.log_n,
            "dnum": params.dnum,
            "log_scale": params.log_scale,
            "log_first": params.log_first,
            "special_primes": len(params.special_moduli),
            "narrow_primes": sum(q >> NARROW_BITS == 0 for q in primes),
            "primes": len(primes),
            "log_qp": params.log_qp,
            "seconds": self.seconds,
            "precision_bits": min(self.precision_bits, 53.0),
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """Parameters and what is predicted for the circuit they were chosen for.

    Attributes:
        seconds: predicted evaluation time.
        precision_bits: -log2 of the predicted greatest error of an output, in stored units.
        considered: what was looked at; or a line of text for a ring without candidates.
        neighbours: the same with a few bits of scale more and less.
        reason: why these, in a sentence.
    """

    params: CryptoParams
    seconds: float
    precision_bits: float
    considered: tuple[Candidate | str, ...]
    neighbours: tuple[Candidate, ...] = ()
    reason: str = ""


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
    considered: list[Candidate | str] = []
    best: Candidate | None = None
    for log_n in range(SMALLEST_RING, LARGEST_RING + 1):
        found = _candidates(log_n, lower, depth, times)
        considered += found or [f"N = 2^{log_n}: no secure scale for {depth} levels"]
        precise = [c for c in found if c.precision_bits >= precision_bits]
        best = _best([*precise, *([best] if best else [])])
        if best is not None and not larger_ring_helps(1 << (log_n - 1)):
            break
    if best is None:
        raise ParameterError(_hopeless(depth, precision_bits, considered))
    lowered = lower(best.params.slots)
    return Choice(
        best.params,
        best.seconds,
        best.precision_bits,
        tuple(considered),
        tuple(_neighbours(best.params, lowered, times)),
        _reason(best, [c for c in considered if isinstance(c, Candidate)], precision_bits),
    )


def secure_params(log_n: int, depth: int) -> Iterator[CryptoParams]:
    """Yield, for each number of digits, the parameters of the largest secure scale of each kind."""
    for dnum in range(1, min(depth + 1, _MOST_DIGITS) + 1):
        try:
            digit = digit_limbs(depth + 1, dnum)
        except ParameterError:
            continue
        seen: set[_Kind] = set()
        yielded: set[_Kind] = set()
        for log_scale in range(LARGEST_SCALE, max(SMALLEST_SCALE, log_n + 2) - 1, -1):
            for headroom in _HEADROOMS:
                nominal = _Nominal(depth, digit, log_scale, log_scale + headroom)
                if nominal.kind in seen:
                    continue
                params = nominal.secure(log_n, dnum)
                if params is None:
                    continue
                seen.add(nominal.kind)
                if _kind(params) not in yielded:
                    yielded.add(_kind(params))
                    yield params


def _kind(params: CryptoParams) -> _Kind:
    narrow = [q >> NARROW_BITS == 0 for q in params.moduli]
    return all(narrow[1:]), narrow[0], len(params.special_moduli)


def _neighbours(
    params: CryptoParams, lowered: Lowered, times: MachineTimes, distance: int = 2
) -> Iterator[Candidate]:
    """Score the parameters with a few bits of scale more and less, as far as secure."""
    for change in range(-distance, distance + 1):
        sizes = (params.log_scale + change, params.log_first + change)
        try:
            other = CryptoParams.choose(params.log_n, params.depth, *sizes, params.dnum)
        except (ParameterError, SecurityError):
            continue
        yield _score(other, lowered, times)


def _reason(best: Candidate, others: Sequence[Candidate], precision_bits: float) -> str:
    """Say what narrow primes gained, or why they were not enough."""
    rivals = [c for c in others if is_narrow(c.params) is not is_narrow(best.params)]
    rivals = [c for c in rivals if c.params.log_n == best.params.log_n]
    kinds = "below" if is_narrow(best.params) else "above"
    chosen = f"scale primes {kinds} 2^{NARROW_BITS}: {best.precision_bits:.1f} bits"
    chosen += f" in {1e3 * best.seconds:.3g} ms"
    if not rivals:
        return f"{chosen}; the other kind is not secure at N = 2^{best.params.log_n}"
    rival = min(rivals, key=lambda c: c.seconds)
    other = f"{rival.precision_bits:.1f} bits in {1e3 * rival.seconds:.3g} ms"
    lacking = f", fewer than the {precision_bits:.0f} asked for"
    return f"{chosen}; the other kind: {other}" + (
        lacking if rival.precision_bits < precision_bits else ""
    )


def is_narrow(params: CryptoParams) -> bool:
    """Tell whether all scale primes take the native engine's fast path."""
    return all(q >> NARROW_BITS == 0 for q in params.moduli[1:])


@dataclass(frozen=True, slots=True)
class _Nominal:
    """Sizes of primes in bits, before there are any: cheap to try."""

    depth: int
    digit: int
    log_scale: int
    log_first: int

    @property
    def specials(self) -> int:
        """About how many special primes the largest digit needs."""
        rest = min(self.digit, self.depth) * self.log_scale
        largest = max(self.log_first + (self.digit - 1) * self.log_scale, rest)
        return -(-(largest + SPECIAL_GUARD_BITS) // SPECIAL_PRIME_BITS)

    @property
    def kind(self) -> _Kind:
        """The kind these sizes are meant to give."""
        # Scale primes lie around 2^log_scale, the first prime below 2^log_first.
        return self.log_scale < NARROW_BITS, self.log_first <= NARROW_BITS, self.specials

    def secure(self, log_n: int, dnum: int) -> CryptoParams | None:
        """Return the parameters, or None if there are no such or no secure ones."""
        limit = MAX_LOG_QP_128[log_n] - SECURITY_MARGIN_BITS
        total = self.log_first + self.depth * self.log_scale + SPECIAL_PRIME_BITS * self.specials
        if self.log_first > LARGEST_PRIME_BITS or total - 1 > limit:
            return None
        try:
            return CryptoParams.choose(log_n, self.depth, self.log_scale, self.log_first, dnum)
        except (ParameterError, SecurityError):
            return None


def _candidates(
    log_n: int, lower: Callable[[int], Lowered], depth: int, times: MachineTimes
) -> list[Candidate]:
    """Score all candidates of a ring, fastest first."""
    secure = list(secure_params(log_n, depth))
    if not secure:
        return []
    lowered = lower(1 << (log_n - 1))
    return sorted((_score(p, lowered, times) for p in secure), key=lambda c: c.seconds)


def _score(params: CryptoParams, lowered: Lowered, times: MachineTimes) -> Candidate:
    seconds = predict(lowered.circuit, params, times).seconds
    return Candidate(params, seconds, bits(predicted_error(lowered, params)))


def _best(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the fastest; of those within 2 % of it, the most precise."""
    if not candidates:
        return None
    soonest = min(c.seconds for c in candidates)
    close = [c for c in candidates if c.seconds <= _TIE * soonest]
    return max(close, key=lambda c: c.precision_bits)


def describe(params: CryptoParams) -> str:
    """Describe parameters in a few words."""
    return (
        f"N = 2^{params.log_n}, {params.depth} levels, scale {params.log_scale}, "
        f"first {params.log_first}, {params.dnum} digits, log QP {params.log_qp:.1f}"
    )


def _hopeless(depth: int, precision_bits: float, considered: Sequence[Candidate | str]) -> str:
    looked = "; ".join(
        each
        if isinstance(each, str)
        else f"{describe(each.params)}: {each.seconds:.4g} s, {each.precision_bits:.1f} bits"
        for each in considered[-6:]
    )
    return (
        f"no 128-bit secure parameters up to N = 2^{LARGEST_RING} give {depth} levels and "
        f"{precision_bits:.0f} bits: use fewer or smaller activations, or ask for less precision "
        f"(last looked at: {looked})"
    )
