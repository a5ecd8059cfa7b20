"""The zero page: Linux's ``struct boot_params``, 4096 bytes, the set-up header at 0x1f1 among them.

A bzImage has only the header; the rest is the loader's to fill in. Under Xen PV there is no such loader: Linux builds
its zero page itself, out of start_info. Source: Linux, arch/x86/include/uapi/asm/bootparam.h and
Documentation/arch/x86/zero-page.rst.
"""

from __future__ import annotations

from typing import NamedTuple

ZERO_PAGE_SIZE = 4096


class ZeroPageField(NamedTuple):
    """A row: offset and size in bytes, name, meaning."""

    offset: int
    size: int
    name: str
    meaning: str


ZERO_PAGE = tuple(
    ZeroPageField(*row)
    for row in (
        (0x000, 64, "screen_info", "text mode or frame buffer"),
        (0x040, 20, "apm_bios_info", "APM BIOS"),
        (0x058, 8, "tboot_addr", "trusted boot page"),
        (0x060, 16, "ist_info", "Intel SpeedStep BIOS"),
        (0x070, 8, "acpi_rsdp_addr", "ACPI root pointer"),
        (0x080, 16, "hd0_info", "obsolete disk table"),
        (0x090, 16, "hd1_info", "obsolete disk table"),
        (0x0A0, 16, "sys_desc_table", "obsolete MCA table"),
        (0x0B0, 16, "olpc_ofw_header", "OLPC Open Firmware"),
        (0x0C0, 4, "ext_ramdisk_image", "high half of ramdisk_image"),
        (0x0C4, 4, "ext_ramdisk_size", "high half of ramdisk_size"),
        (0x0C8, 4, "ext_cmd_line_ptr", "high half of cmd_line_ptr"),
        (0x13C, 4, "cc_blob_address", "confidential computing blob"),
        (0x140, 128, "edid_info", "monitor data"),
        (0x1C0, 32, "efi_info", "EFI system table and memory map"),
        (0x1E0, 4, "alt_mem_k", "memory above 1 MiB in KiB"),
        (0x1E4, 4, "scratch", "set-up code's own"),
        (0x1E8, 1, "e820_entries", "entries used in e820_table"),
        (0x1E9, 1, "eddbuf_entries", "entries used in eddbuf"),
        (0x1EA, 1, "edd_mbr_sig_buf_entries", "entries used in edd_mbr_sig_buffer"),
        (0x1EB, 1, "kbd_status", "keyboard lock keys"),
        (0x1EC, 1, "secure_boot", "EFI secure boot"),
        (0x1EF, 1, "sentinel", "not 0: the loader copied more than the header"),
        (0x1F1, 123, "hdr", "the set-up header"),
        (0x290, 64, "edd_mbr_sig_buffer", "disk signatures"),
        (0x2D0, 2560, "e820_table", "memory map, 128 entries"),
        (0xD00, 492, "eddbuf", "disk drives"),
    )
)

XEN_PV_FILLS = {
    "type_of_loader": "0x90: Xen",
    "ramdisk_image": "physical address of start_info.mod_start",
    "ramdisk_size": "start_info.mod_len",
    "cmd_line_ptr": "physical address of start_info.cmd_line",
    "hardware_subarch": "2: XEN",
}
"""What Linux's xen_start_kernel writes into the header of its own zero page when it starts as a PV guest."""
