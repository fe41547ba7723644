"""Runs compiled models on ciphertexts of tiny insecure rings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tacit import packing
from tacit.artifact import Artifact
from tacit.circuit import execute
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.loading import BackendName

Array = NDArray[Any]


def tiny_insecure(depth: int, log_n: int = 11) -> CryptoParams:
    """Return parameters with enough levels and no security at all."""
    return CryptoParams.choose(log_n, depth, 45, 55, 3, Security.UNCHECKED_INSECURE)


def run_encrypted(
    artifact: Artifact, rows: Mapping[str, Array], plan_name: str = "latency"
) -> dict[str, Array]:
    """Encrypt rows with OpenFHE, evaluate natively, decrypt, and run the epilogue."""
    from tests.conformance.exchange import make_exchange

    signature = artifact.signature
    plan = signature.plan(plan_name)
    exchange = make_exchange(signature.params, plan.rotations or (1,))
    count = len(next(iter(rows.values())))
    vectors = packing.pack(plan, packing.core_inputs(signature, rows))
    levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
    answers = []
    for evaluation in vectors:
        inputs = [
            exchange.to_native(exchange.encrypt(values, level))
            for values, level in zip(evaluation, levels, strict=True)
        ]
        results = execute(artifact.circuits[plan_name], inputs, exchange.native)
        answers.append([exchange.decrypt(exchange.to_openfhe(result)) for result in results])
    return packing.model_outputs(signature, packing.unpack(plan, np.asarray(answers), count))


def run_bootstrapped(
    artifact: Artifact,
    rows: Mapping[str, Array],
    keys_folder: Path,
    backend: BackendName = BackendName.NATIVE,
) -> dict[str, Array]:
    """Do all that client and server do, with keys in a folder."""
    from tacit.client.codec import Codec
    from tacit.client.keys import KeyPair
    from tacit.runtime.session import Session

    signature = artifact.signature
    keys = KeyPair.for_model(signature, keys_folder, allow_insecure=True)
    frames = [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]
    session = Session.open(artifact, frames, backend=backend)
    codec, plan = Codec(signature, keys), signature.plan("latency")
    count = len(next(iter(rows.values())))
    vectors = packing.pack(plan, packing.core_inputs(signature, rows))
    answers = [
        [bytes(frame) for frame in session.run("latency", frames).frames]
        for frames in codec.encrypt(plan, vectors)
    ]
    slots = codec.decrypt(plan, answers)
    return packing.model_outputs(signature, packing.unpack(plan, slots, count))
