"""OpenFHE's archives read and written: the bytes are the same, and the limbs mean what they say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tacit.errors import ForeignBytesError
from tacit.moduli import choose_moduli, smallest_root
from tacit.openfhe_bytes import (
    read_ciphertext,
    read_public_key,
    template_from_ciphertext,
    template_from_context,
    write_ciphertext,
)
from tacit.openfhe_keys import (
    read_automorphism_keys,
    read_relinearization_key,
    write_automorphism_keys,
    write_relinearization_key,
    write_switching_key,
)
from tests.contract.foreign import (
    BASIC,
    BINARY,
    DEPTH,
    DNUM,
    LOG_FIRST,
    LOG_N,
    LOG_SCALE,
    SLOTS,
    Party,
    make_context,
    openfhe,
    product,
    values,
)

KINDS: dict[str, Callable[[Party], Any]] = {
    "fresh": lambda p: p.encrypt(values(0)),
    "degree 2": lambda p: product(p, 2),
    "degree 2 one level down": lambda p: product(p, 3),
    "degree 2 at the last level but one": lambda p: product(p, 5),
    "encrypted two levels down": lambda p: p.encrypt(values(0), 2),
    "encrypted at the last level": lambda p: p.encrypt(values(0), DEPTH),
    "three components": lambda p: p.context.EvalMultNoRelin(
        p.encrypt(values(0)), p.encrypt(values(1))
    ),
    "rotated": lambda p: p.context.EvalRotate(p.encrypt(values(0)), 1),
    "rotated one level down": lambda p: p.context.EvalRotate(product(p, 3), -3),
    "sum of levels": lambda p: p.context.EvalAdd(product(p, 3), p.encrypt(values(1))),
    "times a constant": lambda p: p.context.EvalMult(p.encrypt(values(0)), 0.25),
    "compressed to one limb": lambda p: p.context.Compress(p.encrypt(values(0)), 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_limbs_read_and_written_again_are_the_bytes_openfhe_wrote(party: Party, kind: str) -> None:
    original = KINDS[kind](party)
    archive = openfhe.Serialize(original, BINARY)
    ciphertext, template = read_ciphertext(archive)
    assert write_ciphertext(template, ciphertext) == archive
    assert ciphertext.level == original.GetLevel()
    assert ciphertext.noise_scale_degree == original.GetNoiseScaleDeg()
    assert ciphertext.scaling_factor == original.GetScalingFactor()
    assert ciphertext.slots == original.GetSlots()
    assert ciphertext.key_tag == original.GetKeyTag()
    assert ciphertext.limbs.shape[1] == DEPTH + 1 - original.GetLevel()


def test_the_template_is_the_same_from_the_context_and_from_ciphertexts_at_any_level(
    party: Party,
) -> None:
    template = template_from_context(openfhe.Serialize(party.context, BINARY))
    for kind in KINDS:
        archive = openfhe.Serialize(KINDS[kind](party), BINARY)
        assert template_from_ciphertext(archive) == template, kind


def test_a_lower_level_is_written_from_the_template_of_a_fresh_ciphertext(party: Party) -> None:
    template = template_from_ciphertext(openfhe.Serialize(party.encrypt(values(0)), BINARY))
    archive = openfhe.Serialize(product(party, 4), BINARY)
    assert write_ciphertext(template, read_ciphertext(archive)[0]) == archive


@pytest.mark.parametrize(
    "features",
    [BASIC, (*BASIC, "ADVANCEDSHE"), (*BASIC, "ADVANCEDSHE", "FHE")],
    ids=lambda features: features[-1],
)
@pytest.mark.parametrize("dnum", [1, 3])
def test_contexts_with_more_features_are_read_and_written(
    features: tuple[str, ...], dnum: int
) -> None:
    context = make_context(features, depth=5, dnum=dnum)
    pair = context.KeyGen()
    context.EvalMultKeyGen(pair.secretKey)
    party = Party(context, pair)
    for ciphertext in (party.encrypt(values(0)), product(party, 3)):
        archive = openfhe.Serialize(ciphertext, BINARY)
        read, template = read_ciphertext(archive)
        assert write_ciphertext(template, read) == archive
    archive = openfhe.SerializeEvalMultKeyString(BINARY, party.tag)
    key, template = read_relinearization_key(archive)
    again = write_relinearization_key(template, party.tag, key.special_moduli, key.limbs)
    assert again == archive


def test_a_context_set_up_for_bootstrapping_is_read_and_written() -> None:
    context = make_context((*BASIC, "ADVANCEDSHE", "FHE"), depth=20, dnum=3)
    context.EvalBootstrapSetup([2, 2], [0, 0], 64)
    party = Party(context, context.KeyGen())
    archive = openfhe.Serialize(party.encrypt(values(0)), BINARY)
    ciphertext, template = read_ciphertext(archive)
    assert write_ciphertext(template, ciphertext) == archive


def test_a_sum_of_limbs_decrypts_to_the_sum_of_values(party: Party) -> None:
    a, template = read_ciphertext(openfhe.Serialize(party.encrypt(values(1), 1), BINARY))
    b, _ = read_ciphertext(openfhe.Serialize(party.encrypt(values(2), 1), BINARY))
    moduli = np.array(template.moduli[: a.limbs.shape[1]], dtype=np.uint64)[:, None]
    total = replace(a, limbs=(a.limbs + b.limbs) % moduli, objects=())
    loaded = openfhe.DeserializeCiphertextString(write_ciphertext(template, total), BINARY)
    assert np.abs(party.decrypt(loaded) - values(1) - values(2)).max() < 1e-7
    squared = party.context.EvalMult(loaded, loaded)
    assert np.abs(party.decrypt(squared) - (values(1) + values(2)) ** 2).max() < 1e-6


def test_the_public_key_encrypts_zero_as_its_own_limbs(party: Party) -> None:
    """(b, a) is an encryption of 0, so it decrypts to small values in OpenFHE."""
    key, template = read_public_key(openfhe.Serialize(party.pair.publicKey, BINARY))
    assert key.key_tag == party.tag
    fresh, _ = read_ciphertext(openfhe.Serialize(party.encrypt(values(0)), BINARY))
    as_ciphertext = replace(fresh, limbs=key.limbs)
    assert key.limbs.shape == fresh.limbs.shape
    loaded = openfhe.DeserializeCiphertextString(write_ciphertext(template, as_ciphertext), BINARY)
    assert np.abs(party.decrypt(loaded)).max() < 1e-7


def test_evaluation_keys_read_and_written_again_are_the_same_bytes(party: Party) -> None:
    relin_archive = openfhe.SerializeEvalMultKeyString(BINARY, party.tag)
    relin, template = read_relinearization_key(relin_archive)
    chosen = choose_moduli(LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM)
    assert relin.special_moduli == chosen.special_moduli
    assert relin.limbs.shape == (2, DNUM, DEPTH + 1 + len(chosen.special_moduli), 1 << LOG_N)
    written = write_relinearization_key(template, party.tag, relin.special_moduli, relin.limbs)
    assert written == relin_archive
    archive = openfhe.SerializeEvalAutomorphismKeyString(BINARY, party.tag)
    keys, template = read_automorphism_keys(archive)
    elements = {party.context.FindAutomorphismIndex(step % (2 * SLOTS)) for step in (1, 2)}
    assert elements < set(keys)
    assert len(keys) == 3
    limbs = {element: key.limbs for element, key in keys.items()}
    again = write_automorphism_keys(template, party.tag, relin.special_moduli, limbs)
    assert again == archive
    for key in (relin, *keys.values()):
        alone = write_switching_key(template, party.tag, key.special_moduli, key.limbs)
        assert openfhe.Serialize(openfhe.DeserializeEvalKeyString(alone, BINARY), BINARY) == alone


def test_a_trimmed_key_is_kept_by_openfhe_with_the_limbs_it_has(party: Party) -> None:
    relin, template = read_relinearization_key(
        openfhe.SerializeEvalMultKeyString(BINARY, party.tag)
    )
    special = len(relin.special_moduli)
    full = write_switching_key(template, party.tag, relin.special_moduli, relin.limbs)
    few = np.delete(relin.limbs[:, :1], range(2, relin.limbs.shape[2] - special), axis=2)
    written = write_switching_key(template, party.tag, relin.special_moduli, few)
    assert len(full) - len(written) > relin.limbs.nbytes - few.nbytes
    loaded = openfhe.DeserializeEvalKeyString(written, BINARY)
    assert openfhe.Serialize(loaded, BINARY) == written
    none = few[:, :, :special]
    with pytest.raises(ForeignBytesError, match="limbs for Q"):
        write_switching_key(template, party.tag, relin.special_moduli, none)


def test_a_keys_halves_are_b_and_a_in_this_order(party: Party) -> None:
    """b + a s is small modulo the special primes, where the key's payload is zero."""
    relin, template = read_relinearization_key(
        openfhe.SerializeEvalMultKeyString(BINARY, party.tag)
    )
    secret = secret_coefficients(party)
    prime, at = relin.special_moduli[0], len(template.moduli)
    s = evaluations(secret, prime)
    b, a = (relin.limbs[half, 0, at].astype(object) for half in (0, 1))
    phase = coefficients((b + a * s) % prime, prime)
    centred = np.where(phase > prime // 2, phase - prime, phase)
    assert np.abs(centred).max() < 64
    swapped = coefficients((a + b * s) % prime, prime)
    assert np.abs(np.where(swapped > prime // 2, swapped - prime, swapped)).max() > 2**50


def secret_coefficients(party: Party) -> "np.ndarray[Any, Any]":
    """The ternary secret, from the first limb of OpenFHE's archive of the secret key."""
    archive = openfhe.Serialize(party.pair.secretKey, BINARY)
    template = template_from_context(openfhe.Serialize(party.context, BINARY))
    n, q0 = 1 << LOG_N, template.moduli[0]
    at = archive.index(n.to_bytes(8, "little"), archive.index(party.tag.encode())) + 8
    limb = np.frombuffer(archive, dtype="<u8", count=n, offset=at).astype(object)
    found = coefficients(limb, q0)
    secret = np.where(found == q0 - 1, -1, found)
    assert set(secret) <= {-1, 0, 1}
    return secret


def bit_reversed(n: int) -> "np.ndarray[Any, Any]":
    width = n.bit_length() - 1
    return np.array([int(format(k, f"0{width}b")[::-1], 2) for k in range(n)])


def evaluations(polynomial: "np.ndarray[Any, Any]", prime: int) -> "np.ndarray[Any, Any]":
    """Evaluate at psi^(2 bitrev(k) + 1), straight from the definition."""
    n = len(polynomial)
    psi = smallest_root(prime, LOG_N)
    powers = np.array([pow(psi, i, prime) for i in range(2 * n)], dtype=object)
    exponents = 2 * bit_reversed(n) + 1
    columns = np.arange(n)
    return np.array(
        [int((powers[(e * columns) % (2 * n)] * polynomial).sum()) % prime for e in exponents],
        dtype=object,
    )


def coefficients(values_: "np.ndarray[Any, Any]", prime: int) -> "np.ndarray[Any, Any]":
    """Undo `evaluations`, straight from the definition."""
    n = len(values_)
    inverse_psi = pow(smallest_root(prime, LOG_N), -1, prime)
    powers = np.array([pow(inverse_psi, i, prime) for i in range(2 * n)], dtype=object)
    exponents = 2 * bit_reversed(n) + 1
    scale = pow(n, -1, prime)
    return np.array(
        [
            int((powers[(exponents * i) % (2 * n)] * values_).sum()) * scale % prime
            for i in range(n)
        ],
        dtype=object,
    )
