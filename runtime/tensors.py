"""BYTES tensors of KServe v2: every element is a 4-byte little-endian length and its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tacit.errors import InputShapeError, OversizedError, TruncatedError
from tacit.runtime.requests import Frame

_PREFIX = 4


def split_bytes(tensor: memoryview, count: int) -> list[memoryview]:
    """Cut a BYTES tensor into its `count` elements, without copying.

    Raises:
        TruncatedError: an element or its length prefix reaches beyond the end.
        OversizedError: bytes follow the last element.
    """
    elements: list[memoryview] = []
    offset = 0
    for index in range(count):
        start = offset + _PREFIX
        if start > len(tensor):
            raise TruncatedError(f"BYTES tensor: {count} elements declared, {index} are there")
        offset = start + int.from_bytes(tensor[start - _PREFIX : start], "little")
        if offset > len(tensor):
            raise TruncatedError(
                f"BYTES tensor: element {index} declares {offset - start} bytes, "
                f"{len(tensor) - start} are left"
            )
        elements.append(tensor[start:offset])
    if offset != len(tensor):
        raise OversizedError(
            f"BYTES tensor: {len(tensor) - offset} bytes follow its {count} elements"
        )
    return elements


def joined_length(frames: Sequence[Frame]) -> int:
    """Bytes of the BYTES tensor that holds these elements."""
    return sum(_PREFIX + len(frame) for frame in frames)


def join_pieces(frames: Sequence[Frame]) -> Iterator[Frame]:
    """Yield the pieces of a BYTES tensor: prefix, element, prefix, element, …"""
    for frame in frames:
        yield len(frame).to_bytes(_PREFIX, "little")
        yield frame


def join_bytes(frames: Sequence[Frame]) -> bytes:
    """Return the BYTES tensor as one buffer."""
    return b"".join(join_pieces(frames))


def element_count(shape: Sequence[int]) -> int:
    """Return evaluations times ciphertexts of a tensor shape.

    Raises:
        InputShapeError: not two positive extents.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise InputShapeError(
            f"tensor shape [evaluations, ciphertexts per evaluation] expected, got {list(shape)}"
        )
    return shape[0] * shape[1]
