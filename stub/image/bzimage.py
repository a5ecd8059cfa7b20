"""A Linux bzImage: boot sector, set-up code with its header, protected-mode part with the payload."""

from __future__ import annotations

from stub.image.bootparam import HEADER_MAGIC, HEADER_MAGIC_OFFSET, PROTOCOL_PAYLOAD, SECTOR, SETUP_HEADER
from stub.image.faults import Fault, c_string
from stub.image.model import SetupHeader, frozen

VERSION_STRING_LIMIT = 256


def is_bzimage(data: memoryview) -> bool:
    """Whether ``data`` has a set-up header (protocol 2.00 and later)."""
    return bytes(data[HEADER_MAGIC_OFFSET : HEADER_MAGIC_OFFSET + 4]) == HEADER_MAGIC


def parse_setup_header(data: memoryview) -> SetupHeader:
    """The header of the bzImage ``data``: the fields of its own protocol, as far as the file reaches."""
    version = int.from_bytes(data[0x206:0x208], "little")
    values = {
        row.name: int.from_bytes(data[row.offset : row.offset + row.size], "little")
        for row in SETUP_HEADER
        if row.protocol <= version and row.offset + row.size <= len(data)
    }
    return SetupHeader(frozen(values), _kernel_version(data, values))


def _kernel_version(data: memoryview, values: dict[str, int]) -> str | None:
    """The version string, if the header points to one inside the set-up code."""
    pointer = values.get("kernel_version", 0)
    if not pointer or pointer >= SECTOR * values["setup_sects"]:
        return None
    return c_string(data[pointer + SECTOR :][:VERSION_STRING_LIMIT])


def find_payload(data: memoryview, header: SetupHeader) -> memoryview:
    """The payload, still compressed. ``Fault`` when the protocol has none or the file ends before it does."""
    major, minor = header.protocol
    if header["version"] < PROTOCOL_PAYLOAD:
        raise Fault(
            f"bzImage of boot protocol {major}.{minor:02d}, which does not tell where the kernel is (2.08 does)",
            "use the vmlinux of the same build",
        )
    start = header.setup_size + header["payload_offset"]
    end = start + header["payload_length"]
    if end > len(data):
        raise Fault(f"truncated bzImage: {end - len(data)} bytes of its payload are missing", "fetch it again")
    if end - start < 4:
        raise Fault("bzImage without a payload", "fetch or build the kernel again")
    return data[start:end]
