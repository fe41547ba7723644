import contextlib
import math
import random

import pytest

from tacit.errors import ParameterError
from tacit.moduli import (
    choose_moduli,
    digit_limbs,
    flexible_scales,
    is_prime,
    smallest_root,
    special_moduli,
)
from tacit.openfhe_bytes import template_from_context
from tacit.openfhe_keys import read_relinearization_key
from tests.contract.foreign import openfhe, openfhe_context

Request = tuple[int, int, int, int, int]


def random_request(rng: random.Random, largest_log_n: int) -> Request:
    """Draw parameters, some of them such that OpenFHE refuses them."""
    log_scale = rng.choice([rng.randint(25, 59), rng.randint(25, 59), rng.randint(13, 60)])
    log_first = rng.choice([log_scale, min(60, log_scale + 10), rng.randint(25, 61)])
    depth = rng.choice([0, 1, rng.randint(2, 8), rng.randint(2, 24)])
    return rng.randint(10, largest_log_n), depth, log_scale, log_first, rng.randint(1, 8)


def ours_and_openfhe(request: Request) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    ours: tuple[int, ...] | None = None
    theirs: tuple[int, ...] | None = None
    with contextlib.suppress(ParameterError):
        ours = choose_moduli(*request).moduli
    with contextlib.suppress(RuntimeError):
        context = openfhe_context(*request)
        theirs = template_from_context(openfhe.Serialize(context, openfhe.BINARY)).moduli
    return ours, theirs


@pytest.mark.parametrize("seed", range(4))
def test_the_primes_are_those_openfhe_picks_and_refusals_agree(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        request = random_request(rng, 12)
        ours, theirs = ours_and_openfhe(request)
        assert ours == theirs, request


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 115))
def test_the_primes_of_large_rings_are_those_openfhe_picks(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        request = random_request(rng, 15)
        ours, theirs = ours_and_openfhe(request)
        assert ours == theirs, request


def accepted_requests(seed: int, count: int) -> list[Request]:
    rng = random.Random(seed)
    accepted: list[Request] = []
    while len(accepted) < count:
        request = (10, *random_request(rng, 10)[1:])
        try:
            choose_moduli(*request)
        except ParameterError:
            continue
        accepted.append(request)
    return accepted


@pytest.mark.parametrize("request_", accepted_requests(seed=5, count=24), ids=str)
def test_the_special_primes_are_those_in_openfhes_evaluation_keys(request_: Request) -> None:
    context = openfhe_context(*request_)
    pair = context.KeyGen()
    context.EvalMultKeyGen(pair.secretKey)
    tag = pair.secretKey.GetKeyTag()
    archive = openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
    key, template = read_relinearization_key(archive)
    chosen = choose_moduli(*request_)
    assert key.special_moduli == chosen.special_moduli
    assert template.moduli == chosen.moduli
    assert key.limbs.shape[1] == request_[4]


@pytest.mark.parametrize(
    "request_",
    [(10, 20, 54, 60, 1), (10, 19, 33, 38, 1), (10, 0, 51, 58, 1), (10, 7, 45, 45, 2)],
    ids=str,
)
def test_the_scale_of_every_level_is_openfhes_double(request_: Request) -> None:
    depth, log_scale = request_[1], request_[2]
    scales = flexible_scales(choose_moduli(*request_).moduli, log_scale)
    assert len(scales) == depth + 1
    context = openfhe_context(*request_)
    pair = context.KeyGen()
    for level in range(depth + 1):
        plain = context.MakeCKKSPackedPlaintext([0.5], 1, depth - level)
        assert context.Encrypt(pair.publicKey, plain).GetScalingFactor() == scales[level]


def test_scales_after_squaring_are_openfhes_doubles() -> None:
    request = (10, 8, 45, 55, 3)
    scales = flexible_scales(choose_moduli(*request).moduli, 45)
    context = openfhe_context(*request)
    pair = context.KeyGen()
    context.EvalMultKeyGen(pair.secretKey)
    ciphertext = context.Encrypt(pair.publicKey, context.MakeCKKSPackedPlaintext([0.5]))
    for _ in range(8):
        ciphertext = context.EvalSquare(ciphertext)
        expected = scales[8 - ciphertext.GetLevel()] ** ciphertext.GetNoiseScaleDeg()
        assert ciphertext.GetScalingFactor() == expected


def test_the_roots_of_unity_are_those_openfhe_uses() -> None:
    context = openfhe_context(10, 5, 40, 50, 2)
    basis = template_from_context(openfhe.Serialize(context, openfhe.BINARY)).basis
    assert tuple(smallest_root(q, 10) for q in basis.moduli) == basis.roots


def test_the_smallest_root_agrees_with_exhaustive_search() -> None:
    modulus, log_n = 12289, 8
    order = 2 << log_n
    roots = [x for x in range(1, modulus) if pow(x, order // 2, modulus) == modulus - 1]
    assert smallest_root(modulus, log_n) == min(roots)
    with pytest.raises(ParameterError):
        smallest_root(12289 * 3, log_n)


def test_primality_agrees_with_a_sieve_and_with_known_pseudoprimes() -> None:
    limit = 20000
    composite = {m for p in range(2, math.isqrt(limit) + 1) for m in range(p * p, limit, p)}
    assert [n for n in range(limit) if is_prime(n)] == [
        n for n in range(2, limit) if n not in composite
    ]
    # The smallest strong pseudoprimes to the first 4, 8 and 9 primes, and a Carmichael number.
    for pseudoprime in (3215031751, 341550071728321, 3825123056546413051, 561):
        assert not is_prime(pseudoprime)
    assert is_prime(2**61 - 1)
    assert is_prime(18446744073709551557)


@pytest.mark.parametrize(("limbs", "dnum"), [(19, 8), (1, 2), (4, 3), (5, 4)])
def test_limbs_that_do_not_fill_all_digits_are_refused(limbs: int, dnum: int) -> None:
    with pytest.raises(ParameterError, match="can't distribute"):
        digit_limbs(limbs, dnum)


def test_special_primes_never_occur_in_q() -> None:
    chosen = choose_moduli(10, 3, 59, 60, 2)
    assert not set(special_moduli(10, chosen.moduli, 2)) & set(chosen.moduli)


def test_scales_that_drift_apart_are_refused() -> None:
    with pytest.raises(ParameterError, match="drift"):
        flexible_scales((1 << 40, 1 << 20, 1 << 22, 1 << 24), 24)
