"""One ring of question `operations`, in a process of its own: seconds by level and operation."""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tacit.model_compiler.op_times import Backend
from tacit.params import CryptoParams, Security

Samples = dict[int, dict[str, list[float]]]


@dataclass(frozen=True, slots=True)
class Setting:
    """A ring and a chain of moduli; times do not depend on whether they are secure."""

    log_n: int
    depth: int
    log_scale: int
    log_first: int
    dnum: int
    levels: tuple[int, ...]

    def params(self) -> CryptoParams:
        """Return the parameters."""
        chosen = (self.log_n, self.depth, self.log_scale, self.log_first, self.dnum)
        return CryptoParams.choose(*chosen, Security.UNCHECKED_INSECURE)


def measure(backend: Backend, setting: Setting, rounds: int) -> Samples:
    """Run every operation at every level once per round, after a round that does not count.

    So an operation comes upon caches full of other operations' operands, as it does in a circuit.
    """
    if backend is Backend.NATIVE:
        from bench.operations_native import NativeOperations

        native = NativeOperations(setting.params())
        return _rounds({level: native.operations(level) for level in setting.levels}, rounds)
    from bench.operations_openfhe import OpenFHEOperations

    ring = OpenFHEOperations(setting.params())
    samples = _rounds({level: ring.operations(level) for level in setting.levels}, rounds)
    for level, found in samples.items():
        if level:
            sums = zip(found["weighted_term"], found["rescale"], strict=True)
            found["weighted_term"] = [max(s - r, 0.0) / ring.terms(level) for s, r in sums]
    return samples


def _rounds(calls: dict[int, dict[str, Callable[[], object]]], rounds: int) -> Samples:
    samples: Samples = {level: defaultdict(list) for level in calls}
    for turn in range(-1, rounds):
        for level, by_name in calls.items():
            for name, call in by_name.items():
                seconds = _seconds(call)
                if turn >= 0:
                    samples[level][name].append(seconds)
    return samples


def _seconds(call: Callable[[], object]) -> float:
    """Time by the thread's CPU clock, which leaves out waiting for the processor."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def serve(request: str) -> None:
    """Measure what a JSON request asks for and write the samples as JSON."""
    fields = json.loads(request)
    rounds, backend = fields.pop("rounds"), Backend(fields.pop("backend"))
    setting = Setting(**{**fields, "levels": tuple(fields["levels"])})
    json.dump(measure(backend, setting, rounds), sys.stdout)


if __name__ == "__main__":
    serve(sys.argv[1])
