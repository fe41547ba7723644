"""One ring of question `engine`, in a process of its own: both engines, pair by pair, to JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openfhe

from bench.engine_work import HOISTED, SIDE
from tacit.circuit import LinearPlan, LinearTerm, Plain
from tacit.kernels import ntt
from tacit.kernels.cpu_kernels import CpuKernels
from tacit.kernels.library import InstructionSet
from tacit.openfhe_bytes import read_ciphertext
from tacit.openfhe_keys import read_automorphism_keys, read_relinearization_key
from tacit.params import CryptoParams, Security
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeCiphertext, load_keys
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context
from tacit.runtime.backends.openfhe_plaintexts import PlaintextBudget
from tacit.wire import EvaluationKey, KeyKind

Pair = tuple[Callable[[], object], Callable[[], object]]

CACHE_BYTES = 4 << 30
POOL_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure."""

    log_n: int
    depth: int
    log_scale: int
    log_first: int
    dnum: int
    rounds: int
    threads: int
    transforms_only: bool
    instructions: str | None = None


class Engines:
    """Both engines under one key."""

    def __init__(self, request: Request) -> None:
        chosen = (request.depth, request.log_scale, request.log_first, request.dnum)
        security = Security.UNCHECKED_INSECURE
        self.params = CryptoParams.choose(request.log_n, *chosen, security)
        self.context = make_context(self.params)
        self.keys = self.context.KeyGen()
        steps = () if request.transforms_only else self._make_keys()
        chosen_set = InstructionSet[request.instructions.upper()] if request.instructions else None
        kernels = CpuKernels(
            self.params, threads=request.threads, pool_bytes=POOL_BYTES, instructions=chosen_set
        )
        engine = NativeEngine(self.params, kernels, cache_bytes=CACHE_BYTES)
        given = self._evaluation_keys() if steps else []
        self.native_keys = load_keys(engine, bytes(32), given)
        self.native = NativeEvaluator(self.native_keys)
        budget = PlaintextBudget(CACHE_BYTES)
        self.openfhe = OpenFHEEvaluator(self.params, self.context, budget=budget)
        self.ring = kernels.ring
        self.threads = request.threads
        self.rng = np.random.default_rng(0)

    def encrypt(self, level: int) -> tuple[Any, NativeCiphertext]:
        """Return the same ciphertext for both engines."""
        values = self.rng.uniform(-1, 1, self.params.slots)
        plaintext = self.context.MakeCKKSPackedPlaintext(values, 1, self.params.depth - level)
        made = self.context.Encrypt(self.keys.publicKey, plaintext)
        foreign, _ = read_ciphertext(openfhe.Serialize(made, openfhe.BINARY))
        return made, self.native_keys.upload(foreign.limbs, level)

    def operations(self) -> dict[str, Pair]:
        """Return each operation at the top level."""
        a, x = self.encrypt(self.params.depth)
        product, found = self.openfhe.multiply(a, a), self.native.multiply(x, x)
        half = Plain("half", np.full(self.params.slots, 0.5))
        plan, rows = _square_matrix(self.rng.uniform(-1, 1, (SIDE * SIDE, self.params.slots)))
        side = SIDE * SIDE
        return {
            "add": (lambda: self.openfhe.add(a, a), lambda: self.native.add(x, x)),
            "multiply plain": (
                lambda: self.openfhe.multiply_plain(a, half),
                lambda: self.native.multiply_plain(x, half),
            ),
            "rotate": (lambda: self.openfhe.rotate(a, 1), lambda: self.native.rotate(x, 1)),
            "multiply": (lambda: self.openfhe.multiply(a, a), lambda: self.native.multiply(x, x)),
            "rescale": (
                lambda: self.openfhe.rescale(product),
                lambda: self.native.rescale(found),
            ),
            "hoisted rotation": (
                lambda: self.openfhe.rotate_many(a, HOISTED),
                lambda: self.native.rotate_many(x, HOISTED),
            ),
            f"bsgs {side}x{side}": (
                lambda: self.openfhe.linear([a], plan, rows),
                lambda: self.native.linear([x], plan, rows),
            ),
        }

    def rescales(self) -> dict[str, Pair]:
        """Return rescales from the top level and from the one below it."""
        pairs: dict[str, Pair] = {}
        for name, level in (("high", self.params.depth), ("low", 2)):
            a, x = self.encrypt(level)
            half = Plain("half", np.asarray(0.5))
            product = self.openfhe.multiply_plain(a, half)
            found = self.native.multiply_plain(x, half)
            pairs[name] = (
                lambda product=product: self.openfhe.rescale(product),  # type: ignore[misc]
                lambda found=found: self.native.rescale(found),  # type: ignore[misc]
            )
        return pairs

    def _make_keys(self) -> tuple[int, ...]:
        steps = (*HOISTED, *(SIDE * giant for giant in range(2, SIDE)))
        self.context.EvalMultKeyGen(self.keys.secretKey)
        self.context.EvalRotateKeyGen(self.keys.secretKey, list(steps))
        return steps

    def _evaluation_keys(self) -> list[EvaluationKey]:
        tag, digest = self.keys.publicKey.GetKeyTag(), self.params.digest
        archive = openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
        relinearization, _ = read_relinearization_key(archive)
        rotations, _ = read_automorphism_keys(
            openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
        )
        return [
            EvaluationKey(relinearization.limbs, KeyKind.RELINEARIZATION, 0, digest),
            *(
                EvaluationKey(key.limbs, KeyKind.ROTATION, element, digest)
                for element, key in rotations.items()
            ),
        ]


