"""Another process computes on what went over the wire."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np

from tacit.moduli import choose_moduli, flexible_scales
from tacit.openfhe_bytes import (
    read_ciphertext,
    write_ciphertext,
)
from tacit.openfhe_keys import (
    read_automorphism_keys,
    read_relinearization_key,
)
from tacit.wire import (
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
from tests.contract.foreign import (
    BINARY,
    DEPTH,
    DIGEST,
    DNUM,
    LOG_FIRST,
    LOG_N,
    LOG_SCALE,
    Party,
    openfhe,
    values,
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
