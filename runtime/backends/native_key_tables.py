"""Which keys the entries of a batch take: found by rotation, prepared once, checked for owners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tacit.errors import KeyMismatchError, UnknownKeyError
from tacit.kernels.automorphism import rotation_element
from tacit.kernels.limb_kernels import KeyTable, LimbArray
from tacit.runtime.backends.native_keys import NativeKeys, SwitchKeys

K = TypeVar("K")

# In the place of a Galois element.
FROM_SPARSE, TO_SPARSE = -1, -2


class KeyTables:
    """The keys of a batch; may be used by several threads.

    Args:
        keys: those of each batch entry, in order; or one client's, for batches of any size.
        found: tables made before, by Galois element and batch.

    Raises:
        KeyMismatchError: no keys, or keys of different engines.
    """

    def __init__(
        self,
        keys: Sequence[NativeKeys],
        found: dict[tuple[int, int], SwitchKeys] | None = None,
    ) -> None:
        if not keys:
            raise KeyMismatchError("an evaluator needs the keys of at least one client")
        if any(other.engine is not keys[0].engine for other in keys):
            raise KeyMismatchError("keys of one engine expected: load them all into the same one")
        alone = all(other is keys[0] for other in keys)
        self.engine = keys[0].engine
        self._keys = tuple(keys[:1] if alone else keys)
        self._owners = tuple(client.key_id for client in self._keys)
        # By Galois element and batch; one client's are kept with its keys for the next evaluator.
        self._found: dict[tuple[int, int], SwitchKeys] = keys[0].prepared if alone else {}
        if found is not None:
            self._found = found

    def check(self, owners: tuple[bytes, ...]) -> None:
        """Check that a batch belongs to these keys, entry by entry.

        Raises:
            KeyMismatchError: it does not.
        """
        expected = self._owners
        if owners == expected or (
            len(expected) == 1 and owners and owners.count(expected[0]) == len(owners)
        ):
            return
        raise KeyMismatchError(
            f"a batch of key sets {_named(expected)} expected, got {_named(owners)}: "
            "evaluate each batch with the keys of its entries, in the same order"
        )

    def relinearization(self, batch: int, level: int) -> SwitchKeys:
        """Return the relinearisation keys, for products at `level`.

        Raises:
            UnknownKeyError: one is missing, or is trimmed to lower levels.
        """
        return self._find(1, batch, level, lambda client: client.relinearization_key(level))

    def rotation(self, steps: int, batch: int, level: int) -> SwitchKeys:
        """Return the Galois keys for rotations by `steps` slots at `level`.

        Raises:
            UnknownKeyError: one is missing, or is trimmed to lower levels.
        """
        element = rotation_element(self.engine.params.log_n, steps)
        return self._find(element, batch, level, lambda client: client.rotation_key(steps, level))

    def conjugation(self, batch: int, level: int) -> SwitchKeys:
        """Return the Galois keys for conjugation at `level`.

        Raises:
            UnknownKeyError: one is missing, or is trimmed to lower levels.
        """
        element = 2 * self.engine.params.n - 1
        return self._find(element, batch, level, lambda client: client.conjugation_key(level))

    def to_sparse(self, batch: int) -> KeyTable:
        """Return the keys to each entry's sparse secret.

        Raises:
            UnknownKeyError: one is missing.
        """
        found = self._found.get((TO_SPARSE, batch))
        if found is None:
            keys = self._of_each(batch, lambda client: client.sparse_keys()[0])
            table = self.engine.kernels.sparse_key_table(keys)
            found = SwitchKeys(table, self.engine.galois(1), 1)
            self._found[TO_SPARSE, batch] = found
        return found.table

    def from_sparse(self, batch: int, level: int) -> SwitchKeys:
        """Return the keys from the sparse secrets, for ciphertexts raised to `level`.

        Raises:
            UnknownKeyError: one is missing, or is trimmed to lower levels.
        """
        return self._find(FROM_SPARSE, batch, level, lambda client: client.sparse_keys(level)[1])

    def _find(
        self, element: int, batch: int, level: int, find: Callable[[NativeKeys], LimbArray]
    ) -> SwitchKeys:
        found = self._found.get((element, batch))
        if found is None or level >= found.limbs:
            keys = self._of_each(batch, find)
            limbs = self._keys[0].limbs(keys[0])
            found = SwitchKeys(self._table(keys), self.engine.galois(max(element, 1)), limbs)
            self._found[element, batch] = found
        return found

    def _table(self, keys: Sequence[LimbArray]) -> KeyTable:
        """Prepare the keys of a batch, which share one circuit and so are trimmed alike.

        Raises:
            KeyMismatchError: they are not.
        """
        if any(key.shape != keys[0].shape for key in keys):
            shapes = sorted({key.shape[1:3] for key in keys})
            raise KeyMismatchError(
                f"keys trimmed alike expected in one batch, got (digits, limbs) {shapes}: evaluate "
                "clients whose keys follow different signatures one after the other"
            )
        return self.engine.kernels.key_table(keys)

    def _of_each(self, batch: int, find: Callable[[NativeKeys], K]) -> list[K]:
        clients = self._keys if len(self._keys) > 1 else self._keys * batch
        found: list[K] = []
        for entry, client in enumerate(clients):
            try:
                found.append(find(client))
            except UnknownKeyError as error:
                place = f"entry {entry} of a batch of {batch}, key set {client.key_id.hex()[:8]}: "
                raise UnknownKeyError(f"{place if batch > 1 else ''}{error}") from None
        return found


def _named(owners: Sequence[bytes]) -> str:
    return "(" + ", ".join(owner.hex()[:8] for owner in owners) + ")"
