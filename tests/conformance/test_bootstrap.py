"""Bootstrapping, plain and with a function: by our steps on both backends, and OpenFHE's own."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("openfhe", reason="openfhe does not import here")

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_iterated import refresh_twice
from tacit.bootstrap_levels import bootstrap_depth, bootstrap_deviation
from tacit.circuit import LinearPlan, LinearTerm, ValueType
from tacit.errors import LevelError, ParameterError, UnknownKeyError
from tacit.fourier import evaluate_series, fit_series
from tacit.kernels.build import build_if_stale
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.precision import DECRYPTION_FACTOR
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import join, split
from tacit.runtime.backends.native_complex import ComplexEvaluator
from tacit.runtime.backends.native_keys import NativeKeys
from tacit.runtime.backends.openfhe_bootstrap import OwnCallEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context
from tests.conformance.bootstrap_exchange import make_bootstrap_exchange
from tests.conformance.exchange import KEY_ID, Exchange

Floats = NDArray[np.float64]

UNIFORM = SecretDistribution.UNIFORM_TERNARY
SPARSE = SecretDistribution.SPARSE_TERNARY
ENCAPSULATED = SecretDistribution.SPARSE_ENCAPSULATED

LOG_N = 10
LEVEL = 3
IDENTITY = fit_series(lambda x: x, 15, cutoff=1e-8)
SILU = fit_series(lambda x: x / (1.0 + np.exp(-32.0 * x)), 31)
SERIES = {"identity": IDENTITY, "silu": SILU}
# What OpenFHE's way takes more than ours, over all three distributions of secrets.
OPENFHE_LEVELS = 6


def _plan(series: str = "identity", log_slots: int = LOG_N - 1) -> Bootstrap:
    return Bootstrap(series, LEVEL, log_slots)


def _params(secret: SecretDistribution, log_scale: int) -> CryptoParams:
    depth = LEVEL + OPENFHE_LEVELS
    shallow = CryptoParams.choose(
        LOG_N, 1, log_scale, log_scale + 1, 1, Security.UNCHECKED_INSECURE, secret
    )
    depth += bootstrap_depth(shallow, _plan("silu"), 31)
    return CryptoParams.choose(
        LOG_N, depth, log_scale, log_scale + 1, 3, Security.UNCHECKED_INSECURE, secret
    )


@cache
def _exchange(secret: SecretDistribution, log_scale: int, log_slots: int) -> Exchange:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    plan = _plan(log_slots=log_slots)
    return make_bootstrap_exchange(_params(secret, log_scale), plan, (1,))


def _own_call(exchange: Exchange) -> OwnCallEvaluator:
    return OwnCallEvaluator(exchange.params, exchange.context)


def _values(log_slots: int = LOG_N - 1, seed: int = 0) -> Floats:
    one = np.random.default_rng(seed).uniform(-0.5, 0.5, 1 << log_slots)
    return np.tile(one, 1 << (LOG_N - 1 - log_slots))


def _tolerance(params: CryptoParams, series: Floats) -> float:
    """Forty deviations of decrypted values.

    Each key has a deviation of its own in these small rings, and the tails are heavy: twelve were
    seen once in some hundred runs. A wrong step anywhere is off by thousands.
    """
    return 40.0 * DECRYPTION_FACTOR * bootstrap_deviation(params, _plan(), series)


@pytest.mark.parametrize(
    ("secret", "log_slots"),
    [(UNIFORM, LOG_N - 1), (SPARSE, LOG_N - 1), (ENCAPSULATED, LOG_N - 1), (ENCAPSULATED, 5)],
    ids=["uniform", "sparse", "encapsulated", "encapsulated, few slots"],
)
@pytest.mark.parametrize("name", list(SERIES))
def test_both_backends_refresh_and_apply_the_function(
    secret: SecretDistribution, log_slots: int, name: str
) -> None:
    exchange = _exchange(secret, 40, log_slots)
    x = _values(log_slots)
    expected = evaluate_series(SERIES[name], x)
    encrypted = exchange.encrypt(x, 3)
    plan = _plan(name, log_slots)
    native = exchange.native.bootstrap(exchange.to_native(encrypted), plan, SERIES)
    steps = exchange.openfhe.bootstrap(encrypted, plan, SERIES)
    oracle = _own_call(exchange).bootstrap(encrypted, plan, SERIES)
    assert (native.level, native.degree) == (LEVEL, 1)
    assert exchange.openfhe.type_of(steps) == ValueType(LEVEL)
    theirs = np.abs(exchange.decrypt(oracle) - expected)
    assert np.max(theirs) < 2.0**-10
    for made in (exchange.to_openfhe(native), steps):
        ours = np.abs(exchange.decrypt(made) - expected)
        assert np.max(ours) < _tolerance(exchange.params, SERIES[name])
        assert np.max(ours) < 8.0 * np.max(theirs)


@pytest.mark.parametrize("secret", [ENCAPSULATED, UNIFORM])
def test_both_backends_raise_the_modulus_to_the_same_residues(secret: SecretDistribution) -> None:
    """The kernels and numpy, and at the top two key switches; limb for limb."""
    exchange = _exchange(secret, 40, LOG_N - 1)
    low = exchange.encrypt(_values(), 0)
    level = exchange.params.depth - 1
    theirs = exchange.to_native(exchange.openfhe.raised(low, level))
    ours = ComplexEvaluator(exchange.native).raised(exchange.to_native(low), level)
    found, expected = (exchange.native_keys.download(a) for a in (theirs, ours))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("log_scale", [30, 50])
def test_precision_follows_the_size_of_the_primes(log_scale: int) -> None:
    exchange = _exchange(ENCAPSULATED, log_scale, LOG_N - 1)
    x = _values()
    a = exchange.to_native(exchange.encrypt(x, 2))
    made = exchange.native.bootstrap(a, _plan(), SERIES)
    error = np.abs(exchange.decrypt(exchange.to_openfhe(made)) - evaluate_series(IDENTITY, x))
    assert np.max(error) < _tolerance(exchange.params, IDENTITY)
    assert np.max(error) > 2.0 ** -(log_scale - 4)


def test_values_out_of_range_wrap_as_the_clear_backend_says() -> None:
    exchange = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    x = np.linspace(-2.5, 2.5, exchange.params.slots, dtype=np.float64)
    clear = ClearEvaluator(exchange.params)
    expected = clear.bootstrap(clear.encrypt(x, 3), _plan("silu"), SERIES).values
    a = exchange.to_native(exchange.encrypt(x, 3))
    made = exchange.native.bootstrap(a, _plan("silu"), SERIES)
    found = exchange.decrypt(exchange.to_openfhe(made))
    assert np.max(np.abs(found - expected)) < 8.0 * _tolerance(exchange.params, SILU)
    inside = np.abs(x) <= 0.5
    assert np.max(np.abs(expected - x / (1 + np.exp(-32 * x)))[~inside]) > 0.1


def test_a_refreshed_ciphertext_computes_on_and_is_refreshed_again() -> None:
    exchange = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    x = _values()
    ev = exchange.native
    shift = LinearPlan(1, (LinearTerm(0, 0, 0, 1, 0),), "half", "")
    constants = {**SERIES, "half": np.full((1, 1), 0.5)}
    a, expected = exchange.to_native(exchange.encrypt(x, 3)), x
    for _ in range(3):
        a = ev.bootstrap(a, _plan("silu"), constants)
        a = ev.linear([a], shift, constants)[0]
        expected = 0.5 * np.roll(evaluate_series(SILU, expected), -1)
    found = exchange.decrypt(exchange.to_openfhe(a))
    assert np.max(np.abs(found - expected)) < 2.0 * _tolerance(exchange.params, SILU)


def test_higher_levels_are_dropped_and_lower_ones_refused() -> None:
    exchange = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    x = _values()
    high = exchange.to_native(exchange.encrypt(x, 6))
    made = exchange.native.bootstrap(high, _plan(), SERIES)
    assert np.max(np.abs(exchange.decrypt(exchange.to_openfhe(made)) - x)) < 2.0**-16
    low = exchange.encrypt(x, 1)
    with pytest.raises(LevelError, match="use up 2"):
        exchange.native.bootstrap(exchange.to_native(low), _plan(), SERIES)
    with pytest.raises(LevelError, match="use up 2"):
        exchange.openfhe.bootstrap(low, _plan(), SERIES)
    with pytest.raises(LevelError, match="from level 3 or above"):
        _own_call(exchange).bootstrap(exchange.encrypt(x, 2), _plan(), SERIES)
    deep = Bootstrap("identity", exchange.params.depth, LOG_N - 1)
    with pytest.raises(LevelError, match="use a greater depth"):
        exchange.native.bootstrap(high, deep, SERIES)


def test_openfhe_itself_wants_a_first_modulus_of_twice_the_scale() -> None:
    exchange = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    longer = Bootstrap("identity", LEVEL, LOG_N - 1, period=4.0)
    with pytest.raises(ParameterError, match="a period of 2"):
        _own_call(exchange).bootstrap(exchange.encrypt(_values(), 3), longer, SERIES)


def test_missing_keys_are_named() -> None:
    exchange = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    full = exchange.native_keys
    engine = full.engine
    bare = NativeEvaluator(NativeKeys(engine, KEY_ID))
    a = exchange.to_native(exchange.encrypt(_values(), 3))
    with pytest.raises(UnknownKeyError, match="Galois key"):
        bare.bootstrap(a, _plan(), SERIES)
    without = NativeKeys(engine, KEY_ID, full.relinearization, full.rotations)
    with pytest.raises(UnknownKeyError, match="sparse secret"):
        NativeEvaluator(without).bootstrap(a, _plan(), SERIES)
    with pytest.raises(UnknownKeyError, match="sparse secret"):
        _own_call(exchange).raised(exchange.encrypt(_values(), 0), 5)


@pytest.mark.parametrize(
    ("backend", "secret"),
    [
        ("clear", ENCAPSULATED),
        ("native", ENCAPSULATED),
        ("native", SPARSE),
        ("native", UNIFORM),
        ("openfhe", ENCAPSULATED),
        ("openfhe", SPARSE),
        ("openfhe", UNIFORM),
    ],
)
def test_refreshing_twice_is_more_precise(backend: str, secret: SecretDistribution) -> None:
    exchange = _exchange(secret, 50, LOG_N - 1)
    x, level = _values(), 5
    plan = Bootstrap("coarse", LEVEL + 1, LOG_N - 1)  # the error of seven harmonics, 2^-20
    constants = {"coarse": fit_series(lambda v: v, 7)}

    def refreshed(ev: Any, a: Any) -> tuple[Any, Any]:
        return ev.bootstrap(a, plan, constants), refresh_twice(ev, a, plan, constants, 16)

    if backend == "clear":
        clear = ClearEvaluator(exchange.params, noise=True)
        once, twice = (a.values for a in refreshed(clear, clear.encrypt(x, level)))
    elif backend == "native":
        results = refreshed(exchange.native, exchange.to_native(exchange.encrypt(x, level)))
        assert exchange.native.type_of(results[1]) == ValueType(LEVEL)
        once, twice = (exchange.decrypt(exchange.to_openfhe(a)) for a in results)
    else:
        results = refreshed(exchange.openfhe, exchange.encrypt(x, level))
        once, twice = (exchange.decrypt(a) for a in results)
    assert 16.0 * np.max(np.abs(twice - x)) < np.max(np.abs(once - x))


@pytest.mark.slow
@pytest.mark.parametrize("secret", [UNIFORM, SPARSE, ENCAPSULATED])
def test_refreshing_twice_is_as_precise_as_openfhes_own_iterations(
    secret: SecretDistribution,
) -> None:
    exchange, x = _exchange(secret, 50, LOG_N - 1), _values()
    plan, level = Bootstrap("identity", LEVEL, LOG_N - 1), 5
    ours = [
        exchange.to_openfhe(
            refresh_twice(
                exchange.native,
                exchange.to_native(exchange.encrypt(x, level)),
                *(plan, SERIES, 16),
            )
        ),
        refresh_twice(exchange.openfhe, exchange.encrypt(x, level), plan, SERIES, 16),
    ]
    once, theirs = _iterated_by_openfhe(secret, x)
    assert theirs < once / 16.0
    for made in ours:
        assert np.max(np.abs(exchange.decrypt(made) - x)) < theirs


def _iterated_by_openfhe(secret: SecretDistribution, x: Floats) -> tuple[float, float]:
    """Return the errors of `EvalBootstrap`, in one iteration and in two."""
    params = CryptoParams.choose(LOG_N, 28, 50, 55, 3, Security.UNCHECKED_INSECURE, secret)
    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    context.EvalBootstrapSetup(levelBudget=[2, 2], slots=params.slots)
    context.EvalBootstrapKeyGen(keys.secretKey, params.slots)
    a = context.Encrypt(keys.publicKey, context.MakeCKKSPackedPlaintext(x, 1, params.depth - 2))

    def error(made: Any) -> float:
        found = context.Decrypt(keys.secretKey, made).GetRealPackedValueArray()
        return float(np.max(np.abs(found - x)))

    once = error(context.EvalBootstrap(a))
    return once, error(context.EvalBootstrap(a, 2, int(-np.log2(once)) - 2))


def test_refreshing_twice_needs_one_level_more() -> None:
    clear = ClearEvaluator(_params(ENCAPSULATED, 40))
    with pytest.raises(LevelError, match="level 3 or above before"):
        refresh_twice(clear, clear.encrypt(_values(), 2), _plan(), SERIES, 16)
    with pytest.raises(ParameterError, match="one bit right"):
        refresh_twice(clear, clear.encrypt(_values(), 3), _plan(), SERIES, 0)


def test_a_batch_of_two_owners_is_bootstrapped_as_each_of_its_entries() -> None:
    """The same residues as one by one, and neither owner's keys touch the other's entry."""
    mine = _exchange(ENCAPSULATED, 40, LOG_N - 1)
    engine = mine.native_keys.engine
    other = make_bootstrap_exchange(
        mine.params, _plan(), (1,), engine=engine, key_id=bytes([1]) * 32
    )
    singles = [e.to_native(e.encrypt(_values(seed=k), 2)) for k, e in enumerate((mine, other))]
    both = NativeEvaluator([mine.native_keys, other.native_keys])
    entries = split(both.bootstrap(join(singles), _plan("silu"), SERIES))
    for seed, (exchange, a, entry) in enumerate(zip((mine, other), singles, entries, strict=True)):
        alone = exchange.native.bootstrap(a, _plan("silu"), SERIES)
        found, expected = (exchange.native_keys.download(x) for x in (entry, alone))
        np.testing.assert_array_equal(found, expected)
        error = exchange.decrypt(exchange.to_openfhe(entry)) - evaluate_series(
            SILU, _values(seed=seed)
        )
        assert np.max(np.abs(error)) < _tolerance(mine.params, SILU)
