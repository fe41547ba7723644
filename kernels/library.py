"""The compiled kernels behind their C interface (csrc/tacit_kernels.h), by ctypes.

ctypes releases the interpreter lock during each call.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path

from tacit.errors import UnusableEnvironmentError
from tacit.kernels.compile_sources import library_path, sources_digest

_POINTER = ctypes.c_void_p
_COUNT = ctypes.c_uint32
_ROWS = (_POINTER, _COUNT, _POINTER)  # ring, rows, mods
_BATCH = (*_ROWS, _COUNT)
_LEVEL = (_POINTER, _POINTER)  # ring, basis

_SIGNATURES: dict[str, tuple[object, ...]] = {
    "tacit_ring_free": (_POINTER,),
    "tacit_ntt_forward": (*_BATCH, _POINTER),
    "tacit_ntt_inverse": (*_BATCH, _POINTER),
    "tacit_add": (*_BATCH, _POINTER, _POINTER, ctypes.c_int, _POINTER),
    "tacit_subtract": (*_BATCH, _POINTER, _POINTER, _POINTER),
    "tacit_negate": (*_BATCH, _POINTER, _POINTER),
    "tacit_scale": (*_BATCH, *((_POINTER,) * 5)),
    "tacit_add_constant": (*_BATCH, _POINTER, _POINTER, _POINTER),
    "tacit_dot": (*_ROWS, _COUNT, _POINTER, _POINTER, _POINTER),
    "tacit_combine": (*_BATCH, _COUNT, _COUNT, _POINTER, _POINTER, ctypes.c_int, _POINTER),
    "tacit_tensor": (_POINTER, _COUNT, _COUNT, _COUNT, *((_POINTER,) * 5)),
    "tacit_galois_table": (_COUNT, ctypes.c_uint64, _POINTER),
    "tacit_automorphism": (
        *(*_BATCH, _POINTER, ctypes.c_uint64, _POINTER, _COUNT, _POINTER),
        *(ctypes.c_int, _POINTER),
    ),
    "tacit_dot_pairs": (*_BATCH, _COUNT, *((_POINTER,) * 3), ctypes.c_int, _POINTER),
    "tacit_mod_up": (*_LEVEL, _COUNT, *((_POINTER,) * 3)),
    "tacit_key_product": (*_LEVEL, _COUNT, *((_POINTER,) * 3), _COUNT, _COUNT, *((_POINTER,) * 3)),
    "tacit_switch": (*_LEVEL, _COUNT, *((_POINTER,) * 3), _COUNT, _COUNT, *((_POINTER,) * 2)),
    "tacit_extend": (
        *(_POINTER, _COUNT, _COUNT, _POINTER, _COUNT, _COUNT),
        *((_POINTER,) * 3),
    ),
    "tacit_mod_down": (*_LEVEL, _COUNT, _COUNT, *((_POINTER,) * 4)),
    "tacit_rescale": (*_LEVEL, _COUNT, _COUNT, *((_POINTER,) * 3)),
}


class InstructionSet(IntEnum):
    """Instruction sets with kernels of their own."""

    SCALAR = 0
    AVX2 = 1
    AVX512 = 2


def load(path: Path | None = None) -> ctypes.CDLL:
    """Load the compiled kernels, by default those of the present sources.

    Raises:
        UnusableEnvironmentError: they were not compiled, or from other sources.
    """
    advice = "run `python -m tacit.kernels.build`, which needs g++"
    try:
        library = ctypes.CDLL(str(path or library_path()))
        _declare(library)
    except (OSError, AttributeError) as error:
        raise UnusableEnvironmentError(f"no compiled kernels: {advice}") from error
    if library.tacit_sources().decode() != sources_digest():
        raise UnusableEnvironmentError(f"the compiled kernels are of other sources: {advice}")
    return library


def available(library: ctypes.CDLL) -> tuple[InstructionSet, ...]:
    """Return the instruction sets that the library holds and this processor has, best last."""
    bits = library.tacit_paths()
    return tuple(path for path in InstructionSet if bits >> path & 1)


def _declare(library: ctypes.CDLL) -> None:
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = None
    library.tacit_sources.argtypes = ()
    library.tacit_sources.restype = ctypes.c_char_p
    library.tacit_paths.argtypes = ()
    library.tacit_paths.restype = ctypes.c_uint32
    library.tacit_ring_new.argtypes = (
        *(_COUNT, _COUNT, _POINTER, _POINTER, ctypes.c_int, _COUNT),
        ctypes.POINTER(ctypes.c_int),
    )
    library.tacit_ring_new.restype = _POINTER
    library.tacit_slot_coefficients.argtypes = (ctypes.c_uint32, *((_POINTER,) * 7))
    library.tacit_slot_coefficients.restype = None
    library.tacit_encode.argtypes = (*_ROWS, _POINTER, ctypes.c_double, _POINTER)
    library.tacit_encode.restype = ctypes.c_int
