import math

import pytest

from tacit.errors import ParameterError, SecurityError
from tacit.params import MAX_LOG_QP_128, SECURITY_MARGIN_BITS, CryptoParams, Security


def secure() -> CryptoParams:
    """N = 2^13, three rescalings: near the limit of 128 bits."""
    return CryptoParams.choose(log_n=13, depth=3, log_scale=28, log_first=38, dnum=4)


def test_log_qp_is_computed_from_the_primes_themselves() -> None:
    params = secure()
    product = math.prod(params.moduli) * math.prod(params.special_moduli)
    assert params.log_qp == pytest.approx(math.log2(product), abs=1e-9)


def test_parameters_above_the_128_bit_limit_are_refused() -> None:
    with pytest.raises(SecurityError, match="larger ring"):
        CryptoParams.choose(13, 4, 40, 50, 3)


def test_the_same_parameters_are_accepted_when_named_insecure() -> None:
    params = CryptoParams.choose(13, 4, 40, 50, 3, security=Security.UNCHECKED_INSECURE)
    assert params.log_qp > MAX_LOG_QP_128[13] - SECURITY_MARGIN_BITS


@pytest.mark.parametrize("log_n", [13, 14, 15, 16])
def test_accepted_parameters_leave_the_margin(log_n: int) -> None:
    for depth in range(1, 12):
        try:
            params = CryptoParams.choose(log_n, depth, 40, 50, 2)
        except ParameterError:
            continue
        assert params.log_qp <= MAX_LOG_QP_128[log_n] - SECURITY_MARGIN_BITS


def test_a_round_trip_through_json_keeps_the_digest() -> None:
    params = secure()
    again = CryptoParams.from_json(params.to_json())
    assert again == params
    assert again.digest == params.digest


def test_changed_moduli_are_noticed() -> None:
    fields = secure().to_json()
    listed = fields["moduli"]
    assert isinstance(listed, list)
    moduli = list(listed)
    moduli[1] = str(int(moduli[1]) + 2 * 2**13)
    with pytest.raises(ParameterError, match="moduli"):
        CryptoParams.from_json({**fields, "moduli": moduli})


def test_claiming_security_for_insecure_parameters_is_refused() -> None:
    fields = CryptoParams.choose(11, 3, 40, 50, 2, security=Security.UNCHECKED_INSECURE).to_json()
    with pytest.raises(SecurityError):
        CryptoParams.from_json({**fields, "security": Security.CLASSICAL_128.value})


def test_a_missing_field_is_a_parameter_error() -> None:
    fields = secure().to_json()
    del fields["dnum"]
    with pytest.raises(ParameterError, match="dnum"):
        CryptoParams.from_json(fields)


def test_scales_follow_the_flexible_rule() -> None:
    params = secure()
    for level in range(1, params.depth + 1):
        expected = params.scale(level) ** 2 / params.moduli[level]
        assert params.scale(level - 1) == pytest.approx(expected, rel=1e-12)
