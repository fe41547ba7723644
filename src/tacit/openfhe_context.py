"""The crypto context inside OpenFHE's archives, taken as a template for writing new archives.

Every object OpenFHE serialises carries its whole context. The context's bytes are the same in
every archive of that context except for the numbers of pointers and type names, which depend on
what precedes it. `Template` holds these bytes and the places of the numbers, so that a writer
can put the context into a new archive without OpenFHE.
"""

import struct
from dataclasses import dataclass, field

from tacit.errors import ForeignBytesError
from tacit.openfhe_archive import FIRST_TIME, ArchiveReader, ArchiveWriter

PARAMETERS_TYPE = "lbcrypto::CryptoParametersCKKSRNS"
SCHEME_TYPE = "lbcrypto::SchemeCKKSRNS"
BOOTSTRAPPING_TYPE = "lbcrypto::FHECKKSRNS"
_LARGEST_LOG_N = 17
# Standard deviation and assurance measure (f32 each), noise scale u64, register word u32,
# noise estimate f64; 11 u32, 3 f64 and 12 u32 of parameters that the moduli already imply.
_FIXED_PARAMETERS_BYTES = 4 + 4 + 8 + 4 + 8 + 11 * 4 + 3 * 8 + 12 * 4
_ENCODING_PARAMETERS_BYTES = 4 * 8 + 2 * 4