def _square_matrix(diagonals: Any) -> tuple[LinearPlan, dict[str, Any]]:
    terms = tuple(
        LinearTerm(output=0, input=0, giant=row - row % SIDE, baby=row % SIDE, row=row)
        for row in range(SIDE * SIDE)
    )
    return LinearPlan(1, terms, "rows", ""), {"rows": diagonals}


def measure(request: Request) -> dict[str, Any]:
    """Return {workload: {subject: {"seconds": [...], "cpu_seconds": [...]}}} and the parameters."""
    engines = Engines(request)
    params = engines.params
    if request.transforms_only:
        samples = _transforms(engines, _pairs(engines.rescales(), request.rounds), request.rounds)
    else:
        samples = _pairs(engines.operations(), request.rounds)
    parameters = {
        "log_n": request.log_n,
        "depth": request.depth,
        "log_scale": request.log_scale,
        "log_first": request.log_first,
        "dnum": request.dnum,
        "special_primes": len(params.special_moduli),
        "instructions": engines.ring.instructions.name.lower(),
    }
    primes = {"moduli": params.moduli, "specials": params.special_moduli}
    return {"parameters": parameters, "samples": samples, **primes}


Samples = dict[str, dict[str, dict[str, list[float]]]]


def _pairs(pairs: dict[str, Pair], rounds: int) -> Samples:
    """Time both engines round by round, the warm-up apart; of hoisted rotations, each."""
    samples: Samples = {name: {"openfhe": _empty(), "tacit": _empty()} for name in pairs}
    for turn in range(-1, rounds):
        for name, (theirs, ours) in pairs.items():
            count = len(HOISTED) if name == "hoisted rotation" else 1
            for subject, call in (("openfhe", theirs), ("tacit", ours)):
                seconds, cpu_seconds = _timed(call)
                if turn >= 0:
                    samples[name][subject]["seconds"].append(seconds / count)
                    samples[name][subject]["cpu_seconds"].append(cpu_seconds / count)
    return samples


def _transforms(engines: Engines, rescales: Samples, rounds: int) -> Samples:
    """Take an NTT from the slope of rescaling over limbs: per limb and component, one transform
    beside a subtraction and a product. Our own transforms are also timed alone.
    """
    limbs = 2 * (engines.params.depth - 2)
    found: Samples = {"ntt": {}}
    for subject in ("openfhe", "tacit"):
        found["ntt"][subject] = {
            metric: [
                (high - low) / limbs
                for high, low in zip(
                    rescales["high"][subject][metric], rescales["low"][subject][metric], strict=True
                )
            ]
            for metric in ("seconds", "cpu_seconds")
        }
    if engines.threads > 1:  # no row is shared by threads
        return found
    _, x = engines.encrypt(engines.params.depth)
    row, index = engines.native_keys.download(x)[0, 1].copy(), np.array([1], dtype=np.uint32)
    for name, transform in (("ntt forward alone", ntt.forward), ("ntt inverse alone", ntt.inverse)):
        times = [_timed(partial(transform, engines.ring, row, index)) for _ in range(5 * rounds)]
        found[name] = {
            "tacit": {
                "seconds": [seconds for seconds, _ in times],
                "cpu_seconds": [cpu_seconds for _, cpu_seconds in times],
            }
        }
    return found


def _empty() -> dict[str, list[float]]:
    return {"seconds": [], "cpu_seconds": []}


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds; CPU time of all threads of this process."""
    start, cpu_start = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - cpu_start


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    assert os.environ["OMP_NUM_THREADS"] == str(fields["threads"])
    json.dump(measure(Request(**fields)), sys.stdout)
