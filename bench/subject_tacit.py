"""Tacit: compile, make keys, evaluate in process; then the same through the HTTP endpoint.

`server_seconds` is the evaluation only, ciphertext objects in, ciphertext objects out, as for the
peers; `session_seconds` adds reading, checking and writing the wire format around it.
`end_to_end_seconds` is what a user of `tacit.Client` waits for: encoding, encryption, transport,
queue, evaluation, decryption, with keys uploaded beforehand. Variants:

    on_server    input scaling and the final sigmoid are computed encrypted, not at the client
    in_process   the main variant without an endpoint
    all_threads  the same, with as many threads as there are cores, as the peers have
    openfhe      compiled for and computed by OpenFHE, the oracle, instead of the native engine
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.endpoint import Endpoint
from bench.worker import (
    Array,
    Measured,
    Ready,
    Round,
    Worker,
    Workload,
    rows_at,
    serve,
    threads_allowed,
)
from tacit.artifact import Artifact
from tacit.circuit import execute
from tacit.client.client import Client
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.op_times import Backend
from tacit.packing import core_inputs, model_outputs, pack, unpack
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.session import Session
from tacit.signature import Plan

NAME = "bench"


class TacitWorker:
    """Client and server in one process for the evaluation time, and an endpoint beside it."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="tacit-bench-")
        self._folder = Path(self._temporary.name)
        self._workload: Workload
        self._model: Artifact
        self._plan: Plan
        self._codec: Codec
        self._session: Session
        self._endpoint: Endpoint | None = None
        self._client: Client | None = None
        self._threads: ThreadPoolExecutor | None = None

    def setup(self, workload: Workload) -> Ready:
        """Compile, make keys, load them; start the endpoint and upload the keys."""
        self._workload = workload
        if workload.variant == "all_threads":
            self._threads = ThreadPoolExecutor(threads_allowed())
        start = time.perf_counter()
        self._compile()
        compiled_at = time.perf_counter()
        key_bytes = self._make_keys()
        seconds = time.perf_counter() - start
        if not workload.variant:
            self._endpoint = Endpoint(self._folder / "models", self._folder / "serve.log")
            self._client = Client(self._endpoint.url, keys=self._codec.keys, clip=True)
            self._client.upload_keys(NAME)
        rows = len(rows_at(workload, 0))
        extra = [
            Measured("predicted_seconds", self._plan.evaluations(rows) * self._plan.seconds, "s"),
            Measured("predicted_bits", self._plan.precision_bits, "bits"),
            Measured("compile_seconds", compiled_at - start, "s"),
            *self._simulate(),
        ]
        parameters = {**self._model.signature.params.to_json(), "plan": self._plan.name}
        threads = 1 if self._threads is None else threads_allowed()
        return Ready(parameters, threads, seconds, key_bytes, extra)

    def round(self, index: int) -> Round:
        """Predict one group of rows in process, then over HTTP."""
        rows = _model_rows(self._workload, index)
        start = time.perf_counter()
        evaluations = self._codec.encrypt(self._plan, self._packed(rows))
        encrypted_at, cpu_at = time.perf_counter(), time.process_time()
        result = self._session.run(self._plan.name, [f for frames in evaluations for f in frames])
        evaluated_at = time.perf_counter()
        share = (time.process_time() - cpu_at) / (evaluated_at - encrypted_at)
        answers = [bytes(frame) for frame in result.frames]
        size = len(answers) // len(evaluations)
        cut = [answers[at : at + size] for at in range(0, len(answers), size)]
        outputs = self._unpacked(self._codec.decrypt(self._plan, cut), len(rows))
        end = time.perf_counter()
        extra = [
            Measured("session_seconds", evaluated_at - encrypted_at, "s"),
            # What remains when others have the processor part of the time; of all threads.
            Measured("server_cpu_seconds", share * result.timing.evaluate_seconds, "s"),
        ]
        extra += self._round_trip(rows, outputs)
        client_seconds = end - evaluated_at + encrypted_at - start
        return Round(result.timing.evaluate_seconds, client_seconds, outputs.tolist(), extra)

    def close(self) -> None:
        """Stop the endpoint and remove the artifact and the keys."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._client is not None:
            self._client.close()
        if self._endpoint is not None:
            self._endpoint.close()
        self._temporary.cleanup()

    @property
    def _backend(self) -> BackendName:
        oracle = self._workload.variant == "openfhe"
        return BackendName.OPENFHE if oracle else BackendName.NATIVE

    def _compile(self) -> None:
        arrays = self._workload.arrays
        options = CompileOptions(
            name=NAME,
            calibration=arrays.get("raw_calibration", arrays["calibration"]),
            keep_on_server=self._workload.variant == "on_server",
            target=Backend(self._backend.value),
        )
        directory = self._folder / "models" / NAME / "1"
        self._model = compile_model(self._workload.onnx_path, directory, options=options)
        self._plan = self._model.signature.plan_for(len(rows_at(self._workload, 0)))

    def _make_keys(self) -> int:
        """Make keys for all plans, load them into a session; return the bytes a client uploads."""
        signature = self._model.signature
        keys = KeyPair.for_model(signature, self._folder / "frames")
        self._codec = Codec(signature, keys)
        frames = [keys.folder.file(entry).read_bytes() for entry in keys.facts.frames]
        self._session = Session.open(self._model, frames, self._threads, self._backend)
        return keys.facts.key_bytes

    def _simulate(self) -> list[Measured]:
        """Compare labels over many rows on the clear backend, where the workload asks for it."""
        arrays = self._workload.arrays
        if "simulation_inputs" not in arrays:
            return []
        rows = arrays["simulation_inputs"]
        plan, signature = self._plan, self._model.signature
        evaluator = ClearEvaluator(signature.params, noise=True)
        levels = [spec.level for spec in plan.inputs for _ in range(spec.layout.ciphertexts)]
        packed = self._packed(rows)
        inputs = [evaluator.encrypt(packed[:, i], level) for i, level in enumerate(levels)]
        answers = execute(self._model.circuits[plan.name], inputs, evaluator)
        vectors = np.stack([answer.values for answer in answers], axis=1)
        equal = self._unpacked(vectors, len(rows)).argmax(axis=1) == arrays["simulation_labels"]
        return [
            Measured("simulated_label_agreement", float(equal.mean()), "1"),
            Measured("simulated_rows", float(len(equal)), "1"),
        ]

    def _round_trip(self, rows: Array, outputs: Array) -> list[Measured]:
        """Have the same rows predicted over HTTP."""
        if self._client is None:
            return []
        start = time.perf_counter()
        remote = _scores(self._client.predict_all(NAME, rows))
        seconds = time.perf_counter() - start
        timings = self._client.last_timings
        return [
            Measured("end_to_end_seconds", seconds, "s"),
            Measured("sent_bytes", timings.sent_bytes, "bytes"),
            Measured("received_bytes", timings.received_bytes, "bytes"),
            Measured("end_to_end_difference", float(np.abs(remote - outputs).max()), "1"),
        ]

    def _packed(self, rows: Array) -> Array:
        """Run the prologue and pack; values outside the calibrated range are clipped."""
        signature = self._model.signature
        (name,) = signature.model_inputs
        return pack(self._plan, core_inputs(signature, {name: rows}), clip=True)

    def _unpacked(self, vectors: Array, rows: int) -> Array:
        core = unpack(self._plan, vectors, rows)
        return _scores(model_outputs(self._model.signature, core))


def _model_rows(workload: Workload, index: int) -> Array:
    """Return rows as the model expects them: unscaled, if the model scales."""
    name = "raw_inputs" if "raw_inputs" in workload.arrays else "inputs"
    return rows_at(workload, index, name)


def _scores(outputs: Mapping[str, Any]) -> Array:
    """Take the scores: the last output; of two class probabilities, the second."""
    scores = np.asarray(list(outputs.values())[-1], dtype=np.float64)
    scores = scores.reshape(len(scores), -1)
    return scores[:, 1:] if scores.shape[1] == 2 else scores


def make_worker() -> Worker:
    """Return the worker."""
    return TacitWorker()


if __name__ == "__main__":
    serve(make_worker)
