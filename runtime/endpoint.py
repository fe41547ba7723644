"""The endpoint behind both protocols: finds model, plan and key, queues, counts, audits.

Nothing here knows HTTP or gRPC; nothing here opens a ciphertext. Frames are checked by the worker.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tacit.errors import (
    InputShapeError,
    KeyMismatchError,
    ModelChangedError,
    OversizedError,
    TacitError,
    UnknownKeyError,
)
from tacit.runtime.audit import AuditLog
from tacit.runtime.batcher import Batcher
from tacit.runtime.metrics import Metrics
from tacit.runtime.refusals import AbandonedError, BadRequestError, ForbiddenError
from tacit.runtime.replays import Replays
from tacit.runtime.repository import ModelVersion, Repository
from tacit.runtime.requests import Frame, InferAnswer, InferRequest, Lane, Scalar
from tacit.runtime.statuses import code_of
from tacit.runtime.tensors import element_count
from tacit.signature import Plan, Signature

_LOG = logging.getLogger("tacit.runtime.requests")
KEY_HEADER = "tacit-key-id"
_KEY_ID = re.compile(r"[0-9a-f]{64}")
# Bytes a frame may have beyond its residues: header, checksum, and the BYTES length prefix.
_FRAME_OVERHEAD = 1024


class KeyFinder(Protocol):
    """Says whether a key may be used with a model."""

    def require(self, tenant: str, key_id: str, signature: Signature) -> None:
        """Return if the tenant's key is complete and fits.

        Raises:
            UnknownKeyError, ExpiredKeyError, ParameterMismatchError.
        """
        ...


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one request.

    Attributes:
        evaluations: circuit evaluations per request.
        body_bytes: bytes of a request body, whatever the model.
        seconds: deadline; a request may ask for less.
    """

    evaluations: int = 64
    body_bytes: int = 1 << 30
    seconds: float = 600.0


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """Everything one server knows; `frame_key` reads the key id out of a ciphertext frame."""

    repository: Repository
    keys: KeyFinder
    batcher: Batcher
    metrics: Metrics
    replays: Replays
    limits: RequestLimits
    frame_key: Callable[[Frame], str]
    audit: AuditLog | None = None
    administrators: frozenset[str] = frozenset()

    def load(self, tenant: str, model: str) -> None:
        """Load a model again from disk.

        Raises:
            ForbiddenError: the tenant is no administrator.
            UnknownModelError, ArtifactError: see `Repository.load`.
        """
        self._administrate(tenant, "load", model)
        self.repository.load(model)

    def unload(self, tenant: str, model: str) -> None:
        """Stop offering a model.

        Raises:
            ForbiddenError: the tenant is no administrator.
            UnknownModelError: it is not loaded.
        """
        self._administrate(tenant, "unload", model)
        self.repository.unload(model)

    async def infer(self, request: InferRequest) -> InferAnswer:
        """Answer an inference request.

        Raises:
            TacitError: see `tacit.runtime.statuses`.
        """
        start = time.monotonic()
        received = sum(len(frame) for frame in request.frames)
        model = self.repository.find(request.model, request.version)
        try:
            answer = await self._answer(request, model)
        except BaseException as error:
            self.metrics.failed(model.name, model.version, time.monotonic() - start)
            self._audit(request, model, received, _outcome(error))
            raise
        seconds = time.monotonic() - start
        self.metrics.answered(answer, seconds, received, time.time_ns() // 1_000_000)
        self._audit(request, model, received, "ok")
        return answer

    def body_limit(self, model: ModelVersion) -> int:
        """Largest request body that can be right for a model."""
        signature = model.signature
        largest = max(_evaluation_bytes(signature, plan) for plan in signature.plans)
        return min(self.limits.body_bytes, self.limits.evaluations * largest + _FRAME_OVERHEAD**2)

    def _administrate(self, tenant: str, event: str, model: str) -> None:
        if tenant not in self.administrators:
            raise ForbiddenError("loading and unloading models is for administrators")
        if self.audit is not None:
            self.audit.record(event, {"tenant": tenant, "model": model})

    async def _answer(self, request: InferRequest, model: ModelVersion) -> InferAnswer:
        _check_compilation(request, model)
        plan = _plan_of(request, model.signature)
        evaluations = self._evaluations(request, plan)
        key_id = self._key_id(request)
        self.keys.require(request.tenant, key_id, model.signature)
        seconds = self._seconds(request)
        digest = model.signature.private_digest
        lane = Lane(model.name, model.version, digest, plan.name, request.tenant, key_id)
        nonce = _text(request, "nonce")
        if nonce:
            self.replays.claim(request.tenant, key_id, nonce)
        try:
            result, waited = await self.batcher.submit(lane, model, request.frames, seconds)
        except BaseException:
            self.replays.forget(request.tenant, key_id, nonce)
            raise
        parameters: dict[str, Scalar] = {
            "plan": plan.name,
            "evaluate_seconds": round(result.timing.evaluate_seconds, 6),
            "decode_seconds": round(result.timing.decode_seconds, 6),
            "encode_seconds": round(result.timing.encode_seconds, 6),
            "queue_seconds": round(waited, 6),
        }
        shape = (evaluations, len(result.frames) // evaluations)
        return InferAnswer(
            model.name,
            model.version,
            request.id,
            shape,
            result.frames,
            parameters,
            result.timing,
            waited,
        )

    def _evaluations(self, request: InferRequest, plan: Plan) -> int:
        count = element_count(request.shape)
        wanted = ciphertexts_of(plan)
        if request.shape[1] != wanted or count != len(request.frames):
            raise InputShapeError(
                f"plan {plan.name!r} takes shape [evaluations, {wanted}], got "
                f"{list(request.shape)} with {len(request.frames)} ciphertexts"
            )
        if request.shape[0] > self.limits.evaluations:
            raise OversizedError(
                f"{request.shape[0]} evaluations in one request, at most "
                f"{self.limits.evaluations} are accepted: send several requests"
            )
        return request.shape[0]

    def _key_id(self, request: InferRequest) -> str:
        named = {k for k in (request.key_header, _text(request, "key_id")) if k}
        if len(named) > 1:
            raise KeyMismatchError(f"header {KEY_HEADER} and parameter key_id name different keys")
        key_id = named.pop() if named else self.frame_key(request.frames[0])
        if not _KEY_ID.fullmatch(key_id):
            raise UnknownKeyError("a key id has 64 hexadecimal digits")
        return key_id

    def _seconds(self, request: InferRequest) -> float:
        wanted = request.parameters.get("timeout", 0)
        if isinstance(wanted, bool | str) or not math.isfinite(wanted) or wanted < 0:
            raise BadRequestError("parameter `timeout` is a number of microseconds")
        return min(self.limits.seconds, wanted / 1e6) if wanted else self.limits.seconds

    def _audit(
        self, request: InferRequest, model: ModelVersion, received: int, outcome: str
    ) -> None:
        fields = {
            "tenant": request.tenant,
            "model": model.name,
            "version": model.version,
            "key_id": request.key_header or str(request.parameters.get("key_id", ""))[:64],
            "shape": list(request.shape),
            "received_bytes": received,
            "outcome": outcome,
        }
        _LOG.info("infer %s", json.dumps(fields))
        if self.audit is not None:
            self.audit.record("infer", fields)


def ciphertexts_of(plan: Plan) -> int:
    """Ciphertexts of one evaluation's inputs."""
    return sum(spec.layout.ciphertexts for spec in plan.inputs)


def outputs_of(plan: Plan) -> int:
    """Ciphertexts of one evaluation's outputs."""
    return sum(spec.layout.ciphertexts for spec in plan.outputs)


def _evaluation_bytes(signature: Signature, plan: Plan) -> int:
    return sum(
        spec.layout.ciphertexts * (signature.params.ciphertext_bytes(spec.level) + _FRAME_OVERHEAD)
        for spec in plan.inputs
    )


def _check_compilation(request: InferRequest, model: ModelVersion) -> None:
    """Refuse a request packed for another compilation of the same version."""
    expected = _text(request, "model_digest")
    if expected and expected != model.signature.private_digest:
        raise ModelChangedError(
            f"model {model.name!r} version {model.version} was compiled again since its signature "
            "was read: read the signature again, then encrypt and ask again"
        )


def _plan_of(request: InferRequest, signature: Signature) -> Plan:
    name = _text(request, "plan")
    if not name:
        return signature.plans[0]
    names: Sequence[str] = [plan.name for plan in signature.plans]
    if name not in names:
        raise BadRequestError(f"no plan {name[:64]!r}: this model has {list(names)}")
    return signature.plan(name)


def _text(request: InferRequest, name: str) -> str:
    value = request.parameters.get(name, "")
    if not isinstance(value, str):
        raise BadRequestError(f"parameter `{name}` must be a text")
    return value


def _outcome(error: BaseException) -> str:
    if isinstance(error, TacitError):
        return code_of(error)
    return AbandonedError.code if not isinstance(error, Exception) else code_of(error)
