"""From the smallest modulus to a larger one on a CUDA device; see `kernels.modulus_raising`."""

from __future__ import annotations

from collections.abc import Sequence

from tacit.errors import InternalError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.keys import CudaKeyTable, KeyShelf
from tacit.kernels.cuda.launches import THREADS, Launches
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.tables import RingTables, Row, RowTable, row_table
from tacit.kernels.cuda.transforms import Form, Transforms, entries_per_block
from tacit.moduli import encapsulation_moduli


class SmallRing:
    """The primes q_0, p and p' of ciphertexts under a sparse secret.

    Args:
        launches: of the parameter set.
        shelf: brings keys to the device.
        form: of the transforms.
        doubles: whether narrow primes are transformed in doubles.
    """

    def __init__(self, launches: Launches, shelf: KeyShelf, form: Form, *, doubles: bool) -> None:
        params, device = launches.params, launches.device
        others = encapsulation_moduli(params.log_n, params.moduli)
        self._launches = launches
        self._shelf = shelf
        self._ring = RingTables(device, params.log_n, (params.moduli[0], *others), doubles=doubles)
        self._transforms = Transforms(device, self._ring, form)
        q, p, other = self._ring.moduli
        self._weights = (other % q, p % q, -p * other % q)
        self._down = self._table([Row(0, 0, 0, factor=1)])
        self._up = self._table([Row(i, 0, i) for i in range(3)])
        self._low = self._table(
            [
                Row(1 + k, 3 * part + 1 + k, 2 * part + k, factor=factor)
                for k, factor in enumerate((pow(other, -1, p), pow(p, -1, other)))
                for part in range(2)
            ]
        )
        scale = pow(p * other, -1, q)
        self._divided = self._table(
            [Row(0, part, part, 3 * part, part, 0, scale=scale) for part in range(2)]
        )

    def switch(self, a: DeviceArray, keys: CudaKeyTable) -> DeviceArray:
        """Switch a batch to sparse secrets.

        Args:
            a: shape (2, 1, batch, N), NTT form, modulo q_0.
            keys: of each entry, shape (2, 1, 3, N).

        Returns:
            Shape (2, 1, batch, N); the division by p p' rounds to the nearest.

        Raises:
            InternalError: shapes do not fit.
        """
        batch = a.shape[2]
        if a.shape[:2] != (2, 1) or keys.batch != batch:
            raise InternalError(f"{keys.batch} keys of sparse secrets for limbs {a.shape}")
        array = self._launches.array
        second, extended, product = array(1, 1, batch), array(1, 3, batch), array(2, 3, batch)
        self._transforms.backward(self._down, a.first(1, 2), second, batch)
        self._transforms.raised(self._up, second, extended, batch)
        self._multiply(extended, keys, product)
        low, rest, out = array(2, 2, batch), array(2, 1, batch), array(2, 1, batch)
        self._transforms.backward(self._low, product, low, batch)
        self._remainder(low, rest)
        plus = (a.first(0, 1), None)
        self._transforms.divide(self._divided, rest, product, out, plus=plus)
        return out

    def _table(self, rows: Sequence[Row]) -> RowTable:
        return row_table(self._launches.device, self._ring, rows)

    def _multiply(self, a: DeviceArray, keys: CudaKeyTable, out: DeviceArray) -> None:
        n, batch = self._launches.params.n, a.shape[2]
        pieces = -(-n // (2 * THREADS))
        # One digit, of which no row is a limb's own.
        keyed = structures.Keyed(
            0, a.address, structures.Rows(0, 0), 3, 1, 1, batch, keys.different
        )
        keyed.turns[0] = structures.Turn(keys.address, 1, 1, 3, 0)
        per_block = entries_per_block(self._launches.device, 3 * pieces, batch)
        arguments = structures.KeyProduct(
            self._ring.address, keyed, 0, out.address, 1, 0, 0, per_block
        )
        grid = (pieces, 3, -(-batch // per_block))
        with self._shelf.held([keys]):
            self._launches.launch("tacit_key_product", grid, min(THREADS, n // 2), arguments)

    def _remainder(self, low: DeviceArray, out: DeviceArray) -> None:
        batch, n = low.shape[2:]
        arguments = structures.Remainder(self._ring.address, low.address, out.address)
        arguments.weights[:] = self._weights
        arguments.batch = batch
        grid = (-(-batch * n // THREADS), 2, 1)
        self._launches.launch("tacit_small_remainder", grid, THREADS, arguments)
