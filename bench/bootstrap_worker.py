"""One bootstrap of question `bootstrap`, one engine, in a process of its own: times to JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.circuit import Circuit, Node, Op, ValueType
from tacit.client.context import make_context as client_context
from tacit.client.keys import make_keys
from tacit.client.secret import SecretKey
from tacit.errors import ParameterError
from tacit.evaluation_keys import keys_at
from tacit.fourier import complex_series, fit_series
from tacit.key_levels import circuit_key_levels
from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys
from tacit.runtime.backends.openfhe_parameters import make_context

Floats = NDArray[np.float64]

CACHE_BYTES = 4 << 30
HARMONICS = {"silu": 31, "plain": 15}
FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "silu": lambda x: x / (1.0 + np.exp(-32.0 * x)),
    "plain": lambda x: x,
}


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure: a `bench.bootstrap.Setting`, of one engine.

    Without rounds there is one bootstrap, whose time does not count.
    """

    engine: str
    function: str
    log_n: int
    log_scale: int
    stages: int
    level: int
    secret: str
    rounds: int
    threads: int
    log_slots: int = 0
    digit_limbs: int = 3

    @property
    def used(self) -> int:
        """Base-2 logarithm of the slots that are bootstrapped."""
        return self.log_slots or self.log_n - 1

    @property
    def distribution(self) -> SecretDistribution:
        """Of the secret key."""
        return SecretDistribution(self.secret)

    @property
    def series(self) -> Floats:
        """The Fourier series of the function."""
        cutoff = 1e-6 if self.function == "silu" else 1e-8
        return fit_series(FUNCTIONS[self.function], HARMONICS[self.function], cutoff=cutoff)

    @property
    def plan(self) -> Bootstrap:
        """The bootstrap, of all slots."""
        return Bootstrap("series", self.level, self.used, self.stages, self.stages)


