"""xen/arch-x86/hvm/start_info.h: what a PVH guest starts with."""

from __future__ import annotations

from stub.abi.layout import Struct
from stub.abi.names import value_names

# hvm_start_info.magic.
XEN_HVM_START_MAGIC_VALUE = 0x336EC578

# hvm_memmap_table_entry.type.
XEN_HVM_MEMMAP_TYPE_RAM = 1
XEN_HVM_MEMMAP_TYPE_RESERVED = 2
XEN_HVM_MEMMAP_TYPE_ACPI = 3
XEN_HVM_MEMMAP_TYPE_NVS = 4
XEN_HVM_MEMMAP_TYPE_UNUSABLE = 5
XEN_HVM_MEMMAP_TYPE_DISABLED = 6
XEN_HVM_MEMMAP_TYPE_PMEM = 7

HVM_MEMMAP_TYPES = value_names(globals(), "XEN_HVM_MEMMAP_TYPE_")

HvmStartInfo = Struct(
    "HvmStartInfo",
    56,
    magic=(0, "I"),
    version=(4, "I"),
    flags=(8, "I"),
    nr_modules=(12, "I"),
    modlist_paddr=(16, "Q"),
    cmdline_paddr=(24, "Q"),
    rsdp_paddr=(32, "Q"),
    memmap_paddr=(40, "Q"),
    memmap_entries=(48, "I"),
)

HvmModlistEntry = Struct(
    "HvmModlistEntry",
    32,
    paddr=(0, "Q"),
    size=(8, "Q"),
    cmdline_paddr=(16, "Q"),
    reserved=(24, "Q"),
)

HvmMemmapTableEntry = Struct(
    "HvmMemmapTableEntry",
    24,
    addr=(0, "Q"),
    size=(8, "Q"),
    type=(16, "I"),
    reserved=(20, "I"),
)
