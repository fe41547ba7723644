"""OpenFHE's crypto context for our parameters."""

from __future__ import annotations

import threading

import openfhe

from tacit.errors import ParameterError
from tacit.openfhe_context import template_from_context
from tacit.params import CryptoParams, SecretDistribution

_FEATURES = (
    openfhe.PKESchemeFeature.PKE,
    openfhe.PKESchemeFeature.KEYSWITCH,
    openfhe.PKESchemeFeature.LEVELEDSHE,
    openfhe.PKESchemeFeature.ADVANCEDSHE,  # weighted sums
    openfhe.PKESchemeFeature.FHE,  # bootstrapping
)
_DISTRIBUTIONS = {
    SecretDistribution.UNIFORM_TERNARY: openfhe.SecretKeyDist.UNIFORM_TERNARY,
    SecretDistribution.SPARSE_TERNARY: openfhe.SecretKeyDist.SPARSE_TERNARY,
    SecretDistribution.SPARSE_ENCAPSULATED: openfhe.SecretKeyDist.SPARSE_ENCAPSULATED,
}

# A fact about the process: OpenFHE keeps all contexts in one table, to which new ones are added,
# and where it looks when it loads an archive.
CONTEXTS = threading.Lock()


def make_context(params: CryptoParams) -> openfhe.CryptoContext:
    """Make OpenFHE's context and check that its moduli and scales are the parameters'.

    OpenFHE's own security check is off: it estimates the size of the moduli, while `CryptoParams`
    has checked the actual ones against the same table. OpenFHE keeps every context for the life of
    the process and returns the same object for the same parameters.

    Raises:
        ParameterError: OpenFHE refuses the parameters, or would use other moduli or scales.
    """
    context = _enabled(params, openfhe.CKKSDataType.REAL)
    check_context(params, context)
    return context


def make_complex_encoder(params: CryptoParams) -> openfhe.CryptoContext:
    """Make a second context of the same moduli, whose plaintexts keep their imaginary parts.

    OpenFHE encodes complex slots, which the matrices of bootstraps have, only in contexts that are
    complex altogether. Its plaintexts are for ciphertexts of `make_context`'s all the same.

    Raises:
        ParameterError: OpenFHE refuses the parameters.
    """
    return _enabled(params, openfhe.CKKSDataType.COMPLEX)


def _enabled(params: CryptoParams, kind: openfhe.CKKSDataType) -> openfhe.CryptoContext:
    settings = _settings(params)
    settings.SetCKKSDataType(kind)
    try:
        with CONTEXTS:
            context = openfhe.GenCryptoContext(settings)
    except RuntimeError as error:
        raise ParameterError(f"OpenFHE refuses the parameters {params}: {error}") from error
    for feature in _FEATURES:
        context.Enable(feature)
    return context


def check_context(params: CryptoParams, context: openfhe.CryptoContext) -> None:
    """Check that a context has the parameters' ring, moduli and scales.

    Raises:
        ParameterError: it has not.
    """
    moduli = template_from_context(openfhe.Serialize(context, openfhe.BINARY)).moduli
    if context.GetRingDimension() != params.n or tuple(moduli) != params.moduli:
        raise ParameterError(
            f"OpenFHE chose N = {context.GetRingDimension()} and moduli {tuple(moduli)}, "
            f"the parameters say N = {params.n} and {params.moduli}"
        )
    for level in range(params.depth + 1):
        scale = context.GetScalingFactorReal(params.depth - level)
        if scale != params.scale(level):
            raise ParameterError(
                f"OpenFHE's scale at level {level} is {scale!r}, "
                f"the parameters say {params.scale(level)!r}"
            )


def _settings(params: CryptoParams) -> openfhe.CCParamsCKKSRNS:
    settings = openfhe.CCParamsCKKSRNS()
    settings.SetSecretKeyDist(_DISTRIBUTIONS[params.secret])
    settings.SetSecurityLevel(openfhe.SecurityLevel.HEStd_NotSet)
    settings.SetRingDim(params.n)
    settings.SetBatchSize(params.slots)
    settings.SetMultiplicativeDepth(params.depth)
    settings.SetScalingModSize(params.log_scale)
    settings.SetFirstModSize(params.log_first)
    settings.SetScalingTechnique(openfhe.ScalingTechnique.FLEXIBLEAUTO)
    settings.SetKeySwitchTechnique(openfhe.KeySwitchTechnique.HYBRID)
    settings.SetNumLargeDigits(params.dnum)
    return settings
