"""Evaluations dealt out over threads and joined into batches, on a backend that adds numbers."""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.circuit import Circuit
from tacit.errors import CircuitError, OutOfMemoryError, UnknownKeyError
from tacit.params import CryptoParams
from tacit.runtime.backends.clear import ClearCiphertext, ClearEvaluator
from tacit.runtime.backends.loading import BackendMemory, Encrypted, LoadedKeys
from tacit.runtime.batch_size import most_in_batch, peak_bytes
from tacit.runtime.evaluation import Evaluation, PlanEvaluator, Progress, deal
from tacit.runtime.refusals import AbandonedError
from tests.runtime.models import TINY_INSECURE, arithmetic_artifact

MODEL = arithmetic_artifact()
CIRCUIT, PLAN = MODEL.circuits["latency"], MODEL.signature.plan("latency")
SLOTS, TOP = TINY_INSECURE.slots, TINY_INSECURE.depth


@dataclass(frozen=True)
class NamedKeys:
    """Keys that are a name; `fault` says what goes wrong with rotations under them."""

    name: str
    fault: Exception | None = None


class WatchfulEvaluator(ClearEvaluator):
    """Computes in the clear for a batch; fails if an owner's keys do, or the batch is too big."""

    def __init__(self, owners: Sequence[NamedKeys], most: int) -> None:
        super().__init__(TINY_INSECURE)
        self.owners = owners
        self.most = most

    def rotate(self, a: ClearCiphertext, steps: int) -> ClearCiphertext:
        if len(self.owners) > self.most:
            raise MemoryError
        for keys in self.owners:
            if keys.fault is not None:
                raise keys.fault
        return super().rotate(a, steps)


@dataclass
class ClearBackend:
    """Batches of numpy vectors; remembers the sizes of the batches it was asked for."""

    joins: bool = True
    spreads: bool = True
    most: int = 1000
    sizes: list[int] = field(default_factory=list)

    def evaluator(self, owners: Sequence[Any]) -> Any:
        self.sizes.append(len(owners))
        return WatchfulEvaluator(owners, self.most)

    def at_once(self, owners: Sequence[Any], inputs: Sequence[Any]) -> None:
        return None

    def load_keys(self, params: CryptoParams, key_id: bytes, keys: Iterable[Any]) -> LoadedKeys:
        raise NotImplementedError

    def bind(self, params: CryptoParams, circuit: Circuit) -> "ClearBackend":
        return self

    def join(self, parts: Sequence[Encrypted]) -> Encrypted:
        return ClearCiphertext(np.stack([p.values for p in parts]), parts[0].level)

    def split(self, joined: Encrypted) -> Sequence[Encrypted]:
        return [ClearCiphertext(v, joined.level, joined.degree) for v in joined.values]

    def memory(self) -> BackendMemory:
        return BackendMemory()


def made(
    count: int, keys: NamedKeys, progress: Progress, seed: int = 0
) -> tuple[list[Evaluation], Any]:
    values = np.random.default_rng(seed).uniform(-1, 1, (count, SLOTS))
    owner: Any = keys
    return [Evaluation(owner, [ClearCiphertext(v, TOP)], progress) for v in values], values


def progress_of(count: int) -> Progress:
    return Progress(lambda done, total: None, count * len(CIRCUIT.nodes))


def expected(values: Any) -> Any:
    return np.roll(values**2, -3, axis=-1) + 0.25


def evaluator(backend: ClearBackend, most: int = 4) -> PlanEvaluator:
    return PlanEvaluator(PLAN, CIRCUIT, backend, backend, most)


@given(st.integers(0, 70), st.integers(1, 5), st.integers(1, 9))
def test_batches_are_even_use_every_thread_and_keep_their_limit(
    count: int, threads: int, most: int
) -> None:
    items: Any = list(range(count))
    batches = [list(batch) for batch in deal(items, threads, most)]
    assert [item for batch in batches for item in batch] == items
    sizes = [len(batch) for batch in batches]
    assert all(1 <= size <= most for size in sizes)
    assert len(batches) >= min(threads, count)
    assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_owners_share_batches_and_get_their_own_answers(threads: int | None) -> None:
    backend = ClearBackend()
    parts = [made(5, NamedKeys(name), progress_of(5), seed) for seed, name in enumerate("abc")]
    together = [evaluation for evaluations, _ in parts for evaluation in evaluations]
    pool = ThreadPoolExecutor(threads) if threads else None
    evaluator(backend).run(together, pool)
    for evaluations, values in parts:
        found = np.stack([e.outputs[0].values for e in evaluations])
        np.testing.assert_allclose(found, expected(values), atol=1e-12)
    assert sum(backend.sizes) == 15
    assert max(backend.sizes) > 1


