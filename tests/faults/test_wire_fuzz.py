import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fuzz_wire import FIXED_ALLOWANCE_BYTES, Tally, fuzz, make_seeds, mutate, reseal
from tacit.errors import ResidueError, WireError
from tacit.wire import decode_ciphertext, decode_evaluation_key, frame_length

SEEDS = make_seeds()


def assert_every_promise_was_kept(tally: Tally, messages: int) -> None:
    assert tally.failures == []
    assert tally.failed == 0
    assert tally.messages == messages
    assert tally.refused.total() + tally.accepted == messages
    assert tally.worst_ratio <= 2.0
    assert tally.slowest_ms < 1000.0


def test_ten_thousand_mutated_frames_are_refused_with_typed_errors() -> None:
    tally = fuzz(10_000, seed=20, trace_every=10)
    assert_every_promise_was_kept(tally, 10_000)
    reached = {"TruncatedError", "OversizedError", "HeaderError", "ChecksumError", "ResidueError"}
    reached |= {"LevelRangeError", "ParameterMismatchError", "KeyMismatchError"}
    assert reached <= set(tally.refused), "the mutations do not reach every check"
    assert tally.accepted < 0.1 * tally.messages


@pytest.mark.slow
def test_a_hundred_thousand_mutated_frames_are_refused_with_typed_errors() -> None:
    assert_every_promise_was_kept(fuzz(100_000, seed=21, trace_every=10), 100_000)


def test_the_fuzzer_notices_a_decoder_that_breaks_its_promises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(frame: bytes, expected: object) -> None:
        ballast = bytes(10 * len(frame) + FIXED_ALLOWANCE_BYTES)
        raise ZeroDivisionError(len(ballast))

    monkeypatch.setattr("bench.fuzz_wire.decode_ciphertext", careless)
    tally = fuzz(100, seed=22)
    assert tally.failed > 20
    assert any("ZeroDivisionError" in failure for failure in tally.failures)
    assert any("allocated" in failure for failure in tally.failures)


def test_mutants_are_reproducible_from_their_seed() -> None:
    first, second = random.Random(5), random.Random(5)
    for _ in range(50):
        assert mutate(first, SEEDS.frames) == mutate(second, SEEDS.frames)


@given(noise=st.binary(max_size=4096))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_never_a_frame(noise: bytes) -> None:
    for decode in (
        lambda: decode_ciphertext(noise, SEEDS.expected),
        lambda: decode_evaluation_key(noise, SEEDS.expected_key),
        lambda: frame_length(noise),
    ):
        with pytest.raises(WireError):
            decode()


@given(
    frame=st.sampled_from(SEEDS.frames),
    at=st.integers(0, 119),
    patch=st.binary(min_size=1, max_size=16),
)
@settings(max_examples=300, deadline=None)
def test_a_resealed_header_is_refused_or_was_valid(frame: bytes, at: int, patch: bytes) -> None:
    changed = bytearray(frame)
    changed[at : at + len(patch)] = patch
    reseal(changed)
    message = bytes(changed)
    try:
        if message[10] == 2:
            decode_evaluation_key(message, SEEDS.expected_key)
        else:
            decode_ciphertext(message, SEEDS.expected)
    except WireError:
        return
    changed_places = {i for i, (a, b) in enumerate(zip(message, frame, strict=True)) if a != b}
    head = 80 if message[10] == 2 else 120
    # A key's Galois element, the scale's last bits and the number of slots may change and stay
    # valid; the rest of a change must lie in the payload.
    harmless = {*range(24, 32), *range(64, 68), *range(96, 101), *range(104, 108)}
    harmless |= set(range(head, len(frame)))
    assert changed_places <= harmless | {74}


@given(limb=st.integers(0, 2), at=st.integers(0, 255), excess=st.integers(0, 2**63))
@settings(max_examples=100, deadline=None)
def test_any_residue_at_or_above_its_modulus_is_refused(limb: int, at: int, excess: int) -> None:
    frame = bytearray(SEEDS.frames[0])
    residue = min(SEEDS.expected.moduli[limb] + excess, 2**64 - 1)
    start = 120 + 8 * (limb * 256 + at)
    frame[start : start + 8] = residue.to_bytes(8, "little")
    reseal(frame)
    with pytest.raises(ResidueError):
        decode_ciphertext(bytes(frame), SEEDS.expected)
