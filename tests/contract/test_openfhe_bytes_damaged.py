"""Damaged archives are refused, and cost no memory."""

import contextlib
import random
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tacit.errors import ForeignBytesError
from tacit.openfhe_bytes import (
    read_ciphertext,
    read_public_key,
    template_from_context,
    write_ciphertext,
)
from tacit.openfhe_keys import (
    read_automorphism_keys,
    read_relinearization_key,
)
from tests.contract.foreign import BINARY, DEPTH, SLOTS, Party, openfhe, product, values


def archives(party: Party) -> dict[str, tuple[bytes, Callable[[bytes], Any]]]:
    return {
        "ciphertext": (openfhe.Serialize(product(party, 4), BINARY), read_ciphertext),
        "context": (openfhe.Serialize(party.context, BINARY), template_from_context),
        "public key": (openfhe.Serialize(party.pair.publicKey, BINARY), read_public_key),
        "relinearisation key": (
            openfhe.SerializeEvalMultKeyString(BINARY, party.tag),
            read_relinearization_key,
        ),
        "automorphism keys": (
            openfhe.SerializeEvalAutomorphismKeyString(BINARY, party.tag),
            read_automorphism_keys,
        ),
    }


def test_damaged_archives_raise_only_foreign_bytes_errors(party: Party) -> None:
    """Bytes of the structure are hit, then random cuts, inserts and overwrites."""
    rng = random.Random(3)
    for archive, read in archives(party).values():
        ends = [*range(min(len(archive), 1100)), *range(max(0, len(archive) - 150), len(archive))]
        for at in rng.sample(ends, min(len(ends), 500)):
            damaged = bytearray(archive)
            damaged[at] ^= rng.randrange(1, 256)
            attempt(read, bytes(damaged))
        for _ in range(100):
            attempt(read, random_damage(archive, rng))


def test_a_damaged_archive_never_makes_the_reader_allocate_more_than_it_holds(
    party: Party,
) -> None:
    rng = random.Random(4)
    for kind, (archive, read) in archives(party).items():
        for _ in range(40):
            damaged = random_damage(archive, rng)
            tracemalloc.start()
            attempt(read, damaged)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < len(damaged) + (1 << 17), kind


def attempt(read: Callable[[bytes], Any], damaged: bytes) -> None:
    with contextlib.suppress(ForeignBytesError):
        read(damaged)


def random_damage(archive: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(archive))
    length = rng.choice([1, 4, 8, 64])
    match rng.randrange(4):
        case 0:
            return archive[:at]
        case 1:
            return archive[:at] + rng.randbytes(length) + archive[at:]
        case 2:
            return archive[:at] + archive[at + length :]
        case _:
            extreme = rng.choice([b"\xff", b"\x00", b"\x80"])
            return archive[:at] + extreme * length + archive[at + length :]


def test_every_truncation_of_an_archive_is_refused(party: Party) -> None:
    archive = openfhe.Serialize(party.encrypt(values(0), DEPTH), BINARY)
    for length in [*range(0, 2000), *range(2000, len(archive), 97)]:
        with pytest.raises(ForeignBytesError):
            read_ciphertext(archive[:length])
    with pytest.raises(ForeignBytesError, match="follow"):
        read_ciphertext(archive + b"\x00")


def test_limbs_that_do_not_fit_the_template_are_never_written(party: Party) -> None:
    ciphertext, template = read_ciphertext(openfhe.Serialize(party.encrypt(values(0)), BINARY))
    too_large = ciphertext.limbs.copy()
    too_large[1, 2, 3] = template.moduli[2]
    wrong = {
        "residue": replace(ciphertext, limbs=too_large),
        "limbs": replace(ciphertext, limbs=ciphertext.limbs[:, :-1]),
        "dtype": replace(ciphertext, limbs=ciphertext.limbs.astype(np.int64)),
        "ring": replace(ciphertext, limbs=ciphertext.limbs[..., :512]),
        "degree": replace(ciphertext, noise_scale_degree=3),
        "slots": replace(ciphertext, slots=SLOTS + 1),
        "scale": replace(ciphertext, scaling_factor=float("nan")),
        "objects": replace(ciphertext, objects=((1,), (2,))),
        "other objects": replace(ciphertext, objects=(tuple(range(11)),) * 2),
    }
    for foreign in wrong.values():
        with pytest.raises(ForeignBytesError):
            write_ciphertext(template, foreign)
