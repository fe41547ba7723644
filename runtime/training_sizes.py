"""How large a training's ciphertexts are, and what uploaded ones must be."""

from __future__ import annotations

from tacit import wire
from tacit.signature import TensorSpec
from tacit.training_plan import LABELS, VALIDATION, TrainingPlan

_FRAME_OVERHEAD = 4096


def _specs(view: TrainingPlan) -> list[TensorSpec]:
    return [spec for spec in view.upload.inputs for _ in range(spec.layout.ciphertexts)]


def upload_bytes(view: TrainingPlan) -> list[int]:
    """Return the greatest length of each frame of an upload."""
    params = view.signature.params
    return [params.ciphertext_bytes(spec.level) + _FRAME_OVERHEAD for spec in _specs(view)]


def job_bytes(view: TrainingPlan, uploads: int) -> int:
    """Return an upper bound of the bytes that a job's files take."""
    params, task = view.signature.params, view.task
    rows = (uploads + (uploads > 1)) * sum(upload_bytes(view))
    full = params.ciphertext_bytes(params.depth) + _FRAME_OVERHEAD
    each = 3 * 2 * full + len(view.ciphertexts(LABELS)) * full
    small = params.ciphertext_bytes(1) + _FRAME_OVERHEAD
    given = task.iterations + len(list(view.validated())) * len(view.ciphertexts(VALIDATION))
    return rows + task.classes * (each + given * small) + (task.features + 2) * small


def upload_expectation(view: TrainingPlan, place: int, key_id: str) -> wire.CiphertextExpectation:
    """Return what an uploaded frame must be."""
    spec, params = _specs(view)[place], view.signature.params
    return wire.CiphertextExpectation.exactly(
        params, spec.level, spec.degree, bytes.fromhex(key_id)
    )
