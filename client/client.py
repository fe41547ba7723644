"""The client: predictions on encrypted rows, in one call.

    client = tacit.Client("http://localhost:8000")
    probabilities = client.predict("heart", rows)

The first call for a model makes keys, keeps them in the key directory and uploads the evaluation
keys; later ones reuse them. Rows are encrypted here, and only ciphertexts travel.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tacit.client.closing import Closing
from tacit.client.codec import Codec
from tacit.client.frames import Progress, no_progress
from tacit.client.key_ring import KeyRing, default_directory
from tacit.client.keys import KeyPair
from tacit.client.probes import Probes, no_known_answer
from tacit.client.rows import Array, Inputs, choose_plan, named_inputs, request_parts
from tacit.client.service import ModelEntry, Service
from tacit.client.timings import Stopwatch, Timings
from tacit.client.transport import Question, tensor_bytes, transport_for
from tacit.client.upload import upload_keys
from tacit.errors import (
    ExpiredKeyError,
    ParameterMismatchError,
    ServiceError,
    UnknownKeyError,
    UnknownModelError,
    UserError,
)
from tacit.known_answer import check_probe
from tacit.packing import core_inputs, known_vectors, model_outputs, pack, unpack
from tacit.signature import Plan, Signature

Floats = NDArray[np.float64]

_LOG = logging.getLogger("tacit.client")


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """A model version under the name the server gives it, which the signature may not know."""

    name: str
    version: str
    signature: Signature


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What one prediction needs."""

    served: _Served
    keys: KeyPair
    plan: Plan
    watch: Stopwatch