def test_an_error_of_one_owner_is_no_other_owners_error() -> None:
    backend = ClearBackend()
    missing = UnknownKeyError("a Galois key for rotations by 3 slots is needed")
    good, values = made(2, NamedKeys("a"), progress_of(2))
    bad, _ = made(2, NamedKeys("b", missing), progress_of(2))
    evaluator(backend).run([good[0], bad[0], good[1], bad[1]], None)
    assert [e.progress.error for e in good] == [None, None]
    assert isinstance(bad[0].progress.error, UnknownKeyError)
    assert "node 2 (rotate, shift)" in str(bad[0].progress.error)
    np.testing.assert_allclose(good[1].outputs[0].values, expected(values[1]), atol=1e-12)


def test_a_batch_that_memory_does_not_hold_is_done_one_by_one() -> None:
    backend = ClearBackend(most=1)
    evaluations, values = made(3, NamedKeys("a"), progress_of(3))
    evaluator(backend).run(evaluations, None)
    assert backend.sizes == [3, 1, 1, 1]
    assert evaluations[0].progress.error is None
    np.testing.assert_allclose(evaluations[2].outputs[0].values, expected(values[2]), atol=1e-12)


def test_running_out_of_memory_names_the_node() -> None:
    evaluations, _ = made(2, NamedKeys("a", MemoryError()), progress_of(2))
    evaluator(ClearBackend()).run(evaluations, None)
    error = evaluations[0].progress.error
    assert isinstance(error, OutOfMemoryError)
    assert "node 2 (rotate, shift)" in str(error)


def test_a_request_nobody_waits_for_ends_and_leaves_its_company_alone() -> None:
    def leave(done: int, total: int) -> None:
        if done > 1:
            raise AbandonedError("the client went away")

    gone, _ = made(2, NamedKeys("a"), Progress(leave, 8))
    kept, values = made(2, NamedKeys("b"), progress_of(2))
    evaluator(ClearBackend()).run([*gone, *kept], None)
    assert isinstance(gone[0].progress.error, AbandonedError)
    np.testing.assert_allclose(kept[1].outputs[0].values, expected(values[1]), atol=1e-12)


def test_a_batch_stops_once_nobody_waits_for_any_of_it() -> None:
    seen: list[int] = []

    def leave(done: int, total: int) -> None:
        seen.append(done)
        raise AbandonedError("the client went away")

    evaluations, _ = made(40, NamedKeys("a"), Progress(leave, 160))
    backend = ClearBackend()
    evaluator(backend).run(evaluations, None)
    assert seen == [1]
    assert backend.sizes == [4]


def test_a_bug_in_one_thread_is_what_the_request_hears() -> None:
    fault = ZeroDivisionError("a bug")
    evaluations, _ = made(8, NamedKeys("a", fault), progress_of(8))
    evaluator(ClearBackend()).run(evaluations, ThreadPoolExecutor(2))
    assert evaluations[0].progress.error is fault


def test_outputs_of_another_type_than_promised_are_our_own_error() -> None:
    backend = ClearBackend()
    wrong = PlanEvaluator(MODEL.signature.plan("batch"), CIRCUIT, backend, backend, 4)
    evaluations, _ = made(2, NamedKeys("a"), progress_of(2))
    wrong.run(evaluations, None)
    assert isinstance(evaluations[0].progress.error, CircuitError)


def test_progress_is_told_by_one_thread_at_a_time() -> None:
    inside = threading.Lock()
    seen: list[int] = []

    def observe(done: int, total: int) -> None:
        assert inside.acquire(blocking=False)
        seen.append(done)
        inside.release()

    progress = Progress(observe, 400)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: progress.advance(1), range(400)))
    assert seen == list(range(1, 401))


def test_batches_are_bounded_by_the_memory_of_their_widest_node() -> None:
    # x * x, both operands the same: one ciphertext lives beside the product at the top level, and
    # the product's third component with its digits over all primes.
    top = 2 * (TOP + 1) * TINY_INSECURE.n * 8
    extended = 2 * (TOP + 1 + len(TINY_INSECURE.special_moduli)) * TINY_INSECURE.n * 8
    widest = 2 * top + (1 + TINY_INSECURE.dnum) * extended
    assert peak_bytes(TINY_INSECURE, CIRCUIT) == widest
    assert most_in_batch(TINY_INSECURE, CIRCUIT, 8) == 8
    assert most_in_batch(TINY_INSECURE, CIRCUIT, 8, 3 * widest) == 3
    assert most_in_batch(TINY_INSECURE, CIRCUIT, 8, 1) == 1
