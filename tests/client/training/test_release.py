"""Sharing decrypted results: the count, the noise, and the attack it is there for."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tacit
from tacit.client.training.release import (
    DEFAULT_BUDGET,
    ReleaseCounter,
    ReleasePolicy,
    release,
)
from tacit.client.training.simulated import SimulatedModel
from tacit.errors import KeyFileError, ReleaseError
from tests.client.training.tables import patients

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
KEY, OTHER = "ab" * 32, "cd" * 32


def test_releases_are_counted_per_key_and_refused_beyond_the_budget(tmp_path: Path) -> None:
    counter, policy = ReleaseCounter(tmp_path / "releases"), ReleasePolicy(budget=3)
    values = np.array([1.0, -2.0])
    counts = [release(values, 1e-9, KEY, counter, policy).count for _ in range(3)]
    assert counts == [1, 2, 3]
    for again in (counter, ReleaseCounter(tmp_path / "releases")):  # a restart changes nothing
        with pytest.raises(ReleaseError, match="3 of 3 results"):
            release(values, 1e-9, KEY, again, policy)
    assert release(values, 1e-9, OTHER, counter, policy).count == 1
    mode = (tmp_path / "releases" / f"{KEY}.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_the_default_budget_is_128() -> None:
    assert ReleasePolicy().budget == DEFAULT_BUDGET == 128
    with pytest.raises(ReleaseError, match="10000"):
        ReleasePolicy(budget=10_001)
    with pytest.raises(ReleaseError, match="30 bits"):
        ReleasePolicy(security_bits=10)


def test_releases_at_the_same_time_do_not_slip_through(tmp_path: Path) -> None:
    counter, policy = ReleaseCounter(tmp_path), ReleasePolicy(budget=20)
    refused = []

    def ask() -> None:
        for _ in range(5):
            try:
                release(np.ones(1), 1e-9, KEY, counter, policy)
            except ReleaseError:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.count(KEY) == 20
    assert len(refused) == 10


def test_a_damaged_record_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    counter = ReleaseCounter(tmp_path)
    counter.spend(KEY, 1, 128)
    (tmp_path / f"{KEY}.json").write_text('{"released": "none"}')
    with pytest.raises(KeyFileError, match="damaged"):
        release(np.ones(1), 1e-9, KEY, counter)
    (tmp_path / f"{KEY}.json").write_text("")
    with pytest.raises(KeyFileError, match="cannot be read"):
        counter.count(KEY)


def test_too_few_digits_are_refused_and_not_counted(tmp_path: Path) -> None:
    counter = ReleaseCounter(tmp_path)
    with pytest.raises(ReleaseError, match="bits of this result"):
        release(np.ones(4), 1e-4, KEY, counter)
    with pytest.raises(ReleaseError, match="must be known"):
        release(np.ones(4), 0.0, KEY, counter)
    assert counter.count(KEY) == 0


def test_the_noise_has_the_stated_size_and_only_its_digits_are_shown(tmp_path: Path) -> None:
    policy, counter = ReleasePolicy(), ReleaseCounter(tmp_path)
    shown = release(np.full(20_000, 1.0), 1e-10, KEY, counter, policy)
    assert shown.deviation == pytest.approx(np.sqrt(12 * 128) * 2.0**15 * 1e-10)
    # 20,000 Gaussian values: mean and deviation are off by 1 % of the deviation, at 12 sigma 0.09.
    spread = (shown.values - 1.0) / shown.deviation
    assert abs(spread.mean()) < 0.09
    assert abs(np.sqrt((spread**2).mean()) - 1.0) < 0.1
    assert np.all(shown.values / shown.step == np.round(shown.values / shown.step))
    assert shown.deviation / 2 < shown.step <= shown.deviation


# A toy ring: Z_q[x] / (x^16 + 1), a secret with coefficients in {-1, 0, 1}.
N, Q, ERROR = 16, 2_147_483_647, 3.19


def negacyclic(a: Integers) -> list[list[int]]:
    """The matrix of multiplication by a."""
    return [[int(a[i - j]) if i >= j else -int(a[N + i - j]) for j in range(N)] for i in range(N)]


def solved(matrix: list[list[int]], right: list[int]) -> list[int]:
    """Solve modulo q by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(N):
        pivot = next(i for i in range(column, N) if rows[i][column] % Q)
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = pow(rows[column][column], -1, Q)
        rows[column] = [v * inverse % Q for v in rows[column]]
        for i in range(N):
            if i != column and rows[i][column] % Q:
                factor = rows[i][column]
                rows[i] = [(u - factor * v) % Q for u, v in zip(rows[i], rows[column], strict=True)]
    return [row[N] if row[N] <= Q // 2 else row[N] - Q for row in rows]


def test_averages_of_shared_results_give_the_key_away_unless_they_are_flooded(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    secret: Integers = rng.integers(-1, 2, N)
    key = [int(s) for s in secret]
    a = rng.integers(0, Q, N)
    message = rng.integers(-(2**27), 2**27, N)
    error = np.round(rng.normal(0.0, ERROR, N)).astype(np.int64)
    product = [sum(row[i] * key[i] for i in range(N)) for row in negacyclic(a)]
    b = [(p + int(m) + int(e)) % Q for p, m, e in zip(product, message, error, strict=True)]
    decrypted = (message + error).astype(np.float64)

    def attacked(results: list[Floats]) -> list[int]:
        mean = np.round(np.stack(results).mean(axis=0)).astype(np.int64)
        right = [(x - int(mean[i])) % Q for i, x in enumerate(b)]
        return solved(negacyclic(a), right)

    # Fresh noise as large as the error, as a decryption adds: many averages undo it.
    plain = [decrypted + rng.normal(0.0, ERROR, N) for _ in range(4000)]
    assert attacked(plain) == key
    counter, policy = ReleaseCounter(tmp_path), ReleasePolicy(least_bits=0.0)
    shared = [release(decrypted, ERROR, KEY, counter, policy).values for _ in range(policy.budget)]
    assert attacked(shared) != key
    # The average of all that the budget allows still hides the error by 2^15 sqrt(12).
    left = np.mean(shared, axis=0) - decrypted
    assert np.sqrt((left**2).mean()) > 2.0**15 * ERROR


def test_a_model_is_released_with_noise_and_counted(tmp_path: Path) -> None:
    x, y = patients()
    model = tacit.LogisticRegression(simulate=True).fit(x, y)
    with pytest.raises(ReleaseError, match="more precision"):
        model.release(counter=ReleaseCounter(tmp_path))
    precise = precise_model(x, y)
    shared = precise.release(counter=ReleaseCounter(tmp_path))
    assert (shared.count, shared.budget) == (1, 128)
    precise.download()
    assert shared.coef != pytest.approx(precise.coef_, rel=1e-9)
    assert shared.coef == pytest.approx(precise.coef_, rel=0.05)


def precise_model(x: Floats, y: Integers) -> tacit.LogisticRegression:
    """A model whose simulated errors are as small as with larger parameters."""
    model = tacit.LogisticRegression(simulate=True).fit(x, y)
    remote = model._fitted_remote()
    assert isinstance(remote, SimulatedModel)
    remote._noise = 1e-11
    return model
