"""Triton's `config.pbtxt`: a model configuration in the protobuf text format.

A repeated field is written once per element, a map field as `key` and `value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_INDENT = "  "
_ENUMS = frozenset({"data_type"})
_MAPS = frozenset({"parameters"})


def config_text(fields: Mapping[str, object]) -> str:
    """Write the fields of `descriptions.model_config` as text."""
    return "".join(f"{line}\n" for line in _message(fields, ""))


def _message(fields: Mapping[str, object], indent: str) -> Iterator[str]:
    for name, value in fields.items():
        if name in _MAPS and isinstance(value, Mapping):
            for key, entry in value.items():
                yield from _field(name, {"key": key, "value": entry}, indent)
        else:
            yield from _field(name, value, indent)


def _field(name: str, value: object, indent: str) -> Iterator[str]:
    match value:
        case Mapping():
            yield f"{indent}{name} {{"
            yield from _message(value, indent + _INDENT)
            yield f"{indent}}}"
        case list():
            for element in value:
                yield from _field(name, element, indent)
        case str() if name not in _ENUMS:
            yield f"{indent}{name}: {_quoted(value)}"
        case _:
            yield f"{indent}{name}: {value}"


def _quoted(text: str) -> str:
    """Quote as in C: other bytes than printable ASCII as three octal digits."""
    return '"' + "".join(_escaped(byte) for byte in text.encode()) + '"'


def _escaped(byte: int) -> str:
    character = chr(byte)
    if character in '"\\':
        return "\\" + character
    return character if 0x20 <= byte < 0x7F else f"\\{byte:03o}"
