"""The weights of a compiled model as one file: arrays, and packed rows with their codes deflated.

A NumPy archive whose arrays are numbered; `names` holds a JSON list with one entry for each
constant: its name, or for packed rows {"name", "length", "rows", "period", "code"}, whose parts are
`a{i}` (deflated codes, or numbers), `a{i}.codebook` and `a{i}.shifts`.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ArtifactError, CircuitError
from tacit.packed_rows import PackedRows

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[np.generic]]

_LARGEST = 1 << 34  # bytes of one constant's codes
_CODES = ("uint8", "uint16")


def constants_to_bytes(constants: Mapping[str, Floats]) -> bytes:
    """Write constants; some of them may be packed rows."""
    entries: list[object] = []
    arrays: Arrays = {}
    for i, name in enumerate(sorted(constants)):
        value = cast("object", constants[name])
        if isinstance(value, PackedRows):
            entries.append(_packed_entry(name, value))
            arrays.update(_packed_arrays(f"a{i}", value))
        else:
            entries.append(name)
            arrays[f"a{i}"] = np.asarray(value, dtype=np.float64)
    buffer = io.BytesIO()
    names = np.frombuffer(json.dumps(entries).encode(), dtype=np.uint8)
    np.savez(buffer, names=names, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def constants_from_bytes(content: bytes, file: str) -> dict[str, Floats]:
    """Read constants back; packed rows stay packed.

    Args:
        content: what `constants_to_bytes` wrote.
        file: its name, for messages.

    Raises:
        ArtifactError: the content is damaged.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            entries = json.loads(archive["names"].tobytes())
            return dict(_read(archive, f"a{i}", entry) for i, entry in enumerate(entries))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file} is damaged: {error}") from error
    except (zlib.error, CircuitError) as error:
        raise ArtifactError(f"{file} is damaged: {error}") from error


def _packed_entry(name: str, rows: PackedRows) -> dict[str, object]:
    kept, period = rows.stored.shape
    code = rows.stored.dtype.name if len(rows.codebook) else ""
    return {"name": name, "length": rows.length, "rows": kept, "period": period, "code": code}


def _packed_arrays(key: str, rows: PackedRows) -> Arrays:
    stored: NDArray[np.generic] = rows.stored
    if len(rows.codebook):
        deflated = zlib.compress(np.ascontiguousarray(stored).tobytes(), 1)
        stored = np.frombuffer(deflated, dtype=np.uint8)
    return {key: stored, f"{key}.codebook": rows.codebook, f"{key}.shifts": rows.shifts}


def _read(
    archive: Mapping[str, NDArray[np.generic]], key: str, entry: object
) -> tuple[str, Floats]:
    if isinstance(entry, str):
        return entry, np.asarray(archive[key], dtype=np.float64)
    if not isinstance(entry, dict):
        raise ArtifactError("an entry of the list of constants is no name")
    shape = int(entry["rows"]), int(entry["period"])
    stored = archive[key]
    if entry["code"]:
        stored = _inflated(stored.tobytes(), shape, str(entry["code"]))
    rows = PackedRows(
        np.asarray(stored).reshape(shape),
        np.asarray(archive[f"{key}.codebook"], dtype=np.float64),
        np.asarray(archive[f"{key}.shifts"], dtype=np.int64),
        int(entry["length"]),
    )
    return str(entry["name"]), cast("Floats", rows)


def _inflated(content: bytes, shape: tuple[int, int], code: str) -> NDArray[np.generic]:
    if code not in _CODES:
        raise ArtifactError(f"codes of type {code!r:.20} are unknown")
    kind = np.dtype(code)
    size = shape[0] * shape[1] * kind.itemsize
    if not 0 <= size <= _LARGEST:
        raise ArtifactError(f"packed rows of {size} bytes are not acceptable")
    codes = zlib.decompressobj().decompress(content, size + 1)
    if len(codes) != size:
        raise ArtifactError(f"packed rows hold {len(codes)} bytes, {size} are needed")
    return np.frombuffer(codes, dtype=kind)
