"""Operations of OpenFHE as frames of the wire format, to check a machine that has no OpenFHE.

    python -m bench.gpu.fixtures FILE     makes them; needs openfhe

The file is a zip of frames: for each parameter set its keys, two ciphertexts, and what OpenFHE
makes of them.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit import wire
from tacit.kernels.automorphism import rotation_element
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.params import CryptoParams, Security

Words = NDArray[np.uint64]
# log N, depth, bits of the scale, bits of the first prime, digits.
SETS = {
    "dnum1": (10, 3, 45, 55, 1),
    "dnum3": (10, 7, 50, 60, 3),
    "dnum8": (10, 7, 59, 60, 8),
    "large": (12, 4, 40, 50, 3),
}
STEP = 5
RESULTS = ("multiply", "rescale", "rotate")


def main() -> None:
    """Write the file that the command line names."""
    (target,) = sys.argv[1:]
    make(Path(target))


def make(path: Path) -> None:
    """Make all fixtures with OpenFHE."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, chosen in SETS.items():
            params = CryptoParams.choose(*chosen, Security.UNCHECKED_INSECURE)
            archive.writestr(f"{name}/params.json", json.dumps(params.to_json()))
            for part, frame in _frames(params):
                archive.writestr(f"{name}/{part}", frame)


def check(path: Path, kernels_of: Callable[[CryptoParams], CudaKernels]) -> int:
    """Repeat every operation and compare limb for limb.

    Args:
        path: of the fixtures.
        kernels_of: makes the kernels under test.

    Returns:
        How many ciphertexts were compared.

    Raises:
        AssertionError: limbs differ.
    """
    compared = 0
    with zipfile.ZipFile(path) as archive:
        for name in SETS:
            params = CryptoParams.from_json(json.loads(archive.read(f"{name}/params.json")))
            read = _Reader(archive, name, params)
            for part, found in _repeat(read, kernels_of(params)):
                np.testing.assert_array_equal(
                    found, read.ciphertext(part), err_msg=f"{name} {part}"
                )
                compared += 1
    return compared


class _Reader:
    """Frames of one parameter set."""

    def __init__(self, archive: zipfile.ZipFile, name: str, params: CryptoParams) -> None:
        self._archive = archive
        self._name = name
        self.params = params

    def key(self, part: str) -> Words:
        p = self.params
        expected = wire.KeyExpectation(p.digest, p.log_n, p.moduli, p.special_moduli, p.dnum)
        return wire.decode_evaluation_key(self._bytes(part), expected).limbs

    def ciphertext(self, part: str) -> Words:
        p = self.params
        scales = tuple(p.scale(level) for level in range(p.depth + 1))
        expected = wire.CiphertextExpectation(p.digest, p.log_n, p.moduli, scales)
        return wire.decode_ciphertext(self._bytes(part), expected).limbs

    def _bytes(self, part: str) -> bytes:
        return self._archive.read(f"{self._name}/{part}")


def _repeat(read: _Reader, cuda: CudaKernels) -> Iterator[tuple[str, Words]]:
    params = read.params
    element = rotation_element(params.log_n, STEP)
    relinearization = cuda.key_table([cuda.upload_key(read.key("relinearization"))])
    rotation = cuda.key_table([cuda.upload_key(read.key("rotation"))])

    def taken(part: str) -> DeviceArray:
        words = read.ciphertext(part)
        made: DeviceArray = cuda.upload(words[:, :, None])
        return made

    a, b = taken("a"), taken("b")
    product = cuda.multiply(a, b, relinearization)
    yield "multiply", cuda.download(product)[:, :, 0]
    yield "rescale", cuda.download(cuda.rescale(product))[:, :, 0]
    plus = (cuda.part(a, 0), None)
    (moved,) = cuda.switch_down(cuda.part(a, 1), [rotation], [cuda.galois(element)], plus=plus)
    yield "rotate", cuda.download(moved)[:, :, 0]


def _frames(params: CryptoParams) -> Iterator[tuple[str, bytes]]:
    """Yield what OpenFHE makes, its own rotation, without any correction."""
    import openfhe

    from tacit.openfhe_bytes import read_ciphertext
    from tacit.openfhe_keys import read_automorphism_keys, read_relinearization_key
    from tacit.runtime.backends.openfhe_parameters import make_context

    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    context.EvalRotateKeyGen(keys.secretKey, [STEP])
    tag = keys.publicKey.GetKeyTag()
    relinearization, _ = read_relinearization_key(
        openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
    )
    rotations, _ = read_automorphism_keys(
        openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
    )
    ((element, rotation),) = rotations.items()
    moduli, special, digest = params.moduli, params.special_moduli, params.digest
    for part, limbs, kind, galois in (
        ("relinearization", relinearization.limbs, wire.KeyKind.RELINEARIZATION, 0),
        ("rotation", rotation.limbs, wire.KeyKind.ROTATION, element),
    ):
        key = wire.EvaluationKey(limbs, kind, galois, digest)
        yield part, wire.encode_evaluation_key(key, moduli, special)
    rng = np.random.default_rng(params.dnum)
    a, b = (
        context.Encrypt(
            keys.publicKey, context.MakeCKKSPackedPlaintext(rng.uniform(-1, 1, params.slots))
        )
        for _ in range(2)
    )
    product = context.EvalMult(a, b)
    made = {"a": a, "b": b, "multiply": product, "rotate": context.EvalRotate(a, STEP)}
    made["rescale"] = context.Compress(product, params.depth, 1)
    for part, ciphertext in made.items():
        foreign, _ = read_ciphertext(openfhe.Serialize(ciphertext, openfhe.BINARY))
        level, degree = params.depth - foreign.level, foreign.noise_scale_degree
        scale = params.scale(level) ** degree
        frame = wire.Ciphertext(
            foreign.limbs, level, degree, scale, params.slots, digest, bytes(32)
        )
        yield part, wire.encode_ciphertext(frame, moduli)


if __name__ == "__main__":
    main()