@dataclass(frozen=True, slots=True)
class PolynomialBasis:
    """One ILDCRTParams object: the moduli of a polynomial.

    Attributes:
        log_n: base-2 logarithm of the ring dimension.
        moduli: q_0 first.
        roots: the primitive 2N-th root of unity OpenFHE uses for each modulus.
        numbers: pointer number of each modulus' ILNativeParams object.
    """

    log_n: int
    moduli: tuple[int, ...]
    roots: tuple[int, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """What surrounds the limbs in archives of one context; holds no key and no ciphertext.

    Pointer numbers inside are relative: the context object itself is number 0.

    Attributes:
        basis: the context's full basis Q, numbers relative to the context.
        basis_number: number of the basis object, relative to the context.
    """

    basis: PolynomialBasis
    basis_number: int
    _block: bytes = field(repr=False)
    _number_offsets: tuple[int, ...] = field(repr=False)
    _name_offsets: tuple[int, ...] = field(repr=False)
    _names: tuple[str, ...] = field(repr=False)
    _numbers: int

    @property
    def log_n(self) -> int:
        """Base-2 logarithm of the ring dimension."""
        return self.basis.log_n

    @property
    def moduli(self) -> tuple[int, ...]:
        """The primes of Q, q_0 first."""
        return self.basis.moduli

    def write(self, writer: ArchiveWriter) -> int:
        """Append the context as a new object; returns the pointer number it received."""
        block = bytearray(self._block)
        for offset in self._number_offsets:
            _shift(block, offset, writer.numbers)
        for offset in self._name_offsets:
            _shift(block, offset, writer.names)
        writer.raw(bytes(block))
        number = writer.numbers + 1
        writer.written_objects(self._numbers, self._names)
        return number


def template_from_context(archive: bytes) -> Template:
    """Take a template from a serialised crypto context, `Serialize(context, BINARY)`.

    Raises:
        ForeignBytesError: not a CKKS RNS context as OpenFHE 1.4-1.6 writes it.
    """
    reader = ArchiveReader(archive)
    template = read_context(reader)
    reader.end()
    return template


def read_context(reader: ArchiveReader) -> Template:
    """Read a context, defined at the reader's position, into a template."""
    start, numbers, names = reader.offset, reader.numbers, reader.names
    first_number, first_name = len(reader.number_offsets), len(reader.name_offsets)
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("the first object of an archive must define its context")
    reader.version("CryptoContextImpl", 1)
    basis_number, basis = _read_parameters(reader)
    type_names = [PARAMETERS_TYPE, SCHEME_TYPE, *_read_scheme(reader)]
    end = reader.offset
    reader.offset = start
    block = bytes(reader.take(end - start))
    number_offsets = tuple(at - start for at in reader.number_offsets[first_number:])
    name_offsets = tuple(at - start for at in reader.name_offsets[first_name:])
    relative = bytearray(block)
    for offset in number_offsets:
        _shift(relative, offset, -numbers)
    for offset in name_offsets:
        _shift(relative, offset, -names)
    origin = numbers + 1
    return Template(
        basis=PolynomialBasis(
            basis.log_n, basis.moduli, basis.roots, tuple(n - origin for n in basis.numbers)
        ),
        basis_number=basis_number - origin,
        _block=bytes(relative),
        _number_offsets=number_offsets,
        _name_offsets=name_offsets,
        _names=tuple(type_names),
        _numbers=reader.numbers - numbers,
    )


def read_basis(
    reader: ArchiveReader, known: dict[int, tuple[int, int]], log_n: int | None = None
) -> PolynomialBasis:
    """Read an ILDCRTParams object whose pointer was just read.

    Args:
        reader: positioned behind the pointer.
        known: (modulus, root) by pointer number; new moduli are added.
        log_n: the ring dimension it must have; None takes what is there.
    """
    reader.version("ILDCRTParams")
    found = _read_ring(reader, "ElemParams<BigInteger>")
    if log_n is not None:
        reader.expect("log2 of the ring dimension", found, log_n)
    reader.version("BigInteger")
    product = _read_big(reader)
    for what in ("root of unity", "big modulus", "big root of unity"):
        reader.expect(what, _read_big(reader), 0)
    count = reader.u64()
    if not 1 <= count <= 128:
        raise ForeignBytesError(f"a basis of {count} moduli, 1 to 128 expected")
    numbers = tuple(read_modulus(reader, known, found) for _ in range(count))
    moduli = tuple(known[number][0] for number in numbers)
    roots = tuple(known[number][1] for number in numbers)
    if _product(moduli) != product:
        raise ForeignBytesError("a basis whose modulus is not the product of its moduli")
    return PolynomialBasis(found, moduli, roots, numbers)


def read_modulus(reader: ArchiveReader, known: dict[int, tuple[int, int]], log_n: int) -> int:
    """Read a pointer to an ILNativeParams object, and the object where it is new."""
    pointer = reader.static_pointer()
    if not pointer.defined_here:
        if pointer.number not in known:
            raise ForeignBytesError(f"object {pointer.number} is not a modulus")
        return pointer.number
    reader.version("ILNativeParams")
    found = _read_ring(reader, "ElemParams<NativeInteger>")
    reader.expect("log2 of a modulus' ring dimension", found, log_n)
    reader.version("NativeInteger")
    modulus, root = reader.u64(), reader.u64()
    if modulus < 2 or not 0 < root < modulus:
        raise ForeignBytesError("a modulus or its root of unity is out of range")
    reader.expect("big modulus", reader.u64(), 0)
    reader.expect("big root of unity", reader.u64(), 0)
    known[pointer.number] = (modulus, root)
    return pointer.number


def write_basis_head(writer: ArchiveWriter, basis: PolynomialBasis) -> None:
    """Append an ILDCRTParams object behind its pointer, up to the pointers to its moduli.

    No class versions are written: the context, which always precedes, holds them.
    """
    writer.u32(2 << basis.log_n, 1 << basis.log_n)
    for value in (_product(basis.moduli), 0, 0, 0):
        _write_big(writer, value)
    writer.u64(len(basis.moduli))


def write_modulus(writer: ArchiveWriter, log_n: int, modulus: int, root: int) -> None:
    """Append an ILNativeParams object behind its pointer."""
    writer.u32(2 << log_n, 1 << log_n)
    writer.u64(modulus, root, 0, 0)


def _read_ring(reader: ArchiveReader, type_name: str) -> int:
    reader.version(type_name)
    order, dimension = reader.u32(), reader.u32()
    log_n = dimension.bit_length() - 1
    if dimension < 2 or dimension != 1 << log_n or log_n > _LARGEST_LOG_N:
        raise ForeignBytesError(f"ring dimension {dimension} is not a power of two up to 2^17")
    reader.expect("cyclotomic order", order, 2 * dimension)
    return log_n


def _read_parameters(reader: ArchiveReader) -> tuple[int, PolynomialBasis]:
    pointer = reader.named_pointer(PARAMETERS_TYPE)
    if pointer is None or not pointer.defined_here:
        raise ForeignBytesError("a context without CKKS parameters")
    for name in ("CryptoParametersCKKSRNS", "CryptoParametersRNS", "CryptoParametersRLWE"):
        reader.version(name)
    reader.version("CryptoParametersBase")
    elements = reader.static_pointer()
    if not elements.defined_here:
        raise ForeignBytesError("a context without element parameters")
    basis = read_basis(reader, {})
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("a context without encoding parameters")
    reader.version("EncodingParamsImpl")
    reader.take(_ENCODING_PARAMETERS_BYTES)
    reader.take(_FIXED_PARAMETERS_BYTES)
    return elements.number, basis


def _read_scheme(reader: ArchiveReader) -> list[str]:
    """Read the scheme object; returns the polymorphic type names it defined besides its own."""
    pointer = reader.named_pointer(SCHEME_TYPE)
    if pointer is None or not pointer.defined_here:
        raise ForeignBytesError("a context without a CKKS scheme")
    for name in ("SchemeCKKSRNS", "SchemeRNS", "SchemeBase"):
        reader.version(name)
    bootstrapping = reader.named_pointer(BOOTSTRAPPING_TYPE)
    if bootstrapping is not None:
        _read_bootstrapping(reader)
    reader.expect("scheme switching (not supported)", reader.u32(), 0)
    reader.take(4)  # enabled features
    reader.expect("scheme (CKKS)", reader.u32(), 1)
    return [] if bootstrapping is None else [BOOTSTRAPPING_TYPE]


def _read_bootstrapping(reader: ArchiveReader) -> None:
    for _ in range(_count(reader, 4 + 8)):
        reader.take(4)  # slots
        if reader.static_pointer().defined_here:
            reader.take(5 * 4 + 1)
    reader.take(4)  # correction factor


def _count(reader: ArchiveReader, smallest_bytes: int) -> int:
    count = reader.u64()
    if count > 64:
        raise ForeignBytesError(f"{count} entries of {smallest_bytes} bytes, at most 64 expected")
    return count


def _read_big(reader: ArchiveReader) -> int:
    count = reader.u64()
    if count > 128:
        raise ForeignBytesError(f"an integer of {count} words, at most 128 expected")
    value = int.from_bytes(reader.take(8 * count), "little")
    reader.expect("bit length of an integer", reader.u32(), value.bit_length())
    return value


def _write_big(writer: ArchiveWriter, value: int) -> None:
    words = max(1, -(-value.bit_length() // 64))
    writer.u64(words)
    writer.raw(value.to_bytes(8 * words, "little"))
    writer.u32(value.bit_length())


def _product(moduli: tuple[int, ...]) -> int:
    product = 1
    for modulus in moduli:
        product *= modulus
    return product


def _shift(block: bytearray, offset: int, shift: int) -> None:
    """Add to a pointer number or name number, leaving its top bit."""
    word = int.from_bytes(block[offset : offset + 4], "little")
    number = (word & ~FIRST_TIME) + shift
    if number < 1:
        raise ForeignBytesError("a context that refers to objects before it")
    struct.pack_into("<I", block, offset, (word & FIRST_TIME) | number)
