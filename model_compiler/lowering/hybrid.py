"""Matrix entries to diagonal entries for repeating, turned tensors (the hybrid method).

Output o is the sum of what the cells j = o (mod m) collect, m the output's period: folding adds
them. A weight W[o, i] may therefore go to any such cell; it goes where the diagonal (i - o) mod m,
or with turned copies the few first of these diagonals, finds element i (Juvekar, Vaikuntanathan
and Chandrakasan, USENIX Security 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tacit.model_compiler.bsgs import Entries
from tacit.model_compiler.lowering.arrangement import Arrangement
from tacit.model_compiler.lowering.matrices import Coordinates

Ints = NDArray[np.int64]


def entries_of(
    matrix: Coordinates,
    source: Arrangement,
    target: Arrangement,
    *,
    first_input: int = 0,
    centred: bool = False,
) -> Entries:
    """Place every weight of one matrix on a diagonal.

    Args:
        matrix: entries of shape (target.size, source.size).
        source: where the input sits; turned only if target.period <= source.period.
        target: where the output shall sit, not turned.
        first_input: number of the tensor's first ciphertext among the node's inputs.
        centred: name diagonals -m/2 .. m/2 - 1 instead of 0 .. m - 1, which suits bands around
            the main diagonal; turned inputs have no choice.
    """
    row, column = matrix.row % target.cells, matrix.column % source.cells
    period = min(target.period, source.period)
    start = -(period // 2) if centred and source.copies == 1 else 0
    diagonal = (column - row - start) % period + start
    if target.period > source.period:
        offset, cell = diagonal, row
    elif source.copies == 1:
        offset, cell = diagonal, (column - diagonal) % source.period
    else:
        offset, cell = _turned(diagonal, column, source)
    return Entries(
        output=matrix.row // target.cells,
        input=first_input + matrix.column // source.cells,
        offset=offset % target.cells,
        cell=cell,
        value=matrix.value,
    )


def _turned(diagonal: Ints, column: Ints, source: Arrangement) -> tuple[Ints, Ints]:
    """Return offset and cell where the copies of the input are turned.

    Copy c shows offset d what diagonal d + c * turn would be; a cell whose reading runs over the
    end of its copy reads the next, turned once more, so it belongs to the copy before.
    """
    copy = np.minimum(diagonal // source.turn, source.copies - 1)
    offset = diagonal - copy * source.turn
    inside = (column - diagonal) % source.period
    copy = np.where(inside + offset < source.period, copy, (copy - 1) % source.copies)
    return offset, copy * source.period + inside
