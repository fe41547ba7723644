"""Primitives of OpenFHE's binary archives (cereal's portable binary form), read strictly.

An archive is one byte 0x01 (little endian), then values without padding. Three rules matter:

* A class version (u32) is stored only where its type occurs for the first time in the archive.
* A shared pointer is a u32 number: with the top bit set the object follows and receives this
  number; without it, it refers to an object seen earlier. Numbers count up from 1.
* A pointer to a polymorphic class starts with another u32: 0 is null, 0x40000000 says that the
  static type follows, otherwise it numbers the dynamic type's name (top bit set: the name follows).

Every read is bounds-checked against the bytes that are there, so no length field can cause an
allocation larger than the input; every failure is a `ForeignBytesError`.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tacit.errors import ForeignBytesError

FIRST_TIME = 0x80000000
STATIC_TYPE = 0x40000000
_LONGEST_TEXT = 256


@dataclass(frozen=True, slots=True)
class Pointer:
    """A shared pointer's number in its archive, and whether its object follows here."""

    number: int
    defined_here: bool


class ArchiveReader:
    """A bounds-checked cursor over one archive.

    Attributes:
        offset: position of the next byte.
        number_offsets: where pointer numbers were read, for writing the same bytes elsewhere.
        name_offsets: where numbers of polymorphic type names were read.
    """

    def __init__(self, archive: bytes | bytearray | memoryview) -> None:
        try:
            self._bytes = memoryview(archive).cast("B")
        except TypeError as error:
            raise ForeignBytesError("an OpenFHE archive must be contiguous bytes") from error
        self.offset = 0
        self.number_offsets: list[int] = []
        self.name_offsets: list[int] = []
        self._names: list[str] = []
        self._numbers = 0
        self._versions: set[str] = set()
        if self.u8() != 1:
            raise ForeignBytesError("an OpenFHE binary archive starts with byte 1 (little endian)")

    @property
    def numbers(self) -> int:
        """How many objects have been numbered so far."""
        return self._numbers

    @property
    def names(self) -> int:
        """How many polymorphic type names have been numbered so far."""
        return len(self._names)

    def take(self, length: int) -> memoryview:
        """Advance by `length` bytes and return a view of them."""
        end = self.offset + length
        if length < 0 or end > len(self._bytes):
            raise ForeignBytesError(
                f"the archive ends early: {length} bytes wanted at offset {self.offset}, "
                f"{len(self._bytes) - self.offset} left"
            )
        view = self._bytes[self.offset : end]
        self.offset = end
        return view

    def u8(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def u32(self) -> int:
        """Read an unsigned 32-bit integer."""
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        """Read an unsigned 64-bit integer."""
        return int.from_bytes(self.take(8), "little")

    def f64(self) -> float:
        """Read a double."""
        value: float = struct.unpack("<d", self.take(8))[0]
        return value

    def text(self) -> str:
        """Read a short ASCII string (a type name or a key tag)."""
        length = self.u64()
        if length > _LONGEST_TEXT:
            raise ForeignBytesError(f"a string of {length} bytes, at most {_LONGEST_TEXT} expected")
        try:
            return bytes(self.take(length)).decode("ascii")
        except UnicodeDecodeError as error:
            raise ForeignBytesError("a name or key tag is not ASCII") from error

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return `count` 64-bit words as a read-only view of the archive (no copy)."""
        view = np.frombuffer(self.take(8 * count), dtype="<u8")
        view.flags.writeable = False
        return view

    def expect(self, what: str, found: int, wanted: int) -> None:
        """Refuse a field that is not the value OpenFHE 1.4-1.6 writes for CKKS."""
        if found != wanted:
            raise ForeignBytesError(f"{what}: {wanted} expected, {found} found")

    def version(self, type_name: str, wanted: int = 0) -> None:
        """Read a class version where its type occurs for the first time."""
        if type_name in self._versions:
            return
        self._versions.add(type_name)
        self.expect(f"class version of {type_name}", self.u32(), wanted)

    def pointer(self) -> Pointer:
        """Read a shared pointer's number."""
        self.number_offsets.append(self.offset)
        number = self.u32()
        if not number & FIRST_TIME:
            if not 1 <= number <= self._numbers:
                raise ForeignBytesError(f"a reference to object {number}, which was not defined")
            return Pointer(number, defined_here=False)
        self._numbers += 1
        self.expect("number of a new object", number ^ FIRST_TIME, self._numbers)
        return Pointer(self._numbers, defined_here=True)

    def static_pointer(self) -> Pointer:
        """Read a polymorphic pointer whose object has the static type."""
        self.expect("pointer to a static type", self.u32(), STATIC_TYPE)
        return self.pointer()

    def named_pointer(self, type_name: str) -> Pointer | None:
        """Read a polymorphic pointer that must be null (returns None) or point to `type_name`."""
        at = self.offset
        number = self.u32()
        if number == 0:
            return None
        self.name_offsets.append(at)
        if number & FIRST_TIME:
            self._names.append(self.text())
            self.expect("number of a type name", number ^ FIRST_TIME, len(self._names))
        index = (number & ~FIRST_TIME) - 1
        if not 0 <= index < len(self._names) or self._names[index] != type_name:
            raise ForeignBytesError(f"an object of type {type_name} expected at offset {at}")
        return self.pointer()

    def end(self) -> None:
        """Refuse bytes after the last value."""
        if self.offset != len(self._bytes):
            extra = len(self._bytes) - self.offset
            raise ForeignBytesError(f"{extra} bytes follow the end of the object")


class ArchiveWriter:
    """Collects the pieces of one archive; the mirror image of `ArchiveReader`."""

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = [b"\x01"]
        self._names: list[str] = []
        self._versions: set[str] = set()
        self.numbers = 0

    @property
    def names(self) -> int:
        """How many polymorphic type names have been numbered so far."""
        return len(self._names)

    def raw(self, piece: bytes | memoryview) -> None:
        """Append bytes as they are."""
        self._pieces.append(piece)

    def u32(self, *values: int) -> None:
        """Append unsigned 32-bit integers."""
        self._pieces.append(struct.pack(f"<{len(values)}I", *values))

    def u64(self, *values: int) -> None:
        """Append unsigned 64-bit integers."""
        self._pieces.append(struct.pack(f"<{len(values)}Q", *values))

    def text(self, value: str) -> None:
        """Append a string with its length."""
        self.u64(len(value))
        self._pieces.append(value.encode("ascii"))

    def words(self, values: NDArray[np.uint64]) -> None:
        """Append 64-bit words; copies only if they are not contiguous little endian already."""
        self._pieces.append(np.ascontiguousarray(values, dtype="<u8").data.cast("B"))

    def version(self, type_name: str, value: int = 0) -> None:
        """Append a class version where its type occurs for the first time."""
        if type_name not in self._versions:
            self._versions.add(type_name)
            self.u32(value)

    def written_objects(self, numbers: int, names: Iterable[str]) -> None:
        """Note that bytes appended raw numbered this many objects and these type names."""
        self.numbers += numbers
        self._names.extend(names)

    def new_pointer(self) -> int:
        """Append a pointer whose object follows; returns its number."""
        self.numbers += 1
        self.u32(FIRST_TIME | self.numbers)
        return self.numbers

    def static_pointer_to(self, number: int | None) -> None:
        """Append a pointer of static type: a reference to `number`, or to a new object."""
        self.u32(STATIC_TYPE)
        if number is None:
            self.new_pointer()
        else:
            self.u32(number)

    def named_pointer(self, type_name: str) -> int:
        """Append a polymorphic pointer to a new object of the named dynamic type."""
        if type_name in self._names:
            self.u32(self._names.index(type_name) + 1)
        else:
            self._names.append(type_name)
            self.u32(FIRST_TIME | len(self._names))
            self.text(type_name)
        return self.new_pointer()

    def archive(self) -> bytes:
        """Return the whole archive."""
        return b"".join(self._pieces)