def parameters(request: Request, depth: int, log_first: int) -> CryptoParams:
    """Choose dnum: digits of so many limbs, or of more if OpenFHE does not take as many digits.

    Raises:
        ParameterError: no number of digits fits the depth.
    """
    secure = Security.UNCHECKED_INSECURE
    limbs = depth + 1
    for dnum in range(-(-limbs // request.digit_limbs), 0, -1):
        try:
            return CryptoParams.choose(
                request.log_n,
                depth,
                request.log_scale,
                log_first,
                dnum,
                secure,
                request.distribution,
            )
        except ParameterError:
            continue
    raise ParameterError(f"no number of digits for {limbs} limbs")


@dataclass(slots=True)
class Prepared:
    """An engine with keys and one ciphertext.

    Attributes:
        call: bootstraps the ciphertext.
        decrypt: what it returned, to slots.
        params: chosen for this engine.
        keys: how many evaluation keys were made.
        key_bytes: their size.
        input: the slots encrypted.
    """

    call: Callable[[], Any]
    decrypt: Callable[[Any], Floats]
    params: CryptoParams
    keys: int
    key_bytes: int
    input: Floats


def prepare_native(request: Request) -> Prepared:
    """Make keys at the client, one at a time, and encode the matrices."""
    plan, series = request.plan, request.series
    shallow = parameters(request, 2, request.log_scale + 1)
    depth = plan.level + bootstrap_depth(shallow, plan, series.shape[1] - 1)
    params = parameters(request, depth, request.log_scale + 1)
    context = client_context(params, allow_insecure=True)
    secret = SecretKey.generate(context)
    level, constants = plan.to_coefficients, {"series": series}
    node = Node(Op.BOOTSTRAP, (0,), (1,), plan, "bootstrap")
    types = (ValueType(level), ValueType(plan.level))
    circuit = Circuit(params.slots, (0,), (1,), (node,), types, constants)
    needed = keys_at(circuit_key_levels(circuit, params), params)
    engine = NativeEngine(params, cache_bytes=CACHE_BYTES, threads=request.threads)
    keys = load_keys(engine, bytes(32), make_keys(context, secret, needed))
    x = _values(request)
    foreign, template = read_ciphertext(secret.encrypt(x, level, 1))
    a = keys.upload(foreign.limbs, level)
    evaluator = keys.evaluator(circuit)

    def decrypt(made: NativeCiphertext) -> Floats:
        scale = params.scale(made.level)
        answer = ForeignCiphertext(
            keys.download(made), params.depth - made.level, 1, scale, params.slots, secret.tag
        )
        return secret.decrypt(write_ciphertext(template, answer))

    return Prepared(
        lambda: evaluator.bootstrap(a, plan, constants),
        decrypt,
        params,
        len(needed),
        keys.size_bytes,
        x,
    )


def prepare_openfhe(request: Request) -> Prepared:
    """Let OpenFHE make its own keys and tables."""
    functional = request.function != "plain" or request.log_scale < LEAST_PLAIN_BITS
    plan, stages = request.plan, [request.stages, request.stages]
    coefficients = list(complex_series(request.series) / 2.0)
    crypto = openfhe.CryptoContext
    distribution = getattr(openfhe.SecretKeyDist, request.distribution.name)
    log_first = min(request.log_scale + (1 if functional else PLAIN_FIRST_BITS), MOST_FIRST_BITS)
    if functional:
        spent = crypto.GetFEFBTDepth(stages, coefficients, distribution, log_first)
        spent -= request.stages  # those before the modulus is raised
    else:
        spent = crypto.GetBootstrapDepth(stages, distribution) + 1  # for the result's degree 2
    params = parameters(request, spent + plan.level, log_first)
    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    if functional:
        context.EvalFEFuncBootstrapSetup(stages, [0, 0], 1 << request.used)
    else:
        context.EvalBootstrapSetup(levelBudget=stages, slots=1 << request.used)
    context.EvalBootstrapKeyGen(keys.secretKey, 1 << request.used)
    x, level = _values(request), request.stages + 1 if functional else 1
    slots = 1 << request.used
    plain = context.MakeCKKSPackedPlaintext(x[:slots], 1, params.depth - level, None, slots)
    a = context.Encrypt(keys.secretKey, plain)

    def call() -> Any:
        if functional:
            return context.EvalFEFuncBootstrap(a, coefficients)
        return context.EvalBootstrap(a)

    tag = keys.secretKey.GetKeyTag()
    count = len(context.GetExistingEvalAutomorphismKeyIndices(tag)) + 1
    return Prepared(
        call,
        lambda made: np.asarray(
            context.Decrypt(keys.secretKey, made).GetRealPackedValueArray(), dtype=np.float64
        ),
        params,
        count,
        count * params.evaluation_key_bytes,
        x,
    )


PLAIN_FIRST_BITS = 5  # OpenFHE's own bootstrap wants room above the scale
MOST_FIRST_BITS = 60
# With smaller primes its plain bootstrap leaves a few bits or none; that with a function, of x, is
# its better way.
LEAST_PLAIN_BITS = 50


def _values(request: Request) -> Floats:
    once = np.random.default_rng(0).uniform(-0.5, 0.5, 1 << request.used)
    return np.tile(once, 1 << (request.log_n - 1 - request.used))


def measure(request: Request) -> dict[str, Any]:
    """Return samples, parameters and precision."""
    start = time.perf_counter()
    prepared = {"tacit": prepare_native, "openfhe": prepare_openfhe}[request.engine](request)
    preparing = time.perf_counter() - start
    seconds, cpu_seconds, made = [], [], None
    for turn in range(-1, request.rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        made = prepared.call()
        if turn >= 0:
            seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)
    found = prepared.decrypt(made)
    expected = FUNCTIONS[request.function](prepared.input[: len(found)])
    error = np.abs(found - expected)
    params = prepared.params
    return {
        "samples": {"seconds": seconds, "cpu_seconds": cpu_seconds},
        "figures": {
            "prepare_seconds": preparing,
            "max_error_bits": float(-np.log2(np.max(error))),
            "mean_error_bits": float(-np.log2(np.mean(error))),
            "keys": prepared.keys,
            "key_bytes": prepared.key_bytes,
            "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        },
        "parameters": {
            "log_n": params.log_n,
            "depth": params.depth,
            "log_scale": params.log_scale,
            "log_first": params.log_first,
            "dnum": params.dnum,
            "log_qp": round(params.log_qp, 1),
            "stages": request.stages,
            "levels_left": request.level,
            "log_slots": request.used,
            "secret": request.secret,
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(Request(**json.loads(sys.argv[1])))))
