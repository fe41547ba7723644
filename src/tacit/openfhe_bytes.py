"""OpenFHE's ciphertexts and public keys as limbs, read and written without OpenFHE.

OpenFHE's Python interface gives no access to residues except through its serialisation, so the
limbs are read from, and written into, its binary archives (`Serialize(object, BINARY)`), byte
for byte as OpenFHE 1.4 to 1.6 writes them for CKKS RNS with the features PKE, KEYSWITCH,
LEVELEDSHE, ADVANCEDSHE and FHE.

A *template* is what surrounds the limbs: the context as it appears inside every archive. It is
taken from the serialised context or from any ciphertext of the context, at any level, and holds
neither keys nor limbs. Limbs are in OpenFHE's NTT form: limb i at position k is the polynomial
at psi_i^(2 bitrev(k) + 1), where psi_i is `PolynomialBasis.roots[i]`.

Levels here are OpenFHE's: 0 is fresh, one limb fewer for each. Ours counts the other way.
"""

import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ForeignBytesError
from tacit.openfhe_archive import ArchiveReader, ArchiveWriter
from tacit.openfhe_context import PolynomialBasis, Template, template_from_context
from tacit.openfhe_polynomials import (
    KnownObjects,
    Polynomials,
    checked_limbs,
    read_owner,
    read_polynomials,
    write_polynomial,
)
from tacit.params import CryptoParams
from tacit.wire_ciphertext import Ciphertext

__all__ = [
    "ForeignCiphertext",
    "ForeignPublicKey",
    "PolynomialBasis",
    "Template",
    "read_ciphertext",
    "read_public_key",
    "template_from_ciphertext",
    "template_from_context",
    "write_ciphertext",
]

_CKKS_PACKED_ENCODING = 4


@dataclass(frozen=True, slots=True, eq=False)
class ForeignCiphertext:
    """An OpenFHE ciphertext as limbs.

    Attributes:
        limbs: shape (components, limbs, N), uint64, NTT form; 2 components, or 3 before
            relinearisation.
        level: OpenFHE's: limbs dropped so far.
        noise_scale_degree: 1, or 2 after a multiplication that has not been rescaled.
        scaling_factor: what slot values are multiplied by.
        slots: number of slots.
        key_tag: OpenFHE's name of the key pair.
        objects: pointer numbers as read (see `Polynomials.objects`), so that the very bytes can
            be written again; they change no value. Empty writes the usual ones: the
            context's moduli, and one basis for all components.
    """

    limbs: NDArray[np.uint64]
    level: int
    noise_scale_degree: int
    scaling_factor: float
    slots: int
    key_tag: str
    objects: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, ciphertext: Ciphertext, params: CryptoParams, key_tag: str) -> "ForeignCiphertext":
        """Return a checked ciphertext of these parameters as OpenFHE wants it."""
        level, degree = ciphertext.level, ciphertext.degree
        scale = params.scale(level) ** degree
        slots = ciphertext.slots
        return cls(ciphertext.limbs, params.depth - level, degree, scale, slots, key_tag)

    def ours(self, params: CryptoParams, key_id: bytes) -> Ciphertext:
        """Return it as it goes over the wire, under the name of its key set, 32 bytes."""
        return Ciphertext(
            limbs=self.limbs,
            level=params.depth - self.level,
            degree=self.noise_scale_degree,
            scale=self.scaling_factor,
            slots=self.slots,
            params_digest=params.digest,
            key_id=key_id,
        )


@dataclass(frozen=True, slots=True, eq=False)
class ForeignPublicKey:
    """An OpenFHE public key (b, a) with b = e - a s.

    Attributes:
        limbs: shape (2, limbs, N), uint64, NTT form.
        key_tag: OpenFHE's name of the key pair.
    """

    limbs: NDArray[np.uint64]
    key_tag: str


def read_ciphertext(archive: bytes) -> tuple[ForeignCiphertext, Template]:
    """Read a serialised ciphertext, and its context as a template.

    The limbs are copied out once; nothing larger than the archive is allocated.

    Raises:
        ForeignBytesError: not a CKKS ciphertext as OpenFHE 1.4-1.6 writes it.
    """
    reader = ArchiveReader(archive)
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("a ciphertext archive starts with the ciphertext")
    reader.version("Ciphertext", 1)
    known, key_tag = read_owner(reader, None)
    polynomials = read_polynomials(reader, known)
    ciphertext = _read_ciphertext_end(reader, polynomials, key_tag)
    reader.end()
    _check_ciphertext(ciphertext, known.template)
    moduli = polynomials.basis.moduli
    if moduli != known.template.moduli[: len(moduli)]:
        raise ForeignBytesError("the ciphertext's moduli are not the first of its context")
    return ciphertext, known.template


def template_from_ciphertext(archive: bytes) -> Template:
    """Take a template from a serialised ciphertext at any level.

    Raises:
        ForeignBytesError: not a CKKS ciphertext as OpenFHE 1.4-1.6 writes it.
    """
    return read_ciphertext(archive)[1]


def read_public_key(archive: bytes) -> tuple[ForeignPublicKey, Template]:
    """Read a serialised public key.

    Raises:
        ForeignBytesError: not a public key as OpenFHE 1.4-1.6 writes it.
    """
    reader = ArchiveReader(archive)
    if not reader.static_pointer().defined_here:
        raise ForeignBytesError("a public key archive starts with the key")
    for name in ("PublicKey", "Key"):
        reader.version(name)
    known, key_tag = read_owner(reader, None)
    polynomials = read_polynomials(reader, known)
    reader.end()
    if len(polynomials.limbs) != 2 or polynomials.basis.moduli != known.template.moduli:
        raise ForeignBytesError("a public key has two polynomials over all moduli of its context")
    return ForeignPublicKey(polynomials.stacked(), key_tag), known.template


