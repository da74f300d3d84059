"""The wire format of protocol buffers, read with suspicion: a message is fields, a field a number and a value.

    08 96 01             field 1, a varint: 150
    12 02 68 69          field 2, two bytes: "hi"
    1D 00 00 80 3F       field 3, four bytes: the float 1.0

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from hanlin.errors import TokenizerError, problem

VARINT, EIGHT, SIZED, FOUR = 0, 1, 2, 5  # wire types; 3 and 4, groups, left the format in 2001


@dataclass(frozen=True)
class Field:
    """One field of a message, its value as the wire has it."""

    where: str
    number: int
    value: int | bytes

    def integer(self) -> int:
        """Return a signed integer; a negative one is written as its 64-bit complement."""
        if not isinstance(self.value, int):
            raise TokenizerError(problem(f"{self.where}: field {self.number}", "bytes", "a whole number"))
        return self.value - (1 << 64) if self.value >> 63 else self.value

    def flag(self) -> bool:
        """Return a boolean."""
        return self.integer() != 0

    def single(self) -> float:
        """Return a 32-bit float."""
        if not isinstance(self.value, bytes) or len(self.value) != 4:
            raise TokenizerError(problem(f"{self.where}: field {self.number}", "no float", "four bytes"))
        return float(struct.unpack("<f", self.value)[0])

    def data(self) -> bytes:
        """Return bytes, or a message inside this one."""
        if not isinstance(self.value, bytes):
            raise TokenizerError(problem(f"{self.where}: field {self.number}", "a number", "bytes"))
        return self.value

    def text(self) -> str:
        """Return UTF-8 text."""
        try:
            return self.data().decode()
        except UnicodeDecodeError:
            raise TokenizerError(problem(f"{self.where}: field {self.number}", "not UTF-8")) from None


def fields(data: bytes, where: str) -> Iterator[Field]:
    """Yield the fields of a message in order; TokenizerError at the first byte that makes no sense."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place, where)
        wire, number = key & 7, key >> 3
        if wire == VARINT and number > 0:
            value, place = _varint(data, place, where)
            yield Field(where, number, value)
            continue
        size = {EIGHT: 8, FOUR: 4}.get(wire)
        if wire == SIZED:
            size, place = _varint(data, place, where)
        if size is None or number == 0:
            given = f"field {number} of wire type {wire} at byte {place:,}"
            raise TokenizerError(problem(where, given, "this is no such file, or it is damaged"))
        if size > len(data) - place:
            given = f"field {number} of {size:,} bytes, of which {len(data) - place:,} are there"
            raise TokenizerError(problem(where, given, do="fetch the file again"))
        yield Field(where, number, data[place : place + size])
        place += size


def _varint(data: bytes, place: int, where: str) -> tuple[int, int]:
    """Return the number at `place`, seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise TokenizerError(problem(where, "ends inside a number", do="fetch the file again"))
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, place
    raise TokenizerError(problem(where, f"a number of more than ten bytes at byte {place:,}"))
