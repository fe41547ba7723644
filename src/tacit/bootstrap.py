"""Bootstrapping as an operation of circuits: its attribute, its levels, what it needs.

A ciphertext enters at a low level. Its slots are first turned into coefficients; the modulus is
raised, which adds an unknown multiple of q_0 to each of them; the coefficients are turned back into
slots; and a function of period q_0 removes the multiples, applying any function of the value on its
way (`tacit.fourier`). With the function x the ciphertext is merely refreshed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from tacit.errors import CircuitError

PERIOD = 2.0
"""Default period of the series: twice the range of the values."""

# Relative costs of a rotation before the products, hoisted, and of one after them.
_BABY, _GIANT = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Raise a ciphertext's level and apply a function to its slots, which lie in [-1/2, 1/2).

    The input has degree 1 and at least level `to_coefficients` (OpenFHE needs one more); the result
    has degree 1 and level `level`.
    Values outside the range, up to half a period, are what the series makes of them; beyond, they
    wrap around.

    Attributes:
        series: names a constant of shape (2, degree + 1), see `tacit.fourier.fit_series`.
        level: of the result.
        log_slots: the values repeat every 2^log_slots slots.
        to_coefficients: stages from slots to coefficients, one level each.
        to_slots: stages from coefficients to slots, one level each.
        period: of the series, in units of the values.
    """

    series: str
    level: int
    log_slots: int
    to_coefficients: int = 2
    to_slots: int = 2
    period: float = PERIOD

    def __post_init__(self) -> None:
        if self.log_slots < 1:
            raise CircuitError("bootstrapping needs at least two slots")
        for stages in (self.to_coefficients, self.to_slots):
            if not 1 <= stages <= self.log_slots:
                raise CircuitError(f"{stages} stages, 1 to {self.log_slots} expected")
        if self.level < 0 or not self.period >= 1.0:
            raise CircuitError("a level of 0 or more and a period of 1 or more are needed")

    def rotations(self, slots: int) -> frozenset[int]:
        """Return every non-zero rotation step used, for ciphertexts of this many slots."""
        steps = {slots >> i for i in range(1, (slots >> self.log_slots).bit_length())}
        for stages in (self.to_coefficients, self.to_slots):
            steps |= _stages_rotations(self.log_slots, stages)
        return frozenset(step % slots for step in steps) - {0}


@lru_cache(maxsize=64)
def _stages_rotations(log_slots: int, stages: int) -> frozenset[int]:
    steps: set[int] = set()
    for group in stage_groups(log_slots, stages):
        for step in stage_steps(log_slots, group):
            giant = giant_step(log_slots, group, step)
            steps |= {giant, step - giant}
    return frozenset(steps)


def stage_groups(log_slots: int, stages: int) -> list[range]:
    """Split the butterflies, of 2^1 to 2^log_slots slots, into stages of nearly equal size.

    Returns:
        For each stage the base-2 logarithms of its butterflies' sizes, smallest first.
    """
    bounds = [1 + round(i * log_slots / stages) for i in range(stages + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


def stage_steps(log_slots: int, group: range) -> list[int]:
    """Return the rotation of each diagonal of a stage's matrix, sorted, in [-n/2, n/2)."""
    n, stride = 1 << log_slots, 1 << (group[0] - 1)
    reach = (1 << len(group)) - 1
    return sorted({(stride * k + n // 2) % n - n // 2 for k in range(-reach, reach + 1)})


def giant_step(log_slots: int, group: range, step: int) -> int:
    """Return the part of a rotation that is made after the products; the rest is made before."""
    stride = 1 << (group[0] - 1)
    babies = stride * _baby_count(log_slots, group)
    return step // babies * babies


@lru_cache(maxsize=256)
def _baby_count(log_slots: int, group: range) -> int:
    """Choose the power of two, in units of the stride, for which rotations cost least."""
    steps = [s >> (group[0] - 1) for s in stage_steps(log_slots, group)]

    def cost(babies: int) -> float:
        inner = {s % babies for s in steps} - {0}
        outer = {s // babies for s in steps} - {0}
        return _BABY * len(inner) + _GIANT * len(outer)

    return min((1 << i for i in range(len(steps).bit_length() + 1)), key=cost)
