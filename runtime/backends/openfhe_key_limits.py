"""How far trimmed evaluation keys reach in OpenFHE.

OpenFHE knows keys with all limbs only. It is given a trimmed key with empty limbs above its level,
and would crash if it used one there, so every use is compared with the level first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tacit.circuit import Circuit
from tacit.errors import UnknownKeyError
from tacit.kernels.automorphism import rotation_element
from tacit.key_levels import circuit_key_levels
from tacit.params import CryptoParams
from tacit.wire_key import sparse_elements


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The highest level of each trimmed key.

    Attributes:
        params: of the keys.
        levels: by element, 0 for relinearisation; keys that are not listed are for all levels.
    """

    params: CryptoParams
    levels: Mapping[int, int] = field(default_factory=dict)

    def check_rotation(self, steps: int, level: int) -> None:
        """Return if the key for a rotation, should there be one, is for this level.

        Raises:
            UnknownKeyError: it is for lower levels.
        """
        if self.levels:
            element = rotation_element(self.params.log_n, steps)
            self._check(element, level, f"a Galois key for rotations by {steps} slots")

    def check_relinearization(self, level: int) -> None:
        """Return if the relinearisation key, should there be one, is for this level.

        Raises:
            UnknownKeyError: it is for lower levels.
        """
        self._check(0, level, "a relinearisation key")

    def check_conjugation(self, level: int) -> None:
        """Return if the key for conjugation, should there be one, is for this level.

        Raises:
            UnknownKeyError: it is for lower levels.
        """
        self._check(2 * self.params.n - 1, level, "the Galois key for conjugation")

    def check_from_sparse(self, level: int) -> None:
        """Return if the key from the sparse secret, should there be one, is for this level.

        Raises:
            UnknownKeyError: it is for lower levels.
        """
        _, back = sparse_elements(self.params.log_n)
        self._check(back, level, "the key from the sparse secret")

    def check(self, circuit: Circuit) -> None:
        """Return if all keys that are there are for the levels at which a circuit uses them.

        Raises:
            UnknownKeyError: one is for lower levels.
        """
        uses = circuit_key_levels(circuit, self.params)
        if uses.relinearization is not None:
            self.check_relinearization(uses.relinearization)
        if uses.conjugation is not None:
            self.check_conjugation(uses.conjugation)
        if uses.from_sparse is not None:
            self.check_from_sparse(uses.from_sparse)
        for steps, level in sorted(uses.rotations.items()):
            self.check_rotation(steps, level)

    def _check(self, element: int, level: int, what: str) -> None:
        highest = self.levels.get(element, level)
        if level > highest:
            raise UnknownKeyError(
                f"{what} at level {level} is needed and was not given: upload the keys that the "
                f"model's signature asks for; the one given is trimmed to levels up to {highest}"
            )
