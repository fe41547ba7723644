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
    output, row = np.divmod(target.positions()[matrix.row], target.cells)
    block, column = np.divmod(source.positions()[matrix.column], source.cells)
    diagonal = _diagonal(row, column, source, target, centred=centred)
    if target.period > source.period:
        offset, cell = diagonal, row
    elif source.copies == 1:
        offset, cell = diagonal, (column - diagonal) % source.period
    else:
        offset, cell = _turned(diagonal, column, source)
    return Entries(
        output=output,
        input=first_input + block,
        offset=offset % target.cells,
        cell=cell,
        value=matrix.value,
    )


def places_of(
    matrix: Coordinates,
    source: Arrangement,
    target: Arrangement,
    *,
    first_input: int = 0,
) -> Ints:
    """Return the distinct diagonals of a matrix as (output, input, offset) triples; not centred.

    They are those of `entries_of`, found without writing the entries down.
    """
    output, row = np.divmod(target.positions()[matrix.row], target.cells)
    block, column = np.divmod(source.positions()[matrix.column], source.cells)
    diagonal = _diagonal(row, column, source, target, centred=False)
    if source.copies > 1:
        diagonal, _ = _turned(diagonal, column, source)
    number = (output * source.ciphertexts + block) * target.cells + diagonal % target.cells
    found = _distinct(number, target.ciphertexts * source.ciphertexts * target.cells)
    pair, offset = np.divmod(found, target.cells)
    output, block = np.divmod(pair, source.ciphertexts)
    return np.stack([output, first_input + block, offset], axis=1)


def centred_places(places: Ints, source: Arrangement, target: Arrangement) -> Ints:
    """Name the diagonals of one matrix around zero, as `entries_of` does if told so."""
    period = min(target.period, source.period)
    if source.copies > 1:
        return places
    offset = (places[:, 2] + period // 2) % period - period // 2
    return np.concatenate([places[:, :2], offset[:, None] % target.cells], axis=1)


def _diagonal(
    row: Ints, column: Ints, source: Arrangement, target: Arrangement, *, centred: bool
) -> Ints:
    period = min(target.period, source.period)
    start = -(period // 2) if centred and source.copies == 1 else 0
    return np.asarray((column - row - start) % period + start)


def _distinct(numbers: Ints, bound: int) -> Ints:
    """Return the distinct numbers below a bound, sorted."""
    if bound > 1 << 24:
        return np.unique(numbers)
    return np.flatnonzero(np.bincount(numbers, minlength=1))


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