class Client(Closing):
    """Asks one server; a context manager, safe to use from several threads.

    Attributes:
        url: of the server's HTTP port.
        ring: the key directory.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        keys: KeyPair | None = None,
        key_dir: Path | str | None = None,
        passphrase: str | None = None,
        transport: Literal["http", "grpc"] = "http",
        grpc_url: str | None = None,
        timeout: float = 600.0,
        clip: bool = False,
        probe_every: int = 0,
        allow_insecure: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """Prepare a client; nothing is sent and no key is made yet.

        Args:
            url: `http://host:port` or `https://…`, the server's HTTP port.
            token: bearer token, if the server wants one. Use https with it.
            keys: use these keys rather than those of the key directory.
            key_dir: where keys are kept; default `~/.local/share/tacit`.
            passphrase: protects the secret keys in it.
            transport: how ciphertexts travel; "http" is the cheaper one for large ciphertexts.
            grpc_url: host:port of the gRPC port; default the same host, port 8001.
            timeout: seconds to wait for one answer.
            clip: move inputs outside the calibrated range to its edge instead of refusing them.
            probe_every: with the first and then every so many predictions by plans that have no
                row for a known answer, send an evaluation whose answer is known; 0 for never. It
                costs as much as another row.
            allow_insecure: accept parameters below 128 bits; for tests only.
            progress: called with a stage, how much is done, and how much there is to do.

        Raises:
            UserError: not a URL, an unknown transport, or a negative `probe_every`.
        """
        if probe_every < 0:
            raise UserError(f"probe_every={probe_every}: a number of predictions is expected")
        self._service = Service(url, token=token, timeout=timeout)
        self.url = self._service.url
        directory = Path(key_dir) if key_dir is not None else default_directory()
        self.ring = KeyRing(directory, passphrase, allow_insecure)
        self._given_keys = keys
        self._transport = transport_for(transport, self.url, grpc_url, token, timeout)
        self._clip = clip
        self._probes = Probes(probe_every)
        self._progress = progress or no_progress
        self._lock = threading.RLock()
        self._known: dict[tuple[str, str | None], _Served] = {}
        self._loaded: dict[str, KeyPair] = {}
        self._uploaded: set[str] = set()
        self._last_timings: Timings | None = None

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    @property
    def last_timings(self) -> Timings:
        """Timings of the prediction that finished last.

        Raises:
            UserError: there was none yet.
        """
        if self._last_timings is None:
            raise UserError("no prediction has finished yet")
        return self._last_timings

    def models(self) -> tuple[ModelEntry, ...]:
        """List the models the server offers.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        return self._service.models()

    def signature(self, name: str, version: str | None = None) -> Signature:
        """Fetch a model's public half; it is remembered until the server says it changed.

        Raises:
            UnknownModelError: no such model or version.
            SecurityError: its parameters are below 128 bits.
            ServiceError: the server cannot be reached or refuses.
        """
        return self._served(name, version).signature

    def keys_for(self, name: str, version: str | None = None) -> KeyPair:
        """Return the keys for a model; made and kept if they are not there or too old.

        Raises:
            KeyFileError: the key directory cannot be read or written.
            ParameterMismatchError: keys were given, and they are not for this model.
        """
        return self._keys(self.signature(name, version))

    def upload_keys(self, name: str, version: str | None = None) -> int:
        """Upload the evaluation keys for a model; returns the bytes sent, 0 if they are there.

        Raises:
            ServiceError: the server cannot be reached or refuses.
        """
        signature = self.signature(name, version)
        return self._upload(self._keys(signature), signature)

    def check(self, name: str, *, version: str | None = None, plan: str | None = None) -> float:
        """Ask for one evaluation whose answer is known, and see that it came back right.

        Args:
            name, version, plan: as for `predict`.

        Returns:
            How far it is off, in half ranges of the outputs.

        Raises:
            UserError: the plan was compiled without a known answer.
            AnswerError: it came back wrong: other weights, keys or circuits, or a fault.
            ServiceError: the server cannot be reached or refuses.
        """
        watch = Stopwatch()
        served = self._served(name, version)
        signature = served.signature
        chosen = choose_plan(signature, plan, 1)
        vectors = known_vectors(chosen)
        if vectors is None:
            raise no_known_answer(name, chosen)
        keys = self._keys(signature)
        self._upload(keys, signature)
        slots = self._evaluate(_Job(served, keys, chosen, watch), vectors)
        return check_probe(signature.params, chosen, slots)

    def predict(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str | None = None,
        plan: str | None = None,
    ) -> Array:
        """Predict on encrypted rows; returns the model's first output.

        Args:
            name: of the model.
            inputs: the model's input, first axis = rows; or a dict of all its inputs.
            version: default the latest.
            plan: "latency", "batch", …; default the one predicted to be fastest.

        Raises:
            InputShapeError: another shape or dtype than the model takes.
            InputRangeError: a value outside the calibrated range, and not `clip`.
            UnknownModelError: no such model or version.
            ServiceError: the server cannot be reached or refuses.
            WireError: the answer is not what the model's signature says.
            AnswerError: the row or probe with a known answer, where one was sent, came back wrong.
        """
        outputs = self.predict_all(name, inputs, version=version, plan=plan)
        return next(iter(outputs.values()))

    def predict_all(
        self,
        name: str,
        inputs: Inputs,
        *,
        version: str | None = None,
        plan: str | None = None,
    ) -> dict[str, Array]:
        """Predict on encrypted rows; returns every output by name. See `predict`."""
        try:
            return self._predict(name, inputs, version, plan)
        except (ExpiredKeyError, ParameterMismatchError, UnknownModelError):
            self._renew(name, version)
            return self._predict(name, inputs, version, plan)

    def _predict(
        self, name: str, inputs: Inputs, version: str | None, plan_name: str | None
    ) -> dict[str, Array]:
        watch = Stopwatch()
        with watch.stage("signature"):
            served = self._served(name, version)
            signature = served.signature
        with watch.stage("prepare"):
            tensors = core_inputs(signature, named_inputs(signature, inputs))
            rows = len(next(iter(tensors.values())))
            plan = choose_plan(signature, plan_name, rows)
            vectors = pack(plan, tensors, clip=self._clip)
        with watch.stage("keys"):
            keys = self._keys(signature)
        with watch.stage("upload"):
            watch.uploaded_bytes = self._upload(keys, signature)
        probed = self._probes.among(name, plan, vectors)
        slots = self._evaluate(_Job(served, keys, plan, watch), probed.vectors)
        with watch.stage("finish"):
            slots = probed.checked(signature.params, slots)
            outputs = model_outputs(signature, unpack(plan, slots, rows))
        self._probes.count(name, plan)
        self._last_timings = watch.finish(plan.name, rows, len(probed.vectors))
        return outputs

    def _evaluate(self, job: _Job, vectors: Floats) -> Floats:
        """Encrypt, ask, decrypt, in requests of limited size."""
        codec = Codec(job.served.signature, job.keys)
        parts = []
        self._progress("predict", 0, len(vectors))
        for part in request_parts(codec.signature, job.plan, len(vectors)):
            with job.watch.stage("encrypt"):
                frames = codec.encrypt(job.plan, vectors[part])
            with job.watch.stage("request"):
                answer = self._ask(job, frames)
            with job.watch.stage("decrypt"):
                parts.append(codec.decrypt(job.plan, answer))
            self._progress("predict", part.stop, len(vectors))
        return np.concatenate(parts)

    def _ask(self, job: _Job, frames: list[list[bytes]]) -> list[list[bytes]]:
        """Send one request; if the server lost the keys, upload them and send it once more."""
        served, key_id = job.served, job.keys.key_id
        digest = served.signature.private_digest
        question = Question(served.name, served.version, job.plan.name, key_id, frames, digest)
        try:
            reply = self._transport.infer(question)
        except UnknownKeyError:
            with self._lock:
                self._uploaded.discard(key_id)
            job.watch.uploaded_bytes += self._upload(job.keys, served.signature)
            reply = self._transport.infer(question)
        if len(reply.frames) != len(frames):
            raise ServiceError(
                f"{len(frames)} evaluations were asked for, {len(reply.frames)} answered"
            )
        received = tensor_bytes(reply.frames)
        job.watch.answered(question.tensor_bytes, received, reply.server_ms)
        return reply.frames

    def _keys(self, signature: Signature) -> KeyPair:
        if self._given_keys is not None:
            self._given_keys.check(signature)
            return self._given_keys
        with self._lock:
            keys = self._loaded.get(signature.key_config)
            if keys is None or _is_expired(keys, signature):
                with self.ring.alone():
                    keys = self._found_or_made(signature)
                self._loaded[signature.key_config] = keys
            return keys

    def _found_or_made(self, signature: Signature) -> KeyPair:
        keys = self.ring.find(signature)
        if keys is None or _is_expired(keys, signature):
            return self.ring.make(signature, progress=self._progress)
        return keys

    def _upload(self, keys: KeyPair, signature: Signature) -> int:
        with self._lock:
            if keys.key_id in self._uploaded:
                return 0
            sent = upload_keys(self._service, keys, signature.key_config, self._progress)
            self._uploaded.add(keys.key_id)
            return sent

    def _served(self, name: str, version: str | None) -> _Served:
        with self._lock:
            known = self._known.get((name, version))
            if known is None:
                which = version or self._service.latest_version(name)
                known = _Served(name, which, self._service.signature(name, which))
                self._note_changes(known)
                self._known[name, version] = known
            return known

    def _renew(self, name: str, version: str | None) -> None:
        """Read the signature again; if it is the same as before, make new keys."""
        with self._lock:
            before = self._known.pop((name, version), None)
            now = self.signature(name, version)
            same = before is not None and now.digest == before.signature.digest
            if same and self._given_keys is None:
                self._loaded[now.key_config] = self.ring.make(now, progress=self._progress)

    def _note_changes(self, served: _Served) -> None:
        """Trust a signature on first use, and say so when it is another one later."""
        digest = served.signature.digest
        before = self.ring.pin(f"{self.url} {served.name} {served.version}", digest)
        if before not in ("", digest):
            _LOG.warning(
                "model %s version %s at %s is not the one seen before (signature %s, was %s): "
                "it was compiled again",
                served.name,
                served.version,
                self.url,
                digest[:12],
                before[:12],
            )


def _is_expired(keys: KeyPair, signature: Signature) -> bool:
    try:
        keys.check(signature)
    except ExpiredKeyError:
        return True
    return False
