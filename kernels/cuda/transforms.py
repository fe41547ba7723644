"""Launches of the number-theoretic transforms, in the form that fits ring and device."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import prod

from tacit.errors import ParameterError
from tacit.kernels.cuda import structures
from tacit.kernels.cuda.interface import Device
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.cuda.tables import RingTables, RowTable

VALUES_PER_THREAD = 16
_WHOLE_LOG_N = 14
_WHOLE_BY_DEFAULT = 13  # at 2^14 a block's 1024 threads have too few registers
_BLOCKS_PER_MULTIPROCESSOR = 4


class Form(Enum):
    """How a transform is cut: one kernel for a whole ring, or columns and rows."""

    WHOLE = "whole"
    TILED = "tiled"


class Transforms:
    """Transforms of one ring on one device.

    Args:
        device: with the ring's kernels.
        ring: its tables.
        form: by default whole where a ring fits into a block's shared memory.

    Raises:
        ParameterError: the ring is too large for the form, or no ring of 2^6 to 2^17.
    """

    def __init__(self, device: Device, ring: RingTables, form: Form | None = None) -> None:
        self._device = device
        self._ring = ring
        log_n = ring.log_n
        fits = log_n <= _WHOLE_LOG_N and _shared_bytes(log_n) <= device.abilities.shared_bytes
        if form is Form.WHOLE and not fits:
            raise ParameterError(f"N = 2^{log_n} does not fit into a block of this device")
        preferred = Form.WHOLE if fits and log_n <= _WHOLE_BY_DEFAULT else Form.TILED
        self.form = form or preferred
        log_tile = min(12, log_n - 2)
        self._log_block = log_n if self.form is Form.WHOLE else log_tile
        self._tiles = 1 << (log_n - self._log_block)

    def forward(
        self, table: RowTable, a: DeviceArray, batch: int, target: DeviceArray | None = None
    ) -> None:
        """Coefficients to NTT form, in place or to `target`."""
        out = a if target is None else target
        arguments = self._arguments(table, a, out, out, batch)
        self._launch("forward", "", arguments, table.rows)

    def backward(
        self, table: RowTable, source: DeviceArray, target: DeviceArray, batch: int
    ) -> None:
        """NTT form to coefficients times a factor."""
        self._backward("", self._arguments(table, source, target, target, batch), table.rows)

    def backward_keyed(self, table: RowTable, keyed: structures.Keyed, target: DeviceArray) -> None:
        """Products with keys, moved, to coefficients times a factor."""
        arguments = self._arguments(table, target, target, target, keyed.batch)
        arguments.keyed = keyed
        self._backward("_keyed", arguments, table.rows)

    def backward_product(
        self,
        table: RowTable,
        a: DeviceArray,
        b: DeviceArray,
        kept: DeviceArray,
        target: DeviceArray,
    ) -> None:
        """The last component of the product of two ciphertexts to coefficients; `kept`: itself."""
        arguments = self._arguments(table, a, target, target, a.shape[2])
        arguments.left, arguments.right, arguments.kept = a.address, b.address, kept.address
        arguments.component_words = prod(a.shape[1:])
        self._backward("_product", arguments, table.rows)

    def raised(self, table: RowTable, source: DeviceArray, target: DeviceArray, batch: int) -> None:
        """Coefficients modulo the ring's first prime, taken as small integers, to NTT form."""
        arguments = self._arguments(table, source, target, target, batch)
        self._launch("raise", "", arguments, table.rows)

    def divide(
        self,
        table: RowTable,
        source: DeviceArray,
        minuend: DeviceArray,
        target: DeviceArray,
        *,
        plus: Sequence[DeviceArray | None] = (),
        common: DeviceArray | None = None,
        last_modulus: int | None = None,
    ) -> None:
        """Write (minuend - transform of source) scale + plus + common.

        Args:
            table: rows.
            source: coefficients; overwritten unless `last_modulus` is given.
            minuend: NTT form.
            target: NTT form.
            plus: by component.
            common: for all components and entries.
            last_modulus: the sources are residues modulo this prime, to be centred.
        """
        middle = source if last_modulus is None else target
        arguments = self._arguments(table, source, middle, target, source.shape[-2])
        arguments.minuend = minuend.address
        _add(arguments, plus, common)
        arguments.last_modulus = last_modulus or 0
        start = "forward" if last_modulus is None else "raise"
        self._launch(start, "_divided", arguments, table.rows)

    def divide_keyed(
        self,
        table: RowTable,
        source: DeviceArray,
        keyed: structures.Keyed,
        target: DeviceArray,
        *,
        plus: Sequence[DeviceArray | None] = (),
        common: DeviceArray | None = None,
        factors: tuple[DeviceArray, DeviceArray] | None = None,
    ) -> None:
        """Write (products with keys - transform of source) scale + plus + common, turn by turn.

        Args:
            table: rows.
            source: coefficients; overwritten.
            keyed: the products, moved by each turn's automorphism.
            target: NTT form.
            plus: by component, moved as well.
            common: for all components and entries.
            factors: ciphertexts, of whose product the first two components are added.
        """
        arguments = self._arguments(table, source, source, target, keyed.batch)
        arguments.keyed = keyed
        _add(arguments, plus, common)
        if factors is not None:
            a, b = factors
            arguments.left, arguments.right = a.address, b.address
            arguments.component_words = prod(a.shape[1:])
        self._launch("forward", "_keyed", arguments, table.rows)

    def _backward(self, kind: str, arguments: structures.Ntt, rows: int) -> None:
        if self.form is Form.WHOLE:
            self._put(f"tacit_backward_whole{kind}", arguments, rows)
            return
        self._put(f"tacit_backward_rows{kind}", arguments, rows)
        self._put("tacit_backward_columns", arguments, rows)

    def _launch(self, start: str, end: str, arguments: structures.Ntt, rows: int) -> None:
        if self.form is Form.WHOLE:
            self._put(f"tacit_{start}_whole{end}", arguments, rows)
            return
        self._put(f"tacit_{start}_columns", arguments, rows)
        self._put(f"tacit_forward_rows{end}", arguments, rows)

    def _arguments(
        self,
        table: RowTable,
        source: DeviceArray,
        middle: DeviceArray,
        target: DeviceArray,
        batch: int,
    ) -> structures.Ntt:
        arguments = structures.Ntt(
            moduli=self._ring.address,
            rows=table.block.address,
            factors=table.factors.address if table.factors else 0,
            scales=table.scales.address if table.scales else 0,
            source=source.address,
            middle=middle.address,
            target=target.address,
            batch=batch,
            tables=table.tables,
        )
        arguments.per_block = entries_per_block(self._device, self._tiles * table.rows, batch)
        return arguments

    def _put(self, name: str, arguments: structures.Ntt, rows: int) -> None:
        chunks = -(-arguments.batch // arguments.per_block)
        threads = (1 << self._log_block) // VALUES_PER_THREAD
        shared = _shared_bytes(self._log_block)
        grid = (self._tiles, rows, chunks)
        self._device.launch(self._ring.log_n, name, grid, threads, arguments, shared)


def _add(
    arguments: structures.Ntt, plus: Sequence[DeviceArray | None], common: DeviceArray | None
) -> None:
    for component, part in enumerate(plus):
        arguments.plus[component] = 0 if part is None else part.address
    arguments.common = 0 if common is None else common.address


def entries_per_block(device: Device, blocks: int, batch: int) -> int:
    """Return how many entries of a batch a block takes, so that the device is full.

    Args:
        device: whose multiprocessors are to be busy.
        blocks: for one entry.
        batch: entries.
    """
    wanted = _BLOCKS_PER_MULTIPROCESSOR * device.abilities.multiprocessors
    chunks = min(batch, -(-wanted // blocks))
    return -(-batch // chunks)


def _shared_bytes(log_values: int) -> int:
    return 8 * ((1 << log_values) + (1 << (log_values - 4)))
