"""What elementary work costs on a machine, fitted to tables of measured operations.

`op_times.json` holds tables of milliseconds of whole operations, one for each backend and machine;
`python -m bench operations --backend native --write-cost-table` writes one. Every operation is a
known amount of elementary work, which differs between backends; the fit finds each kind's price.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from tacit.errors import ParameterError
from tacit.model_compiler.op_work import Ring, Work
from tacit.model_compiler.op_work_native import MEASURED_NATIVE, native_work
from tacit.model_compiler.op_work_openfhe import MEASURED_OPENFHE, openfhe_work
from tacit.params import CryptoParams, Security

TABLES = Path(__file__).with_name("op_times.json")


class Backend(str, Enum):
    """What the compiler can aim at."""

    NATIVE = "native"
    OPENFHE = "openfhe"

    @property
    def measured(self) -> Mapping[str, Mapping[str, int]]:
        """The operations of a table, each as how many of which fine operations."""
        return MEASURED_NATIVE if self is Backend.NATIVE else MEASURED_OPENFHE

    def work(self, ring: Ring, operation: str) -> Work:
        """Return the elementary work of a fine operation.

        Raises:
            CircuitError: there is no such operation.
        """
        return (native_work if self is Backend.NATIVE else openfhe_work)(ring, operation)

    def measured_work(self, ring: Ring, name: str) -> Work:
        """Return the elementary work of an operation of the table."""
        parts = (self.work(ring, fine) * count for fine, count in self.measured[name].items())
        return sum(parts, Work())


@dataclass(frozen=True)
class MachineTimes:
    """Prices of elementary work of one backend on one machine.

    Attributes:
        backend: whose work it is.
        prices: milliseconds per unit, by kind of work.
        machine: what was measured, in words.
    """

    backend: Backend
    prices: Mapping[str, float]
    machine: str
    _known: dict[tuple[Ring, str], float] = field(default_factory=dict, repr=False, compare=False)

    def milliseconds(self, ring: Ring, operation: str) -> float:
        """Price a fine operation."""
        key = (ring, operation)
        if key not in self._known:
            self._known[key] = self.backend.work(ring, operation).at(self.prices)
        return self._known[key]


@dataclass(frozen=True)
class Table:
    """Measured operations of one backend on one machine.

    Attributes:
        machine: processor, cores and versions, in words.
        rows: each with log_n, limbs (of fresh ciphertexts), dnum, level, log_scale, log_first, and
            the milliseconds of some of `Backend.measured`.
        facts: when and how it was measured.
    """

    backend: Backend
    machine: str
    rows: Sequence[Mapping[str, float]]
    facts: Mapping[str, object] = field(default_factory=dict)

    @cached_property
    def times(self) -> MachineTimes:
        """The fitted prices."""
        return MachineTimes(self.backend, fit(self.backend, self.rows), self.machine)


def reference_times(backend: Backend = Backend.NATIVE) -> MachineTimes:
    """Fit the prices to the first table of a backend in this folder.

    Raises:
        ParameterError: there is none.
    """
    for table in read_tables(TABLES):
        if table.backend is backend:
            return table.times
    raise ParameterError(f"no measured operations of the {backend.value} backend in {TABLES.name}")


def read_tables(path: Path) -> list[Table]:
    """Read the tables of a file; none if there is no file."""
    if not path.exists():
        return []
    return [
        Table(Backend(entry["backend"]), entry["machine"], entry["rows"], entry["facts"])
        for entry in json.loads(path.read_text(encoding="utf-8"))["tables"]
    ]


def write_table(table: Table, path: Path) -> None:
    """Put a table first in a file, in place of an older one of its backend and machine."""
    key = (table.backend, table.machine)
    others = [each for each in read_tables(path) if (each.backend, each.machine) != key]
    texts = [_table_text(each) for each in (table, *others)]
    path.write_text('{"tables": [\n' + ",\n".join(texts) + "\n]}\n", encoding="utf-8")


def _table_text(table: Table) -> str:
    rows = ",\n".join(json.dumps(dict(row)) for row in table.rows)
    return (
        f'{{"backend": {json.dumps(table.backend.value)},\n"machine": {json.dumps(table.machine)},'
        f'\n"facts": {json.dumps(dict(table.facts))},\n"rows": [\n{rows}\n]}}'
    )


def ring_of(row: Mapping[str, float]) -> Ring:
    """Return the ring and level of a table's row."""
    params = CryptoParams.choose(
        int(row["log_n"]),
        int(row["limbs"]) - 1,
        int(row["log_scale"]),
        int(row["log_first"]),
        int(row["dnum"]),
        Security.UNCHECKED_INSECURE,
    )
    return Ring.at_level(params, int(row["level"]))


def fit(backend: Backend, rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Find the prices that explain measured times best, in relative terms, none negative.

    Args:
        backend: whose work the operations are.
        rows: as in `Table`.

    Returns:
        Milliseconds per unit, by kind of work.
    """
    amounts, times = [], []
    for row in rows:
        ring = ring_of(row)
        for name in backend.measured.keys() & row.keys():
            amounts.append(backend.measured_work(ring, name).amounts)
            times.append(float(row[name]))
    kinds = sorted({kind for work in amounts for kind in work})
    matrix = np.array([[work.get(kind, 0.0) for kind in kinds] for work in amounts])
    relative = matrix / np.asarray(times)[:, None]
    unit = relative.max(axis=0)
    prices, _ = nnls(relative / unit, np.ones(len(times)))
    return dict(zip(kinds, (prices / unit).tolist(), strict=True))
