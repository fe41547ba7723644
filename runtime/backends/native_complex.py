"""Ciphertexts whose slots are complex: scalars with an imaginary part, and conjugation.

X^(N/2) is i in every slot. In NTT form it is a square root of -1 in the first half of the positions
and its negative in the second half, so a complex scalar takes one value in each half.
"""

from __future__ import annotations

import numpy as np

from tacit.chebyshev import SumOfProducts
from tacit.circuit import Plain, ValueType
from tacit.kernels.limb_kernels import LimbArray
from tacit.params import CryptoParams, SecretDistribution
from tacit.runtime.backends.native import NativeEvaluator, _made
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.type_rules import product_type


class ComplexEvaluator(NativeEvaluator):
    """The same evaluator, for complex slots.

    Args:
        of: whose keys and settings it takes.
    """

    def __init__(self, of: NativeEvaluator) -> None:
        self._keys = of._keys
        self._correct_rotations = of._correct_rotations
        self._engine = of._engine
        self._kernels = of._kernels
        self._checked = of._checked

    @property
    def params(self) -> CryptoParams:
        """The parameters."""
        return self._engine.params

    @property
    def fused(self) -> SumOfProducts[NativeCiphertext]:
        """Products are added up with one relinearisation."""
        return self.sum_of_products

    def add_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Add a constant; scalars may be complex."""
        if not (plain.is_scalar and np.iscomplexobj(plain.values)):
            return super().add_plain(a, plain)
        return _made(self._kernels.add_plain(a.limbs, self._scalar(plain, a.type)), a.type, a)

    def multiply_plain(self, a: NativeCiphertext, plain: Plain) -> NativeCiphertext:
        """Multiply by a constant; scalars may be complex."""
        if not (plain.is_scalar and np.iscomplexobj(plain.values)):
            return super().multiply_plain(a, plain)
        to, encoded = product_type(a.type), self._scalar(plain, a.type)
        (product,) = self._kernels.dot_pairs([[(a.limbs, encoded)]], a.level)
        return _made(product, to, a)

    def conjugate(self, a: NativeCiphertext) -> NativeCiphertext:
        """Take the complex conjugate of every slot.

        Raises:
            UnknownKeyError: no Galois key for X -> X^-1.
        """
        kernels, key = self._kernels, self._keys.conjugation(len(a.owners), a.level)
        plus = (kernels.part(a.limbs, 0), None)
        (limbs,) = kernels.switch_down(
            kernels.part(a.limbs, 1), [key.table], [key.moved], plus=plus, shared=self._halves(a)
        )
        return _made(limbs, a.type, a)

    def raised(self, a: NativeCiphertext, level: int) -> NativeCiphertext:
        """Take coefficients at level 0 as integers: the same plus multiples of q_0, at `level`.

        Raises:
            UnknownKeyError: the secret is encapsulated, and its switching keys are missing.
        """
        kernels, batch = self._kernels, len(a.owners)
        if self.params.secret is not SecretDistribution.SPARSE_ENCAPSULATED:
            return _made(kernels.raised(a.limbs, level + 1), ValueType(level), a)
        sparse = kernels.to_sparse(a.limbs, self._keys.to_sparse(batch))
        limbs = kernels.raised(sparse, level + 1)
        back = self._keys.from_sparse(batch, level)
        plus = (kernels.part(limbs, 0), None)
        (made,) = kernels.switch_down(kernels.part(limbs, 1), [back.table], [back.moved], plus=plus)
        return _made(made, ValueType(level), a)

    def _scalar(self, plain: Plain, at: ValueType) -> LimbArray:
        """Return a complex scalar at the type's scale, shape (1, limbs, 1, N)."""
        words = self._engine.halves_of(complex(plain.values), at)
        spread = np.repeat(words, self._engine.params.n // 2, axis=1)
        return self._kernels.upload(spread[None, :, None])
