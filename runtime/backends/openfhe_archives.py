"""OpenFHE's ciphertexts as limbs and back, by its archives: the only way to residues."""

from __future__ import annotations

import openfhe

from tacit.openfhe_bytes import ForeignCiphertext, read_ciphertext, write_ciphertext
from tacit.openfhe_context import Template
from tacit.runtime.backends.openfhe_parameters import CONTEXTS


def limbs_of(a: openfhe.Ciphertext) -> tuple[ForeignCiphertext, Template]:
    """Take a ciphertext's limbs out, and what surrounds them."""
    with CONTEXTS:
        archive = openfhe.Serialize(a, openfhe.BINARY)
    return read_ciphertext(archive)


def ciphertext_of(
    context: openfhe.CryptoContext, template: Template, foreign: ForeignCiphertext
) -> openfhe.Ciphertext:
    """Make a ciphertext of limbs.

    Raises:
        ForeignBytesError: limbs or metadata that do not fit the template.
    """
    archive = write_ciphertext(template, foreign)
    with CONTEXTS:
        loaded = openfhe.DeserializeCiphertextString(archive, openfhe.BINARY)
    # Results of a loaded ciphertext are copied by slow code of the Python module; those of a
    # compressed one, here to the same level, are not.
    return context.Compress(loaded, foreign.limbs.shape[1], foreign.noise_scale_degree)
