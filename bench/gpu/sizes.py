"""Parameter sets of the measurements: real ones, and tiny ones for a rehearsal without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from tacit.params import CryptoParams, Security

UNCHECKED = Security.UNCHECKED_INSECURE


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to measure on.

    Attributes:
        transforms: log2 N of the transforms.
        limbs: rows of one polynomial in them.
        batch: entries of the batch in them.
        sets: parameter sets by name.
        batches: of multiplications, by set.
        runs: measured runs.
        warm_runs: before them.
        copied_words: of the copy.
        rounds: of multiplications per thread.
        real: whether rings are those of the goals, not tiny ones.
    """

    transforms: tuple[int, ...]
    limbs: int
    batch: int
    sets: dict[str, CryptoParams]
    batches: dict[str, tuple[int, ...]]
    runs: int
    warm_runs: int
    copied_words: int
    rounds: int
    real: bool


def real() -> Sizes:
    """Return the sets of docs/cuda.md. Security is not checked: speed does not depend on it."""
    sets = {
        "A": CryptoParams.choose(16, 29, 59, 60, 4, UNCHECKED),
        "A narrow": CryptoParams.choose(16, 29, 49, 55, 4, UNCHECKED),
        "C": CryptoParams.choose(15, 15, 59, 60, 4, UNCHECKED),
        "D": CryptoParams.choose(14, 7, 45, 55, 4, UNCHECKED),
        "E": CryptoParams.choose(13, 4, 40, 50, 3, UNCHECKED),
    }
    batches = {"A": (1,), "A narrow": (1,), "C": (1, 8), "D": (1, 16, 64), "E": (1, 16, 64)}
    return Sizes((13, 14, 15, 16), 8, 8, sets, batches, 40, 5, 1 << 29, 4096, True)


def rehearsal() -> Sizes:
    """Return tiny sets."""
    sets = {
        "A": CryptoParams.choose(7, 5, 55, 60, 3, UNCHECKED),
        "D": CryptoParams.choose(7, 3, 40, 50, 2, UNCHECKED),
    }
    return Sizes((7,), 2, 2, sets, {"A": (1,), "D": (1, 3)}, 2, 1, 1 << 10, 4, False)


def one_kind(log_n: int, limbs: int, log_scale: int) -> CryptoParams:
    """Return parameters whose limbs are all wide, or all narrow, for transforms."""
    return CryptoParams.choose(log_n, limbs - 1, log_scale, log_scale + 1, 1, UNCHECKED)
