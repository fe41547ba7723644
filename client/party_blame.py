"""Who spoilt a joint key: every party gives its secret up, and each share is compared with it.

This happens only after the test of a new joint key has failed, before anything was encrypted under
it, and ends the session: the secrets are of no use any more. A share must be what its formula says
with a small error; a party for which one is not so is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.client.party_secret import joint_key_a, joint_public_a
from tacit.client.party_shares import kept
from tacit.evaluation_keys import NeededKey
from tacit.modular import centred, forward, inverse, residues, times
from tacit.params import CryptoParams

Limbs = NDArray[np.uint64]
Integers = NDArray[np.int64]

# OpenFHE's errors have deviation 3.2 or less; a coefficient is beyond 40 deviations never.
_LARGEST_ERROR = 128


@dataclass(frozen=True, slots=True, eq=False)
class Blame:
    """Compares shares with secrets.

    Attributes:
        params: the CKKS parameters.
        seed: of the joint polynomials.
    """

    params: CryptoParams
    seed: bytes

    def secret_is_ternary(self, secret: Limbs) -> bool:
        """Tell whether a secret has coefficients -1, 0, 1 only, the same in every limb."""
        first = self._coefficients(secret[0], self.params.moduli[0])
        if int(np.abs(first).max()) > 1:
            return False
        wanted = self._limbs(first, self.params.moduli)
        return bool(np.array_equal(wanted, secret))

    def public_share_fits(self, share: Limbs, secret: Limbs) -> bool:
        """Tell whether b + a s is small."""
        a = joint_public_a(self.params, self.seed)
        return all(
            self._small(_plus(share[i], times(a[i], secret[i], q), q), q)
            for i, q in enumerate(self.params.moduli)
        )

    def first_share_fits(self, share: Limbs, secret: Limbs, key: NeededKey) -> bool:
        """Tell whether b + a s - P g s is small in every digit."""
        s = self._secret(secret, key)
        return self._key_fits(share, key, s, s)

    def rotation_share_fits(self, share: Limbs, secret: Limbs, key: NeededKey) -> bool:
        """Tell whether b + a s(X^(1/k)) - P g s is small in every digit."""
        turned = self._turned(secret, pow(key.element, -1, 2 * self.params.n), key)
        return self._key_fits(share, key, turned, self._secret(secret, key))

    def product_share_fits(self, share: Limbs, first: Limbs, secret: Limbs, key: NeededKey) -> bool:
        """Tell whether both halves are the first sum times s, up to a small error.

        Args:
            share: shape (2, digits, limbs, N).
            first: the sum of the first shares, and a, like `share` in shape.
            secret: the party's.
            key: says which limbs and digits there are.
        """
        s = self._secret(secret, key)
        return all(
            self._small(_minus(share[h, d, i], times(first[h, d, i], s[i], q), q), q)
            for h in range(2)
            for d in range(key.digits(self.params))
            for i, q in enumerate(key.moduli(self.params))
        )

    def partial_fits(
        self, partial: Limbs, ciphertext: Limbs, secret: Limbs, *, leads: bool, bound: int
    ) -> bool:
        """Tell whether a share of a decryption is c_1 s (+ c_0), up to noise below `bound`.

        Args:
            partial: shape (limbs, N).
            ciphertext: shape (2, limbs, N).
            secret: the party's, at least as many limbs.
            leads: whether c_0 is in it.
            bound: of a coefficient; below half of the first modulus.
        """
        q = self.params.moduli[0]
        rest = _minus(partial[0], times(ciphertext[1, 0], secret[0], q), q)
        if leads:
            rest = _minus(rest, ciphertext[0, 0], q)
        noise = self._coefficients(rest, q)
        if int(np.abs(noise).max()) > bound:
            return False
        wanted = self._limbs(noise, self.params.moduli[: len(partial)])
        return all(
            np.array_equal(
                _minus(
                    _minus(partial[i], ciphertext[0, i], p) if leads else partial[i],
                    times(ciphertext[1, i], secret[i], p),
                    p,
                ),
                wanted[i],
            )
            for i, p in enumerate(self.params.moduli[: len(partial)])
        )

    def _key_fits(self, share: Limbs, key: NeededKey, under: Limbs, carried: Limbs) -> bool:
        a = kept(joint_key_a(self.params, self.seed, key.element), key, self.params)
        product = 1
        for prime in self.params.special_moduli:
            product *= prime
        limbs = len(self.params.moduli)
        alpha = -(-limbs // self.params.dnum)
        for digit in range(key.digits(self.params)):
            for i, q in enumerate(key.moduli(self.params)):
                rest = _plus(share[digit, i], times(a[digit, i], under[i], q), q)
                if digit * alpha <= i < min((digit + 1) * alpha, key.limbs):
                    factor = np.full_like(rest, product % q)
                    rest = _minus(rest, times(carried[i], factor, q), q)
                if not self._small(rest, q):
                    return False
        return True

    def _secret(self, secret: Limbs, key: NeededKey) -> Limbs:
        return self._turned(secret, 1, key)

    def _turned(self, secret: Limbs, element: int, key: NeededKey) -> Limbs:
        """Return s(X^element) over all moduli of a key, those of P too."""
        s = self._coefficients(secret[0], self.params.moduli[0])
        n = self.params.n
        places = np.arange(n) * element % (2 * n)
        turned = np.zeros(n, dtype=np.int64)
        turned[places % n] = np.where(places < n, s, -s)
        return self._limbs(turned, key.moduli(self.params))

    def _limbs(self, values: Integers, moduli: tuple[int, ...]) -> Limbs:
        return np.stack([forward(residues(values, q), q) for q in moduli])

    def _coefficients(self, limb: Limbs, q: int) -> Integers:
        return centred(inverse(limb, q), q)

    def _small(self, limb: Limbs, q: int) -> bool:
        return int(np.abs(self._coefficients(limb, q)).max()) <= _LARGEST_ERROR


def _plus(a: Limbs, b: Limbs, q: int) -> Limbs:
    total = a + b
    return np.where(total >= np.uint64(q), total - np.uint64(q), total)


def _minus(a: Limbs, b: Limbs, q: int) -> Limbs:
    return _plus(a, np.where(b == 0, b, np.uint64(q) - b), q)
