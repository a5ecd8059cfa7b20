"""How a C structure of Xen's public interface lies in memory. Every other file here only declares with it.

A field is ``(offset in bytes, struct format)``, little endian, no alignment of its own. A format is one code
(``"Q"``, a number), a counted code (``"6Q"``, a tuple of numbers) or ``"512s"`` (bytes: text, pages, nested
structures). Members of a C union are fields that overlap. Padding is not a field.

A C member whose name is a Python keyword gets a trailing underscore (``in_``).

Where a 32-bit guest's pointers and words make it another structure, the two are declared as ``Name64`` and ``Name32``,
and ``Name`` is their :class:`Twin`. Who reads a guest's structure asks a layout for that guest's, ``layout.of(bits)``.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    class Record(tuple[Any, ...]):
        """One structure's values: a namedtuple with the fields' names, made by ``Struct``."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Record = tuple


_namedtuple: Any = namedtuple  # The fields are data here: more than mypy's own reading of namedtuple() can follow.


class Field(NamedTuple):
    """Where one member lies: ``offset`` and ``size`` in bytes, ``format`` as in the ``struct`` module."""

    offset: int
    format: str
    size: int

    @property
    def is_array(self) -> bool:
        """Whether the value is a tuple of numbers rather than one value."""
        return len(self.format) > 1 and self.format[-1] != "s"


class Struct:
    """A C structure's layout.

    ``size`` is ``sizeof``, trailing padding included; ``fields`` keeps the order of the C declaration.
    """

    __slots__ = ("_compiled", "_lanes", "_make", "_pickers", "_single", "_writers", "fields", "name", "size")

    def __init__(self, name: str, size: int, /, **fields: tuple[int, str]) -> None:
        """Raises ``ValueError`` for a field that reaches past ``size``: a wrong declaration, never a guest's fault."""
        self.name = name
        self.size = size
        table = {f: Field(offset, code, struct.calcsize("<" + code)) for f, (offset, code) in fields.items()}
        for field, place in table.items():
            if place.offset < 0 or place.offset + place.size > size:
                raise ValueError(f"{name}.{field} ends at {place.offset + place.size}, past the {size} bytes of {name}")
        self.fields: Mapping[str, Field] = MappingProxyType(table)
        self._single: struct.Struct | None = None
        self._compiled = False

    def _compile(self) -> None:
        # On first use: most runs read few of the structures, and each record type costs 0.1 ms to make.
        record = _namedtuple(self.name, list(self.fields))
        # tuple.__new__ bound in C: half the time of the namedtuple's own constructor.
        self._make: Callable[[Any], Record] = partial(tuple.__new__, record)
        lanes = _lanes(self.fields)
        self._lanes = [struct.Struct(_lane_format(lane, self.fields, self.size)) for lane in lanes]
        self._pickers = _pickers(list(self.fields), [field for lane in lanes for field in lane], self.fields)
        # The common case, one format whose values are the record as they come, takes no further step.
        self._single = self._lanes[0] if len(lanes) == 1 and self._pickers is None else None
        self._writers = {
            field: (struct.Struct("<" + place.format).pack_into, place.offset, place.is_array)
            for field, place in self.fields.items()
        }
        self._compiled = True

    def __repr__(self) -> str:
        return f"Struct({self.name}, {self.size} bytes)"

    def of(self, bits: int) -> Struct:
        """Itself: guests of either width have this structure."""
        return self

    def offset(self, field: str) -> int:
        """Offset of ``field`` in bytes. ``KeyError`` when the structure has no such field."""
        return self.fields[field].offset

    def unpack_from(self, buffer: ReadableBuffer, offset: int = 0) -> Record:
        """The structure at ``offset``. ``struct.error`` when the buffer ends inside it."""
        if self._single is not None:
            return self._make(self._single.unpack_from(buffer, offset))
        if not self._compiled:
            self._compile()
        values: tuple[Any, ...] = ()
        for lane in self._lanes:
            values += lane.unpack_from(buffer, offset)
        return self._make(values if self._pickers is None else [pick(values) for pick in self._pickers])

    def unpack_array(self, buffer: ReadableBuffer, count: int, offset: int = 0) -> list[Record]:
        """``count`` structures one after the other, as an array in C. ``struct.error`` when the buffer ends before."""
        end = offset + count * self.size
        if not self._compiled:
            self._compile()
        if self._single is None:
            return [self.unpack_from(buffer, place) for place in range(offset, end, self.size)]
        with memoryview(buffer) as view:
            if len(view) < end:
                raise struct.error(f"{count} {self.name} at {offset} need {end} bytes, the buffer has {len(view)}")
            return [self._make(values) for values in self._single.iter_unpack(view[offset:end])]

    def pack(self, **values: Any) -> bytes:
        """The structure's bytes; fields not named, and padding, are zero."""
        buffer = bytearray(self.size)
        self.pack_into(buffer, 0, **values)
        return bytes(buffer)

    def pack_into(self, buffer: WriteableBuffer, offset: int, /, **values: Any) -> None:
        """Writes the named fields only; every other byte stays. ``struct.error`` when a value does not fit."""
        if not self._compiled:
            self._compile()
        for field, value in values.items():
            write, place, is_array = self._writers[field]
            if is_array:
                write(buffer, offset + place, *value)
            else:
                write(buffer, offset + place, value)


