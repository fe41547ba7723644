"""Encoded plaintexts, kept within a budget of bytes.

A circuit asks for its constants in the same order every time. So what is once kept is never put
out for something newer: with too small a budget a share of the constants is kept and the others
are encoded each time, where least recent use would keep none of them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import openfhe
from numpy.typing import NDArray

from tacit.bootstrap import Bootstrap
from tacit.circuit import Circuit, Constant, LinearPlan, Plain, ValueType
from tacit.packed_rows import memory_of_row
from tacit.params import CryptoParams
from tacit.runtime.backends.bootstrapping import every_stage
from tacit.runtime.backends.openfhe_parameters import make_complex_encoder

Floats = NDArray[np.float64]
_Key = tuple[str, int, tuple[int, ...], ValueType]


class PlaintextBudget:
    """Bytes that several caches share; may be used by several threads.

    Args:
        limit_bytes: how much all of them may hold.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes taken so far."""
        return self._used

    def take(self, size: int) -> bool:
        """Take bytes if there are so many left."""
        with self._lock:
            if self._used + size > self._limit:
                return False
            self._used += size
            return True

    def give_back(self, size: int) -> None:
        """Give back bytes taken."""
        with self._lock:
            self._used -= size


class PlaintextCache:
    """Encodes constants once per level and degree; may be used by several threads.

    Constants are told apart by name and by where their values lie in memory; the cache holds the
    values, so a place cannot be taken by others while an entry lives. Its bytes go back to the
    budget when the cache is no longer used.
    """

    def __init__(
        self, params: CryptoParams, context: openfhe.CryptoContext, budget: PlaintextBudget
    ) -> None:
        self._params = params
        self._context = context
        self._complex: openfhe.CryptoContext | None = None
        self._budget = budget
        self._entries: dict[_Key, tuple[Floats, openfhe.Plaintext]] = {}
        self._taken: list[int] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _give_back_all, budget, self._taken)

    @property
    def used_bytes(self) -> int:
        """Bytes of all plaintexts held, by an estimate from their dimensions."""
        return sum(self._taken)

    def encode(self, plain: Plain, at: ValueType) -> openfhe.Plaintext:
        """Return the constant encoded for ciphertexts of type `at`."""
        return self._found(plain.key, plain.values, at, lambda: plain)

    def encode_row(self, name: str, rows: Floats, row: int, at: ValueType) -> openfhe.Plaintext:
        """Return a row encoded; packed rows are unpacked only if they are not known."""
        key = f"{name}/{row}"
        return self._found(key, memory_of_row(rows, row), at, lambda: Plain(key, rows[row]))

    def _found(
        self, name: str, memory: Floats, at: ValueType, make: Callable[[], Plain]
    ) -> openfhe.Plaintext:
        key = (name, memory.__array_interface__["data"][0], memory.strides, at)
        entry = self._entries.get(key)
        if entry is not None:
            return entry[1]
        plain = make()
        values = plain.expand(self._params.slots)
        encoded = self._encoder(values).MakeCKKSPackedPlaintext(
            values, at.degree, self._params.depth - at.level
        )
        size = plaintext_bytes(self._params, at)
        with self._lock:
            if key not in self._entries and self._budget.take(size):
                self._entries[key] = (memory, encoded)
                self._taken.append(size)
        return encoded

    def _encoder(self, values: Floats) -> openfhe.CryptoContext:
        if not np.iscomplexobj(values):
            return self._context
        with self._lock:
            self._complex = self._complex or make_complex_encoder(self._params)
        return self._complex

    def prepare(self, circuit: Circuit) -> bool:
        """Encode all constants of a circuit; return whether the budget holds them."""
        for encode, at in constants_to_encode(circuit, self._params):
            known = len(self._taken)
            encode(self)
            if len(self._taken) == known and self._is_full(at):
                return False
        return True

    def _is_full(self, at: ValueType) -> bool:
        size = plaintext_bytes(self._params, at)
        if not self._budget.take(size):
            return True
        self._budget.give_back(size)
        return False


def plaintext_bytes(params: CryptoParams, at: ValueType) -> int:
    """Return the size of one encoded plaintext: its limbs, and its slots as complex numbers."""
    return 8 * params.n * (at.level + 1) + 16 * params.slots


def constants_to_encode(
    circuit: Circuit, params: CryptoParams
) -> Iterator[tuple[Callable[[PlaintextCache], openfhe.Plaintext], ValueType]]:
    """Yield how to encode each constant that is a vector, and the type of ciphertext it meets.

    Raises:
        LevelError: the parameters have too few levels for a bootstrap.
    """
    encode_row = PlaintextCache.encode_row
    for node in circuit.nodes:
        at = circuit.types[node.inputs[0]]
        match node.attribute:
            case Constant(name):
                plain = Plain(name, circuit.constants[name])
                if not plain.is_scalar:
                    yield partial(PlaintextCache.encode, plain=plain, at=at), at
            case LinearPlan() as plan:
                rows = circuit.constants[plan.diagonals]
                for row in sorted({term.row for term in plan.terms}):
                    yield partial(encode_row, name=plan.diagonals, rows=rows, row=row, at=at), at
                for output, value in enumerate(node.outputs if plan.bias else ()):
                    bias = Plain(f"{plan.bias}/{output}", circuit.constants[plan.bias][output])
                    to = circuit.types[value]
                    yield partial(PlaintextCache.encode, plain=bias, at=to), to
            case Bootstrap() as plan:
                for stage, rows, level in every_stage(params, plan, circuit.constants[plan.series]):
                    name, met = stage.diagonals, ValueType(level)
                    for row in range(len(rows)):
                        yield partial(encode_row, name=name, rows=rows, row=row, at=met), met


def _give_back_all(budget: PlaintextBudget, taken: list[int]) -> None:
    budget.give_back(sum(taken))
