import contextlib
import hashlib
import random
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

openfhe = pytest.importorskip("openfhe")

from tacit.errors import ForeignBytesError  # noqa: E402
from tacit.moduli import choose_moduli, flexible_scales, smallest_root  # noqa: E402
from tacit.openfhe_bytes import (  # noqa: E402
    read_ciphertext,
    read_public_key,
    template_from_ciphertext,
    template_from_context,
    write_ciphertext,
)
from tacit.openfhe_keys import (  # noqa: E402
    read_automorphism_keys,
    read_relinearization_key,
    write_automorphism_keys,
    write_relinearization_key,
)
from tacit.wire import (  # noqa: E402
    Ciphertext,
    CiphertextExpectation,
    EvaluationKey,
    KeyKind,
    decode_ciphertext,
    encode_ciphertext,
    encode_evaluation_key,
    frame_digest,
    key_id,
)

BINARY = openfhe.BINARY
BASIC = ("PKE", "KEYSWITCH", "LEVELEDSHE")
LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM = 10, 4, 40, 50, 2
SLOTS = 1 << (LOG_N - 1)
DIGEST = hashlib.sha256(b"parameters of this test").digest()


def make_context(features: tuple[str, ...] = BASIC, depth: int = DEPTH, dnum: int = DNUM) -> Any:
    params = openfhe.CCParamsCKKSRNS()
    params.SetSecurityLevel(openfhe.SecurityLevel.HEStd_NotSet)
    params.SetRingDim(1 << LOG_N)
    params.SetMultiplicativeDepth(depth)
    params.SetScalingModSize(LOG_SCALE)
    params.SetFirstModSize(LOG_FIRST)
    params.SetScalingTechnique(openfhe.FLEXIBLEAUTO)
    params.SetKeySwitchTechnique(openfhe.HYBRID)
    params.SetNumLargeDigits(dnum)
    context = openfhe.GenCryptoContext(params)
    for feature in features:
        context.Enable(getattr(openfhe.PKESchemeFeature, feature))
    return context


@dataclass(frozen=True)
class Party:
    """A context with keys for products and the rotations 1, 2 and -3."""

    context: Any
    pair: Any

    @property
    def tag(self) -> str:
        return str(self.pair.secretKey.GetKeyTag())

    def encrypt(self, values: "np.ndarray[Any, Any]", dropped: int = 0) -> Any:
        plain = self.context.MakeCKKSPackedPlaintext(values, 1, dropped)
        return self.context.Encrypt(self.pair.publicKey, plain)

    def decrypt(self, ciphertext: Any) -> "np.ndarray[Any, Any]":
        plain = self.context.Decrypt(ciphertext, self.pair.secretKey)
        plain.SetLength(SLOTS)
        return np.array(plain.GetRealPackedValue())


@pytest.fixture(scope="module")
def party() -> Party:
    context = make_context()
    pair = context.KeyGen()
    context.EvalMultKeyGen(pair.secretKey)
    context.EvalRotateKeyGen(pair.secretKey, [1, 2, -3])
    return Party(context, pair)


def values(seed: int) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(seed).uniform(-1, 1, SLOTS)


def product(party: Party, factors: int) -> Any:
    """A product of fresh ciphertexts: OpenFHE level factors - 2, degree 2."""
    result = party.encrypt(values(0))
    for _ in range(factors - 1):
        result = party.context.EvalMult(result, party.encrypt(values(0)))
    return result


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