class Twin:
    """A structure that guests of 64 and of 32 bits lay out differently: one declaration for each."""

    __slots__ = ("name", "pair")

    def __init__(self, wide: Struct, narrow: Struct) -> None:
        """Raises ``ValueError`` unless the two are called ``Name64`` and ``Name32``."""
        self.name = wide.name.removesuffix("64")
        if (wide.name, narrow.name) != (f"{self.name}64", f"{self.name}32"):
            raise ValueError(f"{wide.name} and {narrow.name} are no twins")
        self.pair = {64: wide, 32: narrow}

    def __repr__(self) -> str:
        return f"Twin({self.name}, {self.pair[64].size} or {self.pair[32].size} bytes)"

    def of(self, bits: int) -> Struct:
        """The structure in a guest of ``bits``, 64 or 32."""
        return self.pair[bits]


Layout = Struct | Twin
"""What ``of(bits)`` gives a guest's own structure of."""


def _lanes(table: Mapping[str, Field]) -> list[list[str]]:
    """Fields dealt into lanes, ascending and without overlap, so that one format reads a whole lane.

    Only unions need a second lane.
    """
    lanes: list[list[str]] = []
    ends: list[int] = []
    for field, place in sorted(table.items(), key=lambda item: item[1].offset):
        free = next((i for i, end in enumerate(ends) if end <= place.offset), len(lanes))
        if free == len(lanes):
            lanes.append([])
            ends.append(0)
        lanes[free].append(field)
        ends[free] = place.offset + place.size
    return lanes


def _lane_format(lane: list[str], table: Mapping[str, Field], size: int) -> str:
    """One ``struct`` format for a lane, ``size`` bytes long: the gaps between its fields become pad bytes."""
    parts, end = ["<"], 0
    for field in lane:
        place = table[field]
        parts.append(f"{place.offset - end}x{place.format}")
        end = place.offset + place.size
    return "".join(parts) + f"{size - end}x"


def _pickers(
    declared: list[str], unpacked: list[str], table: Mapping[str, Field]
) -> list[Callable[[tuple[Any, ...]], Any]] | None:
    """How each declared field is picked out of the unpacked values; ``None`` when they are the fields as they come."""
    if declared == unpacked and not any(place.is_array for place in table.values()):
        return None
    picker: dict[str, Callable[[tuple[Any, ...]], Any]] = {}
    index = 0
    for field in unpacked:
        place = table[field]
        length = int(place.format[:-1]) if place.is_array else 1
        picker[field] = itemgetter(slice(index, index + length) if place.is_array else index)
        index += length
    return [picker[field] for field in declared]
