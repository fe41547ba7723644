"""A process that serves one plan of a model on the native engine, and weighs itself.

Keys and requests come from files, as from a network; the process makes nothing it would not need
as a server.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tacit import artifact, wire
from tacit.circuit import Circuit, execute
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeCiphertext, NativeKeys, load_keys
from tacit.runtime.key_rules import key_expectation
from tacit.signature import Signature

EVALUATIONS = 3
KEY_ID = bytes(32)


def weigh(directory: Path, plan_name: str, frames: Path) -> dict[str, int]:
    """Load a model and keys, answer requests, and return bytes by name.

    Args:
        directory: the artifact.
        plan_name: the plan.
        frames: folder with `key-*` and `input-*`, one frame each.
    """
    _warm_up()
    before = _status("VmRSS")
    model = artifact.load(directory)
    params, circuit = model.signature.params, model.circuits[plan_name]
    engine = NativeEngine(params)
    keys = load_keys(engine, KEY_ID, _evaluation_keys(model.signature, frames))
    evaluator = keys.evaluator(circuit)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    found: dict[str, int] = {}
    for _ in range(EVALUATIONS):
        found = _answer(keys, evaluator, circuit, frames)
    uploads = [path.stat().st_size for path in frames.glob("key-*")]
    return {
        "keys": keys.size_bytes,
        "key upload": sum(uploads),
        **found,
        "encoded constants": engine.plaintexts.used_bytes,
        "working arrays": engine.kernels.peak_bytes,
        "resident": _status("VmHWM") - before,
    }


def _answer(
    keys: NativeKeys, evaluator: NativeEvaluator, circuit: Circuit, frames: Path
) -> dict[str, int]:
    """Answer one request and return the sizes of what came and went."""
    received = [path.read_bytes() for path in sorted(frames.glob("input-*"))]
    inputs = [_ciphertext(keys, frame) for frame in received]
    outputs = execute(circuit, inputs, evaluator)
    moduli, raw = keys.engine.params.moduli, wire.Packing.RAW
    sent = [wire.encode_ciphertext(keys.frame(o), moduli, raw) for o in outputs]
    return {
        "input frames": sum(map(len, received)),
        "output frames": sum(map(len, sent)),
        "inputs": sum(x.limbs.nbytes for x in inputs),
        "outputs": sum(x.limbs.nbytes for x in outputs),
    }


def _warm_up() -> None:
    """Load what the first use of numpy and of the kernels loads."""
    NativeEngine(CryptoParams.choose(10, 1, 30, 40, 1, Security.UNCHECKED_INSECURE))
    np.fft.fft(np.zeros(64))


def _evaluation_keys(signature: Signature, frames: Path) -> Iterator[wire.EvaluationKey]:
    expected = key_expectation(signature)
    for path in sorted(frames.glob("key-*")):
        yield wire.decode_evaluation_key(path.read_bytes(), expected)


def _ciphertext(keys: NativeKeys, frame: bytes) -> NativeCiphertext:
    params = keys.engine.params
    expected = wire.CiphertextExpectation(
        params.digest,
        params.log_n,
        params.moduli,
        tuple(params.scale(level) for level in range(params.depth + 1)),
        frozenset(range(params.depth + 1)),
        (1,),
        slots=params.slots,
        key_id=KEY_ID,
    )
    return keys.ciphertext(wire.decode_ciphertext(frame, expected))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith(name))
    return int(kibibytes) * 1024


if __name__ == "__main__":
    json.dump(weigh(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])), sys.stdout)
