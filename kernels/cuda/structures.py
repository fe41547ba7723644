"""Arguments of the kernels: the structs of csrc/cuda, field by field."""

from __future__ import annotations

import ctypes

import numpy as np

_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
MOST_ROWS = 64
MOST_TERMS = 120
OUTPUTS_PER_BLOCK = 4
MOST_TURNS = 32

# Arrays that lie in device memory.
MODULUS = np.dtype(
    [
        *((name, "<u8") for name in ("q", "one", "two64", "two64_companion")),
        *((name, "<f8") for name in ("real", "inverse")),
        *((name, "<u8") for name in ("forward", "backward")),
        *((name, "<u4") for name in ("doubles", "shift", "factor", "down")),
    ]
)
NTT_ROW = np.dtype(
    [
        (name, "<u4")
        for name in (
            *("modulus", "source", "middle", "target"),
            *("minuend", "component", "limb", "turn"),
        )
    ]
)
GROUP = np.dtype(
    [
        (name, "<u4")
        for name in (
            *("source_row", "sources", "first_target"),
            *("targets", "first_weight", "unused"),
        )
    ]
)
TARGET = np.dtype([("modulus", "<u4"), ("row", "<u4")])


class Rows(ctypes.Structure):
    """Rows of a basis."""

    _fields_ = (("limbs", _U32), ("first_special", _U32))


class Span(ctypes.Structure):
    """Rows that a launch works on."""

    _fields_ = (("moduli", _U64), ("basis", Rows), ("rows", _U32), ("batch", _U32))


class Binary(ctypes.Structure):
    """a + b, or a - b."""

    _fields_ = (
        *(("span", Span), ("a", _U64), ("b", _U64), ("out", _U64)),
        *(("subtract", _U32), ("unused", _U32)),
    )


class Negate(ctypes.Structure):
    """-a."""

    _fields_ = (("span", Span), ("a", _U64), ("out", _U64))


class Scale(ctypes.Structure):
    """A product with one factor per row; the words and their companions alternate."""

    _fields_ = (
        *(("span", Span), ("a", _U64), ("out", _U64), ("source_rows", _U32), ("count", _U32)),
        ("factors", _U64 * (2 * MOST_ROWS)),
    )


class Plain(ctypes.Structure):
    """A sum with constants or a plaintext."""

    _fields_ = (
        *(("span", Span), ("a", _U64), ("plain", _U64), ("out", _U64)),
        ("constants", _U64 * MOST_ROWS),
    )


class Tensor(ctypes.Structure):
    """The product of two ciphertexts."""

    _fields_ = (
        *(("span", Span), ("a", _U64), ("b", _U64), ("out", _U64)),
        *(("accumulate", _U32), ("unused", _U32)),
    )


class Dot(ctypes.Structure):
    """A sum of products."""

    _fields_ = (
        *(("span", Span), ("out", _U64), ("terms", _U32), ("continues", _U32)),
        *(("a", _U64 * MOST_TERMS), ("b", _U64 * MOST_TERMS)),
    )


class Combine(ctypes.Structure):
    """Weighted sums."""

    _fields_ = (
        *(("span", Span), ("weights", _U64), ("out", _U64), ("components", _U32)),
        *(("outputs", _U32), ("terms", _U32), ("all_terms", _U32)),
        *(("continues", _U32), ("unused", _U32), ("a", _U64 * MOST_TERMS)),
    )


class Copy(ctypes.Structure):
    """Entries of a batch to another one."""

    _fields_ = (
        *(("source", _U64), ("target", _U64), ("source_batch", _U32), ("source_entry", _U32)),
        *(("target_batch", _U32), ("target_entry", _U32), ("batch", _U32), ("unused", _U32)),
    )


class Convert(ctypes.Structure):
    """Base conversions."""

    _fields_ = (
        *(("moduli", _U64), ("groups", _U64), ("targets", _U64), ("weights", _U64)),
        *(("source", _U64), ("target", _U64), ("batch", _U32), ("per_block", _U32)),
        *(("rows_read", _U32), ("rows_written", _U32)),
    )


class Turn(ctypes.Structure):
    """An automorphism and the keys of its entries."""

    _fields_ = (
        *(("keys", _U64), ("element", _U32), ("digits", _U32), ("rows", _U32), ("limbs", _U32)),
    )


class Keyed(ctypes.Structure):
    """Digits and switching keys."""

    _fields_ = (
        *(("a", _U64), ("digits", _U64), ("basis", Rows), ("rows", _U32), ("count", _U32)),
        *(("alpha", _U32), ("batch", _U32), ("different", _U32), ("unused", _U32)),
        ("turns", Turn * MOST_TURNS),
    )


class KeyProduct(ctypes.Structure):
    """Digits times keys, moved."""

    _fields_ = (
        *(("moduli", _U64), ("keyed", Keyed), ("plus", _U64), ("out", _U64), ("turns", _U32)),
        *(("plus_rows", _U32), ("accumulate", _U32), ("per_block", _U32)),
    )


class Remainder(ctypes.Structure):
    """Remainders of a division by the two primes of sparse secrets."""

    _fields_ = (
        *(("moduli", _U64), ("source", _U64), ("out", _U64), ("weights", _U64 * 3)),
        *(("batch", _U32), ("unused", _U32)),
    )


class Fourier(ctypes.Structure):
    """Layers of the transform of slots."""

    _fields_ = (
        *(("slots", _U64), ("parts", _U64), ("sources", _U64), ("roots", _U64), ("work", _U64)),
        *(("first", _U32), ("layers", _U32)),
    )


class Round(ctypes.Structure):
    """Rounded coefficients."""

    _fields_ = (
        *(("work", _U64), ("twist", _U64), ("out", _U64), ("scale", ctypes.c_double)),
        ("real", _U32),
    )


class Reduce(ctypes.Structure):
    """Rounded doubles to residues."""

    _fields_ = (("span", Span), ("values", _U64), ("out", _U64))


class Roots(ctypes.Structure):
    """Tables of roots."""

    _fields_ = (("moduli", _U64), ("psi", _U64), ("odd_inverse", _U64))


class Ntt(ctypes.Structure):
    """Transforms of rows."""

    _fields_ = (
        *(("moduli", _U64), ("rows", _U64), ("factors", _U64), ("scales", _U64)),
        *(("source", _U64), ("middle", _U64), ("target", _U64), ("minuend", _U64)),
        *(("plus", _U64 * 3), ("common", _U64), ("batch", _U32), ("per_block", _U32)),
        *(("last_modulus", _U32), ("tables", _U32), ("keyed", Keyed)),
        *(("left", _U64), ("right", _U64), ("component_words", _U64), ("kept", _U64)),
    )
