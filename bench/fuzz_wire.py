"""Fuzz target: are mutated wire frames refused, always with a typed error and little memory?

Frames of both kinds and packings are damaged at random: bits flipped, bytes overwritten, inserted,
removed, cut off, appended, header fields set to extremes, frames spliced. Half of the mutants
get a right checksum (and often a right length) again, so that the checks behind it are reached.

A mutant must either be refused with a `WireError`, or be a valid frame: then encoding what was
decoded must give the very same bytes. Anything else counts as a failure.

    python -m bench.fuzz_wire --messages 100000 --json bench/results/fuzz_wire.jsonl
"""

import argparse
import contextlib
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.record import Record, append, look_around
from tacit.errors import WireError
from tacit.moduli import choose_moduli, flexible_scales
from tacit.wire import (
    Ciphertext,
    CiphertextExpectation,
    EvaluationKey,
    KeyExpectation,
    KeyKind,
    Packing,
    decode_ciphertext,
    decode_evaluation_key,
    encode_ciphertext,
    encode_evaluation_key,
)

LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM = 8, 2, 30, 40, 2
# One key is for level 0 only: its element, limbs of Q and digits.
TRIMMED, TRIMMED_LIMBS, TRIMMED_DIGITS = 25, 1, 1
FIXED_ALLOWANCE_BYTES = 16 << 10  # Python objects and numpy headers of one decoding
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 60, 2**64 - 1)
# Offsets and sizes of the headers' fields, see docs/wire-format.md.
COMMON_FIELDS = ((0, 8), (8, 2), (10, 1), (11, 1), (12, 4), (16, 8), (24, 8), (32, 32))
CIPHERTEXT_FIELDS = ((64, 32), (96, 8), (104, 4), (108, 2), (110, 2), (112, 1), (113, 1), (114, 1))
KEY_FIELDS = ((64, 4), (68, 2), (70, 2), (72, 1), (73, 1), (74, 1), (75, 1), (76, 4))
FIELDS = (*COMMON_FIELDS, *CIPHERTEXT_FIELDS, (115, 1), (116, 4), *KEY_FIELDS)


@dataclass(frozen=True, slots=True)
class Seeds:
    """Valid frames to start from, and what the receiver expects."""

    frames: tuple[bytes, ...]
    expected: CiphertextExpectation
    expected_key: KeyExpectation


@dataclass(slots=True)
class Tally:
    """What happened to the mutants.

    Attributes:
        refused: by error class.
        accepted: mutants that were valid frames all the same.
        failures: descriptions of mutants that broke a promise; at most 20 are kept.
        failed: how many there were.
        peak_bytes: largest allocation during one decoding.
        worst_ratio: largest (peak - allowance) / declared size.
        slowest_ms: longest decoding.
    """

    messages: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    peak_bytes: int = 0
    worst_ratio: float = 0.0
    slowest_ms: float = 0.0

    def fail(self, what: str, message: bytes) -> None:
        """Note a broken promise."""
        self.failed += 1
        if len(self.failures) < 20:
            self.failures.append(f"{what}: {message[:128].hex()}")


def make_seeds() -> Seeds:
    """Build valid frames of both kinds, both packings and several levels, on a tiny ring."""
    rng = np.random.default_rng(1)
    chosen = choose_moduli(LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM)
    moduli, special = chosen.moduli, chosen.special_moduli
    scales = flexible_scales(moduli, LOG_SCALE)
    digest, name = sha256(b"parameters").digest(), sha256(b"keys").digest()
    frames: list[bytes] = []
    for packing in Packing:
        for level, degree in ((DEPTH, 1), (1, 2), (0, 1)):
            limbs = _residues(rng, moduli[: level + 1], (2,))
            scale = scales[level] ** degree
            sent = Ciphertext(limbs, level, degree, scale, 1 << (LOG_N - 1), digest, name)
            frames.append(encode_ciphertext(sent, moduli, packing))
        for kind, element in ((KeyKind.RELINEARIZATION, 0), (KeyKind.ROTATION, 5)):
            limbs = _residues(rng, moduli + special, (2, DNUM))
            key = EvaluationKey(limbs, kind, element, digest)
            frames.append(encode_evaluation_key(key, moduli, special, packing))
        kept = moduli[:TRIMMED_LIMBS]
        small = EvaluationKey(
            _residues(rng, kept + special, (2, TRIMMED_DIGITS)), KeyKind.ROTATION, TRIMMED, digest
        )
        frames.append(encode_evaluation_key(small, moduli, special, packing, limbs=TRIMMED_LIMBS))
    expected = CiphertextExpectation(digest, LOG_N, moduli, scales, key_id=name)
    trimmed = {TRIMMED: TRIMMED_LIMBS}
    expected_key = KeyExpectation(digest, LOG_N, moduli, special, DNUM, limbs=trimmed)
    return Seeds(tuple(frames), expected, expected_key)


