"""Sharing decrypted results: flooded, rounded, counted, and refused beyond a budget.

CKKS hides plaintexts from whoever sees ciphertexts (IND-CPA). A decrypted result is the plaintext
plus an error that depends on the secret key; whoever has ciphertexts and enough decrypted results
can solve for the key (Li and Micciancio, EUROCRYPT 2021). Results that stay with the owner of the
key need nothing of this. Results that leave go through `release`, which

- adds Gaussian noise with deviation sqrt(12 t) 2^(s/2) times the error's, so that t released
  results tell a ciphertext's error from any other with an advantage of about 2^-s only (the bound
  of noise flooding in OpenFHE 1.6.1, which asks for s of 30 or more, too);
- rounds to the digits that the noise leaves;
- counts, on disk, before it answers, and refuses once the budget t is spent: make new keys then.

Asking for the same result twice counts twice, or averages would undo the noise.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.client.key_files import write_private
from tacit.errors import KeyFileError, ReleaseError

Floats = NDArray[np.float64]

DEFAULT_BUDGET = 128
LARGEST_BUDGET = 10_000
LEAST_SECURITY_BITS = 30


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """How results are shared.

    Attributes:
        budget: results that may be released under one key, ever.
        security_bits: s above.
        least_bits: digits, relative to the largest value, below which a result is refused.

    Raises:
        ReleaseError: a number is out of range.
    """

    budget: int = DEFAULT_BUDGET
    security_bits: int = LEAST_SECURITY_BITS
    least_bits: float = 4.0

    def __post_init__(self) -> None:
        if not 1 <= self.budget <= LARGEST_BUDGET:
            raise ReleaseError(f"a budget of 1 to {LARGEST_BUDGET} is expected, not {self.budget}")
        if self.security_bits < LEAST_SECURITY_BITS:
            raise ReleaseError(f"at least {LEAST_SECURITY_BITS} bits are needed against averaging")

    def deviation(self, error: float) -> float:
        """Return the deviation of the noise that hides an error of a deviation."""
        return float(math.sqrt(12.0 * self.budget) * 2.0 ** (0.5 * self.security_bits) * error)


@dataclass(frozen=True, slots=True, eq=False)
class Released:
    """A result that may be shared.

    Attributes:
        values: noisy and rounded, of the shape asked for.
        deviation: of the noise.
        step: they are multiples of it.
        count, budget: results released under this key so far, and at most.
    """

    values: Floats
    deviation: float
    step: float
    count: int
    budget: int


@dataclass(frozen=True, slots=True)
class ReleaseCounter:
    """Counts releases per key in a directory.

    Attributes:
        directory: beside the keys; made if it is absent.
    """

    directory: Path

    def count(self, key_id: str) -> int:
        """Return how many results were released under a key.

        Raises:
            KeyFileError: the record cannot be read. It is not taken for an empty one.
        """
        path = self._file(key_id)
        if not path.exists():
            return 0
        try:
            found = json.loads(path.read_text())["released"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyFileError(f"the record of releases {path} cannot be read") from error
        if not isinstance(found, int) or found < 0:
            raise KeyFileError(f"the record of releases {path} is damaged")
        return found

    def spend(self, key_id: str, results: int, budget: int) -> int:
        """Count some results; returns the new total, which is on the disk by then.

        Raises:
            ReleaseError: the budget does not allow them; nothing is counted.
            KeyFileError: the record cannot be read or written.
        """
        with self._alone():
            before = self.count(key_id)
            if before + results > budget:
                raise ReleaseError(
                    f"{before} of {budget} results were released under key {key_id[:12]}, "
                    f"{results} more are too many: make new keys and encrypt anew"
                )
            content = json.dumps({"key_id": key_id, "released": before + results}).encode()
            try:
                write_private(self._file(key_id), content)
            except OSError as error:
                raise KeyFileError(f"cannot write to {self.directory}") from error
        return before + results

    def _file(self, key_id: str) -> Path:
        if not key_id or not all(digit in "0123456789abcdef" for digit in key_id):
            raise KeyFileError("a key id is hexadecimal")
        return self.directory / f"{key_id}.json"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise KeyFileError(f"cannot write to {self.directory}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def release(
    values: Floats,
    error: float,
    key_id: str,
    counter: ReleaseCounter,
    policy: ReleasePolicy | None = None,
) -> Released:
    """Make a decrypted result fit to be shared, and count it.

    Args:
        values: the decrypted result; one call is one result, whatever its shape.
        error: deviation of the error that decryption left in each value.
        key_id: of the keys it was encrypted under.
        counter: the record of releases.
        policy: budget and security.

    Raises:
        ReleaseError: the budget is spent, or the noise would leave too few digits.
        KeyFileError: the record cannot be read or written.
    """
    policy = policy or ReleasePolicy()
    if not (math.isfinite(error) and error > 0.0):
        raise ReleaseError("the error of the result must be known and above 0")
    deviation = policy.deviation(error)
    largest = float(np.abs(values).max(initial=0.0))
    left = math.log2(largest / deviation) if largest else -math.inf
    if left < policy.least_bits:
        raise ReleaseError(
            f"the noise that hides the key would leave {max(left, 0.0):.1f} bits of this result, "
            f"{policy.least_bits:g} are asked for: train with more precision (weight_bits=26), or "
            "keep the result to yourself"
        )
    count = counter.spend(key_id, 1, policy.budget)
    # The system's generator: a statistical one could be rewound from what is released.
    source = random.SystemRandom()
    noise = np.array([source.gauss(0.0, deviation) for _ in range(values.size)])
    step = 2.0 ** math.floor(math.log2(deviation))
    rounded = np.round((values + noise.reshape(values.shape)) / step) * step
    return Released(rounded, deviation, step, count, policy.budget)
