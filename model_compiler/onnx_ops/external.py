"""Weights kept in a file beside the model, as PyTorch's exporter writes them unless told not to.

The model says which file, so it is not trusted: only a regular file in the model's own folder is
opened, links are not followed, and only the bytes that the tensors' shapes ask for are read.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tacit.errors import ModelError
from tacit.model_compiler.onnx_ops.checking import all_tensors, shown

MAX_BYTES = 1 << 30
_REMEDY = (
    "save the model with all weights inside (onnx.save(model, path, save_as_external_data=False))"
)


def read_outside_weights(model: onnx.ModelProto, folder: Path | None) -> None:
    """Put the numbers that tensors keep in other files into the model.

    Args:
        model: changed in place.
        folder: where the model's file lies; None if it is not known.

    Raises:
        ModelError: names the tensor: no folder, a file elsewhere, a link, a missing or short file,
            or more than 2^30 bytes in all.
    """
    left = MAX_BYTES
    for tensor in all_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
            continue
        if folder is None:
            raise _refusal(tensor, "another file", "give the path of the ONNX file instead, or ")
        size = _byte_count(tensor)
        left -= size
        if left < 0:
            raise ModelError(
                f"tensor {shown(tensor.name)!r}: the weights in other files have more than "
                f"{MAX_BYTES} bytes: a model of this size would not run on encrypted values"
            )
        tensor.raw_data = _read(tensor, folder, size)
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT


def _byte_count(tensor: TensorProto) -> int:
    """Return how many bytes the shape and the element type ask for."""
    try:
        item = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError, TypeError) as error:
        raise _refusal(tensor, "another file with an unknown element type") from error
    if item.kind == "O" or min(tensor.dims, default=1) < 0:
        raise _refusal(tensor, "another file, but is not a dense tensor of numbers")
    return int(math.prod(tensor.dims)) * int(item.itemsize)


def _read(tensor: TensorProto, folder: Path, size: int) -> bytes:
    location, offset, length = _place(tensor)
    if location in ("", ".", "..") or any(mark in location for mark in "/\\\0"):
        raise _refusal(tensor, f"{shown(location)!r}, not in the model's own folder")
    if offset < 0 or length not in (None, size):
        found = size if length is None else length
        raise _refusal(tensor, f"{found} bytes at {offset} of another file, {size} are needed")
    try:
        return _bytes_of(folder / location, offset, size)
    except OSError as error:
        why = "a link" if (folder / location).is_symlink() else error.strerror
        raise _refusal(tensor, f"another file, {shown(location)!r} ({why})") from error
    except ValueError as error:
        raise _refusal(tensor, f"another file, {shown(location)!r}, which {error}") from error


def _place(tensor: TensorProto) -> tuple[str, int, int | None]:
    entries = _entries((item.key, item.value) for item in tensor.external_data)
    if entries is None or "location" not in entries:
        raise _refusal(tensor, "another file that is not named once")
    try:
        length = int(entries["length"]) if "length" in entries else None
        return entries["location"], int(entries.get("offset", "0")), length
    except ValueError as error:
        raise _refusal(tensor, "another file, at a place that is no number") from error


def _entries(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str] | None:
    """Return the pairs by key; None if a key comes twice or anything is not text."""
    entries: dict[str, str] = {}
    for key, value in pairs:
        if key in entries or not isinstance(key, str) or not isinstance(value, str):
            return None
        entries[key] = value
    return entries


def _bytes_of(path: Path, offset: int, size: int) -> bytes:
    """Read a part of a regular file.

    Raises:
        OSError: it cannot be opened, or is a link.
        ValueError: it is no regular file, or too short.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("is not a regular file")
        if found.st_size < offset + size:
            raise ValueError(f"has {found.st_size} bytes, {offset + size} are needed")
        file.seek(offset)
        return file.read(size)


def _refusal(tensor: TensorProto, where: str, first: str = "") -> ModelError:
    return ModelError(f"tensor {shown(tensor.name)!r} is stored in {where}: {first}{_REMEDY}")
