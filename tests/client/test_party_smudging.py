"""The noise of shares: its size, its distribution, and what it leaves of the values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tacit.client.context import make_context
from tacit.client.party_public import JointPublicKey
from tacit.client.party_secret import PartySecret, joint_public_a
from tacit.client.party_smudging import (
    LARGEST_BITS,
    OPENFHE_DEVIATION,
    Smudging,
    choose_smudging,
    draw,
    fresh_noise_bits,
    largest_log_bound,
    precision_left,
    smudged,
)
from tacit.errors import ParameterError
from tacit.modular import centred, inverse, times
from tacit.openfhe_bytes import ForeignCiphertext
from tacit.params import CryptoParams, Security
from tacit.party_frame import sum_limbs

PARAMS = CryptoParams.choose(10, 3, 50, 60, 2, security=Security.UNCHECKED_INSECURE)
CONTEXT = make_context(PARAMS, allow_insecure=True, several_parties=True)
SEED = bytes(range(32))
PARTIES = 3


@pytest.fixture(scope="module")
def secrets() -> list[PartySecret]:
    return [PartySecret.generate(CONTEXT, joint_public_a(PARAMS, SEED))[0] for _ in range(PARTIES)]


@pytest.fixture(scope="module")
def public(secrets: list[PartySecret]) -> JointPublicKey:
    """A joint key of the same parties: b = -a s, with no error at all, is one."""
    a = joint_public_a(PARAMS, SEED)
    s = sum_limbs([secret.limbs() for secret in secrets], PARAMS.moduli)
    b = np.stack([(np.uint64(q) - times(a[i], s[i], q)) for i, q in enumerate(PARAMS.moduli)])
    b = np.where(b == np.array(PARAMS.moduli, dtype=np.uint64)[:, None], np.uint64(0), b)
    return JointPublicKey.of(CONTEXT, np.stack([b, a]))


def noise_of(share: np.ndarray, c1: np.ndarray, secret: PartySecret) -> np.ndarray:  # type: ignore[type-arg]
    """What a share has beside c_1 s, in coefficients."""
    q, s = PARAMS.moduli[0], secret.limbs()
    product = times(c1[0], s[0], q)
    rest = share[0] + np.where(product == 0, product, np.uint64(q) - product)
    return centred(inverse(np.where(rest >= q, rest - np.uint64(q), rest), q), q)


def test_drawn_noise_is_uniform_in_its_bound() -> None:
    """2^18 draws: the mean and the mean square are within 7 deviations of a uniform variable's."""
    count, k = 1 << 18, 20
    noise = draw(count, k)
    assert noise.min() >= -(1 << k)
    assert noise.max() < 1 << k
    unit = (noise + 0.5) / (1 << k)
    assert abs(unit.mean()) < 7 * math.sqrt(1 / 3 / count)
    assert abs((unit**2).mean() - 1 / 3) < 7 * math.sqrt(4 / 45 / count)
    # Of 16 equal parts each holds its share, and both ends are reached.
    counts = np.histogram(unit, bins=16, range=(-1, 1))[0]
    assert np.abs(counts - count / 16).max() < 7 * math.sqrt(count / 16)


def test_no_noise_can_be_asked_for_that_is_not_drawn_whole() -> None:
    assert np.abs(draw(1 << 12, LARGEST_BITS)).max() > 1 << (LARGEST_BITS - 1)
    with pytest.raises(ParameterError, match="can be drawn"):
        draw(1, LARGEST_BITS + 1)


@pytest.mark.parametrize("log_bound", [24, 40])
def test_a_share_carries_the_stated_noise_and_openfhes(
    secrets: list[PartySecret], public: JointPublicKey, log_bound: int
) -> None:
    """Root mean squares over N coefficients, within 30 %: 7 deviations for OpenFHE's part."""
    encrypted = public.encrypt(np.zeros(PARAMS.slots), 1)
    share = secrets[1].partial_decryption(public.foreign(encrypted), leads=False)
    own = noise_of(share, encrypted.limbs[1], secrets[1]).astype(np.float64)
    assert 0.7 < math.sqrt((own**2).mean()) / OPENFHE_DEVIATION < 1.3
    both = smudged(share, PARAMS.moduli[:2], log_bound)
    added = noise_of(both, encrypted.limbs[1], secrets[1]).astype(np.float64)
    wanted = math.sqrt(4.0**log_bound / 3 + OPENFHE_DEVIATION**2)
    assert 0.7 < math.sqrt((added**2).mean()) / wanted < 1.3
    assert np.abs(added).max() <= 2.0**log_bound + 40 * OPENFHE_DEVIATION


