"""What threshold decryption and joint keys need of OpenFHE's archives, read and written as limbs.

A partial decryption is a ciphertext of one component: c_0 + c_1 s + noise from the leading party,
c_1 s + noise from the others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ForeignBytesError
from tacit.openfhe_archive import ArchiveReader, ArchiveWriter
from tacit.openfhe_bytes import begin_ciphertext, end_ciphertext
from tacit.openfhe_context import PolynomialBasis, Template
from tacit.openfhe_polynomials import (
    KnownObjects,
    checked_limbs,
    read_owner,
    read_polynomial,
    read_polynomials,
    write_polynomial,
)


@dataclass(frozen=True, slots=True, eq=False)
class ForeignPartial:
    """A partial decryption, or the sum of all.

    Attributes:
        limbs: shape (limbs, N), uint64, NTT form.
        level: OpenFHE's: limbs dropped so far.
        noise_scale_degree: 1 or 2.
        scaling_factor: what slot values are multiplied by.
        slots: number of slots.
    """

    limbs: NDArray[np.uint64]
    level: int
    noise_scale_degree: int
    scaling_factor: float
    slots: int


def read_partial(archive: bytes) -> ForeignPartial:
    """Read a serialised partial decryption.

    Raises:
        ForeignBytesError: not such an archive as OpenFHE 1.6 writes it.
    """
    reader = ArchiveReader(archive)
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("a ciphertext archive starts with the ciphertext")
    reader.version("Ciphertext", 1)
    known, _ = read_owner(reader, None)
    polynomials = read_polynomials(reader, known)
    slots, level, hops, degree = (reader.u32() for _ in range(4))
    scaling_factor = reader.f64()
    moduli = polynomials.basis.moduli
    if len(polynomials.limbs) != 1 or hops != 0:
        raise ForeignBytesError("a partial decryption has one polynomial")
    if moduli != known.template.moduli[: len(moduli)]:
        raise ForeignBytesError("moduli that are not the first of the context")
    return ForeignPartial(polynomials.stacked()[0], level, degree, scaling_factor, slots)


def write_partial(template: Template, partial: ForeignPartial, key_tag: str) -> bytes:
    """Write a partial decryption as OpenFHE reads it.

    Raises:
        ForeignBytesError: limbs that do not fit the template.
    """
    count = partial.limbs.shape[0]
    if count + partial.level != len(template.moduli):
        raise ForeignBytesError("limbs and level do not add up to the context's moduli")
    checked_limbs(partial.limbs, template.moduli[:count], template.log_n)
    writer, known = begin_ciphertext(template, key_tag)
    writer.u64(1)
    _write(writer, known, partial.limbs)
    return end_ciphertext(writer, partial)


def write_public_key(template: Template, key_tag: str, limbs: NDArray[np.uint64]) -> bytes:
    """Write a public key (b, a) as `DeserializePublicKeyString` reads it.

    Args:
        template: of the context the key is for.
        key_tag: 1 to 256 ASCII characters.
        limbs: shape (2, limbs, N), uint64, NTT form; checked.

    Raises:
        ForeignBytesError: limbs that do not fit the template.
    """
    if limbs.shape[0] != 2:
        raise ForeignBytesError("a public key has two polynomials")
    checked_limbs(limbs, template.moduli, template.log_n)
    writer = ArchiveWriter()
    writer.static_pointer_to(None)
    for name in ("PublicKey", "Key", "CryptoObject"):
        writer.version(name)
    known = KnownObjects(template, template.write(writer))
    writer.text(key_tag)
    writer.u64(2)
    for polynomial in limbs:
        _write(writer, known, polynomial)
    return writer.archive()


def read_secret_limbs(archive: bytes) -> NDArray[np.uint64]:
    """Read the secret's polynomial from a serialised private key; shape (limbs, N), NTT form.

    Only for a key that is given up, to find out whose share was wrong.

    Raises:
        ForeignBytesError: not such an archive as OpenFHE 1.6 writes it.
    """
    reader = ArchiveReader(archive)
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("a private key archive starts with the key")
    for name in ("PrivateKey", "Key"):
        reader.version(name)
    known, _ = read_owner(reader, None)
    return np.stack(read_polynomial(reader, known)[0])


def _write(writer: ArchiveWriter, known: KnownObjects, limbs: NDArray[np.uint64]) -> None:
    full = known.template.basis
    count = len(limbs)
    basis = PolynomialBasis(
        full.log_n, full.moduli[:count], full.roots[:count], full.numbers[:count]
    )
    whole = count == len(full.moduli)
    number = known.template.basis_number if whole else writer.numbers + 1 - known.context
    write_polynomial(writer, known, limbs, basis, (*basis.numbers, number, *basis.numbers))
