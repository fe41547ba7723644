"""Tables in CSV files: numbers in columns, one column of labels."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tacit.errors import TrainingRowsError, UserError

Floats = NDArray[np.float64]

MISSING = frozenset({"", "?", "na", "nan", "null", "none"})


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A CSV file.

    Attributes:
        names: of the columns; their numbers from 0 where the file has no header.
        cells: shape (rows, columns), text.
    """

    names: tuple[str, ...]
    cells: list[list[str]] = field(repr=False)

    def without(self, target: str) -> tuple[Floats, tuple[str, ...]]:
        """Return all columns but one, NaN where a value is missing, and their names.

        Raises:
            UserError: there is no such column.
            TrainingRowsError: a cell is neither a number nor missing; names it.
        """
        left_out = self._index(target)
        kept = [i for i in range(len(self.names)) if i != left_out]
        rows = [[self._number(row, line, i) for i in kept] for line, row in enumerate(self.cells)]
        return np.array(rows, dtype=np.float64), tuple(self.names[i] for i in kept)

    def column(self, target: str, *, numbers: bool) -> NDArray[np.generic]:
        """Return one column: numbers, or labels, as whole numbers where all of them are.

        Raises:
            UserError: there is no such column.
            TrainingRowsError: a value is missing, or not a number where numbers are wanted.
        """
        index = self._index(target)
        cells = [row[index].strip() for row in self.cells]
        missing = [line for line, cell in enumerate(cells) if cell.lower() in MISSING]
        if missing:
            raise TrainingRowsError(f"column {target!r} is missing in row {missing[0] + 1}")
        if numbers:
            return np.array([self._number(row, n, index) for n, row in enumerate(self.cells)])
        try:
            found = np.array([float(cell) for cell in cells])
        except ValueError:
            return np.array(cells)
        return found.astype(np.int64) if np.array_equal(found, np.round(found)) else found

    def rows(self, names: tuple[str, ...] | None, columns: int) -> Floats:
        """Return the rows to be predicted: the named columns, or all if there are as many.

        Raises:
            UserError: columns are missing.
        """
        if names is not None and set(names) <= set(self.names):
            chosen = [self.names.index(name) for name in names]
        elif len(self.names) == columns:
            chosen = list(range(columns))
        else:
            wanted = ", ".join(names) if names else f"{columns} columns"
            raise UserError(f"the file has columns {', '.join(self.names)}, expected: {wanted}")
        rows = [[self._number(row, n, i) for i in chosen] for n, row in enumerate(self.cells)]
        return np.array(rows, dtype=np.float64)

    def _index(self, target: str) -> int:
        if target not in self.names:
            raise UserError(f"no column {target!r}: the file has {', '.join(self.names)}")
        return self.names.index(target)

    def _number(self, row: list[str], line: int, index: int) -> float:
        cell = row[index].strip()
        if cell.lower() in MISSING:
            return float("nan")
        try:
            return float(cell)
        except ValueError as error:
            raise TrainingRowsError(
                f"row {line + 1}, column {self.names[index]!r}: not a number. Columns of words "
                "are turned into numbers before (one column of 0 and 1 for each word)"
            ) from error


def read_table(path: Path) -> Table:
    """Read a CSV file; its first line is a header unless all of it is numbers.

    Raises:
        UserError: it cannot be read.
        TrainingRowsError: no rows, or lines of different lengths.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not lines:
        raise TrainingRowsError(f"{path} is empty")
    width = len(lines[0])
    for number, line in enumerate(lines, start=1):
        if len(line) != width:
            raise TrainingRowsError(f"{path}, line {number}: {len(line)} cells, expected {width}")
    if all(_is_number(cell) for cell in lines[0]):
        return Table(tuple(str(i) for i in range(width)), lines)
    names = tuple(cell.strip() for cell in lines[0])
    if len(set(names)) != width:
        raise TrainingRowsError(f"{path}: two columns have the same name")
    if len(lines) == 1:
        raise TrainingRowsError(f"{path} holds a header and no rows")
    return Table(names, lines[1:])


def _is_number(cell: str) -> bool:
    if cell.strip().lower() in MISSING:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True