def write_ciphertext(template: Template, ciphertext: ForeignCiphertext) -> bytes:
    """Write a ciphertext as OpenFHE itself would serialise it.

    Args:
        template: of the context the ciphertext belongs to.
        ciphertext: its residues are checked against the template's moduli.

    Raises:
        ForeignBytesError: limbs or metadata that do not fit the template.
    """
    _check_ciphertext(ciphertext, template)
    limbs = ciphertext.limbs
    count = limbs.shape[1]
    checked_limbs(limbs, template.moduli[:count], template.log_n)
    writer, known = begin_ciphertext(template, ciphertext.key_tag)
    _write_components(writer, known, ciphertext)
    return end_ciphertext(writer, ciphertext)


class CiphertextNumbers(Protocol):
    """The numbers that stand behind a ciphertext's polynomials."""

    @property
    def slots(self) -> int:
        """Number of slots."""

    @property
    def level(self) -> int:
        """OpenFHE's: limbs dropped so far."""

    @property
    def noise_scale_degree(self) -> int:
        """1, or 2 after a multiplication that has not been rescaled."""

    @property
    def scaling_factor(self) -> float:
        """What slot values are multiplied by."""


def begin_ciphertext(template: Template, key_tag: str) -> tuple[ArchiveWriter, KnownObjects]:
    """Write what stands before a ciphertext's polynomials, its context included."""
    writer = ArchiveWriter()
    writer.static_pointer_to(None)
    writer.version("Ciphertext", 1)
    writer.version("CryptoObject")
    known = KnownObjects(template, template.write(writer))
    writer.text(key_tag)
    return writer, known


def end_ciphertext(writer: ArchiveWriter, numbers: CiphertextNumbers) -> bytes:
    """Write what stands behind a ciphertext's polynomials; returns the archive."""
    writer.u32(numbers.slots, numbers.level, 0, numbers.noise_scale_degree)
    writer.raw(struct.pack("<d", numbers.scaling_factor))
    writer.u64(1)
    writer.u32(_CKKS_PACKED_ENCODING)
    writer.new_pointer()
    writer.u64(0)
    return writer.archive()


def _write_components(
    writer: ArchiveWriter, known: KnownObjects, ciphertext: ForeignCiphertext
) -> None:
    full = known.template.basis
    count = ciphertext.limbs.shape[1]
    basis = PolynomialBasis(
        full.log_n, full.moduli[:count], full.roots[:count], full.numbers[:count]
    )
    objects = ciphertext.objects
    if not objects:
        whole = count == len(full.moduli)
        number = known.template.basis_number if whole else writer.numbers + 1 - known.context
        objects = ((*basis.numbers, number, *basis.numbers),) * len(ciphertext.limbs)
    writer.u64(len(ciphertext.limbs))
    for component, numbers in zip(ciphertext.limbs, objects, strict=True):
        write_polynomial(writer, known, component, basis, numbers)


def _read_ciphertext_end(
    reader: ArchiveReader, polynomials: Polynomials, key_tag: str
) -> ForeignCiphertext:
    slots, level = reader.u32(), reader.u32()
    reader.expect("re-encryption hops (not supported)", reader.u32(), 0)
    degree = reader.u32()
    scaling_factor = reader.f64()
    reader.expect("integer scaling factor", reader.u64(), 1)
    reader.expect("encoding (CKKS packed)", reader.u32(), _CKKS_PACKED_ENCODING)
    if not reader.pointer().defined_here:
        raise ForeignBytesError("a ciphertext without its metadata map")
    reader.expect("metadata entries (not supported)", reader.u64(), 0)
    return ForeignCiphertext(
        polynomials.stacked(), level, degree, scaling_factor, slots, key_tag, polynomials.objects
    )


def _check_ciphertext(ciphertext: ForeignCiphertext, template: Template) -> None:
    limbs = ciphertext.limbs
    if limbs.ndim != 3 or not 2 <= len(limbs) <= 3:
        raise ForeignBytesError("a ciphertext has 2 components, or 3 before relinearisation")
    widths = {len(numbers) for numbers in ciphertext.objects}
    if ciphertext.objects and (
        len(ciphertext.objects) != len(limbs) or widths != {2 * limbs.shape[1] + 1}
    ):
        raise ForeignBytesError("`objects` does not fit the limbs")
    if limbs.shape[1] + ciphertext.level != len(template.moduli):
        raise ForeignBytesError(
            f"{limbs.shape[1]} limbs at OpenFHE level {ciphertext.level} do not add up to "
            f"the context's {len(template.moduli)} moduli"
        )
    if ciphertext.noise_scale_degree not in (1, 2):
        raise ForeignBytesError(f"noise scale degree {ciphertext.noise_scale_degree}, not 1 or 2")
    if not 1 <= ciphertext.slots <= 1 << (template.log_n - 1):
        raise ForeignBytesError(f"{ciphertext.slots} slots in a ring of 2^{template.log_n}")
    if not 0.0 < ciphertext.scaling_factor < float("inf"):
        raise ForeignBytesError("a scaling factor that is not positive and finite")
    if not ciphertext.key_tag.isascii() or len(ciphertext.key_tag) > 256:
        raise ForeignBytesError("a key tag that is not short ASCII")
