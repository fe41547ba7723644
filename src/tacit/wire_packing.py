"""How residues become the bytes of a frame: raw 64-bit words, or packed to the modulus' width.

A packed limb is one little-endian bit stream: residue i takes bits [i w, (i + 1) w), least
significant bit first, where w is the bit length of the limb's modulus. 64 residues fill
exactly w words of 64 bits, so with N a multiple of 64 a limb ends on a word boundary.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ResidueError

_WORD = 64


class Packing(IntEnum):
    """How the payload stores residues.

    RAW is fastest; BITS is up to half as long and costs about 2 ms per MB.
    """

    RAW = 0
    BITS = 1


def limb_bytes(packing: Packing, log_n: int, modulus: int) -> int:
    """Return the bytes of one limb of 2^log_n residues; log_n is at least 6."""
    width = _WORD if packing is Packing.RAW else modulus.bit_length()
    return (width << log_n) // 8


def payload_bytes(packing: Packing, log_n: int, moduli: tuple[int, ...], polynomials: int) -> int:
    """Return the bytes of `polynomials` polynomials over `moduli`."""
    return polynomials * sum(limb_bytes(packing, log_n, modulus) for modulus in moduli)


def check_residues(limbs: NDArray[np.uint64], moduli: tuple[int, ...]) -> None:
    """Refuse limbs with a residue that is not below its modulus.

    Args:
        limbs: shape (..., len(moduli), N), uint64.
        moduli: one per limb.

    Raises:
        ResidueError: names the first limb at fault, not the residue.
    """
    largest = limbs.max(axis=-1).reshape(-1, len(moduli)).max(axis=0)
    for i, modulus in enumerate(moduli):
        if int(largest[i]) >= modulus:
            raise ResidueError(f"limb {i} holds a residue that is not below its modulus {modulus}")


def pack(limbs: NDArray[np.uint64], moduli: tuple[int, ...], out: NDArray[np.uint8]) -> None:
    """Bit-pack limbs, which must be below their moduli, into `out`.

    Args:
        limbs: shape (polynomials, len(moduli), N), uint64.
        moduli: one per limb.
        out: shape (payload_bytes(...),), overwritten.
    """
    rows = _rows(out, moduli, limbs.shape[0], limbs.shape[2])
    for i, modulus in enumerate(moduli):
        rows[i][...] = _pack_rows(limbs[:, i], modulus.bit_length())


def unpack(
    payload: NDArray[np.uint8], moduli: tuple[int, ...], polynomials: int, log_n: int
) -> NDArray[np.uint64]:
    """Undo `pack`; residues are below 2^width but not yet checked against the moduli.

    Args:
        payload: shape (payload_bytes(...),).
        moduli: one per limb.
        polynomials: how many polynomials there are.
        log_n: base-2 logarithm of N.

    Returns:
        Shape (polynomials, len(moduli), N), uint64.
    """
    rows = _rows(payload, moduli, polynomials, 1 << log_n)
    limbs = np.empty((polynomials, len(moduli), 1 << log_n), dtype=np.uint64)
    for i, modulus in enumerate(moduli):
        _unpack_rows(rows[i], modulus.bit_length(), limbs[:, i])
    return limbs


def _rows(
    payload: NDArray[np.uint8], moduli: tuple[int, ...], polynomials: int, n: int
) -> list[NDArray[np.uint8]]:
    """Views of the payload: for each limb, shape (polynomials, bytes of this limb)."""
    table = payload.reshape(polynomials, -1)
    ends = np.cumsum([modulus.bit_length() * n // 8 for modulus in moduli])
    return np.split(table, ends[:-1], axis=1)


def _pack_rows(values: NDArray[np.uint64], width: int) -> NDArray[np.uint8]:
    """Pack (rows, N) residues of `width` bits into (rows, N width / 8) bytes."""
    groups = values.reshape(len(values), -1, _WORD)
    words = np.zeros((*groups.shape[:2], width), dtype="<u8")
    for i in range(_WORD):
        word, shift = divmod(i * width, _WORD)
        words[..., word] |= groups[..., i] << np.uint64(shift)
        if shift + width > _WORD:
            words[..., word + 1] |= groups[..., i] >> np.uint64(_WORD - shift)
    return words.reshape(len(values), -1).view(np.uint8)


def _unpack_rows(row_bytes: NDArray[np.uint8], width: int, out: NDArray[np.uint64]) -> None:
    """Unpack (rows, N width / 8) bytes into `out`, shape (rows, N); neither is copied."""
    rows, n = out.shape
    words = row_bytes.view("<u8").reshape(rows, -1, width)
    groups = out.reshape(rows, n // _WORD, _WORD)
    mask = np.uint64((1 << width) - 1)
    for i in range(_WORD):
        word, shift = divmod(i * width, _WORD)
        value = words[..., word] >> np.uint64(shift)
        if shift + width > _WORD:
            value |= words[..., word + 1] << np.uint64(_WORD - shift)
        np.bitwise_and(value, mask, out=groups[..., i])
