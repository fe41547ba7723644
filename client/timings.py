"""How long each stage of a prediction took, and how many bytes travelled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timings:
    """Of one `predict`.

    Attributes:
        plan: the plan that ran.
        rows, evaluations, requests: how many.
        stage_ms: milliseconds by stage, in order: signature, keys, upload, prepare, encrypt,
            request (the round trips, server included), decrypt, finish.
        server_ms: what the server says of its share: queue, decode, evaluate, encode.
        sent_bytes, received_bytes: of ciphertexts.
        uploaded_bytes: of evaluation keys.
    """

    plan: str
    rows: int
    evaluations: int
    requests: int
    stage_ms: Mapping[str, float]
    server_ms: Mapping[str, float]
    sent_bytes: int
    received_bytes: int
    uploaded_bytes: int

    @property
    def total_ms(self) -> float:
        """Milliseconds of all stages."""
        return sum(self.stage_ms.values())

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "plan": self.plan,
            "rows": self.rows,
            "evaluations": self.evaluations,
            "requests": self.requests,
            "stage_ms": {name: round(ms, 3) for name, ms in self.stage_ms.items()},
            "server_ms": {name: round(ms, 3) for name, ms in self.server_ms.items()},
            "total_ms": round(self.total_ms, 3),
            "sent_bytes": self.sent_bytes,
            "received_bytes": self.received_bytes,
            "uploaded_bytes": self.uploaded_bytes,
        }


@dataclass(slots=True)
class Stopwatch:
    """Collects the timings of one prediction."""

    stage_ms: dict[str, float] = field(default_factory=dict)
    server_ms: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    uploaded_bytes: int = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = 1e3 * (time.perf_counter() - start)
            self.stage_ms[name] = self.stage_ms.get(name, 0.0) + elapsed

    def answered(self, sent: int, received: int, server_ms: Mapping[str, float]) -> None:
        """Count one request."""
        self.requests += 1
        self.sent_bytes += sent
        self.received_bytes += received
        for name, ms in server_ms.items():
            self.server_ms[name] = self.server_ms.get(name, 0.0) + ms

    def finish(self, plan: str, rows: int, evaluations: int) -> Timings:
        """Return what was collected."""
        return Timings(
            plan,
            rows,
            evaluations,
            self.requests,
            dict(self.stage_ms),
            dict(self.server_ms),
            self.sent_bytes,
            self.received_bytes,
            self.uploaded_bytes,
        )
