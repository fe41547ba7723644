"""OpenFHE's crypto context for a parameter set, made and checked at the client.

The client never loads a context that somebody else serialised: it builds its own from the few
numbers in a model's signature, so that a server cannot choose weak parameters. (The server's
backend repeats the settings in a module of its own, because the two rooms must not import each
other.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tacit.client.environment import import_openfhe, refuse_in_forked_child
from tacit.errors import InternalError, ParameterError, SecurityError
from tacit.openfhe_context import Template, template_from_context
from tacit.params import CryptoParams, SecretDistribution, Security

if TYPE_CHECKING:
    from types import ModuleType

    import openfhe

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ClientContext:
    """A crypto context whose moduli and scales are the parameters'.

    Attributes:
        params: the parameters it was made for.
        openfhe: OpenFHE's context.
        template: its serialised form, for converting ciphertexts.
    """

    params: CryptoParams
    openfhe: openfhe.CryptoContext
    template: Template

    def encrypted(
        self, key: openfhe.PrivateKey | openfhe.PublicKey, values: Floats, level: int, degree: int
    ) -> bytes:
        """Encrypt one slot vector; returns OpenFHE's serialised ciphertext.

        Args:
            key: OpenFHE's secret or public key.
            values: shape (slots,).
            level: rescalings left.
            degree: 1, or 2 for the squared scale.

        Raises:
            UnusableEnvironmentError: in a process forked after OpenFHE was loaded.
        """
        refuse_in_forked_child("encrypt")
        library, crypto = import_openfhe(), self.openfhe
        try:
            plain = crypto.MakeCKKSPackedPlaintext(values, degree, self.params.depth - level)
            encrypted = crypto.Encrypt(key, plain)
        except RuntimeError as error:
            raise InternalError(f"OpenFHE cannot encrypt at level {level}: {error}") from error
        archive: bytes = library.Serialize(encrypted, library.BINARY)
        return archive


def make_context(
    params: CryptoParams, *, allow_insecure: bool = False, several_parties: bool = False
) -> ClientContext:
    """Make the context and check it.

    Args:
        params: their security was recomputed from the moduli when they were read.
        allow_insecure: accept parameters that promise no security (tests, demonstrations).
        several_parties: make it able to share keys with other parties.

    Raises:
        SecurityError: the parameters promise less than 128 bits, and not `allow_insecure`.
        ParameterError: OpenFHE refuses the parameters, or would use other moduli or scales.
        UnusableEnvironmentError: OpenFHE cannot be imported.
    """
    if params.security is not Security.CLASSICAL_128 and not allow_insecure:
        raise SecurityError(
            f"the parameters' security is {params.security.value!r}, not 128 bits: do not encrypt "
            "real values with them; pass allow_insecure=True in tests only"
        )
    library = import_openfhe()
    try:
        context = library.GenCryptoContext(_settings(library, params))
    except RuntimeError as error:
        raise ParameterError(f"OpenFHE refuses the parameters {params}: {error}") from error
    feature = library.PKESchemeFeature
    features = [feature.PKE, feature.KEYSWITCH, feature.LEVELEDSHE]
    if params.secret is SecretDistribution.SPARSE_ENCAPSULATED:
        features += [feature.ADVANCEDSHE, feature.FHE]  # which makes the keys to the sparse secret
    if several_parties:
        features += [feature.ADVANCEDSHE, feature.MULTIPARTY]
    for enabled in features:
        context.Enable(enabled)
    template = template_from_context(library.Serialize(context, library.BINARY))
    _check(params, context, template)
    return ClientContext(params, context, template)


def _check(params: CryptoParams, context: openfhe.CryptoContext, template: Template) -> None:
    if context.GetRingDimension() != params.n or template.moduli != params.moduli:
        raise ParameterError(
            f"OpenFHE chose N = {context.GetRingDimension()} and moduli {template.moduli}, the "
            f"parameters say N = {params.n} and {params.moduli}: use openfhe 1.6.1"
        )
    for level in range(params.depth + 1):
        scale = context.GetScalingFactorReal(params.depth - level)
        if scale != params.scale(level):
            raise ParameterError(
                f"OpenFHE's scale at level {level} is {scale!r}, the parameters say "
                f"{params.scale(level)!r}: use openfhe 1.6.1"
            )


def _settings(library: ModuleType, params: CryptoParams) -> openfhe.CCParamsCKKSRNS:
    settings = library.CCParamsCKKSRNS()
    settings.SetSecretKeyDist(_distribution(library, params.secret))
    # CryptoParams has checked the actual moduli; OpenFHE would check an estimate of their size.
    settings.SetSecurityLevel(library.SecurityLevel.HEStd_NotSet)
    settings.SetRingDim(params.n)
    settings.SetBatchSize(params.slots)
    settings.SetMultiplicativeDepth(params.depth)
    settings.SetScalingModSize(params.log_scale)
    settings.SetFirstModSize(params.log_first)
    settings.SetScalingTechnique(library.ScalingTechnique.FLEXIBLEAUTO)
    settings.SetKeySwitchTechnique(library.KeySwitchTechnique.HYBRID)
    settings.SetNumLargeDigits(params.dnum)
    settings.SetCKKSDataType(library.CKKSDataType.REAL)
    return settings


def _distribution(library: ModuleType, secret: SecretDistribution) -> openfhe.SecretKeyDist:
    match secret:
        case SecretDistribution.UNIFORM_TERNARY:
            return library.SecretKeyDist.UNIFORM_TERNARY
        case SecretDistribution.SPARSE_TERNARY:
            return library.SecretKeyDist.SPARSE_TERNARY
        case SecretDistribution.SPARSE_ENCAPSULATED:
            return library.SecretKeyDist.SPARSE_ENCAPSULATED
