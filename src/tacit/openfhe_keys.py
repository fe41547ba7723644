"""OpenFHE's relinearisation and automorphism keys as limbs, read and written without OpenFHE.

The archives are those of `SerializeEvalMultKeyString(BINARY, tag)` and
`SerializeEvalAutomorphismKeyString(BINARY, tag)` for one key tag, with hybrid key switching. The
writer chooses the key tag, so keys from outside can be loaded under a name of our own
making: OpenFHE's key maps are global to a process and trust the tag they find in the archive.

Keys that are trimmed to fewer limbs (`tacit.key_trimming`) are written with OpenFHE's shape, with
limbs that have no residues, and without the digits above: they take no more memory in
OpenFHE than here. OpenFHE crashes if it is made to use one above its level, so whoever loads it
must compare levels before each use.

A key-switching key for digit d is (b_d, a_d) over all moduli of Q and then P, with
b_d + a_d s = e + P g_d s', where g_d is 1 on the digit's own limbs and 0 elsewhere, and s' is
s^2 (relinearisation) or, for the Galois element k, s is replaced by s(X^(1/k)) and s' by s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ForeignBytesError
from tacit.moduli import encapsulation_moduli, smallest_root
from tacit.openfhe_archive import ArchiveReader, ArchiveWriter
from tacit.openfhe_context import PolynomialBasis, Template
from tacit.openfhe_polynomials import (
    KnownObjects,
    checked_limbs,
    read_owner,
    read_polynomials,
    write_polynomial,
)

__all__ = [
    "ForeignKey",
    "SparseKeys",
    "read_automorphism_keys",
    "read_relinearization_key",
    "read_sparse_keys",
    "write_automorphism_keys",
    "write_relinearization_key",
    "write_switching_key",
]

_KEY_TYPE = "lbcrypto::EvalKeyRelinImpl<lbcrypto::DCRTPoly>"
_KEY_CLASSES = ("EvalKeyRelin", "EvalKey", "Key")
_MOST_KEYS = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class ForeignKey:
    """One OpenFHE key-switching key as limbs.

    Attributes:
        limbs: shape (2, dnum, limbs of Q + limbs of P, N), uint64, NTT form, (b, a) order like a
            ciphertext's components.
        special_moduli: the primes of P.
        key_tag: OpenFHE's name of the key pair.
    """

    limbs: NDArray[np.uint64]
    special_moduli: tuple[int, ...]
    key_tag: str


@dataclass(frozen=True, slots=True, eq=False)
class SparseKeys:
    """The keys of an encapsulated sparse secret.

    Attributes:
        to_sparse: limbs of shape (2, 1, 3, N): modulo q_0 and two primes of its own.
        from_sparse: back, over all moduli.
    """

    to_sparse: ForeignKey
    from_sparse: ForeignKey


def read_relinearization_key(archive: bytes) -> tuple[ForeignKey, Template]:
    """Read the archive of one key tag's relinearisation key, and its context as a template.

    Raises:
        ForeignBytesError: not such an archive as OpenFHE 1.4-1.6 writes it.
    """
    reader = ArchiveReader(archive)
    reader.expect("number of key tags", reader.u64(), 1)
    key_tag = reader.text()
    reader.expect("number of relinearisation keys", reader.u64(), 1)
    key, known = _read_key(reader, None, key_tag)
    reader.end()
    return key, known.template


def read_automorphism_keys(archive: bytes) -> tuple[dict[int, ForeignKey], Template]:
    """Read the archive of one key tag's automorphism keys, and its context as a template.

    Returns:
        Keys by Galois element (odd, below 2N), and the template.

    Raises:
        ForeignBytesError: not such an archive as OpenFHE 1.4-1.6 writes it.
    """
    keys, template = _read_key_map(archive)
    for element in keys:
        if not _is_galois_element(element, template.log_n):
            raise ForeignBytesError(f"{element} is not a Galois element of the ring")
    return keys, template


def read_sparse_keys(archive: bytes) -> SparseKeys:
    """Read the switching keys that bootstrapping of encapsulated secrets needs.

    OpenFHE makes them with the rotation keys of a bootstrap and keeps them among these, under the
    even numbers 2N - 4 (to the sparse secret) and 2N - 2 (back). The other keys are passed over.

    Raises:
        ForeignBytesError: not an archive of automorphism keys, or one without these two.
    """
    keys, template = _read_key_map(archive)
    there, back = (keys.get((2 << template.log_n) - less) for less in (4, 2))
    if there is None or back is None:
        raise ForeignBytesError("an archive without the keys of an encapsulated secret")
    own = encapsulation_moduli(template.log_n, template.moduli)
    if there.limbs.shape[1] != 1 or there.special_moduli != own:
        raise ForeignBytesError(f"a key to a sparse secret has one digit over q_0 and {own}")
    return SparseKeys(there, back)


def _read_key_map(archive: bytes) -> tuple[dict[int, ForeignKey], Template]:
    reader = ArchiveReader(archive)
    reader.expect("number of key tags", reader.u64(), 1)
    key_tag = reader.text()
    if not reader.pointer().defined_here:
        raise ForeignBytesError("an archive without its map of automorphism keys")
    count = reader.u64()
    if not 1 <= count <= _MOST_KEYS:
        raise ForeignBytesError(f"{count} automorphism keys, 1 to {_MOST_KEYS} expected")
    keys: dict[int, ForeignKey] = {}
    known: KnownObjects | None = None
    for _ in range(count):
        element = reader.u32()
        # The key to a sparse secret carries that secret's tag.
        key, known = _read_key(reader, known, key_tag if element % 2 else None)
        if element in keys:
            raise ForeignBytesError(f"two keys for {element}")
        keys[element] = key
    reader.end()
    if known is None:
        raise ForeignBytesError("an archive without automorphism keys")
    return keys, known.template


def write_relinearization_key(
    template: Template, key_tag: str, special_moduli: tuple[int, ...], limbs: NDArray[np.uint64]
) -> bytes:
    """Write an archive that `DeserializeEvalMultKeyString` loads under `key_tag`.

    Args:
        template: of the context the key is for.
        key_tag: 1 to 256 ASCII characters.
        special_moduli: the primes of P.
        limbs: shape (2, digits, limbs of Q + limbs of P, N), uint64, (b, a) order, of a full or
            a trimmed key; checked.

    Raises:
        ForeignBytesError: limbs that do not fit the moduli.
    """
    writer = _start(key_tag)
    writer.u64(1)
    keys = _KeyWriter(writer, template, special_moduli, key_tag)
    keys.write(limbs)
    return writer.archive()


def write_automorphism_keys(
    template: Template,
    key_tag: str,
    special_moduli: tuple[int, ...],
    limbs: Mapping[int, NDArray[np.uint64]],
) -> bytes:
    """Write an archive that `DeserializeEvalAutomorphismKeyString` loads under `key_tag`.

    Args:
        template: of the context the keys are for.
        key_tag: 1 to 256 ASCII characters.
        special_moduli: the primes of P.
        limbs: by Galois element; arrays as for `write_relinearization_key`.

    Raises:
        ForeignBytesError: limbs that do not fit the moduli, or not a Galois element.
    """
    if not limbs:
        raise ForeignBytesError("at least one automorphism key is needed")
    writer = _start(key_tag)
    writer.new_pointer()
    writer.u64(len(limbs))
    keys = _KeyWriter(writer, template, special_moduli, key_tag)
    for element in sorted(limbs):
        if not _is_galois_element(element, template.log_n):
            raise ForeignBytesError(f"{element} is not a Galois element of 2^{template.log_n}")
        writer.u32(element)
        keys.write(limbs[element])
    return writer.archive()


def write_switching_key(
    template: Template, key_tag: str, special_moduli: tuple[int, ...], limbs: NDArray[np.uint64]
) -> bytes:
    """Write an archive that `DeserializeEvalKeyString` loads: a key that is in no table.

    Args:
        template: of the context the key is for.
        key_tag: 1 to 256 ASCII characters.
        special_moduli: the primes of P.
        limbs: as for `write_relinearization_key`.

    Raises:
        ForeignBytesError: limbs that do not fit the moduli.
    """
    writer = ArchiveWriter()
    _KeyWriter(writer, template, special_moduli, _checked_tag(key_tag)).write(limbs)
    return writer.archive()


class _KeyWriter:
    """Writes keys into one archive; the first one carries the context and the basis QP."""

    def __init__(
        self,
        writer: ArchiveWriter,
        template: Template,
        special: tuple[int, ...],
        key_tag: str,
    ) -> None:
        added = tuple(smallest_root(p, template.log_n) for p in special)
        moduli, roots = (*template.moduli, *special), (*template.basis.roots, *added)
        self._writer = writer
        self._template = template
        self._basis = PolynomialBasis(template.log_n, moduli, roots, ())
        self._full = len(template.moduli)
        self._key_tag = key_tag
        self._known: KnownObjects | None = None
        self._numbers: tuple[int, ...] = ()

    def write(self, limbs: NDArray[np.uint64]) -> None:
        if limbs.ndim != 4 or len(limbs) != 2 or not 1 <= limbs.shape[1] <= 64:
            raise ForeignBytesError("a key's limbs have shape (2, dnum, limbs, N)")
        special = len(self._basis.moduli) - self._full
        held = limbs.shape[2] - special
        if not 1 <= held <= self._full:
            raise ForeignBytesError(f"a key has limbs for Q and {special} for P")
        moduli = self._basis.moduli[:held] + self._basis.moduli[self._full :]
        checked_limbs(limbs, moduli, self._basis.log_n)
        absent = [None] * (self._full - held)
        self._writer.named_pointer(_KEY_TYPE)
        for name in (*_KEY_CLASSES, "CryptoObject"):
            self._writer.version(name)
        known = self._write_context()
        self._writer.text(self._key_tag)
        for part in (limbs[1], limbs[0]):
            self._writer.u64(len(part))
            for polynomial in part:
                rows = [*polynomial[:held], *absent, *polynomial[held:]]
                write_polynomial(self._writer, known, rows, self._basis, self._numbers)

    def _write_context(self) -> KnownObjects:
        if self._known is not None:
            self._writer.static_pointer_to(self._known.context)
            return self._known
        self._known = KnownObjects(self._template, self._template.write(self._writer))
        first = self._writer.numbers + 1 - self._known.context
        moduli = tuple(range(first, first + len(self._basis.moduli)))
        self._numbers = (*moduli, first + len(moduli), *moduli)
        return self._known


def _start(key_tag: str) -> ArchiveWriter:
    writer = ArchiveWriter()
    writer.u64(1)
    writer.text(_checked_tag(key_tag))
    return writer


def _checked_tag(key_tag: str) -> str:
    if not key_tag.isascii() or not 1 <= len(key_tag) <= 256:
        raise ForeignBytesError("a key tag has 1 to 256 ASCII characters")
    return key_tag


def _read_key(
    reader: ArchiveReader, known: KnownObjects | None, key_tag: str | None
) -> tuple[ForeignKey, KnownObjects]:
    pointer = reader.named_pointer(_KEY_TYPE)
    if pointer is None or not pointer.defined_here:
        raise ForeignBytesError("an evaluation key is missing or given twice")
    for name in _KEY_CLASSES:
        reader.version(name)
    known, tag = read_owner(reader, known)
    if key_tag is not None and tag != key_tag:
        raise ForeignBytesError("a key under another tag than its map's")
    a, b = read_polynomials(reader, known), read_polynomials(reader, known)
    moduli, own = a.basis.moduli, known.template.moduli
    if b.basis.moduli != moduli or len(a.limbs) != len(b.limbs):
        raise ForeignBytesError("the two halves of a key do not fit")
    small = len(moduli) == 3 and moduli[0] == own[0] and not set(moduli[1:]) & set(own)
    if not small and (moduli[: len(own)] != own or len(moduli) == len(own)):
        raise ForeignBytesError("a key must cover Q and then P: hybrid key switching is expected")
    limbs = np.empty((2, len(a.limbs), len(moduli), 1 << a.basis.log_n), dtype=np.uint64)
    b.copy_to(limbs[0])
    a.copy_to(limbs[1])
    return ForeignKey(limbs, moduli[1:] if small else moduli[len(own) :], tag), known


def _is_galois_element(element: int, log_n: int) -> bool:
    return element % 2 == 1 and element < 2 << log_n
