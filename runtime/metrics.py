"""Counters in the Prometheus text format and as KServe statistics.

Names that mean the same as Triton's carry Triton's names, without a `_total` suffix; our own start
with `tacit_`. Times are in microseconds where Triton's are, as the names say.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields

from tacit.runtime.requests import InferAnswer

_HELP = {
    "nv_inference_request_success": "Requests answered",
    "nv_inference_request_failure": "Requests refused or failed",
    "nv_inference_count": "Evaluations of a circuit",
    "nv_inference_exec_count": "Jobs handed to a worker",
    "nv_inference_request_duration_us": "Time from request to answer",
    "nv_inference_queue_duration_us": "Time waiting in a queue",
    "nv_inference_compute_input_duration_us": "Time checking and rebuilding ciphertexts",
    "nv_inference_compute_infer_duration_us": "Time evaluating circuits",
    "nv_inference_compute_output_duration_us": "Time writing answer frames",
    "tacit_received_bytes": "Ciphertext bytes received",
    "tacit_sent_bytes": "Ciphertext bytes sent",
    "tacit_refused": "Errors answered, by code",
}


@dataclass(slots=True)
class ModelCounts:
    """Sums over one model version since the start; durations in nanoseconds."""

    success: int = 0
    failure: int = 0
    inferences: int = 0
    executions: int = 0
    request_ns: int = 0
    failure_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    last_ms: int = 0


class Metrics:
    """All counters of one server; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelCounts] = {}
        self._refused: Counter[str] = Counter()
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def add_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show a value that is read when asked for."""
        self._gauges[name] = (help_text, read)

    def answered(
        self, answer: InferAnswer, seconds: float, received_bytes: int, now_ms: int
    ) -> None:
        """Count a request that was answered."""
        with self._lock:
            counts = self._of(answer.model, answer.version)
            counts.success += 1
            counts.inferences += answer.shape[0]
            counts.request_ns += _ns(seconds)
            counts.queue_ns += _ns(answer.queue_seconds)
            counts.input_ns += _ns(answer.timing.decode_seconds)
            counts.infer_ns += _ns(answer.timing.evaluate_seconds)
            counts.output_ns += _ns(answer.timing.encode_seconds)
            counts.received_bytes += received_bytes
            counts.sent_bytes += sum(len(frame) for frame in answer.frames)
            counts.last_ms = now_ms

    def executed(self, model: str, version: str) -> None:
        """Count a job handed to a worker."""
        with self._lock:
            self._of(model, version).executions += 1

    def failed(self, model: str, version: str, seconds: float) -> None:
        """Count a request for a loaded model that got an error."""
        with self._lock:
            counts = self._of(model, version)
            counts.failure += 1
            counts.failure_ns += _ns(seconds)

    def refused(self, code: str) -> None:
        """Count an error answer of any route by its code."""
        with self._lock:
            self._refused[code] += 1

    def counts(self, model: str, version: str) -> ModelCounts:
        """Return a copy of one version's sums; zeros if it was never asked."""
        with self._lock:
            counts = self._of(model, version)
            return ModelCounts(*(getattr(counts, f.name) for f in fields(ModelCounts)))

    def text(self) -> str:
        """Render everything in the Prometheus text format."""
        with self._lock:
            models = {key: _samples(counts) for key, counts in sorted(self._models.items())}
            refused = sorted(self._refused.items())
        return "".join(self._lines(models, refused))

    def _of(self, model: str, version: str) -> ModelCounts:
        return self._models.setdefault((model, version), ModelCounts())

    def _lines(
        self, models: Mapping[tuple[str, str], Mapping[str, int]], refused: list[tuple[str, int]]
    ) -> Iterator[str]:
        for name, help_text in _HELP.items():
            yield f"# HELP {name} {help_text}\n# TYPE {name} counter\n"
            if name == "tacit_refused":
                yield from (f'{name}{{code="{code}"}} {count}\n' for code, count in refused)
                continue
            for (model, version), samples in models.items():
                labels = f'model="{_label(model)}",version="{_label(version)}"'
                yield f"{name}{{{labels}}} {samples[name]}\n"
        for name, (help_text, read) in self._gauges.items():
            yield f"# HELP {name} {help_text}\n# TYPE {name} gauge\n{name} {read():g}\n"


def statistics(model: str, version: str, counts: ModelCounts) -> dict[str, object]:
    """Return one entry of the KServe statistics answer; times in nanoseconds, as the API says."""
    done = counts.success

    def duration(count: int, ns: int) -> dict[str, int]:
        return {"count": count, "ns": ns}

    return {
        "name": model,
        "version": version,
        "last_inference": counts.last_ms,
        "inference_count": counts.inferences,
        "execution_count": counts.executions,
        "inference_stats": {
            "success": duration(done, counts.request_ns),
            "fail": duration(counts.failure, counts.failure_ns),
            "queue": duration(done, counts.queue_ns),
            "compute_input": duration(done, counts.input_ns),
            "compute_infer": duration(done, counts.infer_ns),
            "compute_output": duration(done, counts.output_ns),
            "cache_hit": duration(0, 0),
            "cache_miss": duration(0, 0),
        },
        "batch_stats": [],
    }


def _samples(counts: ModelCounts) -> dict[str, int]:
    return {
        "nv_inference_request_success": counts.success,
        "nv_inference_request_failure": counts.failure,
        "nv_inference_count": counts.inferences,
        "nv_inference_exec_count": counts.executions,
        "nv_inference_request_duration_us": counts.request_ns // 1000,
        "nv_inference_queue_duration_us": counts.queue_ns // 1000,
        "nv_inference_compute_input_duration_us": counts.input_ns // 1000,
        "nv_inference_compute_infer_duration_us": counts.infer_ns // 1000,
        "nv_inference_compute_output_duration_us": counts.output_ns // 1000,
        "tacit_received_bytes": counts.received_bytes,
        "tacit_sent_bytes": counts.sent_bytes,
    }


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
