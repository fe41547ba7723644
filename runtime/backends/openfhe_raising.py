"""From the smallest modulus to a larger one, for OpenFHE's ciphertexts: what it has no call for.

Residues are read from an archive, computed with in numpy (`tacit.modular`, which shares nothing
with the native kernels), and written into another; the key switch at the top is OpenFHE's. The
residues are those of the native engine. It takes about a tenth of a bootstrap's time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.errors import UnknownKeyError
from tacit.modular import centred, forward, inverse, residues, times
from tacit.moduli import encapsulation_moduli
from tacit.openfhe_context import Template
from tacit.openfhe_keys import write_switching_key
from tacit.params import CryptoParams, SecretDistribution
from tacit.runtime.backends.openfhe_archives import ciphertext_of, limbs_of
from tacit.runtime.backends.openfhe_calls import call
from tacit.runtime.backends.openfhe_parameters import CONTEXTS

Words = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class SparseSwitch:
    """The keys of an encapsulated secret.

    Attributes:
        to_sparse: shape (2, 1, 3, N): limbs, as OpenFHE has no context of these moduli.
        from_sparse: OpenFHE's object; it is in no table.
    """

    to_sparse: Words
    from_sparse: openfhe.EvalKey

    @classmethod
    def of(
        cls, params: CryptoParams, template: Template, tag: str, there: Words, back: Words
    ) -> SparseSwitch:
        """Load both keys.

        Args:
            params: of the keys.
            template: of the context.
            tag: of the key pair.
            there: to the sparse secret, shape (2, 1, 3, N).
            back: from it, full or trimmed.
        """
        archive = write_switching_key(template, tag, params.special_moduli, back)
        with CONTEXTS:
            return cls(there, openfhe.DeserializeEvalKeyString(archive, openfhe.BINARY))


class Raising:
    """Raises the modulus; several threads may use it.

    Args:
        params: the parameters.
        context: OpenFHE's.
        sparse: the keys of an encapsulated secret, None without.
    """

    def __init__(
        self, params: CryptoParams, context: openfhe.CryptoContext, sparse: SparseSwitch | None
    ) -> None:
        self._params = params
        self._context = context
        self._sparse = sparse
        self._encapsulated = params.secret is SecretDistribution.SPARSE_ENCAPSULATED

    def apply(self, a: openfhe.Ciphertext, level: int) -> openfhe.Ciphertext:
        """Take the coefficients of a ciphertext at level 0 as integers, at `level`.

        Raises:
            UnknownKeyError: the secret is encapsulated, and its keys were not given.
        """
        params = self._params
        foreign, template = limbs_of(a)
        low = foreign.limbs[:, 0]
        if self._encapsulated:
            low = switched_to_sparse(params, low, self._keys().to_sparse)
        raised = replace(
            foreign,
            limbs=raised_limbs(params, low, level + 1),
            level=params.depth - level,
            scaling_factor=params.scale(level),
            objects=(),
        )
        made = ciphertext_of(self._context, template, raised)
        if not self._encapsulated:
            return made
        return call(self._context.KeySwitch, made, self._keys().from_sparse)

    def _keys(self) -> SparseSwitch:
        if self._sparse is None:
            raise UnknownKeyError(
                "the keys to the sparse secret and back are needed and were not given: upload the "
                "keys that the model's signature asks for"
            )
        return self._sparse


def raised_limbs(params: CryptoParams, low: Words, limbs: int) -> Words:
    """Reduce polynomials modulo q_0, taken as integers around 0, modulo the first moduli.

    Args:
        params: the moduli.
        low: shape (2, N), NTT form.
        limbs: how many moduli.

    Returns:
        Shape (2, limbs, N), NTT form.
    """
    integers = centred(inverse(low, params.moduli[0]), params.moduli[0])
    made = [low]
    made += [forward(residues(integers, q), q) for q in params.moduli[1:limbs]]
    return np.stack(made, axis=1)


def switched_to_sparse(params: CryptoParams, low: Words, key: Words) -> Words:
    """Switch a ciphertext modulo q_0 to the sparse secret.

    Args:
        params: the moduli.
        low: shape (2, N), NTT form.
        key: shape (2, 1, 3, N), modulo q_0 and the two primes p, p' of the sparse secret.

    Returns:
        Shape (2, N), modulo q_0; the division by p p' rounds to the nearest.
    """
    q = params.moduli[0]
    p, other = encapsulation_moduli(params.log_n, params.moduli)
    second = centred(inverse(low[1], q), q)
    digits = [forward(residues(second, modulus), modulus) for modulus in (q, p, other)]
    products = [
        times(digit, np.ascontiguousarray(key[:, 0, i]), modulus)
        for i, (digit, modulus) in enumerate(zip(digits, (q, p, other), strict=True))
    ]
    out = _divided(products, q, p, other)
    out[0] = (out[0] + low[0]) % np.uint64(q)
    return out


def _divided(x: list[Words], q: int, p: int, other: int) -> Words:
    """Return x / (p p') to the nearest, modulo q; x holds NTT forms modulo q, p and p'."""
    # The remainder is y p' + y' p - wraps p p', of magnitude below p p' / 2.
    y = _scaled(inverse(x[1], p), pow(other, -1, p), p)
    z = _scaled(inverse(x[2], other), pow(p, -1, other), other)
    wraps = np.rint(y / p + z / other).astype(np.uint64)
    terms = ((y, other), (z, p), (wraps, -p * other))
    remainder = np.zeros_like(y)
    for numbers, factor in terms:
        remainder = (remainder + _scaled(numbers % np.uint64(q), factor % q, q)) % np.uint64(q)
    difference = (x[0] + (np.uint64(q) - forward(remainder, q))) % np.uint64(q)
    return _scaled(difference, pow(p * other, -1, q), q)


def _scaled(a: Words, factor: int, modulus: int) -> Words:
    return times(a, np.broadcast_to(np.uint64(factor), a.shape), modulus)