def fuzz(messages: int, seed: int, trace_every: int = 1) -> Tally:
    """Decode `messages` mutants; memory is traced for one in `trace_every` of them."""
    seeds, rng, tally = make_seeds(), random.Random(seed), Tally()
    for i in range(messages):
        message = mutate(rng, seeds.frames)
        if i % trace_every == 0:
            _check_memory(seeds, message, tally)
        _check_verdict(seeds, message, tally)
        tally.messages += 1
    return tally


def mutate(rng: random.Random, frames: Sequence[bytes]) -> bytes:
    """Damage one of the frames in one to three ways; never returns a frame unchanged."""
    original = rng.choice(frames)
    while True:
        frame = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            rng.choice(_MUTATIONS)(rng, frame, frames)
        if len(frame) >= 32 and rng.random() < 0.5:
            if rng.random() < 0.5:
                frame[16:24] = len(frame).to_bytes(8, "little")
            reseal(frame)
        if frame != original:
            return bytes(frame)


def reseal(frame: bytearray) -> None:
    """Write the checksum that belongs to the frame's bytes."""
    content = bytes(frame[:24] + frame[32:])
    frame[24:32] = blake2b(content, digest_size=8).digest()


def _check_verdict(seeds: Seeds, message: bytes, tally: Tally) -> None:
    start = time.perf_counter()
    try:
        again = _decode_and_encode(seeds, message)
    except WireError as error:
        tally.refused[type(error).__name__] += 1
        tally.slowest_ms = max(tally.slowest_ms, 1e3 * (time.perf_counter() - start))
        return
    except Exception as error:
        tally.fail(repr(error), message)
        return
    tally.accepted += 1
    if again != message:
        tally.fail("accepted, but encodes to other bytes", message)


def _decode_and_encode(seeds: Seeds, message: bytes) -> bytes:
    packing = Packing.BITS if message[11:12] == b"\x01" else Packing.RAW
    moduli = seeds.expected.moduli
    if message[10:11] == b"\x02":
        key = decode_evaluation_key(message, seeds.expected_key)
        special = seeds.expected_key.special_moduli
        limbs = key.limbs.shape[2] - len(special)
        return encode_evaluation_key(key, moduli, special, packing, limbs=limbs)
    return encode_ciphertext(decode_ciphertext(message, seeds.expected), moduli, packing)


def _check_memory(seeds: Seeds, message: bytes, tally: Tally) -> None:
    """Trace one decoding; declared are the message's bytes or the residues it stands for."""
    is_key = message[10:11] == b"\x02"
    special = len(seeds.expected_key.special_moduli)
    limbs = 2 * DNUM * (DEPTH + 1 + special) if is_key else 2 * (DEPTH + 1)
    if is_key and message[64:68] == TRIMMED.to_bytes(4, "little"):
        limbs = 2 * TRIMMED_DIGITS * (TRIMMED_LIMBS + special)
    declared = max(len(message), (8 * limbs) << LOG_N)
    tracemalloc.start()
    with contextlib.suppress(Exception):  # judged by _check_verdict
        if is_key:
            decode_evaluation_key(message, seeds.expected_key)
        else:
            decode_ciphertext(message, seeds.expected)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tally.peak_bytes = max(tally.peak_bytes, peak)
    ratio = max(0, peak - FIXED_ALLOWANCE_BYTES) / declared
    tally.worst_ratio = max(tally.worst_ratio, ratio)
    if ratio > 2.0:
        tally.fail(f"{peak} bytes allocated for {declared} declared", message)