def test_two_shares_of_one_ciphertext_differ_by_fresh_noise(
    secrets: list[PartySecret], public: JointPublicKey
) -> None:
    share = secrets[1].partial_decryption(
        public.foreign(public.encrypt(np.zeros(PARAMS.slots), 1)), leads=False
    )
    first, second = (smudged(share, PARAMS.moduli[:2], 30) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("degree", "log_bound"), [(1, 20), (1, 32), (2, 60)])
def test_decryption_keeps_the_precision_that_was_stated(
    secrets: list[PartySecret], public: JointPublicKey, degree: int, log_bound: int
) -> None:
    """The stated precision is six deviations of an error; 40 of them are never reached."""
    values = np.random.default_rng(1).uniform(-1, 1, PARAMS.slots)
    level = 2
    encrypted = public.encrypt(values, level, degree)
    foreign: ForeignCiphertext = public.foreign(encrypted)
    moduli = PARAMS.moduli[: level + 1]
    shares = [
        smudged(secret.partial_decryption(foreign, leads=i == 0), moduli, log_bound)
        for i, secret in enumerate(secrets)
    ]
    error = public.decoded(sum_limbs(shares, moduli), encrypted) - values
    left = precision_left(PARAMS, PARTIES, PARAMS.scale(level) ** degree, log_bound)
    assert np.abs(error).max() < 40 / 6 * 2.0**-left
    # ... nor is the noise much smaller than stated: a party that forgot it would be seen here.
    assert math.sqrt((error**2).mean()) > 2.0**-left / 6 / 4


def test_a_size_is_chosen_for_the_bits_asked_or_refused() -> None:
    noise = fresh_noise_bits(PARAMS, PARTIES, PARTIES)
    scale = PARAMS.scale(2) ** 2

    def chosen(of_scale: float, least: int, repeats: int = 1) -> Smudging:
        return choose_smudging(
            PARAMS,
            PARTIES,
            of_scale,
            noise,
            bits=30,
            least_bits=least,
            precision_bits=10,
            repeats=repeats,
        )

    assert chosen(scale, 30).log_bound == 30 + math.ceil(noise)
    assert chosen(scale, 30).precision_bits > 30
    with pytest.raises(ParameterError, match="larger scale"):
        chosen(PARAMS.scale(2), 30)
    fewer = chosen(PARAMS.scale(2), 10)
    assert 10 <= fewer.bits < 30
    assert 10 <= fewer.precision_bits < 11
    # Sixteen slots for each value win two bits.
    assert chosen(PARAMS.scale(2), 10, 16).bits == fewer.bits + 2
    assert largest_log_bound(PARAMS, PARTIES, 2.0**20, 8.0) == 0


def test_fresh_noise_stays_below_its_bound(
    secrets: list[PartySecret], public: JointPublicKey
) -> None:
    """Noise of a sum of three encryptions under a key of three parties, by its very secret."""
    s = sum_limbs([secret.limbs() for secret in secrets], PARAMS.moduli)
    parts = [public.encrypt(np.zeros(PARAMS.slots), 2) for _ in range(3)]
    total = sum_limbs([part.limbs for part in parts], PARAMS.moduli[:3])
    q = PARAMS.moduli[0]
    read = total[0, 0] + times(total[1, 0], s[0], q)
    noise = centred(inverse(np.where(read >= q, read - np.uint64(q), read), q), q)
    assert np.abs(noise).max() < 2.0 ** fresh_noise_bits(PARAMS, PARTIES, 3)
