"""xen/platform.h: platform_op, the part that a guest kernel may try."""

from __future__ import annotations

from stub.abi.layout import Struct
from stub.abi.names import value_names

# xen_platform_op.interface_version.
XENPF_INTERFACE_VERSION = 0x0300_0001

# platform_op commands.
XENPF_settime32 = 17
XENPF_settime64 = 62
XENPF_add_memtype = 31
XENPF_del_memtype = 32
XENPF_read_memtype = 33
XENPF_microcode_update = 35
XENPF_platform_quirk = 39
XENPF_efi_runtime_call = 49
XENPF_firmware_info = 50
XENPF_enter_acpi_sleep = 51
XENPF_change_freq = 52
XENPF_getidletime = 53
XENPF_set_processor_pminfo = 54
XENPF_get_cpuinfo = 55
XENPF_get_cpu_version = 48
XENPF_cpu_online = 56
XENPF_cpu_offline = 57
XENPF_cpu_hotadd = 58
XENPF_mem_hotadd = 59
XENPF_core_parking = 60
XENPF_resource_op = 61
XENPF_get_symbol = 63

PLATFORM_OPS = value_names(globals(), "XENPF_", skip=("XENPF_INTERFACE_VERSION",))

XenpfSettime32 = Struct("XenpfSettime32", 16, secs=(0, "I"), nsecs=(4, "I"), system_time=(8, "Q"))

XenpfSettime64 = Struct(
    "XenpfSettime64",
    24,
    secs=(0, "Q"),
    nsecs=(8, "I"),
    mbz=(12, "I"),
    system_time=(16, "Q"),
)

XenpfEnterAcpiSleep = Struct(
    "XenpfEnterAcpiSleep",
    12,
    val_a=(0, "H"),
    val_b=(2, "H"),
    sleep_state=(4, "I"),
    flags=(8, "I"),
)

XenpfPcpuinfo = Struct(
    "XenpfPcpuinfo",
    20,
    xen_cpuid=(0, "I"),
    max_present=(4, "I"),
    flags=(8, "I"),
    apic_id=(12, "I"),
    acpi_id=(16, "I"),
)

# u is the command's own structure.
XenPlatformOp = Struct("XenPlatformOp", 136, cmd=(0, "I"), interface_version=(4, "I"), u=(8, "128s"))