def _flip_bits(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    for _ in range(rng.randint(1, 8)):
        if frame:
            frame[_place(rng, frame)] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    at, length = _place(rng, frame), rng.choice((1, 2, 4, 8, 64))
    fill = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length))
    frame[at : at + length] = fill[: max(0, len(frame) - at)]


def _insert(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    at = _place(rng, frame)
    frame[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _remove(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    at = _place(rng, frame)
    del frame[at : at + rng.choice((1, 2, 8, 64))]


def _truncate(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    del frame[_place(rng, frame) :]


def _append(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    frame.extend(rng.randbytes(rng.choice((1, 8, 4096))))


def _set_field(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    at, size = rng.choice(FIELDS)
    value = rng.choice((rng.choice(EXTREMES), rng.getrandbits(8 * size), rng.randrange(16)))
    if at + size <= len(frame):
        frame[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _copy_field(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    at, size = rng.choice(FIELDS)
    if at + size <= len(frame):
        frame[at : at + size] = rng.choice(frames)[at : at + size]


def _splice(rng: random.Random, frame: bytearray, frames: Sequence[bytes]) -> None:
    other = rng.choice(frames)
    at = _place(rng, frame)
    frame[at:] = other[min(at, len(other)) :]


def _place(rng: random.Random, frame: bytearray) -> int:
    """Choose a position, in the header half of the time."""
    end = len(frame)
    return rng.randrange(max(1, min(120, end) if rng.random() < 0.5 else end))


Mutation = Callable[[random.Random, bytearray, Sequence[bytes]], None]
_MUTATIONS: tuple[Mutation, ...] = (
    *(_flip_bits, _overwrite, _insert, _remove, _truncate),
    *(_append, _set_field, _set_field, _copy_field, _splice),
)


def _residues(
    rng: np.random.Generator, moduli: tuple[int, ...], leading: tuple[int, ...]
) -> NDArray[np.uint64]:
    n = 1 << LOG_N
    rows = [rng.integers(0, q, (*leading, n), dtype=np.uint64) for q in moduli]
    return np.stack(rows, axis=-2)


def records(tally: Tally, seed: int, seconds: float) -> list[Record]:
    """Turn a tally into benchmark records."""
    around = look_around()
    figures = (
        ("mutated_messages", tally.messages, "1"),
        ("failures", tally.failed, "1"),
        ("refused_with_a_typed_error", tally.refused.total(), "1"),
        ("accepted_and_identical", tally.accepted, "1"),
        ("peak_bytes_per_message", tally.peak_bytes, "bytes"),
        ("peak_to_declared_bytes", round(tally.worst_ratio, 3), "1"),
        ("slowest_refusal_seconds", round(tally.slowest_ms / 1e3, 6), "s"),
        ("seconds", round(seconds, 1), "s"),
    )
    parameters = {
        "log_n": LOG_N,
        "depth": DEPTH,
        "log_scale": LOG_SCALE,
        "dnum": DNUM,
        "seed": seed,
        "refused": dict(sorted(tally.refused.items())),
    }
    workload = f"{tally.messages} mutated frames"
    return [
        around.record("fuzz_wire", workload, "tacit", metric, value, unit, parameters)
        for metric, value, unit in figures
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, print the tally, record it; returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="bench.fuzz_wire", description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append the results to this file")
    chosen = parser.parse_args(arguments)
    start = time.perf_counter()
    tally = fuzz(chosen.messages, chosen.seed)
    seconds = time.perf_counter() - start
    for record in records(tally, chosen.seed, seconds):
        print(f"{record.metric:30} {record.value:>12} {record.unit}")
    for name, count in sorted(tally.refused.items()):
        print(f"  {name:28} {count:>12}")
    for failure in tally.failures:
        print("FAILURE", failure)
    if chosen.json:
        append(records(tally, chosen.seed, seconds), chosen.json)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
