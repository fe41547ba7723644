"""CKKS parameters: explicit moduli, the security table, and the scale at every level.

A `CryptoParams` is complete and validated: the actual primes are listed, and log2(Q P) is computed
from them. Levels count rescalings left: a fresh ciphertext has level `depth`, the last one 0.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import Enum

from tacit.errors import ParameterError, SecurityError
from tacit.moduli import choose_moduli, flexible_scales

# Largest log2(Q P) at 128-bit classical security for a ternary secret, by log2 of the ring
# dimension (homomorphicencryption.org security standard, as tabulated by OpenFHE 1.6.1).
MAX_LOG_QP_128 = {
    10: 27,
    11: 54,
    12: 109,
    13: 218,
    14: 438,
    15: 881,
    16: 1747,
    17: 3523,
}

# OpenFHE 1.5.0-1.6.1 makes evaluation keys with error deviation 1.0 instead of 3.19, worth about
# log2(3.19) = 1.7 bits of modulus; two bits are kept in hand.
SECURITY_MARGIN_BITS = 2.0

NARROW_BITS = 50
"""Primes below 2^50 are narrow: the native engine has faster instructions for them."""


class Security(str, Enum):
    """What the parameters promise."""

    CLASSICAL_128 = "128-bit classical"
    UNCHECKED_INSECURE = "none (insecure, for tests)"


class SecretDistribution(str, Enum):
    """Distribution of the secret key's coefficients."""

    UNIFORM_TERNARY = "uniform ternary"
    # 192 coefficients are not zero. Weaker than the security table assumes: for tests only.
    SPARSE_TERNARY = "sparse ternary"
    # Uniform, and a second, sparse key (32 coefficients) that bootstrapping uses at a modulus of
    # two primes only (Bossuat, Troncoso-Pastoriza and Hubaux 2022).
    SPARSE_ENCAPSULATED = "sparse encapsulated"


@dataclass(frozen=True, slots=True)
class CryptoParams:
    """Everything that two parties must agree on to exchange CKKS ciphertexts.

    Build one with `choose`. Scales follow OpenFHE's FLEXIBLEAUTO rule; key switching is hybrid.

    Attributes:
        log_n: log2 of the ring dimension N; there are N/2 slots.
        depth: rescalings a fresh ciphertext can take.
        log_scale: bits of the scale and of each rescaling modulus.
        log_first: bits of the first modulus, the one left at level 0.
        dnum: digits of the hybrid key switch.
        moduli: q_0 .. q_depth; a ciphertext at level l has limbs for q_0 .. q_l.
        special_moduli: the primes of P.
    """

    log_n: int
    depth: int
    log_scale: int
    log_first: int
    dnum: int
    moduli: tuple[int, ...] = field(repr=False)
    special_moduli: tuple[int, ...] = field(repr=False)
    security: Security = Security.CLASSICAL_128
    secret: SecretDistribution = SecretDistribution.UNIFORM_TERNARY

    @classmethod
    def choose(
        cls,
        log_n: int,
        depth: int,
        log_scale: int,
        log_first: int,
        dnum: int,
        security: Security = Security.CLASSICAL_128,
        secret: SecretDistribution = SecretDistribution.UNIFORM_TERNARY,
    ) -> CryptoParams:
        """Choose the moduli and check the security.

        Raises:
            ParameterError: no such moduli exist, or dnum does not fit the depth.
            SecurityError: log2(Q P) is above the 128-bit limit less `SECURITY_MARGIN_BITS`.
        """
        chosen = choose_moduli(log_n, depth, log_scale, log_first, dnum)
        return cls(
            log_n,
            depth,
            log_scale,
            log_first,
            dnum,
            chosen.moduli,
            chosen.special_moduli,
            security,
            secret,
        )

    def __post_init__(self) -> None:
        if len(self.moduli) != self.depth + 1:
            raise ParameterError(f"depth {self.depth} needs {self.depth + 1} moduli")
        if len(set(self.moduli + self.special_moduli)) != len(self.moduli + self.special_moduli):
            raise ParameterError("moduli must be distinct")
        if any(q % (2 * self.n) != 1 for q in self.moduli + self.special_moduli):
            raise ParameterError(f"every modulus must be 1 modulo 2N = {2 * self.n}")
        if self.security is Security.CLASSICAL_128:
            self._check_security()

    def _check_security(self) -> None:
        if self.secret is SecretDistribution.SPARSE_TERNARY:
            raise SecurityError(
                "a sparse secret is below the security that the table promises for ternary ones: "
                "use the encapsulated distribution"
            )
        limit = MAX_LOG_QP_128.get(self.log_n)
        if limit is None:
            raise SecurityError(f"no security figure for N = 2^{self.log_n}: use 10..17")
        if self.log_qp > limit - SECURITY_MARGIN_BITS:
            raise SecurityError(
                f"log2(QP) = {self.log_qp:.1f} is above {limit - SECURITY_MARGIN_BITS:.0f}, the "
                f"128-bit limit at N = 2^{self.log_n}: use a larger ring or fewer or smaller moduli"
            )

    @property
    def n(self) -> int:
        """Ring dimension N."""
        return 1 << self.log_n

    @property
    def slots(self) -> int:
        """Slots of a ciphertext, N/2."""
        return self.n // 2

    @property
    def log_qp(self) -> float:
        """log2 of the product of all moduli, special ones included."""
        return sum(math.log2(q) for q in self.moduli + self.special_moduli)

    def scale(self, level: int) -> float:
        """Return the scale of a degree-1 ciphertext at `level` (squared at degree 2)."""
        return flexible_scales(self.moduli, self.log_scale)[level]

    def room(self, level: int, degree: int = 1) -> float:
        """Return the value that all slots of a ciphertext stay below, or it wraps around."""
        modulus = math.prod(self.moduli[: level + 1])
        return float(modulus) / (2.0 * self.scale(level) ** degree)

    def ciphertext_bytes(self, level: int) -> int:
        """Bytes of a two-component ciphertext at `level`, 8 per residue."""
        return 2 * (level + 1) * self.n * 8

    @property
    def evaluation_key_bytes(self) -> int:
        """Bytes of one relinearisation or rotation key, 8 per residue."""
        return 2 * self.dnum * (len(self.moduli) + len(self.special_moduli)) * self.n * 8

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON form, 32 bytes."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "log_n": self.log_n,
            "depth": self.depth,
            "log_scale": self.log_scale,
            "log_first": self.log_first,
            "dnum": self.dnum,
            "moduli": [str(q) for q in self.moduli],
            "special_moduli": [str(q) for q in self.special_moduli],
            "security": self.security.value,
            "secret": self.secret.value,
            "scaling": "flexible-auto",
            "key_switching": "hybrid",
        }

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> CryptoParams:
        """Rebuild from `to_json`, recomputing the moduli and checking that they agree.

        Raises:
            ParameterError: a field is missing or of the wrong type, or the moduli differ.
            SecurityError: below 128 bits.
        """
        try:
            log_n, depth, log_scale, log_first, dnum = (
                int(str(fields[key])) for key in _INTEGER_FIELDS
            )
            security = Security(fields["security"])
            secret = SecretDistribution(fields["secret"])
            params = cls.choose(log_n, depth, log_scale, log_first, dnum, security, secret)
        except (KeyError, ValueError, TypeError) as error:
            raise ParameterError(f"not a CKKS parameter set: {error}") from error
        if params.to_json() != fields:
            raise ParameterError("the listed moduli are not the ones these parameters give")
        return params


_INTEGER_FIELDS = ("log_n", "depth", "log_scale", "log_first", "dnum")
