"""The set-up header of a bzImage as data: where each field lies, which protocol brought it, what it says.

Source: Linux, Documentation/arch/x86/boot.rst and arch/x86/include/uapi/asm/bootparam.h. Offsets are from the
beginning of the file, and of the zero page, which has the header at the same place.
"""

from __future__ import annotations

from typing import NamedTuple

SECTOR = 512
BOOT_FLAG = 0xAA55
HEADER_MAGIC = b"HdrS"
HEADER_MAGIC_OFFSET = 0x202
HEADER_START = 0x1F1
PROTOCOL_SUBARCH = 0x0207
PROTOCOL_PAYLOAD = 0x0208


class HeaderField(NamedTuple):
    """A row: offset and size in bytes, the protocol (0x0206 is 2.06; 0 is any) that brought it, name, meaning."""

    offset: int
    size: int
    protocol: int
    name: str
    meaning: str


SETUP_HEADER = tuple(
    HeaderField(*row)
    for row in (
        (0x1F1, 1, 0x0000, "setup_sects", "sectors of set-up code after the boot sector"),
        (0x1F2, 2, 0x0000, "root_flags", "root file system read-only when not 0"),
        (0x1F4, 4, 0x0204, "syssize", "protected-mode part in units of 16 bytes"),
        (0x1F8, 2, 0x0000, "ram_size", "obsolete"),
        (0x1FA, 2, 0x0000, "vid_mode", "video mode"),
        (0x1FC, 2, 0x0000, "root_dev", "default root device number"),
        (0x1FE, 2, 0x0000, "boot_flag", "magic 0xaa55"),
        (0x200, 2, 0x0200, "jump", "short jump over the header; its target is the header's end"),
        (0x202, 4, 0x0200, "header", 'magic "HdrS"'),
        (0x206, 2, 0x0200, "version", "boot protocol"),
        (0x208, 4, 0x0200, "realmode_swtch", "boot loader's hook before protected mode"),
        (0x20C, 2, 0x0200, "start_sys_seg", "obsolete load segment"),
        (0x20E, 2, 0x0200, "kernel_version", "file offset of the version string, less 0x200"),
        (0x210, 1, 0x0200, "type_of_loader", "written by the loader: its kind and version"),
        (0x211, 1, 0x0200, "loadflags", "load options"),
        (0x212, 2, 0x0200, "setup_move_size", "size to move to 0x90000 (protocols 2.00 and 2.01)"),
        (0x214, 4, 0x0200, "code32_start", "address to jump to in protected mode"),
        (0x218, 4, 0x0200, "ramdisk_image", "written by the loader: ramdisk address"),
        (0x21C, 4, 0x0200, "ramdisk_size", "written by the loader: ramdisk bytes"),
        (0x220, 4, 0x0200, "bootsect_kludge", "obsolete"),
        (0x224, 2, 0x0201, "heap_end_ptr", "written by the loader: end of the set-up heap"),
        (0x226, 1, 0x0202, "ext_loader_ver", "written by the loader: rest of its version"),
        (0x227, 1, 0x0202, "ext_loader_type", "written by the loader: rest of its kind"),
        (0x228, 4, 0x0202, "cmd_line_ptr", "written by the loader: address of the command line"),
        (0x22C, 4, 0x0203, "initrd_addr_max", "highest address that a ramdisk may occupy"),
        (0x230, 4, 0x0205, "kernel_alignment", "alignment when relocated"),
        (0x234, 1, 0x0205, "relocatable_kernel", "whether it may be loaded elsewhere"),
        (0x235, 1, 0x020A, "min_alignment", "least alignment, as a power of two"),
        (0x236, 2, 0x020C, "xloadflags", "further load options"),
        (0x238, 4, 0x0206, "cmdline_size", "longest command line, without its NUL"),
        (0x23C, 4, 0x0207, "hardware_subarch", "written by the loader: which paravirtual platform"),
        (0x240, 8, 0x0207, "hardware_subarch_data", "written by the loader: data of that platform"),
        (0x248, 4, 0x0208, "payload_offset", "payload, from the beginning of the protected-mode part"),
        (0x24C, 4, 0x0208, "payload_length", "payload bytes, the appended size included"),
        (0x250, 8, 0x0209, "setup_data", "written by the loader: list of struct setup_data"),
        (0x258, 8, 0x020A, "pref_address", "address at which it likes to be loaded"),
        (0x260, 4, 0x020A, "init_size", "memory that it needs before it knows its memory map"),
        (0x264, 4, 0x020B, "handover_offset", "entry of the EFI handover protocol"),
        (0x268, 4, 0x020F, "kernel_info_offset", "kernel_info, from the beginning of the protected-mode part"),
    )
)
HEADER_END = SETUP_HEADER[-1].offset + SETUP_HEADER[-1].size

LOADFLAGS = {
    0: ("LOADED_HIGH", "protected-mode part at 1 MiB (bzImage) instead of 64 KiB (zImage)"),
    1: ("KASLR_FLAG", "set by the decompressor: the address is random"),
    5: ("QUIET_FLAG", "written by the loader: no early messages"),
    6: ("KEEP_SEGMENTS", "written by the loader: do not reload segment registers (2.07)"),
    7: ("CAN_USE_HEAP", "written by the loader: heap_end_ptr is valid"),
}
XLOADFLAGS = {
    0: ("XLF_KERNEL_64", "has the 64-bit entry at offset 0x200"),
    1: ("XLF_CAN_BE_LOADED_ABOVE_4G", "kernel, ramdisk and command line may lie above 4 GiB"),
    2: ("XLF_EFI_HANDOVER_32", "has the 32-bit EFI handover entry"),
    3: ("XLF_EFI_HANDOVER_64", "has the 64-bit EFI handover entry"),
    4: ("XLF_EFI_KEXEC", "can be started by kexec on EFI machines"),
    5: ("XLF_5LEVEL", "can run with 5-level page tables"),
    6: ("XLF_5LEVEL_ENABLED", "was built with 5-level page tables"),
}
SUBARCHES = {0: "PC", 1: "LGUEST", 2: "XEN", 3: "INTEL_MID", 4: "CE4100"}
SUBARCH_LGUEST = 1
