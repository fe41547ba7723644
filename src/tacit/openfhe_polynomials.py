"""Polynomials in OpenFHE's archives: DCRTPoly objects as limbs."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ForeignBytesError
from tacit.openfhe_archive import STATIC_TYPE, ArchiveReader, ArchiveWriter, Pointer
from tacit.openfhe_context import (
    PolynomialBasis,
    Template,
    read_basis,
    read_context,
    read_modulus,
    write_basis_head,
    write_modulus,
)

_EVALUATION_FORM = 0
_NO_OBJECT = 0


@dataclass(slots=True)
class KnownObjects:
    """What pointer numbers of one archive stand for, as far as it has been read.

    Attributes:
        template: the archive's context.
        context: pointer number of the context.
        moduli: (modulus, root of unity) by pointer number.
        bases: bases by pointer number.
    """

    template: Template
    context: int
    moduli: dict[int, tuple[int, int]] = field(default_factory=dict)
    bases: dict[int, PolynomialBasis] = field(default_factory=dict)

    def __post_init__(self) -> None:
        basis = numbered(self.template.basis, self.context)
        pairs = zip(basis.moduli, basis.roots, strict=True)
        self.moduli |= dict(zip(basis.numbers, pairs, strict=True))
        self.bases[self.context + self.template.basis_number] = basis


def numbered(basis: PolynomialBasis, origin: int) -> PolynomialBasis:
    """Turn pointer numbers relative to the context into numbers of an archive."""
    numbers = tuple(number + origin for number in basis.numbers)
    return PolynomialBasis(basis.log_n, basis.moduli, basis.roots, numbers)


def read_known_objects(reader: ArchiveReader) -> KnownObjects:
    """Read the archive's context at the reader's position."""
    context = reader.numbers + 1
    return KnownObjects(read_context(reader), context)


def read_owner(reader: ArchiveReader, known: KnownObjects | None) -> tuple[KnownObjects, str]:
    """Read a CryptoObject: the context (new, or a reference to it) and the key tag."""
    reader.version("CryptoObject")
    if known is None:
        known = read_known_objects(reader)
    else:
        pointer = reader.static_pointer()
        if pointer != Pointer(known.context, defined_here=False):
            raise ForeignBytesError("objects of two contexts in one archive")
    return known, reader.text()


@dataclass(frozen=True, slots=True)
class Polynomials:
    """A vector of polynomials over the same moduli, as read.

    Attributes:
        limbs: of each polynomial, shape (N,) each: read-only views of the archive, NTT form,
            below their modulus.
        basis: the moduli, numbered as in the first polynomial.
        objects: of each polynomial, the pointer numbers of its limbs' moduli, of its basis, and
            of the basis' moduli, counted from the context's number: 2 limbs + 1 of them. OpenFHE
            sometimes writes equal objects twice; these numbers are what it takes to write the
            same bytes again.
    """

    limbs: list[list[NDArray[np.uint64]]]
    basis: PolynomialBasis
    objects: tuple[tuple[int, ...], ...]

    def stacked(self) -> NDArray[np.uint64]:
        """Copy the limbs into one array of shape (polynomials, limbs, N)."""
        shape = (len(self.limbs), len(self.basis.moduli), 1 << self.basis.log_n)
        limbs = np.empty(shape, dtype=np.uint64)
        self.copy_to(limbs)
        return limbs

    def copy_to(self, target: NDArray[np.uint64]) -> None:
        """Copy the limbs into an array of shape (polynomials, limbs, N)."""
        for polynomial, limbs in zip(target, self.limbs, strict=True):
            for row, limb in zip(polynomial, limbs, strict=True):
                row[...] = limb


def read_polynomials(reader: ArchiveReader, known: KnownObjects) -> Polynomials:
    """Read a vector of polynomials over one common set of moduli."""
    count = reader.u64()
    if not 1 <= count <= 64:
        raise ForeignBytesError(f"a vector of {count} polynomials, 1 to 64 expected")
    polynomials: list[list[NDArray[np.uint64]]] = []
    objects: list[tuple[int, ...]] = []
    for _ in range(count):
        limbs, numbers = read_polynomial(reader, known)
        polynomials.append(limbs)
        objects.append(tuple(number - known.context for number in numbers))
    bases = [known.bases[numbers[len(numbers) // 2] + known.context] for numbers in objects]
    if any(basis.moduli != bases[0].moduli for basis in bases):
        raise ForeignBytesError("polynomials over different moduli in one object")
    return Polynomials(polynomials, bases[0], tuple(objects))


def read_polynomial(
    reader: ArchiveReader, known: KnownObjects
) -> tuple[list[NDArray[np.uint64]], list[int]]:
    """Read one polynomial: its limbs, and the numbers of its objects."""
    reader.version("DCRTPoly")
    count = reader.u64()
    if not 1 <= count <= 128:
        raise ForeignBytesError(f"a polynomial of {count} limbs, 1 to 128 expected")
    limbs: list[NDArray[np.uint64]] = []
    numbers: list[int] = []
    for _ in range(count):
        limb, number = _read_limb(reader, known)
        limbs.append(limb)
        numbers.append(number)
    reader.expect("form of a polynomial (0, evaluation)", reader.u32(), _EVALUATION_FORM)
    pointer = reader.static_pointer()
    if pointer.defined_here:
        basis = read_basis(reader, known.moduli, known.template.log_n)
        known.bases[pointer.number] = basis
    elif pointer.number not in known.bases:
        raise ForeignBytesError(f"object {pointer.number} is not a basis")
    if known.bases[pointer.number].moduli != tuple(known.moduli[n][0] for n in numbers):
        raise ForeignBytesError("the limbs' moduli are not those of the polynomial's basis")
    return limbs, [*numbers, pointer.number, *known.bases[pointer.number].numbers]


def _read_limb(reader: ArchiveReader, known: KnownObjects) -> tuple[NDArray[np.uint64], int]:
    reader.version("PolyImpl")
    reader.expect("pointer to a limb", reader.u32(), STATIC_TYPE)
    reader.expect("presence of a limb's residues", reader.u8(), 1)
    reader.version("NativeVector")
    reader.expect("number of residues", reader.u64(), 1 << known.template.log_n)
    residues = reader.words(1 << known.template.log_n)
    modulus = reader.u64()
    reader.expect("form of a limb (0, evaluation)", reader.u32(), _EVALUATION_FORM)
    number = read_modulus(reader, known.moduli, known.template.log_n)
    reader.expect("modulus of a limb", modulus, known.moduli[number][0])
    if int(residues.max()) >= modulus:
        raise ForeignBytesError("a residue is not below its modulus")
    return residues, number


def write_polynomial(
    writer: ArchiveWriter,
    known: KnownObjects,
    limbs: Iterable[NDArray[np.uint64] | None],
    basis: PolynomialBasis,
    numbers: tuple[int, ...],
) -> None:
    """Append one polynomial in NTT form.

    Args:
        writer: an archive that already holds the context.
        known: objects written so far; new ones are added.
        limbs: shape (len(basis.moduli), N), below each modulus; OpenFHE gets a limb without
            residues for None, and must not be made to read it.
        basis: the moduli and roots; its numbers do not count.
        numbers: pointer numbers, see `Polynomials.objects`; those that the archive does not
            hold yet become new objects.

    Raises:
        ForeignBytesError: a number that stands for something else.
    """
    count = len(basis.moduli)
    numbers = tuple(number + known.context for number in numbers)
    writer.version("DCRTPoly")
    writer.u64(count)
    for i, limb in enumerate(limbs):
        _write_limb(writer, limb, basis.moduli[i])
        _write_modulus(writer, known, numbers[i], basis, i)
    writer.u32(_EVALUATION_FORM)
    _write_basis(writer, known, numbers[count], basis, numbers[count + 1 :])


def _write_limb(writer: ArchiveWriter, limb: NDArray[np.uint64] | None, modulus: int) -> None:
    writer.version("PolyImpl")
    if limb is None:
        writer.u32(_NO_OBJECT)
    else:
        writer.u32(STATIC_TYPE)
        writer.raw(b"\x01")
        writer.version("NativeVector")
        writer.u64(len(limb))
        writer.words(limb)
        writer.u64(modulus)
    writer.u32(_EVALUATION_FORM)


def _write_modulus(
    writer: ArchiveWriter, known: KnownObjects, number: int, basis: PolynomialBasis, index: int
) -> None:
    pair = (basis.moduli[index], basis.roots[index])
    if number > writer.numbers:
        number = writer.numbers + 1
        writer.static_pointer_to(None)
        write_modulus(writer, basis.log_n, *pair)
        known.moduli[number] = pair
    elif known.moduli.get(number) == pair:
        writer.static_pointer_to(number)
    else:
        raise ForeignBytesError(f"object {number} is not modulus {index} of the polynomial")


def _write_basis(
    writer: ArchiveWriter,
    known: KnownObjects,
    number: int,
    basis: PolynomialBasis,
    moduli_numbers: tuple[int, ...],
) -> None:
    if number > writer.numbers:
        writer.static_pointer_to(None)
        known.bases[writer.numbers] = basis
        write_basis_head(writer, basis)
        for i, modulus_number in enumerate(moduli_numbers):
            _write_modulus(writer, known, modulus_number, basis, i)
    elif number in known.bases and known.bases[number].moduli == basis.moduli:
        writer.static_pointer_to(number)
    else:
        raise ForeignBytesError(f"object {number} is not the basis of the polynomial")


def checked_limbs(limbs: NDArray[np.uint64], moduli: tuple[int, ...], log_n: int) -> None:
    """Refuse limbs that OpenFHE must not see: its own loaders check nothing.

    Args:
        limbs: shape (..., len(moduli), N), uint64.
        moduli: one per limb.
        log_n: base-2 logarithm of N.

    Raises:
        ForeignBytesError: wrong shape or dtype, or a residue not below its modulus.
    """
    if limbs.dtype != np.uint64 or limbs.shape[-2:] != (len(moduli), 1 << log_n):
        raise ForeignBytesError(
            f"limbs of shape (..., {len(moduli)}, {1 << log_n}) and dtype uint64 expected, "
            f"got {limbs.shape} and {limbs.dtype}"
        )
    bounds = np.array(moduli, dtype=np.uint64)
    largest = limbs.max(axis=-1).reshape(-1, len(moduli))
    if bool((largest >= bounds).any()):
        raise ForeignBytesError("a residue is not below its modulus")