OTHER_PROCESS = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import openfhe
    from tacit.moduli import choose_moduli, flexible_scales
    from tacit.openfhe_bytes import (
        ForeignCiphertext, read_ciphertext, template_from_context, write_ciphertext,
    )
    from tacit.openfhe_keys import write_automorphism_keys, write_relinearization_key
    from tacit.wire import (
        Ciphertext, CiphertextExpectation, KeyExpectation, KeyKind, decode_ciphertext,
        decode_evaluation_key, encode_ciphertext,
    )

    folder = Path(sys.argv[1])
    digest = bytes.fromhex(sys.argv[2])
    log_n, depth, log_scale, log_first, dnum = (int(text) for text in sys.argv[3:8])
    tag = "a tag of the worker's own choice"
    params = openfhe.CCParamsCKKSRNS()
    params.SetSecurityLevel(openfhe.SecurityLevel.HEStd_NotSet)
    params.SetRingDim(1 << log_n)
    params.SetMultiplicativeDepth(depth)
    params.SetScalingModSize(log_scale)
    params.SetFirstModSize(log_first)
    params.SetScalingTechnique(openfhe.FLEXIBLEAUTO)
    params.SetKeySwitchTechnique(openfhe.HYBRID)
    params.SetNumLargeDigits(dnum)
    context = openfhe.GenCryptoContext(params)
    for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE"):
        context.Enable(getattr(openfhe.PKESchemeFeature, feature))
    template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
    chosen = choose_moduli(log_n, depth, log_scale, log_first, dnum)
    expected = KeyExpectation(digest, log_n, chosen.moduli, chosen.special_moduli, dnum)
    for path in sorted(folder.glob("key-*")):
        key = decode_evaluation_key(path.read_bytes(), expected)
        if key.kind is KeyKind.RELINEARIZATION:
            openfhe.DeserializeEvalMultKeyString(
                write_relinearization_key(template, tag, chosen.special_moduli, key.limbs),
                openfhe.BINARY,
            )
        else:
            archive = write_automorphism_keys(
                template, tag, chosen.special_moduli, {key.galois_element: key.limbs}
            )
            openfhe.DeserializeEvalAutomorphismKeyString(archive, openfhe.BINARY)
    scales = flexible_scales(chosen.moduli, log_scale)
    frame = (folder / "input").read_bytes()
    sent = decode_ciphertext(frame, CiphertextExpectation(digest, log_n, chosen.moduli, scales))
    foreign = ForeignCiphertext(
        sent.limbs, depth - sent.level, sent.degree, sent.scale, sent.slots, tag
    )
    x = openfhe.DeserializeCiphertextString(write_ciphertext(template, foreign), openfhe.BINARY)
    y = context.EvalRotate(context.EvalMult(context.EvalMult(x, x), x), 2)
    y = context.EvalAdd(y, context.EvalRotate(x, -3))
    result, _ = read_ciphertext(openfhe.Serialize(y, openfhe.BINARY))
    answer = Ciphertext(
        result.limbs, depth - result.level, result.noise_scale_degree, result.scaling_factor,
        result.slots, digest, sent.key_id,
    )
    (folder / "output").write_bytes(encode_ciphertext(answer, chosen.moduli))
    """
)


def wire_ciphertext(archive: bytes, key_name: bytes) -> Ciphertext:
    read, _ = read_ciphertext(archive)
    return Ciphertext(
        read.limbs,
        DEPTH - read.level,
        read.noise_scale_degree,
        read.scaling_factor,
        read.slots,
        DIGEST,
        key_name,
    )


def send_keys(party: Party, folder: Path) -> bytes:
    chosen = choose_moduli(LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM)
    relin, _ = read_relinearization_key(openfhe.SerializeEvalMultKeyString(BINARY, party.tag))
    rotations, _ = read_automorphism_keys(
        openfhe.SerializeEvalAutomorphismKeyString(BINARY, party.tag)
    )
    keys = [EvaluationKey(relin.limbs, KeyKind.RELINEARIZATION, 0, DIGEST)]
    for element, key in rotations.items():
        keys.append(EvaluationKey(key.limbs, KeyKind.ROTATION, element, DIGEST))
    digests: list[bytes] = []
    for i, wire_key in enumerate(keys):
        frame = encode_evaluation_key(wire_key, chosen.moduli, chosen.special_moduli)
        (folder / f"key-{i}").write_bytes(frame)
        digests.append(frame_digest(frame))
    return key_id(DIGEST, digests)


def test_another_process_computes_on_wire_frames_under_a_key_tag_of_its_own(
    party: Party, tmp_path: Path
) -> None:
    chosen = choose_moduli(LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM)
    name = send_keys(party, tmp_path)
    x = values(7)
    sent = wire_ciphertext(openfhe.Serialize(party.encrypt(x), BINARY), name)
    (tmp_path / "input").write_bytes(encode_ciphertext(sent, chosen.moduli))
    script = tmp_path / "worker.py"
    script.write_text(OTHER_PROCESS)
    source = str(Path(__file__).parents[2] / "src")
    numbers = [str(number) for number in (LOG_N, DEPTH, LOG_SCALE, LOG_FIRST, DNUM)]
    launch = (
        f"import sys, runpy; sys.path.insert(0, {source!r}); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0])"
    )
    subprocess.run(
        [sys.executable, "-c", launch, str(script), str(tmp_path), DIGEST.hex(), *numbers],
        check=True,
        timeout=120,
    )
    scales = flexible_scales(chosen.moduli, LOG_SCALE)
    expected = CiphertextExpectation(DIGEST, LOG_N, chosen.moduli, scales, key_id=name)
    answer = decode_ciphertext((tmp_path / "output").read_bytes(), expected)
    fresh, template = read_ciphertext(openfhe.Serialize(party.encrypt(x), BINARY))
    foreign = replace(
        fresh,
        limbs=answer.limbs,
        level=DEPTH - answer.level,
        noise_scale_degree=answer.degree,
        scaling_factor=answer.scale,
        objects=(),
    )
    loaded = openfhe.DeserializeCiphertextString(write_ciphertext(template, foreign), BINARY)
    expected_values = np.roll(x**3, -2) + np.roll(x, 3)
    assert np.abs(party.decrypt(loaded) - expected_values).max() < 1e-6


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
